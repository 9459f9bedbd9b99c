"""Whatever fails in a turn beside the requests: what is known is recorded first, so nobody is asked twice."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mailer_cli import breaker, outbox, sender
from mailer_cli.caution import Caution
from mailer_cli.company import Company
from mailer_cli.database import RunLocks
from mailer_cli.errors import Misconfigured
from mailer_cli.gate import Gate
from mailer_cli.gateway import client
from mailer_cli.gateway.client import Gateway
from mailer_cli.logs import Log
from mailer_cli.sender import Sender
from mailer_cli.stop import Stop
from tests.judge import sent_everything
from tests.lab import Lab

MESSAGES = 40


class Planted(Exception):
    """A bug of ours, as far as the program can tell."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Forty messages, eight in flight at once, each for a moment."""
    with Lab(tmp_path, concurrency=8) as lab:
        lab.add_mailing(MESSAGES)
        yield lab


@contextmanager
def gateway(lab: Lab, **options: Any) -> Iterator[None]:
    with lab.gateway_here(lambda: datetime.now(UTC), latency="0.05-0.15", **options):
        yield


@dataclass
class Fails:
    """A function that fails once, at its `nth` call."""

    original: Callable[..., Any]
    nth: int
    error: BaseException
    calls: int = 0

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == self.nth:
            raise self.error
        return self.original(*given, **named)


def plant(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, nth: int, error: BaseException | None = None
) -> Fails:
    planted = Fails(getattr(owner, name), nth, error or Planted(name))
    monkeypatch.setattr(owner, name, lambda *given, **named: planted(*given, **named))
    return planted


