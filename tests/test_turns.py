"""Whose turn it is: a turn of the dispatcher costs no more however many mailings have nothing due now."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlmodel import col

from mailer_cli import audience, outbox
from mailer_cli.database import Database
from mailer_cli.idle import HAS_WORK
from mailer_cli.models import Mailing
from mailer_cli.outbox import Batch, Demand, turns
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
    add_clients(connection, messages, tag=tag)
    mailing = add_mailing(connection, now=NOW, tags=(tag,), **{"end_at": NOW + 48 * HOUR, **columns})
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


def test_the_words_of_the_indexes_are_those_of_the_models(database: Database) -> None:
    """A mailing that has its turn is found by `turns` and by `idle` in the same words."""
    with database.write() as connection:
        mailing = fill(connection)
        assert [row["id"] for row in turns.one(connection, mailing, if_awake=True)] == [mailing]
        found = connection.execute(text("SELECT id FROM mailing WHERE turn = 'now'")).scalars().all()
        assert list(found) == [mailing]
        assert col(Mailing.turn).type.python_type is str
