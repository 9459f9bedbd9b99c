"""One run: recover -> expire -> bring back -> fix audiences -> claim -> send -> record."""

import asyncio
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection

from mailer_cli import audience, blame, breaker, news, outbox
from mailer_cli.caution import Caution
from mailer_cli.database import Database, RunLocks
from mailer_cli.errors import DatabaseFailed, MailerError, TryLater
from mailer_cli.outbox import Counts, Misfit
from mailer_cli.sender import Sender, World
from mailer_cli.settings import Settings

__all__ = ["Planned", "Summary", "World", "plan", "run"]

T = TypeVar("T")
CLOCK_AHEAD = "clock_ahead"
TROUBLE = ("gateway_down", "gateway_nonsense", "too_many_rejected", "token_refused", "wrong_url")


@dataclass(frozen=True)
class Summary:
    """What one run did. `run_id` is None when there was nothing to do, and then nothing was written."""

    run_id: int | None
    started_at: datetime
    seconds: float
    counts: Counts
    stopped: str | None = None
    fault: str | None = None  # the last word of a gateway in trouble
    is_news: bool = False  # to be said even when quiet: trouble began, ended, or has lasted an hour
    put_aside: Sequence[int] = ()  # mailings that were refused ten messages in a row
    paused: Sequence[int] = ()  # of them, those that have paused themselves
    unknown_zones: Mapping[str, int] = field(default_factory=dict)  # how many messages wait for each
    is_news_of_zones: bool = False
    misfits: Sequence[Misfit] = ()  # damaged rows that it has set aside
    given_back: int = 0  # messages that had ended by a clock that was ahead
    clock_ahead: timedelta | None = None  # of what is believed; nothing was done then
    is_news_of_clock: bool = False


def run(database: Database, settings: Settings, world: World, only: int | None = None) -> Summary:
    """Do all that is due, of one mailing or of all. Safe beside other runs.

    Raises: Misconfigured, DatabaseFailed, TryLater before anything is claimed; the latter two also when
    recording has failed for long: what was in flight then will be found unknown by the next run.
    """
    url, token = settings.require_gateway()
    locks = RunLocks(database)
    beat = _heart(locks, world)
    try:
        beat()
        with database.held_open():
            if ahead := locks.clock_ahead(world.clock(), world.boot()):
                summary = Summary(None, world.clock(), 0.0, Counts(), CLOCK_AHEAD, clock_ahead=ahead)
            elif _has_work(database, locks, world.clock(), only):
                summary = _Run(database, settings, world, locks, beat, only).go(url, token)
            else:
                _settle(database, world.clock(), only)
                summary = Summary(None, world.clock(), 0.0, Counts())
            return _with_clock(_with_zones(summary, database, world.clock(), only), database, world.clock())
    finally:
        locks.close()


def _with_zones(summary: Summary, database: Database, now: datetime, only: int | None) -> Summary:
    """With what still waits because its zone is not known here."""
    waiting: Mapping[str, int] = {}
    with suppress(*outbox.SIGNS), database.read() as connection:
        waiting = outbox.unknown_zones(connection, now, only)
    is_news = news.is_news(database, "unknown zones", ", ".join(sorted(waiting)), now)
    return replace(summary, unknown_zones=waiting, is_news_of_zones=is_news)


def _with_clock(summary: Summary, database: Database, now: datetime) -> Summary:
    """With the word that the clock is doubted, when that is news."""
    words = "ahead" if summary.stopped == CLOCK_AHEAD else ""
    return replace(summary, is_news_of_clock=news.is_news(database, "clock", words, now))


def _heart(locks: RunLocks, world: World) -> Callable[[], None]:
    """Says, each time it is called, that a run is at work. Where it cannot it warns, once: no message has to
    wait for that."""
    has_warned = False

    def beat() -> None:
        nonlocal has_warned
        try:
            locks.beat()
        except OSError as error:
            if not has_warned:
                has_warned = True
                said = f"cannot touch {locks.path}: {error.strerror or error}"
                world.warn(f"{said}; mailer health will not know that this run was at work")

    return beat


