"""What a clock that was ahead has left behind: messages that wait for a moment further ahead than a message
ever waits, and mailings that sleep for too long."""

from datetime import datetime

from sqlalchemy import Connection, select, update
from sqlmodel import col

from mailer_cli.idle import FARTHEST
from mailer_cli.models import GatewayState, Mailing, Message
from mailer_cli.outbox import turns
from mailer_cli.outbox.close import PENDING


def has_ahead(connection: Connection, now: datetime) -> bool:
    """Whether some mailing that may be sent now may sleep by the word of a clock that was ahead."""
    clock = select(col(GatewayState.id)).where(col(GatewayState.looked_at) > now)
    if connection.execute(clock).first() is None:
        return False
    mine = select(col(Mailing.id)).where(turns.IS_WAITING, col(Mailing.start_at) <= now)
    return connection.execute(mine.where(col(Mailing.end_at) > now).limit(1)).first() is not None


def bring_back(connection: Connection, now: datetime, only: int | None = None) -> int:
    """Let them wait no longer, in one mailing or in all that may be sent, and wake them all then; how many
    messages. Repeating is safe."""
    if only is None:
        turns.wake_all(connection, now)
    mine = select(col(Mailing.id)).where(turns.IS_WAITING)
    which = col(Message.mailing_id).in_(mine) if only is None else col(Message.mailing_id) == only
    which &= PENDING & (col(Message.due_at) > now + FARTHEST)
    return connection.execute(update(Message).where(which).values(due_at=now)).rowcount
