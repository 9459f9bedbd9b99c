"""Lists and exports: each page is found by its key, sorted by nothing, and holds up nobody."""

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event

from mailer_cli import clients, csv_export, mailings, messages
from mailer_cli.database import Database
from mailer_cli.database.paging import LOOKED_AT
from mailer_cli.models import MessageStatus
from tests.rows import add_client, add_mailing, add_messages

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
PAGES = (
    "mailer_cli.clients.listing.PAGE",
    "mailer_cli.messages.listing.PAGE",
    "mailer_cli.mailings.overview.PAGE",
)

LISTS: dict[str, Callable[[Database], Iterator[object]]] = {
    "clients": lambda database: clients.listed(database, clients.Wanted()),
    "clients by tag": lambda database: clients.listed(database, clients.Wanted(tags=("",))),
    "clients blocked": lambda database: clients.listed(
        database, clients.Wanted(status=clients.ClientStatus.ACTIVE)
    ),
    "clients exported": lambda database: csv_export.Export(
        database, clients.Wanted(status=clients.ClientStatus.ACTIVE)
    ).pieces(),
    "messages": lambda database: messages.listed(database, messages.Wanted(), NOW),
    "messages of a mailing": lambda database: messages.listed(database, messages.Wanted(mailing_id=1), NOW),
    "messages by status": lambda database: messages.listed(
        database, messages.Wanted(mailing_id=1, statuses=(MessageStatus.SENT, MessageStatus.PENDING)), NOW
    ),
    "messages by tag": lambda database: messages.listed(database, messages.Wanted(tags=("",)), NOW),
    "mailings": lambda database: mailings.listed(database, NOW),
}


@pytest.fixture
def filled(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Five of each, and two on a page."""
    for each in PAGES:
        monkeypatch.setattr(each, 2)
    add_messages(database, add_mailing(database), {"sent": 3, "pending": 2})
    for _ in range(4):
        add_mailing(database)
    return database


@pytest.fixture
def asked(filled: Database) -> list[tuple[str, tuple[object, ...], list[str]]]:
    """What is asked of the database: statement, values and plan."""
    found: list[tuple[str, tuple[object, ...], list[str]]] = []

    def explain(connection: Any, cursor: sqlite3.Cursor, statement: str, given: Any, *rest: object) -> None:
        if statement.startswith("SELECT") and "LIMIT" in statement:
            plan = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", given).fetchall()
            found.append((statement, tuple(given), [row[3] for row in plan]))

    event.listen(filled.engine, "before_cursor_execute", explain)
    return found


@pytest.mark.parametrize("name", LISTS)
def test_every_page_is_found_by_its_key_and_comes_in_order(
    name: str, filled: Database, asked: list[tuple[str, tuple[object, ...], list[str]]]
) -> None:
    assert len(list(LISTS[name](filled))) >= 4
    bounds = [each for each in asked if each[1][-1] == LOOKED_AT - 1]  # how far a page may look
    asked[:] = [each for each in asked if each not in bounds]
    assert len(asked) == 3
    assert not [line for _, _, plan in bounds for line in plan if "TEMP B-TREE" in line], bounds
    for statement, given, plan in asked:
        assert not [line for line in plan if "TEMP B-TREE FOR ORDER BY" in line], plan
        assert "OFFSET" not in statement or given[-1] == 0
    for _, _, plan in asked[1:]:
        assert any("INTEGER PRIMARY KEY (rowid" in line and "<?" in line for line in plan), plan
        assert not [
            line for line in plan if line.startswith(("SCAN client", "SCAN message", "SCAN mailing"))
        ], plan


@pytest.mark.parametrize("name", LISTS)
def test_between_two_pages_others_write(name: str, filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailer_cli.database.engine.BUSY_TIMEOUT", 0)
    other = Database(filled.path)
    for number, _ in enumerate(LISTS[name](filled)):
        add_client(other, 79_990_000_000 + number)
