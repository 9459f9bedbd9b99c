"""A message as it is seen."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, select
from sqlmodel import col

from mailer_cli import outbox
from mailer_cli.errors import Refused
from mailer_cli.models import Client, Mailing, Message, MessageStatus
from mailer_cli.times import is_known, json_time

PHONE = case(
    (outbox.is_free(), col(Client.phone)), else_=func.coalesce(col(Message.phone), col(Client.phone))
).label("phone")


@dataclass(frozen=True)
class Overview:
    """A message. Its phone is the one it went to; while it waits and nobody can have got it, the client's
    present one, and None when the client was removed. The reason of one that waits is one that no time
    will mend."""

    id: int
    mailing_id: int
    client_id: int
    phone: int | None
    status: MessageStatus
    reason: str | None
    attempts: int
    created_at: datetime
    due_at: datetime
    sent_at: datetime | None


def as_json(message: Overview) -> dict[str, Any]:
    """A message as every command prints it."""
    return {
        "id": message.id,
        "mailing_id": message.mailing_id,
        "client_id": message.client_id,
        "phone": None if message.phone is None else str(message.phone),
        "status": message.status.value,
        "reason": message.reason,
        "attempts": message.attempts,
        "created_at": json_time(message.created_at),
        "due_at": json_time(message.due_at),
        "sent_at": None if message.sent_at is None else json_time(message.sent_at),
    }


def find(connection: Connection, message_id: int) -> Overview:
    """Raises: Refused when there is none."""
    found = overviews(connection, col(Message.id) == message_id)
    if not found:
        raise Refused(f"no such message: {message_id}", "mailer messages list")
    return found[0]


def overviews(
    connection: Connection, *which: ColumnElement[bool], limit: int | None = None
) -> list[Overview]:
    """The messages that meet all conditions on `message` and `client`, newest first."""
    own = ("id", "mailing_id", "client_id", "status", "reason", "attempts", "created_at", "due_at", "sent_at")
    statement = (
        select(PHONE, *(col(getattr(Message, name)) for name in own))
        .add_columns(col(Message.timezone), col(Mailing.window_from))
        .join(Client, col(Client.id) == col(Message.client_id))
        .join(Mailing, col(Mailing.id) == col(Message.mailing_id))
        .where(*which)
        .order_by(col(Message.id).desc())
        .limit(limit)
    )
    return [_overview(dict(row)) for row in connection.execute(statement).mappings()]


def _overview(row: dict[str, Any]) -> Overview:
    zone, window_from = row.pop("timezone"), row.pop("window_from")
    status = MessageStatus(row.pop("status"))
    if status is MessageStatus.PENDING and window_from is not None and not is_known(zone):
        row["reason"] = f"time zone {zone} is not known here"
    return Overview(status=status, **row)
