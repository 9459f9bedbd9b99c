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

    @property
    def holds(self) -> bool:
        return self.unknowns == 1


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
        case Outcome.TEMPORARY:
            if claimed.failures + 1 >= limits.failures:
                status = given_up
        case Outcome.UNKNOWN | Outcome.SERVER:  # the latter is in old rows alone
            if claimed.unknowns + 1 >= limits.unknowns:
                status = MessageStatus.UNKNOWN
        case other:
            assert_never(other)
    if status in (MessageStatus.FAILED, MessageStatus.UNKNOWN):
        reason = answer.error
    elif status is MessageStatus.PENDING:
        due_at = min(now + _wait(claimed, answer, chance), claimed.end_at)
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


COUNTED = (Outcome.TEMPORARY, Outcome.UNKNOWN)


def _wait(claimed: Claimed, answer: Answer, chance: float) -> timedelta:
    """How long a message waits by itself. One that was told to wait keeps to the time that was named; when
    that is all it ever hears, it is asked as rarely as one whose fate is unknown."""
    if answer.outcome in COUNTED:
        return _backoff(claimed.failures + claimed.unknowns, chance)
    if answer.outcome is Outcome.BUSY:
        named = timedelta(seconds=min(answer.retry_after or 0.0, LONGEST_BACKOFF))
        return max(named, _backoff(claimed.busy - 1, chance)) if claimed.busy else named
    return timedelta()


def _backoff(times: int, chance: float) -> timedelta:
    """2 s, doubling to 15 minutes, each a half to one and a half times as long."""
    doubled = FIRST_BACKOFF * 2 ** min(times, 10)
    return timedelta(seconds=min(doubled, LONGEST_BACKOFF) * (0.5 + chance))
