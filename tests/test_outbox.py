"""The queue by itself: its functions on a real SQLite file, with the clock in our hand."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert, select, update
from sqlmodel import col

from mailer_cli import audience, outbox
from mailer_cli.database import Database
from mailer_cli.decide import Limits, decide
from mailer_cli.gateway import Answer
from mailer_cli.models import Attempt, Block, Client, Mailing, Message, MessageStatus, Outcome, Run, Wording
from mailer_cli.outbox import Batch, Claimed, Demand, Verdict
from mailer_cli.outbox.close import Closed
from mailer_cli.outbox.pace import MARGIN
from tests.lab import add_clients, add_mailing, new_database

NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)  # noon in Moscow
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
LIMITS = Limits(failures=8, unknowns=3)
OK = Answer(Outcome.OK, http_status=200, code=0)
LOST = Answer(Outcome.UNKNOWN, "read timeout")
AWAY = Answer(Outcome.TEMPORARY, "code 1", 200, 1)
DOWN = Answer(Outcome.UNKNOWN, "http 500", 500)


@dataclass
class Queue:
    """The functions of the outbox with what they need filled in."""

    connection: Connection
    texts: dict[int, str] = field(default_factory=dict)

    def fill(self, messages: int = 1, *, zone: str = "Europe/Moscow", **columns: Any) -> int:
        """A mailing whose audience is fixed; its id."""
        tag = f"tag {self.connection.exec_driver_sql('SELECT count(*) FROM mailing').scalar_one()}"
        add_clients(self.connection, messages, zone=zone, tag=tag)
        mailing = add_mailing(self.connection, now=NOW, tags=(tag,), **columns)
        assert audience.fix(self.connection, mailing, NOW) == messages
        return mailing

    def run(self) -> int:
        return outbox.begin_run(self.connection, "here", 1, NOW)

    def batch(self, run: int, slots: int = 64, *, at: datetime = NOW, **demand: Any) -> Batch:
        return outbox.claim(self.connection, Demand(run, slots, **demand), self.texts, at)

    def claim(self, run: int, slots: int = 64, *, at: datetime = NOW, **demand: Any) -> list[Claimed]:
        return list(self.batch(run, slots, at=at, **demand).claimed)

    def record(self, run: int, claimed: Claimed, answer: Answer, *, at: datetime = NOW) -> list[Verdict]:
        return outbox.record(self.connection, run, [decide(claimed, answer, LIMITS, at, 0.5)])

    def bury(self, *runs: int, max_unknown: int = 3) -> tuple[int, int]:
        return outbox.recover(self.connection, runs, max_unknown, NOW)

    def message(self, message_id: int | None = None) -> Any:
        statement = select(*Message.__table__.columns)  # type: ignore[attr-defined]
        if message_id is not None:
            statement = statement.where(col(Message.id) == message_id)
        return self.connection.execute(statement).one()

    def statuses(self) -> list[str]:
        return list(self.connection.execute(select(col(Message.status)).order_by(col(Message.id))).scalars())

    def outcomes(self) -> list[str | None]:
        found = select(col(Attempt.outcome)).order_by(col(Attempt.message_id), col(Attempt.number))
        return list(self.connection.execute(found).scalars())

    def change(self, mailing: int, **columns: Any) -> None:
        self.connection.execute(update(Mailing).where(col(Mailing.id) == mailing).values(columns))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return new_database(tmp_path)


@pytest.fixture
def queue(database: Database) -> Iterator[Queue]:
    with database.write() as connection:
        yield Queue(connection)


# Claiming


def test_a_claim_writes_its_intent_before_anything_is_sent(queue: Queue) -> None:
    queue.fill()
    run = queue.run()
    (claimed,) = queue.claim(run)
    row = queue.message()
    assert (row.status, row.run_id, row.attempts, queue.outcomes()) == ("sending", run, 1, [None])
    assert (claimed.phone, claimed.text, claimed.attempt) == (row.phone, "Привет! 50 % off", 1)


def test_a_claim_takes_as_many_as_there_are_slots(queue: Queue) -> None:
    queue.fill(10)
    run = queue.run()
    assert len(queue.claim(run, 3)) == 3
    assert queue.claim(run, 0) == []
    assert len(queue.claim(run, 64)) == 7
    assert queue.claim(run, 64) == []


def test_two_runs_never_claim_the_same_message(queue: Queue) -> None:
    queue.fill(10)
    first = {each.message_id for each in queue.claim(queue.run(), 6)}
    second = {each.message_id for each in queue.claim(queue.run(), 6)}
    assert (len(first), len(second), first & second) == (6, 4, set())


def test_the_first_attempt_fixes_phone_and_text_for_all_repeats(queue: Queue) -> None:
    mailing = queue.fill()
    run = queue.run()
    (first,) = queue.claim(run)
    queue.record(run, first, LOST)
    wording = insert(Wording).values(text="another").returning(col(Wording.id))
    queue.change(mailing, wording_id=queue.connection.execute(wording).scalar_one())
    queue.connection.execute(update(Client).values(phone=79_999_999_999))
    (second,) = queue.claim(run, at=NOW + HOUR / 2)
    assert (second.phone, second.text, second.attempt) == (first.phone, first.text, 2)


@pytest.mark.parametrize("column", ["paused_at", "cancelled_at", "removed_at"])
def test_nothing_is_claimed_of_a_mailing_that_was_stopped(queue: Queue, column: str) -> None:
    mailing = queue.fill()
    queue.change(mailing, **{column: NOW})
    assert queue.claim(queue.run()) == []
    assert not outbox.has_due(queue.connection, NOW)


@pytest.mark.parametrize(
    ("left", "count"), [(timedelta(0), 0), (-SECOND, 0), (2 * SECOND, 0), (2.1 * SECOND, 1)]
)
def test_nothing_is_claimed_within_the_guard_before_the_end(
    queue: Queue, left: timedelta, count: int
) -> None:
    queue.change(queue.fill(), end_at=NOW + left)
    assert len(queue.claim(queue.run())) == count


def test_nothing_is_claimed_before_it_is_due(queue: Queue) -> None:
    queue.fill()
    run = queue.run()
    (claimed,) = queue.claim(run)
    queue.record(run, claimed, AWAY)
    due_at = NOW + 2 * SECOND
    assert queue.claim(run, at=due_at - timedelta(microseconds=1)) == []
    assert len(queue.claim(run, at=due_at)) == 1


def test_only_the_mailing_asked_for_is_claimed(queue: Queue) -> None:
    queue.fill(3)
    wanted = queue.fill(3)
    assert {each.mailing_id for each in queue.claim(queue.run(), only=wanted)} == {wanted}


def test_a_phone_on_the_stop_list_is_cancelled_in_the_claim(queue: Queue) -> None:
    queue.fill(2)
    phones = select(col(Client.phone)).order_by(col(Client.id))
    blocked = queue.connection.execute(phones).scalars().first()
    queue.connection.execute(insert(Block).values(phone=blocked, blocked_at=NOW))
    assert [each.phone for each in queue.claim(queue.run())] != [blocked]
    assert queue.statuses() == ["cancelled", "sending"]


def test_a_claim_that_meets_only_blocked_phones_goes_on_to_the_others(queue: Queue) -> None:
    queue.fill(30)
    phones = queue.connection.execute(select(col(Client.phone)).order_by(col(Client.id))).scalars().all()
    for phone in phones[:20]:
        queue.connection.execute(insert(Block).values(phone=phone, blocked_at=NOW))
    (claimed,) = queue.claim(queue.run(), 1)
    assert claimed.phone == phones[20]


def test_a_repeat_to_a_client_who_was_removed_is_cancelled_in_the_claim(queue: Queue) -> None:
    queue.fill()
    run = queue.run()
    (claimed,) = queue.claim(run)
    queue.connection.execute(update(Client).values(phone=None, removed_at=NOW))
    queue.record(run, claimed, AWAY)
    assert queue.claim(run, at=NOW + MINUTE) == []
    row = queue.message()
    assert (row.status, row.reason) == ("cancelled", "client removed")


# Order


def test_the_higher_priority_goes_first(queue: Queue) -> None:
    low, high = queue.fill(5, priority=0), queue.fill(5, priority=9)
    assert [each.mailing_id for each in queue.claim(queue.run(), 7)] == [high] * 5 + [low] * 2


def test_mailings_take_turns_so_that_a_big_one_starves_nobody(queue: Queue) -> None:
    big, small = queue.fill(100), queue.fill(4)
    taken = [each.mailing_id for each in queue.claim(queue.run(), 10)]
    assert (taken.count(big), taken.count(small)) == (6, 4)


def test_the_turn_goes_on_after_the_mailing_that_was_served_last(queue: Queue) -> None:
    mailings = [queue.fill(5) for _ in range(3)]
    run, after, served = queue.run(), 0, []
    for _ in range(6):
        batch = queue.batch(run, 1, after=after)
        after = batch.served
        served += [each.mailing_id for each in batch.claimed]
    assert served == mailings * 2


def test_the_window_that_closes_first_goes_first(queue: Queue) -> None:
    # 09:00 UTC: 12:00 in Moscow, 14:30 in Kolkata, 18:30 in Adelaide, 02:00 in Los Angeles
    mailing = queue.fill(2, window_from=9 * 60, window_to=21 * 60)
    for zone in ("Asia/Kolkata", "Australia/Adelaide", "America/Los_Angeles"):
        add_clients(queue.connection, 2, zone=zone, tag="tag 0")
    audience.top_up(queue.connection, mailing, NOW)
    run = queue.run()
    zones = [
        {queue.message(each.message_id).timezone for each in queue.claim(run, slots)} for slots in (2, 2, 9)
    ]
    assert zones == [{"Australia/Adelaide"}, {"Asia/Kolkata"}, {"Europe/Moscow"}]


def test_nobody_is_claimed_whose_window_closes_within_the_guard(queue: Queue) -> None:
    queue.fill(window_from=9 * 60, window_to=12 * 60 + 1)
    run = queue.run()
    assert queue.claim(run, at=NOW + 58 * SECOND) == []
    (claimed,) = queue.claim(run, at=NOW + 57 * SECOND)
    assert claimed.deadline == NOW + MINUTE


# The rate


def test_the_rate_spaces_the_starts_and_claims_no_more_than_it_lets_go(queue: Queue) -> None:
    queue.fill(100)
    batch = queue.batch(queue.run(), 64, rate=100.0)
    starts = [each.start_at for each in batch.claimed]
    gaps = {after - before for before, after in itertools.pairwise(starts)}
    assert gaps == {timedelta(seconds=MARGIN / 100)}
    assert len(starts) <= 6  # a stall of the commit makes no more than these late
    assert batch.held_until is not None
    assert NOW < batch.held_until <= NOW + timedelta(milliseconds=20)


def test_all_runs_share_one_rate(queue: Queue) -> None:
    queue.fill(100)
    first, second = queue.claim(queue.run(), rate=100.0), queue.claim(queue.run(), rate=100.0)
    assert len(first) + len(second) <= 7
    assert not second or second[0].start_at > first[-1].start_at


def test_a_mailings_own_rate_holds_back_that_mailing_alone(queue: Queue) -> None:
    slow, fast = queue.fill(20, rate=1.0), queue.fill(20)
    taken = [each.mailing_id for each in queue.claim(queue.run())]
    assert (taken.count(slow), taken.count(fast)) == (1, 20)


# Recording


@pytest.mark.parametrize(
    ("answer", "status", "failures", "unknowns"),
    [
        (OK, "sent", 0, 0),
        (AWAY, "pending", 1, 0),
        (DOWN, "pending", 0, 1),
        (LOST, "pending", 0, 1),
        (Answer(Outcome.REJECTED, "http 400", 400), "failed", 1, 0),
        (Answer(Outcome.NOT_SENT, "refused"), "pending", 0, 0),
        (Answer(Outcome.BUSY, "http 429", 429, retry_after=1), "pending", 0, 0),
        (Answer(Outcome.CONFIG, "http 401", 401), "pending", 0, 0),
        (Answer(Outcome.RELEASED, "not started"), "pending", 0, 0),
    ],
)
def test_each_outcome_moves_its_own_counter_alone(
    queue: Queue, answer: Answer, status: str, failures: int, unknowns: int
) -> None:
    queue.fill()
    run = queue.run()
    (claimed,) = queue.claim(run)
    assert [each.status for each in queue.record(run, claimed, answer)] == [status]
    row = queue.message()
    assert (row.status, row.failures, row.unknowns, row.run_id) == (status, failures, unknowns, None)
    assert queue.outcomes() == [answer.outcome]


def test_recording_twice_changes_nothing_more(queue: Queue) -> None:
    queue.fill()
    run = queue.run()
    (claimed,) = queue.claim(run)
    queue.record(run, claimed, AWAY)
    before = queue.message()
    assert queue.record(run, claimed, AWAY) == []
    assert queue.message() == before


def test_a_verdict_on_an_attempt_that_was_given_up_is_fenced(queue: Queue) -> None:
    queue.fill()
    dead, alive = queue.run(), queue.run()
    (old,) = queue.claim(dead)
    queue.bury(dead)
    (new,) = queue.claim(alive)
    before = queue.message()
    for answer in (AWAY, DOWN, LOST, Answer(Outcome.REJECTED, "http 400", 400)):
        assert queue.record(dead, old, answer) == []
    assert queue.message() == before
    assert queue.record(alive, new, OK)[0].attempt == 2


def test_a_verdict_on_an_earlier_attempt_of_the_same_run_is_fenced(queue: Queue) -> None:
    queue.fill()
    run = queue.run()
    (first,) = queue.claim(run)
    queue.record(run, first, Answer(Outcome.NOT_SENT, "refused"))
    queue.claim(run)
    assert queue.record(run, first, Answer(Outcome.REJECTED, "http 400", 400)) == []
    assert queue.statuses() == ["sending"]


def test_a_late_ok_counts_although_the_attempt_was_given_up(queue: Queue) -> None:
    queue.fill()
    dead = queue.run()
    (claimed,) = queue.claim(dead)
    queue.bury(dead)
    assert [each.status for each in queue.record(dead, claimed, OK)] == ["sent"]
    row = queue.message()
    assert (row.status, row.unknowns, row.sent_at) == ("sent", 1, NOW)
    assert queue.outcomes() == [Outcome.LATE_OK]


def test_two_attempts_of_one_message_that_finish_at_once_are_kept_apart(queue: Queue) -> None:
    queue.fill()
    run = queue.run()
    (first,) = queue.claim(run)
    queue.bury(run)  # it was taken for dead, and goes on
    (second,) = queue.claim(run)
    both = [decide(each, OK, LIMITS, NOW, 0.5) for each in (first, second)]
    changed = outbox.record(queue.connection, run, both)
    assert [each.attempt for each in changed] == [2]
    assert queue.outcomes() == [Outcome.LATE_OK, Outcome.OK]
    assert queue.statuses() == ["sent"]


def test_a_late_ok_counts_while_another_run_repeats_the_message(queue: Queue) -> None:
    queue.fill()
    dead, alive = queue.run(), queue.run()
    (old,) = queue.claim(dead)
    queue.bury(dead)
    (new,) = queue.claim(alive)
    queue.record(dead, old, OK)
    assert queue.statuses() == ["sent"]
    assert queue.record(alive, new, LOST) == []
    row = queue.message()
    assert (row.status, row.unknowns, queue.outcomes()) == ("sent", 2, ["late_ok", "unknown"])


@pytest.mark.parametrize("status", ["failed", "unknown", "expired", "cancelled"])
def test_a_late_ok_counts_whatever_the_message_has_become(queue: Queue, status: str) -> None:
    queue.fill()
    dead = queue.run()
    (claimed,) = queue.claim(dead)
    queue.bury(dead)
    queue.connection.execute(update(Message).values(status=status))
    assert len(queue.record(dead, claimed, OK)) == 1
    assert queue.statuses() == ["sent"]


def test_what_comes_back_to_a_cancelled_mailing_is_swept_up(queue: Queue) -> None:
    mailing = queue.fill(2)
    run = queue.run()
    gone, doubtful = queue.claim(run)
    queue.change(mailing, cancelled_at=NOW)
    queue.record(run, gone, Answer(Outcome.NOT_SENT, "refused"))
    queue.record(run, doubtful, DOWN)
    assert outbox.has_overdue(queue.connection, NOW)
    outbox.expire(queue.connection, NOW)
    assert sorted(queue.statuses()) == ["cancelled", "unknown"]
    assert not outbox.has_overdue(queue.connection, NOW)


# Recovering


def test_what_a_dead_run_owned_is_unknown_and_due_at_once(queue: Queue) -> None:
    queue.fill(3)
    dead, alive = queue.run(), queue.run()
    queue.claim(dead)
    assert queue.bury(dead) == (3, 0)
    assert queue.outcomes() == [Outcome.UNKNOWN] * 3
    again = queue.claim(alive)
    assert [(each.attempt, each.unknowns, each.doubtful) for each in again] == [(2, 1, True)] * 3


def test_a_third_unknown_fate_is_the_last(queue: Queue) -> None:
    queue.fill()
    for _ in range(2):
        run = queue.run()
        queue.claim(run)
        assert queue.bury(run) == (1, 0)
    run = queue.run()
    queue.claim(run)
    assert queue.bury(run) == (0, 1)
    assert queue.statuses() == ["unknown"]


def test_hold_gives_an_unknown_fate_no_second_attempt(queue: Queue) -> None:
    queue.fill()
    run = queue.run()
    queue.claim(run)
    assert queue.bury(run, max_unknown=0) == (0, 1)


def test_recovering_twice_changes_nothing_more(queue: Queue) -> None:
    queue.fill(3)
    run = queue.run()
    queue.claim(run)
    queue.bury(run)
    before = queue.message(queue.claim(queue.run(), 1)[0].message_id)
    assert queue.bury(run) == (0, 0)
    assert queue.message(before.id) == before


def test_recovering_takes_nothing_of_the_living(queue: Queue) -> None:
    queue.fill(6)
    dead, alive = queue.run(), queue.run()
    queue.claim(dead, 3)
    mine = {each.message_id for each in queue.claim(alive, 3)}
    assert outbox.dead_runs(queue.connection, lambda run: run == dead) == [dead]
    queue.bury(dead)
    owned = select(col(Message.id)).where(col(Message.run_id) == alive)
    assert set(queue.connection.execute(owned).scalars()) == mine
    assert queue.outcomes().count(None) == 3


def test_a_run_that_ended_and_owes_nothing_is_not_dead(queue: Queue) -> None:
    run = queue.run()
    outbox.end_run(queue.connection, run, outbox.Counts(), None, NOW)
    assert outbox.dead_runs(queue.connection, lambda _: True) == []


def test_a_dead_run_is_marked_so(queue: Queue) -> None:
    run = queue.run()
    queue.bury(run)
    row = queue.connection.execute(select(col(Run.ended_at), col(Run.stopped))).one()
    assert tuple(row) == (NOW, "died")


# Ends


def test_what_waits_at_the_end_expires(queue: Queue) -> None:
    queue.fill(2, end_at=NOW + MINUTE)
    assert outbox.expire(queue.connection, NOW + MINUTE - SECOND).ended == 0
    assert outbox.expire(queue.connection, NOW + MINUTE).ended == 2
    assert outbox.expire(queue.connection, NOW + MINUTE).ended == 0
    assert queue.statuses() == ["expired"] * 2


@pytest.mark.parametrize("answer", [LOST, DOWN])
@pytest.mark.parametrize("ending", ["expire", "cancel"])
def test_an_end_hides_no_unknown_fate(queue: Queue, answer: Answer, ending: str) -> None:
    queue.fill(2, end_at=NOW + MINUTE)
    run = queue.run()
    (claimed,) = queue.claim(run, 1)
    queue.record(run, claimed, answer)
    if ending == "expire":
        assert outbox.expire(queue.connection, NOW + MINUTE) == Closed(ended=1, unknown=1)
        assert queue.statuses() == ["unknown", "expired"]
    else:
        assert outbox.cancel(queue.connection, col(Message.id) > 0, "mailing cancelled") == 2
        assert queue.statuses() == ["unknown", "cancelled"]


def test_what_is_in_flight_at_the_end_is_left_to_its_run(queue: Queue) -> None:
    queue.fill(end_at=NOW + MINUTE)
    run = queue.run()
    (claimed,) = queue.claim(run)
    assert outbox.expire(queue.connection, NOW + HOUR).ended == 0
    assert outbox.cancel(queue.connection, col(Message.id) > 0, "mailing cancelled") == 0
    queue.record(run, claimed, OK)
    assert queue.statuses() == ["sent"]


def test_waiting_messages_follow_their_clients_zone_until_the_first_attempt(queue: Queue) -> None:
    queue.fill(2)
    run = queue.run()
    (tried,) = queue.claim(run, 1)
    queue.record(run, tried, LOST)
    queue.connection.execute(update(Client).values(timezone="Asia/Omsk"))
    clients = queue.connection.execute(select(col(Client.id))).scalars().all()
    assert outbox.follow_zones(queue.connection, clients) == 1
    assert queue.message(tried.message_id).timezone == "Europe/Moscow"


# The operator's word


def test_a_retry_gives_fresh_limits_and_forgets_nothing(queue: Queue) -> None:
    mailing = queue.fill()
    for _ in range(3):
        run = queue.run()
        queue.claim(run)
        queue.bury(run)
    assert outbox.retry(queue.connection, mailing, [MessageStatus.UNKNOWN], None, NOW).again == 1
    (claimed,) = queue.claim(queue.run())
    assert (claimed.attempt, claimed.unknowns, claimed.doubtful) == (4, 0, True)
    assert queue.message().unknowns == 3


@pytest.mark.parametrize(
    ("outcome", "status", "zone"),
    [
        (Outcome.REJECTED, MessageStatus.FAILED, "Asia/Omsk"),
        (Outcome.UNKNOWN, MessageStatus.UNKNOWN, "Europe/Moscow"),
    ],
)
def test_a_retry_follows_the_clients_zone_unless_the_message_may_have_been_taken(
    queue: Queue, outcome: Outcome, status: MessageStatus, zone: str
) -> None:
    mailing, run = queue.fill(), queue.run()
    (claimed,) = queue.claim(run)
    verdict = decide(claimed, Answer(outcome, "so"), Limits(1, 1), NOW, 0.5)
    outbox.record(queue.connection, run, [verdict])
    queue.connection.execute(update(Client).values(timezone="Asia/Omsk"))
    assert outbox.follow_zones(queue.connection, select(col(Client.id)).scalar_subquery()) == 0
    assert outbox.retry(queue.connection, mailing, [status], None, NOW).again == 1
    assert queue.message().timezone == zone


def test_a_retry_takes_only_the_status_and_the_reason_asked_for(queue: Queue) -> None:
    mailing = queue.fill(2)
    run = queue.run()
    first, second = queue.claim(run)
    queue.record(run, first, Answer(Outcome.REJECTED, "http 400", 400))
    queue.record(run, second, Answer(Outcome.REJECTED, "http 422", 422))
    statuses = [MessageStatus.FAILED]
    assert outbox.retry(queue.connection, mailing, [MessageStatus.UNKNOWN], None, NOW).again == 0
    assert outbox.retry(queue.connection, mailing, statuses, "http 422", NOW).again == 1
    assert queue.statuses() == ["failed", "pending"]


@pytest.mark.parametrize("word", [MessageStatus.SENT, MessageStatus.FAILED])
def test_the_operator_settles_an_unknown_fate_once(queue: Queue, word: MessageStatus) -> None:
    queue.fill()
    run = queue.run()
    queue.claim(run)
    queue.bury(run, max_unknown=0)
    message = queue.message().id
    assert outbox.resolve(queue.connection, message, word, NOW) == 1
    assert outbox.resolve(queue.connection, message, word, NOW) == 0
    assert queue.statuses() == [word]


# What a claim costs


@pytest.fixture
def plans(database: Database, queue: Queue) -> Iterator[list[str]]:
    """The query plans of what is executed in the test."""
    found: list[str] = []
    engine: Engine = database.engine

    def explain(
        connection: Connection, cursor: Any, statement: str, parameters: Any, _: Any, many: bool
    ) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE", "WITH")):
            values = parameters[0] if many else parameters
            raw = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            found.extend(f"{row[3]}  <-  {' '.join(statement.split())}" for row in raw)

    event.listen(engine, "before_cursor_execute", explain)
    yield found
    event.remove(engine, "before_cursor_execute", explain)


def _steps(plans: Sequence[str], *words: str) -> list[str]:
    return [each for each in plans if all(word in each.partition("<-")[0] for word in words)]


@pytest.mark.parametrize(("window", "index"), [({}, "message_turn"), ({"window_from": 0}, "message_due")])
def test_a_claim_walks_its_index_and_scans_no_messages(
    queue: Queue, plans: list[str], window: dict[str, int], index: str
) -> None:
    queue.fill(50, **(window and window | {"window_to": 1439}))
    queue.claim(queue.run())
    assert _steps(plans, f"INDEX {index}")
    assert _steps(plans, "SCAN message") == []
    assert _steps(plans, "SCAN attempt") == []
    assert [each for each in _steps(plans, "TEMP B-TREE") if "FROM message" in each] == []


def test_recording_and_recovery_scan_no_messages(queue: Queue, plans: list[str]) -> None:
    queue.fill(50)
    dead, alive = queue.run(), queue.run()
    queue.claim(dead, 5)
    for each in queue.claim(alive, 5):
        queue.record(alive, each, OK)
    plans.clear()
    outbox.dead_runs(queue.connection, lambda run: run == dead)
    queue.bury(dead)
    assert _steps(plans, "INDEX attempt_open")
    assert _steps(plans, "SCAN message") == []
    assert _steps(plans, "SCAN attempt") == [] or all(
        "attempt_open" in each for each in _steps(plans, "SCAN attempt")
    )


def test_asking_whether_anything_is_due_or_overdue_scans_no_messages(queue: Queue, plans: list[str]) -> None:
    queue.fill(50)
    plans.clear()
    outbox.has_due(queue.connection, NOW)
    outbox.has_overdue(queue.connection, NOW)
    outbox.expire(queue.connection, NOW + 2 * HOUR)
    assert _steps(plans, "SCAN message") == []
