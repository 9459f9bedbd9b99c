"""The machine's faults, briefly: see tests/machine.py. Each ends with clean runs and the judge."""

import contextlib
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailer_cli.database import engine
from mailer_cli.stop import TOGETHER
from tests.breakage import PAGE, freeze, limit_files, locked, one_line, shortened, wait_until_stuck
from tests.judge import toll
from tests.lab import Lab, close_forgotten, wait_for_seconds
from tests.machine import MACHINE_FAULTS, Scenario

OpenLab = Callable[..., Lab]

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def open_lab(tmp_path: Path) -> Iterator[OpenLab]:
    """`open_lab(concurrency=8)`: a laboratory with these settings, closed behind the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Lab(tmp_path, **settings))


SHORT = {name: each for name, each in MACHINE_FAULTS.items() if name != "locked_for_a_minute"}


@pytest.mark.parametrize("scenario", SHORT.values(), ids=SHORT)
def test_a_machine_that_fails_loses_nothing(open_lab: OpenLab, scenario: Scenario) -> None:
    lab = open_lab(concurrency=8, timeout=5)
    try:
        injected = scenario(lab, 200, random.Random(5))
    except PermissionError as error:
        pytest.skip(str(error))
    lab.run_until_final()
    lab.check_invariants()
    cost = toll(lab)
    print(f"{injected} faults: {cost}")
    assert injected >= 2
    assert (cost.lost, cost.unexplained) == (0, 0)


def test_a_database_that_cannot_be_read_for_a_while_costs_no_answer(open_lab: OpenLab) -> None:
    """A run that only looked around ended, and left everything in flight unknown."""
    lab = open_lab(concurrency=4)
    lab.add_mailing(3)
    lab.open_gateway("--latency", "1.3")
    with shortened(engine, "BUSY_TIMEOUT", 0.1):
        process = lab.start()
    lab.wait_for_requests(1)
    with locked(lab, "BEGIN EXCLUSIVE"):
        wait_for_seconds(1.0)  # the run looks around every 0.5 s
    assert process.wait().code == 0
    assert set(lab.accepted().values()) == {1}
    lab.check_invariants()


def test_a_second_ctrl_c_ends_the_wait_for_a_disk_that_stays_full(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.may_give_up = True
    lab.add_mailing(100)
    lab.open_gateway("--latency", "0.05")
    process = lab.start(as_json=False)
    lab.wait_for_requests(20)
    limit_files(process, PAGE)
    wait_until_stuck(lab)
    process.send(signal.SIGINT)
    wait_for_seconds(TOGETHER + 0.1)
    assert process.is_alive
    process.send(signal.SIGINT)
    one_line(process.wait(15), 74)
    lab.run_until_final()
    lab.check_invariants()


# Time that passes unseen


def test_a_run_that_slept_past_its_time_limits_does_not_blame_the_gateway(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8, timeout=1)
    lab.add_mailing(60)
    lab.open_gateway("--latency", "0.2")
    process = lab.start()
    lab.wait_for_requests(15)
    freeze(lab, process)
    wait_for_seconds(2.2)
    process.send(signal.SIGCONT)
    ran = process.wait()
    assert (ran.code, ran.json["stopped"]) == (0, None)
    assert lab.number("SELECT faults FROM gateway") == 0
    print(lab.query("SELECT outcome, error, count(*) FROM attempt GROUP BY 1, 2"))
    lab.run_until_final()
    lab.check_invariants()


# All that is said


@pytest.mark.parametrize("secret", ["+79161234567", "eyJleHAiOjQxMDI0NDQ4MDB9"])
@pytest.mark.parametrize("stream", [1, 2])
def test_a_phone_or_a_token_that_is_said_anywhere_is_found(tmp_path: Path, secret: str, stream: int) -> None:
    lab = Lab(tmp_path)
    lab.in_child = lambda: os.write(stream, f"warning: {secret}\n".encode())
    lab.start().wait()
    with pytest.raises(AssertionError):
        close_forgotten()


def test_a_phone_in_the_log_is_found(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.log_path.write_text('{"phone": 79161234567}\n')
    with pytest.raises(AssertionError):
        close_forgotten()
