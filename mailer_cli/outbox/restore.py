"""What becomes of mailings and messages when a backup is put back: nobody knows what went out since."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, exists, func, or_, select, update
from sqlmodel import col

from mailer_cli.models import Attempt, Mailing, Message, MessageStatus, Outcome, Run

REASON = "restored"


@dataclass(frozen=True)
class AfterRestore:
    """How many mailings were paused, how many messages became `unknown`, how many wait as before."""

    paused: int
    unknown: int
    pending: int


def after_restore(connection: Connection, now: datetime, *, keep_pending: bool) -> AfterRestore:
    """Make an old state safe to go on from. Repeating is safe.

    What was in flight is `unknown`, as after the death of its run. What waited may have been sent since, so
    it is `unknown` too, unless the operator knows better (`keep_pending`). Open mailings, also those whose
    audience is not fixed yet, are paused: an operator has to look before anything goes out.
    """
    paused = _pause_open_mailings(connection, now)
    unknown = _give_up_attempts(connection, now)
    waiting = col(Message.status) == "pending"
    if not keep_pending:
        given_up = update(Message).where(waiting)
        unknown += connection.execute(
            given_up.values(status=MessageStatus.UNKNOWN.value, reason=REASON)
        ).rowcount
    unended = update(Run).where(col(Run.ended_at).is_(None))
    connection.execute(unended.values(ended_at=now, stopped=REASON))
    pending = connection.execute(select(func.count()).select_from(Message).where(waiting)).scalar_one()
    return AfterRestore(paused, unknown, pending)


def _pause_open_mailings(connection: Connection, now: datetime) -> int:
    is_open = exists().where(
        col(Message.mailing_id) == col(Mailing.id), col(Message.status).in_(["pending", "sending"])
    )
    statement = (
        update(Mailing)
        .where(
            col(Mailing.paused_at).is_(None),
            col(Mailing.cancelled_at).is_(None),
            col(Mailing.removed_at).is_(None),
            col(Mailing.end_at) > now,
            or_(col(Mailing.fixed_at).is_(None), is_open),
        )
        .values(paused_at=now, updated_at=now)
    )
    return connection.execute(statement).rowcount


def _give_up_attempts(connection: Connection, now: datetime) -> int:
    """Close every open attempt as unknown and count it; how many messages were in flight."""
    is_open = col(Attempt.outcome).is_(None)
    orphans = update(Message).where(col(Message.id).in_(select(col(Attempt.message_id)).where(is_open)))
    connection.execute(orphans.values(unknowns=col(Message.unknowns) + 1))
    in_flight = update(Message).where(col(Message.status) == MessageStatus.SENDING.value)
    unknown = connection.execute(
        in_flight.values(status=MessageStatus.UNKNOWN.value, reason=REASON, run_id=None)
    ).rowcount
    connection.execute(
        update(Attempt).where(is_open).values(ended_at=now, outcome=Outcome.UNKNOWN.value, error=REASON)
    )
    return unknown
