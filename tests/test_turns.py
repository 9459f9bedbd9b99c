"""Whose turn it is: a turn of the dispatcher costs no more however many mailings have nothing due now."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, select, text
from sqlmodel import col

from mailer_cli import audience, mailings, outbox
from mailer_cli.database import Database
from mailer_cli.idle import HAS_WORK
from mailer_cli.models import Mailing
from mailer_cli.outbox import Batch, Demand, turns, wary
from tests.judge import stored
from tests.lab import add_clients, add_mailing, new_database

NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)  # noon in Moscow
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
CLOSED = {"window_from": 60, "window_to": 120}
OTHERS = (1, 100, 3_000)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return new_database(tmp_path)


def fill(connection: Connection, messages: int = 1, **columns: Any) -> int:
    """A mailing whose audience is fixed; its id."""
    tag = f"tag {connection.exec_driver_sql('SELECT count(*) FROM mailing').scalar_one()}"
    tag = columns.get("tags", (tag,))[0]
    add_clients(connection, messages, tag=tag)
    mailing = add_mailing(connection, now=NOW, **{"tags": (tag,), "end_at": NOW + 48 * HOUR, **columns})
    assert audience.fix(connection, mailing, NOW) == messages
    return mailing


def copies(connection: Connection, mailing: int, count: int) -> None:
    """So many more like it, each with a message of its own to the same client."""
    for table, key in (("mailing", "id"), ("message", "mailing_id")):
        names = [row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({table})")]
        given = {name: name for name in names} | {key: f"{key} + number"}
        given |= {"id": "id + 1000000 + number"} if table == "message" else {}
        connection.exec_driver_sql(f"""
            WITH RECURSIVE more (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM more LIMIT {count})
            INSERT INTO {table} ({", ".join(given)}) SELECT {", ".join(given.values())} FROM {table}, more
            WHERE {key} = {mailing}
        """)
    connection.exec_driver_sql("""
        UPDATE tally SET messages = (SELECT count(*) FROM message WHERE message.mailing_id = tally.mailing_id
        AND message.status = tally.status)
    """)


def claim(connection: Connection, slots: int = 4, *, at: datetime = NOW, **demand: Any) -> Batch:
    run = outbox.begin_run(connection, "here", 1, at)
    return outbox.claim(connection, Demand(run, slots, **demand), {}, at)


@dataclass
class Cost:
    """What was executed: statements, and in them the steps of SQLite's machine, some for each row visited."""

    statements: int = 0
    steps: int = 0


@contextmanager
def counted(database: Database, connection: Connection) -> Iterator[Cost]:
    cost, raw = Cost(), connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)

    def statement(*_: Any) -> None:
        cost.statements += 1

    def step() -> None:
        cost.steps += 1

    event.listen(database.engine, "before_cursor_execute", statement)
    raw.set_progress_handler(step, 1)
    yield cost
    raw.set_progress_handler(None, 1)
    event.remove(database.engine, "before_cursor_execute", statement)


def asleep_in_a_window(connection: Connection, count: int) -> None:
    copies(connection, fill(connection, **CLOSED), count)


def asleep_for_a_repeat(connection: Connection, count: int) -> None:
    mailing = fill(connection)
    connection.execute(text("UPDATE message SET due_at = :at"), {"at": stored(NOW + 600 * SECOND)})
    claim(connection)
    copies(connection, mailing, count)


def held_by_their_rates(connection: Connection, count: int) -> None:
    mailing = fill(connection, 2, rate=0.01)
    assert len(claim(connection).claimed) == 1
    connection.exec_driver_sql("DELETE FROM attempt")
    connection.exec_driver_sql("DELETE FROM message WHERE status = 'sending'")
    copies(connection, mailing, count)


def completed(connection: Connection, count: int) -> None:
    copies(connection, fill(connection), count)
    connection.execute(text("UPDATE message SET status = 'sent', sent_at = due_at"))
    while claim(connection, 64).held_until is not None:
        pass


def ended(connection: Connection, count: int) -> None:
    copies(connection, fill(connection, end_at=NOW + HOUR), count)
    outbox.expire(connection, NOW + HOUR)


def due_too(connection: Connection, count: int) -> None:
    copies(connection, fill(connection, priority=-1), count)


def check_bound(found: list[Cost]) -> None:
    """As many statements, and hardly more steps, for thousands as for one."""
    assert len({each.statements for each in found}) == 1, found
    assert found[-1].steps < found[0].steps + 200, found


QUIET = [asleep_in_a_window, asleep_for_a_repeat, held_by_their_rates, completed, ended]


@pytest.mark.parametrize("make", [*QUIET, due_too])
def test_a_turn_costs_the_same_whoever_else_is_open(
    database: Database, make: Callable[[Connection, int], None]
) -> None:
    found = []
    for others in OTHERS:
        with database.write() as connection:
            make(connection, others)
            fill(connection, 20)
            with counted(database, connection) as cost:
                assert len(claim(connection).claimed) == 4
            connection.rollback()
        found.append(cost)
    check_bound(found)


