"""Copies, checks and restores, beside real processes."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlmodel import col

from mailer_cli import audience, backup
from mailer_cli.database import SCHEMA, Database, create_database, engine
from mailer_cli.errors import TryLater
from mailer_cli.models import Mailing
from mailer_cli.settings import Settings
from tests import child
from tests.campaign import NOW, a_campaign, mailing, statuses
from tests.conftest import Mailer

BOTH_JOURNALS = pytest.mark.parametrize("journal", ["truncate", "wal"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.2)


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def kept(folder: Path) -> Database:
    """The database that a restore has replaced."""
    (found,) = folder.glob("mailer.db.before-restore-*Z")
    return Database(found)


def query(database: Database, sql: str) -> list[tuple[object, ...]]:
    with database.read() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(sql)]


# Backup


@BOTH_JOURNALS
def test_a_backup_is_one_complete_file_that_only_the_operator_can_read(
    mailer: Mailer, folder: Path, journal: str
) -> None:
    database, _ = create_database(Settings(journal=journal))
    ids = a_campaign(database)
    before = names(folder)
    ran = mailer("db", "backup", "copy.db", "--json")
    copy = folder / "copy.db"
    assert ran.json == {"file": "copy.db", "bytes": copy.stat().st_size}
    assert copy.stat().st_mode & 0o777 == 0o600
    assert names(folder) - before == {"copy.db"}
    assert statuses(Database(copy)).keys() == set(ids.values())


def test_a_backup_replaces_nothing_unless_told(mailer: Mailer, database: Database, folder: Path) -> None:
    Path("copy.db").write_text("precious")
    before = names(folder)
    assert "--force" in mailer("db", "backup", "copy.db", code=1).err
    assert Path("copy.db").read_text() == "precious"
    assert names(folder) == before
    mailer("db", "backup", "--force", "copy.db")
    assert backup.look_at(Path("copy.db")) == SCHEMA


@pytest.mark.parametrize(
    ("target", "said", "code"),
    [
        ("mailer.db", "is the database", 2),
        ("nowhere/copy.db", "there is no folder nowhere", 2),
        (".", "is a folder", 2),
        ("/proc/copy.db", "cannot write /proc/copy.db", 74),
    ],
)
def test_a_backup_to_a_wrong_place_is_one_line(
    mailer: Mailer, database: Database, target: str, said: str, code: int
) -> None:
    before = database.path.read_bytes()
    ran = mailer("db", "backup", "--force", target, code=code)
    assert said in ran.err
    assert database.path.read_bytes() == before


def test_a_backup_of_a_damaged_database_is_not_made(mailer: Mailer, database: Database, folder: Path) -> None:
    a_campaign(database)
    before = names(folder)
    whole = database.path.read_bytes()
    for spoil in (_break_a_rule, _overwrite_pages):
        spoil(database.path)
        assert "damaged" in mailer("db", "backup", "copy.db", code=74).err
        assert names(folder) <= before
        database.path.write_bytes(whole)


def _break_a_rule(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        raw.execute("UPDATE message SET failures = -1")


def _overwrite_pages(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 12)


def test_an_index_that_is_not_that_of_its_table_is_damage(mailer: Mailer, database: Database) -> None:
    a_campaign(database)
    with closing(sqlite3.connect(database.path, isolation_level=None)) as raw:
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'pending', 'sending') WHERE name = 'message_due'"
        )
    assert "damaged" in mailer("db", "check", code=74).out


def test_a_backup_is_consistent_while_others_write(mailer: Mailer, database: Database) -> None:
    busy = """
        from pathlib import Path
        from mailer_cli.database import Database
        database = Database(Path("mailer.db"))
        while True:
            with database.write() as connection:
                connection.exec_driver_sql("INSERT INTO wording (text) VALUES ('x')")
                connection.exec_driver_sql("UPDATE gateway SET faults = faults + 1")
            print("ready", flush=True)
    """
    process = child.start(busy)
    assert process.stdout is not None and process.stdout.readline()
    try:
        for _ in range(5):
            mailer("db", "backup", "--force", "copy.db")
            copy = Database(Path("copy.db"))
            assert query(copy, "SELECT faults - (SELECT count(*) FROM wording) FROM gateway") == [(0,)]
    finally:
        process.kill()
        process.communicate()


# Restore


@BOTH_JOURNALS
def test_a_restore_brings_the_content_back_and_keeps_the_replaced(
    mailer: Mailer, folder: Path, journal: str
) -> None:
    database, _ = create_database(Settings(journal=journal))
    a_campaign(database)
    mailer("db", "backup", "copy.db")
    with database.write() as connection:
        mailing(connection, 2, fixed=False)
    before = names(folder)
    ran = mailer("db", "restore", "copy.db", "--yes", "--json")
    assert query(database, "SELECT id FROM mailing") == [(1,)]
    assert query(kept(folder), "SELECT id FROM mailing") == [(1,), (2,)]
    assert ran.json["kept"] == kept(folder).path.name
    assert kept(folder).path.stat().st_mode & 0o777 == 0o600
    assert names(folder) - before == {kept(folder).path.name, "mailer.db.lock"}
    assert query(database, "PRAGMA journal_mode") == [(journal,)]
    mailer("db", "check")


def test_what_waited_or_was_in_flight_is_unknown_after_a_restore(mailer: Mailer, database: Database) -> None:
    ids = a_campaign(database)
    mailer("db", "backup", "copy.db")
    ran = mailer("db", "restore", "copy.db", "--yes", "--json")
    found = statuses(database)
    assert found.pop(ids["sent"]) == "sent"
    assert set(found.values()) == {"unknown"}
    assert (ran.json["paused"], ran.json["unknown"], ran.json["pending"]) == (1, 3, 0)
    reasons = query(database, "SELECT DISTINCT reason FROM message WHERE status = 'unknown' ORDER BY 1")
    assert reasons == [(None,), ("restored",)]
    assert query(database, "SELECT outcome FROM attempt ORDER BY message_id") == [
        ("ok",),
        *[("unknown",)]
        * 4,  # one before, one in flight, and two of which nobody knows whether they were made
    ]
    mailer("db", "check")


def test_what_waited_still_waits_when_nothing_was_sent_since(mailer: Mailer, database: Database) -> None:
    ids = a_campaign(database)
    mailer("db", "backup", "copy.db")
    ran = mailer("db", "restore", "copy.db", "--yes", "--keep-pending", "--json")
    found = statuses(database)
    assert found[ids["waits"]] == found[ids["waits too"]] == "pending"
    assert found[ids["in flight"]] == "unknown"
    assert (ran.json["unknown"], ran.json["pending"]) == (1, 2)
    mailer("db", "check")


def test_an_attempt_that_was_open_without_its_message_is_counted_too(
    mailer: Mailer, database: Database
) -> None:
    ids = a_campaign(database)
    with database.write() as connection:  # a late answer to an earlier attempt has settled it
        connection.exec_driver_sql(
            "UPDATE message SET status = 'cancelled', run_id = NULL WHERE id = ?", (ids["in flight"],)
        )
    mailer("db", "backup", "copy.db")
    mailer("db", "restore", "copy.db", "--yes")
    assert statuses(database)[ids["in flight"]] == "cancelled"
    mailer("db", "check")


def test_open_mailings_are_paused_by_a_restore_and_others_left_as_they_are(
    mailer: Mailer, database: Database
) -> None:
    a_campaign(database)
    with database.write() as connection:
        mailing(connection, 2, fixed=False, start_at=NOW + timedelta(minutes=9))
        mailing(connection, 3, fixed=False, cancelled_at=NOW)
        mailing(connection, 4, fixed=False, removed_at=NOW)
        mailing(connection, 5, fixed=False, start_at=NOW - timedelta(9), end_at=NOW - timedelta(8))
        mailing(connection, 6, fixed=False, fixed_at=NOW)
        mailing(connection, 7, fixed=False, paused_at=NOW - timedelta(1))
    mailer("db", "backup", "copy.db")
    ran = mailer("db", "restore", "copy.db", "--yes", "--json")
    assert ran.json["paused"] == 2
    paused = query(database, "SELECT id FROM mailing WHERE paused_at IS NOT NULL ORDER BY id")
    assert paused == [(1,), (2,), (7,)]


def test_runs_that_had_not_ended_are_ended_by_a_restore(mailer: Mailer, database: Database) -> None:
    a_campaign(database)
    mailer("db", "backup", "copy.db")
    mailer("db", "restore", "copy.db", "--yes")
    runs = query(database, "SELECT DISTINCT stopped, ended_at IS NULL FROM run")
    assert runs == [("restored", 0)]


def test_ids_that_were_given_after_the_backup_are_never_given_again(
    mailer: Mailer, database: Database
) -> None:
    a_campaign(database)
    mailer("db", "backup", "copy.db")
    with database.write() as connection:
        mailing(connection, 2)
    used = set(statuses(database))
    mailer("db", "restore", "copy.db", "--yes")
    with database.write() as connection:
        added = connection.execute(insert(Mailing).values(_next_mailing()).returning(col(Mailing.id)))
        new_id = added.scalar_one()
        audience.fix(connection, new_id, NOW)  # the same clock as before: the ids alone must tell
    new = set(statuses(database)) - used
    assert new_id == 3
    assert len(new) == 5 and min(new) > max(used)


def _next_mailing() -> dict[str, object]:
    times = {"created_at": NOW, "updated_at": NOW, "start_at": NOW, "end_at": NOW + timedelta(hours=1)}
    return {"wording_id": 1, "operator_codes": (), "tags": (), "everyone": True, "priority": 0, **times}


def test_a_restore_is_refused_while_a_dispatch_is_alive(
    mailer: Mailer, database: Database, folder: Path
) -> None:
    a_campaign(database)
    mailer("db", "backup", "copy.db")
    with child.holding(child.A_RUN, 12):
        before, content = names(folder), database.path.read_bytes()
        assert "run 12 is alive" in mailer("db", "restore", "copy.db", "--yes", code=1).err
        assert (names(folder), database.path.read_bytes()) == (before, content)
    mailer("db", "restore", "copy.db", "--yes")


@BOTH_JOURNALS
@pytest.mark.parametrize("busy", [child.A_WRITER, child.A_READER])
def test_a_restore_waits_its_turn_and_changes_nothing_when_it_gets_none(
    mailer: Mailer, folder: Path, impatient: None, journal: str, busy: str
) -> None:
    database, _ = create_database(Settings(journal=journal))
    a_campaign(database)
    mailer("db", "backup", "copy.db")
    with child.holding(busy):
        before = names(folder)
        assert "locked" in mailer("db", "restore", "copy.db", "--yes", code=75).err
        assert names(folder) - {"mailer.db.lock"} == before
    assert "pending" in statuses(database).values()


def test_a_process_that_has_the_database_open_goes_on_with_the_restored_content(
    mailer: Mailer, database: Database
) -> None:
    mailer("db", "backup", "copy.db")
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE gateway SET faults = 7")
    waiting = """
        from pathlib import Path
        from mailer_cli.database import Database
        database = Database(Path("mailer.db"))
        with database.held_open():
            with database.read() as connection:
                print(connection.exec_driver_sql("SELECT faults FROM gateway").scalar(), flush=True)
            sys.stdin.readline()
            with database.write() as connection:
                connection.exec_driver_sql("UPDATE gateway SET faults = faults + 1")
    """
    process = child.start(waiting)
    assert process.stdout is not None and process.stdout.readline() == "7\n"
    mailer("db", "restore", "copy.db", "--yes")
    process.communicate("\n")
    assert query(database, "SELECT faults FROM gateway") == [(1,)]


def test_a_restore_that_is_killed_leaves_the_database_as_it_was(mailer: Mailer, database: Database) -> None:
    a_campaign(database)
    mailer("db", "backup", "copy.db")
    with database.write() as connection:
        for number in range(2000):  # so that the content comes in more than one piece
            connection.exec_driver_sql("INSERT INTO wording (text) VALUES (?)", (str(number) * 200,))
    killed = """
        import os, signal
        from datetime import UTC, datetime
        from pathlib import Path
        from mailer_cli import backup
        from mailer_cli.database import files
        from mailer_cli.settings import Settings

        def half(live, fresh, aside):
            with files.alone(live) as raw, fresh.outside_transactions() as fresh_raw:
                raw.execute("PRAGMA cache_size = 10")  # spills into the file before the commit
                fresh_raw.backup(raw, pages=20, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))

        files._overwrite = half
        backup.restore(Settings(), Path("copy.db"), datetime.now(UTC))
    """
    child.start(killed).communicate()
    assert query(database, "SELECT count(*) FROM wording") == [(2001,)]
    assert query(database, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("content", [b"", b"garbage" * 999, None])
def test_a_restore_works_where_no_database_can_be_read_any_more(
    mailer: Mailer, database: Database, folder: Path, content: bytes | None
) -> None:
    a_campaign(database)
    mailer("db", "backup", "copy.db")
    if content is None:
        database.path.unlink()
    else:
        database.path.write_bytes(content)
    Path("mailer.db-journal").write_bytes(b"of the one that was lost")
    mailer("db", "restore", "copy.db", "--yes")
    mailer("db", "check")
    assert query(Database(database.path), "SELECT count(*) FROM message") == [(5,)]
    assert Path("mailer.db").stat().st_mode & 0o777 == 0o600
    if content:
        assert kept(folder).path.read_bytes() == content


def test_a_restore_works_on_a_damaged_database(mailer: Mailer, database: Database, folder: Path) -> None:
    a_campaign(database)
    mailer("db", "backup", "copy.db")
    whole = database.path.read_bytes()
    for spoiled in (whole[: len(whole) // 2], whole[:4096] + b"\xff" * (len(whole) - 4096)):
        database.path.write_bytes(spoiled)
        mailer("db", "restore", "copy.db", "--yes")
        mailer("db", "check")
    assert len(list(folder.glob("*before-restore*Z"))) == 2


def test_only_a_backup_of_ours_is_restored(mailer: Mailer, database: Database, folder: Path) -> None:
    Path("text.db").write_text("no database" * 999)
    with closing(sqlite3.connect("theirs.db")) as raw:
        raw.execute("CREATE TABLE theirs (id)")
    mailer("db", "backup", "newer.db")
    with closing(sqlite3.connect("newer.db", isolation_level=None)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0999'")
    before = names(folder)
    for source, said, code in (
        ("nowhere.db", "no backup nowhere.db", 2),
        ("mailer.db", "is the database", 2),
        ("text.db", "text.db is not a database", 74),
        ("theirs.db", "theirs.db is not a backup of mailer", 78),
        ("newer.db", "newer.db has schema 0999", 78),
    ):
        assert said in mailer("db", "restore", source, "--yes", code=code).err
    assert names(folder) == before


def test_a_damaged_backup_is_not_restored(mailer: Mailer, database: Database) -> None:
    a_campaign(database)
    before = database.path.read_bytes()
    for spoil in (_break_a_rule, _overwrite_pages):
        mailer("db", "backup", "--force", "copy.db")
        spoil(Path("copy.db"))
        assert "damaged" in mailer("db", "restore", "copy.db", "--yes", code=74).err
        assert database.path.read_bytes() == before


def test_a_restore_into_a_folder_that_is_not_there_is_a_matter_of_configuration(
    mailer: Mailer, database: Database
) -> None:
    mailer("db", "backup", "copy.db")
    assert "mkdir" in mailer("--database", "nowhere/m.db", "db", "restore", "copy.db", "--yes", code=78).err


def test_a_restore_asks_first(mailer: Mailer, database: Database) -> None:
    mailer("db", "backup", "copy.db")
    assert "--yes" in mailer("db", "restore", "copy.db", code=2).err


def test_a_run_cannot_begin_during_a_restore(database: Database) -> None:
    from mailer_cli.database import RunLocks

    restoring, run = RunLocks(database), RunLocks(database)
    restoring.take_all()
    with pytest.raises(TryLater):
        run.take(1)
    restoring.close()
    run.close()


# Check


def test_every_rule_is_seen_to_be_broken(mailer: Mailer, database: Database) -> None:
    ids = a_campaign(database)
    breakages = {
        "tally": "UPDATE tally SET messages = messages + 1 WHERE status = 'expired'",
        "purged": "UPDATE mailing SET purged_at = updated_at",
        "turns": "UPDATE mailing SET turn = NULL",
        "owner": "UPDATE run SET ended_at = started_at",
        "in flight": "UPDATE attempt SET ended_at = started_at, outcome = 'not_sent' WHERE outcome IS NULL",
        "sent": f"UPDATE attempt SET outcome = 'not_sent' WHERE message_id = {ids['sent']}",
        "counters": f"UPDATE message SET unknowns = 1, attempts = 2 WHERE id = {ids['sent']}",
    }
    mailer("db", "check")
    whole = database.path.read_bytes()
    for name, breakage in breakages.items():
        with database.write() as connection:
            connection.exec_driver_sql(breakage)
        findings = mailer("db", "check", "--json", code=1).json["findings"]
        assert [each["name"] for each in findings if each["level"] == "error"] == [name]
        database.path.write_bytes(whole)


def test_a_sent_message_that_no_attempt_and_no_operator_explains_is_found(
    mailer: Mailer, database: Database
) -> None:
    ids = a_campaign(database)
    with database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE message SET status = 'sent', sent_at = created_at WHERE id = ?", (ids["unknown"],)
        )
    mailer("db", "check", code=1)
    with database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO resolution VALUES (1, ?, 'sent', '2026-01-01')", (ids["unknown"],)
        )
    mailer("db", "check")


def test_a_reference_to_nothing_is_damage(mailer: Mailer, database: Database) -> None:
    with closing(sqlite3.connect("mailer.db", isolation_level=None)) as raw:
        raw.execute("INSERT INTO resolution VALUES (1, 99, 'sent', '2026-01-01')")
    ran = mailer("db", "check", "--json", code=74)
    assert [each["name"] for each in ran.json["findings"] if each["level"] == "error"] == ["references"]


def test_messages_left_at_the_end_are_no_broken_rule_before_a_run_could_end_them(
    mailer: Mailer, database: Database
) -> None:
    a_campaign(database)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE mailing SET start_at = '2020-01-01', end_at = '2020-01-02'")
    ran = mailer("db", "check")
    assert "3 messages of ended mailings" in ran.out


def test_check_changes_nothing(mailer: Mailer, database: Database) -> None:
    a_campaign(database)
    before = database.path.read_bytes()
    mailer("db", "check")
    assert database.path.read_bytes() == before
