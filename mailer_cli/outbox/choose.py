"""Choosing: which pending messages go next.

Order: priority, then turn by turn among mailings, then the window that closes first, then id.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, bindparam, func, select, text
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.errors import DamagedRow
from mailer_cli.models import GatewayState, Mailing, Message, Tally
from mailer_cli.outbox.close import PENDING
from mailer_cli.outbox.pace import Pace
from mailer_cli.times import Window, is_known

GUARD = timedelta(seconds=2)  # a request must be over before the end, so none is begun shortly before it


@dataclass(frozen=True)
class Demand:
    """What a run asks for."""

    run_id: int
    slots: int
    rate: float | None = None
    only: int | None = None  # one mailing alone
    after: int = 0  # the mailing that was served last
    room: Callable[[RowMapping], int] = lambda mailing: sys.maxsize  # how many more of a mailing may be begun


@dataclass
class Turn:
    """One mailing while a claim goes round."""

    row: RowMapping
    pace: Pace
    chosen: list[tuple[int, datetime]] = field(default_factory=list)  # message id, start

    @property
    def window(self) -> Window | None:
        """Raises: DamagedRow."""
        start, end = self.row["window_from"], self.row["window_to"]
        if start is None and end is None:
            return None
        if not (
            isinstance(start, int) and isinstance(end, int) and 0 <= start < 1440 > end >= 0 and start != end
        ):
            raise DamagedRow(f"mailing {self.row['id']} has no window that can be", "mailer db check")
        return Window(start, end)


def has_due(connection: Connection, now: datetime, only: int | None = None) -> bool:
    """Whether a claim would find something, rate aside."""
    rows = mailings(connection, Demand(0, 1, only=only), now)
    turns = (Turn(row, Pace(None, None, now)) for row in rows if row["waiting"])
    return any(next(_due(connection, turn, 1, now), None) is not None for turn in turns)


def running(connection: Connection, now: datetime, only: int | None = None) -> frozenset[int]:
    """The mailings that may be sent now."""
    return frozenset(row["id"] for row in mailings(connection, Demand(0, 0, only=only), now))


def waiting(connection: Connection, now: datetime, only: int | None = None) -> list[tuple[int, int]]:
    """The mailings that may be sent now, each with how many of its messages wait, due or not."""
    return [(row["id"], row["waiting"]) for row in mailings(connection, Demand(0, 0, only=only), now)]


def mailings(connection: Connection, demand: Demand, now: datetime) -> Sequence[RowMapping]:
    """Mailings that may be sent now, with how many of their messages wait."""
    found = connection.execute(_RUNNING, {"earliest_end": now + GUARD, "now": now, "only": demand.only})
    return found.mappings().all()


_RUNNING: Select[*tuple[Any, ...]] = (
    select(
        col(Mailing.id),
        col(Mailing.priority),
        col(Mailing.end_at),
        col(Mailing.window_from),
        col(Mailing.window_to),
        col(Mailing.rate),
        col(Mailing.next_free_at),
        col(Mailing.wording_id),
        col(Mailing.refused_runs),
        col(Tally.messages).label("waiting"),
    )
    .join(Tally, (col(Tally.mailing_id) == col(Mailing.id)) & (col(Tally.status) == "pending"))
    .where(
        col(Mailing.fixed_at).is_not(None),
        col(Mailing.paused_at).is_(None),
        col(Mailing.cancelled_at).is_(None),
        col(Mailing.removed_at).is_(None),
        col(Mailing.start_at) <= bindparam("now", type_=UTCDateTime()),  # it may be set back after the fixing
        col(Mailing.end_at) > bindparam("earliest_end", type_=UTCDateTime()),
        col(Mailing.id) == func.coalesce(bindparam("only"), col(Mailing.id)),
    )
    .order_by(col(Mailing.priority).desc(), col(Mailing.id))
)
_NEXT_FREE_AT = select(col(GatewayState.next_free_at))


def next_free_at(connection: Connection) -> datetime | None:
    return connection.execute(_NEXT_FREE_AT).scalar_one()


def go_round(
    connection: Connection, turns: Sequence[Turn], demand: Demand, shared: Pace, now: datetime
) -> int:
    """Choose messages, the highest priority first; the mailing that was served last."""
    served, left = demand.after, demand.slots
    for _, group in itertools.groupby(turns, key=lambda turn: turn.row["priority"]):
        ring = _from_after(list(group), demand.after)
        for share in (-(-left // len(ring)), left):  # first an equal share each, then what others left
            for turn in ring:
                if left == 0 or not shared.is_free:
                    return served
                room = demand.room(turn.row) - len(turn.chosen)
                got = _choose(connection, turn, max(0, min(share, left, room)), shared, now)
                left -= got
                served = turn.row["id"] if got else served
    return served


def _from_after(ring: list[Turn], after: int) -> list[Turn]:
    later = [turn for turn in ring if turn.row["id"] > after]
    return later + [turn for turn in ring if turn.row["id"] <= after]


def _choose(connection: Connection, turn: Turn, limit: int, shared: Pace, now: datetime) -> int:
    """Choose up to `limit` more messages of one mailing, as far as the rates allow; how many."""
    before = len(turn.chosen)
    seen = {message_id for message_id, _ in turn.chosen}
    for message_id in _due(connection, turn, limit + before, now):
        if len(turn.chosen) - before == limit or not (shared.is_free and turn.pace.is_free):
            break
        if message_id not in seen:
            moment = max(shared.moment, turn.pace.moment)
            turn.chosen.append((message_id, moment))
            shared.take(moment)
            turn.pace.take(moment)
    return len(turn.chosen) - before


_DUE: Select[int] = (
    select(col(Message.id))
    .where(
        col(Message.mailing_id) == bindparam("mailing"),
        PENDING,
        col(Message.due_at) <= bindparam("now", type_=UTCDateTime()),
    )
    .order_by(col(Message.due_at), col(Message.id))
    .limit(bindparam("count"))
)
_DUE_IN_ZONE = _DUE.where(col(Message.timezone) == bindparam("zone"))

_ZONES = text("""
    WITH RECURSIVE zone (name) AS (
        SELECT min(timezone) FROM message WHERE mailing_id = :mailing AND status = 'pending'
        UNION ALL
        SELECT (SELECT min(timezone) FROM message
                WHERE mailing_id = :mailing AND status = 'pending' AND timezone > zone.name)
        FROM zone WHERE zone.name IS NOT NULL
    )
    SELECT name FROM zone WHERE name IS NOT NULL