@pytest.mark.parametrize("make", QUIET)
def test_a_turn_that_finds_nothing_costs_the_same_too(
    database: Database, make: Callable[[Connection, int], None]
) -> None:
    found = []
    for others in OTHERS:
        with database.write() as connection:
            make(connection, others)
            with counted(database, connection) as cost:
                assert not claim(connection).claimed
                outbox.may_be_due(connection, NOW)
                outbox.has_overdue(connection, NOW)
                outbox.has_ahead(connection, NOW)
                assert connection.execute(audience.due(NOW)).first() is None
                connection.exec_driver_sql(HAS_WORK, {"now": stored(NOW)})
            connection.rollback()
        found.append(cost)
    check_bound(found)


def plans_of(database: Database, act: Callable[[Connection], object]) -> list[str]:
    """The query plans of what is executed meanwhile."""
    found: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE", "WITH")):
            raw = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found.extend(f"{row[3]}  <-  {' '.join(statement.split())}" for row in raw)

    with database.write() as connection:
        for make in (*QUIET, due_too):
            make(connection, 10)
        event.listen(database.engine, "before_cursor_execute", explain)
        act(connection)
        event.remove(database.engine, "before_cursor_execute", explain)
    return found


@pytest.mark.parametrize(
    ("act", "indexes"),
    [
        (lambda connection: claim(connection, 20), ["mailing_ring", "mailing_sleepers", "message_turn"]),
        (lambda connection: outbox.may_be_due(connection, NOW), ["mailing_ring", "mailing_sleepers"]),
        (lambda connection: outbox.has_due(connection, NOW), ["mailing_ring", "mailing_sleepers"]),
        (lambda connection: outbox.has_overdue(connection, NOW), ["mailing_ends", "mailing_stopped"]),
        (lambda connection: outbox.expire(connection, NOW), ["mailing_ends", "mailing_stopped"]),
        (lambda connection: connection.execute(audience.due(NOW)), ["mailing_starts"]),
    ],
    ids=["claim", "may be due", "has due", "has overdue", "expire", "audience due"],
)
def test_nobody_scans_the_mailings(
    database: Database, act: Callable[[Connection], object], indexes: list[str]
) -> None:
    plans = plans_of(database, act)
    steps = [each.partition("<-")[0] for each in plans]
    scans = [each for each in plans if each.startswith(("SCAN mailing", "SCAN message"))]
    assert [each for each in scans if " INDEX mailing_" not in each] == []
    for index in indexes:
        assert any(f"INDEX {index} " in each for each in steps), (index, plans)


@pytest.mark.parametrize(("zone", "index"), [(None, "message_turn"), ("Europe/Moscow", "message_due")])
def test_what_a_probe_chooses_from_is_read_by_an_index_and_not_sorted(
    database: Database, monkeypatch: pytest.MonkeyPatch, zone: str | None, index: str
) -> None:
    monkeypatch.setattr(wary, "HEAD", 1)  # the rest is spread over the queue
    all_plans = plans_of(
        database, lambda connection: list(wary.sample(connection, fill(connection, 20), zone, NOW))
    )
    first = next(n for n, each in enumerate(all_plans) if "(message.due_at, message.id) >" in each)
    plans = all_plans[first:]  # what comes before has made the mailing
    assert len(plans) > 4
    assert any(f"INDEX {index} " in each for each in plans), plans
    assert [each for each in plans if each.startswith("SCAN") or "TEMP B-TREE" in each] == []


def test_the_words_of_the_indexes_are_those_of_the_models(database: Database) -> None:
    """A mailing that has its turn is found by `turns` and by `idle` in the same words."""
    with database.write() as connection:
        mailing = fill(connection)
        assert [row["id"] for row in turns.one(connection, mailing, if_awake=True)] == [mailing]
        found = connection.execute(text("SELECT id FROM mailing WHERE turn = 'now'")).scalars().all()
        assert list(found) == [mailing]
        assert col(Mailing.turn).type.python_type is str


# All at once


@pytest.mark.parametrize("word", ["pause", "resume", "cancel"])
def test_a_word_to_all_takes_as_many_statements_for_thousands_as_for_one(
    database: Database, word: str
) -> None:
    found = []
    for others in OTHERS:
        with database.write() as connection:
            copies(connection, fill(connection, **CLOSED), others)
            if word == "resume":
                mailings.pause(connection, None, NOW)
            with counted(database, connection) as cost:
                steered = getattr(mailings, word)(connection, None, NOW)
            assert len(steered) == others + 1
            connection.rollback()
        found.append(cost.statements)
    assert len(set(found)) == 1, found


def test_what_was_cancelled_leaves_nothing_to_look_at(database: Database) -> None:
    with database.write() as connection:
        copies(connection, fill(connection), 10)
        mailings.cancel(connection, None, NOW)
        assert set(connection.execute(text("SELECT turn FROM mailing")).scalars()) == {None}
        assert not outbox.may_be_due(connection, NOW)
        assert not outbox.has_overdue(connection, NOW)


# Who sleeps is woken in time


def turn_of(connection: Connection, mailing: int) -> tuple[str | None, datetime | None]:
    row = connection.execute(
        select(col(Mailing.turn), col(Mailing.next_due_at)).where(col(Mailing.id) == mailing)
    ).one()
    return row.turn, row.next_due_at


