"""Clients: what a phone, a code, a tag and a zone may be; add, find, list, edit, remove; the stop list."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, delete, exists, insert, select, update
from sqlmodel import col

from mailer_cli import outbox
from mailer_cli.database import Database
from mailer_cli.errors import Invalid, Refused
from mailer_cli.models import Block, Client, Mailing, Message
from mailer_cli.times import BadTime, Zone, find_zone

PAGE = 1_000  # rows read in one transaction; between two pages the operator's terminal holds up nobody

PHONE_HINT = "write 79161234567, +7 916 123-45-67 or 8 (916) 123-45-67"
BETWEEN_DIGITS = re.compile(r"[\s().\[\]\u2010-\u2015\u2212-]")
PHONE = re.compile(r"(?:\+?7|8)(\d{10})", re.ASCII)
CODE = re.compile(r"\d{3}", re.ASCII)
UNWANTED = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: controls, halves of characters, line separators


class ClientStatus(StrEnum):
    ACTIVE = "active"
    BLOCKED = "blocked"  # on the stop list
    REMOVED = "removed"


@dataclass(frozen=True)
class Entry:
    """A client as he is listed; the phone is None when he is removed."""

    id: int
    phone: int | None
    operator_code: str
    tag: str
    timezone: str
    created_at: datetime
    updated_at: datetime
    status: ClientStatus


@dataclass(frozen=True)
class Given:
    """Checked attributes of one client; None is what was not given."""

    phone: int | None = None
    operator_code: str | None = None
    tag: str | None = None
    timezone: str | None = None


@dataclass(frozen=True)
class Wanted:
    """Which clients to list: OR among the codes, OR among the tags, AND between all. Without a status
    those who are not removed."""

    operator_codes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    phone: int | None = None
    status: ClientStatus | None = None

    def matches(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]]
        found = [col(Client.removed_at).is_(None) if self.status is None else STATUS.is_(self.status.value)]
        if self.operator_codes:
            found.append(col(Client.operator_code).in_(self.operator_codes))
        if self.tags:
            found.append(col(Client.tag).in_(self.tags))
        if self.phone is not None:
            found.append(col(Client.phone) == self.phone)
        return found


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


def parse_phone(value: str) -> int:
    """The phone as it is stored. Raises: Invalid with the reason."""
    if len(value) == 11 and value[0] == "7" and value.isascii() and value.isdecimal():
        return int(value)  # as most lists have it
    match = PHONE.fullmatch(BETWEEN_DIGITS.sub("", value))
    if match is None or value.rstrip().endswith(".0"):
        raise Invalid(f"phone {_quoted(value)} {_fault(value)}", PHONE_HINT)
    return int(f"7{match[1]}")


def _fault(value: str) -> str:
    bare = BETWEEN_DIGITS.sub("", value)
    digits = bare.removeprefix("+")
    if not bare:
        return "is empty"
    if re.search(r"\d[eE]\+?\d|\.0\s*\Z", value):
        return "is a number that a spreadsheet has made of it"
    if not (digits.isascii() and digits.isdecimal()):
        return "has other characters than digits"
    if len(digits) != 11:
        return f"has {len(digits)} digits instead of 11"
    return "begins with +8 instead of +7" if bare.startswith("+8") else "does not begin with 7"


def parse_code(value: str) -> str:
    """Raises: Invalid."""
    code = value.strip()
    if not CODE.fullmatch(code):
        raise Invalid(f"operator code {_quoted(value)} is not three digits", "write 916")
    return code


def derived_code(phone: int) -> str:
    """The operator code of a phone whose owner never took it to another operator."""
    return str(phone)[1:4]


def parse_tag(value: str) -> str:
    """The tag as it is compared: trimmed, NFC; "" is none. Raises: Invalid."""
    tag = unicodedata.normalize("NFC", value.strip())
    if not tag.isprintable() and any(unicodedata.category(each) in UNWANTED for each in tag):
        raise Invalid(f"tag {_quoted(value)} has control characters")
    return tag


def parse_zone(value: str) -> Zone:
    """Raises: Invalid."""
    try:
        return find_zone(value)
    except BadTime as error:
        raise Invalid(f"time zone {error}", error.hint) from error


def _quoted(value: str) -> str:
    return repr(value if len(value) <= 40 else f"{value[:39]}…")


def add(connection: Connection, phone: int, given: Given, default_zone: str, now: datetime) -> Entry:
    """Raises: Refused when the phone is another client's."""
    _require_free(connection, phone)
    row = {
        "phone": phone,
        "operator_code": given.operator_code or derived_code(phone),
        "tag": given.tag or "",
        "timezone": given.timezone or default_zone,
        "created_at": now,
        "updated_at": now,
    }
    made = connection.execute(insert(Client).values(row).returning(col(Client.id))).scalar_one()
    return find(connection, made)


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
    fields = row._mapping
    return Entry(**{**fields, "status": ClientStatus(fields["status"])})


