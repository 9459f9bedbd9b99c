"""Choosing: which pending messages go next.

Order: priority, then turn by turn among mailings, then the window that closes first, then id.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from sqlalchemy import Connection, RowMapping, Select, bindparam, select, text
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.errors import DamagedRow
from mailer_cli.models import Message
from mailer_cli.outbox import turns
from mailer_cli.outbox.close import PENDING
from mailer_cli.outbox.pace import AT_ONCE, Lead, Pace
from mailer_cli.outbox.turns import GUARD, Place
from mailer_cli.outbox.wary import Wary
from mailer_cli.times import Window, is_known

PAGE = 16  # mailings read together, or more when there are more slots
PROBED = 50  # mailings that a probe chooses from
LOOKS = 200  # mailings that one claim looks at beyond its slots; the next one goes on


@dataclass(frozen=True)
class Demand:
    """What a run asks for."""

    run_id: int
    slots: int
    rate: float | None = None
    only: int | None = None  # one mailing alone
    after: int = 0  # the mailing that was served last
    room: Callable[[RowMapping], int] = lambda mailing: sys.maxsize  # how many more of a mailing may be begun
    lead: Lead = AT_ONCE  # with a rate
    wary: Wary = field(default_factory=Wary)


@dataclass
class Turn:
    """One mailing while a claim goes round."""

    row: RowMapping
    pace: Pace
    chosen: list[tuple[int, datetime]] = field(default_factory=list)  # message id, start
    is_spent: bool = False  # nothing more of it is due

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

    def may_go(self, now: datetime) -> bool:
        """Whether its time is now; it is set back with the clock, after the fixing."""
        return bool(self.row["start_at"] <= now and self.row["end_at"] > now + GUARD)


def turns_of(rows: Iterable[RowMapping], now: datetime, lead: Lead = AT_ONCE) -> list[Turn]:
    return [Turn(row, Pace(row["rate"], row["next_free_at"], now, lead)) for row in rows]


@dataclass
class Round:
    """What a claim has looked at; `is_cut` when others may have something for the slots that are left."""

    served: int  # the mailing that was served last
    turns: list[Turn] = field(default_factory=list)
    is_cut: bool = False


def go_round(connection: Connection, demand: Demand, shared: Pace, now: datetime) -> Round:
    """Choose messages, the highest priority first; looks at a few mailings more than there are slots."""
    if demand.wary.is_probe:
        return _probe(connection, demand, shared, now)
    found, left = Round(demand.after), demand.slots
    place = Place(demand.after, demand.after)
    while left and shared.is_free and (rows := page(connection, demand, place, max(left, PAGE))):
        ring = [turn for turn in turns_of(rows, now, demand.lead) if _room(turn, demand) > 0]
        place = place.behind(rows, max(left, PAGE))
        found.turns += ring
        equal = -(-left // max(1, len(ring)))
        for share in (equal, left):  # first an equal share each, then what others left
            for turn in ring:
                limit = min(share, left, _room(turn, demand))
                got = _choose(connection, turn, limit, shared, now, demand.wary)
                left -= got
                found.served = turn.row["id"] if got else found.served
        if sum(not demand.wary.knows_of(turn.row["id"]) for turn in found.turns) >= demand.slots + LOOKS:
            found.is_cut = left > 0
            break
    return found


def page(connection: Connection, demand: Demand, place: Place, count: int) -> Sequence[RowMapping]:
    if demand.only is None:
        return turns.ring(connection, place, count)
    is_first = place == Place(demand.after, demand.after)
    return turns.one(connection, demand.only, if_awake=True) if is_first else []


def _room(turn: Turn, demand: Demand) -> int:
    """How many more of its messages may be chosen, apart from rates."""
    chosen = len(turn.chosen)
    return min(demand.room(turn.row) - chosen, demand.wary.room(turn.row["id"], chosen))


def _choose(connection: Connection, turn: Turn, limit: int, shared: Pace, now: datetime, wary: Wary) -> int:
    """Choose up to `limit` more messages of one mailing, as far as the rates allow; how many."""
    before = len(turn.chosen)
    seen = {message_id for message_id, _ in turn.chosen}
    if limit <= 0 or turn.is_spent:
        return 0
    is_wary = wary.knows_of(turn.row["id"])
    due = _due_but(connection, turn, now, wary) if is_wary else _due(connection, turn, limit + before, now)
    while len(turn.chosen) - before < limit and shared.is_free and turn.pace.is_free:
        if (message_id := next(due, None)) is None:
            turn.is_spent = not is_wary  # what it passes over is due all the same
            break
        if message_id not in seen:
            _take(turn, message_id, shared, wary)
    return len(turn.chosen) - before


def _take(turn: Turn, message_id: int, shared: Pace, wary: Wary) -> None:
    moment = max(shared.moment, turn.pace.moment)
    turn.chosen.append((message_id, moment))
    shared.take(moment)
    turn.pace.take(moment)
    wary.took(turn.row["id"], message_id)


def _probe(connection: Connection, demand: Demand, shared: Pace, now: datetime) -> Round:
    """Choose the one message whose mailing and operator have failed least, or longest ago."""
    wary, best = demand.wary, None
    found = Round(demand.after, _awake(connection, demand, now) if demand.slots and shared.is_free else [])
    for turn in sorted(found.turns, key=lambda turn: wary.order(turn.row["id"]))[:PROBED]:
        if wary.unheard_only and wary.blame_of(turn.row["id"]):
            break
        here = wary.least_blamed(connection, turn.row["id"], _zones_of(connection, turn, now), now)
        turn.is_spent = here is None and not has_more(connection, turn, now)
        best = here if here and (best is None or here.blame < best.blame) else best
        if best and not best.blame[0]:
            break
    for turn in found.turns:
        if best and turn.row["id"] == best.mailing_id:
            _take(turn, best.message_id, shared, wary)
            found.served = best.mailing_id
    found.is_cut = best is None and any(turn.is_spent for turn in found.turns)
    return found


def _awake(connection: Connection, demand: Demand, now: datetime) -> list[Turn]:
    """Mailings that may have their turn, in its order."""
    found: list[Turn] = []
    place = Place(demand.after, demand.after)
    while len(found) < LOOKS and (rows := page(connection, demand, place, PAGE)):
        awake = turns_of(rows, now, demand.lead)
        found += [
            turn for turn in awake if turn.pace.is_free and turn.may_go(now) and _room(turn, demand) > 0
        ]
        place = place.behind(rows, PAGE)
    return found


def _zones_of(connection: Connection, turn: Turn, now: datetime) -> Sequence[str | None]:
    return [None] if turn.window is None else _open_zones(connection, turn, turn.window, now)


def _due_but(connection: Connection, turn: Turn, now: datetime, wary: Wary) -> Iterator[int]:
    """As `_due`, without what the claim passes over."""
    for zone in _zones_of(connection, turn, now) if turn.may_go(now) else ():
        yield from wary.due(connection, turn.row["id"], zone, now)


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
    SELECT name, (SELECT min(due_at) FROM message
        WHERE mailing_id = :mailing AND status = 'pending' AND timezone = zone.name) AS due_at
    FROM zone WHERE name IS NOT NULL
""").columns(due_at=UTCDateTime())  # two seeks of the index a zone, however many clients sleep in it


