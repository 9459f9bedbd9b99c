"""Recording: what an attempt came to, in groups.

An OK is fenced by nothing: the message was taken, whoever owns it now. Everything else counts only for the
run that owns the message, by status, owner and attempt number.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, bindparam, case, select, update
from sqlmodel import col

from mailer_cli.database.rows import columns, numbers, packed, packed_numbers, stored
from mailer_cli.models import FAILURES, UNKNOWNS, Attempt, Message, MessageStatus, Outcome


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
    says OK; nor does one whose message was purged. Raises: what `Database.write` raises; nothing is half
    written then.
    """
    groups = [(alike[0], _rows(alike)) for alike in _alike(verdicts)]
    settled = {one for said, rows in groups for one in _settle(connection, run_id, said, rows)}
    changed: list[Verdict] = []
    others: list[Verdict] = []
    for each in verdicts:
        (changed if (each.message_id, each.attempt) in settled else others).append(each)
    if others:
        changed += _accept(connection, others)
    for said, rows in groups:
        _close(connection, said, rows)
    return changed


def _alike(verdicts: Iterable[Verdict]) -> Iterable[Sequence[Verdict]]:
    """Groups of those that say the same: nearly always one, of messages that are sent."""
    groups: dict[Hashable, list[Verdict]] = {}
    for each in verdicts:
        said = (each.outcome, each.status, each.reason, each.http_status, each.code, each.error)
        groups.setdefault(said, []).append(each)
    return groups.values()


_GIVEN = columns("message", "attempt", "due", "ended")
_SETTLE = (
    update(Message)
    .where(
        col(Message.id) == _GIVEN["message"],
        col(Message.status) == MessageStatus.SENDING.value,
        col(Message.run_id) == bindparam("run"),
        col(Message.attempts) == _GIVEN["attempt"],
    )
    .values(
        status=bindparam("new_status"),
        reason=bindparam("new_reason"),
        run_id=None,
        due_at=_GIVEN["due"],
        sent_at=case((bindparam("is_sent"), _GIVEN["ended"])),
        failures=col(Message.failures) + bindparam("failed"),
        unknowns=col(Message.unknowns) + bindparam("in_doubt"),
    )
    .returning(col(Message.id), col(Message.attempts))
)
_CLOSE = (
    update(Attempt)
    .where(
        col(Attempt.message_id) == _GIVEN["message"],
        col(Attempt.number) == _GIVEN["attempt"],
        col(Attempt.outcome).is_(None),
    )
    .values(
        ended_at=_GIVEN["ended"],
        outcome=bindparam("new_outcome"),
        http_status=bindparam("new_http_status"),
        code=bindparam("new_code"),
        error=bindparam("new_error"),
    )
)


def _rows(verdicts: Iterable[Verdict]) -> str:
    """As in `_GIVEN`."""
    return packed(
        (each.message_id, each.attempt, stored(each.due_at), stored(each.ended_at)) for each in verdicts
    )


def _settle(connection: Connection, run_id: int, said: Verdict, rows: str) -> Iterable[tuple[int, int]]:
    """Give the messages that the run owns their status; which, each with its attempt."""
    given = {
        "rows": rows,
        "run": run_id,
        "new_status": said.status.value,
        "new_reason": said.reason,
        "is_sent": said.status is MessageStatus.SENT,
        "failed": int(said.outcome in FAILURES),
        "in_doubt": int(said.outcome in UNKNOWNS),
    }
    return [(message_id, attempt) for message_id, attempt in connection.execute(_SETTLE, given)]


def _close(connection: Connection, said: Verdict, rows: str) -> None:
    """These attempts are over; one that was given up before keeps its outcome."""
    given = {
        "rows": rows,
        "new_outcome": said.outcome.value,
        "new_http_status": said.http_status,
        "new_code": said.code,
        "new_error": said.error,
    }
    connection.execute(_CLOSE, given)


def _accept(connection: Connection, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """What is said of messages that the run does not own (any more). Asks which attempts are open still, so
    it comes before they are closed."""
    ids = packed_numbers(each.message_id for each in verdicts)
    messages = _messages(connection, ids)
    still_open = _open_attempts(connection, ids)
    stray, late = [], []
    for each in (each for each in verdicts if each.message_id in messages):
        if (each.message_id, each.attempt) in still_open:
            stray.append(each)
        elif each.outcome == Outcome.OK:
            late.append(each)
    return _accept_strays(connection, stray, messages) + _accept_late(connection, late, messages)


_MESSAGES = select(col(Message.id), col(Message.status)).where(col(Message.id).in_(numbers("ids")))
_OPEN = select(col(Attempt.message_id), col(Attempt.number)).where(
    col(Attempt.message_id).in_(numbers("ids")), col(Attempt.outcome).is_(None)
)


def _messages(connection: Connection, ids: str) -> dict[int, RowMapping]:
    return {row["id"]: row for row in connection.execute(_MESSAGES, {"ids": ids}).mappings()}


def _open_attempts(connection: Connection, ids: str) -> set[tuple[int, int]]:
    return {(row.message_id, row.number) for row in connection.execute(_OPEN, {"ids": ids})}


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