def listed(
    database: Database, wanted: Wanted, limit: int | None = None, after: int | None = None
) -> Iterator[Entry]:
    """Newest first; from the one after `after` on."""
    for page in pages(database, ENTRY, wanted, limit, after):
        yield from map(entry_of, page)


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
    while limit is None or limit > 0:
        size = PAGE if limit is None else min(PAGE, limit)
        bounded = query if after is None else query.where(col(Client.id) < after)
        with database.read() as connection:
            page = connection.execute(bounded.limit(size)).all()
        if page:
            yield page
        if len(page) < size:
            return
        after = page[-1][0]
        limit = None if limit is None else limit - size


def edit(connection: Connection, client_id: int, given: Given, now: datetime) -> Entry:
    """Change what is given. The operator code does not follow the phone: numbers are ported.

    A blocked client stays blocked under his new phone. Raises: Refused.
    """
    before = find(connection, client_id)
    values = {
        name: value for name, value in vars(given).items() if value not in (None, getattr(before, name))
    }
    if not values:
        return before
    if "phone" in values:
        _require_free(connection, values["phone"])
    connection.execute(update(Client).where(col(Client.id) == client_id).values(**values, updated_at=now))
    if "phone" in values and before.status == ClientStatus.BLOCKED:
        _stop(connection, {values["phone"]}, now)
    if "timezone" in values:
        outbox.follow_zones(connection, [client_id])
    entry = find(connection, client_id)
    if entry.status == ClientStatus.BLOCKED:
        outbox.cancel(connection, _messages_of(col(Message.client_id) == client_id), "client blocked")
    return entry


def _require_free(connection: Connection, phone: int) -> None:
    owner = connection.execute(select(col(Client.id)).where(col(Client.phone) == phone)).scalar()
    if owner is not None:
        raise Refused(f"this phone is that of client {owner}", f"mailer clients edit {owner}")


def remove(connection: Connection, client_id: int, now: datetime) -> int:
    """Remove a client; how many waiting messages were cancelled. His row stays, without the phone.

    Raises: Refused.
    """
    find(connection, client_id)
    values = {"phone": None, "removed_at": now, "updated_at": now}
    connection.execute(update(Client).where(col(Client.id) == client_id).values(values))
    return outbox.cancel(connection, _messages_of(col(Message.client_id) == client_id), "client removed")


def _messages_of(whose: ColumnElement[bool]) -> ColumnElement[bool]:
    return (
        col(Message.mailing_id).in_(select(col(Mailing.id))) & whose
    )  # leads the unique index to the clients


def phones_of(connection: Connection, client_ids: Sequence[int]) -> set[int]:
    """Raises: Refused."""
    entries = [find(connection, client_id) for client_id in client_ids]
    return {entry.phone for entry in entries if entry.phone is not None}


def block(connection: Connection, phones: set[int], now: datetime) -> tuple[list[int], int]:
    """Put phones on the stop list, clients' or not; which are new there, and how many waiting messages
    were cancelled. Repeating is safe."""
    new = _stop(connection, phones, now)
    owners = select(col(Client.id)).where(col(Client.phone).in_(phones))
    whose = col(Message.client_id).in_(owners)
    return new, outbox.cancel(connection, _messages_of(whose), "client blocked")


def _stop(connection: Connection, phones: set[int], now: datetime) -> list[int]:
    new = sorted(phones - _stopped(connection, phones))
    if new:
        connection.execute(insert(Block), [{"phone": phone, "blocked_at": now} for phone in new])
    return new


def _stopped(connection: Connection, phones: set[int]) -> set[int]:
    return set(connection.execute(select(col(Block.phone)).where(col(Block.phone).in_(phones))).scalars())


def unblock(connection: Connection, phones: set[int]) -> list[int]:
    """Take phones off the stop list; which were there. What was cancelled stays cancelled."""
    there = sorted(_stopped(connection, phones))
    connection.execute(delete(Block).where(col(Block.phone).in_(there)))
    return there
