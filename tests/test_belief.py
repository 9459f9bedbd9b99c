"""A clock that jumps ahead while the machine runs is doubted before anything final is done by it."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailer_cli import audience, belief
from mailer_cli.belief import Boot, ahead
from mailer_cli.idle import beat_if_idle
from mailer_cli.start import Run, is_over
from tests.conftest import Mailer
from tests.judge import sent_everything, stored
from tests.lab import Clock, Lab

NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class Machine:
    """A lock file, a clock that is set, and the time since the start, which is not."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_RDWR | os.O_CREAT)
        self.now, self.boot = NOW, Boot("first", 5000.0)

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.boot = Boot(self.boot.id, self.boot.seconds + seconds)

    @property
    def doubt(self) -> timedelta | None:
        return ahead(self.file, self.now, self.boot)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "lock")
    assert machine.doubt is None
    yield machine
    os.close(machine.file)


def test_a_clock_that_goes_on_is_believed_also_after_a_sleep(machine: Machine) -> None:
    for seconds in (60, 60, 9 * 3600, 1, 60):
        machine.passes(seconds)
        assert machine.doubt is None


def test_a_clock_that_jumps_ahead_is_doubted_until_it_has_stayed_so(machine: Machine) -> None:
    machine.passes(60)
    machine.now += DAY
    for _ in range(10):
        assert machine.doubt == DAY
        machine.passes(60)
    assert machine.doubt is None
    machine.passes(60)
    assert machine.doubt is None


def test_a_clock_that_is_mended_in_time_is_believed_at_once_and_doubted_anew(machine: Machine) -> None:
    machine.now += DAY
    assert machine.doubt == DAY
    machine.passes(300)
    machine.now -= DAY
    assert machine.doubt is None
    machine.passes(300)
    machine.now += DAY
    assert machine.doubt == DAY
    machine.passes(590)
    assert machine.doubt == DAY


def test_a_clock_that_is_set_back_slewed_or_set_a_little_is_believed(machine: Machine) -> None:
    for jump in (-DAY, -HOUR, 1.9 * MINUTE, 1.9 * MINUTE, timedelta(milliseconds=1)):
        machine.now += jump
        assert machine.doubt is None
    machine.now += 3 * MINUTE
    assert machine.doubt is not None


def test_after_a_start_of_the_machine_there_is_nothing_to_doubt_by(machine: Machine) -> None:
    machine.now += DAY
    assert machine.doubt == DAY
    machine.boot = Boot("second", 3.0)
    assert machine.doubt is None
    assert ahead(machine.file, NOW, None) is None


@pytest.mark.parametrize("content", [b"", b"\xff" * 200, b"first nan", b"first x -", b"a b c d"])
def test_whatever_stands_in_the_file_is_no_reason_to_doubt(machine: Machine, content: bytes) -> None:
    os.pwrite(machine.file, content.ljust(belief.SIZE, b"\0"), belief.PLACE)
    assert machine.doubt is None
    machine.now += DAY
    assert machine.doubt == DAY


class Setting:
    """A clock that jumps, held against one that does not."""

    def __init__(self) -> None:
        self.clock, self.began = Clock(datetime.now(UTC)), time.monotonic()
        self.passed = 0.0

    def boot(self) -> Boot:
        return Boot("lab", time.monotonic() - self.began + self.passed)

    def pass_by(self, seconds: float) -> None:
        self.passed += seconds
        self.clock.set(self.clock() + timedelta(seconds=seconds))


@pytest.mark.timeout(60)
def test_a_day_ahead_once_ends_nothing_and_begins_nothing_of_tomorrow(tmp_path: Path) -> None:
    at = Setting()
    with Lab(tmp_path) as lab, lab.gateway_here(at.clock.at_the_gateway):
        assert lab.run_here(at.clock, world={"boot": at.boot}).run_id is None
        lab.add_mailing(5, now=at.clock(), end_at=at.clock() + 5 * HOUR)
        lab.add_mailing(3, now=at.clock() + DAY, end_at=at.clock() + 3 * DAY)
        with lab.database.write() as connection:
            audience.fix(connection, 1, at.clock())
        at.clock.set(at.clock() + DAY)
        for _ in range(3):
            summary = lab.run_here(at.clock, world={"boot": at.boot})
            assert (summary.run_id, summary.stopped) == (None, "clock_ahead")
            assert not beat_if_idle(tmp_path / "mailer.db", at.clock(), at.boot())
            at.pass_by(60)
        assert lab.statuses() == {"pending": 5}
        at.clock.set(at.clock() - DAY)
        assert lab.run_here(at.clock, world={"boot": at.boot}).counts.sent == 5
        assert lab.statuses() == {"sent": 5}
        lab.check_invariants()


