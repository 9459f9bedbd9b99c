"""Waiting for company, on a clock that jumps to the next moment at which something happens."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from mailer_cli.company import LONGEST, Company

Run = Callable[[Coroutine[Any, Any, object]], float]


class Jumps(selectors.DefaultSelector):
    """Instead of waiting it moves the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumps = Jumps()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now


@pytest.fixture
def seconds_of() -> Iterator[Run]:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:

        def run(work: Coroutine[Any, Any, object]) -> float:
            before = runner.get_loop().time()
            runner.run(work)
            return runner.get_loop().time() - before

        yield run


async def after_a_turn(
    finished: int,
    in_flight: int,
    *,
    has_hurry: bool = True,
    later: tuple[float, int] | None = None,
    idle: float = 0.0,
) -> None:
    """Gather `idle` seconds after a turn; `later` says when how many more finish."""
    company = Company()
    company.turned()
    company.changed(finished, in_flight)
    await asyncio.sleep(idle)
    if later is not None:
        when, more = later
        asyncio.get_running_loop().call_later(when, company.changed, finished + more, in_flight - more)
    await company.gather(has_hurry=has_hurry)


def test_a_sixth_of_the_requests_waits_no_longer(seconds_of: Run) -> None:
    assert seconds_of(after_a_turn(11, 53)) == 0
    assert seconds_of(after_a_turn(1, 0)) == 0


def test_fewer_wait_for_as_long_as_dispatch_may(seconds_of: Run) -> None:
    assert LONGEST == 0.02
    assert seconds_of(after_a_turn(10, 54)) == pytest.approx(LONGEST)


def test_the_wait_begins_with_the_end_of_the_last_turn(seconds_of: Run) -> None:
    assert seconds_of(after_a_turn(1, 63, idle=0.015)) == pytest.approx(LONGEST)
    assert seconds_of(after_a_turn(1, 63, idle=0.1)) == pytest.approx(0.1)


def test_a_crowd_that_comes_together_meanwhile_goes_at_once(seconds_of: Run) -> None:
    assert seconds_of(after_a_turn(1, 63, later=(0.004, 10))) == pytest.approx(0.004)


def test_a_few_more_are_no_crowd(seconds_of: Run) -> None:
    assert seconds_of(after_a_turn(1, 63, later=(0.004, 9))) == pytest.approx(LONGEST)


def test_what_the_rate_holds_back_has_no_hurry(seconds_of: Run) -> None:
    assert seconds_of(after_a_turn(32, 32, has_hurry=False)) == pytest.approx(LONGEST)
