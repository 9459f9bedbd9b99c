"""What all runs share about the gateway."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from mailer_cli import breaker
from mailer_cli.gateway import Answer
from mailer_cli.models import Outcome
from tests.lab import new_database

NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
OK = Answer(Outcome.OK)
REFUSED = Answer(Outcome.NOT_SENT, "refused")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with new_database(tmp_path).write() as connection:
        yield connection


@pytest.mark.parametrize("outcome", [Outcome.NOT_SENT, Outcome.UNKNOWN])
def test_five_faults_in_a_row_open_it(connection: Connection, outcome: Outcome) -> None:
    fault = Answer(outcome, "trouble")
    assert not breaker.note(connection, [fault] * 4, NOW).is_open
    assert breaker.note(connection, [fault], NOW).is_open
    assert breaker.read(connection).opened_at == NOW


def test_an_ok_between_begins_the_count_anew(connection: Connection) -> None:
    assert not breaker.note(connection, [*[REFUSED] * 4, OK, *[REFUSED] * 4], NOW).is_open


@pytest.mark.parametrize("error", ["aborted", "too late", "overslept"])
def test_what_we_broke_off_ourselves_is_no_fault_of_the_gateway(connection: Connection, error: str) -> None:
    ours = [Answer(Outcome.UNKNOWN, error), Answer(Outcome.NOT_SENT, error)]
    assert not breaker.note(connection, ours * 5, NOW).is_open


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.TEMPORARY, Outcome.REJECTED])
def test_the_first_sensible_answer_closes_it(connection: Connection, outcome: Outcome) -> None:
    breaker.note(connection, [REFUSED] * 5, NOW)
    state = breaker.note(connection, [Answer(outcome)], NOW)
    assert (state.is_open, state.faults) == (False, 0)


@pytest.mark.parametrize("outcome", [Outcome.BUSY, Outcome.CONFIG, Outcome.RELEASED])
def test_it_stays_open_while_nothing_is_proved(connection: Connection, outcome: Outcome) -> None:
    breaker.note(connection, [REFUSED] * 5, NOW)
    assert breaker.note(connection, [Answer(outcome)], NOW).is_open


def test_it_keeps_the_moment_at_which_it_opened(connection: Connection) -> None:
    breaker.note(connection, [REFUSED] * 5, NOW)
    assert breaker.note(connection, [REFUSED], NOW + HOUR).opened_at == NOW


def test_a_wish_to_be_left_alone_is_only_ever_prolonged(connection: Connection) -> None:
    breaker.note(connection, [Answer(Outcome.BUSY, retry_after=10.0)], NOW)
    state = breaker.note(connection, [Answer(Outcome.BUSY, retry_after=1.0)], NOW)
    assert state.busy_until == NOW + 10 * SECOND


def test_nothing_is_written_when_nothing_changed(connection: Connection) -> None:
    before = connection.exec_driver_sql("SELECT total_changes()").scalar()
    breaker.note(connection, [OK] * 5, NOW)
    breaker.note(connection, [], NOW)
    assert connection.exec_driver_sql("SELECT total_changes()").scalar() == before


def test_trouble_is_said_when_it_begins_and_once_an_hour_while_it_lasts(connection: Connection) -> None:
    assert breaker.should_say(breaker.read(connection), "gateway_down", NOW)
    breaker.remember_said(connection, "gateway_down", NOW)
    said = breaker.read(connection)
    assert not breaker.should_say(said, "gateway_down", NOW + HOUR - SECOND)
    assert breaker.should_say(said, "gateway_down", NOW + HOUR)
    assert breaker.should_say(said, "token_refused", NOW + SECOND)


def test_the_end_of_trouble_is_said_once(connection: Connection) -> None:
    breaker.remember_said(connection, "gateway_down", NOW)
    assert breaker.should_say(breaker.read(connection), None, NOW)
    breaker.remember_said(connection, None, NOW)
    assert not breaker.should_say(breaker.read(connection), None, NOW + 2 * HOUR)
