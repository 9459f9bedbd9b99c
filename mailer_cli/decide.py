"""What an answer means for its message: sent, failed, unknown, or again and when. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from mailer_cli.gateway import Answer
from mailer_cli.models import MessageStatus, Outcome
from mailer_cli.outbox import Claimed, Verdict

FIRST_BACKOFF = 2.0  # seconds
LONGEST_BACKOFF = 900.0


@dataclass(frozen=True)
class Limits:
    """How often a message may fail, and how often its fate may be unknown, before it is given up."""

    failures: int
    unknowns: int  # 1: hold, an unknown fate is never tried again


def decide(claimed: Claimed, answer: Answer, limits: Limits, now: datetime, chance: float) -> Verdict:
    """The verdict on one attempt; `chance` in 0..1 spreads the repeats.

    What may have been taken by any attempt is never called failed: its fate is unknown.
    """
    status, due_at, reason = MessageStatus.PENDING, now, None
    given_up = MessageStatus.UNKNOWN if claimed.doubtful else MessageStatus.FAILED
    match answer.outcome:
        case Outcome.OK | Outcome.LATE_OK:
            status = MessageStatus.SENT
        case Outcome.NOT_SENT | Outcome.BUSY | Outcome.CONFIG | Outcome.RELEASED:
            pass  # it was certainly not taken, and nothing is wrong with it
        case Outcome.REJECTED:
            status = given_up
        case Outcome.TEMPORARY | Outcome.SERVER:
            if answer.outcome is Outcome.SERVER:
                given_up = MessageStatus.UNKNOWN
            if claimed.failures + 1 >= limits.failures:
                status = given_up
        case Outcome.UNKNOWN:
            if claimed.unknowns + 1 >= limits.unknowns:
                status = MessageStatus.UNKNOWN
        case other:
            assert_never(other)
    if status in (MessageStatus.FAILED, MessageStatus.UNKNOWN):
        reason = answer.error
    elif status is MessageStatus.PENDING and answer.outcome in COUNTED:
        due_at = min(now + _backoff(claimed, chance), claimed.end_at)
    return Verdict(
        message_id=claimed.message_id,
        attempt=claimed.attempt,
        outcome=answer.outcome,
        ended_at=now,
        status=status,
        due_at=due_at,
        reason=reason,
        http_status=answer.http_status,
        code=answer.code,
        error=answer.error,
    )


COUNTED = (Outcome.TEMPORARY, Outcome.SERVER, Outcome.UNKNOWN)


def _backoff(claimed: Claimed, chance: float) -> timedelta:
    """2 s, doubling to 15 minutes, each a half to one and a half times as long."""
    doubled = FIRST_BACKOFF * 2 ** min(claimed.failures + claimed.unknowns, 10)
    return timedelta(seconds=min(doubled, LONGEST_BACKOFF) * (0.5 + chance))
