"""The last look before a request begins: what is known by then, how old it is, and the rate."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailer_cli import gate
from mailer_cli.gate import Gate, News, Waiting
from mailer_cli.outbox import Claimed, Leave

NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
END = NOW + timedelta(seconds=60)


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late is only what is meant to be."""
    monkeypatch.setattr(gate, "LATE", 4.0)


LATE = -10.0  # seconds to a moment that was missed


def claimed(message_id: int = 1, *, rate: float | None = None, starts_in: float = 0.0) -> Claimed:
    start_at = NOW + starts_in * SECOND
    return Claimed(message_id, 7, 8, 79161234567, "x", 1, 0, 0, False, start_at, END, END, rate)


@dataclass
class Here:
    """A gate in a world that stands still unless it is moved."""

    rate: float | None = None
    timer: float = 100.0
    is_closed: bool = False
    calls: int = 0
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(lambda: NOW, lambda: self.timer, self.rate, lambda: self.is_closed, self._called)

    def _called(self) -> None:
        self.calls += 1

    def admit(self, each: Claimed) -> Waiting:
        news = News(self.timer, {each.message_id: Leave(each.deadline, each.rate)})
        return self.gate.admit(each, news, self.timer)

    async def hears(self, **news: Any) -> None:
        """The next turn, once somebody has called for it."""
        while not self.calls:
            await asyncio.sleep(0)
        self.calls = 0
        asked = self.gate.asks()
        leaves = {each.claimed.message_id: Leave(END, each.claimed.rate) for each in asked.of}
        self.gate.hear(asked, News(**({"seen_at": self.timer, "leaves": leaves} | news)))


def run(test: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(asyncio.wait_for(test, 5))
    except TimeoutError as error:
        raise AssertionError("somebody waits for ever") from error


def test_what_is_known_to_be_wanted_begins_at_once_and_until_its_deadline() -> None:
    async def test() -> None:
        here = Here()
        waiting = here.admit(claimed())
        assert await here.gate.may_begin(waiting) == 60
        assert (waiting.is_begun, here.calls, here.gate.asks().of) == (True, 0, [])

    run(test())


@pytest.mark.parametrize("leave", [None, Leave(NOW, None)])
def test_what_is_known_to_be_unwanted_or_over_does_not_begin(leave: Leave | None) -> None:
    async def test() -> None:
        here = Here()
        waiting = here.admit(claimed())
        waiting.leave = leave
        assert await here.gate.may_begin(waiting) is None
        assert not waiting.is_begun

    run(test())


def test_nothing_begins_when_the_run_is_told_to_stop() -> None:
    async def test() -> None:
        here = Here(is_closed=True)
        assert await here.gate.may_begin(here.admit(claimed())) is None

    run(test())


@pytest.mark.parametrize("age", [gate.FRESH, 3600.0])
@pytest.mark.parametrize("is_wanted", [True, False])
def test_what_was_known_a_second_ago_is_asked_anew(age: float, is_wanted: bool) -> None:
    """The machine slept, or the connection took its time."""

    async def test() -> None:
        here = Here()
        waiting = here.admit(claimed())
        here.timer += age
        asking = asyncio.create_task(here.gate.may_begin(waiting))
        later = NOW + 5 * SECOND
        await here.hears(leaves={1: Leave(later, None)} if is_wanted else {})
        assert await asking == (5 if is_wanted else None)

    run(test())


def test_news_that_are_old_when_they_come_are_not_enough() -> None:
    async def test() -> None:
        here = Here()
        waiting = here.admit(claimed())
        here.timer += 10
        asking = asyncio.create_task(here.gate.may_begin(waiting))
        await here.hears(seen_at=here.timer - 2)
        await here.hears()
        assert await asking == 60

    run(test())


def test_a_stop_lets_nothing_wait_for_news() -> None:
    async def test() -> None:
        here = Here()
        waiting = here.admit(claimed())
        here.timer += 10
        asking = asyncio.create_task(here.gate.may_begin(waiting))
        while not here.calls:
            await asyncio.sleep(0)
        here.is_closed = True
        here.gate.wake()
        assert await asking is None

    run(test())


# The rate


@pytest.mark.parametrize("rates", [{"rate": 5.0}, {}])
def test_with_a_rate_it_begins_in_its_moment(rates: dict[str, float]) -> None:
    async def test() -> None:
        here = Here(**rates)
        moment = asyncio.get_running_loop().time() + 0.2
        waiting = here.admit(claimed(rate=None if rates else 5.0, starts_in=0.2))
        assert await here.gate.may_begin(waiting) == 60
        assert asyncio.get_running_loop().time() >= moment

    run(test())


def test_what_is_late_gets_a_new_moment_or_goes_back() -> None:
    async def test() -> None:
        here = Here()
        first, second = (here.admit(claimed(each, rate=5.0, starts_in=LATE)) for each in (1, 2))
        asking = [asyncio.create_task(here.gate.may_begin(each)) for each in (first, second)]
        while here.calls < 2:
            await asyncio.sleep(0)
        assert here.gate.asks().places == [(1, 7), (2, 7)]
        await here.hears(moments={1: NOW})
        assert await asyncio.gather(*asking) == [60, None]

    run(test())


def test_a_repeat_needs_a_moment_of_its_own() -> None:
    async def test() -> None:
        here = Here()
        waiting = here.admit(claimed(rate=5.0))
        assert await here.gate.may_begin(waiting) == 60
        waiting.moment += LATE
        asking = asyncio.create_task(here.gate.may_begin(waiting))
        await here.hears(moments={1: NOW})
        assert await asking == 60

    run(test())


@pytest.mark.parametrize(("before", "after"), [(5.0, 50.0), (50.0, 5.0), (None, 5.0)])
def test_a_moment_by_another_rate_is_none(before: float | None, after: float) -> None:
    async def test() -> None:
        here = Here()
        waiting = here.admit(claimed(rate=before))
        waiting.leave = Leave(END, after)
        asking = asyncio.create_task(here.gate.may_begin(waiting))
        await here.hears(leaves={1: Leave(END, after)}, moments={1: NOW})
        assert await asking == 60

    run(test())


def test_who_has_no_rate_any_more_waits_for_no_moment() -> None:
    async def test() -> None:
        here = Here()
        waiting = here.admit(claimed(rate=0.01, starts_in=9.0))
        waiting.leave = Leave(END, None)
        assert await here.gate.may_begin(waiting) == 60

    run(test())


def test_claims_are_so_far_ahead_as_commits_and_connections_take() -> None:
    async def test() -> None:
        here = Here()
        first = here.gate.lead.ahead
        for number in range(32):
            waiting = here.admit(claimed(number))
            await here.gate.comes_up(waiting)
            await here.gate.may_begin(waiting)
        assert here.gate.lead.ahead < first
        slow = claimed(99)
        news = News(here.timer, {99: Leave(END, None)})
        waiting = here.gate.admit(slow, news, here.timer - 3)  # a slow disk
        await here.gate.comes_up(waiting)
        await asyncio.sleep(0.3)
        await here.gate.may_begin(waiting)
        assert here.gate.lead.ahead >= 3.3 * SECOND

    run(test())
