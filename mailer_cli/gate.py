"""The last look: whether, and when, the request of a claimed message may begin. Asked at its first byte, also
before each repeat, whatever it has waited for until then."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mailer_cli.outbox import LEAD, MOST_AHEAD, Claimed, Lead, Leave

FRESH = 1.0  # seconds; whatever a request begins by is younger, also when the machine has slept
LATE = 0.025  # seconds behind its moment; what is later would crowd those after it
UNKNOWN_YET = 0.2  # seconds that the first connection may take
NEVER = float("-inf")


@dataclass(eq=False)
class Waiting:
    """A claimed message whose request has not begun, and what is known of it."""

    claimed: Claimed
    leave: Leave | None  # None: it must not begin
    seen_at: float  # when that was so, in seconds of the timer
    rates: tuple[float | None, float | None]  # by which it got its moment: its mailing's, and that of all
    moment: float  # of the event loop; it may start then or a little later
    wants_moment: bool = False
    is_begun: bool = False
    asked_at: float | None = None  # when its connection was asked for


@dataclass(frozen=True)
class Asked:
    """What the gate wants to know from the next turn."""

    of: Sequence[Waiting] = ()
    late: Sequence[Waiting] = ()  # those of them that want a new moment

    @property
    def claimed(self) -> list[Claimed]:
        return [each.claimed for each in self.of]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Of what is late: the message, and its mailing."""
        return [(each.claimed.message_id, each.claimed.mailing_id) for each in self.late]


@dataclass(frozen=True)
class News:
    """What a turn has found: leaves of messages, and when they were true; new moments."""

    seen_at: float = NEVER
    leaves: Mapping[int, Leave] = field(default_factory=dict)
    moments: Mapping[int, datetime] = field(default_factory=dict)


class Gate:
    """Lets a request begin when all that is known of it is younger than FRESH and speaks for it, and in its
    moment. What is unknown, or late, waits for the next turn; `ask` calls for one."""

    def __init__(
        self,
        clock: Callable[[], datetime],
        timer: Callable[[], float],
        rate: float | None,
        is_closed: Callable[[], bool],
        ask: Callable[[], object],
    ) -> None:
        self.waiting: dict[int, Waiting] = {}  # by message
        self._clock, self._timer, self._rate, self._is_closed, self._ask = clock, timer, rate, is_closed, ask
        self._heard = asyncio.Event()
        self._commits: deque[float] = deque(maxlen=8)  # seconds from a claim to its requests
        self._connects: deque[float] = deque(maxlen=32)  # seconds that connections took

    # With the turns

    @property
    def lead(self) -> Lead:
        """How far ahead to claim."""
        commit = max(self._commits, default=0.0)
        ahead = timedelta(seconds=commit + max(self._connects, default=UNKNOWN_YET))
        reach = LEAD + timedelta(seconds=commit)
        return Lead(min(ahead, MOST_AHEAD - LEAD), min(reach, max(LEAD, MOST_AHEAD - ahead)))

    def asks(self) -> Asked:
        of = list(self.waiting.values())
        return Asked(of, [each for each in of if each.wants_moment])

    def hear(self, asked: Asked, news: News) -> None:
        """What the turn has found that was asked so."""
        for each in asked.of:
            message_id = each.claimed.message_id
            each.leave, each.seen_at = news.leaves.get(message_id), news.seen_at
            if each.leave is not None and message_id in news.moments:
                each.rates = (each.leave.rate, self._rate)
                self._promise(each, news.moments[message_id])
        for each in asked.late:
            if each.claimed.message_id not in news.moments:
                each.leave = None  # its turn comes with another claim
            each.wants_moment = False
        self.wake()

    def wake(self) -> None:
        """Let those that wait look again."""
        self._heard.set()
        self._heard = asyncio.Event()

    def admit(self, claimed: Claimed, news: News, began: float) -> Waiting:
        """A message that was claimed by the turn that has found this, and began then by the timer."""
        self._commits.append(max(0.0, self._timer() - began))
        leave = news.leaves.get(claimed.message_id)
        waiting = Waiting(claimed, leave, news.seen_at, (claimed.rate, self._rate), NEVER)
        self.waiting[claimed.message_id] = waiting
        self._promise(waiting, claimed.start_at)
        return waiting

    def forget(self, waiting: Waiting) -> None:
        """It is over, or it must not begin any more."""
        self.waiting.pop(waiting.claimed.message_id, None)

    def _promise(self, waiting: Waiting, start_at: datetime) -> None:
        # if it is further away than any moment, the clock was set back
        waiting.moment = _now() + min(self._seconds_to(start_at), MOST_AHEAD.total_seconds())

    def _seconds_to(self, moment: datetime) -> float:
        return (moment - self._clock()).total_seconds()

    # With the requests

    async def comes_up(self, waiting: Waiting) -> None:
        """Until its connection is to be asked for, so that it can begin in its moment."""
        if any(waiting.rates):
            await asyncio.sleep(waiting.moment - _now() - max(self._connects, default=UNKNOWN_YET))
        waiting.asked_at = _now()

    async def may_begin(self, waiting: Waiting) -> float | None:
        """The seconds that its request may take, once it may begin; None when it must not."""
        if waiting.asked_at is not None:
            self._connects.append(_now() - waiting.asked_at)
            waiting.asked_at = None  # what a repeat waits for is not the connection
        waiting.is_begun, self.waiting[waiting.claimed.message_id] = False, waiting
        while not self._is_closed():
            if self._timer() - waiting.seen_at >= FRESH:
                await self._news()
            elif waiting.leave is None:
                return None
            elif (wait := self._wait(waiting, waiting.leave)) is None:
                waiting.wants_moment = True
                await self._news()
            elif wait > 0:
                await asyncio.sleep(wait)
            else:
                return self._begin(waiting, waiting.leave)
        return None

    def _wait(self, waiting: Waiting, leave: Leave) -> float | None:
        """Seconds to its moment; None when it needs a new one."""
        rates = (leave.rate, self._rate)
        if not any(rates):
            return 0.0
        wait = waiting.moment - _now()
        return max(0.0, wait) if rates == waiting.rates and wait >= -LATE else None

    def _begin(self, waiting: Waiting, leave: Leave) -> float | None:
        seconds = self._seconds_to(leave.deadline)
        if seconds <= 0:
            return None
        waiting.is_begun = True
        self.forget(waiting)
        return seconds

    async def _news(self) -> None:
        self._ask()
        await self._heard.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()
