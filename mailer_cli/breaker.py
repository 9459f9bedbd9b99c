"""What all runs share about the gateway: the breaker, its wish to be left alone, what was said of it.

The breaker opens after FAULTS gateway-wide faults in a row with no OK between. It then lets one request a
run through, and the first answer that is not gateway-wide trouble closes it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update
from sqlmodel import col

from mailer_cli.gateway import Answer
from mailer_cli.gateway.answer import RETRY_AFTER_LIMIT
from mailer_cli.models import GatewayState, Outcome

FAULTS = 5
SAY_AGAIN = timedelta(hours=1)
LONGEST_WISH = timedelta(seconds=RETRY_AFTER_LIMIT)


@dataclass(frozen=True)
class State:
    """The gateway as the runs before, and those beside, have found it."""

    faults: int
    opened_at: datetime | None
    busy_until: datetime | None
    said: str | None
    said_at: datetime | None

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None

    def is_busy(self, now: datetime) -> bool:
        """Whether the gateway wishes to be left alone: no longer than it can, or a clock was ahead when that
        was written."""
        return self.busy_until is not None and now < self.busy_until <= now + LONGEST_WISH


_STATE = select(
    col(GatewayState.faults),
    col(GatewayState.opened_at),
    col(GatewayState.busy_until),
    col(GatewayState.said),
    col(GatewayState.said_at),
)


def read(connection: Connection) -> State:
    return State(**connection.execute(_STATE).mappings().one())


def note(connection: Connection, answers: Iterable[Answer], now: datetime) -> State:
    """Let the answers move the breaker, in their order; its state afterwards. Needs a write transaction."""
    before = read(connection)
    faults, opened_at = before.faults, before.opened_at
    busy_until = before.busy_until if before.is_busy(now) else None
    for answer in answers:
        if answer.outcome is Outcome.OK:
            faults, opened_at = 0, None
        elif answer.is_gateway_wide:
            faults += 1
            opened_at = opened_at or (now if faults >= FAULTS else None)
        elif answer.outcome in (Outcome.TEMPORARY, Outcome.REJECTED) and opened_at:
            faults, opened_at = 0, None  # it speaks sense again, if only to say no
        if answer.retry_after is not None:
            wish = now + timedelta(seconds=answer.retry_after)
            busy_until = max(busy_until or wish, wish)
    after = State(faults, opened_at, busy_until, before.said, before.said_at)
    if after != before:
        moved = {"faults": faults, "opened_at": opened_at, "busy_until": busy_until}
        connection.execute(update(GatewayState).values(moved))
    return after


def should_say(state: State, stopped: str | None, now: datetime) -> bool:
    """Whether it is news that a run was stopped by this, or by nothing any more: when it changes, and once
    an hour while it lasts. Cron mails every word."""
    if stopped != state.said:
        return True
    # also when it was said by a clock that was ahead
    return stopped is not None and (state.said_at is None or abs(now - state.said_at) >= SAY_AGAIN)


def remember_said(connection: Connection, stopped: str | None, now: datetime) -> None:
    connection.execute(update(GatewayState).values(said=stopped, said_at=now))
