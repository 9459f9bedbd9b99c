"""The loop of one run: claim, send, record, until nothing is due or something stops it.

The event loop holds the requests; each turn of it is one transaction in a thread: the outcomes of what has
finished are recorded and the free slots claimed anew. Between turns what finishes waits for company.
What is claimed is in flight, so a run that is killed leaves at most as many unknown fates as it has slots.
An answer stays in hand until it is recorded: whatever fails in a turn, what is known is recorded first.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from mailer_cli import breaker, mailings, outbox
from mailer_cli.belief import Boot
from mailer_cli.caution import Caution
from mailer_cli.company import Company
from mailer_cli.database import Database, persistently
from mailer_cli.database.turns import Turn, Turns
from mailer_cli.decide import Limits, decide
from mailer_cli.errors import MailerError
from mailer_cli.gate import Asked, Gate, News, Waiting
from mailer_cli.gateway import Answer
from mailer_cli.logs import Log, mask
from mailer_cli.models import MessageStatus, Outcome
from mailer_cli.outbox import Batch, Claimed, Counts, Demand, Leave, Verdict
from mailer_cli.outbox.wary import Wary
from mailer_cli.settings import Settings
from mailer_cli.stop import Stop
from mailer_cli.trust import Learnt, Trust

if TYPE_CHECKING:
    from mailer_cli.gateway.client import Gateway

LOOK_UP = 0.5  # seconds between looks at what the operator has said meanwhile
LOOK_AGAIN = 0.25  # seconds that a commit may take before what was read in it is read once more
LOOKS = 3
PATIENCE = 120.0  # seconds of trying to record what is already known
NOT_STARTED = Answer(Outcome.RELEASED, "not started")
ABORTED = Answer(Outcome.UNKNOWN, "aborted")


@dataclass(frozen=True)
class World:
    """What comes from outside: time, chance, the operator, and where it is told what goes on."""

    clock: Callable[[], datetime]
    timer: Callable[[], float]  # seconds that never jump
    chance: Callable[[], float]
    log: Log
    host: str
    pid: int
    stop: Stop = field(default_factory=lambda: Stop(lambda: 0.0))
    reload_token: Callable[[], str | None] = lambda: None
    progress: Callable[[int], object] = lambda done: None
    warn: Callable[[str], object] = lambda text: None
    boot: Callable[[], Boot | None] = lambda: None  # what the clock is held against


@dataclass(frozen=True, slots=True)
class _Finished:
    claimed: Claimed
    answer: Answer
    at: datetime
    token: str  # the one it was sent with


@dataclass(frozen=True)
class _Turned:
    """What one turn found and did."""

    state: breaker.State
    batch: Batch
    news: News  # of what was claimed before, and now
    began: float = 0.0  # by the timer, in its transaction


Sparing = Callable[[Callable[[], _Turned]], _Turned]


@dataclass(frozen=True)
class _Committed:
    """The same, and what the run learns of it when it is committed."""

    turned: _Turned
    changed: Sequence[Verdict]
    refused: Collection[int]
    paused: Collection[int]
    wary: Wary


class Sender:
    """The requests of one run, from the first to the last."""

    def __init__(
        self,
        database: Database,
        gateway: "Gateway",
        settings: Settings,
        world: World,
        run_id: int,
        only: int | None,
        stopping: asyncio.Event,
        beat: Callable[[], None],
        sparing: "Sparing" = lambda work: work(),
        is_doubted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.counts = Counts()
        self.caution = Caution(settings.concurrency)
        self._trust = Trust()
        self._learnt = Learnt()  # what the turn has to remember for the next runs
        self._room = self._trust.room(())
        self.put_aside: list[int] = []  # mailings that were refused ten messages in a row
        self.paused: list[int] = []  # of them, those that sleep from now on
        self._database, self._gateway, self._settings, self._world = database, gateway, settings, world
        self._run_id, self._only = run_id, only
        self._turns = Turns(database, run_id)
        self._beat = beat  # says that the run is at work
        self._is_doubted = is_doubted  # whether the clock is not to be believed
        self._sparing = sparing  # sets aside the rows that stop a turn, and does it again
        self._stopping = stopping  # wakes requests that pause before a repeat
        self._token = settings.token or ""
        self._has_renewed = False
        self._limits = Limits(
            settings.max_failures, 1 if settings.on_unknown == "hold" else settings.max_unknown
        )
        self._finished: list[_Finished] = []
        self._known: list[_Finished] = []  # what the finished have taught is learned, but not recorded yet
        self._unstarted: list[Claimed] = []  # claimed, and not begun
        self._turning: asyncio.Future[_Turned] | None = None  # the turn that the database's thread is at
        self._in_flight: dict[asyncio.Task[_Finished], Waiting] = {}
        self._bug: BaseException | None = None  # of a request
        self._changed = asyncio.Event()
        self._company = Company()
        self._texts: dict[int, str] = {}
        self._gate = Gate(world.clock, world.timer, settings.rate, lambda: self._is_stopped, self._call_turn)
        self.served: int | None = None
        self._wary = Wary()
        self._is_probe = False  # the breaker is open: one request, no repeats

    async def work(self, seconds: float) -> None:
        """Send what is due, claiming for so many seconds; `caution.stopped` says why it ended early.

        Raises: whatever fails beside the requests, when all that is known is recorded.
        """
        loop = asyncio.get_running_loop()
        self._until = loop.time() + seconds
        self._world.stop.on_change = lambda: loop.call_soon_threadsafe(self._wake)
        try:
            turned = await self._turn()
            while self._in_flight or self._finished or self._bug or self._goes_on(turned):
                await self._wait(turned)
                if self._world.stop.is_abort:
                    await self._abort()
                turned = await self._turn()
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to be told
                await self._rescue()
            raise
        finally:
            self._world.stop.on_change = lambda: None  # a signal may come when the loop is closed
        if self.put_aside and self.caution.stopped in (None, "time_up"):
            self.caution.stopped = "too_many_rejected"

    def _wake(self) -> None:
        self._stopping.set()
        self._end_waiting()
        self._changed.set()

    def _call_turn(self) -> None:
        self._changed.set()

    @property
    def _is_stopped(self) -> bool:
        """Whether nothing may begin any more."""
        return self.caution.stopped is not None or self._world.stop.is_asked

    # One turn: record, claim, start

    async def _turn(self) -> _Turned:
        loop = asyncio.get_running_loop()
        self._beat()
        self._changed.clear()
        if self._bug is not None:
            raise self._bug
        self._learn()
        self._check_the_clock(loop.time())
        slots = self.caution.slots(len(self._in_flight), loop.time())
        self._room = self._trust.room([each.claimed for each in self._in_flight.values()])
        done, asked = list(self._known), self._gate.asks()
        self._turning = asyncio.ensure_future(asyncio.to_thread(self._in_database, done, slots, asked))
        turned = await asyncio.shield(self._turning)
        del self._known[: len(done)]
        self._company.turned()
        self.served = turned.batch.served
        self._is_probe = turned.state.is_open
        self._gate.hear(asked, turned.news)
        while self._unstarted:
            waiting = self._gate.admit(self._unstarted[0], turned.news, turned.began)
            del self._unstarted[0]  # only now: what cannot be admitted is given back
            self._start(waiting)
        self._company.changed(len(self._finished), len(self._in_flight))
        self._tell(done)
        self._obey_breaker(turned)
        if self.caution.stopped:
            self._stopping.set()
        self._end_waiting()
        return turned

    def _end_waiting(self) -> None:
        """Give back what has not begun and must not: all of it when the run is to end."""
        for task, waiting in self._in_flight.items():
            if not waiting.is_begun and (waiting.leave is None or self._is_stopped):
                waiting.leave = None
                task.cancel()

    def _learn(self) -> None:
        """Draw the conclusions from what has finished, once from each; it is known before that, so that it
        is recorded even if they fail."""
        new, self._finished, before = self._finished, [], len(self._known)
        self._known += new
        answers = self.caution.learn([each.answer for each in new])
        self._learnt = self._trust.learn((each.claimed, each.answer) for each in new)
        self._known[before:] = [
            each if answer is each.answer else replace(each, answer=answer)
            for each, answer in zip(new, answers, strict=True)
        ]
        for each in new:
            if each.answer.outcome is Outcome.CONFIG:
                self._reconsider(each)

    def _reconsider(self, finished: _Finished) -> None:
        """The gateway refuses us: perhaps the token was renewed, else nothing will go through."""
        if finished.answer.http_status not in (401, 403):
            self.caution.stop_for("wrong_url")
        elif finished.token == self._token:
            renewed = None if self._has_renewed else self._world.reload_token()
            self._has_renewed = True
            if renewed is None or renewed == self._token:
                self.caution.stop_for("token_refused")
            else:
                self._token = renewed
                self._gateway.renew(renewed)

    def _check_the_clock(self, moment: float) -> None:
        if self._world.stop.is_asked:
            self.caution.stop_for("signal")
        elif self._is_doubted():
            self.caution.stop_for("clock_ahead")
        elif moment >= self._until:
            self.caution.stop_for("time_up")

    def _obey_breaker(self, turned: _Turned) -> None:
        """An open breaker lets one request a run through; when that was of no use, the run ends."""
        if turned.state.is_open and self.counts.claimed and not turned.batch.claimed and not self._in_flight:
            fault = self.caution.last_fault
            self.caution.stop_for("gateway_nonsense" if fault and fault.is_nonsense else "gateway_down")

    # What happens in the database's thread

    def _in_database(self, done: Sequence[_Finished], slots: int, asked: Asked) -> _Turned:
        """Persistently while there is an answer to lose, in hand or in flight, unless the run is aborted."""

        turn = Turn(lambda connection: self._record_and_claim(done, slots, asked, connection), self._learn_of)

        def work() -> _Turned:
            is_needed = done or asked.late or self._turns.is_in_doubt
            return (None if is_needed else self._look(slots, asked)) or self._turns.take(turn).turned

        def gives_up() -> bool:
            has_something = done or self._in_flight or self._turns.is_in_doubt
            return self._world.stop.is_abort or not has_something

        turned = persistently(lambda: self._sparing(work), PATIENCE, gives_up)
        return self._looked_again(turned, asked)

    def _look(self, slots: int, asked: Asked) -> _Turned | None:
        """Look without the write lock; None when there is something to claim."""
        now, seen_at = self._world.clock(), self._world.timer()
        with self._database.read() as connection:
            state = breaker.read(connection)
            if self._allowed(state, slots, now) and outbox.may_be_due(connection, now, self._only):
                return None
            held_until = self._left_alone_until(connection, state, slots, now)
            leaves = outbox.leaves(connection, self._run_id, asked.claimed, now)
        served = self.served or state.served or 0
        return _Turned(state, Batch([], held_until, served), News(seen_at, leaves))

    def _record_and_claim(
        self, done: Sequence[_Finished], slots: int, asked: Asked, connection: Connection
    ) -> _Committed:
        chance, learnt = self._world.chance, self._learnt
        verdicts = [decide(each.claimed, each.answer, self._limits, each.at, chance()) for each in done]
        # only here: waiting for the write lock may have taken long
        now, began = self._world.clock(), self._world.timer()
        changed = outbox.record(connection, self._run_id, verdicts)
        state = breaker.note(connection, [(each.claimed, each.answer) for each in done], now)
        paused = mailings.remember(connection, learnt.taken, learnt.refused, now)
        rate, lead = self._settings.rate, self._gate.lead
        moments = outbox.renew(connection, asked.places, rate, now, lead)
        allowed = self._allowed(state, slots, now)
        served = state.served or 0 if self.served is None else self.served
        wary = self._be_wary(state, allowed, now)
        demand = Demand(self._run_id, allowed, rate, self._only, served, self._room, lead, wary)
        batch = outbox.claim(connection, demand, self._texts, now)
        if state.is_busy(now) and not batch.claimed:
            batch = replace(batch, held_until=self._left_alone_until(connection, state, slots, now))
        if allowed == 1 and batch.served != state.served:
            breaker.remember_served(connection, batch.served)
        leaves = outbox.leaves(connection, self._run_id, asked.claimed, now)
        leaves |= {each.message_id: Leave(each.deadline, each.rate) for each in batch.claimed}
        news = News(self._world.timer(), leaves, moments)  # nobody can change it before the commit
        return _Committed(_Turned(state, batch, news, began), changed, learnt.refused, paused, wary)

    def _learn_of(self, done: _Committed) -> None:
        """Once it is known to be so in the database."""
        claimed = done.turned.batch.claimed
        self._wary = done.wary
        self._unstarted += claimed
        self._count(done.changed)
        self.counts.claimed += len(claimed)
        self.counts.repeats += sum(each.attempt > 1 for each in claimed)
        self.put_aside += done.refused
        self.paused += done.paused

    def _looked_again(self, turned: _Turned, asked: Asked) -> _Turned:
        """With fresh news, where a slow disk has made them old: it may be read quickly all the same."""
        claimed = [*asked.claimed, *turned.batch.claimed]
        for _ in range(LOOKS):
            seen_at = self._world.timer()
            if not claimed or seen_at - turned.news.seen_at < LOOK_AGAIN:
                break
            with contextlib.suppress(MailerError), self._database.read() as connection:
                leaves = outbox.leaves(connection, self._run_id, claimed, self._world.clock())
                turned = replace(turned, news=replace(turned.news, seen_at=seen_at, leaves=leaves))
        return turned

    def _left_alone_until(
        self, connection: Connection, state: breaker.State, slots: int, now: datetime
    ) -> datetime | None:
        """Until when the gateway wishes to be left alone, if that holds anything back."""
        if not slots or state.busy_until is None or not state.is_busy(now):
            return None
        moments = (now, state.busy_until)  # whoever was told to wait is due when the wish ends
        is_due = any(outbox.has_due(connection, moment, self._only) for moment in moments)
        return state.busy_until if is_due else None

    def _allowed(self, state: breaker.State, slots: int, now: datetime) -> int:
        """The slots that the breaker and the gateway's own wish leave."""
        is_first = not self.counts.claimed
        if state.is_busy(now):
            return min(slots, 1) if is_first and state.hears_others(now) else 0
        if state.is_open:
            return min(slots, 1) if is_first else 0
        return slots

    def _be_wary(self, state: breaker.State, allowed: int, now: datetime) -> Wary:
        """What a claim has to know of faults: nothing, as a rule."""
        is_busy, is_slow = state.is_busy(now), state.is_open or self.caution.is_slow
        return Wary(
            state.blamed,
            is_probe=is_busy or (allowed == 1 and is_slow and bool(state.blamed)),
            unheard_only=is_busy,
            newest_first=self._run_id % 2 == 0,
            probed=set(self._wary.probed),
            passed=dict(self._wary.passed),
        )

    def _count(self, changed: Sequence[Verdict]) -> None:
        for verdict in changed:
            match verdict.status:
                case MessageStatus.SENT:
                    self.counts.sent += 1
                case MessageStatus.FAILED:
                    self.counts.failed += 1
                case MessageStatus.UNKNOWN:
                    self.counts.unknown += 1
                case _:
                    self.counts.deferred += 1

    # Waiting

    def _goes_on(self, turned: _Turned) -> bool:
        """Whether a run with nothing in flight has something to wait for: the rate, or a busy gateway."""
        held_until = turned.batch.held_until
        if self.caution.stopped:
            return False
        if held_until is None:
            return bool(turned.batch.claimed)
        loop = asyncio.get_running_loop()
        if loop.time() + self._seconds_to(held_until) < self._until:
            return True
        is_busy = turned.state.busy_until == held_until
        self.caution.stop_for("gateway_down" if is_busy else "time_up")
        return False

    def _seconds_to(self, moment: datetime) -> float:
        return max(0.0, (moment - self._world.clock()).total_seconds())

    async def _wait(self, turned: _Turned) -> None:
        """Until something finishes or may begin, the operator speaks, or it is time to look up."""
        moment = asyncio.get_running_loop().time()
        timeouts = [LOOK_UP]
        if turned.batch.held_until is not None:
            timeouts.append(self._seconds_to(turned.batch.held_until))
        if not self.caution.stopped:
            timeouts.append(max(0.0, self._until - moment))
            if slow_until := self.caution.slow_until(moment):
                timeouts.append(slow_until - moment)
        is_held = turned.batch.held_until is not None and self.caution.slots(len(self._in_flight), moment) > 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(timeouts)):
                await self._changed.wait()
                await self._company.gather(has_hurry=not is_held)

    async def _abort(self) -> None:
        """End every request at once; those that had not begun are given back."""
        for task in self._in_flight:
            task.cancel()
        if self._in_flight:
            await asyncio.wait(list(self._in_flight))

    # When something fails that is no answer

    async def _rescue(self) -> None:
        """Begin nothing more, wait for what is in flight within its deadlines, record all that is known."""
        self.caution.stop_for("failed")
        self._stopping.set()
        self._end_waiting()
        if self._turning is not None:
            await asyncio.wait([self._turning])
        while self._in_flight:
            if self._world.stop.is_abort:
                await self._abort()
            else:
                await asyncio.wait(list(self._in_flight), timeout=LOOK_UP)
        self._known += self._finished
        await asyncio.shield(asyncio.to_thread(self._record_known))

    def _record_known(self) -> None:
        """All at once, else each by itself, so that one that cannot be keeps no other from its record."""
        with contextlib.suppress(MailerError):
            self._turns.settle()
        self._known += [self._finish(each, NOT_STARTED, self._token) for each in self._unstarted]
        with contextlib.suppress(MailerError):  # the database has been asked persistently
            if not self._is_recorded(self._known):
                for each in self._known:
                    self._is_recorded([each])

    def _is_recorded(self, known: Sequence[_Finished]) -> bool:
        """Whether it could be: it was a bug that has brought us here, and this may be its place."""
        try:
            self._record(known)
        except MailerError:
            raise
        except Exception:
            return False
        return True

    def _record(self, known: Sequence[_Finished]) -> None:
        """Without chance or clock, which may be what has failed."""
        verdicts = [decide(each.claimed, each.answer, self._limits, each.at, 0.5) for each in known]

        turn = Turn(lambda connection: outbox.record(connection, self._run_id, verdicts), self._count)
        persistently(lambda: self._turns.take(turn), PATIENCE, lambda: self._world.stop.is_abort)

    # One message

    def _start(self, waiting: Waiting) -> None:
        self.caution.begun(asyncio.get_running_loop().time())
        task = asyncio.create_task(self._deliver(waiting))
        self._in_flight[task] = waiting
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[_Finished]) -> None:
        """No longer in flight, and finished, in one step: a turn in between would see neither a free slot
        nor a reason to come back."""
        waiting = self._in_flight.pop(task)
        claimed = waiting.claimed
        self._gate.forget(waiting)
        if task.cancelled():  # before it had begun
            self._finished.append(self._finish(claimed, NOT_STARTED, self._token))
        elif bug := task.exception():
            self._bug = self._bug or bug
            self._finished.append(self._finish(claimed, ABORTED, self._token))
        else:
            self._finished.append(task.result())
        self._company.changed(len(self._finished), len(self._in_flight))
        self._changed.set()

    async def _deliver(self, waiting: Waiting) -> _Finished:
        claimed, token, answer = waiting.claimed, self._token, NOT_STARTED
        try:
            await self._gate.comes_up(waiting)
            self._log("request", claimed, phone=mask(claimed.phone))
            answer = await self._send(waiting)
        except asyncio.CancelledError:
            answer = ABORTED if waiting.is_begun else NOT_STARTED
        except Exception as bug:  # it ends the run, but takes no answer with it
            self._bug, answer = self._bug or bug, ABORTED if waiting.is_begun else NOT_STARTED
        return self._finish(claimed, answer, token)

    def _finish(self, claimed: Claimed, answer: Answer, token: str) -> _Finished:
        try:
            at = self._world.clock()
        except Exception as bug:
            self._bug, at = self._bug or bug, claimed.start_at
        return _Finished(claimed, answer, at, token)

    async def _send(self, waiting: Waiting) -> Answer:
        claimed = waiting.claimed
        answer = await self._gateway.send(
            claimed.message_id,
            claimed.phone,
            claimed.text,
            limit=self._settings.timeout,
            may_begin=lambda: self._gate.may_begin(waiting),
            may_repeat=lambda: waiting.leave is not None and not (self._is_stopped or self._is_probe),
        )
        return answer.strictly if self._limits.holds else answer

    # Telling

    def _tell(self, done: Sequence[_Finished]) -> None:
        """Result first, log second."""
        for each in done:
            answer = each.answer
            self._log(
                "answer",
                each.claimed,
                outcome=answer.outcome.value,
                http_status=answer.http_status,
                code=answer.code,
                error=answer.error,
                tries=answer.tries,
            )
        if done:
            counts = self.counts
            self._world.progress(counts.sent + counts.failed + counts.unknown)

    def _log(self, event: str, claimed: Claimed, **more: object) -> None:
        self._world.log.write(
            event,
            run_id=self._run_id,
            mailing_id=claimed.mailing_id,
            message_id=claimed.message_id,
            client_id=claimed.client_id,
            attempt=claimed.attempt,
            **more,
        )
