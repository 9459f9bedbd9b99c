"""An open database: transactions that take turns, and the driver's errors in our words."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import Connection, Engine, Table, event, exc
from sqlalchemy.pool import NullPool

from mailer_cli.database import temporary
from mailer_cli.errors import DamagedRow, DatabaseFailed, MailerError, TryLater
from mailer_cli.owners import identity

T = TypeVar("T")

BULK_CACHE = 20_000  # KiB for the tables and as much for the temporary ones, while importing
ROWS_AT_ONCE = 200  # by one INSERT: a statement costs more than a row, and takes 999 values anywhere
BUSY_TIMEOUT = 30  # seconds a transaction waits for its turn before exit 75
PATIENCE = 2  # seconds after which whoever waits is told why
SHORTEST_PAUSE, LONGEST_PAUSE = 0.0005, 0.05  # seconds between looks whether it has come


class Unreadable(DatabaseFailed):
    """The file is not a database, or so damaged that SQLite gives up."""


class Database:
    """A database by its path, opened anew for each transaction. Writers take turns: a `write` transaction
    holds the one write lock from its first statement, so what it reads stays true until it commits.

    What it is, is known from the first time on: another file that takes its name meanwhile is not touched."""

    def __init__(self, path: Path, *, create: bool = False, called: Path | None = None) -> None:
        self.path = called or path  # as errors call it
        self.on_wait: Callable[[], None] = lambda: None
        self.engine = _engine(path, create=create, waits=self._wait)
        self._held: Connection | None = None
        self._place = path.absolute()
        self._identity: tuple[int, int] | None = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view. Keep it short: in the TRUNCATE journal a reader holds up every commit."""
        with self._transaction(writes=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The only writer until it commits.

        Raises: TryLater after BUSY_TIMEOUT seconds of waiting, DatabaseFailed.
        """
        with self._transaction(writes=True) as connection:
            yield connection

    def expect_readers(self) -> None:
        """Call `on_wait` when nobody can read for a while: SQLite itself waits for that without a word."""
        if BUSY_TIMEOUT <= PATIENCE:
            return
        try:
            with closing(sqlite3.connect(_address(self._place), uri=True, timeout=PATIENCE)) as raw:
                raw.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        except sqlite3.OperationalError as error:  # whoever reads next is told of any other
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                self.on_wait()
        except sqlite3.DatabaseError:
            pass

    def _wait(self) -> None:
        self.on_wait()

    @contextmanager
    def held_open(self) -> Iterator[Connection]:
        """Use one connection for all transactions inside, from one thread at a time."""
        with translated(self.path), self.engine.connect() as connection:
            self._require_same()
            self._held = connection
            try:
                yield connection
            finally:
                self._held = None

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """`held_open` for an import: temporary tables last as long as it, and have no way back, so an
        error inside must end it."""
        with self.held_open() as connection:
            raw = connection.connection.cursor()
            raw.execute("PRAGMA temp_store = FILE")
            raw.execute("PRAGMA temp.journal_mode = OFF")
            raw.execute(f"PRAGMA temp.cache_size = -{BULK_CACHE}")
            raw.execute(f"PRAGMA cache_size = -{BULK_CACHE}")
            yield

    @contextmanager
    def without_references(self) -> Iterator[None]:
        """`held_open`, for deleting rows that nothing refers to, as the caller knows: where no index leads to
        the referring ones, SQLite would look through a whole table for each row deleted."""
        with self.held_open() as connection:
            connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
            yield

    @contextmanager
    def outside_transactions(self) -> Iterator[sqlite3.Connection]:
        """The driver's connection, for what SQLite does in no transaction: journal modes, VACUUM, copies."""
        with translated(self.path):
            pooled = self.engine.raw_connection()
            try:
                self._require_same()
                raw = pooled.driver_connection
                assert isinstance(raw, sqlite3.Connection)  # noqa: S101  for mypy
                yield raw
            finally:
                pooled.close()

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        with translated(self.path), temporary.named(self.path, writes=writes):
            if self._held is not None:
                self._require_same()
                self._held.execution_options(writes=writes)
                with _given_up_when_broken(self._held), self._held.begin():
                    yield self._held
            else:
                with self.engine.connect().execution_options(writes=writes) as connection:
                    self._require_same()
                    with connection.begin():
                        yield connection

    def _require_same(self) -> None:
        """Raises: DatabaseFailed when the name now means another file, or nothing."""
        found = identity(self._place)
        if self._identity is None:
            self._identity = found
        if found is None:
            raise DatabaseFailed(f"database {self.path} is no longer there", f"ls -l {self.path.parent}")
        if found != self._identity:
            raise DatabaseFailed(
                f"{self.path} is another file than the database that was in use: it was moved or replaced",
                "put the first one back; mailer db restore FILE takes a backup while nothing runs",
            )


@contextmanager
def _given_up_when_broken(held: Connection) -> Iterator[None]:
    """After an error the next transaction opens the file anew: SQLite would not get over having seen it cut
    off, though it is whole again."""
    try:
        yield
    except exc.DatabaseError as error:
        if not isinstance(error, exc.IntegrityError):
            held.invalidate()
        raise


def _address(path: Path, *, create: bool = False) -> str:
    # absolute: `file:a%20b` may be relative, but `file://a` would be a host
    return f"file://{quote(str(path.absolute()))}?mode={'rwc' if create else 'rw'}"


def _engine(path: Path, *, create: bool, waits: Callable[[], None]) -> Engine:
    address = _address(path, create=create)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            address, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )

    engine = sqlalchemy.create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def prepare(raw: sqlite3.Connection, _: object) -> None:
        raw.execute("PRAGMA foreign_keys = ON")
        raw.execute("PRAGMA synchronous = FULL")
        # TRUNCATE, unlike WAL, is not remembered by the file; DELETE costs two more syncs of the folder
        if raw.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
            raw.execute("PRAGMA journal_mode = TRUNCATE")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # a deferred BEGIN that writes later fails at once with "locked", whatever the time-out
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)  # noqa: S101  for mypy
        if connection.get_execution_options().get("writes"):
            _take_turn(raw, waits)
        else:
            raw.execute("BEGIN")

    return engine