""")  # one seek of the index a zone, however many clients sleep in it


def _due(connection: Connection, turn: Turn, limit: int, now: datetime) -> Iterator[int]:
    """Ids of due messages of a mailing, at most `limit` a zone, in the order in which they are to go."""
    given = {"mailing": turn.row["id"], "now": now, "count": limit}
    if turn.window is None:
        yield from connection.execute(_DUE, given).scalars().all()
        return
    for zone in _open_zones(connection, turn, turn.window, now):
        yield from connection.execute(_DUE_IN_ZONE, given | {"zone": zone}).scalars().all()


def _open_zones(connection: Connection, turn: Turn, window: Window, now: datetime) -> list[str]:
    """Zones in which the window is open for longer than GUARD, the first to close before the others.

    Nobody can tell when it is open in a zone that is not known here: what is in one waits.
    """
    found = connection.execute(_ZONES, {"mailing": turn.row["id"]}).scalars().all()
    names = filter(is_known, found)
    closing = [(window.closes_at(name, now), name) for name in names if window.is_open(name, now)]
    return [name for closes_at, name in sorted(closing) if closes_at > now + GUARD]


def held_until(connection: Connection, turns: Iterable[Turn], shared: Pace, now: datetime) -> datetime | None:
    """When the rate lets more go; None when nothing more is due, or when it does not hold anything back."""
    held = [
        max(turn.pace.free_at, shared.free_at)
        for turn in turns
        if not (turn.pace.is_free and shared.is_free) and _has_more(connection, turn, now)
    ]
    return min(held, default=None)


def _has_more(connection: Connection, turn: Turn, now: datetime) -> bool:
    chosen = len(turn.chosen)
    return len(list(itertools.islice(_due(connection, turn, chosen + 1, now), chosen + 1))) > chosen
