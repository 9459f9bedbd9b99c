"""Changes of one client and of the stop list, with what they mean for messages that wait."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli import outbox
from mailer_cli.attributes import derived_code
from mailer_cli.clients.listing import ClientStatus, Entry, find
from mailer_cli.errors import Refused
from mailer_cli.models import Block, Client, Mailing, Message


@dataclass(frozen=True)
class Given:
    """Checked attributes of one client; None is what was not given."""

    phone: int | None = None
    operator_code: str | None = None
    tag: str | None = None
    timezone: str | None = None


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


def rezone(connection: Connection, old: str, new: str, now: datetime) -> int:
    """Give everybody of one zone another; how many. What waits follows, unless it may have been taken."""
    his = update(Client).where(col(Client.timezone) == old, col(Client.removed_at).is_(None))
    changed = connection.execute(his.values(timezone=new, updated_at=now)).rowcount
    if changed:
        theirs = select(col(Client.id)).where(col(Client.timezone) == new).scalar_subquery()
        outbox.follow_zones(connection, theirs)
    return changed


def in_zone(connection: Connection, zone: str) -> int:
    """How many clients have it."""
    his = (col(Client.timezone) == zone, col(Client.removed_at).is_(None))
    return connection.execute(select(func.count()).select_from(Client).where(*his)).scalar_one()


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
    return _stop(connection, phones, now), _end_messages_to(connection, phones)


def block_all(connection: Connection, phones: Select[int], now: datetime) -> None:
    """The same for phones that are in the database, many or few."""
    known = phones.subquery()
    phone = known.c[0]
    new = select(phone, literal(now, UTCDateTime())).where(~exists().where(col(Block.phone) == phone))
    connection.execute(insert(Block).from_select(["phone", "blocked_at"], new.distinct()))
    _end_messages_to(connection, phones)


def _end_messages_to(connection: Connection, phones: Collection[int] | Select[int]) -> int:
    """Cancel what waits for the clients of these phones, whatever number it would go to, and what an earlier
    attempt binds to one of these, whatever phone its client has now; how many."""
    owners = select(col(Client.id)).where(col(Client.phone).in_(phones))
    theirs = outbox.cancel(connection, _messages_of(col(Message.client_id).in_(owners)), "client blocked")
    bound = _messages_of(col(Message.phone).in_(phones)) & outbox.doubtful()
    return theirs + outbox.cancel(connection, bound, "client blocked")


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
