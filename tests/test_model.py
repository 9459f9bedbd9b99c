"""The queue as a state machine: whatever runs, gateway, clock and operator do, in any order, the promises of
docs/design.md hold after every step. `MAILER_EXAMPLES=500` looks longer."""

import os
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from mailer_cli import clients, mailings, outbox
from mailer_cli.audience import Filter
from mailer_cli.clients import Given
from mailer_cli.database import Database
from mailer_cli.decide import Limits
from mailer_cli.mailings import Plan
from mailer_cli.models import MessageStatus
from mailer_cli.times import Window
from tests import lab, promises
from tests.wire import FATES
from tests.world import SECOND, Told, Worker, World, pick

EXAMPLES = int(os.environ.get("MAILER_EXAMPLES", "60"))
BATCH = 10  # after so many new worlds Hypothesis would vary old ones, with less in them
IS_LONG = EXAMPLES > 100
SHRINKS = os.environ.get("MAILER_SHRINK") != "no"
FIRST_PHONE = 79_160_000_000
ZONES = ("Europe/Moscow", "Asia/Omsk", "UTC")
WINDOWS = (None, None, None, Window(9 * 60, 21 * 60), Window(22 * 60, 6 * 60), Window(11 * 60, 12 * 60 + 1))
UNSURE = sorted(name for name, fate in FATES.items() if not fate.is_sure)
ANSWERS = (*FATES, *UNSURE, *["ok"] * 6)
AFTERWARDS = (
    *(["records"] * 6 + ["records twice"] * 3 + ["waits"] * 3 + ["is taken for dead, and buried"] * 3),
    *("is taken for dead", "ends", "recovers", "dies"),
    *("dies in the claim", "dies while it records", "dies while it recovers"),
)
STEERING: dict[str, dict[str, bool]] = {
    "pause": {"is_paused": True},
    "resume": {"is_paused": False},
    "cancel": {"is_stopped": True},
    "remove": {"is_stopped": True},
    "top_up": {},
}
OPERATOR = (
    *("create", "create", "create", "pause", "resume", "resume", "resume", "top_up", "cancel", "remove"),
    *("end", "end", "text", "window", "some", "all", "all", "retry", "retry", "resolve", "restore"),
)
CLIENT_WORDS = (
    *("phone", "phone", "phone", "zone", "zone", "block", "unblock", "unblock", "remove", "add"),
    *("swap", "swap", "again", "again"),
)
SECONDS = (1, 1, 60, 60, 60, 900, 900, 3500, -3600, -86400, 86400)
LEFT = (-1, 0, 0.001, 1, 1, 2, 2.001, 4)
luck = st.integers(0, 2**64 - 1)


