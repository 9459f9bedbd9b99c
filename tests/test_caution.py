"""How much a run dares, by the answers it got."""

import pytest

from mailer_cli.caution import BUSY_PAUSE_LIMIT, SLOW_START, Caution
from mailer_cli.gateway import Answer
from mailer_cli.models import Outcome

OK = Answer(Outcome.OK)
REFUSED = Answer(Outcome.NOT_SENT, "refused")
REJECTED = Answer(Outcome.REJECTED, "http 400", 400)
BUSY = Answer(Outcome.BUSY, "http 503", 503)


@pytest.fixture
def caution() -> Caution:
    return Caution(limit=64)


def test_a_run_begins_with_one_request(caution: Caution) -> None:
    assert caution.slots(0, 100.0) == 1
    caution.begun(100.0)
    assert caution.slots(1, 100.0) == 0


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.TEMPORARY, Outcome.REJECTED])
def test_the_first_answer_that_speaks_sense_fills_the_slots(caution: Caution, outcome: Outcome) -> None:
    caution.begun(100.0)
    caution.learn([Answer(outcome)])
    assert caution.slots(0, 100.1) == 64


@pytest.mark.parametrize("outcome", [Outcome.NOT_SENT, Outcome.UNKNOWN, Outcome.CONFIG])
def test_trouble_keeps_it_at_one(caution: Caution, outcome: Outcome) -> None:
    caution.begun(100.0)
    caution.learn([Answer(outcome, "trouble")])
    assert caution.slots(0, 100.1) == 1


def test_two_seconds_without_an_answer_fill_the_slots_all_the_same(caution: Caution) -> None:
    caution.begun(100.0)
    assert caution.slots(1, 100.0 + SLOW_START - 0.01) == 0
    assert caution.slots(1, 100.0 + SLOW_START) == 63


def test_a_busy_gateway_is_approached_with_one_request_again(caution: Caution) -> None:
    caution.begun(100.0)
    caution.learn([OK])
    caution.learn([BUSY])
    assert caution.slots(0, 110.0) == 1


def test_a_busy_gateway_that_names_no_time_is_left_alone_ever_longer(caution: Caution) -> None:
    pauses = [caution.learn([BUSY])[0].retry_after for _ in range(9)]
    assert pauses == [1, 2, 4, 8, 16, 32, BUSY_PAUSE_LIMIT, BUSY_PAUSE_LIMIT, BUSY_PAUSE_LIMIT]
    caution.learn([OK])
    assert caution.learn([BUSY])[0].retry_after == 1


def test_a_time_that_the_gateway_named_is_kept(caution: Caution) -> None:
    named = Answer(Outcome.BUSY, "http 429", 429, retry_after=7.0)
    assert caution.learn([named]) == [named]


def test_a_time_that_does_not_help_is_not_kept(caution: Caution) -> None:
    at_once = Answer(Outcome.BUSY, "http 503", 503, retry_after=0.0)
    assert [caution.learn([at_once])[0].retry_after for _ in range(4)] == [0, 1, 2, 4]
    caution.learn([OK])
    assert caution.learn([at_once]) == [at_once]


def test_the_first_reason_to_stop_stays(caution: Caution) -> None:
    caution.stop_for("time_up")
    caution.stop_for("signal")
    assert caution.stopped == "time_up"


def test_the_last_fault_is_remembered_for_the_operator(caution: Caution) -> None:
    caution.learn([REFUSED, OK, REJECTED])
    assert caution.last_fault == REFUSED


def test_slots_are_never_negative(caution: Caution) -> None:
    caution.learn([BUSY])
    assert caution.slots(40, 100.0) == 0
