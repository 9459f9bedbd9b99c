"""What happened to a message: its text, its attempts, and an operator's word on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, func, select
from sqlmodel import col

from mailer_cli import outbox
from mailer_cli.errors import Refused
from mailer_cli.messages.overview import Overview, find
from mailer_cli.models import Attempt, Mailing, Message, MessageStatus, Resolution, Wording
from mailer_cli.times import json_time


@dataclass(frozen=True)
class Event:
    """An attempt; or, without a number, an operator's word."""

    attempt: int | None
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    http_status: int | None = None
    code: int | None = None
    error: str | None = None


def event_json(event: Event) -> dict[str, Any]:
    return {
        "attempt": event.attempt,
        "started_at": json_time(event.started_at),
        "ended_at": None if event.ended_at is None else json_time(event.ended_at),
        "outcome": event.outcome,
        "http_status": event.http_status,
        "code": event.code,
        "error": event.error,
    }


def history(connection: Connection, message_id: int) -> list[Event]:
    """Everything that happened to the message, as it came."""
    told = ("number", "started_at", "ended_at", "outcome", "http_status", "code", "error")
    attempts = connection.execute(
        select(*(col(getattr(Attempt, name)) for name in told))
        .where(col(Attempt.message_id) == message_id)
        .order_by(col(Attempt.number))
    )
    words = connection.execute(
        select(col(Resolution.resolved_at), col(Resolution.status))
        .where(col(Resolution.message_id) == message_id)
        .order_by(col(Resolution.id))
    )
    events = [Event(*row) for row in attempts]
    events += [Event(None, said_at, said_at, f"resolved {status}") for said_at, status in words]
    return sorted(events, key=lambda event: event.started_at)


def text_of(connection: Connection, message_id: int) -> str:
    """What was sent, or would be sent now."""
    tried = func.coalesce(col(Message.wording_id), col(Mailing.wording_id))
    wording = case((outbox.is_free(), col(Mailing.wording_id)), else_=tried)
    statement = (
        select(col(Wording.text))
        .select_from(Message)
        .join(Mailing, col(Mailing.id) == col(Message.mailing_id))
        .join(Wording, col(Wording.id) == wording)
        .where(col(Message.id) == message_id)
    )
    return connection.execute(statement).scalar_one()


def resolve(
    connection: Connection, message_ids: Sequence[int], status: MessageStatus, now: datetime
) -> list[Overview]:
    """Settle messages of unknown fate by the operator's word, all or none.

    Raises: Refused at the first that is not unknown.
    """
    for message_id in message_ids:
        if not outbox.resolve(connection, message_id, status, now):
            found = find(connection, message_id)
            raise Refused(
                f"message {message_id} is {found.status}, only an unknown one can be resolved",
                f"mailer messages show {message_id}",
            )
    return [find(connection, each) for each in message_ids]
