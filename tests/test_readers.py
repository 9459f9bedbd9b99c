"""Who looks for long holds up nobody who writes: backups, checks, lists, whatever the journal."""

import os
import select
import sqlite3
import threading
from pathlib import Path

import pytest

from mailer_cli import clients, messages
from mailer_cli.clients import listing
from mailer_cli.database import Database, create_database, engine, files
from mailer_cli.models import MessageStatus
from mailer_cli.settings import Settings
from tests.campaign import a_campaign
from tests.conftest import Mailer
from tests.rows import NOON, add_client, add_mailing, add_messages

BOTH_JOURNALS = pytest.mark.parametrize("journal", ["truncate", "wal"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.2)


def counts(database: Database) -> int:
    with database.read() as connection:
        return int(connection.exec_driver_sql("SELECT faults FROM gateway").scalar() or 0)


def somebody_writes() -> None:
    """Another program; it does not wait."""
    with Database(Path("mailer.db")).write() as connection:
        connection.exec_driver_sql("UPDATE gateway SET faults = faults + 1")


def before(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Somebody writes each time before this step; what was written, and when."""
    step, heard = getattr(files, name), []

    def watched(*given: object, **options: object) -> object:
        somebody_writes()
        heard.append(name)
        return step(*given, **options)

    monkeypatch.setattr(files, name, watched)
    return heard


@BOTH_JOURNALS
@pytest.mark.parametrize("command", [("db", "backup", "copy.db"), ("db", "check")])
@pytest.mark.parametrize("step", ["_vacuum", "damage", "broken_references"])
def test_a_commit_is_made_while_somebody_looks_for_long(
    mailer: Mailer,
    folder: Path,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    journal: str,
    command: tuple[str, ...],
    step: str,
) -> None:
    database, _ = create_database(Settings(journal=journal))
    a_campaign(database)
    heard = before(monkeypatch, step)
    mailer(*command)
    assert counts(database) == len(heard)
    assert sorted(path.name for path in folder.iterdir() if "copy" in path.name) in ([], ["copy.db"])


def test_a_long_look_reads_nothing_of_the_database_itself(
    mailer: Mailer, database: Database, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of it: here somebody writes between two rows that the check reads."""
    a_campaign(database)
    read = Database.read
    seen: list[Path] = []

    def watched(self: Database) -> object:
        seen.append(self._place)
        return read(self)

    monkeypatch.setattr(Database, "read", watched)
    mailer("db", "check")
    of_itself = [each for each in seen if each == database.path.absolute()]
    assert len(seen) - len(of_itself) >= 8
    assert len(of_itself) == 2  # its schema, and the copying


def test_a_backup_is_made_compact_out_of_a_copy(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As slowly as its disk wants."""
    vacuum, seen = files._vacuum, []

    def watched(raw: sqlite3.Connection, target: Path) -> None:
        seen.append(Path(raw.execute("PRAGMA database_list").fetchone()[2]))
        vacuum(raw, target)

    monkeypatch.setattr(files, "_vacuum", watched)
    mailer("db", "backup", "copy.db")
    assert len(seen) == 1 and seen[0] != database.path.absolute() and not seen[0].exists()


def test_a_copy_has_what_was_committed_while_it_was_made(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_campaign(database)
    monkeypatch.setattr(files, "PIECE", 4096)
    monkeypatch.setattr(files, "FEW", 0)
    heard = before(monkeypatch, "_write")
    mailer("db", "backup", "copy.db")
    # the last is committed when all has been looked at, so it is not in the copy
    assert counts(Database(Path("copy.db"))) == counts(database) - 1 == len(heard) - 1
    assert len(heard) == files.LOOKS + 1  # who always writes does not keep it from its end
    mailer("--database", "copy.db", "db", "check")


def test_a_copy_of_a_database_that_shrinks_and_grows_is_whole(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PIECE", 4096)
    monkeypatch.setattr(files, "FEW", -1)
    write, sizes = files._write, iter([400, 0, 900, 1])

    def changing(*given: object) -> object:
        wanted = next(sizes, None)
        if wanted is not None:
            with database.write() as connection:
                connection.exec_driver_sql("DELETE FROM wording")
                for _ in range(wanted):
                    connection.exec_driver_sql("INSERT INTO wording (text) VALUES (hex(zeroblob(999)))")
            with database.outside_transactions() as raw:
                raw.execute("VACUUM")
        return write(*given)

    monkeypatch.setattr(files, "_write", changing)
    mailer("db", "backup", "copy.db")
    mailer("--database", "copy.db", "db", "check")
    with Database(Path("copy.db")).read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM wording").scalar() == 1


def test_a_pipe_that_nobody_empties_holds_up_nobody(
    mailer: Mailer, database: Database, impatient: None
) -> None:
    a_campaign(database)
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    backup = threading.Thread(target=mailer, args=("db", "backup", "pipe"))
    backup.start()
    select.select([reader], [], [], 60)  # the first bytes are in the pipe, which takes no more than 64 KiB
    somebody_writes()
    os.set_blocking(reader, True)
    while os.read(reader, 1 << 20):
        pass
    backup.join(60)
    os.close(reader)
    assert counts(database) == 1


@pytest.mark.parametrize("looked_at", [1, 3, 7, 1000])
@pytest.mark.parametrize("limit", [None, 1, 4])
def test_a_list_with_a_filter_looks_at_some_at_a_time_and_finds_all(
    database: Database, monkeypatch: pytest.MonkeyPatch, looked_at: int, limit: int | None
) -> None:
    monkeypatch.setattr("mailer_cli.database.paging.LOOKED_AT", looked_at)
    monkeypatch.setattr(listing, "PAGE", 2)
    for number in range(12):
        add_client(database, 79160000000 + number, tag="vip" if number in (0, 5, 6, 11) else "")
    for tags, wanted in ((("vip",), [12, 7, 6, 1]), ((), list(range(12, 0, -1))), (("none",), [])):
        found = clients.listed(database, clients.Wanted(tags=tags), limit)
        assert [each.id for each in found] == wanted[:limit]


@pytest.mark.parametrize("looked_at", [1, 3, 7, 1000])
@pytest.mark.parametrize("limit", [None, 1, 4])
def test_a_list_of_messages_does_so_too(
    database: Database, monkeypatch: pytest.MonkeyPatch, looked_at: int, limit: int | None
) -> None:
    monkeypatch.setattr("mailer_cli.database.paging.LOOKED_AT", looked_at)
    monkeypatch.setattr("mailer_cli.messages.listing.PAGE", 2)
    sent, failed = MessageStatus.SENT, MessageStatus.FAILED
    first, second = add_mailing(database), add_mailing(database)
    ids = add_messages(database, first, {"sent": 2, "failed": 3}) + add_messages(
        database, second, {"sent": 4}
    )
    asked = {
        (): ids,
        (failed,): ids[2:5],
        (sent,): ids[:2] + ids[5:],
        (MessageStatus.EXPIRED,): [],
    }
    for statuses, wanted in asked.items():
        for mailing, its in ((None, ids), (first, ids[:5]), (second, ids[5:])):
            found = messages.listed(database, messages.Wanted(mailing, statuses=statuses), NOON, limit=limit)
            expected = [each for each in reversed(wanted) if each in its]
            assert [each.id for each in found] == expected[:limit]
