"""A COMMIT that reports an error, and has happened or not: what is done is not done again, nor forgotten."""

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.engine.default import DefaultDialect

from mailer_cli.database import Database
from mailer_cli.database.turns import Turn, Turns
from mailer_cli.errors import DatabaseFailed
from tests.breakage import one_line
from tests.judge import sent_everything
from tests.lab import Lab, wait_for
from tests.rows import add_run

OpenLab = Callable[..., Lab]

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def open_lab(tmp_path: Path) -> Iterator[OpenLab]:
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Lab(tmp_path, **settings))


@dataclass
class Commits:
    """Let some commits fail: "after" when all is on the disk, "before" when nothing is."""

    fails: Callable[[], str | None]
    only_turns: bool = False
    failed: list[str] = field(default_factory=list)
    _is_turn: bool = False

    def install(self, patch: Callable[[Any, str, Any], object] = setattr) -> None:
        commit: Any = DefaultDialect.do_commit
        take = Turns.take

        def do_commit(dialect: DefaultDialect, connection: Any) -> None:
            is_watched = connection.driver_connection.total_changes and (self._is_turn or not self.only_turns)
            how = self.fails() if is_watched else None
            if how != "before":
                commit(dialect, connection)
            if how is not None:
                self.failed.append(how)
                raise sqlite3.OperationalError("disk I/O error")

        def watched(turns: Turns, turn: Turn[Any]) -> Any:
            self._is_turn = True
            try:
                return take(turns, turn)
            finally:
                self._is_turn = False

        patch(DefaultDialect, "do_commit", do_commit)
        patch(Turns, "take", watched)


def faults(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT faults FROM gateway").scalar() or 0)


def one_more(connection: Connection) -> int:
    connection.exec_driver_sql("UPDATE gateway SET faults = faults + 1")
    return faults(connection)


@pytest.mark.parametrize("how", ["after", "before"])
@pytest.mark.parametrize("held", [True, False])
def test_a_turn_is_done_once_whatever_its_commit_says(
    database: Database, monkeypatch: pytest.MonkeyPatch, how: str, held: bool
) -> None:
    turns = Turns(database, add_run(database))
    plan = iter([how, how, None, None, None])
    heard: list[int] = []
    Commits(lambda: next(plan)).install(monkeypatch.setattr)
    with database.held_open() if held else contextlib.nullcontext():
        turn = Turn(one_more, heard.append)
        for _ in range(2 if how == "before" else 1):
            with pytest.raises(DatabaseFailed):
                turns.take(turn)
            assert turns.is_in_doubt and heard == []
        if how == "after":
            plan = iter([None, None])
        assert turns.take(turn) == 1
        assert not turns.is_in_doubt and heard == [1]
        assert turns.take(Turn(one_more, heard.append)) == 2
    with database.read() as connection:
        assert (faults(connection), heard) == (2, [1, 2])


@pytest.mark.parametrize("happened", [True, False])
def test_what_is_in_doubt_is_found_out_before_the_next_is_done(
    database: Database, monkeypatch: pytest.MonkeyPatch, happened: bool
) -> None:
    turns = Turns(database, add_run(database))
    plan = iter(["after" if happened else "before", None, None])
    Commits(lambda: next(plan)).install(monkeypatch.setattr)
    heard: list[str] = []
    with pytest.raises(DatabaseFailed):
        turns.take(Turn(one_more, lambda _: heard.append("first")))
    turns.take(Turn(one_more, lambda _: heard.append("second")))
    with database.read() as connection:
        assert faults(connection) == 1 + happened
    assert heard == (["first", "second"] if happened else ["second"])
    turns.settle()


def test_an_error_in_the_work_is_no_doubt(database: Database) -> None:
    turns = Turns(database, add_run(database))

    def broken(connection: Connection) -> int:
        one_more(connection)
        raise ValueError

    with pytest.raises(ValueError):
        turns.take(Turn(broken, lambda _: None))
    assert not turns.is_in_doubt
    assert turns.take(Turn(one_more, lambda _: None)) == 1


def test_a_copy_that_is_put_back_into_the_file_is_not_written(database: Database) -> None:
    turns = Turns(database, add_run(database))
    shutil.copy("mailer.db", "copy.db")
    turns.take(Turn(one_more, lambda _: None))
    Path("mailer.db").write_bytes(Path("copy.db").read_bytes())
    with pytest.raises(DatabaseFailed, match="was a copy put back"):
        turns.take(Turn(one_more, lambda _: None))
    with database.read() as connection:
        assert faults(connection) == 0


@pytest.mark.parametrize("how", ["after", "before", "either"])
def test_a_run_whose_commits_report_errors_forgets_nothing(open_lab: OpenLab, how: str) -> None:
    lab = open_lab(concurrency=4, on_unknown="hold")
    lab.add_mailing(24)
    lab.open_gateway("--latency", "0.05-0.1")
    chance = random.Random(7)

    def fails() -> str | None:
        if chance.random() < 0.5:
            return None
        return how if how != "either" else chance.choice(("after", "before"))

    with lab.each_child(Commits(fails, only_turns=True).install):
        ran = lab.run()
    assert ran.json["claimed"] == ran.json["sent"] == 24
    assert ran.json["unknown"] == ran.json["repeats"] == 0
    assert set(lab.accepted().values()) == {1} and sent_everything(lab)
    lab.check_invariants()


def test_a_run_into_whose_file_a_copy_is_put_back_ends_and_says_so(open_lab: OpenLab) -> None:
    from mailer_cli import sender
    from tests.breakage import shortened

    lab = open_lab(concurrency=4)
    lab.may_give_up = True
    lab.add_mailing(8)
    lab.open_gateway("--latency", "0.7")
    path = lab.folder / "mailer.db"
    before = path.read_bytes()
    with shortened(sender, "PATIENCE", 0.5):
        run = lab.start()
    lab.wait_for_requests(1)
    wait_for(lambda: lab.number("SELECT count(*) FROM attempt") > 0)
    path.write_bytes(before)
    ran = run.wait()
    one_line(ran, 74)
    assert "was a copy put back" in ran.err
