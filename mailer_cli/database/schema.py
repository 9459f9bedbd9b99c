"""Making, opening and upgrading the database; ids that are never used again."""

import os
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection

from mailer_cli import SCHEMA
from mailer_cli.database.engine import Database
from mailer_cli.database.journal import choose_journal, set_journal
from mailer_cli.errors import DatabaseFailed, Misconfigured
from mailer_cli.owners import open_or_make
from mailer_cli.settings import Settings, may_hold_a_login

MIGRATIONS = Path(__file__).parent.with_name("migrations")
PATH_HINT = "give a file path, or sqlite:///path"


def unopened(settings: Settings) -> Database:
    """The database that the settings name; whether it is there is not looked at.

    Raises: Misconfigured when they name none that can be used.
    """
    return Database(_sqlite_path(settings))


def open_database(settings: Settings, on_wait: Callable[[], None] | None = None) -> Database:
    """Open the database that is there; `on_wait` hears of it when another process holds it up.

    Raises: Misconfigured when there is none or its schema is not ours; DatabaseFailed.
    """
    database = unopened(settings)
    require_file(database.path)
    if on_wait is not None:
        database.on_wait = on_wait
        database.expect_readers()
    _require_schema(database)
    return database


def create_database(settings: Settings) -> tuple[Database, bool]:
    """Make the database or bring its schema up to date; True when it was made. Repeating is safe."""
    path = _sqlite_path(settings)
    made = not path.exists()
    if made:
        require_folder(path)
        _make(path)
    else:
        require_file(path)
    database = Database(path, create=True)
    upgrade(database, settings)
    return database, made


def _make(path: Path) -> None:
    """An empty file, which is an empty database; of the folder's owner, if root makes it."""
    try:
        os.close(open_or_make(path, os.O_RDWR, like=path.parent)[0])
    except OSError as error:
        raise DatabaseFailed(
            f"cannot open database {path}: {error.strerror}", f"ls -ld {path.parent}"
        ) from error


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
        raise _foreign(database)
    if before is not None:
        require_known(database, before)
    with database.outside_transactions() as raw:
        set_journal(raw, choose_journal(settings.journal).mode)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
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
    raise_ids(connection, {"message": floor})


def last_ids(raw: sqlite3.Connection) -> dict[str, int]:
    """The highest id ever given in each table; empty when the file is too damaged to tell."""
    with suppress(sqlite3.DatabaseError):
        return dict(raw.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    return {}


def raise_ids(connection: Connection, floors: Mapping[str, int]) -> None:
    """Make the next id of each table greater than its floor and than every id that was ever given."""
    for name, floor in floors.items():
        raised = connection.exec_driver_sql(
            "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (floor, name)
        )
        if raised.rowcount == 0:  # a table that never had a row
            connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, floor))


def require_folder(path: Path) -> None:
    """Raises: Misconfigured when there is no folder for the database."""
    if not path.parent.is_dir():
        raise Misconfigured(f"folder {path.parent} does not exist", f"mkdir -p {path.parent}")


def require_file(path: Path) -> None:
    """Raises: Misconfigured when there is nothing, DatabaseFailed when it is no file."""
    try:
        path.stat()
    except FileNotFoundError:
        raise Misconfigured(f"there is no database {path}", "mailer init") from None
    except OSError as error:
        raise DatabaseFailed(f"cannot open database {path}: {error.strerror}") from error
    if not path.is_file():
        raise DatabaseFailed(f"{path} is not a database file", "check MAILER_DATABASE")
    if path.stat().st_nlink > 1:  # what a crash leaves unfinished under one name is unknown to the other
        raise Misconfigured(
            f"{path} has two names (hard links), but its journal goes by one",
            f"find / -xdev -samefile {path}; remove the other name",
        )


def _require_schema(database: Database) -> None:
    with database.read() as connection:
        found = schema_of(connection)
    if found is None:
        raise Misconfigured(f"{database.path} has no mailer schema", "mailer init")
    require_known(database, found)
    if found < SCHEMA:
        raise Misconfigured(
            f"{database.path} has schema {found}, this mailer needs {SCHEMA}", "mailer db upgrade"
        )


def require_known(database: Database, found: str) -> None:
    """Raises: Misconfigured when the schema is newer than ours or another program's."""
    if not re.fullmatch(r"\d{4}", found):  # another program's Alembic
        raise _foreign(database)
    if found > SCHEMA:
        raise Misconfigured(
            f"{database.path} has schema {found}, this mailer knows only up to {SCHEMA}",
            "install the newer mailer, or restore a backup made before the upgrade",
        )


def _foreign(database: Database) -> Misconfigured:
    return Misconfigured(f"{database.path} is a database of another program", "check MAILER_DATABASE")


def _sqlite_path(settings: Settings) -> Path:
    value = settings.database
    if "://" not in value:
        if may_hold_a_login(value):
            raise Misconfigured("MAILER_DATABASE is an address with a password, not a file", PATH_HINT)
        return Path(value)
    try:
        url = sqlalchemy.make_url(value)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # the latter for a port that is none
        raise Misconfigured("MAILER_DATABASE is not an SQLAlchemy URL", PATH_HINT) from None
    if url.get_backend_name() != "sqlite" or not url.database:
        raise Misconfigured(
            f"MAILER_DATABASE names {url.get_backend_name()!r}, which this version cannot use", PATH_HINT
        )
    return Path(url.database)
