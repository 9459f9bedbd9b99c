"""What an operator does with mailings, from creating one to removing it."""

import io
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from mailer_cli import outbox, output
from mailer_cli.cli.common import Invocation
from mailer_cli.database import Database
from mailer_cli.errors import TryLater
from mailer_cli.mailings import status_of
from mailer_cli.models import Mailing, MessageStatus, Outcome
from mailer_cli.outbox import Verdict
from tests.conftest import Mailer

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALL = ("--all", "--end", "+2h", "--text", "Hello")


@pytest.fixture
def three(database: Database) -> Database:
    """A database with three clients: two with the tag vip, two with the code 916."""
    for number, (code, tag) in enumerate((("916", "vip"), ("916", "gold"), ("926", "vip"))):
        add_client(database, number, code, tag)
    return database


def add_client(database: Database, number: int, code: str, tag: str) -> None:
    run_sql(
        database,
        "INSERT INTO client (phone, operator_code, tag, timezone, created_at, updated_at) VALUES"
        f" ({79160000000 + number}, '{code}', '{tag}', 'Europe/Moscow', '{NOW:%F %T.%f}', '{NOW:%F %T.%f}')",
    )


def run_sql(database: Database, statement: str) -> None:
    with database.write() as connection:
        connection.execute(text(statement))


def values(database: Database, statement: str) -> list[Any]:
    with database.read() as connection:
        return [row[0] if len(row) == 1 else tuple(row) for row in connection.execute(text(statement))]


def create(mailer: Mailer, *arguments: str | int, base: Sequence[str] = ALL) -> Any:
    return mailer("mailings", "create", *base, *arguments, "--json").json


def shown(mailer: Mailer, mailing_id: int) -> Any:
    return mailer("mailings", "show", mailing_id, "--json").json


def move_end_into_the_past(database: Database, mailing_id: int) -> None:
    run_sql(
        database,
        "UPDATE mailing SET start_at = '2026-01-01 00:00:00.000000', end_at = '2026-01-02 00:00:00.000000'"
        f" WHERE id = {mailing_id}",
    )


def put(
    database: Database, mailing_id: int, client_id: int, status: str, *, reason: str | None = None
) -> None:
    """Bring a message into a state as a run would have done."""
    settings = {
        "pending": "attempts = 1",
        "sending": "attempts = 1, run_id = 1",
        "sent": "attempts = 1, sent_at = created_at",
        "failed": "attempts = 8, failures = 8",
        "unknown": "attempts = 3, unknowns = 3",
        "expired": "attempts = 0",
        "cancelled": "attempts = 0",
    }[status]
    run_sql(
        database, "INSERT OR IGNORE INTO run VALUES (1, 'h', 1, '2026-01-01', NULL, NULL, 0,0,0,0,0,0,0,0)"
    )
    why = "NULL" if reason is None else f"'{reason}'"
    run_sql(
        database,
        f"UPDATE message SET status = '{status}', reason = {why}, {settings},"
        f" phone = {79160000000 + client_id}, wording_id = 1"
        f" WHERE mailing_id = {mailing_id} AND client_id = {client_id}",
    )


def doubt(database: Database, mailing_id: int, client_id: int) -> None:
    """An attempt of this message may have been taken by the gateway."""
    run_sql(
        database,
        "INSERT INTO attempt (message_id, number, run_id, started_at, ended_at, outcome)"
        " SELECT id, 1, 1, created_at, created_at, 'unknown' FROM message"
        f" WHERE mailing_id = {mailing_id} AND client_id = {client_id}",
    )


# The status, in one place


def expected_status(
    *, fixed: bool, paused: bool, cancelled: bool, ended: bool, pending: bool, sending: bool, expired: bool
) -> str:
    """The rules as the contract words them, one sentence each, in the order of their weight."""
    never_seen_open = ended and not fixed
    not_in_time = ended and (pending or expired)
    rules = [
        (cancelled, "cancelled"),
        (never_seen_open or not_in_time, "expired"),
        (fixed and not pending and not sending, "completed"),
        (ended and sending, "running"),
        (paused, "paused"),
        (not fixed, "scheduled"),
        (True, "running"),
    ]
    return next(status for applies, status in rules if applies)


FACTS = ("fixed", "paused", "cancelled", "ended", "pending", "sending", "expired")


def test_every_combination_of_facts_has_the_status_of_the_contract() -> None:
    for chosen in product((False, True), repeat=len(FACTS)):
        facts = dict(zip(FACTS, chosen, strict=True))
        if not facts["fixed"] and (facts["pending"] or facts["sending"] or facts["expired"]):
            continue  # no messages before the audience is fixed
        assert derived_status(**facts) == expected_status(**facts), facts


