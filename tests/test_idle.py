"""The cron minute with nothing to do: over at once, beside everybody, and never when a run has work."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, text

from mailer_cli import dispatch
from mailer_cli.database import Database, RunLocks, lock_path
from mailer_cli.idle import beat_if_idle
from mailer_cli.models import Attempt, Client, Mailing, Message, Tally
from mailer_cli.models import Run as RunRow
from mailer_cli.start import Run, is_over, read
from tests.conftest import TOKEN, Mailer
from tests.rows import add_attempt, add_client, add_mailing, add_message, add_run

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 3, 1, 12, 0, 0, 500, tzinfo=UTC)
MOMENTS = st.sampled_from([timedelta(microseconds=each) for each in (-(10**10), -1, 0, 1, 10**10)])
MAILINGS = st.fixed_dictionaries(
    {
        "start": MOMENTS,
        "lasts": st.sampled_from([timedelta(microseconds=1), timedelta(hours=1), timedelta(days=1)]),
        "marks": st.sets(st.sampled_from(["paused_at", "cancelled_at", "removed_at"]), max_size=1),
        "fixed": st.booleans(),
        "window": st.sampled_from([(None, None), (None, None), (0, 60), (660, 780)]),
        "messages": st.lists(
            st.tuples(st.sampled_from(["pending", "pending", "sent", "expired"]), MOMENTS), max_size=2
        ),
    }
)
RUNS = st.sampled_from(["none", "ended", "dead", "owing"])


def one(start: int = -1, messages: Sequence[object] = (), *marks: str) -> Mapping[str, object]:
    """A mailing that begins so many microseconds from now; without messages it has no audience yet."""
    return {
        "start": timedelta(microseconds=start),
        "lasts": timedelta(days=1),
        "marks": set(marks),
        "fixed": False,
        "window": (None, None),
        "messages": messages,
    }


def build(database: Database, wanted: Mapping[str, object], number: int) -> None:
    mailing = add_mailing(
        database,
        start_at=NOW + wanted["start"],
        end_at=NOW + wanted["start"] + wanted["lasts"],
        fixed_at=NOW if wanted["fixed"] or wanted["messages"] else None,
        window_from=wanted["window"][0],
        window_to=wanted["window"][1],
        **dict.fromkeys(wanted["marks"], NOW),
    )
    for place, (status, due) in enumerate(wanted["messages"]):
        client = add_client(database, 79_000_000_000 + 10 * number + place)
        add_message(database, mailing, client, status, due_at=NOW + due)


def build_run(database: Database, kind: str) -> None:
    if kind == "none":
        return
    if kind == "owing":
        mailing = add_mailing(database, fixed_at=NOW, paused_at=NOW)
        message = add_message(database, mailing, add_client(database, 79_999_999_999), "sent")
        add_attempt(database, message, 1)
    else:
        add_run(database)
    if kind != "dead":
        with database.write() as connection:
            connection.execute(text("UPDATE run SET ended_at = started_at"))


def clear(database: Database) -> None:
    with database.write() as connection:
        for table in (Attempt, Message, Tally, Mailing, Client, RunRow):
            connection.execute(delete(table))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@example(mailings=[one(0)], run="none")
@example(mailings=[one(1)], run="none")
@example(mailings=[one(0, (), "cancelled_at")], run="none")
@example(mailings=[one(0, [("pending", timedelta(0))])], run="none")
@example(mailings=[one(0, [("pending", timedelta(microseconds=1))])], run="none")
@example(mailings=[one(0, [("pending", timedelta(1))], "cancelled_at")], run="none")
@example(mailings=[one(0, [("pending", timedelta(1))], "removed_at")], run="none")
@example(mailings=[one(0, [("pending", timedelta(0))], "paused_at")], run="none")
@given(mailings=st.lists(MAILINGS, max_size=2), run=RUNS)
def test_what_is_seen_at_a_glance_is_what_the_dispatcher_finds(
    mailings: list[Mapping[str, object]], run: str, database: Database
) -> None:
    clear(database)
    for number, each in enumerate(mailings):
        build(database, each, number)
    build_run(database, run)
    locks = RunLocks(database)
    has_work = dispatch._has_work(database, locks, NOW, None)
    assert has_work or not any(map(goes_now, mailings))
    assert not (beat_if_idle(database.path, NOW) and has_work)
    if not has_work:
        dispatch._settle(database, NOW, None)
        assert beat_if_idle(database.path, NOW)
        assert not dispatch._has_work(database, locks, NOW, None)
    locks.close()


def goes_now(mailing: Mapping[str, Any]) -> bool:
    """Whether something of it may be claimed now, by what was asked for and not by what is stored."""
    is_open = mailing["start"] <= timedelta(0) and mailing["start"] + mailing["lasts"] > timedelta(seconds=2)
    waits = [due for status, due in mailing["messages"] if status == "pending"]
    in_window = mailing["window"] != (0, 60)  # it is noon
    return is_open and in_window and not mailing["marks"] and any(due <= timedelta(0) for due in waits)


def test_a_message_in_its_window_a_living_run_and_an_open_attempt_are_left_to_the_dispatcher(
    database: Database,
) -> None:
    locks = RunLocks(database)
    assert beat_if_idle(database.path, NOW)
    run = add_run(database)
    locks.take(run)
    assert not beat_if_idle(database.path, NOW)
    locks.close()


@pytest.mark.parametrize(
    ("words", "run"),
    [
        ("dispatch", Run()),
        ("dispatch --quiet", Run(quiet=True)),
        ("-C /srv dispatch -q", Run("/srv", quiet=True)),
        ("-C a --env-file b --database c dispatch", Run("a", "b", "c")),
        ("dispatch --json", None),
        ("dispatch --mailing 5", None),
        ("dispatch --help", None),
        ("--no-color dispatch", None),
        ("-C dispatch", None),
        ("--env-file=b dispatch", None),
        ("stats dispatch", None),
        ("", None),
    ],
)
def test_only_what_cron_writes_is_read_before_the_command_line(words: str, run: Run | None) -> None:
    assert read(words.split()) == run


@contextlib.contextmanager
def ready(database: Database) -> Iterator[Path]:
    RunLocks(database).close()
    os.utime(lock_path(database), (1, 1))
    yield lock_path(database)


def test_an_idle_run_beats_and_says_so(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with ready(database) as lock:
        assert is_over(Run())
        assert capsys.readouterr().out == "nothing to do\n"
        assert lock.stat().st_mtime > 1
        assert is_over(Run(quiet=True))
        assert capsys.readouterr().out == ""


def test_what_is_said_at_a_glance_is_what_the_command_says(database: Database, mailer: Mailer) -> None:
    assert mailer("dispatch").out == "nothing to do\n"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: Path(".env").write_text("URL=http://127.0.0.1:9/\n"),
        lambda: Path(".env").write_text(f"TOKEN={TOKEN}\n"),
        lambda: Path(".env").write_text(f"TOKEN={TOKEN}\nURL=http://a/\nMAILER_RATE=fast\n"),
        lambda: Path(".env").write_text(f"TOKEN={TOKEN}\nURL=http://a/\nMAILER_DATABASE=postgresql://a/b\n"),
        lambda: Path("mailer.db").unlink(),
        lambda: Path("mailer.db").write_bytes(b"no database" * 999),
        lambda: Path("mailer.db.lock").unlink(),
        lambda: change("UPDATE alembic_version SET version_num = '0000'"),
        lambda: change("DROP TABLE gateway"),
    ],
)
def test_on_any_doubt_the_command_itself_finds_out(spoil: object, database: Database) -> None:
    with ready(database):
        spoil()
        assert not is_over(Run(quiet=True))


def change(statement: str) -> None:
    with contextlib.closing(sqlite3.connect("mailer.db", isolation_level=None)) as raw:
        raw.execute(statement)


def test_a_folder_that_is_not_there_and_a_reader_who_has_left_are_left_to_the_command(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ready(database):
        assert not is_over(Run("no/such"))
        with Path("/dev/full").open("w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert not is_over(Run())
            monkeypatch.undo()
            with contextlib.suppress(OSError):
                full.close()


def test_the_folder_is_entered_and_left_again(database: Database, folder: Path, tmp_path: Path) -> None:
    with ready(database):
        (folder / "below").mkdir()
        os.chdir("below")
        assert is_over(Run("..", quiet=True))
        assert Path.cwd() == folder / "below"


@pytest.mark.parametrize(("journal", "lock"), [("truncate", "IMMEDIATE"), ("wal", "EXCLUSIVE")])
def test_an_idle_run_waits_for_no_writer_and_leaves_every_byte_and_time_as_it_was(
    journal: str, lock: str, database: Database, mailer: Mailer
) -> None:
    with ready(database), contextlib.closing(sqlite3.connect("mailer.db", isolation_level=None)) as writer:
        writer.execute(f"PRAGMA journal_mode = {journal}")
        writer.execute(f"BEGIN {lock}")
        before = (Path("mailer.db").read_bytes(), Path("mailer.db").stat().st_mtime_ns)
        began = time.monotonic()
        command = [sys.executable, "-m", "mailer_cli", "dispatch", "--quiet"]
        ran = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
        assert beat_if_idle(database.path, NOW)
        assert mailer("dispatch").out == "nothing to do\n"  # what the dispatcher itself finds
        assert time.monotonic() - began < 25  # whoever waits for the lock waits for 30 seconds
        assert (Path("mailer.db").read_bytes(), Path("mailer.db").stat().st_mtime_ns) == before
        writer.execute("ROLLBACK")
