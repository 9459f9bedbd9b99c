"""Who gets a mailing: a filter becomes a SELECT, and the audience is fixed by one statement."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, exists, func, insert, literal, select, update
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli import database
from mailer_cli.models import Block, Client, Mailing, Message, MessageStatus, Tally

ID_EPOCH_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z


@dataclass(frozen=True)
class Filter:
    """OR among the codes, OR among the tags, AND between the two; what is empty does not restrict."""

    operator_codes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def everyone(self) -> bool:
        return not (self.operator_codes or self.tags)

    def matches(self) -> ColumnElement[bool]:
        """The condition on `client`: neither removed nor on the stop list, and in the filter."""
        blocked = exists().where(col(Block.phone) == col(Client.phone))
        found = col(Client.removed_at).is_(None) & ~blocked
        if self.operator_codes:
            found &= col(Client.operator_code).in_(self.operator_codes)
        if self.tags:
            found &= col(Client.tag).in_(self.tags)
        return found


def filter_of(connection: Connection, mailing_id: int) -> Filter:
    row = connection.execute(
        select(col(Mailing.operator_codes), col(Mailing.tags)).where(col(Mailing.id) == mailing_id)
    ).one()
    return Filter(row.operator_codes, row.tags)


def size(connection: Connection, wanted: Filter) -> int:
    """How many clients the filter matches now."""
    return connection.execute(select(func.count()).select_from(Client).where(wanted.matches())).scalar_one()


def due(now: datetime, only: int | None = None) -> Select[int]:
    """Mailings whose time has come and whose audience is not fixed yet; `only` looks at one."""
    statement = select(col(Mailing.id)).where(
        col(Mailing.fixed_at).is_(None),
        col(Mailing.cancelled_at).is_(None),
        col(Mailing.removed_at).is_(None),
        col(Mailing.paused_at).is_(None),
        col(Mailing.start_at) <= now,
        col(Mailing.end_at) > now,
    )
    return statement if only is None else statement.where(col(Mailing.id) == only)


def fix(connection: Connection, mailing_id: int, now: datetime) -> int:
    """Fix the audience of a mailing whose time has come; how many messages were made.

    Repeating makes none: a fixed audience grows only by `top_up`.
    """
    statement = (
        update(Mailing)
        .where(col(Mailing.id) == mailing_id, col(Mailing.fixed_at).is_(None))
        .values(fixed_at=now)
    )
    if connection.execute(statement).rowcount == 0:
        return 0
    return top_up(connection, mailing_id, now)


def top_up(connection: Connection, mailing_id: int, now: datetime) -> int:
    """Make a message for every client who matches and has none yet; how many. Repeating is safe.

    Ids are never used again, not even after an old backup is restored: they begin at the clock's place,
    4,096 ids a millisecond, which no run can overtake, and stay below 2^53 until the year 2093.
    """
    wanted = filter_of(connection, mailing_id)
    database.reserve_message_ids(connection, _id_floor(now))
    there = exists().where(col(Message.mailing_id) == mailing_id, col(Message.client_id) == col(Client.id))
    pending = MessageStatus.PENDING.value
    chosen = (
        select(
            literal(mailing_id), col(Client.id), literal(pending), col(Client.timezone), *([literal(0)] * 5)
        )
        .add_columns(literal(now, UTCDateTime()), literal(now, UTCDateTime()))
        .where(wanted.matches(), ~there)
        .order_by(col(Client.id))
    )
    columns = (
        "mailing_id client_id status timezone attempts failures unknowns failures_forgiven unknowns_forgiven"
    )
    names = [*columns.split(), "created_at", "due_at"]
    made = connection.execute(insert(Message).from_select(names, chosen, include_defaults=False)).rowcount
    _count(connection, mailing_id, made)
    return made


def _id_floor(now: datetime) -> int:
    return (int(now.timestamp() * 1000) - ID_EPOCH_MS) << 12


def _count(connection: Connection, mailing_id: int, made: int) -> None:
    connection.execute(
        update(Tally)
        .where(col(Tally.mailing_id) == mailing_id, col(Tally.status) == MessageStatus.PENDING.value)
        .values(messages=col(Tally.messages) + made)
    )
