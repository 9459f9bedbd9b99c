"""A clock that is set: nothing is repeated, nothing goes after the end, and nothing waits for what a clock
that was ahead has written."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailer_cli import breaker, decide
from mailer_cli.gateway import Answer
from mailer_cli.idle import FARTHEST, beat_if_idle
from mailer_cli.models import Outcome
from mailer_cli.outbox.pace import MARGIN, MOST_AHEAD, Pace
from tests.judge import sent_everything, stored
from tests.lab import Clock, Lab
from tests.test_decide import FRESH

NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
JUMPS = {"an hour back": -HOUR, "an hour ahead": HOUR, "a day back": -DAY, "a day ahead": DAY}

pytestmark = pytest.mark.timeout(60)


@contextmanager
def lab_by(folder: Path, clock: Clock, **settings: object) -> Iterator[Lab]:
    with (
        Lab(folder, concurrency=4, max_seconds=5, **settings) as lab,
        lab.gateway_here(clock.at_the_gateway, latency="0.02"),
    ):
        yield lab


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_a_clock_that_jumps_during_a_run_and_back_costs_nothing_but_time(
    tmp_path: Path, jump: timedelta
) -> None:
    clock = Clock(datetime.now(UTC))
    with lab_by(tmp_path, clock, rate=60) as lab:
        lab.add_mailing(60, now=clock(), end_at=clock() + 30 * DAY, rate=80)
        timer = threading.Timer(0.4, lambda: clock.jump(clock() + jump))
        timer.start()
        lab.run_here(clock, max_seconds=2)
        timer.join()
        clock.jump(clock() - jump)
        lab.run_here(clock)
        assert sent_everything(lab)
        assert set(lab.accepted().values()) == {1}
        lab.check_invariants()


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_a_clock_that_is_wrong_for_one_run_leaves_no_message_waiting(tmp_path: Path, jump: timedelta) -> None:
    clock = Clock(datetime.now(UTC))
    with lab_by(tmp_path, clock, rate=60) as lab:
        lab.add_mailing(60, now=clock(), end_at=clock() + 30 * DAY, rate=80)
        clock.jump(clock() + jump)
        lab.run_here(clock, max_seconds=0.5)  # the audience is fixed by it
        clock.jump(clock() - jump)
        lab.run_here(clock)
        assert sent_everything(lab)
        assert set(lab.accepted().values()) == {1}
        lab.check_invariants()


def test_a_clock_that_jumps_past_the_end_lets_nothing_go_and_what_was_taken_stands(tmp_path: Path) -> None:
    clock = Clock(datetime.now(UTC))
    with lab_by(tmp_path, clock) as lab:
        lab.add_mailing(200, now=clock(), end_at=clock() + HOUR)
        timer = threading.Timer(0.4, lambda: clock.jump(clock() + DAY))
        timer.start()
        lab.run_here(clock)
        timer.join()
        assert set(lab.statuses()) == {"sent", "expired"}
        clock.set(clock() - DAY)
        assert lab.run_here(clock).given_back > 0
        assert sent_everything(lab)
        assert set(lab.accepted().values()) == {1}
        lab.check_invariants()


def test_a_clock_set_back_before_the_start_sends_nothing_until_the_start_comes_again(tmp_path: Path) -> None:
    clock = Clock(datetime.now(UTC))
    with lab_by(tmp_path, clock) as lab:
        lab.add_mailing(100, now=clock(), end_at=clock() + HOUR)
        lab.run_here(clock, max_seconds=0.2)
        seen = len(lab.ledger)
        clock.jump(clock() - DAY)
        assert beat_if_idle(tmp_path / "mailer.db", clock())
        assert lab.run_here(clock).run_id is None
        assert len(lab.ledger) == seen < 100
        clock.jump(clock() + DAY)
        lab.run_here(clock)
        assert sent_everything(lab)
        lab.check_invariants()


def test_messages_that_a_clock_ahead_let_wait_for_a_day_are_seen_at_a_glance(tmp_path: Path) -> None:
    clock, database = Clock(datetime.now(UTC)), tmp_path / "mailer.db"
    with lab_by(tmp_path, clock) as lab:
        lab.add_mailing(5, now=clock(), end_at=clock() + 30 * DAY)
        lab.run_here(clock, max_seconds=0.001)
        lab.execute("UPDATE message SET due_at = ?", stored(clock() + FARTHEST - SECOND))
        assert lab.run_here(clock).run_id is None
        assert beat_if_idle(database, clock())
        lab.execute("UPDATE message SET due_at = ?", stored(clock() + DAY + HOUR))
        clock.jump(clock() + DAY)
        lab.execute("UPDATE mailing SET turn = 'now'")
        assert lab.run_here(clock).run_id is not None  # an hour is too far, whatever the clock
        assert sent_everything(lab)


def test_a_mailing_that_a_clock_ahead_let_sleep_is_seen_at_a_glance(tmp_path: Path) -> None:
    clock, database = Clock(datetime.now(UTC)), tmp_path / "mailer.db"
    with lab_by(tmp_path, clock) as lab:
        lab.add_mailing(5, now=clock(), end_at=clock() + 30 * DAY)
        lab.run_here(clock, max_seconds=0.001)
        clock.jump(clock() + DAY)
        lab.execute("UPDATE message SET due_at = ?", stored(clock() + FARTHEST - SECOND))
        assert lab.run_here(clock).run_id is None
        assert beat_if_idle(database, clock())
        clock.jump(clock() - DAY)
        assert not beat_if_idle(database, clock())
        lab.run_here(clock)
        assert sent_everything(lab)
        assert beat_if_idle(database, clock())


def test_no_message_waits_longer_for_a_repeat_than_a_sound_clock_allows() -> None:
    assert timedelta(seconds=decide.LONGEST_BACKOFF * 1.5) == FARTHEST


@pytest.mark.parametrize("rate", [0.001, 3, 1000])
def test_a_rate_holds_back_what_it_can_and_nothing_that_a_clock_ahead_has_used_up(rate: float) -> None:
    farthest = NOW + MOST_AHEAD + timedelta(seconds=MARGIN / rate)
    assert Pace(rate, farthest, NOW).moment == farthest
    assert Pace(rate, farthest + 0.001 * SECOND, NOW).moment == NOW
    assert Pace(rate, NOW - DAY, NOW).moment == NOW
    assert Pace(None, NOW + DAY, NOW).moment == NOW


def test_a_busy_gateway_is_believed_for_as_long_as_it_can_ask_for_and_no_longer(tmp_path: Path) -> None:
    busy = Answer(Outcome.BUSY, retry_after=3600.0)
    with Lab(tmp_path) as lab, lab.database.write() as connection:
        two = [(FRESH, busy), (FRESH, busy)]  # one alone is not believed for so long
        assert breaker.note(connection, two, NOW).is_busy(NOW)
        assert not breaker.read(connection).is_busy(NOW - SECOND)
        wish = breaker.note(connection, [(FRESH, Answer(Outcome.BUSY, retry_after=5.0))], NOW - DAY)
        assert wish.busy_until == NOW - DAY + 5 * SECOND
        breaker.note(connection, two, NOW + DAY)
        breaker.note(connection, [], NOW)
        assert not breaker.read(connection).is_busy(NOW + DAY)


def test_trouble_that_a_clock_ahead_has_told_of_is_told_again(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab, lab.database.write() as connection:
        breaker.remember_said(connection, "gateway_down", NOW + DAY)
        assert breaker.should_say(breaker.read(connection), "gateway_down", NOW)