def asleep(connection: Connection, **columns: Any) -> int:
    """A mailing that a claim lets sleep until its window opens, or until its end is no longer so near."""
    mailing = fill(connection, **columns)
    assert not claim(connection).claimed
    assert turn_of(connection, mailing)[0] == "later"
    return mailing


def test_it_sleeps_to_the_opening_of_its_window_and_not_longer(database: Database) -> None:
    with database.write() as connection:
        mailing = asleep(connection, **CLOSED)
        opens_at = NOW.replace(hour=22)  # 01:00 in Moscow
        assert turn_of(connection, mailing) == ("later", opens_at)
        assert not claim(connection, at=opens_at - SECOND / 1000).claimed
        assert len(claim(connection, at=opens_at).claimed) == 1


def test_a_repeat_that_comes_back_to_a_mailing_asleep_wakes_it(database: Database) -> None:
    with database.write() as connection:
        mailing = fill(connection, 2)
        first, second = claim(connection).claimed
        assert not claim(connection).claimed
        assert turn_of(connection, mailing) == (None, None)
        for each, due_at in ((first, NOW + 60 * SECOND), (second, NOW + 9 * SECOND)):
            back = "UPDATE message SET status = 'pending', run_id = NULL, due_at = :due WHERE id = :id"
            connection.execute(text(back), {"due": stored(due_at), "id": each.message_id})
            assert not claim(connection).claimed
            assert turn_of(connection, mailing) == ("later", due_at)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE mailing SET window_from = NULL, window_to = NULL",
        "UPDATE mailing SET window_from = 660, window_to = 780",
        "UPDATE message SET timezone = 'Asia/Kamchatka'",  # 21:00 there
    ],
)
def test_what_opens_its_window_wakes_it(database: Database, change: str) -> None:
    with database.write() as connection:
        asleep(connection, window_from=20 * 60, window_to=22 * 60)
        connection.exec_driver_sql(change)
        assert len(claim(connection).claimed) == 1


def test_a_later_end_wakes_what_was_too_near_its_end(database: Database) -> None:
    with database.write() as connection:
        mailing = asleep(connection, end_at=NOW + SECOND)
        connection.execute(text("UPDATE mailing SET end_at = :at"), {"at": stored(NOW + HOUR)})
        assert [each.mailing_id for each in claim(connection).claimed] == [mailing]


def test_a_top_up_wakes_what_slept_for_others(database: Database) -> None:
    with database.write() as connection:
        mailing = fill(connection, tags=("all",))
        claim(connection)
        assert not claim(connection).claimed
        add_clients(connection, 3, tag="all")
        audience.top_up(connection, mailing, NOW)
        assert len(claim(connection).claimed) == 3


def test_a_clock_that_was_ahead_lets_nothing_sleep(database: Database) -> None:
    with database.write() as connection:
        mailing = fill(connection, window_from=11 * 60, window_to=13 * 60)
        ahead = NOW + 4 * HOUR
        assert not claim(connection, at=ahead).claimed
        assert turn_of(connection, mailing) == ("later", NOW + 23 * HOUR)
        assert outbox.has_ahead(connection, NOW)
        assert len(claim(connection, at=NOW).claimed) == 1
        assert not outbox.has_ahead(connection, NOW)


def test_what_a_rate_holds_back_is_waited_for_and_no_longer_than_it_is_due(database: Database) -> None:
    with database.write() as connection:
        mailing = fill(connection, 2, rate=0.1)
        batch = claim(connection)
        assert len(batch.claimed) == 1
        assert turn_of(connection, mailing) == ("held", batch.held_until)
        assert claim(connection, at=NOW + SECOND).held_until == batch.held_until
        connection.exec_driver_sql("UPDATE message SET status = 'cancelled' WHERE status = 'pending'")
        assert claim(connection, at=NOW + SECOND).held_until is None
        assert turn_of(connection, mailing) == (None, None)


def test_thousands_that_are_awake_in_vain_keep_nobody_from_his_turn(database: Database) -> None:
    with database.write() as connection:
        copies(connection, fill(connection, priority=9, **CLOSED), 1_000)
        wanted = fill(connection)
        connection.exec_driver_sql("UPDATE mailing SET turn = 'now'")
        for _ in range(9):
            batch = claim(connection, 2)
            if batch.claimed:
                break
            assert batch.held_until == NOW  # it is not over: look on
        assert [each.mailing_id for each in batch.claimed] == [wanted]
        assert claim(connection, 2).held_until is None


def test_more_sleepers_than_one_claim_wakes_are_all_woken(database: Database) -> None:
    with database.write() as connection:
        mailing = asleep(connection, **CLOSED)
        copies(connection, mailing, 2 * turns.WOKEN)
        later = NOW.replace(hour=22)
        batch = claim(connection, at=later)
        assert (len(batch.claimed), batch.held_until) == (4, later)
        claim(connection, at=later)
        claim(connection, at=later)
        assert set(connection.execute(text("SELECT turn FROM mailing")).scalars()) <= {"now", None}
