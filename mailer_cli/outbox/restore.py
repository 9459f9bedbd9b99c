"""What becomes of mailings and messages when a backup is put back: nobody knows what went out since."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, case, exists, func, insert, literal, or_, select, update
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.models import Attempt, Client, Mailing, Message, MessageStatus, Outcome, Run
from mailer_cli.outbox.number import doubtful

REASON = "restored"
WAITING = col(Message.status) == "pending"


@dataclass(frozen=True)
class Started:
    """A mailing of which the backup knows only that it was to start, by now in the past."""

    mailing_id: int
    start_at: datetime


@dataclass(frozen=True)
class AfterRestore:
    """How many mailings were paused, how many messages became `unknown`, how many wait as before; and which
    mailings may have been sent since, whole and without a trace."""

    paused: int
    unknown: int
    pending: int
    started: Sequence[Started] = ()


def after_restore(connection: Connection, now: datetime, *, keep_pending: bool) -> AfterRestore:
    """Make an old state safe to go on from. Repeating is safe.

    What was in flight is `unknown`, as after the death of its run. What waited may have been sent since, so
    it is `unknown` too, unless the operator knows better (`keep_pending`). Open mailings, also those whose
    audience is not fixed yet, are paused: an operator has to look before anything goes out. Those that may
    have been sent since, or to more people, are marked: whoever lets them go on is asked.
    """
    paused = _pause_open_mailings(connection, now)
    unknown = _give_up_attempts(connection, now)
    started: Sequence[Started] = ()
    if not keep_pending:
        unknown += _give_up_what_waits(connection, now)
        started = _mark_started(connection, now)
    unended = update(Run).where(col(Run.ended_at).is_(None))
    connection.execute(unended.values(ended_at=now, stopped=REASON))
    pending = connection.execute(select(func.count()).select_from(Message).where(WAITING)).scalar_one()
    return AfterRestore(paused, unknown, pending, started)


def _mark_started(connection: Connection, now: datetime) -> list[Started]:
    """Mark what may have been sent since the backup; which of it shows no trace of that."""
    started = and_(
        col(Mailing.cancelled_at).is_(None),
        col(Mailing.removed_at).is_(None),
        col(Mailing.start_at) <= now,
        col(Mailing.end_at) > now,
    )
    connection.execute(update(Mailing).where(started).values(restored_at=now))
    unfixed = select(col(Mailing.id), col(Mailing.start_at)).where(started, col(Mailing.fixed_at).is_(None))
    return [Started(*row) for row in connection.execute(unfixed.order_by(col(Mailing.id)))]


_PHONE = select(col(Client.phone)).where(col(Client.id) == col(Message.client_id)).scalar_subquery()
_WORDING = select(col(Mailing.wording_id)).where(col(Mailing.id) == col(Message.mailing_id)).scalar_subquery()
_GIVEN_UP = {"status": MessageStatus.UNKNOWN.value, "reason": REASON}


def _give_up_what_waits(connection: Connection, now: datetime) -> int:
    """Let what waited be `unknown`, each by an attempt that nobody knows to have been made; how many.

    As any attempt that may have been taken it fixes phone, text and zone: those of the backup.
    """
    if connection.execute(select(col(Message.id)).where(WAITING).limit(1)).first() is None:
        return 0
    phone = case((doubtful(), col(Message.phone)), else_=func.coalesce(_PHONE, col(Message.phone)))
    presumed = update(Message).where(WAITING, phone.is_not(None))
    given_up = presumed.values(
        **_GIVEN_UP,
        attempts=col(Message.attempts) + 1,
        unknowns=col(Message.unknowns) + 1,
        phone=phone,
        wording_id=case((doubtful(), col(Message.wording_id)), else_=_WORDING),
    )
    count = connection.execute(given_up).rowcount
    _presume_attempts(connection, now)
    return count + connection.execute(update(Message).where(WAITING).values(_GIVEN_UP)).rowcount


def _presume_attempts(connection: Connection, now: datetime) -> None:
    run = {"host": "", "pid": 0, "started_at": now, "ended_at": now, "stopped": REASON}
    run_id = connection.execute(insert(Run).values(run).returning(col(Run.id))).scalar_one()
    at = literal(now, UTCDateTime())
    values = {
        "message_id": col(Message.id),
        "number": col(Message.attempts),
        "run_id": literal(run_id),
        "started_at": at,
        "ended_at": at,
        "outcome": literal(Outcome.UNKNOWN.value),
        "error": literal(REASON),
    }
    its_attempt = exists().where(
        col(Attempt.message_id) == col(Message.id), col(Attempt.number) == col(Message.attempts)
    )
    missing = select(*values.values()).where(
        col(Message.status) == MessageStatus.UNKNOWN.value,
        col(Message.reason) == REASON,
        col(Message.attempts) > 0,
        ~its_attempt,
    )
    connection.execute(insert(Attempt).from_select(list(values), missing))


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
