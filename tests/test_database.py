"""Transactions, errors, locks and migrations on real files, against real processes."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

from mailer_cli.database import (
    SCHEMA,
    Database,
    RunLocks,
    choose_journal,
    create_database,
    engine,
    last_beat,
    lock_path,
    open_database,
    reserve_message_ids,
    upgrade,
)
from mailer_cli.database.schema import MIGRATIONS
from mailer_cli.errors import DatabaseFailed, MailerError, Misconfigured, Refused, TryLater
from mailer_cli.settings import Settings
from tests import child
from tests.conftest import Mailer
from tests.old_schemas import make_0001

INCREMENT = """
    from pathlib import Path
    from mailer_cli.database import Database
    database = Database(Path("mailer.db"))
    for _ in range(50):
        with database.write() as connection:
            found = connection.exec_driver_sql("SELECT faults FROM gateway").scalar()
            connection.exec_driver_sql("UPDATE gateway SET faults = ?", (found + 1,))
"""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.2)


def faults(database: Database) -> int:
    with database.read() as connection:
        return connection.exec_driver_sql("SELECT faults FROM gateway").scalar_one()


def test_processes_that_read_and_then_write_lose_no_update_and_never_see_a_lock(database: Database) -> None:
    for each in [child.start(INCREMENT) for _ in range(4)]:
        child.finish(each)
    assert faults(database) == 200


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as connection:
        connection.exec_driver_sql("UPDATE gateway SET faults = 7")
        raise RuntimeError
    assert faults(database) == 0


def test_a_reader_sees_one_state_while_others_write(folder: Path) -> None:
    database, _ = create_database(Settings(journal="wal"))
    with database.read() as connection:
        before = connection.exec_driver_sql("SELECT faults FROM gateway").scalar()
        with database.write() as writer:
            writer.exec_driver_sql("UPDATE gateway SET faults = 7")
        assert connection.exec_driver_sql("SELECT faults FROM gateway").scalar() == before
    assert faults(database) == 7


def test_a_database_held_open_serves_transactions_in_turn(database: Database) -> None:
    with database.held_open():
        with database.write() as connection:
            connection.exec_driver_sql("UPDATE gateway SET faults = 7")
        assert faults(database) == 7
        with pytest.raises(RuntimeError), database.write() as connection:
            connection.exec_driver_sql("UPDATE gateway SET faults = 8")
            raise RuntimeError
    assert faults(database) == 7


def test_a_write_of_a_database_held_open_takes_the_write_lock_at_once(
    database: Database, impatient: None
) -> None:
    with database.held_open():
        faults(database)
        with database.write(), pytest.raises(TryLater), Database(database.path).write():
            pass


def test_every_connection_keeps_the_promises_on_durability_and_references(database: Database) -> None:
    with database.outside_transactions() as raw:
        found = [raw.execute(f"PRAGMA {each}").fetchone()[0] for each in ("foreign_keys", "synchronous")]
    assert found == [1, 2]
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.exec_driver_sql("INSERT INTO resolution VALUES (1, 99, 'sent', '2026-01-01')")


def test_a_path_may_hold_blanks_marks_and_percent_signs(folder: Path) -> None:
    name = "my %41 ?mode=ro#x.db"
    create_database(Settings(database=name))
    assert (folder / name).stat().st_size > 0
    assert faults(open_database(Settings(database=str(folder / name)))) == 0


def test_an_sqlite_url_is_a_path(folder: Path) -> None:
    create_database(Settings(database=f"sqlite:///{folder}/other.db"))
    assert (folder / "other.db").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("postgresql://h/d", "names 'postgresql'"),
        ("sqlite://", "names 'sqlite'"),
        ("://", "not an SQLAlchemy URL"),
    ],
)
def test_a_database_that_cannot_be_used_is_a_matter_of_configuration(
    mailer: Mailer, setting: str, said: str
) -> None:
    assert said in mailer("--database", setting, "init", code=78).err


# Errors


def test_a_database_locked_past_the_limit_is_to_be_tried_later(database: Database, impatient: None) -> None:
    with child.holding(child.A_WRITER), pytest.raises(TryLater, match="locked"), database.write():
        pass


def test_a_writer_looks_for_its_turn_often_at_first_and_never_too_seldom(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(engine, "time", SimpleNamespace(sleep=pauses.append))
    with child.holding(child.A_WRITER), pytest.raises(TryLater), database.write():
        pass
    assert pauses[0] == engine.SHORTEST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == engine.LONGEST_PAUSE
    assert engine.BUSY_TIMEOUT <= sum(pauses) < engine.BUSY_TIMEOUT + engine.LONGEST_PAUSE


@pytest.mark.parametrize("transaction", [Database.read, Database.write])
def test_whatever_else_is_locked_is_waited_for_by_sqlite_itself(
    database: Database, transaction: Callable[[Database], AbstractContextManager[Connection]]
) -> None:
    with transaction(database) as connection:
        waits = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    assert waits == engine.BUSY_TIMEOUT * 1000


def test_a_full_disk_loses_nothing(database: Database) -> None:
    with pytest.raises(DatabaseFailed, match="no space left"), database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
        for number in range(1000):
            connection.exec_driver_sql("INSERT INTO wording (text) VALUES (?)", (str(number) * 100,))
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM wording").scalar() == 0


def test_a_file_that_is_no_database_is_named(mailer: Mailer, folder: Path) -> None:
    (folder / "mailer.db").write_text("phones: none of your business" * 100)
    for words in (["init"], ["db", "upgrade"], ["db", "check"]):
        ran = mailer(*words, code=74)
        assert ran.err.splitlines()[0] == "error: mailer.db is not a database"


def test_a_damaged_page_is_damage_and_not_a_traceback(mailer: Mailer, database: Database) -> None:
    damage(database.path)
    ran = mailer("db", "check", code=74)
    assert "damaged" in ran.out + ran.err
    assert "Traceback" not in ran.err


def damage(path: Path) -> None:
    """Overwrite all pages but the first."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


