"""Claiming: pending messages become a run's own, with an open attempt, before the first byte goes out.

Order: priority, then turn by turn among mailings, then the window that closes first, then id.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    RowMapping,
    Select,
    bindparam,
    exists,
    func,
    insert,
    select,
    text,
    update,
)
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.database.rows import columns, numbers, packed, packed_numbers
from mailer_cli.models import (
    Attempt,
    Block,
    Client,
    GatewayState,
    Mailing,
    Message,
    MessageStatus,
    Tally,
    Wording,
)
from mailer_cli.outbox.close import PENDING, cancel, doubtful
from mailer_cli.outbox.pace import Pace
from mailer_cli.times import Window

GUARD = timedelta(seconds=2)  # a request must be over before the end, so none is begun shortly before it


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message that a run owns: what to send, when to start, and by when it must be over."""

    message_id: int
    mailing_id: int
    client_id: int
    phone: int
    text: str
    attempt: int
    failures: int  # counted before this attempt, less what was forgiven
    unknowns: int
    doubtful: bool  # an earlier attempt may have been taken
    start_at: datetime
    deadline: datetime  # the mailing's end or the window's closing
    end_at: datetime
    rate: float | None = None  # the mailing's own, in messages per second


@dataclass(frozen=True)
class Demand:
    """What a run asks for."""

    run_id: int
    slots: int
    rate: float | None = None
    only: int | None = None  # one mailing alone
    after: int = 0  # the mailing that was served last


@dataclass(frozen=True)
class Batch:
    """What a claim gave, and what it knows of the rest."""

    claimed: Sequence[Claimed]
    held_until: datetime | None  # more is due, but the rate holds it back until then
    running: frozenset[int]  # the mailings that may be sent now
    served: int  # the mailing that was served last


@dataclass
class _Turn:
    """One mailing while a claim goes round."""

    row: RowMapping
    pace: Pace
    chosen: list[tuple[int, datetime]] = field(default_factory=list)  # message id, start

    @property
    def window(self) -> Window | None:
        start, end = self.row["window_from"], self.row["window_to"]
        return None if start is None else Window(start, end)


def claim(connection: Connection, demand: Demand, texts: dict[int, str], now: datetime) -> Batch:
    """Make up to `demand.slots` due messages the run's own. `texts` remembers wordings between calls.

    What the rate holds back is not claimed. Needs a write transaction; once that is committed the
    messages may be sent, and only by this run.
    """
    while (batch := _claim_once(connection, demand, texts, now)) is None:
        pass  # all that were chosen were cancelled instead; there may be others behind them
    return batch


def _claim_once(connection: Connection, demand: Demand, texts: dict[int, str], now: datetime) -> Batch | None:
    turns = [
        _Turn(row, Pace(row["rate"], row["next_free_at"], now)) for row in _running(connection, demand, now)
    ]
    running = frozenset(turn.row["id"] for turn in turns)
    waiting = [turn for turn in turns if turn.row["waiting"]]
    if not waiting:
        return Batch([], None, running, demand.after)
    shared = Pace(demand.rate, None if demand.rate is None else _next_free_at(connection), now)
    served = _go_round(connection, waiting, demand, shared, now)
    held_until = _held_until(connection, waiting, shared, now) if demand.slots else None
    claimed = [each for turn in waiting for each in _take(connection, turn, demand.run_id, texts, now)]
    if not claimed and any(turn.chosen for turn in waiting):
        return None
    _advance(connection, waiting, shared)
    return Batch(sorted(claimed, key=lambda each: each.start_at), held_until, running, served)


def has_due(connection: Connection, now: datetime, only: int | None = None) -> bool:
    """Whether a claim would find something, rate aside."""
    rows = _running(connection, Demand(0, 1, only=only), now)
    turns = (_Turn(row, Pace(None, None, now)) for row in rows if row["waiting"])
    return any(next(_due(connection, turn, 1, now), None) is not None for turn in turns)


def running(connection: Connection, now: datetime, only: int | None = None) -> frozenset[int]:
    """The mailings that may be sent now."""
    return frozenset(row["id"] for row in _running(connection, Demand(0, 0, only=only), now))


