"""`mailer messages`: lists that stream, what happened to a message, and an operator's word."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from mailer_cli import messages
from mailer_cli.database import Database
from mailer_cli.messages import listing
from tests.conftest import Mailer
from tests.rows import NOON, add_attempt, add_client, add_mailing, add_message, add_messages


def ids(listed: list[dict[str, Any]]) -> list[int]:
    return [each["id"] for each in listed]


def test_a_message_has_exactly_the_promised_attributes(mailer: Mailer, database: Database) -> None:
    mailing, client = add_mailing(database), add_client(database, 79161234567)
    message = add_message(database, mailing, client, "sent", sent_at=NOON + timedelta(hours=1))
    assert mailer("messages", "list", "--json").json == [
        {
            "id": message,
            "mailing_id": mailing,
            "client_id": client,
            "phone": "79161234567",
            "status": "sent",
            "reason": None,
            "attempts": 0,
            "created_at": "2026-01-05T12:00:00.000Z",
            "due_at": "2026-01-05T12:00:00.000Z",
            "sent_at": "2026-01-05T13:00:00.000Z",
        }
    ]


def test_an_empty_list_says_so(mailer: Mailer, database: Database) -> None:
    assert mailer("messages", "list").out == "no messages found\n"
    assert mailer("messages", "list", "--json").json == []


def test_the_phone_is_that_of_the_first_attempt_whatever_the_client_has_now(
    mailer: Mailer, database: Database
) -> None:
    mailing, client = add_mailing(database), add_client(database, 79160000001)
    tried = {"phone": 79160000009, "wording_id": 1, "attempts": 1}
    message = add_message(database, mailing, client, "failed", **tried)
    assert mailer("messages", "show", message, "--json").json["phone"] == "79160000009"


def test_a_message_of_a_removed_client_that_was_never_tried_has_no_phone(
    mailer: Mailer, database: Database
) -> None:
    client = add_client(database, 79160000001)
    message = add_message(database, add_mailing(database), client, "cancelled", reason="client removed")
    with database.write() as connection:
        connection.execute(text("UPDATE client SET phone = NULL, removed_at = '2026-01-05 12:00:00.000000'"))
    assert mailer("messages", "show", message, "--json").json["phone"] is None
    assert "none: the client was removed" in mailer("messages", "show", message).out


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 9])
def test_pages_join_without_gap_or_repeat(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(listing, "PAGE", 3)
    made = add_messages(database, add_mailing(database), {"pending": 7})[::-1]
    assert ids(mailer("messages", "list", "--json").json) == made
    assert ids(mailer("messages", "list", "--limit", limit, "--json").json) == made[:limit]
    assert ids(mailer("messages", "list", "--after", made[1], "--json").json) == made[2:]


def test_a_list_reads_no_more_than_it_is_asked_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    add_messages(database, add_mailing(database), {"pending": 6})
    begun: list[str] = []
    event.listen(database.engine, "begin", lambda _: begun.append("begin"))
    found = messages.listed(database, messages.Wanted(), NOON)
    next(found)
    assert len(begun) == 2  # what is wanted, and one page


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--mailing", 1], [1, 2]),
        (["--mailing", 1, "--client", 2], [2]),
        (["--client", 1], [1, 3]),
        (["--status", "failed"], [2]),
        (["--status", "failed", "--status", "SENT"], [2, 3]),
        (["--operator-code", "903"], [2]),
        (["--operator-code", "903", "--operator-code", "916"], [1, 2, 3]),
        (["--tag", "vip"], [1, 3]),
        (["--tag", "vip", "--status", "sent"], [3]),
        (["--reason", "HTTP 400"], [2]),
        (["--reason", "HTTP"], []),
        (["--phone", "8 (916) 000-00-01"], [1]),
        (["--phone", "79260000007"], [3]),
    ],
)
def test_a_list_shows_what_is_asked_for(
    mailer: Mailer, database: Database, options: list[str | int], expected: list[int]
) -> None:
    first, second = add_mailing(database), add_mailing(database)
    one, two = add_client(database, 79160000001, tag="vip"), add_client(database, 79030000002)
    add_message(database, first, one)
    add_message(database, first, two, "failed", reason="HTTP 400")
    add_message(database, second, one, "sent", phone=79260000007, wording_id=1, attempts=1)
    assert sorted(ids(mailer("messages", "list", *options, "--json").json)) == expected


@pytest.mark.parametrize(
    ("options", "code", "error"),
    [
        (["--mailing", 9], 1, "no such mailing: 9"),
        (["--client", 9], 1, "no such client: 9"),
        (["--status", "gone"], 2, "--status"),
        (["--phone", "12"], 2, "phone"),
        (["--limit", 0], 2, "--limit"),
    ],
)
def test_a_list_of_what_is_not_there_is_one_line(
    mailer: Mailer, database: Database, options: list[str | int], code: int, error: str
) -> None:
    ran = mailer("messages", "list", *options, code=code)
    lines = ran.err.splitlines()
    assert (ran.out, lines[0].startswith("error: ")) == ("", True)
    assert error in lines[0]
    assert [each[:6] for each in lines[1:]] in (["hint: "], [])


@pytest.mark.parametrize(
    ("wanted", "plan"),
    [
        (messages.Wanted(), "SCAN message"),  # by key, from its newest end
        (messages.Wanted(mailing_id=1), "SEARCH message USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (
            messages.Wanted(client_id=1),
            "SEARCH message USING INDEX sqlite_autoindex_message_1 (mailing_id=? AND client_id=?)",
        ),
    ],
)
def test_a_page_is_found_by_an_index_and_sorts_no_mailing(
    database: Database, wanted: messages.Wanted, plan: str
) -> None:
    add_messages(database, add_mailing(database), {"pending": 1})
    statements: list[tuple[str, Any]] = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2:4]))
    list(messages.listed(database, wanted, NOON))
    statement, parameters = statements[-1]
    with database.read() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        steps = [row[3] for row in rows]
    assert plan in steps
    assert wanted.client_id or not [each for each in steps if "TEMP B-TREE" in each]


def test_show_tells_every_attempt_in_order(mailer: Mailer, database: Database) -> None:
    client = add_client(database, 79160000001)
    tried = {"phone": 79160000001, "wording_id": 1, "attempts": 2, "unknowns": 1}
    message = add_message(database, add_mailing(database, text="Привет [/x]"), client, "failed", **tried)
    later = NOON + timedelta(seconds=2)
    add_attempt(database, message, 2, started_at=later, ended_at=later, outcome="rejected", http_status=400)
    add_attempt(database, message, 1, ended_at=NOON, outcome="unknown", error="read timed out")
    found = mailer("messages", "show", message, "--json").json
    assert found["history"] == [
        {
            "attempt": 1,
            "started_at": "2026-01-05T12:00:00.000Z",
            "ended_at": "2026-01-05T12:00:00.000Z",
            "outcome": "unknown",
            "http_status": None,
            "code": None,
            "error": "read timed out",
        },
        {
            "attempt": 2,
            "started_at": "2026-01-05T12:00:02.000Z",
            "ended_at": "2026-01-05T12:00:02.000Z",
            "outcome": "rejected",
            "http_status": 400,
            "code": None,
            "error": None,
        },
    ]
    out = mailer("messages", "show", message).out
    assert "Привет [/x]" in out
    assert "read timed out" in out


def test_an_attempt_in_flight_has_no_end(mailer: Mailer, database: Database) -> None:
    tried = {"phone": 79160000001, "wording_id": 1, "attempts": 1}
    message = add_message(
        database, add_mailing(database), add_client(database, 79160000001), "sending", **tried
    )
    add_attempt(database, message, 1)
    (event_,) = mailer("messages", "show", message, "--json").json["history"]
    assert (event_["ended_at"], event_["outcome"]) == (None, None)
    assert "in flight" in mailer("messages", "show", message).out


def test_the_text_is_the_one_that_was_sent_though_the_mailing_has_another_now(
    mailer: Mailer, database: Database
) -> None:
    old, mailing = add_mailing(database, text="old"), add_mailing(database, text="new")
    tried = {"phone": 79160000001, "wording_id": old, "attempts": 1}
    sent = add_message(database, mailing, add_client(database, 79160000001), "sent", **tried)
    waiting = add_message(database, mailing, add_client(database, 79160000002))
    assert "text      old\n" in mailer("messages", "show", sent).out
    assert "text      new\n" in mailer("messages", "show", waiting).out


@pytest.mark.parametrize("status", ["sent", "failed"])
def test_an_operators_word_settles_an_unknown_message_and_stays_in_its_history(
    mailer: Mailer, database: Database, status: str
) -> None:
    (message,) = add_messages(database, add_mailing(database), {"unknown": 1})
    before = datetime.now(UTC) - timedelta(seconds=1)
    printed = mailer("messages", "resolve", message, "--as", status, "--json").json
    shown = mailer("messages", "show", message, "--json").json
    (word,) = shown.pop("history")
    assert shown.pop("text") == "Hello"
    assert printed == shown
    assert (shown["status"], shown["sent_at"] is not None) == (status, status == "sent")
    assert (word["attempt"], word["outcome"], word["http_status"]) == (None, f"resolved {status}", None)
    assert datetime.fromisoformat(word["started_at"]) >= before
    assert mailer("stats", "--json").json["messages"]["by_status"][status] == 1


def test_several_messages_are_resolved_all_or_none(mailer: Mailer, database: Database) -> None:
    first, second, sent = add_messages(database, add_mailing(database), {"unknown": 2, "sent": 1})
    ran = mailer("messages", "resolve", first, sent, "--as", "failed", code=1)
    assert ran.err == (
        f"error: message {sent} is sent, only an unknown one can be resolved\n"
        f"hint: mailer messages show {sent}\n"
    )
    assert mailer("messages", "show", first, "--json").json["status"] == "unknown"
    done = mailer("messages", "resolve", first, second, first, "--as", "failed", "--json").json
    assert [(each["id"], each["status"]) for each in done] == [(first, "failed"), (second, "failed")]


@pytest.mark.parametrize("command", [["show", 5], ["resolve", 5, "--as", "sent"]])
def test_a_message_that_does_not_exist_is_refused(
    mailer: Mailer, database: Database, command: list[str | int]
) -> None:
    ran = mailer("messages", *command, code=1)
    assert (ran.out, ran.err) == ("", "error: no such message: 5\nhint: mailer messages list\n")
