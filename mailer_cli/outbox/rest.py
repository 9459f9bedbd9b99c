"""Rest: until when a mailing sleeps that a claim has looked at, and until when the rates hold one back."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.idle import FARTHEST
from mailer_cli.models import MailingTurn, Message
from mailer_cli.outbox import ahead, turns
from mailer_cli.outbox.choose import LOOKS, Demand, Turn, has_more, page, turns_of, zones
from mailer_cli.outbox.close import PENDING
from mailer_cli.outbox.pace import Pace
from mailer_cli.outbox.turns import GUARD, NEVER, Place, Rest
from mailer_cli.times import Window, is_known

ASK_AGAIN = timedelta(minutes=1)  # whether a zone has become known meanwhile
FEW = 8  # mailings looked at together for the one that something is due of


def may_be_due(connection: Connection, now: datetime, only: int | None = None) -> bool:
    """Whether a claim has to look; asked of no message."""
    return bool(turns.asked(connection, now, only, 1))


def has_due(connection: Connection, now: datetime, only: int | None = None) -> bool:
    """Whether a claim would find something, rates aside; when there is too much to look at, yes."""
    found = turns_of(turns.asked(connection, now, only, LOOKS + 1), now)
    return len(found) > LOOKS or any(
        has_more(connection, turn, now) or _is_ahead(_waiting(connection, turn), now)
        for turn in found
        if turn.may_go(now)
    )


def settle(connection: Connection, now: datetime, only: int | None = None) -> None:
    """Let sleep what `has_due` has looked at in vain, so that the next run need not. Repeating is safe."""
    found = turns_of(turns.asked(connection, now, only, LOOKS), now)
    rest(connection, (turn for turn in found if not has_more(connection, turn, now)), now)


def fixed(connection: Connection, mailing_id: int, now: datetime) -> None:
    """Give a mailing its turn when messages of it were made: the triggers see only what changes."""
    rest(connection, turns_of(turns.one(connection, mailing_id), now), now)


def rest(connection: Connection, of: Iterable[Turn], now: datetime) -> bool:
    """Let these sleep until something of them is due; whether that is now."""
    found = [_next_turn(connection, turn, now) for turn in of]
    turns.let_rest(connection, found, now)
    return any(each.turn is MailingTurn.NOW for each in found)


def after_claim(connection: Connection, seen: Sequence[Turn], now: datetime) -> bool:
    """Write when those that a claim has looked at have their next turn; whether one has it at once."""
    woken = rest(connection, [turn for turn in seen if turn.is_spent], now)
    paced = [turn for turn in seen if not turn.is_spent and turn.pace.rate is not None]
    turns.let_rest(connection, [_paced(connection, turn, now) for turn in paced], now)
    return woken


def _paced(connection: Connection, turn: Turn, now: datetime) -> Rest:
    """Of a mailing with a rate of its own."""
    if turn.pace.is_free:
        return Rest(turn.row["id"], MailingTurn.NOW, now, turn.pace.next_free)
    if has_more(connection, turn, now):
        return Rest(turn.row["id"], MailingTurn.HELD, turn.pace.free_at, turn.pace.next_free)
    return _next_turn(connection, turn, now)


def held_until(connection: Connection, demand: Demand, shared: Pace, now: datetime) -> datetime | None:
    """When the rates let more go; None when nothing more is due, or no rate holds it back.

    Lets those sleep of which nothing is due.
    """
    if not shared.is_free and _awake_has_due(connection, demand, now):
        return shared.free_at
    held = _first_held(connection, demand, now)
    return held if held is None or shared.is_free else max(held, shared.free_at)


def _awake_has_due(connection: Connection, demand: Demand, now: datetime) -> bool:
    place = Place(demand.after, demand.after)
    for _ in range(LOOKS // FEW):
        rows = page(connection, demand, place, FEW)
        if not rows:
            return False
        for turn in turns_of(rows, now):
            if demand.room(turn.row) <= 0:
                continue
            if has_more(connection, turn, now) or rest(connection, [turn], now):
                return True
        place = place.behind(rows, FEW)
    return True  # or it is not; the next claim looks on


def _first_held(connection: Connection, demand: Demand, now: datetime) -> datetime | None:
    for _ in range(LOOKS // FEW):
        rows = turns.held(connection, demand.only, FEW)
        for row, turn in zip(rows, turns_of(rows, now), strict=True):
            if has_more(connection, turn, now):
                until: datetime = row["next_due_at"]
                return until
            rest(connection, [turn], now)
        if len(rows) < FEW:
            return None
    return now


_FIRST: Select[Any] = select(func.min(col(Message.due_at), type_=UTCDateTime())).where(
    col(Message.mailing_id) == bindparam("mailing"), PENDING
)


def _next_turn(connection: Connection, turn: Turn, now: datetime) -> Rest:
    """When it has its turn, rates aside: at once only if something is due."""
    mailing_id, free_at = turn.row["id"], turn.pace.next_free
    due = _waiting(connection, turn)
    if not due:
        return Rest(mailing_id, None, None, free_at)
    if turn.row["end_at"] <= now + GUARD:
        first = NEVER
    elif turn.row["start_at"] > now:
        first = turn.row["start_at"]
    elif _is_ahead(due, now):
        ahead.bring_back(connection, now, mailing_id)
        first = now
    else:
        first = min(_goes_at(turn.window, zone, due_at, now) for zone, due_at in due)
    return Rest(mailing_id, MailingTurn.LATER if first > now else MailingTurn.NOW, first, free_at)


def _waiting(connection: Connection, turn: Turn) -> list[tuple[str, datetime]]:
    """When the first of what waits is due; with a window in each zone."""
    if turn.window is not None:
        return zones(connection, turn.row["id"])
    first = connection.execute(_FIRST, {"mailing": turn.row["id"]}).scalar_one()
    return [] if first is None else [("", first)]


def _is_ahead(due: Iterable[tuple[str, datetime]], now: datetime) -> bool:
    """Whether something waits for a moment that only a clock that was ahead can have named."""
    return any(due_at > now + FARTHEST for _, due_at in due)


def _goes_at(window: Window | None, zone: str, due_at: datetime, now: datetime) -> datetime:
    """When it may be claimed, at the earliest; where nobody can tell, it is asked again."""
    if window is not None and not is_known(zone):
        return now + ASK_AGAIN
    return _opens_at(window, zone, max(due_at, now))


@lru_cache(maxsize=4096)  # of every mailing with this window the same is asked
def _opens_at(window: Window | None, zone: str, moment: datetime) -> datetime:
    """From when on something may be claimed: the window is open, and for longer than GUARD."""
    if window is None:
        return moment
    opens_at = window.opens_at(zone, moment)
    closes_at = window.closes_at(zone, opens_at)
    return opens_at if closes_at > opens_at + GUARD else window.opens_at(zone, closes_at)