@pytest.mark.timeout(60)
def test_a_clock_that_stays_ahead_is_believed_and_what_it_ended_is_given_back_when_it_was_wrong(
    tmp_path: Path,
) -> None:
    at = Setting()
    with Lab(tmp_path) as lab, lab.gateway_here(at.clock.at_the_gateway):
        lab.run_here(at.clock, world={"boot": at.boot})
        lab.add_mailing(5, now=at.clock(), end_at=at.clock() + 5 * HOUR)
        lab.add_mailing(2, now=at.clock(), end_at=at.clock() + 5 * HOUR)
        with lab.database.write() as connection:
            for mailing in (1, 2):
                audience.fix(connection, mailing, at.clock())
        at.clock.set(at.clock() + DAY)
        lab.run_here(at.clock, world={"boot": at.boot})
        at.pass_by(601)
        assert lab.run_here(at.clock, world={"boot": at.boot}).counts.expired == 7
        lab.execute("UPDATE mailing SET cancelled_at = created_at WHERE id = 2")
        at.clock.set(at.clock() - DAY)
        assert not beat_if_idle(tmp_path / "mailer.db", at.clock(), at.boot())
        summary = lab.run_here(at.clock, world={"boot": at.boot})
        assert (summary.given_back, summary.counts.sent) == (5, 5)
        assert lab.statuses() == {"sent": 5, "expired": 2}
        assert lab.run_here(at.clock, world={"boot": at.boot}).run_id is None
        lab.check_invariants()


@pytest.mark.timeout(60)
def test_a_jump_in_the_middle_of_a_run_ends_the_run_and_nothing_else(tmp_path: Path) -> None:
    at = Setting()
    with Lab(tmp_path, concurrency=2) as lab, lab.gateway_here(at.clock.at_the_gateway, latency="0.02"):
        lab.run_here(at.clock, world={"boot": at.boot})
        lab.add_mailing(60, now=at.clock(), end_at=at.clock() + 5 * HOUR)
        lab.add_mailing(60, now=at.clock(), end_at=at.clock() + 5 * DAY)
        jumped = []

        def boot() -> Boot:
            if len(lab.ledger) >= 9 and not jumped:
                jumped.append(at.clock.jump(at.clock() + DAY))
            return at.boot()

        assert lab.run_here(at.clock, world={"boot": boot}).stopped == "clock_ahead"
        assert lab.statuses().keys() == {"sent", "pending"}
        assert lab.statuses()["pending"] > 60
        at.clock.set(at.clock() - DAY)
        lab.run_here(at.clock, world={"boot": at.boot})
        assert sent_everything(lab)
        assert set(lab.accepted().values()) == {1}
        lab.check_invariants()


def test_an_idle_run_beats_by_no_clock_that_is_doubted(tmp_path: Path) -> None:
    at = Setting()
    with Lab(tmp_path) as lab:
        lab.run_here(at.clock)
        assert beat_if_idle(tmp_path / "mailer.db", at.clock(), at.boot())
        at.pass_by(60)
        assert beat_if_idle(tmp_path / "mailer.db", at.clock(), at.boot())
        at.clock.set(at.clock() + DAY)
        assert not beat_if_idle(tmp_path / "mailer.db", at.clock(), at.boot())


@pytest.mark.parametrize(("setting", "given"), [("retry", 2), ("hold", 1)])
def test_what_may_have_been_taken_is_given_back_unless_it_is_held(
    tmp_path: Path, setting: str, given: int
) -> None:
    with Lab(tmp_path) as lab, lab.gateway_here(lambda: datetime.now(UTC)):
        lab.add_mailing(3)
        with lab.database.write() as connection:
            audience.fix(connection, 1, datetime.now(UTC))
        first = lab.number("SELECT min(id) FROM message")
        lab.execute(
            "INSERT INTO run SELECT 7, 'h', 1, ?, ?, NULL, 0, 0, 0, 0, 0, 0, 0, 0",
            *[stored(datetime.now(UTC) + DAY)] * 2,
        )
        lab.execute("UPDATE message SET status = 'expired', reason = 'mailing ended' WHERE id = ?", first)
        lab.execute("UPDATE message SET status = 'unknown', reason = 'mailing ended' WHERE id = ?", first + 1)
        lab.execute("UPDATE message SET status = 'unknown', reason = 'timed out' WHERE id = ?", first + 2)
        assert lab.run_here(on_unknown=setting).given_back == given
        assert lab.statuses() == {"sent": given, "unknown": 3 - given}


def test_the_command_says_so_once_and_its_exit_code_each_time(
    mailer: Mailer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailer("init")
    mailer("dispatch")
    monkeypatch.setattr(belief, "boot_of", lambda seconds: Boot("now", seconds - 86_400))
    mailer("dispatch")
    monkeypatch.setattr(belief, "boot_of", lambda seconds: Boot("now", seconds - 2 * 86_400))
    assert not is_over(Run(quiet=True))
    said = mailer("dispatch", "--quiet", code=75)
    assert "the clock was set ahead by 1 day, 0:00:00 while the machine ran, and is doubted" in said.err
    assert said.out == ""
    assert mailer("dispatch", "--quiet", code=75).err == ""
    assert mailer("dispatch", "--json", code=75).json["stopped"] == "clock_ahead"
    monkeypatch.setattr(belief, "boot_of", lambda seconds: Boot("now", seconds - 86_400))
    assert mailer("dispatch", "--quiet").err == ""
