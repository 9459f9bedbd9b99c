"""Runs: their beginning and end, and what a dead one left behind."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlmodel import col

from mailer_cli.models import Attempt, Message, MessageStatus, Outcome, Run


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