def test_a_folder_in_the_place_of_the_database_is_refused(mailer: Mailer, folder: Path) -> None:
    (folder / "mailer.db").mkdir()
    for words in (["init"], ["db", "upgrade"], ["db", "check"]):
        assert "not a database file" in mailer(*words, code=74).err


def test_a_folder_that_takes_no_files_is_a_failure_of_the_disk(mailer: Mailer) -> None:
    ran = mailer("--database", "/proc/mailer.db", "init", code=74)
    assert ran.err.splitlines()[0] == "error: cannot open database /proc/mailer.db: No such file or directory"


def test_a_database_that_may_only_be_read_says_so(database: Database) -> None:
    with pytest.raises(DatabaseFailed, match="read-only"), database.write() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("UPDATE gateway SET faults = 1")


def test_a_missing_database_or_folder_is_a_matter_of_configuration(mailer: Mailer) -> None:
    ran = mailer("db", "check", code=78)
    assert ran.err == "error: there is no database mailer.db\nhint: mailer init\n"
    assert "folder nowhere does not exist" in mailer("--database", "nowhere/mailer.db", "init", code=78).err


# Schema


def test_the_migrated_schema_is_that_of_the_models(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_the_schema_that_the_program_needs_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [SCHEMA]


def test_an_upgrade_that_is_killed_leaves_the_old_schema(folder: Path) -> None:
    killed = """
        import os, signal
        from sqlalchemy import event, Engine
        from mailer_cli import database
        from mailer_cli.settings import Settings

        @event.listens_for(Engine, "before_cursor_execute")
        def die(connection, cursor, statement, *rest):
            if "CREATE TRIGGER message_tally" in statement:
                os.kill(os.getpid(), signal.SIGKILL)

        database.create_database(Settings())
    """
    process = child.start(killed)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with sqlite3.connect("mailer.db") as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    connection.close()
    database, made = create_database(Settings())
    assert not made
    assert upgrade(database, Settings()) == (SCHEMA, SCHEMA)


def test_two_that_make_the_database_at_once_make_one(folder: Path) -> None:
    make = """
        from mailer_cli import database
        from mailer_cli.settings import Settings
        database.create_database(Settings())
    """
    for each in [child.start(make) for _ in range(3)]:
        child.finish(each)
    assert faults(open_database(Settings())) == 0


@pytest.mark.parametrize(
    ("version", "said"),
    [("0999", "knows only up to"), ("ab12cd34", "another program"), ("0000", "db upgrade")],
)
def test_a_schema_that_is_not_ours_stops_before_anything_is_done(
    mailer: Mailer, database: Database, version: str, said: str
) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = ?", (version,))
    with pytest.raises(Misconfigured) as caught:
        open_database(Settings())
    assert said in f"{caught.value} {caught.value.hint}"
    if version > SCHEMA:
        for words in (["init"], ["db", "upgrade"]):
            assert said in mailer(*words, code=78).err


def test_the_database_of_another_program_is_left_alone(mailer: Mailer, folder: Path) -> None:
    with sqlite3.connect("mailer.db") as connection:
        connection.execute("CREATE TABLE theirs (id)")
    connection.close()
    before = (folder / "mailer.db").read_bytes()
    for words in (["init"], ["db", "upgrade"]):
        assert "another program" in mailer(*words, code=78).err
    assert (folder / "mailer.db").read_bytes() == before


def test_message_ids_only_grow(database: Database) -> None:
    for floor, expected in ((500, 500), (20, 500), (501, 501)):
        with database.write() as connection:
            reserve_message_ids(connection, floor)
            found = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'message'")
            assert found.scalar() == expected


# Init


def test_init_makes_a_database_and_a_settings_file_that_only_the_operator_can_read(
    mailer: Mailer, folder: Path
) -> None:
    Path(".env").unlink()
    ran = mailer("init", "--json")
    assert ran.json == {
        "database": "mailer.db",
        "made": True,
        "env_file": ".env",
        "env_made": True,
        "schema": SCHEMA,
        "timezone": "Europe/Moscow",
    }
    for name in ("mailer.db", ".env"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


def test_init_repeated_changes_nothing(mailer: Mailer, folder: Path) -> None:
    mailer("init")
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    ran = mailer("init", "--json")
    assert (ran.json["made"], ran.json["env_made"]) == (False, False)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before


def test_init_makes_the_settings_file_that_was_named(mailer: Mailer, folder: Path) -> None:
    assert mailer("--env-file", "prod.env", "init", "--json").json["env_file"] == "prod.env"
    assert (folder / "prod.env").exists()


def test_init_says_to_fill_in_the_token_while_it_is_empty(mailer: Mailer) -> None:
    Path(".env").unlink()
    assert "token into .env" in mailer("init").out
    Path(".env").write_text("TOKEN=a.b.c\n")
    assert "mailer doctor" in mailer("init").out


def test_a_settings_file_that_cannot_be_written_is_a_failure_of_the_disk(mailer: Mailer) -> None:
    assert "cannot write /proc/.env" in mailer("--env-file", "/proc/.env", "init", code=74).err


def test_db_upgrade_says_from_where_to_where(mailer: Mailer, folder: Path) -> None:
    (folder / "mailer.db").touch()
    assert mailer("db", "upgrade", "--json").json == {"before": None, "after": SCHEMA}
    assert mailer("db", "upgrade", "--json").json == {"before": SCHEMA, "after": SCHEMA}


def test_the_first_schema_is_upgraded_with_all_that_is_in_it(mailer: Mailer, folder: Path) -> None:
    make_0001(folder / "mailer.db")
    assert "mailer db upgrade" in mailer("stats", code=78).err
    before = rows_of("mailer.db")
    assert mailer("db", "upgrade", "--json").json == {"before": "0001", "after": SCHEMA}
    after = rows_of("mailer.db")
    for name in ("mailing", "gateway", "run"):
        rows = before.pop(name)
        assert [row[: len(rows[0])] for row in after.pop(name)] == rows  # new columns come last
    assert after == before
    mailer("db", "check")
    assert mailer("stats", 1, "--json").json["messages"]["total"] == 2
    fresh, _ = create_database(Settings(database="fresh.db"))
    assert schema_text("mailer.db") == schema_text(str(fresh.path))


def test_a_backup_of_the_first_schema_is_restored_into_todays(
    mailer: Mailer, database: Database, folder: Path
) -> None:
    make_0001(folder / "old.db")
    assert mailer("db", "restore", "old.db", "--yes", "--json").json["schema_before"] == "0001"
    mailer("db", "check")
    assert mailer("messages", "show", 11, "--json").json["status"] == "sent"


def rows_of(path: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table of ours."""
    tables = ("client", "wording", "mailing", "run", "message", "attempt", "tally", "gateway")
    with closing(sqlite3.connect(path)) as raw:
        return {name: raw.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in tables}


def schema_text(path: str) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


# Journal


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 40, 1), "truncate"),
        ((3, 44, 5), "truncate"),
        ((3, 44, 6), "wal"),
        ((3, 45, 0), "truncate"),
        ((3, 50, 6), "truncate"),
        ((3, 50, 7), "wal"),
        ((3, 51, 0), "truncate"),
        ((3, 51, 2), "truncate"),
        ((3, 51, 3), "wal"),
        ((3, 52, 0), "wal"),
    ],
)
def test_the_journal_is_wal_only_where_sqlite_is_mended(version: tuple[int, ...], mode: str) -> None:
    assert choose_journal(None, version).mode == mode
    assert choose_journal("wal", version).mode == "wal"


def test_the_journal_follows_the_setting_at_the_next_upgrade(folder: Path) -> None:
    for mode in ("wal", "truncate", "wal"):
        database, _ = create_database(Settings(journal=mode))
        with database.outside_transactions() as raw:
            assert raw.execute("PRAGMA journal_mode").fetchone() == (mode,)


# Locks


def test_the_lock_of_a_run_is_seen_by_others_until_its_process_is_killed(database: Database) -> None:
    locks = RunLocks(database)
    with child.holding(child.A_RUN, 12) as process:
        assert not locks.is_free(12)
        assert locks.is_free(11) and locks.is_free(13)
        process.kill()
        process.wait()
        assert locks.is_free(12)
    locks.close()


def test_a_lock_is_not_inherited_by_a_program_that_a_run_starts(database: Database) -> None:
    locks, others = RunLocks(database), RunLocks(database)
    locks.take(12)
    started = [sys.executable, "-c", "print('ready', flush=True); input()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(started, stdin=pipe, stdout=pipe, close_fds=False) as program:
        assert program.stdout is not None and program.stdout.readline() == b"ready\n"
        locks.close()
        assert others.is_free(12)
        program.communicate(b"\n")
    others.close()


def test_a_lock_survives_others_that_open_and_close_the_file(database: Database) -> None:
    locks, others = RunLocks(database), RunLocks(database)
    locks.take(12)
    RunLocks(database).close()
    assert not others.is_free(12)
    locks.close()
    others.close()


def test_locks_are_those_of_the_file_whatever_its_name(database: Database, folder: Path) -> None:
    (folder / "link.db").symlink_to("mailer.db")
    assert lock_path(Database(folder / "link.db")) == lock_path(database).resolve()


def test_all_locks_are_refused_while_a_run_is_alive_and_keep_new_ones_out(database: Database) -> None:
    mine, other = RunLocks(database), RunLocks(database)
    other.take(12)
    with pytest.raises(Refused, match="run 12 is alive"):
        mine.take_all()
    other.close()
    mine.take_all()
    other = RunLocks(database)
    with pytest.raises(TryLater, match="restored"):
        other.take(13)
    mine.close()
    other.take(13)
    other.close()


def test_only_a_beat_counts_as_a_sign_of_life(database: Database) -> None:
    assert last_beat(database) is None
    locks = RunLocks(database)
    assert last_beat(database) is None
    locks.beat()
    beaten_at = last_beat(database)
    assert beaten_at is not None
    assert abs((datetime.now(UTC) - beaten_at).total_seconds()) < 5
    RunLocks(database).close()
    assert last_beat(database) == beaten_at
    locks.close()


def test_a_lock_file_that_cannot_be_opened_is_one_line(folder: Path) -> None:
    with pytest.raises(MailerError, match="cannot open lock file"):
        RunLocks(Database(Path("/proc/mailer.db")))


def test_the_lock_file_is_the_operators_alone(database: Database) -> None:
    os.umask(0o022)
    try:
        RunLocks(database).close()
    finally:
        os.umask(0o077)
    assert lock_path(database).stat().st_mode & 0o777 == 0o600
