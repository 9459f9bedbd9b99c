"""One message, two processes, at most three attempts: every interleaving, on the real SQL.

A state is the content of the database and what the processes and the gateway know. The walk goes through all
states that can be reached; whatever it meets has really been computed by the program (`small_program`).
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mailer_cli.decide import decide
from mailer_cli.models import MessageStatus
from mailer_cli.outbox import Claimed
from tests.judge import MAY_BECOME
from tests.small_program import LATER, NOW, OVER, Content, Facts, Program
from tests.wire import FATES

MOST_RUNS = 3  # two at a time, and one that comes when another has died
MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class Process:
    """A process that works off a run, one message at a time."""

    run: int
    has_lock: bool = True  # without it the others take it for dead, although it goes on
    claimed: Claimed | None = None
    fate: str | None = None  # of the request, once it is over


@dataclass(frozen=True)
class State:
    """One state of the small world."""

    content: Content
    processes: tuple[Process, ...] = ()
    taken: int = 0  # how often the gateway has accepted the message
    known: bool = False  # whether some run has recorded an OK
    is_over: bool = False  # the end has passed

    def set(self, old: Process, new: Process | None) -> "State":
        kept = tuple(new if each is old else each for each in self.processes)
        return replace(self, processes=tuple(each for each in kept if each is not None))


Step = tuple[str, State]


@dataclass
class World:
    """All states that can be reached, each checked once."""

    program: Program
    fates: tuple[str, ...]
    facts: dict[Content, Facts] = field(default_factory=dict)
    came_from: dict[State, tuple[State | None, str]] = field(default_factory=dict)
    steps: Counter[str] = field(default_factory=Counter)

    def explore(self) -> None:
        """Walk through every state, the nearest first. Raises: AssertionError with the way to it."""
        start = State(self.program.start)
        self.came_from[start] = None, "start"
        ahead = deque([start])
        while ahead:
            state = ahead.popleft()
            for name, after in self._steps(state):
                self.steps[name.partition(":")[0]] += 1
                self._check(state, name, after)
                if after not in self.came_from:
                    self.came_from[after] = state, name
                    ahead.append(after)

    def bury_everything(self) -> None:
        """From whatever has been met, one run after the end leaves the message in a final state."""
        for content in list(self.facts):
            buried, _ = self.program.call(content, self.program.begin, frozenset())
            now = self.see(self.program.call(buried, self.program.expire, OVER)[0])
            assert now.status not in ("pending", "sending"), f"I2 {self.see(content)} became {now}"
            assert now.count(None) == 0, f"I8 an attempt stays open: {now}"

    def way_to(self, state: State | None) -> list[str]:
        """The steps from the start to a state."""
        way = []
        while state is not None:
            state, name = self.came_from[state]
            way.append(name)
        return way[::-1]

    def see(self, content: Content) -> Facts:
        if content not in self.facts:
            self.facts[content] = found = Facts.of(self.program.rows(content))
            _check_message(found)
        return self.facts[content]

    # Every step that is possible in a state

    def _steps(self, state: State) -> Iterator[Step]:
        facts = self.see(state.content)
        if len(state.processes) < 2 and facts.runs < MOST_RUNS:
            yield self._begin(state)
        for process in state.processes:
            if process.claimed is None:
                if process.has_lock and facts.attempts < MOST_ATTEMPTS:
                    yield self._claim(state, process)
                continue
            yield f"crash:{process.run}", state.set(process, None)
            if process.has_lock:
                yield f"lose the lock:{process.run}", state.set(process, replace(process, has_lock=False))
            if process.fate is None:
                yield from self._request(state, process)
            else:
                yield from self._record(state, process)
        yield from self._outside(state, facts)

    def _begin(self, state: State) -> Step:
        locked = frozenset(each.run for each in state.processes if each.has_lock)
        content, run = self.program.call(state.content, self.program.begin, locked)
        return f"begin:{run}", replace(state, content=content, processes=(*state.processes, Process(run)))

    def _claim(self, state: State, process: Process) -> Step:
        now = OVER if state.is_over else LATER
        content, claimed = self.program.call(state.content, self.program.claim, process.run, now)
        after = replace(process, claimed=claimed[0]) if claimed else process
        return f"claim:{process.run}", replace(state.set(process, after), content=content)

    def _request(self, state: State, process: Process) -> Iterator[Step]:
        for name in ("not started",) if state.is_over else self.fates:
            after = state.set(process, replace(process, fate=name))
            taken = state.taken + FATES[name].is_taken
            yield f"request:{process.run} {name}", replace(after, taken=taken)

    def _record(self, state: State, process: Process) -> Iterator[Step]:
        """Record, and perhaps again after the next claim: the commit came through, but not the news of it."""
        assert process.claimed is not None and process.fate is not None
        call, program = self.program.call, self.program
        now = OVER if state.is_over else NOW
        answer = FATES[process.fate].answer
        given = process.run, decide(process.claimed, answer, program.limits, now, 0.5)
        content, _ = call(state.content, program.record, *given)
        assert call(content, program.record, *given)[0] == content, "recording again changed something"
        after = replace(process, claimed=None, fate=None) if process.has_lock else None
        known = state.known or process.fate == "ok"
        recorded = replace(state.set(process, after), content=content, known=known)
        yield f"record:{process.run}", recorded
        if after is not None and self.see(content).attempts < MOST_ATTEMPTS:
            name, claimed = self._claim(recorded, after)
            if claimed != recorded:
                content, _ = call(claimed.content, program.record, *given)
                yield f"record, {name}, and record again", replace(claimed, content=content)

    def _outside(self, state: State, facts: Facts) -> Iterator[Step]:
        """Time and the operator."""
        call, program = self.program.call, self.program
        if state.is_over:
            if facts.status == "pending":
                yield "expire", replace(state, content=call(state.content, program.expire, OVER)[0])
            return
        yield "the end passes", replace(state, is_over=True)
        if facts.is_cancelled:
            if facts.status == "pending":
                yield "expire", replace(state, content=call(state.content, program.expire, NOW)[0])
            return
        if facts.status in ("pending", "sending"):
            yield "cancel", replace(state, content=call(state.content, program.cancel)[0])
        if facts.status in ("failed", "unknown"):
            yield "retry", replace(state, content=call(state.content, program.retry)[0])
        if facts.status == "unknown" and not facts.words:
            for word in (MessageStatus.SENT, MessageStatus.FAILED):
                yield f"resolve:{word}", replace(state, content=call(state.content, program.resolve, word)[0])

    # The judge

    def _check(self, before: State, name: str, after: State) -> None:
        """Look at each state once, and at each change of the rows every time."""
        if after in self.came_from and after.content == before.content and name != "expire":
            return
        now: Facts | None = None
        try:
            was, now = self.see(before.content), self.see(after.content)
            _check_change(was, now, before, name)
            if after not in self.came_from:
                _check_gateway(now, after)
                _check_owners(now, after)
        except AssertionError as error:
            way = "\n  ".join([*self.way_to(before), name])
            raise AssertionError(f"{error}\n{now}\n{after.processes}\n  {way}") from None


def _check_change(was: Facts, now: Facts, before: State, name: str) -> None:
    if was.status != now.status:
        assert now.status in MAY_BECOME.get(was.status, ()), f"{was.status} became {now.status}"
    if now.attempts > was.attempts:
        assert not before.is_over, "claimed after the end"
        assert not was.is_cancelled, "claimed although cancelled"
        assert now.attempts == was.attempts + 1 == len(now.outcomes), "an attempt that was not counted"
    if name == "expire":
        assert now.status != "pending", "still waiting after the end"


def _check_message(now: Facts) -> None:
    failures, unknowns, failures_forgiven, unknowns_forgiven = now.counters
    assert failures == now.count("temporary", "rejected", "server"), "I10 failures"
    assert unknowns == now.count("unknown", "late_ok"), "I10 unknowns"
    assert now.attempts == len(now.outcomes), "I8 attempts"
    if now.status == "sending":
        assert (now.attempts, now.owner, None) in now.outcomes, "I8 no open attempt"
    assert now.count(None) <= 1 + (now.status == "sent"), "I8 several open attempts"
    assert (now.status == "sent") == (now.count("ok", "late_ok") > 0 or "sent" in now.words), "I5"
    limited = max(failures - failures_forgiven, unknowns - unknowns_forgiven)
    assert now.status != "pending" or limited < MOST_ATTEMPTS, "I11 waits although its limit is reached"


def _check_gateway(now: Facts, state: State) -> None:
    assert state.taken >= now.count("ok", "late_ok"), "I5 an OK that nobody gave"
    assert state.taken <= 1 + now.count("unknown", "late_ok", "server", None), "I3 a repeat without a reason"
    assert not state.known or now.status == "sent", "an OK was lost"
    if state.taken and "failed" not in now.words:
        assert now.status not in ("failed", "expired", "cancelled"), "what was taken is denied"


def _check_owners(now: Facts, state: State) -> None:
    for process in state.processes:
        if process.claimed is None or not process.has_lock:
            continue
        number = process.claimed.attempt
        assert (number, process.run, None) in now.outcomes, "I9 a living run's attempt was given up"
        owns = (now.status, now.owner, now.attempts) == ("sending", process.run, number)
        assert owns or now.status == "sent", "I9 a living run's message was taken"
