"""A file is known by what it is, not by its name: the lock, the database, and what takes their names."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailer_cli import sender
from mailer_cli.database import Database, RunLocks, create_database, last_beat, lock_path
from mailer_cli.errors import DatabaseFailed, Refused
from mailer_cli.idle import beat_if_idle
from mailer_cli.settings import Settings
from tests import child
from tests.breakage import one_line, shortened, wait_until_stuck
from tests.conftest import Mailer
from tests.lab import Lab
from tests.test_idle import NOW

OpenLab = Callable[..., Lab]


@pytest.fixture
def open_lab(tmp_path: Path) -> Iterator[OpenLab]:
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Lab(tmp_path, **settings))


# The lock


def taken_away(lock: Path) -> None:
    lock.unlink()


def put_back_from_a_copy(lock: Path) -> None:
    shutil.copy2(lock, lock.with_name("copy"))
    lock.with_name("copy").replace(lock)


losses = pytest.mark.parametrize("lose", [taken_away, put_back_from_a_copy])


@losses
def test_who_is_alive_is_seen_when_the_lock_file_is_another(
    database: Database, lose: Callable[[Path], None]
) -> None:
    with child.holding(child.A_RUN, 12) as run:
        lose(lock_path(database))
        locks = RunLocks(database)
        assert not locks.is_free(12)
        assert locks.is_free(11) and locks.is_free(13)
        with pytest.raises(Refused, match="run 12 is alive"):
            locks.take_all()
        run.kill()
        run.wait()
        assert locks.is_free(12)
        locks.close()


@losses
def test_a_beat_goes_to_the_file_that_has_the_name_and_so_does_the_lock(
    database: Database, lose: Callable[[Path], None]
) -> None:
    locks, others = RunLocks(database), RunLocks(database)
    locks.take(12)
    lose(lock_path(database))
    locks.beat()
    assert last_beat(database) is not None
    raw = RunLocks(database)
    held, _ = raw._files()[0]
    assert raw._holder(12, 1) == 12 and held != locks._files()[0][0]
    assert not others.is_free(12)
    for each in (locks, others, raw):
        each.close()


@losses
def test_a_restore_still_keeps_runs_out(database: Database, lose: Callable[[Path], None]) -> None:
    restoring = RunLocks(database)
    restoring.take_all()
    lose(lock_path(database))
    run = RunLocks(database)
    with pytest.raises(Exception, match="restored"):
        run.take(12)
    run.close()
    restoring.close()


def test_a_database_is_the_same_in_a_place_that_it_is_mounted_at(database: Database, folder: Path) -> None:
    """As a single file of the host's in a container: the lock files are two."""
    Path("inside").mkdir()
    Path("inside/mailer.db").touch()
    if subprocess.run(["mount", "--bind", "mailer.db", "inside/mailer.db"], capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        with child.holding(child.A_RUN, 12):
            locks = RunLocks(Database(folder / "inside" / "mailer.db"))
            assert not locks.is_free(12)
            locks.close()
    finally:
        subprocess.run(["umount", "--lazy", "inside/mailer.db"], check=True)


def test_a_database_with_two_names_is_not_used(mailer: Mailer, database: Database) -> None:
    RunLocks(database).close()
    os.link("mailer.db", "second.db")
    with child.holding(child.A_RUN, 12):
        locks = RunLocks(Database(Path("second.db")))
        assert not locks.is_free(12)
        locks.close()
    for name in ("mailer.db", "second.db"):
        for command in (("dispatch",), ("clients", "list"), ("health",), ("db", "upgrade")):
            ran = mailer("--database", name, *command, code=78)
            assert f"{name} has two names" in ran.err and "-samefile" in ran.err
        assert "two names" in mailer("--database", name, "doctor", code=78).out
        assert not beat_if_idle(Path(name), NOW)
    Path("second.db").unlink()
    mailer("dispatch")


@losses
def test_what_a_living_run_owns_goes_once_when_the_lock_file_is_lost(
    open_lab: OpenLab, lose: Callable[[Path], None]
) -> None:
    lab = open_lab(concurrency=4)
    lab.add_mailing(12)
    lab.open_gateway("--latency", "0.7")
    first = lab.start()
    lab.wait_for_requests(1)
    lose(lock_path(lab.database))
    lab.run()
    assert first.wait().code == 0
    assert lab.number("SELECT count(*) FROM run WHERE stopped = 'died'") == 0
    assert set(lab.accepted().values()) == {1}
    lab.check_invariants()


# The database


@pytest.mark.parametrize("journal", ["truncate", "wal"])
def test_another_file_that_takes_the_name_is_not_touched(folder: Path, journal: str) -> None:
    database, _ = create_database(Settings(journal=journal))
    create_database(Settings(database="other.db"))
    other = Path("other.db").read_bytes()
    faults = "UPDATE gateway SET faults = faults + 1"
    with database.held_open():
        with database.write() as connection:
            connection.exec_driver_sql(faults)
        Path("mailer.db").rename("moved.db")
        for there in (False, True):
            if there:
                shutil.copy("other.db", "mailer.db")
            for begin in (database.read, database.write):
                said = "another file" if there else "no longer there"
                with pytest.raises(DatabaseFailed, match=said), begin() as connection:
                    connection.exec_driver_sql(faults)
        assert Path("mailer.db").read_bytes() == other
        Path("moved.db").rename("mailer.db")
        with database.write() as connection:
            connection.exec_driver_sql(faults)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT faults FROM gateway").scalar() == 2


def test_answers_go_into_no_other_database(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=4)
    lab.may_give_up = True
    path, moved = lab.folder / "mailer.db", lab.folder / "moved.db"
    other = lab.folder / "other.db"
    shutil.copy(path, other)
    lab.add_mailing(8)
    lab.open_gateway("--latency", "0.7")
    with shortened(sender, "PATIENCE", 0.5):
        run = lab.start()
    lab.wait_for_requests(4)
    path.rename(moved)
    other.rename(path)
    before = path.read_bytes()
    ran = run.wait()
    one_line(ran, 74)
    assert "another file than the database that was in use" in ran.err
    assert path.read_bytes() == before
    moved.replace(path)
    lab.run_until_final()
    lab.check_invariants()


def test_a_database_that_comes_back_in_time_gets_its_answers(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=4)
    path, moved = lab.folder / "mailer.db", lab.folder / "moved.db"
    lab.add_mailing(4)
    lab.open_gateway("--latency", "0.7")
    run = lab.start()
    lab.wait_for_requests(4)
    path.rename(moved)
    path.touch(0o600)
    wait_until_stuck(lab)
    moved.replace(path)
    assert run.wait().code == 0
    assert set(lab.accepted().values()) == {1}
    lab.check_invariants()
