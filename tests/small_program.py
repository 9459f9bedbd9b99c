"""The program's functions on the rows of one message: equal rows give equal rows, so each different call is
made once, on a real SQLite file.

What has become history and decides nothing any more is made equal in between: when an attempt ended, whose
it was and what was said. Claims come later than any backoff.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from mailer_cli import audience, mailings, outbox
from mailer_cli.decide import Limits
from mailer_cli.models import Attempt, Mailing, Message, MessageStatus, Resolution
from mailer_cli.outbox import Claimed, Demand, Verdict
from tests.lab import add_clients, add_mailing

NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=30)  # whatever waits for a repeat is due
END = NOW + timedelta(hours=1)
OVER = END + timedelta(hours=1)

Rows = tuple[tuple[tuple[Any, ...], ...], ...]
"""The whole content of TABLES."""

Content = int
"""Such rows, by their number: the walk compares them a million times."""

TABLES = ("mailing", "run", "message", "tally", "attempt", "resolution", "sqlite_sequence")


HISTORY = (
    "UPDATE attempt SET run_id = 1, ended_at = started_at, http_status = NULL, code = NULL, error = NULL"
    " WHERE outcome IS NOT NULL",
    "UPDATE message SET reason = NULL, due_at = created_at, sent_at = min(sent_at, created_at)",
)


class Program:
    """The program's functions as functions from rows to rows."""

    def __init__(self, connection: Connection, limits: Limits) -> None:
        self._connection, self.limits = connection, limits
        self._raw: Any = connection.connection.driver_connection
        self._known: dict[tuple[Any, ...], tuple[Content, Any]] = {}
        self._numbers: dict[Rows, Content] = {}
        self._contents: list[Rows] = []
        self._loaded: Content = -1
        add_clients(connection, 1)
        self.mailing = add_mailing(connection, now=NOW, end_at=END)
        audience.fix(connection, self.mailing, NOW)
        self.start = self._dump()

    @property
    def calls(self) -> int:
        """How many different calls were made."""
        return len(self._known)

    def call(self, content: Content, work: Callable[..., Any], *given: Any) -> tuple[Content, Any]:
        """The content after `work(connection, *given)`, and what it returned."""
        key = (content, work.__name__, given)
        if key not in self._known:
            self._load(content)
            self._loaded = -1
            found = work(self._connection, *given)
            self._known[key] = self._dump(), found
        return self._known[key]

    def rows(self, content: Content) -> Rows:
        return self._contents[content]

    def _dump(self) -> Content:
        for statement in HISTORY:
            self._raw.execute(statement)
        found = tuple(
            tuple(self._raw.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()) for table in TABLES
        )
        self._loaded = self._numbers.setdefault(found, len(self._contents))
        if self._loaded == len(self._contents):
            self._contents.append(found)
        return self._loaded

    def _load(self, content: Content) -> None:
        if content == self._loaded:
            return
        for table in reversed(TABLES):
            self._raw.execute(f"DELETE FROM {table}")
        for table, lines in zip(TABLES, self.rows(content), strict=True):
            if table in ("tally", "sqlite_sequence"):  # what was inserted so far has made some
                self._raw.execute(f"DELETE FROM {table}")
            if lines:
                marks = ", ".join("?" * len(lines[0]))
                self._raw.executemany(f"INSERT INTO {table} VALUES ({marks})", lines)

    # What a process or an operator does, one transaction each

    def begin(self, connection: Connection, locked: frozenset[int]) -> int:
        """As `dispatch` begins: a new run, and whoever is dead is buried; its id."""
        mine = outbox.begin_run(connection, "here", 1, NOW)
        found = outbox.dead_runs(connection, lambda run: run not in locked)
        outbox.recover(connection, [each for each in found if each != mine], self.limits.unknowns, NOW)
        return mine

    def claim(self, connection: Connection, run: int, now: datetime) -> tuple[Claimed, ...]:
        return tuple(outbox.claim(connection, Demand(run, 1), {}, now).claimed)

    def record(self, connection: Connection, run: int, verdict: Verdict) -> int:
        return len(outbox.record(connection, run, [verdict]))

    def expire(self, connection: Connection, now: datetime) -> None:
        outbox.expire(connection, now)

    def cancel(self, connection: Connection) -> None:
        mailings.cancel(connection, [self.mailing], NOW)

    def retry(self, connection: Connection) -> int:
        statuses = [MessageStatus.FAILED, MessageStatus.UNKNOWN]
        return outbox.retry(connection, self.mailing, statuses, None, NOW).again

    def resolve(self, connection: Connection, word: MessageStatus) -> int:
        message = connection.exec_driver_sql("SELECT id FROM message").scalar_one()
        return outbox.resolve(connection, message, word, NOW)


@dataclass(frozen=True)
class Facts:
    """What the rows say about the one message."""

    status: str
    owner: int | None
    attempts: int
    counters: tuple[int, int, int, int]  # failures, unknowns, and what of each was forgiven
    outcomes: tuple[tuple[int, int, str | None], ...]  # number, run, outcome
    words: tuple[str, ...]  # the operator's
    runs: int
    is_cancelled: bool

    @classmethod
    def of(cls, rows: Rows) -> "Facts":
        tables = dict(zip(TABLES, rows, strict=True))
        mailing, message = _named(Mailing, tables["mailing"])[0], _named(Message, tables["message"])[0]
        attempts = _named(Attempt, tables["attempt"])
        counters = ("failures", "unknowns", "failures_forgiven", "unknowns_forgiven")
        return cls(
            message["status"],
            message["run_id"],
            message["attempts"],
            tuple(message[each] for each in counters),
            tuple((each["number"], each["run_id"], each["outcome"]) for each in attempts),
            tuple(each["status"] for each in _named(Resolution, tables["resolution"])),
            len(tables["run"]),
            mailing["cancelled_at"] is not None,
        )

    def count(self, *outcomes: str | None) -> int:
        return sum(outcome in outcomes for _, _, outcome in self.outcomes)


def _named(table: Any, lines: tuple[tuple[Any, ...], ...]) -> list[dict[str, Any]]:
    names = [each.name for each in table.__table__.columns]
    return [dict(zip(names, line, strict=True)) for line in lines]
