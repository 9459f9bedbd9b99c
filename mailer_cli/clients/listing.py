"""Clients as they are found and listed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, exists, select
from sqlmodel import col

from mailer_cli.database import Database
from mailer_cli.database import pages as database_pages
from mailer_cli.errors import Refused
from mailer_cli.models import Block, Client

PAGE = 1_000  # rows read in one transaction; between two pages a slow terminal holds up nobody


class ClientStatus(StrEnum):
    ACTIVE = "active"
    BLOCKED = "blocked"  # on the stop list
    REMOVED = "removed"


@dataclass(frozen=True)
class Entry:
    """A client as he is listed; the phone is None when he is removed. Of a number on the stop list that is no
    client's there is only the phone, and since when it is there."""

    id: int | None
    phone: int | None
    operator_code: str
    tag: str
    timezone: str
    created_at: datetime
    updated_at: datetime
    status: ClientStatus


STATUS = case(
    (col(Client.removed_at).is_not(None), ClientStatus.REMOVED.value),
    (exists().where(col(Block.phone) == col(Client.phone)), ClientStatus.BLOCKED.value),
    else_=ClientStatus.ACTIVE.value,
)
ENTRY: tuple[Any, ...] = (
    col(Client.id),
    col(Client.phone),
    col(Client.operator_code),
    col(Client.tag),
    col(Client.timezone),
    col(Client.created_at),
    col(Client.updated_at),
    STATUS.label("status"),
)


@dataclass(frozen=True)
class Wanted:
    """Which clients to list: OR among the codes, OR among the tags, AND between all. Without a status
    those who are not removed."""

    operator_codes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    phone: int | None = None
    status: ClientStatus | None = None

    def matches(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.status is None:
            found.append(col(Client.removed_at).is_(None))
        else:
            found.append(STATUS == self.status.value)  # noqa: SIM300  an expression, not a constant
        if self.operator_codes:
            found.append(col(Client.operator_code).in_(self.operator_codes))
        if self.tags:
            found.append(col(Client.tag).in_(self.tags))
        if self.phone is not None:
            found.append(col(Client.phone) == self.phone)
        return found


def find(connection: Connection, client_id: int) -> Entry:
    """Raises: Refused when there is no such client, or he was removed."""
    row = connection.execute(select(*ENTRY).where(col(Client.id) == client_id)).one_or_none()
    if row is None:
        raise Refused(f"there is no client {client_id}", "mailer clients list")
    entry = entry_of(row)
    if entry.status == ClientStatus.REMOVED:
        raise Refused(f"client {client_id} was removed", "mailer clients list --status removed")
    return entry


def entry_of(row: Row[Any]) -> Entry:
    values: dict[str, Any] = dict(row._mapping)
    return Entry(status=ClientStatus(values.pop("status")), **values)


def listed(
    database: Database, wanted: Wanted, limit: int | None = None, after: int | None = None
) -> Iterator[Entry]:
    """Newest first; from the one after `after` on."""
    given = 0
    for page in pages(database, ENTRY, wanted, limit, after):
        given += len(page)
        yield from map(entry_of, page)
    if wanted.status == ClientStatus.BLOCKED:
        for numbers in stopped(database, wanted, None if limit is None else limit - given):
            yield from (Entry(None, phone, "", "", "", at, at, wanted.status) for phone, at in numbers)


def pages(
    database: Database,
    columns: Sequence[Any],
    wanted: Wanted,
    limit: int | None = None,
    after: int | None = None,
) -> Iterator[Sequence[Row[Any]]]:
    """These columns of the clients, the id first, newest first, in pages; from the one after `after`.

    Every page is a transaction of its own: a slow reader holds up no writer.
    """
    query = select(*columns).where(*wanted.matches()).order_by(col(Client.id).desc())

    def look(connection: Connection, bounds: Sequence[ColumnElement[bool]], size: int) -> Sequence[Row[Any]]:
        return connection.execute(query.where(*bounds).limit(size)).all()

    yield from database_pages(
        database,
        col(Client.id),
        look,
        lambda row: int(row[0]),
        size=PAGE,
        limit=limit,
        after=after,
        is_direct=wanted.phone is not None,  # by its index
    )


def stopped(
    database: Database, wanted: Wanted, limit: int | None = None
) -> Iterator[Sequence[Row[int, datetime]]]:
    """Numbers on the stop list that are no client's, each with its time, by number, in pages as those of the
    clients. Whoever asks for a code or a tag asks for clients alone."""
    if wanted.operator_codes or wanted.tags:
        return
    query = (
        select(col(Block.phone), col(Block.blocked_at))
        .where(~exists().where(col(Client.phone) == col(Block.phone)))
        .order_by(col(Block.phone))
    )
    if wanted.phone is not None:
        query = query.where(col(Block.phone) == wanted.phone)
    last = 0
    while limit is None or limit > 0:
        size = PAGE if limit is None else min(PAGE, limit)
        with database.read() as connection:
            page = connection.execute(query.where(col(Block.phone) > last).limit(size)).all()
        if page:
            yield page
        if len(page) < size:
            return
        last = page[-1][0]
        limit = None if limit is None else limit - size
