"""What a clock that was ahead has left behind: messages that wait for a moment further ahead than a message
ever waits, mailings that sleep for too long, and what ended with a mailing whose end is still to come."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, exists, func, select, update
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.idle import FARTHEST, LATELY
from mailer_cli.models import GatewayState, Mailing, Message, MessageStatus, Run, Tally
from mailer_cli.outbox import turns
from mailer_cli.outbox.close import ENDED, PENDING


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


_NOW = bindparam("now", type_=UTCDateTime())
_SEEN_AT = func.coalesce(col(Run.ended_at), col(Run.started_at)).label("seen_at")
_RECENT = select(_SEEN_AT).order_by(col(Run.id).desc()).limit(LATELY).subquery()
_LOSERS: Select[int] = select(col(Mailing.id)).where(
    exists().where(_RECENT.c.seen_at > _NOW),  # or no clock was ahead, and it is not looked any further
    col(Mailing.end_at) > _NOW,
    col(Mailing.cancelled_at).is_(None),
    col(Mailing.removed_at).is_(None),
    col(Mailing.purged_at).is_(None),
    exists().where(
        col(Tally.mailing_id) == col(Mailing.id),
        col(Tally.status).in_([MessageStatus.EXPIRED.value, MessageStatus.UNKNOWN.value]),
        col(Tally.messages) > 0,
    ),
)
"""Mailings of which messages may have ended by a clock that was ahead."""


def has_lost(connection: Connection, now: datetime) -> bool:
    """Whether `give_back` may have something to do."""
    return any(
        connection.execute(select(col(Message.id)).where(_lost(each, doubtful=True)).limit(1)).first()
        for each in _losers(connection, now)
    )


def give_back(connection: Connection, now: datetime, *, doubtful: bool) -> int:
    """Let wait again what ended with its mailing although that has not ended; how many. `doubtful`: also what
    may have been taken. Repeating is safe.

    An end that was passed cannot be moved by an operator, so it was another clock by which it was.
    """
    waiting = {"status": MessageStatus.PENDING.value, "reason": None, "due_at": now}
    return sum(
        connection.execute(update(Message).where(_lost(each, doubtful=doubtful)).values(waiting)).rowcount
        for each in _losers(connection, now)
    )


def _losers(connection: Connection, now: datetime) -> Sequence[int]:
    return connection.execute(_LOSERS, {"now": now}).scalars().all()


def _lost(mailing_id: int, *, doubtful: bool) -> ColumnElement[bool]:
    ended = [MessageStatus.EXPIRED, *([MessageStatus.UNKNOWN] if doubtful else [])]
    return and_(
        col(Message.mailing_id) == mailing_id,
        col(Message.status).in_([each.value for each in ended]),
        col(Message.reason) == ENDED,
    )