def derived_status(
    *, fixed: bool, paused: bool, cancelled: bool, ended: bool, pending: bool, sending: bool, expired: bool
) -> str:
    mailing = Mailing(
        end_at=NOW if ended else NOW + timedelta(microseconds=1),
        fixed_at=NOW if fixed else None,
        paused_at=NOW if paused else None,
        cancelled_at=NOW if cancelled else None,
    )
    counts = dict.fromkeys(MessageStatus, 0)
    counts |= {
        MessageStatus.PENDING: int(pending),
        MessageStatus.SENDING: int(sending),
        MessageStatus.EXPIRED: int(expired),
    }
    return status_of(mailing, counts, NOW).value


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ((), "scheduled"),
        (("paused",), "paused"),
        (("ended",), "expired"),  # no run ever saw it open
        (("ended", "paused"), "expired"),
        (("fixed",), "completed"),  # nobody matched, or all is done before the end
        (("fixed", "paused"), "completed"),
        (("fixed", "ended"), "completed"),
        (("fixed", "ended", "expired"), "expired"),
        (("fixed", "ended", "pending"), "expired"),
        (("fixed", "ended", "sending"), "running"),  # its answer is still to come
        (("fixed", "ended", "sending", "paused"), "running"),
        (("fixed", "ended", "sending", "expired"), "expired"),
        (("fixed", "pending"), "running"),
        (("fixed", "sending"), "running"),
        (("fixed", "pending", "paused"), "paused"),
        (("fixed", "sending", "paused"), "paused"),
        (("cancelled",), "cancelled"),
        (("fixed", "sending", "cancelled"), "cancelled"),
        (("fixed", "ended", "expired", "cancelled"), "cancelled"),
    ],
)
def test_a_status_follows_from_what_happened(facts: tuple[str, ...], status: str) -> None:
    assert derived_status(**{fact: fact in facts for fact in FACTS}) == status


# Create


def test_a_mailing_inside_its_time_gets_its_messages_at_once(three: Database, mailer: Mailer) -> None:
    made = create(mailer, "--rate", "5/s", "--window", "21:00-9:00", "--priority", 3)
    assert made["status"] == "running"
    assert made["messages"] == {
        "total": 3, "pending": 3, "sending": 0, "sent": 0, "failed": 0, "unknown": 0, "expired": 0,
        "cancelled": 0,
    }  # fmt: skip
    assert made["filter"] == {"operator_codes": [], "tags": [], "all": True}
    assert made["window"] == {"from": "21:00", "to": "09:00"}
    assert (made["rate"], made["priority"], made["text"]) == (5, 3, "Hello")
    assert list(made) == [
        "id", "status", "pause_reason", "start", "end", "text", "filter", "window", "rate", "priority",
        "created_at", "updated_at", "messages",
    ]  # fmt: skip
    assert '"rate": 5,' in json.dumps(made)
    assert made["end"].endswith("Z") and len(made["end"]) == len("2026-06-01T12:00:00.000Z")


def test_it_says_how_many_when_they_go_how_to_stop_and_what_is_repeated(
    three: Database, mailer: Mailer
) -> None:
    said = mailer("mailings", "create", *ALL).out
    assert "3 messages of mailing 1 go with the next run of mailer dispatch" in said
    assert "mailer mailings pause 1" in said
    assert "repeated with the same id, at most twice" in said
    assert "MAILER_ON_UNKNOWN=hold" in said


