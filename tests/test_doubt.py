"""What may have been taken: how often it goes again, with real runs and the gateway's ledger as the judge."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.lab import Clock, Lab

MINUTE = timedelta(minutes=1)
BEGIN = datetime.now(UTC)
OpenLab = Callable[..., Lab]

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def open_lab(tmp_path: Path) -> Iterator[OpenLab]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Lab(tmp_path, **settings))


def asked(lab: Lab) -> Counter[int]:
    """How often each message was put to the gateway."""
    return Counter(each.id for each in lab.ledger if each.id is not None)


def minutes(
    lab: Lab, fault: str, count: int, *options: str, messages: int = 1, most: int = 100
) -> Counter[int]:
    """A run each minute while the gateway says this alone; how often it was asked about each message, which
    may be so often at most."""
    clock = Clock(BEGIN)
    lab.add_mailing(messages, now=BEGIN, end_at=BEGIN + 10_000 * MINUTE)
    lab.open_gateway("--fault", f"{fault}=1", *options)
    for minute in range(count):
        clock.jump(BEGIN + minute * MINUTE)
        lab.run_here(clock)
        assert max(asked(lab).values(), default=0) <= most
    return asked(lab)


@pytest.mark.parametrize("fault", ["500", "502", "504", "taken-500", "408", "503"])
def test_hold_asks_once_whatever_may_have_been_taken(open_lab: OpenLab, fault: str) -> None:
    lab = open_lab(on_unknown="hold")
    assert set(minutes(lab, fault, 8, messages=2).values()) == {1}
    assert lab.statuses() == {"unknown": 2}
    assert lab.query("SELECT DISTINCT unknowns, failures FROM message") == [(1, 0)]
    assert set(lab.query("SELECT outcome FROM attempt")) == {("unknown",)}
    lab.check_invariants(max_unknown=1)


@pytest.mark.parametrize(
    ("fault", "options"),
    [("429", ()), ("425", ()), ("503", ("--retry-after", "1"))],
    ids=["429", "425", "503"],
)
def test_hold_waits_with_a_gateway_that_is_certainly_only_busy(
    open_lab: OpenLab, fault: str, options: tuple[str, ...]
) -> None:
    lab = open_lab(on_unknown="hold")
    assert min(minutes(lab, fault, 3, *options).values()) > 1
    assert lab.statuses() == {"pending": 1}
    lab.check_invariants(max_unknown=1)


@pytest.mark.parametrize("fault", ["500", "504", "taken-500"])
def test_a_server_error_is_repeated_as_often_as_a_time_out(open_lab: OpenLab, fault: str) -> None:
    lab = open_lab()
    assert set(minutes(lab, fault, 12).values()) == {3}
    assert lab.statuses() == {"unknown": 1}
    lab.check_invariants()


def test_an_hour_of_plain_503_asks_a_dozen_times_about_one_message(open_lab: OpenLab) -> None:
    lab = open_lab()
    (times,) = minutes(lab, "503", 60, most=14).values()
    assert times >= 6
    assert lab.query("SELECT status, failures, unknowns FROM message") == [("pending", 0, 0)]
    lab.close_gateway()
    lab.open_gateway()
    lab.run_here(Clock(BEGIN + 90 * MINUTE))
    assert lab.statuses() == {"sent": 1}
    lab.check_invariants()


def test_a_fate_from_an_old_version_still_counts_as_one_that_may_have_been_taken(open_lab: OpenLab) -> None:
    lab = open_lab()
    lab.add_mailing(1)
    lab.open_gateway("--fault", "500=1")
    lab.run()
    lab.execute("UPDATE message SET failures = 1, unknowns = 0")
    lab.execute("UPDATE attempt SET outcome = 'server'")
    lab.close_gateway()
    lab.open_gateway("--fault", "400=1")
    lab.forget_backoffs()
    lab.run()
    assert lab.statuses() == {"unknown": 1}
    lab.check_invariants()
