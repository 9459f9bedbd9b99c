"""Claiming: pending messages become a run's own, with an open attempt, before the first byte goes out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    Row,
    bindparam,
    case,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.database.rows import columns, numbers, packed, packed_numbers
from mailer_cli.errors import DamagedRow
from mailer_cli.models import (
    MAYBE_TAKEN,
    Attempt,
    Client,
    GatewayState,
    Message,
    MessageStatus,
    Outcome,
    Wording,
)
from mailer_cli.outbox import choose, rest, turns
from mailer_cli.outbox.choose import Demand, Turn
from mailer_cli.outbox.close import PENDING, cancel
from mailer_cli.outbox.number import doubtful, taken, unwanted, why_not
from mailer_cli.outbox.pace import Pace

UNTIL_LANDED = timedelta(seconds=2)  # when to look again whether the number has got it


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
    busy: int = 0  # how often an earlier attempt was told to wait
    wording_id: int = 0
    failed_at: datetime | None = None  # when an earlier attempt was told to wait, or its fate was unknown


@dataclass(frozen=True)
class Batch:
    """What a claim gave, and what it knows of the rest."""

    claimed: Sequence[Claimed]
    held_until: datetime | None  # more is due, but the rate holds it back until then; now: look on
    served: int  # the mailing that was served last


def claim(connection: Connection, demand: Demand, texts: dict[int, str], now: datetime) -> Batch:
    """Make up to `demand.slots` due messages the run's own. `texts` remembers wordings between calls.

    What the rate holds back is not claimed. Needs a write transaction; once that is committed the
    messages may be sent, and only by this run.
    """
    while (batch := _claim_once(connection, demand, texts, now)) is None:
        pass  # all that were chosen were cancelled or put off; there may be others behind them
    return batch


def _claim_once(connection: Connection, demand: Demand, texts: dict[int, str], now: datetime) -> Batch | None:
    if not demand.slots:
        return Batch([], None, demand.after)
    seen = turns.look_out(connection, now)
    if seen.looked_at is not None and seen.looked_at > now:
        turns.wake_all(connection, now)
    has_more = seen.has_ripe and turns.wake(connection, now)
    shared = Pace(demand.rate, seen.next_free_at, now, demand.lead)
    found = choose.go_round(connection, demand, shared, now)
    claimed = [each for turn in found.turns for each in _take(connection, turn, demand.run_id, texts, now)]
    if not claimed and any(turn.chosen for turn in found.turns):
        return None
    has_more |= rest.after_claim(connection, found.turns, now) or found.is_cut or demand.wary.is_cut
    held_until = now if has_more else rest.held_until(connection, demand, shared, now)
    if demand.rate is not None and shared.taken:
        connection.execute(update(GatewayState).values(next_free_at=shared.moment))
    claimed.sort(key=lambda each: each.start_at)
    return Batch(claimed, held_until, found.served)


def _take(
    connection: Connection, turn: Turn, run_id: int, texts: dict[int, str], now: datetime
) -> list[Claimed]:
    """Write the intent: the chosen messages are `sending`, each with an open attempt."""
    starts = dict(turn.chosen)
    if not starts:
        return []
    given = {"ids": packed_numbers(starts), "run": run_id, "wording": turn.row["wording_id"]}
    mine = connection.execute(_TAKE, given).all()
    if len(mine) < len(starts):
        _pass_over(connection, starts.keys() - {row.id for row in mine}, now)
    if not mine:
        return []
    opened = packed((row.id, row.attempts) for row in mine)
    connection.execute(_OPEN, {"rows": opened, "run": run_id, "now": now})
    _remember(connection, texts, {row.wording_id for row in mine})
    past = _past(connection, [row.id for row in mine if row.attempts > 1])
    return [_claimed(row, turn, starts, texts, past.get(row.id, UNTRIED), now) for row in mine]


_MAY_NOT_GO = exists().where(col(Client.id) == col(Message.client_id), unwanted() | taken(or_in_flight=True))
_PHONE = select(col(Client.phone)).where(col(Client.id) == col(Message.client_id)).scalar_subquery()
_TAKE = (
    update(Message)
    .where(
        col(Message.id).in_(numbers("ids")),
        PENDING,
        ~_MAY_NOT_GO.correlate(Message),
    )
    .values(
        status=MessageStatus.SENDING.value,
        run_id=bindparam("run"),
        attempts=col(Message.attempts) + 1,
        phone=case((doubtful(), col(Message.phone)), else_=_PHONE),
        wording_id=case((doubtful(), col(Message.wording_id)), else_=bindparam("wording")),
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


def _pass_over(connection: Connection, ids: Iterable[int], now: datetime) -> None:
    """Cancel here and now what may not go: its client was removed or blocked while it was in flight, or its
    number has the mailing already. What only has to wait for another to land is put off.
    """
    reasons = why_not(connection, ids)
    for reason in {each for each in reasons.values() if each is not None}:
        cancel(connection, col(Message.id).in_([one for one in reasons if reasons[one] == reason]), reason)
    waits = [one for one, reason in reasons.items() if reason is None]
    put_off = update(Message).where(col(Message.id).in_(waits), PENDING)
    connection.execute(put_off.values(due_at=now + UNTIL_LANDED))


def _remember(connection: Connection, texts: dict[int, str], wordings: set[int]) -> None:
    if new := wordings - texts.keys():
        statement = select(col(Wording.id), col(Wording.text)).where(col(Wording.id).in_(new))
        texts.update((row.id, row.text) for row in connection.execute(statement))


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier attempts of a message came to."""

    doubtful: bool = False
    busy: int = 0
    failed_at: datetime | None = None


