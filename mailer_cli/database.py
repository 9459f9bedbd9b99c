"""Where the data lives: engine, transactions, locks, migrations; the only module that knows the dialect."""

import fcntl
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import Connection, Engine, event, exc
from sqlalchemy.pool import NullPool

from mailer_cli.errors import DatabaseFailed, MailerError, Misconfigured, TryLater
from mailer_cli.settings import Settings

T = TypeVar("T")

SCHEMA = "0001"
"""The newest migration; a test keeps it equal to the folder."""

BUSY_TIMEOUT = 30  # seconds a transaction waits for its turn before exit 75


class Database:
    """An open database. Writers take turns: a `write` transaction holds the one write lock from its
    first statement, so what it reads stays true until it commits."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self.engine = engine
        self.path = path
        self._held: Connection | None = None

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

    @contextmanager
    def held_open(self) -> Iterator[None]:
        """Use one connection for all transactions inside, from one thread only."""
        with translated(self.path), self.engine.connect() as connection:
            self._held = connection
            try:
                yield
            finally:
                self._held = None

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        with translated(self.path):
            if self._held is not None:
                self._held.execution_options(writes=writes)
                with self._held.begin():
                    yield self._held
            else:
                with self.engine.connect().execution_options(writes=writes) as connection, connection.begin():
                    yield connection


def persistently(work: Callable[[], T], seconds: float) -> T:
    """Do the work, again and again for so long, as long as the database is locked, full or gone.

    For what must not be lost only. Raises: the last error.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

    retrying = Retrying(
        retry=retry_if_exception_type((TryLater, DatabaseFailed)),
        stop=stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        reraise=True,
    )
    return retrying(work)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn the driver's errors into ours; the operator sees one line."""
    try:
        yield
    except exc.IntegrityError:
        raise  # a broken rule of ours: the caller's, or a bug
    except exc.DBAPIError as error:
        if not isinstance(error.orig, sqlite3.DatabaseError):
            raise
        raise _explain(error.orig, path) from error
    except sqlite3.DatabaseError as error:
        raise _explain(error, path) from error


def _explain(error: sqlite3.DatabaseError, path: Path) -> MailerError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return TryLater(
                f"database {path} is locked by another process", "run the command again in a moment"
            )
        case sqlite3.SQLITE_NOTADB:
            return DatabaseFailed(f"{path} is not a database", "check MAILER_DATABASE, or restore a backup")
        case sqlite3.SQLITE_CORRUPT:
            return DatabaseFailed(f"database {path} is damaged", "mailer db check; mailer db restore FILE")
        case sqlite3.SQLITE_FULL:
            return DatabaseFailed(f"no space left to write {path}", "free some space; nothing was lost")
        case sqlite3.SQLITE_READONLY:
            return DatabaseFailed(
                f"database {path} or its folder is read-only", f"ls -ld {path} {path.parent}"
            )
        case sqlite3.SQLITE_CANTOPEN:
            return DatabaseFailed(f"cannot open database {path}", f"ls -ld {path} {path.parent}")
        case _:
            return DatabaseFailed(f"database {path}: {error}", "mailer db check")


def open_database(settings: Settings) -> Database:
    """Open the database that is there.

    Raises: Misconfigured when there is none or its schema is not ours; DatabaseFailed.
    """
    path = _sqlite_path(settings)
    _require_file(path)
    database = Database(_engine(path, create=False), path)
    _require_schema(database)
    return database


def create_database(settings: Settings) -> tuple[Database, bool]:
    """Make the database or bring its schema up to date; True when it was made. Repeating is safe."""
    path = _sqlite_path(settings)
    made = not path.exists()
    if made and not path.parent.is_dir():
        raise Misconfigured(f"folder {path.parent} does not exist", f"mkdir -p {path.parent}")
    database = Database(_engine(path, create=True), path)
    upgrade(database, settings)
    return database, made


def upgrade(database: Database, settings: Settings) -> tuple[str | None, str]:
    """Run the migrations that are missing, all or none; the schema before and after.

    Raises: Misconfigured when the schema is newer than this program, or is not ours.
    """
    from alembic import command
    from alembic.config import Config

    with database.read() as connection:
        before = schema_of(connection)
        foreign = before is None and bool(sqlalchemy.inspect(connection).get_table_names())
    if foreign:
        raise Misconfigured(f"{database.path} is a database of another program", "check MAILER_DATABASE")
    if before is not None and before > SCHEMA:
        raise _newer(before)
    _set_journal(database, settings)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, SCHEMA


