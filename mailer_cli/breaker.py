"""What all runs share about the gateway: the breaker, its wish to be left alone, whose turn is next.

The breaker opens after FAULTS gateway-wide faults in a row with no OK between. It then lets one request a
run through, and the first answer that is not gateway-wide trouble closes it.

A fault or a wish is not the gateway's but the message's own, its mailing's or its operator's, when that has
failed before, a request that was begun since has got its OK, and now it fails again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update
from sqlmodel import col

from mailer_cli import blame
from mailer_cli.gateway import Answer
from mailer_cli.gateway.answer import RETRY_AFTER_LIMIT
from mailer_cli.models import GatewayState, Outcome
from mailer_cli.outbox import Claimed
from mailer_cli.outbox.wary import Blame, Scope, operators, scopes

FAULTS = 5
LONGEST_WISH = timedelta(seconds=RETRY_AFTER_LIMIT)
SAY_AGAIN = timedelta(hours=1)
SECOND_OPINION = timedelta(seconds=15)  # after a wish that only one message has heard, another may ask
OWN_WISH = timedelta(seconds=1)  # for all others, when it is one message's or one mailing's


@dataclass(frozen=True)
class State:
    """The gateway as the runs before, and those beside, have found it."""

    faults: int
    opened_at: datetime | None
    busy_until: datetime | None
    said: str | None
    said_at: datetime | None
    served: int | None = None  # the mailing that was served last
    failed_at: datetime | None = None  # the last fault of any message
    ok_at: datetime | None = None  # when a request was begun that got its OK; not moved while all is well
    blamed: Mapping[Scope, Blame] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None

    def is_busy(self, now: datetime) -> bool:
        """Whether the gateway wishes to be left alone: no longer than it can, or a clock was ahead when that
        was written."""
        return self.busy_until is not None and now < self.busy_until <= now + LONGEST_WISH

    @property
    def is_in_trouble(self) -> bool:
        """Whether a message has failed, and none that was begun since has got its OK."""
        return self.failed_at is not None and (self.ok_at is None or self.ok_at < self.failed_at)

    def hears_others(self, now: datetime) -> bool:
        """Whether its wish is old enough for one request of a mailing that has not heard it."""
        return self.failed_at is None or self.failed_at + SECOND_OPINION <= now


_STATE = select(
    col(GatewayState.faults),
    col(GatewayState.opened_at),
    col(GatewayState.busy_until),
    col(GatewayState.said),
    col(GatewayState.said_at),
    col(GatewayState.served),
    col(GatewayState.failed_at),
    col(GatewayState.ok_at),
)


def read(connection: Connection) -> State:
    return State(**connection.execute(_STATE).mappings().one(), blamed=blame.read(connection))


def note(connection: Connection, ended: Sequence[tuple[Claimed, Answer]], now: datetime) -> State:
    """Let the answers move the breaker, in their order; its state afterwards. Needs a write transaction."""
    before = read(connection)
    is_trouble = any(_is_trouble(answer) for _, answer in ended)
    was_trouble = (
        before.blamed or before.faults or before.is_in_trouble or before.is_open or before.busy_until
    )
    if not (is_trouble or was_trouble):
        return before
    belongs = operators(connection, [claimed.message_id for claimed, _ in ended])
    hearing = _Hearing(before, now)
    for claimed, answer in ended:
        hearing.hear(claimed, answer, scopes(claimed.mailing_id, belongs.get(claimed.message_id, "")))
    after = hearing.state
    moved = {name: getattr(after, name) for name in MOVED}
    if moved != {name: getattr(before, name) for name in MOVED}:
        connection.execute(update(GatewayState).values(moved))
    blame.write(connection, before.blamed, after.blamed)
    return after


MOVED = ("faults", "opened_at", "busy_until", "failed_at", "ok_at")


def _is_trouble(answer: Answer) -> bool:
    return answer.is_gateway_wide or answer.outcome is Outcome.BUSY


class _Hearing:
    """The state while answers move it."""

    def __init__(self, before: State, now: datetime) -> None:
        self._before, self._now = before, now
        self._faults, self._opened_at = before.faults, before.opened_at
        self._busy_until = before.busy_until if before.is_busy(now) else None
        is_past = before.failed_at is not None and before.failed_at <= now  # else a clock was ahead
        self._failed_at = before.failed_at if is_past else None
        self._ok_at = before.ok_at
        self._blamed = dict(before.blamed)

    @property
    def state(self) -> State:
        return replace(
            self._before,
            faults=self._faults,
            opened_at=self._opened_at,
            busy_until=self._busy_until,
            failed_at=self._failed_at,
            ok_at=self._ok_at,
            blamed=self._blamed,
        )

    def hear(self, claimed: Claimed, answer: Answer, its: Sequence[Scope]) -> None:
        if answer.outcome is Outcome.OK:
            self._ok(claimed, its)
        elif answer.is_gateway_wide:
            self._fault(claimed, answer, its)
        elif answer.outcome is Outcome.BUSY:
            self._wish(claimed, answer, its)
        elif answer.outcome in (Outcome.TEMPORARY, Outcome.REJECTED) and self._opened_at:
            self._faults, self._opened_at = 0, None  # it speaks sense again, if only to say no

    def _ok(self, claimed: Claimed, its: Sequence[Scope]) -> None:
        self._faults, self._opened_at = 0, None
        for scope in its:
            self._blamed.pop(scope, None)
        if self._failed_at is None:
            return
        if claimed.start_at >= self._failed_at:
            self._busy_until = None  # whoever was told to wait, others need not
        if self._ok_at is None or self._ok_at < min(self._failed_at, claimed.start_at):
            self._ok_at = claimed.start_at

    def _fault(self, claimed: Claimed, answer: Answer, its: Sequence[Scope]) -> None:
        if answer.outcome is Outcome.NOT_SENT or not self._is_own(claimed, its):
            self._faults += 1
            self._opened_at = self._opened_at or (self._now if self._faults >= FAULTS else None)
        if answer.outcome is not Outcome.NOT_SENT:  # that never met the message
            self._blame(claimed, its)

    def _wish(self, claimed: Claimed, answer: Answer, its: Sequence[Scope]) -> None:
        if answer.retry_after is None:
            return
        wish = timedelta(seconds=answer.retry_after)
        if self._is_own(claimed, its):
            wish = min(wish, OWN_WISH)
        elif claimed.failed_at is not None or not self.state.is_in_trouble:
            wish = min(wish, SECOND_OPINION)  # so far only one message has heard it
        until = self._now + wish
        self._busy_until = max(self._busy_until or until, until)
        self._blame(claimed, its)

    def _owners(self, its: Sequence[Scope]) -> list[Scope]:
        """Of these scopes those that have failed while others got their OK."""
        ok_at = self._ok_at
        return [
            each for each in its if each in self._blamed and ok_at and self._blamed[each].since_at <= ok_at
        ]

    def _is_own(self, claimed: Claimed, its: Sequence[Scope]) -> bool:
        return self._is_messages(claimed) or bool(self._owners(its))

    def _is_messages(self, claimed: Claimed) -> bool:
        return bool(claimed.failed_at and self._ok_at and claimed.failed_at <= self._ok_at)

    def _blame(self, claimed: Claimed, its: Sequence[Scope]) -> None:
        """Those that it belongs to; all of its scopes as long as nobody knows."""
        owners = self._owners(its)
        for scope in owners or ([] if self._is_messages(claimed) else its):
            known = self._blamed.get(scope, Blame(0, self._now, self._now))
            self._blamed[scope] = Blame(known.faults + 1, known.since_at, self._now)
        self._failed_at = self._now


def remember_served(connection: Connection, mailing_id: int) -> None:
    """The next run goes on behind this mailing."""
    connection.execute(update(GatewayState).values(served=mailing_id))


def should_say(state: State, stopped: str | None, now: datetime) -> bool:
    """Whether it is news that a run was stopped by this, or by nothing any more: when it changes, and once
    an hour while it lasts. Cron mails every word."""
    if stopped != state.said:
        return True
    # also when it was said by a clock that was ahead
    return stopped is not None and (state.said_at is None or abs(now - state.said_at) >= SAY_AGAIN)


def remember_said(connection: Connection, stopped: str | None, now: datetime) -> None:
    connection.execute(update(GatewayState).values(said=stopped, said_at=now))