UNTRIED = Past()
_PAST = (
    select(
        col(Attempt.message_id),
        func.max(col(Attempt.outcome).in_(MAYBE_TAKEN)),
        func.sum(col(Attempt.outcome) == Outcome.BUSY.value, type_=Integer()),
        func.max(case((col(Attempt.outcome).in_((*MAYBE_TAKEN, Outcome.BUSY)), col(Attempt.ended_at)))),
    )
    .where(col(Attempt.message_id).in_(numbers("ids")), col(Attempt.outcome).is_not(None))
    .group_by(col(Attempt.message_id))
)


def _past(connection: Connection, repeated: Sequence[int]) -> dict[int, Past]:
    if not repeated:
        return {}
    found = connection.execute(_PAST, {"ids": packed_numbers(repeated)})
    return {message_id: Past(bool(doubtful), *rest) for message_id, doubtful, *rest in found}


def _claimed(
    row: Row[*tuple[Any, ...]],
    turn: Turn,
    starts: dict[int, datetime],
    texts: dict[int, str],
    past: Past,
    now: datetime,
) -> Claimed:
    message_id, mailing_id, client_id, phone, wording_id, zone, attempts, failures, unknowns = row
    end_at, window = turn.row["end_at"], turn.window
    if not _is_fit(phone, texts[wording_id]):
        raise DamagedRow(f"message {message_id} has no phone, or no text", "mailer db check")
    return Claimed(
        message_id=message_id,
        mailing_id=mailing_id,
        client_id=client_id,
        phone=phone,
        text=texts[wording_id],
        attempt=attempts,
        failures=failures,
        unknowns=unknowns,
        doubtful=past.doubtful,
        busy=past.busy,
        failed_at=past.failed_at,
        start_at=starts[message_id],
        deadline=min(end_at, window.closes_at(zone, now)) if window else end_at,
        end_at=end_at,
        rate=turn.pace.rate,
        wording_id=wording_id,
    )


def _is_fit(phone: object, text: object) -> bool:
    return (
        type(phone) is int and 70_000_000_000 <= phone <= 79_999_999_999 and type(text) is str and text != ""
    )
