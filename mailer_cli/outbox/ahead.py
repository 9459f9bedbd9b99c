"""Messages that wait for a moment further ahead than a message ever waits: the clock was ahead when it was
written, and has been set back."""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, select, update
from sqlmodel import col

from mailer_cli.idle import FARTHEST
from mailer_cli.models import Message
from mailer_cli.outbox.choose import running
from mailer_cli.outbox.close import PENDING


def has_ahead(connection: Connection, now: datetime, only: int | None = None) -> bool:
    """Whether `bring_back` has something to do."""
    found = select(col(Message.id)).where(_ahead(connection, now, only)).limit(1)
    return connection.execute(found).first() is not None


def bring_back(connection: Connection, now: datetime, only: int | None = None) -> int:
    """Let them wait no longer, in the mailings that may be sent now; how many. Repeating is safe."""
    which = update(Message).where(_ahead(connection, now, only))
    return connection.execute(which.values(due_at=now)).rowcount


def _ahead(connection: Connection, now: datetime, only: int | None) -> ColumnElement[bool]:
    mailings = sorted(running(connection, now, only))
    return and_(col(Message.mailing_id).in_(mailings), PENDING, col(Message.due_at) > now + FARTHEST)