def test_it_says_that_nothing_is_repeated_when_that_is_set(
    three: Database, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILER_ON_UNKNOWN", "hold")
    assert "never repeated" in mailer("mailings", "create", *ALL).out


def test_a_start_in_the_past_starts_now_and_one_in_the_future_waits(three: Database, mailer: Mailer) -> None:
    assert create(mailer, "--start", "2020-01-01T00:00")["status"] == "running"
    later = create(mailer, "--start", "+1h")
    assert (later["status"], later["messages"]["total"]) == ("scheduled", 0)


def test_a_mailing_created_asleep_has_no_audience_until_it_is_awake(three: Database, mailer: Mailer) -> None:
    made = create(mailer, "--paused")
    assert (made["status"], made["messages"]["total"]) == ("paused", 0)
    assert mailer("mailings", "resume", made["id"], "--json").json["status"] == "scheduled"


def test_a_filter_that_matches_nobody_makes_no_messages_and_warns(three: Database, mailer: Mailer) -> None:
    ran = mailer("mailings", "create", "--tag", "nobody", "--end", "+2h", "--text", "Hello", "--json")
    assert (ran.json["status"], ran.json["messages"]["total"]) == ("completed", 0)
    assert "warning: no client matches mailing 1 now" in ran.err
    ran = mailer("mailings", "create", "--tag", "nobody", "--end", "+2h", "--start", "+1h", "--text", "Hello")
    assert "warning: no client matches mailing 2 now" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--text", "Hi", "--end", "+1h"), "no operator code and no tag"),
        (("--text", "Hi", "--end", "+1h", "--all", "--tag", "vip"), "contradict"),
        (("--text", "Hi", "--end", "2020-01-01T00:00", "--all"), "has passed"),
        (("--text", "Hi", "--end", "2020-01-01T00:00", "--start", "2019-01-01T00:00", "--all"), "has passed"),
        (("--text", "Hi", "--end", "+1h", "--start", "+1h30m", "--all"), "not after the start"),
        (("--text", "Hi", "--end", "soon", "--all"), "--end: 'soon' is not a time"),
        (("--text", " \n", "--end", "+1h", "--all"), "text is empty"),
        (("--end", "+1h", "--all"), "there is no text"),
        (
            ("--text", "x" * 1001, "--end", "+1h", "--all"),
            "too long: 1,001 characters, allowed are 1,000 (MAILER_MAX",
        ),
        (("--text", "a\x1b[2Jb", "--end", "+1h", "--all"), "control character at place 2"),
        (("--text", "a\udcffb", "--end", "+1h", "--all"), "control character at place 2"),
        (("--text", "Hi", "--end", "+1h", "--operator-code", "9160"), "'9160' is not three digits"),
        (("--text", "Hi", "--end", "+1h", "--all", "--window", "9-21"), "--window: '9-21' is not a window"),
        (("--text", "Hi", "--end", "+1h", "--all", "--window", ""), "--window"),
        (("--text", "Hi", "--end", "+1h", "--all", "--rate", "fast"), "--rate is 'fast', allowed is"),
        (("--text", "Hi", "--end", "+1h", "--all", "--rate", ""), "--rate"),
        (("--text", "Hi", "--text-file", "f", "--end", "+1h", "--all"), "contradict"),
        (("--text-file", "nowhere", "--end", "+1h", "--all"), "cannot read nowhere"),
        (("--text", "Hi", "--end", "+1h", "--all", "--dispatch", "--paused"), "contradict"),
        (("--text", "Hi", "--end", "+2h", "--start", "+1h", "--all", "--dispatch"), "contradict"),
    ],
)
def test_a_plan_by_which_nothing_could_be_sent_is_refused(
    three: Database, mailer: Mailer, arguments: tuple[str, ...], message: str
) -> None:
    ran = mailer("mailings", "create", *arguments, code=2)
    assert message in ran.err and ran.out == ""
    assert values(three, "SELECT count(*) FROM mailing") == [0]


