"""Ends of messages that wait, and their way back: expiry, cancelling, an operator's retry or word."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    and_,
    case,
    exists,
    func,
    insert,
    select,
    true,
    update,
)
from sqlmodel import col

from mailer_cli.models import (
    Client,
    Mailing,
    Message,
    MessageStatus,
    Resolution,
)
from mailer_cli.outbox import turns
from mailer_cli.outbox.number import doubtful, taken, unwanted
from mailer_cli.outbox.turns import IS_STOPPED

ENDED = "mailing ended"
PENDING = col(Message.status) == "pending"  # literally as in the partial index, or it is not used


@dataclass(frozen=True)
class Closed:
    """How many messages were ended, and how many more became `unknown` instead."""

    ended: int
    unknown: int


def expire(connection: Connection, now: datetime) -> Closed:
    """End what waits although its mailing's end has passed; cancel what waits although its mailing was
    cancelled, for it was in flight then and has come back. Repeating is safe.

    What may have been taken becomes `unknown`: nobody may say of it that it was not sent.
    """
    cancelled = _close(connection, _waits_where(IS_STOPPED), MessageStatus.CANCELLED, "mailing cancelled")
    overdue = col(Mailing.end_at) <= now
    expired = _close(connection, _waits_where(overdue), MessageStatus.EXPIRED, ENDED)
    for over in (IS_STOPPED, overdue):
        turns.forget(connection, over)
    return Closed(expired.ended, expired.unknown + cancelled.unknown)


def has_overdue(connection: Connection, now: datetime) -> bool:
    """Whether `expire` has something to do."""
    over = [_waits_where(IS_STOPPED), _waits_where(col(Mailing.end_at) <= now)]
    found = (
        connection.execute(select(col(Message.id)).where(each, PENDING).limit(1)).first() for each in over
    )
    return any(each is not None for each in found)


def _waits_where(mailing: ColumnElement[bool]) -> ColumnElement[bool]:
    """Messages of such mailings; of those alone in which something waits."""
    return col(Message.mailing_id).in_(select(col(Mailing.id)).where(mailing, col(Mailing.turn).is_not(None)))


def cancel(connection: Connection, which: ColumnElement[bool], reason: str) -> int:
    """Cancel what waits among `which` messages; how many. What is in flight finishes.

    What may have been taken becomes `unknown`, with the same reason.
    """
    closed = _close(connection, which, MessageStatus.CANCELLED, reason)
    return closed.ended + closed.unknown


def _close(connection: Connection, which: ColumnElement[bool], status: MessageStatus, reason: str) -> Closed:
    waiting = update(Message).where(which, PENDING)
    unknown = waiting.where(doubtful()).values(status=MessageStatus.UNKNOWN.value, reason=reason)
    ended = waiting.values(status=status.value, reason=reason)
    in_doubt = connection.execute(unknown).rowcount
    return Closed(connection.execute(ended).rowcount, in_doubt)


ZONE = select(col(Client.timezone)).where(col(Client.id) == col(Message.client_id)).scalar_subquery()


def revive(connection: Connection, which: ColumnElement[bool], reason: str, now: datetime) -> int:
    """Let messages wait again that this reason cancelled; how many. Not those that may not go any more."""
    cancelled = and_(
        col(Message.status) == MessageStatus.CANCELLED.value, col(Message.reason) == reason, _may_go()
    )
    statement = update(Message).where(which, cancelled)
    back = statement.values(status=MessageStatus.PENDING.value, reason=None, due_at=now, timezone=ZONE)
    return connection.execute(back).rowcount


def follow_zones(connection: Connection, clients: Sequence[int] | ScalarSelect[int]) -> int:
    """Let what waits or is in flight follow the zones of these clients; how many changed.

    What may have been taken keeps its zone for all repeats.
    """
    statement = (
        update(Message)
        .where(
            col(Message.mailing_id).in_(select(col(Mailing.id))),  # leads the unique index to the clients
            col(Message.client_id).in_(clients),
            col(Message.status).in_((MessageStatus.PENDING.value, MessageStatus.SENDING.value)),
            ~doubtful(),
            col(Message.timezone) != ZONE,
        )
        .values(timezone=ZONE)
    )
    return connection.execute(statement).rowcount


@dataclass(frozen=True)
class Retried:
    """How many messages wait again, and how many do not because their number has the mailing already."""

    again: int
    already_sent: int


def retry(
    connection: Connection,
    mailing_id: int,
    statuses: Sequence[MessageStatus],
    reason: str | None,
    now: datetime,
) -> Retried:
    """Give `failed` or `unknown` messages of a mailing back to the queue with fresh limits.

    Not those of clients who were removed or blocked since, nor where the number has got, or may have got,
    another message of the mailing. The counters stay equal to the attempts; what is forgiven lets the limits
    count anew. What nobody can have got follows its client and its mailing again.
    """
    which = and_(
        col(Message.mailing_id) == mailing_id,
        col(Message.status).in_([str(each) for each in statuses]),
        col(Message.reason) == reason if reason is not None else true(),
    )
    found = select(func.count()).select_from(Message).where(which, _its_client(~unwanted(), taken()))
    already_sent = connection.execute(found).scalar_one()
    statement = (
        update(Message)
        .where(which, _may_go())
        .values(
            status=MessageStatus.PENDING.value,
            reason=None,
            due_at=now,
            timezone=case((doubtful(), col(Message.timezone)), else_=ZONE),
            failures_forgiven=col(Message.failures),
            unknowns_forgiven=col(Message.unknowns),
        )
    )
    return Retried(connection.execute(statement).rowcount, already_sent)


def _may_go() -> ColumnElement[bool]:
    """Whether neither its client nor another message of its mailing keeps the message from its number."""
    return _its_client(~unwanted(), ~taken())


def _its_client(*so: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(col(Client.id) == col(Message.client_id), *so).correlate(Message)


def resolve(connection: Connection, message_id: int, status: MessageStatus, now: datetime) -> int:
    """Settle an `unknown` message as `sent` or `failed` by the operator's word; 0 when it is not unknown."""
    sent = status == MessageStatus.SENT
    statement = (
        update(Message)
        .where(col(Message.id) == message_id, col(Message.status) == MessageStatus.UNKNOWN.value)
        .values(status=status.value, reason="operator's word", sent_at=now if sent else None)
    )
    changed = connection.execute(statement).rowcount
    if changed:
        row = {"message_id": message_id, "status": status.value, "resolved_at": now}
        connection.execute(insert(Resolution).values(row))
    return changed