class Queue(RuleBasedStateMachine):
    """One world after the other; each begins with two mailings to six clients.

    Hypothesis chooses the steps, and for each a number from which everything else about it is drawn: its
    own draws repeat themselves so much that a world hardly gets anywhere.
    """

    def __init__(self, database: Database, blank: bytes) -> None:
        super().__init__()
        self.database, self.blank = database, blank
        self.phones = iter(range(FIRST_PHONE, FIRST_PHONE + 1000))
        self.clients: list[int] = []
        self.lucks: Counter[int] = Counter()

    def draw(self, number: int) -> Random:
        """Chance for one step. The same number has another meaning when it comes again."""
        self.lucks[number] += 1
        return Random(f"{number} {self.lucks[number]}")

    @initialize(number=luck)
    def begin_the_world(self, number: int) -> None:
        chance = self.draw(number)
        limits = Limits(chance.choice((1, 2, 3)), chance.choice((1, 2, 3, 3)))
        self.world = World(self.database, self.blank, limits)
        for place in range(6):
            self.add_client(pick(ZONES, place), "ab"[place % 2])
        self.create_mailing(7200, None, False)
        self.create_mailing(200_000, chance.choice(WINDOWS[2:]), False)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if sys.exc_info()[0] is None:  # what is broken already needs no end
                self.end_the_world()
        finally:
            self.world.close()

    def end_the_world(self) -> None:
        """The late tell what they know, a run finds a gateway in good health, then everybody dies and every
        mailing ends. One run later every message has its final state."""
        world = self.world
        for worker in world.workers:
            world.record(worker)
            self.promises_hold()
        world.now += timedelta(hours=1)
        self.send_everything()
        for worker in list(world.workers):
            world.crash(worker)
        self.send_everything()
        world.now = max([world.now, *(each.end_at for each in world.told.values())])
        world.begin()
        assert world.query("SELECT id FROM message WHERE status IN ('pending', 'sending')") == []
        assert world.query("SELECT message_id FROM attempt WHERE outcome IS NULL") == []
        self.promises_hold()

    def send_everything(self) -> None:
        worker = self.world.begin()
        self.world.claim(worker, 64)
        for flight in worker.flights:
            self.world.request(worker, flight, "ok")
        self.world.record(worker)
        self.promises_hold()

    # Processes

    @rule(number=luck)
    def work(self, number: int) -> None:
        """A run that is there, or a new one, claims; requests come to something; some of it is recorded."""
        chance = self.draw(number)
        living = [each for each in self.world.workers if each.has_lock]
        if len(self.world.workers) < 3 and (not living or chance.random() < 0.3):
            living = [self.world.begin()]
        if not living:
            return self.go_on(number)
        worker, then = chance.choice(living), chance.choice(AFTERWARDS)
        self.world.now += chance.choice((0, 0, 3, 9, 60)) * SECOND
        self.world.claim(worker, chance.randint(1, 3), dies=then == "dies in the claim")
        self.promises_hold()
        self.requests(worker, chance)
        return self.afterwards(worker, then, chance)

    @rule(number=luck)
    def more_work(self, number: int) -> None:
        self.work(number)

    @rule(number=luck)
    def go_on(self, number: int) -> None:
        """Answers come, late ones too, and what is known is recorded."""
        if self.world.workers:
            chance = self.draw(number)
            worker = chance.choice(self.world.workers)
            self.requests(worker, chance)
            self.afterwards(worker, chance.choice(AFTERWARDS), chance)

    def requests(self, worker: Worker, chance: Random) -> None:
        likely = chance.choice((0.3, 0.9, 1))
        for flight in worker.flights:
            if flight.fate is None and chance.random() < likely:
                self.world.request(worker, flight, chance.choice(ANSWERS))

    def afterwards(self, worker: Worker, then: str, chance: Random) -> None:
        world = self.world
        match then:
            case "records":
                world.record(worker)
            case "records twice":
                world.record(worker, again_after=3)
            case "ends":
                world.end(worker)
            case "is taken for dead" | "is taken for dead, and buried":
                worker.lose_lock()  # as if the file had been unlinked; it goes on
                world.killed.add(worker.pid)
            case "recovers":
                if worker.has_lock:
                    world.recover(worker)
            case "dies while it records":
                world.record(worker, dies=True)
            case "dies while it recovers":
                if worker.has_lock:
                    world.recover(worker, dies=True)
        if then.startswith("dies"):
            world.crash(worker)
        if then.endswith("buried"):
            self.world.claim(self.world.begin(), chance.choice((0, 9)))

    # Time

    @rule(number=luck)
    def the_clock_moves(self, number: int) -> None:
        """By so many seconds, or to shortly before an end or the closing of a window; then all runs look
        what there is."""
        chance = self.draw(number)
        waiting = "SELECT DISTINCT mailing_id, timezone FROM message WHERE status = 'pending'"
        mailing, zone = chance.choice(self.world.query(waiting) or [(next(iter(self.world.told)), "UTC")])
        told = self.world.told[mailing]
        closes_in = told.closes_in(zone, self.world.now)
        if closes_in and chance.random() < 0.5:
            self.world.now += closes_in - chance.choice(LEFT) * SECOND
        elif chance.random() < 0.4:
            self.world.now = told.end_at - chance.choice(LEFT) * SECOND
        else:
            self.world.now += chance.choice(SECONDS) * SECOND
        self.world.expire()
        for worker in [each for each in self.world.workers if each.has_lock]:
            self.world.claim(worker, chance.choice((1, 9)))

    # The operator

    @rule(number=luck)
    def the_operator_speaks(self, number: int) -> None:
        chance = self.draw(number)
        word, mailing = chance.choice(OPERATOR), chance.choice(list(self.world.told))
        if word == "create":
            if len(self.world.told) < 4:
                seconds = chance.choice((3600, 90, 3, 200_000))
                self.create_mailing(seconds, chance.choice(WINDOWS), chance.random() < 0.2)
        elif word in STEERING:
            self.world.steer(getattr(mailings, word), mailing, **STEERING[word])
            if self.world.workers:  # one of them comes back from its requests
                self.requests(worker := chance.choice(self.world.workers), chance)
                self.afterwards(worker, chance.choice(("waits", "records", "records twice")), chance)
        elif word in ("retry", "resolve"):
            self.a_word_on_messages(word, mailing, chance)
        elif word == "restore":
            self.a_backup_of_this_moment_is_put_back(keep_pending=chance.random() < 0.5)
        else:
            self.edit(mailing, word, chance)

    def create_mailing(self, seconds: int, window: Window | None, is_paused: bool) -> None:
        now, end_at = self.world.now, self.world.now + seconds * SECOND
        plan = Plan(f"Text {len(self.world.told)}", now, end_at, Filter(), window)
        mailing = self.world.say(
            lambda connection: mailings.create(connection, plan, paused=is_paused, now=now, max_text=100)
        )
        self.world.told[mailing] = Told(plan.start_at, end_at, plan.text, window, is_paused)

    def edit(self, mailing: int, word: str, chance: Random) -> None:
        """All but the end may change only in a pause."""
        wanted: dict[str, dict[str, Any]] = {
            "end": {"end_at": self.world.now + chance.choice((600, 7200, 3, 0.1)) * SECOND},
            "text": {"text": f"Edited {chance.random()}"},
            "window": {"window": chance.choice(WINDOWS)},
            "some": {"tags": [chance.choice("ab")]},
            "all": {"everyone": True},
        }
        if word == "end":
            self.world.edit(mailing, **wanted[word])
            return
        self.world.steer(mailings.pause, mailing, is_paused=True)
        self.world.edit(mailing, **wanted[word])
        self.world.steer(mailings.resume, mailing, is_paused=False)

    def a_word_on_messages(self, word: str, mailing: int, chance: Random) -> None:
        """Retry what failed and what is unknown of a mailing, or settle one."""
        now, unknown = self.world.now, [id for id, one in self.world.statuses().items() if one == "unknown"]
        if word == "retry":
            for status in (MessageStatus.FAILED, MessageStatus.UNKNOWN):
                self.world.say(lambda to, status=status: mailings.retry(to, mailing, status, None, now))
        elif unknown:
            message, said = chance.choice(unknown), chance.choice((MessageStatus.SENT, MessageStatus.FAILED))
            self.world.say(lambda connection: outbox.resolve(connection, message, said, now))

    def a_backup_of_this_moment_is_put_back(self, *, keep_pending: bool) -> None:
        """Nobody is alive then, or it would be refused."""
        for worker in [each for each in self.world.workers if each.has_lock]:
            self.world.crash(worker)
        now = self.world.now
        self.world.say(lambda connection: outbox.after_restore(connection, now, keep_pending=keep_pending))
        for (mailing,) in self.world.query("SELECT id FROM mailing WHERE paused_at IS NOT NULL"):
            self.world.told[mailing] = replace(self.world.told[mailing], is_paused=True)

    # Clients

    def add_client(self, zone: str, tag: str, phone: int | None = None) -> None:
        number, now = phone or next(self.phones), self.world.now
        given = Given(tag=tag, timezone=zone)
        entry = self.world.say(lambda connection: clients.add(connection, number, given, "UTC", now))
        self.clients.append(entry.id)

    @rule(number=luck)
    def a_client_changes(self, number: int) -> None:
        chance, now, world = self.draw(number), self.world.now, self.world
        client, word = chance.choice(self.clients), chance.choice(CLIENT_WORDS)
        if word == "add":
            self.add_client(chance.choice(ZONES), chance.choice("ab"))
        elif word == "swap":
            self.swap_phones(chance)
        elif word == "again":
            self.join_again(chance)
        elif word == "remove":
            world.say(lambda connection: clients.remove(connection, client, now))
        elif word == "unblock":
            phones = {row[0] for row in world.query("SELECT phone FROM block")}
            world.say(lambda connection: clients.unblock(connection, phones))
        elif word in ("phone", "zone"):
            phone, zone = next(self.phones), chance.choice(ZONES)
            given = Given(phone=phone) if word == "phone" else Given(timezone=zone)
            world.say(lambda connection: clients.edit(connection, client, given, now))
        else:
            found = world.query("SELECT phone FROM client WHERE id = ? AND phone IS NOT NULL", client)
            phones = {row[0] for row in found}
            world.say(lambda connection: clients.block(connection, phones, now))

    def phone_of(self, client: int) -> int | None:
        return self.world.query("SELECT phone FROM client WHERE id = ?", client)[0][0]

    def change_phone(self, client: int, phone: int) -> None:
        given, now = Given(phone=phone), self.world.now
        self.world.say(lambda connection: clients.edit(connection, client, given, now))

    def client_with(
        self, statuses: str, chance: Random, mailing: int | None = None
    ) -> tuple[int, int] | None:
        """A mailing, and a client who is there and has a message of it in such a state."""
        found = self.world.query(f"""
            SELECT mailing_id, client.id FROM message JOIN client ON client.id = client_id
            WHERE status IN ({statuses}) AND client.phone IS NOT NULL
            AND mailing_id = coalesce({mailing or "NULL"}, mailing_id)
        """)
        return chance.choice(found) if found else None

    def swap_phones(self, chance: Random) -> None:
        """Between one who has got a mailing, or may have, and one whose message waits; then a run comes."""
        worker = self.world.begin()
        self.world.claim(worker, 1)
        self.requests(worker, chance)
        self.world.record(worker)
        if had := self.client_with("'sent', 'unknown', 'sending'", chance):
            mailing, one = had
            if waits := self.client_with("'pending'", chance, mailing):
                its, other, others = self.phone_of(one), waits[1], self.phone_of(waits[1])
                assert its and others
                self.change_phone(one, next(self.phones))
                self.change_phone(other, its)
                self.change_phone(one, others)
                self.world.claim(self.world.begin(), 9)

    def join_again(self, chance: Random) -> None:
        """Somebody who got a mailing is removed, and added with the phone that he had; and topped up."""
        if had := self.client_with("'sent', 'unknown', 'pending', 'sending'", chance):
            mailing, client = had
            phone, now = self.phone_of(client), self.world.now
            self.world.say(lambda connection: clients.remove(connection, client, now))
            self.add_client(chance.choice(ZONES), chance.choice("ab"), phone)
            self.world.steer(mailings.top_up, mailing)

    # What must be true after every step

    @invariant()
    def promises_hold(self) -> None:
        if hasattr(self, "world"):
            promises.check(self.world)


@pytest.mark.timeout(0 if IS_LONG else 120)
def test_the_promises_hold_whatever_happens_in_whatever_order(tmp_path: Path) -> None:
    database = lab.new_database(tmp_path)
    blank = database.path.read_bytes()
    for batch in range(-(-EXAMPLES // BATCH)):
        factory = seed(batch)(lambda: Queue(database, blank))
        run_machine(
            factory,
            settings=settings(
                max_examples=BATCH,
                stateful_step_count=60 if IS_LONG else 30,
                database=None,
                deadline=None,
                report_multiple_bugs=False,
                phases=[Phase.generate, *([Phase.shrink] if SHRINKS else [])],
                suppress_health_check=list(HealthCheck),
            ),
        )
