"""How much a run dares: one request at first, fewer when the gateway is busy, none when it must stop."""

from dataclasses import dataclass, replace

from mailer_cli.gateway import Answer
from mailer_cli.models import Outcome

SLOW_START = 2.0  # seconds without an answer, after which the other slots are filled all the same
BUSY_PAUSE = 1.0  # seconds, doubling, when the gateway does not say how long
BUSY_PAUSE_LIMIT = 60.0
SPEAKS_SENSE = (Outcome.OK, Outcome.TEMPORARY, Outcome.REJECTED)


@dataclass
class Caution:
    """What the answers of one run have taught it. Moments are seconds of the event loop."""

    limit: int  # requests in flight once the gateway is trusted
    stopped: str | None = None  # why nothing more is claimed; the first reason stays
    last_fault: Answer | None = None
    has_heard_sense: bool = False
    _is_slow: bool = True
    _slow_since: float | None = None
    _busy: int = 0

    def stop_for(self, reason: str) -> None:
        self.stopped = self.stopped or reason

    def slots(self, in_flight: int, moment: float) -> int:
        """How many more requests may be begun."""
        if self.stopped:
            return 0
        return max(0, (1 if self.slow_until(moment) else self.limit) - in_flight)

    @property
    def is_slow(self) -> bool:
        """Whether it waits for an answer that speaks sense."""
        return self._is_slow

    def begun(self, moment: float) -> None:
        """A request was begun."""
        if self._slow_since is None:
            self._slow_since = moment

    def slow_until(self, moment: float) -> float | None:
        """Until when one request at a time is enough; None when all slots may be filled."""
        if not self._is_slow:
            return None
        if self._slow_since is None:
            return moment + SLOW_START
        ends = self._slow_since + SLOW_START
        return ends if moment < ends else None

    def learn(self, answers: list[Answer]) -> list[Answer]:
        """Draw the conclusions; the same answers, with a pause for each busy one that named none, or that
        named too short a one again and again."""
        if any(answer.outcome is Outcome.BUSY for answer in answers):
            self._busy += 1
            self._is_slow, self._slow_since = True, None
        return [self._learn(answer) for answer in answers]

    def _learn(self, answer: Answer) -> Answer:
        if answer.is_gateway_wide:
            self.last_fault = answer
        if answer.outcome in SPEAKS_SENSE:
            self._is_slow, self.has_heard_sense = False, True
        match answer.outcome:
            case Outcome.OK:
                self._busy = 0
            case Outcome.BUSY:
                return replace(answer, retry_after=self._pause(answer.retry_after))
        return answer

    def _pause(self, named: float | None) -> float:
        """Seconds to leave a busy gateway alone: its own word, as long as that helps."""
        if named is None:
            return _backoff(self._busy)
        return max(named, _backoff(self._busy - 1))


def _backoff(times: int) -> float:
    """Seconds after a gateway was busy so many times with no OK between."""
    return min(BUSY_PAUSE * 2 ** min(times - 1, 10), BUSY_PAUSE_LIMIT) if times else 0.0
