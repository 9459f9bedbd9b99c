"""Many messages, by what is asked for: newest first, in pages found by id, so that a list streams."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select
from sqlmodel import col

from mailer_cli import mailings, outbox
from mailer_cli.database import Database, pages
from mailer_cli.errors import Refused
from mailer_cli.messages.overview import Overview, overviews
from mailer_cli.models import Client, Mailing, Message, MessageStatus

PAGE = 500  # messages in one short reading transaction


@dataclass(frozen=True)
class Wanted:
    """Which messages are listed. What is left out does not restrict; of several values one is enough.

    Codes and tags are the client's present ones.
    """

    mailing_id: int | None = None
    client_id: int | None = None
    statuses: Collection[MessageStatus] = ()
    operator_codes: Collection[str] = ()
    tags: Collection[str] = ()
    phone: int | None = None
    reason: str | None = None


def listed(
    database: Database, wanted: Wanted, now: datetime, *, after: int | None = None, limit: int | None = None
) -> Iterator[Overview]:
    """What is wanted, in a stream; `after` an id means older than it.

    Raises: Refused when there is no such mailing or client.
    """
    with database.read() as connection:
        _require_known(connection, wanted, now)
        conditions, within = list(_conditions(wanted)), _within(connection, wanted)

    def look(connection: Connection, bounds: Sequence[ColumnElement[bool]], size: int) -> list[Overview]:
        return overviews(connection, *conditions, *bounds, limit=size)

    found = pages(
        database,
        col(Message.id),
        look,
        lambda each: each.id,
        size=PAGE,
        limit=limit,
        after=after,
        within=within,
        is_direct=wanted.client_id is not None or not conditions,
    )
    for page in found:
        yield from page


def _require_known(connection: Connection, wanted: Wanted, now: datetime) -> None:
    if wanted.mailing_id is not None:
        mailings.find(connection, wanted.mailing_id, now)
    if wanted.client_id is not None:
        known = select(col(Client.id)).where(col(Client.id) == wanted.client_id)  # removed ones too
        if connection.execute(known).first() is None:
            raise Refused(f"no such client: {wanted.client_id}", "mailer clients list")


def _conditions(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    if wanted.client_id is not None:
        yield of_client(wanted.client_id)
    if wanted.mailing_id is not None:
        # `+ 0` hides it from the index of mailings, through which each page would sort the whole mailing
        yield col(Message.mailing_id) + 0 == wanted.mailing_id
    if wanted.statuses:
        yield col(Message.status).in_([each.value for each in wanted.statuses])
    if wanted.operator_codes:
        yield col(Client.operator_code).in_(wanted.operator_codes)
    if wanted.tags:
        yield col(Client.tag).in_(wanted.tags)
    if wanted.phone is not None:
        yield _to_phone(wanted.phone)
    if wanted.reason is not None:
        yield col(Message.reason) == wanted.reason


def of_client(client_id: int) -> ColumnElement[bool]:
    """The client's messages, by the unique index: one look for each mailing there is."""
    return and_(col(Message.mailing_id).in_(select(col(Mailing.id))), col(Message.client_id) == client_id)


def _within(connection: Connection, wanted: Wanted) -> list[ColumnElement[bool]]:
    """A mailing's messages are made together: between its first and its last id lies little else."""
    if wanted.mailing_id is None:
        return []
    ids = select(func.min(col(Message.id)), func.max(col(Message.id)))
    first, last = connection.execute(ids.where(col(Message.mailing_id) == wanted.mailing_id)).one()
    return [col(Message.id).between(first or 0, last or 0)]


def _to_phone(phone: int) -> ColumnElement[bool]:
    """What went to this phone, whoever had it then, and what would go to it now."""
    his = select(col(Client.id)).where(col(Client.phone) == phone).scalar_subquery()
    would = and_(col(Message.client_id) == his, or_(col(Message.phone).is_(None), outbox.is_free()))
    return or_(and_(col(Message.phone) == phone, ~outbox.is_free()), would)
