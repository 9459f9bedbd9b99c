"""The number that a message goes to, and why it may not go there: its client is removed or on the stop list,
or the number has the mailing already, or may have it."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, exists, literal_column, or_, select
from sqlalchemy.orm import aliased
from sqlmodel import col

from mailer_cli.database.rows import numbers, packed_numbers
from mailer_cli.models import MAYBE_TAKEN, Attempt, Block, Client, Message, MessageStatus

ALREADY_SENT = "already sent to this number"

WAITING, FLYING = MessageStatus.PENDING.value, MessageStatus.SENDING.value


def _one_of(column: Any, *words: StrEnum) -> ColumnElement[bool]:
    """Written into the statement, which is then compiled once and for all."""
    return col(column).in_([literal_column(f"'{word}'") for word in words])


def doubtful(message: type[Message] = Message) -> ColumnElement[bool]:
    """Whether some attempt of the message may have been taken although no OK was seen.

    That alone fixes its phone, text and zone for all repeats: what nobody can have got follows the client and
    the mailing.
    """
    taken = exists().where(
        col(Attempt.message_id) == col(message.id),
        _one_of(Attempt.outcome, *MAYBE_TAKEN),
    )
    return and_(col(message.attempts) > 0, taken.correlate(message))


def is_free() -> ColumnElement[bool]:
    """Whether it waits and no attempt binds it: the next takes what client and mailing have by then."""
    return and_(col(Message.status) == WAITING, ~doubtful())


NUMBER = case((or_(col(Message.status) == FLYING, doubtful()), col(Message.phone)), else_=col(Client.phone))
"""Where a message goes, or is going; its client is joined."""


def unwanted() -> ColumnElement[bool]:
    """Whether the client, joined, is removed, or on the stop list by his phone or by that of the message."""
    blocked = exists().where(col(Block.phone).in_((col(Client.phone), NUMBER))).correlate(Message, Client)
    return or_(col(Client.removed_at).is_not(None), blocked)


OTHER = aliased(Message, name="other")
HAS_IT = _one_of(OTHER.status, MessageStatus.SENT, MessageStatus.UNKNOWN)
MAY_HAVE_IT = HAS_IT | and_(
    _one_of(OTHER.status, MessageStatus.PENDING, MessageStatus.SENDING), doubtful(OTHER)
)


def taken(*, or_in_flight: bool = False) -> ColumnElement[bool]:
    """Whether the number, the client joined, has got another message of the mailing, or may have; or one is
    on its way there.

    Of two that both may have been taken and wait, as an operator's retry can leave them, the first goes.
    """
    waits_behind = and_(col(OTHER.status) == WAITING, doubtful(), col(OTHER.id) > col(Message.id))
    has_it = MAY_HAVE_IT & ~waits_behind
    return _another(has_it | (col(OTHER.status) == FLYING) if or_in_flight else has_it)


def _another(is_so: ColumnElement[bool]) -> ColumnElement[bool]:
    found = exists().where(
        col(OTHER.mailing_id) == col(Message.mailing_id),
        col(OTHER.phone) == NUMBER,
        col(OTHER.id) != col(Message.id),
        is_so,
    )
    return found.correlate(Message, Client)


def served(mailing_id: int) -> ColumnElement[bool]:
    """The condition on `client` that his phone has got a message of the mailing, or may have."""
    its = and_(col(OTHER.mailing_id) == mailing_id, col(OTHER.phone) == col(Client.phone))
    return exists().where(its, MAY_HAVE_IT).correlate(Client)


_WHY = case(
    (col(Client.removed_at).is_not(None), "client removed"),
    (unwanted(), "client blocked"),
    (taken(), ALREADY_SENT),
).label("why")
_WHY_NOT = (
    select(col(Message.id), _WHY)
    .join(Client, col(Client.id) == col(Message.client_id))
    .where(col(Message.id).in_(numbers("ids")))
)


def why_not(connection: Connection, ids: Iterable[int]) -> dict[int, str | None]:
    """Why each of these messages may not go; None where nothing is against it."""
    found = connection.execute(_WHY_NOT, {"ids": packed_numbers(ids)})
    return {row.id: row.why for row in found}