def zones(connection: Connection, mailing_id: int) -> list[tuple[str, datetime]]:
    """The zones of what waits in a mailing, each with when the first of it is due."""
    return [(row.name, row.due_at) for row in connection.execute(_ZONES, {"mailing": mailing_id})]


def has_more(connection: Connection, turn: Turn, now: datetime) -> bool:
    """Whether something of it is due that was not claimed."""
    return next(_due(connection, turn, 1, now), None) is not None


def _due(connection: Connection, turn: Turn, limit: int, now: datetime) -> Iterator[int]:
    """Ids of due messages of a mailing, at most `limit` a zone, in the order in which they are to go."""
    given = {"mailing": turn.row["id"], "now": now, "count": limit}
    if not turn.may_go(now):
        return
    if turn.window is None:
        yield from connection.execute(_DUE, given).scalars().all()
        return
    for zone in _open_zones(connection, turn, turn.window, now):
        yield from connection.execute(_DUE_IN_ZONE, given | {"zone": zone}).scalars().all()


def _open_zones(connection: Connection, turn: Turn, window: Window, now: datetime) -> list[str]:
    """Zones in which something is due and the window is open for longer than GUARD, the first to close before
    the others.

    Nobody can tell when it is open in a zone that is not known here: what is in one waits.
    """
    due = [zone for zone, due_at in zones(connection, turn.row["id"]) if due_at <= now and is_known(zone)]
    closing = [(_closes_at(window, zone, now), zone) for zone in due]
    return [zone for closes_at, zone in sorted(closing) if closes_at > now + GUARD]


@lru_cache(maxsize=4096)  # a claim asks the same of every mailing with this window
def _closes_at(window: Window, zone: str, now: datetime) -> datetime:
    """When the window closes; now, when it is not open."""
    return window.closes_at(zone, now) if window.is_open(zone, now) else now