@contextmanager
def not_raised(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        raise AssertionError("the run ended by it") from error


def nobody_is_asked_twice(lab: Lab) -> None:
    """What the gateway took is recorded, the rest waits, and clean runs do no more than the rest."""
    statuses = lab.statuses()
    assert statuses.get("sent", 0) == len(lab.accepted()) > 0
    assert statuses.keys() <= {"sent", "pending"}
    assert lab.number("SELECT count(*) FROM attempt WHERE outcome IS NULL OR outcome = 'unknown'") == 0
    lab.run_here()
    assert sent_everything(lab)
    assert len(lab.ledger) == MESSAGES
    lab.check_invariants()


IN_A_TURN = {
    "learning": (Caution, "learn", 5),
    "counting-slots": (Caution, "slots", 12),
    "deciding": (sender, "decide", 5),
    "recording": (outbox, "record", 5),
    "noting-the-gateways-state": (breaker, "note", 5),
    "claiming": (outbox, "claim", 5),
    "after-the-commit": (Company, "turned", 5),
    "telling": (Sender, "_tell", 5),
    "a-logs-line-about-a-request": (Log, "write", 10),
    "a-logs-line-about-an-answer": (Log, "write", 16),
}


@pytest.mark.parametrize("name", IN_A_TURN)
def test_a_turn_that_fails_takes_no_answer_with_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    owner, function, nth = IN_A_TURN[name]
    planted = plant(monkeypatch, owner, function, nth)
    with gateway(lab):
        with pytest.raises(Planted):
            lab.run_here()
        assert planted.calls >= nth
        nobody_is_asked_twice(lab)


def test_a_run_that_a_bug_has_ended_says_so_in_its_row(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, Caution, "learn", 5)
    with gateway(lab):
        with pytest.raises(Planted):
            lab.run_here()
        assert lab.query("SELECT stopped, sent FROM run") == [("internal", lab.statuses()["sent"])]


@pytest.mark.parametrize("nth", [1, 2, 9])
def test_a_heart_that_does_not_beat_is_a_warning(lab: Lab, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """`utime` of the lock file, as on a disk that has become read-only."""
    planted = plant(monkeypatch, RunLocks, "beat", nth, OSError(30, "Read-only file system"))
    with gateway(lab), not_raised(OSError):
        lab.run_here()
    assert planted.calls >= nth
    assert sent_everything(lab) and len(lab.ledger) == MESSAGES


def test_the_warning_of_a_heart_comes_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(locks: RunLocks) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(RunLocks, "beat", broken)
    warnings: list[str] = []
    with gateway(lab):
        lab.run_here(world={"warn": warnings.append})
    assert sent_everything(lab)
    (warning,) = warnings
    assert "mailer.db.lock: Operation not permitted" in warning


@pytest.mark.parametrize("source", ["chance", "clock", "progress", "timer"])
def test_what_comes_from_outside_may_fail(lab: Lab, source: str) -> None:
    whole: dict[str, Callable[..., Any]] = {
        "chance": random.random,
        "clock": lambda: datetime.now(UTC),
        "progress": lambda done: None,
        "timer": time.monotonic,
    }
    planted = Fails(whole[source], {"clock": 60}.get(source, 5), Planted(source))
    failing: Callable[..., Any] = planted
    if source == "timer":  # how often it is asked depends on the machine; fifth, when something was taken
        failing = lambda: planted() if lab.accepted() else time.monotonic()  # noqa: E731
    with gateway(lab):
        with pytest.raises(Planted):
            lab.run_here(world={source: failing})
        nobody_is_asked_twice(lab)


IN_A_REQUEST = {
    "before-its-moment": (Gate, "comes_up", 0),
    "before-its-first-byte": (Gateway, "send", 0),
    "after-its-first-byte": (client, "judge", 1),  # the gateway may have it
}


@pytest.mark.parametrize("name", IN_A_REQUEST)
def test_a_bug_in_one_request_ends_the_run_and_costs_that_request_alone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    owner, function, doubts = IN_A_REQUEST[name]
    plant(monkeypatch, owner, function, 9)
    with gateway(lab):
        with pytest.raises(Planted):
            lab.run_here()
        assert lab.number("SELECT count(*) FROM attempt WHERE outcome = 'unknown'") == doubts
        lab.forget_backoffs()
        lab.run_here()
        assert sent_everything(lab)
        assert len(lab.ledger) == MESSAGES + doubts
        lab.check_invariants()


@pytest.mark.parametrize("error", [Misconfigured("MAILER_RATE is 'x'"), Planted("reload")])
def test_a_token_that_cannot_be_read_anew_costs_no_answer(lab: Lab, error: Exception) -> None:
    def reload_token() -> str | None:
        raise error

    with gateway(lab):
        lab.run_here(max_seconds=0.3)
    known = len(lab.accepted())
    with gateway(lab, token="eyJ.another.token"):
        with pytest.raises(type(error)):
            lab.run_here(world={"reload_token": reload_token})
        assert lab.query("SELECT DISTINCT outcome FROM attempt WHERE run_id = 2") == [("config",)]
        assert lab.statuses() == {"sent": known, "pending": MESSAGES - known}


def test_a_new_token_that_no_request_can_carry_costs_no_answer(lab: Lab) -> None:
    with gateway(lab, token="eyJ.another.token"):
        with pytest.raises(Misconfigured):
            lab.run_here(world={"reload_token": lambda: "é"})
        assert lab.query("SELECT DISTINCT outcome FROM attempt") == [("config",)]
        assert lab.statuses() == {"pending": MESSAGES}


def test_an_interrupt_out_of_nowhere_records_what_is_known(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a library's own handler: asyncio then cancels what is under way, and nothing goes on."""
    plant(monkeypatch, Sender, "_tell", 5, KeyboardInterrupt())
    with gateway(lab):
        with pytest.raises(KeyboardInterrupt):
            lab.run_here()
        recorded = lab.query("SELECT outcome, count(*) FROM attempt GROUP BY 1")
        assert {outcome for outcome, _ in recorded} <= {"ok", "unknown", "released"}
        assert "sending" not in lab.statuses()
        lab.check_invariants()


def test_one_answer_that_cannot_be_recorded_keeps_no_other_from_its_record(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = outbox.record
    (poisoned,) = lab.query("SELECT max(id) FROM client")[0]

    def stumbles(connection: Any, run_id: int, verdicts: Any) -> Any:
        ids = [each.message_id for each in verdicts]
        marks = ", ".join("?" * len(ids))
        sql = f"SELECT count(*) FROM message WHERE client_id = ? AND id IN ({marks})"
        if connection.exec_driver_sql(sql, (poisoned, *ids)).scalar():
            raise Planted(str(poisoned))
        return record(connection, run_id, verdicts)

    monkeypatch.setattr(outbox, "record", stumbles)
    with gateway(lab):
        with pytest.raises(Planted):
            lab.run_here()
        assert lab.query("SELECT client_id FROM message WHERE status = 'sending'") == [(poisoned,)]
        assert len(lab.accepted()) == lab.statuses()["sent"] + 1


def test_a_second_wish_to_stop_ends_the_wait_for_what_is_in_flight(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop(time.monotonic)

    async def hangs(*given: Any, may_begin: Callable[[], Awaitable[object]], **named: Any) -> None:
        await may_begin()
        for seconds in (0.5, 2.0):
            asyncio.get_running_loop().call_later(seconds, stop.ask, 2)
        await asyncio.sleep(600)

    monkeypatch.setattr(Gateway, "send", hangs)
    plant(monkeypatch, Sender, "_tell", 2)
    with gateway(lab), pytest.raises(Planted):
        lab.run_here(stop=stop)
    assert lab.query("SELECT outcome, error FROM attempt") == [("unknown", "aborted")]
