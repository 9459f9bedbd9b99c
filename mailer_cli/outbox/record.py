"""Recording: what an attempt came to, in groups; and what a dead run left behind.

An OK is fenced by nothing: the message was taken, whoever owns it now. Everything else counts only for the
run that owns the message, by status, owner and attempt number.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, insert, select, update
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.models import FAILURES, UNKNOWNS, Attempt, Message, MessageStatus, Outcome, Run


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt came to, and what becomes of its message because of it."""

    message_id: int
    attempt: int
    outcome: Outcome
    ended_at: datetime
    status: MessageStatus
    due_at: datetime  # when it goes again, if it is pending
    reason: str | None = None
    http_status: int | None = None
    code: int | None = None
    error: str | None = None


def record(connection: Connection, run_id: int, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Write what the attempts of a run came to; those that changed their message's status.

    Repeating is safe. One for an attempt that was already given up as unknown changes nothing, unless it
    says OK. Raises: what `Database.write` raises; nothing is half written then.
    """
    if not verdicts:
        return []
    ids = [each.message_id for each in verdicts]
    messages = _messages(connection, ids)
    still_open = _open_attempts(connection, ids)
    owned, late, stray = [], [], []
    for each in verdicts:
        message = messages[each.message_id]
        if (each.message_id, each.attempt) not in still_open:
            late += [each] if each.outcome == Outcome.OK else []
        elif _owns(message, run_id, each):
            owned.append(each)
        else:
            stray.append(each)
    _settle(connection, run_id, owned)
    _close_attempts(connection, [*owned, *stray])
    return owned + _accept_strays(connection, stray, messages) + _accept_late(connection, late, messages)


def _messages(connection: Connection, ids: Sequence[int]) -> dict[int, RowMapping]:
    columns = (col(Message.id), col(Message.status), col(Message.run_id), col(Message.attempts))
    rows = connection.execute(
        select(*columns).where(col(Message.id).in_(bindparam("ids", expanding=True))), {"ids": ids}
    )
    return {row["id"]: row for row in rows.mappings()}


def _open_attempts(connection: Connection, ids: Sequence[int]) -> set[tuple[int, int]]:
    statement = select(col(Attempt.message_id), col(Attempt.number)).where(
        col(Attempt.message_id).in_(bindparam("ids", expanding=True)), col(Attempt.outcome).is_(None)
    )
    return {(row.message_id, row.number) for row in connection.execute(statement, {"ids": ids})}


def _owns(message: RowMapping, run_id: int, verdict: Verdict) -> bool:
    return bool(
        message["status"] == MessageStatus.SENDING
        and message["run_id"] == run_id
        and message["attempts"] == verdict.attempt
    )


_SETTLE = (
    update(Message)
    .where(
        col(Message.id) == bindparam("message"),
        col(Message.status) == MessageStatus.SENDING.value,
        col(Message.run_id) == bindparam("run"),
        col(Message.attempts) == bindparam("attempt"),
    )
    .values(
        status=bindparam("new_status"),
        reason=bindparam("new_reason"),
        run_id=None,
        due_at=bindparam("due", type_=UTCDateTime()),
        sent_at=bindparam("sent", type_=UTCDateTime()),
        failures=col(Message.failures) + bindparam("failed"),
        unknowns=col(Message.unknowns) + bindparam("in_doubt"),
    )
)


def _settle(connection: Connection, run_id: int, verdicts: Iterable[Verdict]) -> None:
    rows = [
        {
            "message": each.message_id,
            "run": run_id,
            "attempt": each.attempt,
            "new_status": each.status.value,
            "new_reason": each.reason,
            "due": each.due_at,
            "sent": each.ended_at if each.status == MessageStatus.SENT else None,
            "failed": int(each.outcome in FAILURES),
            "in_doubt": int(each.outcome in UNKNOWNS),
        }
        for each in verdicts
    ]
    if rows:
        connection.execute(_SETTLE, rows)


_CLOSE = (
    update(Attempt)
    .where(
        col(Attempt.message_id) == bindparam("message"),
        col(Attempt.number) == bindparam("attempt"),
        col(Attempt.outcome).is_(None),
    )
    .values(
        ended_at=bindparam("ended", type_=UTCDateTime()),
        outcome=bindparam("came_to"),
        http_status=bindparam("answer_status"),
        code=bindparam("answer_code"),
        error=bindparam("what"),
    )
)


def _close_attempts(connection: Connection, verdicts: Iterable[Verdict]) -> None:
    rows = [
        {
            "message": each.message_id,
            "attempt": each.attempt,
            "ended": each.ended_at,
            "came_to": each.outcome.value,
            "answer_status": each.http_status,
            "answer_code": each.code,
            "what": each.error,
        }
        for each in verdicts
    ]
    if rows:
        connection.execute(_CLOSE, rows)


def _accept_strays(
    connection: Connection, verdicts: Iterable[Verdict], messages: dict[int, RowMapping]
) -> list[Verdict]:
    """Open attempts whose message went on without them: their counters move, and an OK counts."""
    for each in verdicts:
        connection.execute(
            update(Message)
            .where(col(Message.id) == each.message_id)
            .values(
                failures=col(Message.failures) + int(each.outcome in FAILURES),
                unknowns=col(Message.unknowns) + int(each.outcome in UNKNOWNS),
            )
        )
    return _mark_sent(connection, [each for each in verdicts if each.outcome == Outcome.OK], messages)


def _accept_late(
    connection: Connection, verdicts: Iterable[Verdict], messages: dict[int, RowMapping]
) -> list[Verdict]:
    """An OK for an attempt that had been given up: history keeps both."""
    for each in verdicts:
        connection.execute(
            update(Attempt)
            .where(
                col(Attempt.message_id) == each.message_id,
                col(Attempt.number) == each.attempt,
                col(Attempt.outcome) == Outcome.UNKNOWN.value,
            )
            .values(outcome=Outcome.LATE_OK.value, http_status=each.http_status, code=each.code)
        )
    return _mark_sent(connection, verdicts, messages)


def _mark_sent(
    connection: Connection, verdicts: Iterable[Verdict], messages: dict[int, RowMapping]
) -> list[Verdict]:
    changed = [each for each in verdicts if messages[each.message_id]["status"] != MessageStatus.SENT]
    for each in changed:
        connection.execute(
            update(Message)
            .where(col(Message.id) == each.message_id, col(Message.status) != MessageStatus.SENT.value)
            .values(status=MessageStatus.SENT.value, reason=None, run_id=None, sent_at=each.ended_at)
        )
    return changed


def dead_runs(connection: Connection, is_free: Callable[[int], bool]) -> list[int]:
    """Runs whose lock is free although they did not end, or left an attempt open."""
    unended = select(col(Run.id)).where(col(Run.ended_at).is_(None))
    owing = select(col(Attempt.run_id)).where(col(Attempt.outcome).is_(None))
    found = connection.execute(unended.union(owing)).scalars().all()
    return [run_id for run_id in found if is_free(run_id)]


def recover(connection: Connection, dead: Sequence[int], max_unknown: int, now: datetime) -> tuple[int, int]:
    """Take back what dead runs owned: their open attempts are unknown, their messages due at once, or
    `unknown` once `max_unknown` attempts are (0: at the first). How many went each way.

    Repeating is safe. Needs the write transaction in which `dead` was found.
    """
    if not dead:
        return 0, 0
    orphans = select(col(Attempt.message_id)).where(
        col(Attempt.run_id).in_(dead), col(Attempt.outcome).is_(None)
    )
    mine = update(Message).where(col(Message.id).in_(orphans))
    owned = (col(Message.status) == MessageStatus.SENDING.value, col(Message.run_id).in_(dead))
    connection.execute(mine.values(unknowns=col(Message.unknowns) + 1))
    limit_reached = col(Message.unknowns) - col(Message.unknowns_forgiven) >= max_unknown
    lost = mine.where(*owned, limit_reached).values(
        status=MessageStatus.UNKNOWN.value, reason="run died", run_id=None
    )
    again = mine.where(*owned).values(
        status=MessageStatus.PENDING.value, reason=None, run_id=None, due_at=now
    )
    unknown = connection.execute(lost).rowcount
    pending = connection.execute(again).rowcount
    connection.execute(
        update(Attempt)
        .where(col(Attempt.run_id).in_(dead), col(Attempt.outcome).is_(None))
        .values(ended_at=now, outcome=Outcome.UNKNOWN.value, error="run died")
    )
    ended = update(Run).where(col(Run.id).in_(dead), col(Run.ended_at).is_(None))
    connection.execute(ended.values(ended_at=now, stopped="died"))
    return pending, unknown


def begin_run(connection: Connection, host: str, pid: int, now: datetime) -> int:
    """Note a run that has something to do; its id."""
    row: dict[str, Any] = {"host": host, "pid": pid, "started_at": now}
    return int(connection.execute(insert(Run).values(row).returning(col(Run.id))).scalar_one())


@dataclass
class Counts:
    """What one run changed in the database."""

    claimed: int = 0
    sent: int = 0
    failed: int = 0
    deferred: int = 0  # tried, and waiting again
    unknown: int = 0
    expired: int = 0
    repeats: int = 0  # claimed although tried before


def end_run(connection: Connection, run_id: int, counts: Counts, stopped: str | None, now: datetime) -> None:
    mine = update(Run).where(col(Run.id) == run_id)
    connection.execute(mine.values(ended_at=now, stopped=stopped, **asdict(counts)))