def _take_turn(raw: sqlite3.Connection, waits: Callable[[], None]) -> None:
    """BEGIN IMMEDIATE, asked for again and again; `waits` is called once, when it takes long. SQLite's own
    wait grows to 100 ms, in which the lock of others who hold it for five would lie unused. Raises:
    sqlite3.OperationalError after BUSY_TIMEOUT."""
    waited, pause = 0.0, SHORTEST_PAUSE
    raw.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                raw.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or waited >= BUSY_TIMEOUT:
                    raise
            time.sleep(pause)
            if waited < PATIENCE <= waited + pause:
                waits()
            waited += pause
            pause = min(max(SHORTEST_PAUSE, waited / 20), LONGEST_PAUSE)
    finally:
        raw.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT * 1000)}")


def persistently(work: Callable[[], T], seconds: float, gives_up: Callable[[], bool]) -> T:
    """Do the work, again and again for so long, as long as the database is locked, full or gone.

    For what must not be lost only, unless `gives_up` says so. Raises: the last error.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

    is_late = stop_after_delay(seconds)
    retrying = Retrying(
        retry=retry_if_exception_type((TryLater, DatabaseFailed)),
        stop=lambda state: is_late(state) or gives_up(),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        reraise=True,
    )
    return retrying(work)


def insert_new(connection: Connection, table: Table, rows: Sequence[tuple[object, ...]]) -> int:
    """Insert whole rows, leaving out those whose key is there already; how many went in.

    Past SQLAlchemy's compiler, which would take longer than the database.
    """
    whole = len(rows) // ROWS_AT_ONCE * ROWS_AT_ONCE
    return sum(
        _insert_groups(connection, table, size, part)
        for size, part in ((ROWS_AT_ONCE, rows[:whole]), (1, rows[whole:]))
        if part
    )


def _insert_groups(
    connection: Connection, table: Table, size: int, rows: Sequence[tuple[object, ...]]
) -> int:
    """Insert rows, so many by each statement."""
    row = f"({', '.join('?' * len(table.columns))})"
    marks = ", ".join([row] * size)
    statement = f"INSERT INTO {table.name} VALUES {marks} ON CONFLICT DO NOTHING"  # noqa: S608  our own names
    groups = [tuple(chain.from_iterable(rows[at : at + size])) for at in range(0, len(rows), size)]
    return connection.exec_driver_sql(statement, groups).rowcount


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn the driver's errors into ours; the operator sees one line."""
    try:
        yield
    except (exc.IntegrityError, sqlite3.IntegrityError):
        raise  # a broken rule of ours: the caller's, or a bug
    except exc.DBAPIError as error:
        if not isinstance(error.orig, sqlite3.DatabaseError):
            raise
        raise _explain(error.orig, path) from error
    except sqlite3.DatabaseError as error:
        raise _explain(error, path) from error


def _explain(error: sqlite3.DatabaseError, path: Path) -> MailerError:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the higher bits hold details
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return TryLater(
                f"database {path} is locked by another process", "run the command again in a moment"
            )
        case sqlite3.SQLITE_NOTADB:
            return Unreadable(f"{path} is not a database", "check MAILER_DATABASE, or restore a backup")
        case sqlite3.SQLITE_CORRUPT:
            return Unreadable(f"database {path} is damaged", "mailer db check; mailer db restore FILE")
        case sqlite3.SQLITE_FULL:
            return DatabaseFailed(f"no space left to write {path}", "free some space; nothing was lost")
        case sqlite3.SQLITE_READONLY:
            return DatabaseFailed(
                f"database {path} or its folder is read-only", f"ls -ld {path} {path.parent}"
            )
        case sqlite3.SQLITE_CANTOPEN:
            return DatabaseFailed(f"cannot open database {path}", f"ls -ld {path} {path.parent}")
        case 0:  # the driver's own, of a text that is no UTF-8; its words would show it
            return DamagedRow(f"a row of database {path} cannot be read", "mailer db check")
        case _:
            return DatabaseFailed(f"database {path}: {error}", "mailer db check")
