"""The world of the queue in memory, around the program's own functions on a real SQLite file.

It knows what the program cannot: which requests the gateway has taken, who is dead, what an operator has
said. So it is a witness against the database, and `tests.lab` judges by it.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from mailer_cli import audience, mailings, outbox
from mailer_cli.database import Database, RunLocks
from mailer_cli.decide import Limits, decide
from mailer_cli.errors import Invalid, Refused
from mailer_cli.models import Outcome
from mailer_cli.outbox import Claimed, Counts, Demand, Verdict
from mailer_cli.times import Window
from tests.judge import as_utc
from tests.lab import AUDIT, Request
from tests.wire import FATES

NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)  # noon in Moscow; no clock is changed for weeks
SECOND = timedelta(seconds=1)
GUARD = 2 * SECOND  # as the README has it, not as the program does
BOUND = "message.id IN (SELECT message_id FROM attempt WHERE outcome IN ('unknown', 'server'))"
"""Whether some attempt may have been taken."""


@dataclass
class Flight:
    """A message that a run has claimed, and what came of its request."""

    claimed: Claimed
    fate: str | None = None


@dataclass
class Worker:
    """A process that dispatches. Without its lock the others take it for dead, although it goes on."""

    pid: int
    run: int
    locks: RunLocks
    has_lock: bool = True
    flights: list[Flight] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)

    def lose_lock(self) -> None:
        if self.has_lock:
            self.locks.close()
        self.has_lock = False


@dataclass(frozen=True)
class Told:
    """What the operator has said of a mailing."""

    start_at: datetime  # it may lie ahead once more when the clock is set back
    end_at: datetime
    text: str
    window: Window | None = None
    is_paused: bool = False
    is_stopped: bool = False  # cancelled or removed

    def is_open(self, zone: str, now: datetime) -> bool:
        """Whether a message may be claimed now: both the end and the window's closing are far enough."""
        if self.is_paused or self.is_stopped or not self.start_at <= now < self.end_at - GUARD:
            return False
        closes_in = self.closes_in(zone, now)
        return closes_in is None or closes_in > GUARD

    def closes_in(self, zone: str, now: datetime) -> timedelta | None:
        """How long the window stays open; zero when it is closed, None when there is none."""
        if self.window is None:
            return None
        local = now.astimezone(ZoneInfo(zone))
        at = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second)
        at += timedelta(microseconds=local.microsecond)
        day = timedelta(days=1)
        opened = (at - timedelta(minutes=self.window.from_minute)) % day
        length = timedelta(minutes=self.window.to_minute - self.window.from_minute) % day
        return max(length - opened, timedelta(0))


class Died(Exception):
    """The process ends before its transaction is committed."""


