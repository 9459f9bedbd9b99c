"""A run's write transactions, each done once, also where a COMMIT fails and has come about all the same."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, bindparam, select, update
from sqlmodel import col

from mailer_cli.database.engine import Database
from mailer_cli.errors import DatabaseFailed
from mailer_cli.models import Run

T = TypeVar("T")

_NUMBER = select(col(Run.turns)).where(col(Run.id) == bindparam("run"))
_MARK = update(Run).where(col(Run.id) == bindparam("run")).values(turns=bindparam("number"))


class Turn(Generic[T]):
    """One transaction: its work, which may be tried again and again, and what the run learns once it is known
    to be done."""

    def __init__(self, work: Callable[[Connection], T], then: Callable[[T], object]) -> None:
        self.work, self.then = work, then
        self.result: T | None = None


class Turns:
    """Each leaves its number in the run's row. An error in a COMMIT does not tell whether it came about (the
    last sync may fail when the journal is gone already): the next transaction reads it there before anything
    is decided."""

    def __init__(self, database: Database, run_id: int) -> None:
        self._database, self._run_id = database, run_id
        self._done = 0
        self._doubtful: Turn[Any] | None = None  # committed, perhaps

    @property
    def is_in_doubt(self) -> bool:
        return self._doubtful is not None

    def take(self, turn: Turn[T]) -> T:
        """Do the work, unless an earlier call has done it.

        Raises: as `Database.write`; DatabaseFailed when the database is not as this run has left it.
        """
        with self._database.write() as connection:
            before = self._settle(connection)
            if before is not turn:
                turn.result = turn.work(connection)
                self._mark(connection)
                self._doubtful = turn
        if before is not turn:
            self._finish(turn)
        return turn.result  # type: ignore[return-value]  # set by the work, above or in an earlier call

    def settle(self) -> None:
        """Find out about what is in doubt. Raises: as `take`."""
        if self._doubtful is not None:
            with self._database.write() as connection:
                self._settle(connection)

    def _settle(self, connection: Connection) -> "Turn[Any] | None":
        """The turn that was in doubt, if it did come about."""
        found = connection.execute(_NUMBER, {"run": self._run_id}).scalar()
        turn, self._doubtful = self._doubtful, None
        if turn is not None and found == self._done + 1:
            self._finish(turn)
            return turn
        if found != self._done:
            self._doubtful = turn
            raise DatabaseFailed(
                f"{self._database.path} is not as run {self._run_id} has left it: was a copy put back?",
                "put the first one back; mailer db restore FILE takes a backup while nothing runs",
            )
        return None

    def _finish(self, turn: Turn[Any]) -> None:
        self._done += 1
        self._doubtful = None
        turn.then(turn.result)

    def _mark(self, connection: Connection) -> None:
        connection.execute(_MARK, {"run": self._run_id, "number": self._done + 1})