def _has_work(database: Database, locks: RunLocks, now: datetime, only: int | None) -> bool:
    """Whether a run would change anything; asked without the write lock. A damaged row is to be set aside."""
    with suppress(*outbox.SIGNS), database.read() as connection:
        return (
            connection.execute(audience.due(now, only).limit(1)).first() is not None
            or outbox.has_overdue(connection, now)
            or bool(outbox.dead_runs(connection, locks.is_free))
            or outbox.has_due(connection, now, only)
            or outbox.has_ahead(connection, now)
            or outbox.has_lost(connection, now)
        )
    return True


def _settle(database: Database, now: datetime, only: int | None) -> None:
    """Let what was looked at in vain not be looked at again, so that the next idle run is over at once."""
    with database.read() as connection:
        if not outbox.may_be_due(connection, now, only):
            return
    with suppress(TryLater), database.write() as connection:
        outbox.settle(connection, now, only)


@dataclass
class _Run:
    """A run while it lasts: it holds the lock on its id."""

    database: Database
    settings: Settings
    world: World
    locks: RunLocks
    beat: Callable[[], None]
    only: int | None
    run_id: int = 0
    expired: int = 0
    unknown: int = 0
    sender: Sender | None = None
    given_back: int = 0
    misfits: list[Misfit] = field(default_factory=list)

    def go(self, url: str, token: str) -> Summary:
        started_at, began = self.world.clock(), self.world.timer()
        self._begin(started_at)
        try:
            for step in (self._recover, self._give_back, self._expire, self._bring_back, self._fix_audiences):
                self._sparing(step)
            sender = asyncio.run(self._send(url, token, began))
            if self._is_doubted():
                sender.caution.stop_for(CLOCK_AHEAD)
            self._sparing(self._expire)
        except BaseException as error:
            self._end_badly(error)
            raise
        counts, caution = self._counted(), sender.caution
        fault = caution.last_fault.error if caution.last_fault else None
        is_news = self._end(counts, caution)
        seconds = round(self.world.timer() - began, 3)
        return Summary(
            self.run_id,
            started_at,
            seconds,
            counts,
            caution.stopped,
            fault,
            is_news,
            sender.put_aside,
            sender.paused,
            misfits=self.misfits,
            given_back=self.given_back,
        )

    def _sparing(self, work: Callable[[], T]) -> T:
        """Do the work; when a damaged row stops it, set such rows aside and do it again.

        Raises: what the work raises when no row is to blame.
        """
        while True:
            try:
                return work()
            except outbox.SIGNS:
                if not self._set_aside():
                    raise

    def _set_aside(self) -> bool:
        with self.database.write() as connection:
            dead = [each for each in outbox.dead_runs(connection, self.locks.is_free) if each != self.run_id]
            found = outbox.set_aside(connection, dead, self.world.clock())
        self.misfits += found
        for each in found:
            self.world.log.write("damaged row set aside", run_id=self.run_id, what=each.what, why=each.why)
        return bool(found)

    def _counted(self) -> Counts:
        """What the run has changed, before its requests and by them."""
        counts = replace(self.sender.counts) if self.sender else Counts()
        counts.expired += self.expired
        counts.unknown += self.unknown
        return counts

    def _end_badly(self, error: BaseException) -> None:
        """Write what it did and why it ends; the error itself is for the caller, whatever comes of this."""
        if isinstance(error, DatabaseFailed | TryLater):
            return  # the database has been asked long enough; the next run finds this one dead
        code = error.code if isinstance(error, MailerError) else "internal"
        with suppress(Exception), self.database.write() as connection:
            outbox.end_run(connection, self.run_id, self._counted(), code, self.world.clock())

    def _begin(self, now: datetime) -> None:
        with self.database.write() as connection:
            self.run_id = outbox.begin_run(connection, self.world.host, self.world.pid, now)
            self.locks.take(self.run_id)  # before anyone can see the run
            blame.forget(connection, now)
        self.world.log.write("run started", run_id=self.run_id)

    def _recover(self) -> None:
        hold = self.settings.on_unknown == "hold"
        with self.database.write() as connection:
            dead = [each for each in outbox.dead_runs(connection, self.locks.is_free) if each != self.run_id]
            limit = 0 if hold else self.settings.max_unknown
            pending, unknown = outbox.recover(connection, dead, limit, self.world.clock())
        self.unknown += unknown
        if dead:
            self.world.log.write(
                "recovered", run_id=self.run_id, dead_runs=dead, pending=pending, unknown=unknown
            )

    def _expire(self) -> None:
        if self._is_doubted() or not self._asks(outbox.has_overdue):
            return
        with self.database.write() as connection:
            closed = outbox.expire(connection, self.world.clock())
        self.expired += closed.ended
        self.unknown += closed.unknown
        self.world.log.write("expired", run_id=self.run_id, expired=closed.ended, unknown=closed.unknown)

    def _give_back(self) -> None:
        if self._is_doubted() or not self._asks(outbox.has_lost):
            return
        with self.database.write() as connection:
            doubtful = self.settings.on_unknown != "hold"
            messages = outbox.give_back(connection, self.world.clock(), doubtful=doubtful)
        self.given_back += messages
        self.world.log.write("given back", run_id=self.run_id, messages=messages)

    def _asks(self, question: Callable[[Connection, datetime], bool]) -> bool:
        with self.database.read() as connection:
            return question(connection, self.world.clock())

    def _is_doubted(self) -> bool:
        """Whether the clock has been set far ahead since it was last believed: nothing is final by it."""
        return self.locks.clock_ahead(self.world.clock(), self.world.boot()) is not None

    def _bring_back(self) -> None:
        with self.database.read() as connection:
            if not outbox.has_ahead(connection, self.world.clock()):
                return
        with self.database.write() as connection:
            messages = outbox.bring_back(connection, self.world.clock())
        self.world.log.write("clock was set back", run_id=self.run_id, messages=messages)

    def _fix_audiences(self) -> None:
        """Each in a transaction of its own, so that others get their turn in between."""
        while not (self.world.stop.is_asked or self._is_doubted()):
            with self.database.write() as connection:
                now = self.world.clock()
                mailing_id = connection.execute(audience.due(now, self.only).limit(1)).scalar()
                if mailing_id is None:
                    return
                messages = audience.fix(connection, mailing_id, now)
            self.world.log.write(
                "audience fixed", run_id=self.run_id, mailing_id=mailing_id, messages=messages
            )

    async def _send(self, url: str, token: str, began: float) -> Sender:
        from mailer_cli.gateway.client import Gateway  # heavy, and of no use to an idle run

        stopping = asyncio.Event()
        gateway = Gateway(
            url,
            token,
            timeout=self.settings.timeout,
            concurrency=self.settings.concurrency,
            proxy=self.settings.proxy,
            clock=self.world.clock,
            random=self.world.chance,
            stop=stopping,
        )
        async with gateway:
            self.sender = sender = Sender(
                self.database,
                gateway,
                self.settings,
                self.world,
                self.run_id,
                self.only,
                stopping,
                self.beat,
                self._sparing,
                self._is_doubted,
            )
            with _rare_collections():
                await sender.work(self.settings.max_seconds - (self.world.timer() - began))
        return sender

    def _end(self, counts: Counts, caution: Caution) -> bool:
        """Write the summary; whether it is news. A run that heard nothing knows of no end of the trouble."""
        now, stopped = self.world.clock(), caution.stopped
        trouble = stopped if stopped in TROUBLE else None
        with self.database.write() as connection:
            outbox.end_run(connection, self.run_id, counts, stopped, now)
            if self.sender and self.sender.served is not None:
                breaker.remember_served(connection, self.sender.served)
            is_news = (trouble is not None or caution.has_heard_sense) and breaker.should_say(
                breaker.read(connection), trouble, now
            )
            if is_news:
                breaker.remember_said(connection, trouble, now)
        self.beat()
        self.world.log.write("run ended", run_id=self.run_id, stopped=stopped, **vars(counts))
        return is_news


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let the collector of cyclic garbage pass over what was imported, and come less often: it took a tenth
    of the CPU of a run, which makes next to no cycles."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@dataclass(frozen=True)
class Planned:
    """What the next run would do for one mailing."""

    mailing_id: int
    audience: int | None  # clients it would be fixed to; None when it is fixed already
    waiting: int


def plan(database: Database, now: datetime, only: int | None = None) -> list[Planned]:
    """What a run would do now; nothing is changed."""
    with database.read() as connection:
        new = connection.execute(audience.due(now, only)).scalars().all()
        planned = [
            Planned(each, audience.size(connection, audience.filter_of(connection, each)), 0) for each in new
        ]
        return planned + [
            Planned(mailing_id, None, waiting)
            for mailing_id, waiting in outbox.waiting(connection, now, only)
        ]