def test_a_text_comes_from_a_file_or_standard_input_without_its_last_line_end(
    three: Database, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("text").write_bytes("Привет,\r\n\tмир\r\n".encode())
    base = ("--all", "--end", "+2h")
    assert create(mailer, "--text-file", "text", base=base)["text"] == "Привет,\n\tмир"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped\n")))
    assert create(mailer, "--text-file", "-", base=base)["text"] == "piped"


def test_a_dry_run_shows_the_audience_and_creates_nothing(three: Database, mailer: Mailer) -> None:
    ran = mailer("mailings", "create", *ALL, "--dry-run", "--json")
    assert ran.json == {
        "audience": 3,
        "by_operator": [{"key": "916", "total": 2}, {"key": "926", "total": 1}],
        "by_timezone": [{"key": "Europe/Moscow", "total": 3}],
    }
    assert (
        "3 clients would get it now; nothing was created"
        in mailer("mailings", "create", *ALL, "--dry-run").out
    )
    mailer("mailings", "create", "--all", "--text", "", "--end", "+1h", "--dry-run", code=2)
    assert values(three, "SELECT count(*) FROM mailing") == [0]


def test_dispatch_at_once_is_refused_before_anything_is_made_when_there_is_no_token(
    three: Database, mailer: Mailer
) -> None:
    Path(".env").write_text("")
    mailer("mailings", "create", *ALL, "--dispatch", code=78)
    assert values(three, "SELECT count(*) FROM mailing") == [0]


def test_dispatch_at_once_shows_the_mailing_and_then_the_run_and_exits_like_it(
    three: Database, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_now(at: Invocation, mailing_id: int) -> output.Result:
        put(three, mailing_id, 1, "sent")
        return output.Note({}, [f"a run of {mailing_id}"], exit_code=69)

    monkeypatch.setattr("mailer_cli.cli.dispatch.run_now", run_now)
    said = mailer("mailings", "create", *ALL, "--dispatch", code=69).out
    assert said.index("3 messages of mailing 1 go now") < said.index("a run of 1")
    assert mailer("mailings", "create", *ALL, "--dispatch", "--json", code=69).json["messages"]["sent"] == 1


@pytest.mark.parametrize(("exit_code", "code"), [(69, "gateway_down"), (77, "token_refused"), (0, None)])
def test_a_dispatch_at_once_that_is_stopped_tells_scripts_why(
    exit_code: int, code: str | None, three: Database, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_now(at: Invocation, mailing_id: int) -> output.Result:
        return output.Note({}, ["a run"], exit_code=exit_code, warnings=("something",))

    monkeypatch.setattr("mailer_cli.cli.dispatch.run_now", run_now)
    ran = mailer("mailings", "create", *ALL, "--dispatch", "--json", code=exit_code)
    assert ran.json["id"] == 1
    told = [json.loads(each)["error"] for each in ran.err.splitlines() if each.startswith("{")]
    assert [(each["code"], each["message"]) for each in told] == ([(code, "something")] if code else [])


def test_a_dispatch_at_once_that_fails_still_tells_which_mailing_was_made(
    three: Database, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_now(at: Invocation, mailing_id: int) -> output.Result:
        raise TryLater("the database is locked")

    monkeypatch.setattr("mailer_cli.cli.dispatch.run_now", run_now)
    ran = mailer("mailings", "create", *ALL, "--dispatch", "--json", code=75)
    assert ran.json["id"] == 1 and ran.err.count("locked") == 1


# List and show


def test_a_list_is_newest_first_and_goes_on_after_an_id(three: Database, mailer: Mailer) -> None:
    for _ in range(4):
        create(mailer)

    def ids(*arguments: str | int) -> list[int]:
        return [each["id"] for each in mailer("mailings", "list", "--json", *arguments).json]

    assert ids() == [4, 3, 2, 1]
    assert ids("--limit", 2) == [4, 3]
    assert ids("--after", 3) == [2, 1]


def test_a_list_streams_page_by_page(three: Database, mailer: Mailer) -> None:
    create(mailer)
    names = "wording_id, start_at, end_at, operator_codes, tags, everyone, priority, created_at, updated_at"
    run_sql(
        three,
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)"
        f" INSERT INTO mailing ({names}) SELECT {names} FROM mailing, n",
    )
    run_sql(three, "UPDATE mailing SET removed_at = created_at WHERE id % 7 = 0")
    listed = [each["id"] for each in mailer("mailings", "list", "--json").json]
    assert listed == [each for each in range(1101, 0, -1) if each % 7]


def test_a_list_is_filtered_by_status_code_and_tag(three: Database, mailer: Mailer) -> None:
    base = ("--end", "+2h", "--text", "Hello")
    create(mailer, "--tag", "vip", base=base)
    create(mailer, "--tag", "vip", "--operator-code", "916", "--start", "+1h", base=base)
    create(mailer, "--operator-code", "926", "--operator-code", "916", "--paused", base=base)

    def ids(*arguments: str) -> list[int]:
        return [each["id"] for each in mailer("mailings", "list", "--json", *arguments).json]

    assert ids("--status", "running") == [1]
    assert ids("--status", "paused", "--status", "scheduled") == [3, 2]
    assert ids("--tag", " vip") == [2, 1]
    assert ids("--operator-code", "916") == [3, 2]
    assert ids("--operator-code", "916", "--tag", "vip") == [2]
    assert ids("--status", "expired") == []
    assert "scheduled, running" in mailer("mailings", "list", "--status", "open", code=2).err


def test_a_table_shows_the_text_in_one_harmless_line(
    three: Database, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ending = ("--end", "2099-01-01 12:00:30")  # the seconds take room, too
    mailer("mailings", "create", "--all", *ending, "--text", "[red]line\n\n two" + "z" * 200)
    printed = mailer("mailings", "list").out.splitlines()
    assert len(printed) == 2 and max(map(len, printed)) <= 80
    assert "[red]line …" in printed[1]


def test_a_card_shows_the_states_of_the_messages(three: Database, mailer: Mailer) -> None:
    create(mailer)
    put(three, 1, 1, "sent")
    printed = mailer("mailings", "show", 1).out
    assert "33.3%" in printed and "66.7%" in printed
    assert shown(mailer, 1)["messages"]["sent"] == 1


@pytest.mark.parametrize(
    "command", ["show", "edit", "pause", "resume", "cancel", "remove", "top-up", "retry"]
)
def test_what_is_not_there_or_was_removed_is_refused_by_every_command(
    three: Database, mailer: Mailer, command: str
) -> None:
    create(mailer)
    mailer("mailings", "remove", 1, "--yes")
    more = {"edit": ["--priority", 1], "cancel": ["--yes"], "remove": ["--yes"]}.get(command, [])
    assert "no such mailing: 7\n" in mailer("mailings", command, 7, *more, code=1).err
    assert "no such mailing: 1 was removed" in mailer("mailings", command, 1, *more, code=1).err
    mailer("mailings", command, 0, *more, code=2)
    mailer("mailings", command, 10**30, *more, code=2)


# Edit


def test_everything_about_a_scheduled_mailing_may_change(three: Database, mailer: Mailer) -> None:
    create(mailer, "--start", "+1h")
    Path("text").write_text("New\n")
    mailer("mailings", "edit", 1, "--text-file", "text", "--start", "+2h", "--end", "+3h", "--tag", "vip",
           "--window", "09:00-21:00", "--rate", "90/m", "--priority", "-2")  # fmt: skip
    now = shown(mailer, 1)
    assert (now["text"], now["rate"], now["priority"], now["status"]) == ("New", 1.5, -2, "scheduled")
    assert now["filter"] == {"operator_codes": [], "tags": ["vip"], "all": False}
    assert now["window"] == {"from": "09:00", "to": "21:00"}
    assert now["updated_at"] > now["created_at"]
    assert "warning: no client matches" in mailer("mailings", "edit", 1, "--tag", "typo").err
    now = mailer("mailings", "edit", 1, "--no-window", "--no-rate", "--all", "--json").json
    assert (now["window"], now["rate"], now["filter"]["all"]) == (None, None, True)


def test_an_edit_that_makes_a_mailing_due_leaves_the_audience_to_the_next_run(
    three: Database, mailer: Mailer
) -> None:
    create(mailer, "--start", "+1h")
    assert mailer("mailings", "edit", 1, "--start", "now", "--json").json["status"] == "scheduled"


def test_codes_and_tags_change_apart_and_each_restriction_can_be_lifted(
    three: Database, mailer: Mailer
) -> None:
    create(mailer, "--operator-code", "916", "--tag", "vip", "--start", "+1h", base=ALL[1:])

    def edited(*arguments: str) -> Any:
        return mailer("mailings", "edit", 1, *arguments, "--json").json["filter"]

    assert edited("--tag", "gold") == {"operator_codes": ["916"], "tags": ["gold"], "all": False}
    assert edited("--any-operator-code") == {"operator_codes": [], "tags": ["gold"], "all": False}
    assert "--all" in mailer("mailings", "edit", 1, "--any-tag", code=2).err
    assert edited("--all")["all"]
    mailer("mailings", "edit", 1, "--tag", "vip", "--any-tag", code=2)
    mailer("mailings", "edit", 1, "--tag", "vip", "--all", code=2)


def test_end_rate_and_priority_of_a_running_mailing_may_change(three: Database, mailer: Mailer) -> None:
    create(mailer)
    later = mailer("mailings", "edit", 1, "--end", "+5h", "--rate", "7/s", "--priority", 9, "--json").json
    assert (later["rate"], later["priority"], later["status"]) == (7, 9, "running")
    assert mailer("mailings", "edit", 1, "--end", "+1h", "--json").json["end"] < later["end"]


@pytest.mark.parametrize("option", [("--text", "New"), ("--tag", "vip"), ("--window", "09:00-21:00")])
def test_text_filter_and_window_change_only_while_it_is_paused(
    three: Database, mailer: Mailer, option: tuple[str, str]
) -> None:
    create(mailer)
    refused = mailer("mailings", "edit", 1, *option, code=1).err
    assert "only while it is paused" in refused and "hint: mailer mailings pause 1" in refused
    mailer("mailings", "pause", 1)
    mailer("mailings", "edit", 1, *option)


def test_the_start_of_a_mailing_that_has_started_cannot_change(three: Database, mailer: Mailer) -> None:
    create(mailer)
    mailer("mailings", "pause", 1)
    assert "has started" in mailer("mailings", "edit", 1, "--start", "+1h", code=1).err


def test_a_new_text_is_a_new_wording_and_what_was_tried_keeps_its_own(
    three: Database, mailer: Mailer
) -> None:
    create(mailer)
    put(three, 1, 1, "pending")
    mailer("mailings", "pause", 1)
    mailer("mailings", "edit", 1, "--text", "New")
    assert values(three, "SELECT id, text FROM wording") == [(1, "Hello"), (2, "New")]
    assert values(three, "SELECT wording_id FROM mailing") == [2]
    assert values(three, "SELECT wording_id FROM message ORDER BY client_id") == [1, None, None]


def test_an_edit_of_the_filter_cancels_and_adds_and_says_so(three: Database, mailer: Mailer) -> None:
    create(mailer, "--operator-code", "916", base=ALL[1:])
    mailer("mailings", "pause", 1)
    said = mailer("mailings", "edit", 1, "--any-operator-code", "--tag", "vip").out
    assert "messages: 1 cancelled, 1 added" in said
    assert values(three, "SELECT client_id, reason FROM message WHERE status = 'cancelled'") == [
        (2, "filter changed")
    ]


def test_a_wider_filter_brings_back_nobody_who_was_cancelled_for_another_reason(
    three: Database, mailer: Mailer
) -> None:
    create(mailer, "--operator-code", "916", base=ALL[1:])
    mailer("clients", "block", 2)
    mailer("clients", "unblock", 2)
    mailer("mailings", "pause", 1)
    mailer("mailings", "edit", 1, "--all")
    statement = "SELECT client_id, reason FROM message WHERE status = 'cancelled'"
    assert values(three, statement) == [(2, "client blocked")]


def test_a_dry_run_of_an_edit_tells_exactly_what_it_would_do_and_does_nothing(
    three: Database, mailer: Mailer
) -> None:
    create(mailer, "--operator-code", "916", base=ALL[1:])
    before = mailer("mailings", "pause", 1, "--json").json
    edit = ("mailings", "edit", 1, "--any-operator-code", "--tag", "vip", "--priority", 4)
    assert mailer(*edit, "--dry-run", "--json").json == {
        "changes": {
            "filter": [
                {"operator_codes": ["916"], "tags": [], "all": False},
                {"operator_codes": [], "tags": ["vip"], "all": False},
            ],
            "priority": [0, 4],
        },
        "cancelled": 1,
        "added": 1,
        "already_sent": 0,
    }
    assert "priority: 0 -> 4" in mailer(*edit, "--dry-run").out
    assert shown(mailer, 1) == before
    after = mailer(*edit, "--json").json["messages"]
    assert (after["cancelled"], after["pending"], after["total"]) == (1, 2, 3)


def test_an_edit_needs_something_to_change_and_a_good_value(three: Database, mailer: Mailer) -> None:
    create(mailer)
    assert "nothing to change" in mailer("mailings", "edit", 1, code=2).err
    assert "nothing changed" in mailer("mailings", "edit", 1, "--priority", 0).out
    assert "mailer mailings cancel" in mailer("mailings", "edit", 1, "--end", "2020-01-01T00:00", code=2).err
    create(mailer, "--start", "+1h")
    assert "not after the start" in mailer("mailings", "edit", 2, "--end", "+30m", code=2).err
    assert "too long" in mailer("mailings", "edit", 2, "--text", "x" * 1001, code=2).err
    mailer("mailings", "edit", 2, "--rate", "5/s", "--no-rate", code=2)


def test_a_text_limit_lowered_since_does_not_stand_in_the_way_of_a_new_priority(
    three: Database, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(mailer)
    monkeypatch.setenv("MAILER_MAX_TEXT", "3")
    mailer("mailings", "edit", 1, "--priority", 1)


def test_a_higher_rate_need_not_wait_for_what_the_lower_one_held_back(
    three: Database, mailer: Mailer
) -> None:
    create(mailer, "--rate", "1/h")
    run_sql(three, "UPDATE mailing SET next_free_at = '2100-01-01 00:00:00.000000'")
    mailer("mailings", "edit", 1, "--rate", "5/s")
    assert values(three, "SELECT next_free_at < '2090-01-01' FROM mailing") == [1]
    mailer("mailings", "edit", 1, "--no-rate")
    assert values(three, "SELECT next_free_at FROM mailing") == [None]


def test_what_is_finished_cannot_be_edited_paused_or_resumed(three: Database, mailer: Mailer) -> None:
    create(mailer, "--tag", "nobody", base=ALL[1:])  # completed
    create(mailer)
    move_end_into_the_past(three, 2)  # expired
    create(mailer)
    mailer("mailings", "pause", 3)
    mailer("mailings", "cancel", 3, "--yes")
    for mailing_id, word in ((1, "completed"), (2, "expired"), (3, "cancelled")):
        for command in (("edit", mailing_id, "--priority", 1), ("pause", mailing_id), ("resume", mailing_id)):
            assert f"mailing {mailing_id} is {word}" in mailer("mailings", *command, code=1).err
    assert "hint: mailer mailings show 2" in mailer("mailings", "resume", 2, code=1).err


def test_a_paused_mailing_whose_filter_was_narrowed_to_nobody_can_be_widened_again(
    three: Database, mailer: Mailer
) -> None:
    create(mailer)
    mailer("mailings", "pause", 1)
    assert mailer("mailings", "edit", 1, "--tag", "typo", "--json").json["status"] == "completed"
    again = mailer("mailings", "edit", 1, "--tag", "vip", "--json").json
    assert (again["status"], again["messages"]["pending"]) == ("paused", 2)


# Pause, resume, cancel, remove


def test_pause_and_resume_are_repeatable_and_print_the_mailing(three: Database, mailer: Mailer) -> None:
    create(mailer)
    paused = mailer("mailings", "pause", 1, "--json").json
    assert paused["status"] == "paused"
    assert mailer("mailings", "pause", 1, "--json").json == paused
    awake = mailer("mailings", "resume", 1, "--json").json
    assert awake["status"] == "running"
    assert mailer("mailings", "resume", 1, "--json").json == awake


def test_several_ids_or_all_give_an_array(three: Database, mailer: Mailer) -> None:
    create(mailer)
    create(mailer, "--start", "+1h")
    create(mailer, "--tag", "nobody", base=ALL[1:])  # completed, left alone by --all

    def steered(*arguments: str | int) -> list[tuple[int, str]]:
        return [(each["id"], each["status"]) for each in mailer("mailings", *arguments, "--json").json]

    assert steered("pause", 1, 2) == [(1, "paused"), (2, "paused")]
    assert steered("resume", "--all") == [(2, "scheduled"), (1, "running")]
    assert steered("pause", "--all") == [(2, "paused"), (1, "paused")]
    assert steered("cancel", "--all", "--yes") == [(2, "cancelled"), (1, "cancelled")]
    assert steered("resume", "--all") == []
    mailer("mailings", "pause", code=2)
    mailer("mailings", "pause", 1, "--all", code=2)


@pytest.mark.parametrize("command", ["pause", "resume", "cancel"])
def test_one_bad_id_and_nothing_is_done(three: Database, mailer: Mailer, command: str) -> None:
    create(mailer)
    create(mailer)
    if command == "resume":
        mailer("mailings", "pause", 1)
    before = shown(mailer, 1)
    more = ["--yes"] if command == "cancel" else []
    assert "no such mailing: 7" in mailer("mailings", command, 1, 7, 2, *more, code=1).err
    assert shown(mailer, 1) == before


def test_a_mailing_whose_end_has_passed_is_not_woken(three: Database, mailer: Mailer) -> None:
    create(mailer)
    put(three, 1, 1, "sending")
    run_sql(three, "UPDATE message SET status = 'sent', sent_at = created_at WHERE client_id > 1")
    mailer("mailings", "pause", 1)
    move_end_into_the_past(three, 1)
    assert shown(mailer, 1)["status"] == "running"  # its last answer is still to come
    assert "mailing 1 has ended" in mailer("mailings", "resume", 1, code=1).err


def test_cancelling_ends_what_waits_lets_flying_ones_land_and_hides_no_doubt(
    three: Database, mailer: Mailer
) -> None:
    create(mailer)
    put(three, 1, 1, "sending")
    put(three, 1, 2, "pending")
    doubt(three, 1, 2)
    done = mailer("mailings", "cancel", 1, "--yes", "--json").json
    assert done["status"] == "cancelled"
    assert {name: n for name, n in done["messages"].items() if n} == {
        "total": 3, "sending": 1, "unknown": 1, "cancelled": 1,
    }  # fmt: skip
    assert values(three, "SELECT DISTINCT reason FROM message WHERE status <> 'sending'") == [
        "mailing cancelled"
    ]
    assert mailer("mailings", "cancel", 1, "--json").json == done  # and asks nothing


@pytest.mark.parametrize("command", ["cancel", "remove"])
def test_ending_a_mailing_needs_a_yes_without_a_terminal(
    three: Database, mailer: Mailer, command: str
) -> None:
    create(mailer)
    assert "--yes" in mailer("mailings", command, 1, code=2).err
    assert shown(mailer, 1)["status"] == "running"


def test_a_removed_mailing_is_hidden_what_waits_is_cancelled_and_what_was_sent_stays(
    three: Database, mailer: Mailer
) -> None:
    create(mailer)
    create(mailer, "--start", "+1h")
    put(three, 1, 1, "sent")
    gone = mailer("mailings", "remove", 1, "--yes", "--json").json
    assert (gone["id"], gone["status"]) == (1, "cancelled")
    mailer("mailings", "remove", 2, "--yes")
    assert mailer("mailings", "list", "--json").json == []
    assert values(three, "SELECT status, reason FROM message ORDER BY client_id") == [
        ("sent", None), ("cancelled", "mailing removed"), ("cancelled", "mailing removed"),
    ]  # fmt: skip
    assert create(mailer)["id"] == 3  # ids are never used again


def test_what_is_in_flight_when_its_mailing_is_removed_finishes_and_is_counted(
    three: Database, mailer: Mailer
) -> None:
    create(mailer)
    for client_id, status in ((1, "sending"), (2, "sent")):
        put(three, 1, client_id, status)
    run_sql(
        three,
        "INSERT INTO attempt (message_id, number, run_id, started_at)"
        " SELECT id, 1, 1, created_at FROM message WHERE status = 'sending'",
    )
    in_flight = values(three, "SELECT * FROM message WHERE status = 'sending'")
    assert mailer("mailings", "remove", 1, "--yes", "--json").json["messages"]["sending"] == 1
    assert values(three, "SELECT * FROM message WHERE status = 'sending'") == in_flight
    assert values(three, "SELECT outcome FROM attempt") == [None]
    with three.write() as connection:
        took = Verdict(in_flight[0][0], 1, Outcome.OK, NOW, MessageStatus.SENT, NOW)
        assert outbox.record(connection, 1, [took]) == [took]
    totals = mailer("stats", "--json").json
    assert (totals["mailings"]["total"], totals["messages"]["by_status"]["sent"]) == (0, 2)
    assert totals["messages"]["by_status"]["cancelled"] == 1


# More clients, another try


def test_a_top_up_adds_who_joined_later_and_wakes_a_completed_mailing(
    three: Database, mailer: Mailer
) -> None:
    create(mailer, "--tag", "vip", base=ALL[1:])
    for client_id in (1, 3):
        put(three, 1, client_id, "sent")
    assert shown(mailer, 1)["status"] == "completed"
    add_client(three, 7, "999", "vip")
    add_client(three, 8, "999", "gold")
    assert "1 message added" in mailer("mailings", "top-up", 1).out
    again = mailer("mailings", "top-up", 1, "--json").json
    assert (again["status"], again["messages"]["total"], again["messages"]["pending"]) == ("running", 3, 1)


def test_a_top_up_needs_an_audience_and_time(three: Database, mailer: Mailer) -> None:
    create(mailer, "--start", "+1h")
    assert "no audience yet" in mailer("mailings", "top-up", 1, code=1).err
    create(mailer)
    move_end_into_the_past(three, 2)
    assert "mailing 2 has ended" in mailer("mailings", "top-up", 2, code=1).err
    create(mailer)
    mailer("mailings", "cancel", 3, "--yes")
    assert "mailing 3 is cancelled" in mailer("mailings", "top-up", 3, code=1).err


def test_a_retry_gives_failed_messages_back_by_reason(three: Database, mailer: Mailer) -> None:
    create(mailer)
    put(three, 1, 1, "failed", reason="rejected (422)")
    put(three, 1, 2, "failed", reason="code 3")
    put(three, 1, 3, "unknown")
    ran = mailer("mailings", "retry", 1, "--reason", "code 3", "--json")
    assert (ran.json["status"], ran.json["messages"]["pending"], ran.json["messages"]["failed"]) == (
        "running",
        1,
        1,
    )
    assert ran.err == ""
    assert "1 failed message will be tried again" in mailer("mailings", "retry", 1).out
    assert "no such failed messages" in mailer("mailings", "retry", 1).out


def test_a_retry_of_unknown_ones_warns_that_it_may_deliver_again(three: Database, mailer: Mailer) -> None:
    create(mailer)
    put(three, 1, 1, "unknown")
    ran = mailer("mailings", "retry", 1, "--status", "unknown", "--json")
    assert "may be delivered again" in ran.err
    assert ran.json["messages"]["unknown"] == 0
    mailer("mailings", "retry", 1, "--status", "sent", code=2)


def test_a_retry_passes_over_clients_who_were_removed_or_blocked_since(
    three: Database, mailer: Mailer
) -> None:
    create(mailer)
    for client_id in (1, 2, 3):
        put(three, 1, client_id, "failed")
    run_sql(three, "UPDATE client SET phone = NULL, removed_at = updated_at WHERE id = 1")
    run_sql(three, "INSERT INTO block SELECT phone, created_at FROM client WHERE id = 2")
    mailer("mailings", "retry", 1)
    assert values(three, "SELECT client_id FROM message WHERE status = 'pending'") == [3]


def test_a_retry_needs_a_mailing_that_is_still_open(three: Database, mailer: Mailer) -> None:
    create(mailer)
    put(three, 1, 1, "failed")
    move_end_into_the_past(three, 1)
    assert "mailing 1 has ended" in mailer("mailings", "retry", 1, code=1).err
    create(mailer)
    mailer("mailings", "cancel", 2, "--yes")
    assert "mailing 2 is cancelled" in mailer("mailings", "retry", 2, code=1).err
