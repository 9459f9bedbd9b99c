"""What all runs share about the gateway."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from mailer_cli import breaker
from mailer_cli.gateway import Answer
from mailer_cli.models import Outcome
from mailer_cli.outbox import Claimed
from tests.lab import new_database
from tests.test_decide import FRESH

NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
OK = Answer(Outcome.OK)
REFUSED = Answer(Outcome.NOT_SENT, "refused")


def note(
    connection: Connection, answers: Iterable[Answer], now: datetime, claimed: Claimed = FRESH
) -> breaker.State:
    return breaker.note(connection, [(claimed, each) for each in answers], now)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with new_database(tmp_path).write() as connection:
        yield connection


@pytest.mark.parametrize("outcome", [Outcome.NOT_SENT, Outcome.UNKNOWN])
def test_five_faults_in_a_row_open_it(connection: Connection, outcome: Outcome) -> None:
    fault = Answer(outcome, "trouble")
    assert not note(connection, [fault] * 4, NOW).is_open
    assert note(connection, [fault], NOW).is_open
    assert breaker.read(connection).opened_at == NOW


def test_an_ok_between_begins_the_count_anew(connection: Connection) -> None:
    assert not note(connection, [*[REFUSED] * 4, OK, *[REFUSED] * 4], NOW).is_open


@pytest.mark.parametrize("error", ["aborted", "too late", "overslept"])
def test_what_we_broke_off_ourselves_is_no_fault_of_the_gateway(connection: Connection, error: str) -> None:
    ours = [Answer(Outcome.UNKNOWN, error), Answer(Outcome.NOT_SENT, error)]
    assert not note(connection, ours * 5, NOW).is_open


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.TEMPORARY, Outcome.REJECTED])
def test_the_first_sensible_answer_closes_it(connection: Connection, outcome: Outcome) -> None:
    note(connection, [REFUSED] * 5, NOW)
    state = note(connection, [Answer(outcome)], NOW)
    assert (state.is_open, state.faults) == (False, 0)


@pytest.mark.parametrize("outcome", [Outcome.BUSY, Outcome.CONFIG, Outcome.RELEASED])
def test_it_stays_open_while_nothing_is_proved(connection: Connection, outcome: Outcome) -> None:
    note(connection, [REFUSED] * 5, NOW)
    assert note(connection, [Answer(outcome)], NOW).is_open


def test_it_keeps_the_moment_at_which_it_opened(connection: Connection) -> None:
    note(connection, [REFUSED] * 5, NOW)
    assert note(connection, [REFUSED], NOW + HOUR).opened_at == NOW


def test_a_wish_to_be_left_alone_is_only_ever_prolonged(connection: Connection) -> None:
    note(connection, [Answer(Outcome.BUSY, retry_after=10.0)], NOW)
    state = note(connection, [Answer(Outcome.BUSY, retry_after=1.0)], NOW)
    assert state.busy_until == NOW + 10 * SECOND


# Whose fault it is


UNKNOWN = Answer(Outcome.UNKNOWN, "http 500", 500)
WAIT = Answer(Outcome.BUSY, "http 429", 429, retry_after=3600.0)
OTHER = replace(FRESH, message_id=2, mailing_id=2)


def at(claimed: Claimed, second: int) -> Claimed:
    """As it is claimed at that second."""
    return replace(claimed, start_at=NOW + second * SECOND)


def test_a_mailing_that_fails_while_others_get_through_is_not_the_gateway(connection: Connection) -> None:
    note(connection, [UNKNOWN], NOW)
    note(connection, [OK], NOW + 2 * SECOND, at(OTHER, 1))
    state = note(connection, [UNKNOWN] * 20, NOW + 3 * SECOND)
    assert (state.is_open, state.faults) == (False, 0)
    assert state.blamed[1, ""].faults == 21
    assert note(connection, [UNKNOWN] * 5, NOW + 4 * SECOND, OTHER).is_open  # nor does it hide one


def test_an_ok_that_was_begun_before_proves_nothing(connection: Connection) -> None:
    note(connection, [UNKNOWN], NOW + SECOND)
    note(connection, [OK], NOW + 2 * SECOND, at(OTHER, 0))
    assert note(connection, [UNKNOWN] * 5, NOW + 3 * SECOND).is_open


def test_its_own_ok_clears_it(connection: Connection) -> None:
    note(connection, [UNKNOWN] * 3, NOW)
    assert note(connection, [OK], NOW + 2 * SECOND, at(FRESH, 1)).blamed == {}
    assert connection.exec_driver_sql("SELECT count(*) FROM fault").scalar() == 0


def test_a_refused_connection_is_nobodys_but_the_gateways(connection: Connection) -> None:
    note(connection, [UNKNOWN], NOW)
    note(connection, [OK], NOW + 2 * SECOND, at(OTHER, 1))
    state = note(connection, [REFUSED] * 5, NOW + 3 * SECOND)
    assert state.is_open and state.blamed[1, ""].faults == 1


def test_what_one_message_has_heard_another_may_ask_again(connection: Connection) -> None:
    assert note(connection, [WAIT], NOW).busy_until == NOW + breaker.SECOND_OPINION
    again = replace(FRESH, failed_at=NOW)
    later = NOW + breaker.SECOND_OPINION
    assert note(connection, [WAIT], later, again).busy_until == later + breaker.SECOND_OPINION
    assert note(connection, [WAIT], later, OTHER).busy_until == later + HOUR


def test_a_wish_that_others_need_not_keep_is_the_messages_own(connection: Connection) -> None:
    note(connection, [WAIT], NOW)
    assert note(connection, [OK], NOW + 20 * SECOND, at(FRESH, 16)).busy_until is None
    again = replace(FRESH, failed_at=NOW)
    state = note(connection, [WAIT], NOW + HOUR, again)
    assert state.busy_until == NOW + HOUR + breaker.OWN_WISH
    assert state.blamed == {}


def test_nothing_is_written_when_nothing_changed(connection: Connection) -> None:
    before = connection.exec_driver_sql("SELECT total_changes()").scalar()
    note(connection, [OK] * 5, NOW)
    note(connection, [], NOW)
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
