"""Deleting the messages of mailings that ended long ago: page by page, never of what is unfinished.

A mailing is marked in the transaction that finds it finished and deletes its first messages. From then on
nothing makes a message of it or lets one wait again, so that its tally keeps what there was.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    select,
    update,
)
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.database.rows import numbers, packed_numbers
from mailer_cli.models import Attempt, Mailing, Message, MessageStatus, Resolution, Run, Tally

PAGE = 5_000  # messages deleted, or runs, while the write lock is held
LOOKED_AT = 10_000  # messages looked at in one short reading transaction


@dataclass(frozen=True)
class Aged:
    """A mailing that ended before a moment and has messages, and what of it is unfinished."""

    mailing_id: int
    pending: int
    sending: int
    open_attempts: int

    @property
    def is_unfinished(self) -> bool:
        return bool(self.pending or self.sending or self.open_attempts)


@dataclass(frozen=True)
class Page:
    """What one transaction did: the mailings that it purged, those it was kept from, the rows deleted."""

    purged: tuple[int, ...]
    unfinished: tuple[Aged, ...]
    messages: int
    attempts: int

    @property
    def is_last(self) -> bool:
        return self.messages < PAGE


def aged(connection: Connection, before: datetime, only: Sequence[int] | None = None) -> list[Aged]:
    """Mailings that ended before that moment and whose messages are there, among `only` or of all."""
    statement = _AGED if only is None else _AGED.where(col(Mailing.id).in_(only))
    rows = connection.execute(statement, {"before": before}).mappings().all()
    in_flight = Counter(connection.execute(_IN_FLIGHT).scalars())
    return [_aged(row, in_flight[row["id"]]) for row in rows]


_HAS_MESSAGES = exists().where(col(Message.mailing_id) == col(Mailing.id))
_AGED: Select[*tuple[Any, ...]] = (
    select(
        col(Mailing.id),
        *(
            func.sum(case((col(Tally.status) == each.value, col(Tally.messages)), else_=0)).label(each.value)
            for each in (MessageStatus.PENDING, MessageStatus.SENDING)
        ),
    )
    .join(Tally, col(Tally.mailing_id) == col(Mailing.id))
    .where(col(Mailing.end_at) < bindparam("before", type_=UTCDateTime()), _HAS_MESSAGES)
    .group_by(col(Mailing.id))
    .order_by(col(Mailing.id))
)
_IN_FLIGHT = select(col(Message.mailing_id)).where(
    col(Message.id).in_(select(col(Attempt.message_id)).where(col(Attempt.outcome).is_(None)))
)


def _aged(row: RowMapping, open_attempts: int) -> Aged:
    return Aged(
        mailing_id=row["id"],
        pending=row["pending"],
        sending=row["sending"],
        open_attempts=open_attempts,
    )


def purge(connection: Connection, mailing_ids: Sequence[int], before: datetime, now: datetime) -> Page:
    """Delete one page of the messages of these mailings with all that belongs to them. Repeating is safe.

    Whether they are finished is asked here, since only what this transaction reads stays true in it.
    """
    found = aged(connection, before, mailing_ids)
    purged, messages, attempts = [], 0, 0
    for each in (each for each in found if not each.is_unfinished):
        if messages == PAGE:
            break
        _mark(connection, each.mailing_id, now)
        deleted, theirs = _delete(connection, each.mailing_id, PAGE - messages)
        messages, attempts = messages + deleted, attempts + theirs
        purged.append(each.mailing_id)
    unfinished = tuple(each for each in found if each.is_unfinished)
    return Page(tuple(purged), unfinished, messages, attempts)


def _mark(connection: Connection, mailing_id: int, now: datetime) -> None:
    unmarked = and_(col(Mailing.id) == mailing_id, col(Mailing.purged_at).is_(None))
    connection.execute(update(Mailing).where(unmarked).values(purged_at=now))


_FINAL = [each.value for each in MessageStatus if each not in (MessageStatus.PENDING, MessageStatus.SENDING)]
_NEXT = (
    select(col(Message.id))
    .where(col(Message.mailing_id) == bindparam("mailing"), col(Message.status).in_(_FINAL))
    .order_by(col(Message.client_id))
    .limit(bindparam("count"))
)
_RESOLUTIONS = delete(Resolution).where(col(Resolution.message_id).in_(numbers("ids")))
_ATTEMPTS = delete(Attempt).where(col(Attempt.message_id).in_(numbers("ids")))
_MESSAGES = delete(Message).where(col(Message.id).in_(numbers("ids")))


def _delete(connection: Connection, mailing_id: int, count: int) -> tuple[int, int]:
    """Delete so many messages of a mailing; how many, and how many attempts with them."""
    next_ids = connection.execute(_NEXT, {"mailing": mailing_id, "count": count}).scalars()
    ids = {"ids": packed_numbers(next_ids)}
    connection.execute(_RESOLUTIONS, ids)
    attempts = connection.execute(_ATTEMPTS, ids).rowcount
    return connection.execute(_MESSAGES, ids).rowcount, attempts


def count_page(connection: Connection, mailing_id: int, after: int) -> tuple[int | None, int, int]:
    """The last client among a mailing's next messages, how many they are, and their attempts."""
    page = (
        select(col(Message.client_id), col(Message.attempts))
        .where(col(Message.mailing_id) == mailing_id, col(Message.client_id) > after)
        .order_by(col(Message.client_id))
        .limit(LOOKED_AT)
        .subquery()
    )
    counts = select(func.max(page.c.client_id), func.count(), func.coalesce(func.sum(page.c.attempts), 0))
    return connection.execute(counts).one()


def ended_runs(connection: Connection, before: datetime) -> list[int]:
    """Runs that ended before that moment, without the newest of all runs."""
    newest = select(func.max(col(Run.id))).scalar_subquery()
    old = and_(col(Run.ended_at) < before, col(Run.id) < newest)
    return list(connection.execute(select(col(Run.id)).where(old)).scalars())


def runs_of_page(
    connection: Connection, after: int, without: Sequence[int]
) -> tuple[int | None, Sequence[int]]:
    """The last of the next messages by id, and the runs of their attempts, without those of some mailings."""
    page = select(col(Message.id)).where(col(Message.id) > after).order_by(col(Message.id)).limit(LOOKED_AT)
    last = connection.execute(select(func.max(page.subquery().c.id))).scalar_one()
    if last is None:
        return None, ()
    theirs = (
        select(col(Attempt.run_id))
        .distinct()
        .join(Message, col(Message.id) == col(Attempt.message_id))
        .where(
            col(Attempt.message_id) > after,
            col(Attempt.message_id) <= last,
            ~col(Message.mailing_id).in_(numbers("without")),
        )
    )
    return last, connection.execute(theirs, {"without": packed_numbers(without)}).scalars().all()


def delete_runs(connection: Connection, run_ids: Sequence[int]) -> int:
    """Delete runs that have ended and that no attempt refers to; how many."""
    ended = and_(col(Run.id).in_(numbers("ids")), col(Run.ended_at).is_not(None))
    return connection.execute(delete(Run).where(ended), {"ids": packed_numbers(run_ids)}).rowcount
