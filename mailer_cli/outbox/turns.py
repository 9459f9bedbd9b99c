"""Whose turn it is: which mailings a claim has to look at, and which sleep until something of them is due.

Too early a look costs a look, too late a one loses a message. So a mailing sleeps only by the word of a claim
that has looked, in its transaction, and triggers on messages and plans wake it when that word is overtaken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    union_all,
    update,
)
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.database.rows import columns, packed, stored
from mailer_cli.models import GatewayState, Mailing, MailingTurn, Tally

GUARD = timedelta(seconds=2)  # a request must be over before the end, so none is begun shortly before it
NEVER = datetime(9998, 12, 31, tzinfo=UTC)  # unless its plan changes: its end is too near
WOKEN = 1_000  # sleepers that one claim wakes
BEYOND = 2**62  # any priority or id

_NOW = bindparam("now", type_=UTCDateTime())
_COUNT: ColumnElement[int] = bindparam("count")
_ROW = (
    col(Mailing.id),
    col(Mailing.priority),
    col(Mailing.start_at),
    col(Mailing.end_at),
    col(Mailing.window_from),
    col(Mailing.window_to),
    col(Mailing.rate),
    col(Mailing.next_free_at),
    col(Mailing.wording_id),
    col(Mailing.refused_runs),
)


def _is(turn: MailingTurn) -> ColumnElement[bool]:
    """Literally as in the index, or it is not used; for a parameter SQLite would plan anew each time."""
    return col(Mailing.turn) == literal_column(f"'{turn}'")


_IS_GOING = and_(
    col(Mailing.paused_at).is_(None), col(Mailing.cancelled_at).is_(None), col(Mailing.removed_at).is_(None)
)
IS_STOPPED = or_(col(Mailing.cancelled_at).is_not(None), col(Mailing.removed_at).is_not(None))
IS_WAITING = and_(col(Mailing.turn).is_not(None), _IS_GOING)
_IS_AWAKE = and_(_is(MailingTurn.NOW), _IS_GOING)
_IS_RESTING = and_(col(Mailing.turn) != literal_column(f"'{MailingTurn.NOW}'"), _IS_GOING)
_IS_HELD = and_(_is(MailingTurn.HELD), _IS_RESTING)
_IS_LATER = and_(_is(MailingTurn.LATER), _IS_RESTING, col(Mailing.next_due_at) <= _NOW)
_IS_RIPE = or_(and_(_IS_HELD, col(Mailing.next_due_at) <= _NOW), _IS_LATER)


@dataclass(frozen=True)
class Place:
    """How far a claim has gone round: in the ring of one priority, which begins behind the mailing that was
    served last and ends with it, and then below that priority."""

    after: int
    low: int  # those behind `after` that are not higher than this have had their turn
    again: int = 0  # likewise, once the ring has come round, those up to `after`
    below: int = BEYOND

    def behind(self, page: Sequence[RowMapping], count: int) -> "Place":
        """Where to go on after a page for which so many were asked."""
        last = page[-1]
        if len(page) < count:
            return Place(self.after, self.after, below=last["priority"])
        same = replace(self, below=last["priority"] + 1)
        if last["id"] > self.after:
            return replace(same, low=last["id"])
        return replace(same, low=BEYOND, again=last["id"])


@dataclass(frozen=True)
class Rest:
    """What a claim has found of a mailing: when it has its turn, and how far its rate is used up."""

    mailing_id: int
    turn: MailingTurn | None
    next_due_at: datetime | None
    next_free_at: datetime | None


_HIGHEST = (
    select(func.max(col(Mailing.priority)))
    .where(_IS_AWAKE, col(Mailing.priority) < bindparam("below"))
    .scalar_subquery()
)


def _part(*which: ColumnElement[bool]) -> Select[Any]:
    ring = select(*_ROW).where(_IS_AWAKE, col(Mailing.priority) == _HIGHEST, *which)
    return select(ring.order_by(col(Mailing.id)).limit(_COUNT).subquery())


_RING = union_all(
    _part(col(Mailing.id) > bindparam("low")),
    _part(col(Mailing.id) > bindparam("again"), col(Mailing.id) <= bindparam("after")),
).limit(_COUNT)
_ONE = select(*_ROW).where(col(Mailing.id) == bindparam("only"))
_HELD = select(*_ROW, col(Mailing.next_due_at)).where(_IS_HELD).order_by(col(Mailing.next_due_at))
_MAY_BE_DUE = [  # the order leads to the index
    select(*_ROW).where(_IS_AWAKE).order_by(col(Mailing.priority)),
    select(*_ROW).where(_IS_HELD).order_by(col(Mailing.next_due_at)),
    select(*_ROW).where(_IS_LATER).order_by(col(Mailing.next_due_at)),
]


def ring(connection: Connection, place: Place, count: int) -> Sequence[RowMapping]:
    """So many mailings that are awake, of one priority, in the order of their turns."""
    given = {"below": place.below, "low": place.low, "again": place.again, "after": place.after}
    return connection.execute(_RING, {**given, "count": count}).mappings().all()


def one(connection: Connection, mailing_id: int, *, if_awake: bool = False) -> Sequence[RowMapping]:
    statement = _ONE.where(_IS_AWAKE) if if_awake else _ONE
    return connection.execute(statement, {"only": mailing_id}).mappings().all()


def held(connection: Connection, only: int | None, count: int) -> Sequence[RowMapping]:
    """So many of those that their own rates hold back, the one that is free first before the others."""
    statement = _HELD if only is None else _HELD.where(col(Mailing.id) == only)
    return connection.execute(statement.limit(_COUNT), {"count": count}).mappings().all()


def asked(connection: Connection, now: datetime, only: int | None, count: int) -> Sequence[RowMapping]:
    """So many of those that may have something due, in no order; what the rates hold back, too."""
    parts = _MAY_BE_DUE if only is None else [each.where(col(Mailing.id) == only) for each in _MAY_BE_DUE]
    statement = union_all(*(select(each.limit(_COUNT).subquery()) for each in parts)).limit(_COUNT)
    return connection.execute(statement, {"now": now, "count": count}).mappings().all()


_LOOK_OUT = select(
    col(GatewayState.next_free_at),
    col(GatewayState.looked_at),
    select(col(Mailing.id)).where(_IS_RIPE).exists().label("has_ripe"),
)
_WAKE = (
    update(Mailing)
    .where(col(Mailing.id).in_(select(col(Mailing.id)).where(_IS_RIPE).limit(WOKEN)))
    .values(turn=MailingTurn.NOW.value)
)


@dataclass(frozen=True)
class Lookout:
    """What a claim has to know before it goes round. `looked_at` is later than now only when the clock was
    set back: nobody knows then whose sleep it has made too long."""

    next_free_at: datetime | None
    looked_at: datetime | None
    has_ripe: bool


def look_out(connection: Connection, now: datetime) -> Lookout:
    return Lookout(**connection.execute(_LOOK_OUT, {"now": now}).mappings().one())


def wake(connection: Connection, now: datetime) -> bool:
    """Wake those whose time has come; whether there may be more of them."""
    return connection.execute(_WAKE, {"now": now}).rowcount == WOKEN


def wake_all(connection: Connection, now: datetime) -> None:
    """Wake whatever sleeps, since a clock that was ahead may have let it."""
    asleep = update(Mailing).where(col(Mailing.turn).is_not(None))
    connection.execute(asleep.values(turn=MailingTurn.NOW.value))
    connection.execute(update(GatewayState).values(looked_at=now))


_GIVEN = columns("mailing", "turn", "due", "free")
_LET_REST = (
    update(Mailing)
    .where(col(Mailing.id) == _GIVEN["mailing"])
    .values(turn=_GIVEN["turn"], next_due_at=_GIVEN["due"], next_free_at=_GIVEN["free"])
)
_LOOKED = (
    update(GatewayState)
    .where(or_(col(GatewayState.looked_at).is_(None), col(GatewayState.looked_at) < _NOW))
    .values(looked_at=_NOW)
)


def let_rest(connection: Connection, rests: Sequence[Rest], now: datetime) -> None:
    """Write what was found, in the transaction that has looked."""
    if not rests:
        return
    rows = ((each.mailing_id, each.turn, _kept(each.next_due_at), _kept(each.next_free_at)) for each in rests)
    connection.execute(_LET_REST, {"rows": packed(rows)})
    if any(each.turn is not MailingTurn.NOW for each in rests):
        connection.execute(_LOOKED, {"now": now})


def _kept(moment: datetime | None) -> str | None:
    return None if moment is None else stored(moment)


def forget(connection: Connection, which: ColumnElement[bool]) -> None:
    """Nothing of these mailings waits any more."""
    mine = update(Mailing).where(col(Mailing.turn).is_not(None), which)
    connection.execute(mine.values(turn=None, next_due_at=None))


_SENDABLE = (
    col(Mailing.fixed_at).is_not(None),
    col(Mailing.paused_at).is_(None),
    col(Mailing.cancelled_at).is_(None),
    col(Mailing.removed_at).is_(None),
    col(Mailing.start_at) <= _NOW,  # the clock may be set back after the fixing
    col(Mailing.end_at) > bindparam("earliest_end", type_=UTCDateTime()),
)
_WAITING = (
    select(col(Mailing.id), col(Tally.messages))
    .join(Tally, (col(Tally.mailing_id) == col(Mailing.id)) & (col(Tally.status) == "pending"))
    .where(col(Mailing.turn).is_not(None), *_SENDABLE)
    .order_by(col(Mailing.priority).desc(), col(Mailing.id))
)


def waiting(connection: Connection, now: datetime, only: int | None = None) -> list[tuple[int, int]]:
    """The mailings that may be sent now, each with how many of its messages wait, due or not."""
    statement = _WAITING if only is None else _WAITING.where(col(Mailing.id) == only)
    found = connection.execute(statement, {"now": now, "earliest_end": now + GUARD})
    return [(mailing_id, messages) for mailing_id, messages in found]