class World:
    """Database, clock, gateway, workers and operator."""

    def __init__(self, database: Database, blank: bytes, limits: Limits) -> None:
        """Begin anew in the file of `database`, which then holds `blank`; nobody else may have it open."""
        self.limits = limits
        self.now = NOW
        self.database = database
        database.path.write_bytes(blank)
        self._raw = sqlite3.connect(database.path, isolation_level=None)
        self._raw.execute("PRAGMA synchronous = OFF")
        self._raw.executescript(AUDIT)
        self.workers: list[Worker] = []
        self.told: dict[int, Told] = {}
        self.ledger: list[Request] = []
        self.killed: set[int] = set()  # process ids
        self.messages: set[int] = set()  # every id that was ever seen
        self.zones: dict[int, str] = {}  # of messages whose zone is fixed
        self._pids = 0
        self._held = self.database.held_open()
        held = self._held.__enter__()
        held.connection.execute("PRAGMA synchronous = OFF")  # here it is never the machine that fails

    def close(self) -> None:
        for worker in self.workers:
            worker.lose_lock()
        self._held.__exit__(None, None, None)
        self._raw.close()

    # Witness for the judge

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self._raw.execute(sql, values).fetchall()

    def accepted(self) -> Counter[int]:
        return Counter(each.id for each in self.ledger if each.accepted and each.id is not None)

    def statuses(self) -> dict[int, str]:
        return dict(self.query("SELECT id, status FROM message"))

    @contextmanager
    def transaction(self, *, dies: bool = False) -> Iterator[Connection]:
        """One of the program's transactions; `dies`: never committed."""
        with suppress(Died), self.database.write() as connection:
            yield connection
            if dies:
                raise Died

    # Processes

    def begin(self) -> Worker:
        """A process starts, as `dispatch` does: recover, expire, fix audiences."""
        self._pids += 1
        locks = RunLocks(self.database)
        with self.transaction() as connection:
            run = outbox.begin_run(connection, "here", self._pids, self.now)
            locks.take(run)
        worker = Worker(self._pids, run, locks)
        self.workers.append(worker)
        self.recover(worker)
        self.expire()
        with self.transaction() as connection:
            for mailing in connection.execute(audience.due(self.now)).scalars().all():
                audience.fix(connection, mailing, self.now)
        return worker

    def recover(self, worker: Worker, *, dies: bool = False) -> None:
        with self.transaction(dies=dies) as connection:
            found = outbox.dead_runs(connection, worker.locks.is_free)
            dead = [each for each in found if each != worker.run]
            limit = 0 if self.limits.unknowns == 1 else self.limits.unknowns
            outbox.recover(connection, dead, limit, self.now)

    def expire(self) -> None:
        with self.transaction() as connection:
            outbox.expire(connection, self.now)
        for mailing, told in self.told.items():
            if told.is_stopped or self.now >= told.end_at:
                left = "SELECT id FROM message WHERE mailing_id = ? AND status = 'pending'"
                assert self.query(left, mailing) == [], "I2: it waits although its mailing is over"

    def claim(self, worker: Worker, slots: int, *, dies: bool = False) -> None:
        """Claim, and compare with what may and must be claimed."""
        wanted, unwanted = self._claimable()
        facts = self._clients()
        with self.transaction(dies=dies) as connection:
            demand = Demand(worker.run, slots)
            batch = outbox.claim(connection, demand, worker.texts, self.now)
        taken = {each.message_id for each in batch.claimed}
        assert taken <= wanted, f"claimed, but may not go now: {taken - wanted}"
        assert len(taken) == len(batch.claimed) <= slots
        if unwanted:
            assert taken or not (wanted and slots), "passed over what may go"
        else:
            assert len(taken) == min(slots, len(wanted)), "passed over what may go"
        for each in batch.claimed:
            self._check_claimed(each, *facts[each.message_id])
        if not dies:
            worker.flights += [Flight(each) for each in batch.claimed]

    def _claimable(self) -> tuple[set[int], set[int]]:
        """Messages that may go now, and those that would if nothing kept them from their numbers."""
        rows = self.query(f"""
            SELECT message.id, mailing_id, message.timezone, due_at, status, {BOUND},
                   CASE WHEN {BOUND} THEN message.phone ELSE client.phone END, message.phone,
                   removed_at IS NOT NULL OR client.phone IN (SELECT phone FROM block)
                   OR {BOUND} AND message.phone IN (SELECT phone FROM block)
            FROM message JOIN client ON client.id = client_id
        """)
        held: dict[tuple[int, int], list[tuple[int, bool]]] = {}
        for id, mailing, _, _, status, is_bound, _, tried, _ in rows:
            if status in ("sent", "unknown", "sending") or (status == "pending" and is_bound):
                held.setdefault((mailing, tried), []).append((id, status == "pending"))
        wanted, unwanted = set[int](), set[int]()
        for id, mailing, zone, due_at, status, is_bound, number, _, is_unwanted in rows:
            told = self.told[mailing]
            if status == "pending" and as_utc(due_at) <= self.now and told.is_open(zone, self.now):
                others = [each for each in held.get((mailing, number), []) if each[0] != id]
                yields = any(not (is_bound and waits and other > id) for other, waits in others)
                (unwanted if is_unwanted or yields else wanted).add(id)
        return wanted, unwanted

    def _clients(self) -> dict[int, tuple[int | None, str, bool]]:
        """Of each message the client's phone and zone, as they are now, and whether it is bound."""
        rows = self.query(f"""
            SELECT message.id, client.phone, client.timezone, {BOUND}
            FROM message JOIN client ON client.id = client_id
        """)
        return {id: (phone, zone, bool(is_bound)) for id, phone, zone, is_bound in rows}

    def _check_claimed(self, claimed: Claimed, phone: int | None, zone: str, is_bound: bool) -> None:
        told = self.told[claimed.mailing_id]
        assert claimed.end_at == told.end_at
        assert claimed.start_at <= self.now + SECOND
        if not is_bound:  # else it repeats what an earlier one has said
            assert (claimed.phone, claimed.text) == (phone, told.text)
            closes_in = told.closes_in(zone, self.now)
            limit = told.end_at if closes_in is None else min(told.end_at, self.now + closes_in)
            assert claimed.deadline == limit

    def request(self, worker: Worker, flight: Flight, fate: str) -> None:
        """The run starts a request if it still may, and the gateway does what it does."""
        claimed = flight.claimed
        with self.database.read() as connection:
            leaves = outbox.leaves(connection, worker.run, [claimed], self.now)
        leave = leaves.get(claimed.message_id)
        if leave is None or self.now >= leave.deadline:
            fate = "not started"
        flight.fate = fate
        if fate not in ("not started", "refused"):
            told = self.told[claimed.mailing_id]
            assert self.now < told.end_at, "I7: a request after the end"
            assert not (told.is_paused or told.is_stopped), "a request of a mailing that was stopped"
            given = claimed.message_id, claimed.phone, claimed.text
            self.ledger.append(Request(self.now, *given, FATES[fate].is_taken, fate, None))

    def record(self, worker: Worker, *, again_after: int = 0, dies: bool = False) -> None:
        """Record what is over; perhaps once more after the next claim of so many: the commit came through,
        but not the news of it."""
        over = [each for each in worker.flights if each.fate is not None]
        verdicts = [self._verdict(each) for each in over]
        before = self.statuses()
        with self.transaction(dies=dies) as connection:
            changed = outbox.record(connection, worker.run, verdicts)
        if dies:
            return
        after = self.statuses()
        told = {each.message_id: str(each.status) for each in changed}
        assert len(told) == len(changed)
        assert told == {id: after[id] for id in after if after[id] != before[id]}, "I12: not what changed"
        for each in verdicts:
            is_lost = each.outcome is Outcome.OK and after[each.message_id] != "sent"
            assert not is_lost, "an OK was lost"
        worker.flights = [each for each in worker.flights if each.fate is None]
        if again_after and worker.has_lock:
            self.claim(worker, again_after)
            before = self.statuses()
            with self.transaction() as connection:
                assert outbox.record(connection, worker.run, verdicts) == []
            assert self.statuses() == before, "recording again changed something"

    def _verdict(self, flight: Flight) -> Verdict:
        assert flight.fate is not None
        return decide(flight.claimed, FATES[flight.fate].answer, self.limits, self.now, 0.5)

    def crash(self, worker: Worker) -> None:
        worker.lose_lock()
        self.killed.add(worker.pid)
        self.workers.remove(worker)

    def end(self, worker: Worker) -> None:
        """Give back what was not started, record, end."""
        for flight in worker.flights:
            flight.fate = flight.fate or "not started"
        self.record(worker)
        with self.transaction() as connection:
            outbox.end_run(connection, worker.run, Counts(), None, self.now)
        worker.lose_lock()
        self.workers.remove(worker)

    # The operator

    def say(self, word: Callable[[Connection], Any]) -> Any:
        """One command; None when the program refuses it."""
        with suppress(Refused, Invalid), self.database.write() as connection:
            return word(connection)
        return None

    def steer(self, command: Callable[..., Any], mailing: int, **means: bool) -> None:
        ids: Any = mailing if command in (mailings.remove, mailings.top_up) else [mailing]
        if self.say(lambda connection: command(connection, ids, self.now)) is not None:
            self.told[mailing] = replace(self.told[mailing], **means)

    def edit(self, mailing: int, **wanted: Any) -> None:
        edited = self.say(lambda connection: mailings.edit(connection, mailing, wanted, self.now, 1000))
        if edited is not None:
            known = {name: value for name, value in wanted.items() if name in ("end_at", "text", "window")}
            self.told[mailing] = replace(self.told[mailing], **known)


def pick(things: Sequence[Any], number: int) -> Any:
    return things[number % len(things)]
