"""Checked rows wait in temporary tables, until a few statements compare and apply them all.

Staging takes no lock of the database. What a cell leaves open is NULL here until its row meets its client.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Integer,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    and_,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli import clients, database, outbox
from mailer_cli.models import Block, Client

Numbered = tuple[int, str | None, str | None, str | None, bool | None]
"""An id, operator code, tag, time zone, and whether it is blocked; None is left open."""

Staged = tuple[int, int, int]
"""Phone, line, and the id of the attributes: they repeat themselves, so each combination is kept once."""

metadata = MetaData()
staged = Table(
    "staged",
    metadata,
    Column("phone", Integer, primary_key=True, autoincrement=False),
    Column("line", Integer, nullable=False),
    Column("attributes_id", Integer, nullable=False),
    prefixes=["TEMPORARY"],
)
attributes = Table(
    "attributes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("operator_code", Text),
    Column("tag", Text),
    Column("timezone", Text),
    Column("blocked", Boolean(create_constraint=False)),
    prefixes=["TEMPORARY"],
)
changing = Table(  # without a key, so that the clients are searched by it and not the other way round
    "changing",
    metadata,
    Column("client_id", Integer, nullable=False),
    Column("attributes_id", Integer, nullable=False),
    Column("moves", Boolean(create_constraint=False)),
    prefixes=["TEMPORARY"],
)

GIVEN = (attributes.c.operator_code, attributes.c.tag, attributes.c.timezone)
is_blocked = attributes.c.blocked.is_(True)
only_stopped = and_(is_blocked, *(each.is_(None) for each in GIVEN))  # of nobody whom we know anything about
rows = staged.join(attributes, attributes.c.id == staged.c.attributes_id)
its_client = col(Client.phone) == staged.c.phone
moves = attributes.c.timezone != col(Client.timezone)
differs = or_(  # never true for what is NULL
    attributes.c.operator_code != col(Client.operator_code), attributes.c.tag != col(Client.tag), moves
)


class OnConflict(StrEnum):
    """What happens to a client who is known already."""

    UPDATE = "update"
    SKIP = "skip"
    ERROR = "error"


@dataclass(frozen=True)
class Counts:
    """What applying the staged rows makes of them."""

    new: int
    changed: int
    same: int
    default_timezone: int
    blocked: int


NOTHING = Counts(0, 0, 0, 0, 0)


def prepare(connection: Connection) -> None:
    metadata.create_all(connection, checkfirst=False)


@dataclass(frozen=True)
class Repeat:
    """A line whose phone an earlier line has, and whether the two say the same."""

    line: int
    first_line: int
    same: bool


def stage(connection: Connection, found: Sequence[Staged], fresh: Sequence[Numbered]) -> list[Repeat]:
    """Put rows aside, and the attributes that they are the first to have; which rows were not taken."""
    database.insert_new(connection, attributes, fresh)
    # sorted, since the table is a tree by phone; of two equal phones the first line stays first
    if database.insert_new(connection, staged, sorted(found, key=itemgetter(0))) == len(found):
        return []
    phones = [phone for phone, _, _ in found]
    first = _by_first(
        connection,
        select(staged.c.phone, staged.c.line, *attributes.c[1:])
        .select_from(rows)
        .where(staged.c.phone.in_(phones)),
    )
    repeated = [(phone, line, each) for phone, line, each in found if first[phone].line != line]
    ids = {each for _, _, each in repeated}
    own = _by_first(connection, select(attributes).where(attributes.c.id.in_(ids)))
    return [
        Repeat(line, first[phone].line, first[phone][2:] == own[each][1:]) for phone, line, each in repeated
    ]


def _by_first(connection: Connection, query: Select[Any]) -> dict[int, Row[Any]]:
    return {row[0]: row for row in connection.execute(query)}


def known_clients(connection: Connection, phones: Collection[int]) -> dict[int, int]:
    """The clients who have these phones: phone -> id."""
    query = select(col(Client.phone), col(Client.id)).where(col(Client.phone).in_(phones))
    return {phone: client_id for phone, client_id in connection.execute(query) if phone is not None}


def compare(connection: Connection, on_conflict: OnConflict) -> Counts:
    is_new = and_(col(Client.id).is_(None), ~func.coalesce(only_stopped, False))
    is_stopped = exists().where(col(Block.phone) == staged.c.phone)
    query = select(
        func.count().filter(is_new),
        func.count().filter(differs),
        func.count(),
        func.count().filter(and_(is_new, attributes.c.timezone.is_(None))),
        func.count().filter(and_(is_blocked, ~is_stopped)),
    ).select_from(rows.outerjoin(Client, its_client))
    new, changed, total, defaults, blocked = connection.execute(query).one()
    if on_conflict != OnConflict.UPDATE:
        changed = 0
    return Counts(new, changed, total - new - changed, defaults, blocked)


def apply(connection: Connection, counts: Counts, default_zone: str, now: datetime) -> None:
    """Make the counted changes; to be called in the transaction that counted."""
    if counts.changed:
        _update(connection, now)
    if counts.new:
        _insert(connection, default_zone, now, some_known=counts.same + counts.changed > 0)
    if counts.blocked:
        clients.block_all(connection, select(staged.c.phone).select_from(rows).where(is_blocked), now)


def _update(connection: Connection, now: datetime) -> None:
    found = select(col(Client.id), attributes.c.id, moves).select_from(rows.join(Client, its_client))
    columns = ["client_id", "attributes_id", "moves"]
    connection.execute(insert(changing).from_select(columns, found.where(differs)))
    given = {each.name: func.coalesce(each, getattr(Client, each.name)) for each in GIVEN}
    connection.execute(
        update(Client)
        .where(col(Client.id) == changing.c.client_id, attributes.c.id == changing.c.attributes_id)
        .values(**given, updated_at=now)
    )
    moved = select(changing.c.client_id).where(changing.c.moves).scalar_subquery()
    outbox.follow_zones(connection, moved)


def _insert(connection: Connection, default_zone: str, now: datetime, *, some_known: bool) -> None:
    at = literal(now, UTCDateTime())
    derived_code = func.substr(staged.c.phone, 2, 3)
    found = (
        select(
            staged.c.phone,
            *(func.coalesce(*each) for each in zip(GIVEN, (derived_code, "", default_zone), strict=True)),
            at,
            at,
        )
        .select_from(rows)
        .where(~only_stopped)
        .order_by(staged.c.phone)  # in the order of the unique index, which is then only appended to
    )
    if some_known:
        found = found.where(~exists().where(its_client))
    names = ["phone", "operator_code", "tag", "timezone", "created_at", "updated_at"]
    connection.execute(insert(Client).from_select(names, found, include_defaults=False))