def schema_of(connection: Connection) -> str | None:
    """The newest migration that the database has had; None when it has had none."""
    if not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return version


def reserve_message_ids(connection: Connection, floor: int) -> None:
    """Make the next message id greater than `floor` and than every id that was ever given."""
    connection.exec_driver_sql(
        "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'message'", (floor,)
    )


def _require_schema(database: Database) -> None:
    with database.read() as connection:
        found = schema_of(connection)
    if found is None:
        raise Misconfigured(f"{database.path} has no mailer schema", "mailer init")
    if found > SCHEMA:
        raise _newer(found)
    if found < SCHEMA:
        raise Misconfigured(
            f"{database.path} has schema {found}, this mailer needs {SCHEMA}", "mailer db upgrade"
        )


def _newer(found: str) -> Misconfigured:
    return Misconfigured(
        f"the database has schema {found}, this mailer knows only up to {SCHEMA}",
        "install the newer mailer, or restore a backup made before the upgrade",
    )


def _sqlite_path(settings: Settings) -> Path:
    value = settings.database
    if "://" not in value:
        return Path(value)
    url = sqlalchemy.make_url(value)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise Misconfigured(
            f"MAILER_DATABASE names {url.get_backend_name()!r}, which this version cannot use",
            "give a file path, or sqlite:///path",
        )
    return Path(url.database)


def _require_file(path: Path) -> None:
    try:
        if path.stat().st_size == 0 or path.is_file():
            return
    except FileNotFoundError:
        raise Misconfigured(f"there is no database {path}", "mailer init") from None
    except OSError as error:
        raise DatabaseFailed(f"cannot open database {path}: {error.strerror}") from error
    raise DatabaseFailed(f"{path} is not a database file", "check MAILER_DATABASE")


def _engine(path: Path, *, create: bool) -> Engine:
    address = f"file:{quote(str(path))}?mode={'rwc' if create else 'rw'}"

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
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@dataclass(frozen=True)
class Journal:
    """Which journal is used and why."""

    mode: str
    reason: str


def choose_journal(setting: str | None, version: tuple[int, ...] = sqlite3.sqlite_version_info) -> Journal:
    """WAL where SQLite is free of the checkpoint race that can corrupt it, else TRUNCATE.

    Source: sqlite.org/wal.html, "The WAL-reset bug": 3.7.0 to 3.51.2, mended in 3.50.7 and 3.44.6 too.
    """
    if setting is not None:
        return Journal(setting, "MAILER_JOURNAL says so")
    mended = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    number = ".".join(map(str, version))
    if mended:
        return Journal("wal", f"SQLite {number} has the WAL-reset bug mended")
    return Journal(
        "truncate", f"SQLite {number} can damage a WAL database when two processes checkpoint at once"
    )


def _set_journal(database: Database, settings: Settings) -> None:
    chosen = choose_journal(settings.journal).mode
    with translated(database.path), database.engine.connect() as connection:
        raw = connection.connection.cursor()
        raw.execute(f"PRAGMA journal_mode = {chosen}")


class RunLocks:
    """Who is alive is a lock, not a clock: byte *run id* of one file beside the database, freed by the
    kernel when the process dies. The file is never unlinked and no child inherits it; its modification
    time is the heartbeat that `health` reads."""

    def __init__(self, database: Database) -> None:
        self.path = lock_path(database)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, run_id: int) -> None:
        """Hold the lock of this run until `close`, or until the process ends."""
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, run_id))

    def is_free(self, run_id: int) -> bool:
        """Whether nobody holds the lock of this run; its holder itself is told True by the kernel."""
        found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, run_id))
        return bool(struct.unpack(FLOCK, found)[0] == fcntl.F_UNLCK)

    def beat(self) -> None:
        os.utime(self._file)

    def close(self) -> None:
        os.close(self._file)


FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: type, whence, start, length, pid


def _flock(kind: int, offset: int) -> bytes:
    return struct.pack(FLOCK, kind, os.SEEK_SET, offset, 1, 0)


def lock_path(database: Database) -> Path:
    return database.path.with_name(database.path.name + ".lock")