def waiting(connection: Connection, now: datetime, only: int | None = None) -> list[tuple[int, int]]:
    """The mailings that may be sent now, each with how many of its messages wait, due or not."""
    return [(row["id"], row["waiting"]) for row in _running(connection, Demand(0, 0, only=only), now)]


def _running(connection: Connection, demand: Demand, now: datetime) -> Sequence[RowMapping]:
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


def _next_free_at(connection: Connection) -> datetime | None:
    return connection.execute(_NEXT_FREE_AT).scalar_one()


def _go_round(
    connection: Connection, turns: Sequence[_Turn], demand: Demand, shared: Pace, now: datetime
) -> int:
    """Choose messages, the highest priority first; the mailing that was served last."""
    served, left = demand.after, demand.slots
    for _, group in itertools.groupby(turns, key=lambda turn: turn.row["priority"]):
        ring = _from_after(list(group), demand.after)
        for share in (-(-left // len(ring)), left):  # first an equal share each, then what others left
            for turn in ring:
                if left == 0 or not shared.is_free:
                    return served
                got = _choose(connection, turn, min(share, left), shared, now)
                left -= got
                served = turn.row["id"] if got else served
    return served


def _from_after(ring: list[_Turn], after: int) -> list[_Turn]:
    later = [turn for turn in ring if turn.row["id"] > after]
    return later + [turn for turn in ring if turn.row["id"] <= after]


def _choose(connection: Connection, turn: _Turn, limit: int, shared: Pace, now: datetime) -> int:
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


def _due(connection: Connection, turn: _Turn, limit: int, now: datetime) -> Iterator[int]:
    """Ids of due messages of a mailing, at most `limit` a zone, in the order in which they are to go."""
    given = {"mailing": turn.row["id"], "now": now, "count": limit}
    if turn.window is None:
        yield from connection.execute(_DUE, given).scalars().all()
        return
    for zone in _open_zones(connection, turn, turn.window, now):
        yield from connection.execute(_DUE_IN_ZONE, given | {"zone": zone}).scalars().all()


def _open_zones(connection: Connection, turn: _Turn, window: Window, now: datetime) -> list[str]:
    """Zones in which the window is open for longer than GUARD, the first to close before the others."""
    names = connection.execute(_ZONES, {"mailing": turn.row["id"]}).scalars().all()
    closing = [(window.closes_at(name, now), name) for name in names if window.is_open(name, now)]
    return [name for closes_at, name in sorted(closing) if closes_at > now + GUARD]


def _held_until(
    connection: Connection, turns: Iterable[_Turn], shared: Pace, now: datetime
) -> datetime | None:
    """When the rate lets more go; None when nothing more is due, or when it does not hold anything back."""
    held = [
        max(turn.pace.free_at, shared.free_at)
        for turn in turns
        if not (turn.pace.is_free and shared.is_free) and _has_more(connection, turn, now)
    ]
    return min(held, default=None)


def _has_more(connection: Connection, turn: _Turn, now: datetime) -> bool:
    chosen = len(turn.chosen)
    return len(list(itertools.islice(_due(connection, turn, chosen + 1, now), chosen + 1))) > chosen


def _take(
    connection: Connection, turn: _Turn, run_id: int, texts: dict[int, str], now: datetime
) -> list[Claimed]:
    """Write the intent: the chosen messages are `sending`, each with an open attempt."""
    starts = dict(turn.chosen)
    given = {"ids": packed_numbers(starts), "run": run_id, "wording": turn.row["wording_id"]}
    taken = connection.execute(_TAKE, given).all()
    if len(taken) < len(starts):
        _cancel_unwanted(connection, starts.keys() - {row.id for row in taken})
    if not taken:
        return []
    opened = packed((row.id, row.attempts) for row in taken)
    connection.execute(_OPEN, {"rows": opened, "run": run_id, "now": now})
    _remember(connection, texts, {row.wording_id for row in taken})
    in_doubt = _in_doubt(connection, [row.id for row in taken if row.attempts > 1])
    return [_claimed(row, turn, starts, texts, in_doubt, now) for row in taken]


_UNWANTED = col(Client.removed_at).is_not(None) | exists().where(
    col(Block.phone) == func.coalesce(col(Message.phone), col(Client.phone))
).correlate(Message, Client)
_PHONE = select(col(Client.phone)).where(col(Client.id) == col(Message.client_id)).scalar_subquery()
_TAKE = (
    update(Message)
    .where(
        col(Message.id).in_(numbers("ids")),
        PENDING,
        ~exists().where(col(Client.id) == col(Message.client_id), _UNWANTED).correlate(Message),
    )
    .values(
        status=MessageStatus.SENDING.value,
        run_id=bindparam("run"),
        attempts=col(Message.attempts) + 1,
        phone=func.coalesce(col(Message.phone), _PHONE),
        wording_id=func.coalesce(col(Message.wording_id), bindparam("wording")),
    )
    .returning(
        col(Message.id),
        col(Message.mailing_id),
        col(Message.client_id),
        col(Message.phone),
        col(Message.wording_id),
        col(Message.timezone),
        col(Message.attempts),
        (col(Message.failures) - col(Message.failures_forgiven)).label("failures"),
        (col(Message.unknowns) - col(Message.unknowns_forgiven)).label("unknowns"),
    )
)
_OPENED = columns("message", "attempt")
_OPEN = insert(Attempt).from_select(
    ["message_id", "number", "run_id", "started_at"],
    select(
        *_OPENED.values(),
        bindparam("run", type_=BigInteger()),
        bindparam("now", type_=UTCDateTime()),
    ),
)
_WHO_IS_UNWANTED = (
    select(col(Message.id), col(Client.removed_at))
    .join(Client, col(Client.id) == col(Message.client_id))
    .where(col(Message.id).in_(numbers("ids")), _UNWANTED)
)


def _cancel_unwanted(connection: Connection, ids: Iterable[int]) -> None:
    """Cancel here and now what would go to a client who is removed or on the stop list.

    It waited in flight when that was said, and has come back.
    """
    found = connection.execute(_WHO_IS_UNWANTED, {"ids": packed_numbers(ids)}).all()
    removed = [row.id for row in found if row.removed_at is not None]
    blocked = [row.id for row in found if row.removed_at is None]
    for which, reason in ((removed, "client removed"), (blocked, "client blocked")):
        if which:
            cancel(connection, col(Message.id).in_(which), reason)


def _remember(connection: Connection, texts: dict[int, str], wordings: set[int]) -> None:
    if new := wordings - texts.keys():
        statement = select(col(Wording.id), col(Wording.text)).where(col(Wording.id).in_(new))
        texts.update((row.id, row.text) for row in connection.execute(statement))


def _in_doubt(connection: Connection, repeated: Sequence[int]) -> frozenset[int]:
    """Which of these messages may have been taken by an earlier attempt."""
    if not repeated:
        return frozenset()
    statement = select(col(Message.id)).where(col(Message.id).in_(repeated), doubtful())
    return frozenset(connection.execute(statement).scalars())


def _claimed(
    row: Row[*tuple[Any, ...]],
    turn: _Turn,
    starts: dict[int, datetime],
    texts: dict[int, str],
    in_doubt: frozenset[int],
    now: datetime,
) -> Claimed:
    message_id, mailing_id, client_id, phone, wording_id, zone, attempts, failures, unknowns = row
    end_at, window = turn.row["end_at"], turn.window
    return Claimed(
        message_id=message_id,
        mailing_id=mailing_id,
        client_id=client_id,
        phone=phone,
        text=texts[wording_id],
        attempt=attempts,
        failures=failures,
        unknowns=unknowns,
        doubtful=message_id in in_doubt,
        start_at=starts[message_id],
        deadline=min(end_at, window.closes_at(zone, now)) if window else end_at,
        end_at=end_at,
        rate=turn.pace.rate,
    )


def _advance(connection: Connection, turns: Iterable[_Turn], shared: Pace) -> None:
    """Store how far the rates are used up."""
    for turn in turns:
        if turn.pace.rate is not None and turn.pace.taken:
            mine = update(Mailing).where(col(Mailing.id) == turn.row["id"])
            connection.execute(mine.values(next_free_at=turn.pace.moment))
    if shared.rate is not None and shared.taken:
        connection.execute(update(GatewayState).values(next_free_at=shared.moment))
