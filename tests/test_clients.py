"""Clients as an operator handles them: add, list, show, edit, remove, block, unblock."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select
from sqlmodel import col

from mailer_cli import audience, clients
from mailer_cli.database import Database
from mailer_cli.errors import Invalid
from mailer_cli.models import Mailing, Message, Wording
from tests.conftest import Mailer

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PHONE = "79161234567"
OTHER = "79031234567"


def mail_everybody(database: Database) -> int:
    """A running mailing whose audience is all clients; its id."""
    with database.write() as connection:
        wording = connection.execute(insert(Wording).values(text="Hello")).lastrowid
        times = {"start_at": NOW, "end_at": NOW + timedelta(days=1), "created_at": NOW, "updated_at": NOW}
        given = {"wording_id": wording, "operator_codes": (), "tags": (), "everyone": True, "priority": 0}
        mailing: int = connection.execute(insert(Mailing).values(**times, **given)).lastrowid
        audience.fix(connection, mailing, NOW)
    return mailing


def messages(database: Database) -> list[tuple[Any, ...]]:
    columns = (col(Message.client_id), col(Message.status), col(Message.reason), col(Message.timezone))
    with database.read() as connection:
        return [tuple(row) for row in connection.execute(select(*columns).order_by(col(Message.id)))]


@pytest.fixture
def two(mailer: Mailer, database: Database) -> Mailer:
    """Client 1 is PHONE in Moscow with the tag vip, client 2 is OTHER in Omsk."""
    mailer("clients", "add", "--phone", PHONE, "--tag", "vip", "--timezone", "Europe/Moscow")
    mailer("clients", "add", "--phone", OTHER, "--timezone", "Asia/Omsk")
    return mailer


# adding


def test_a_client_is_added_with_what_was_given(mailer: Mailer, database: Database) -> None:
    options = ["--phone", PHONE, "--operator-code", "999", "--tag", " vip ", "--timezone", "+0300"]
    found = mailer("clients", "add", *options, "--json").json
    assert list(found) == [
        "id", "phone", "operator_code", "tag", "timezone", "created_at", "updated_at", "status",
    ]  # fmt: skip
    assert found["created_at"] == found["updated_at"] and found["created_at"].endswith("Z")
    del found["created_at"], found["updated_at"]
    given = {"id": 1, "phone": PHONE, "operator_code": "999", "tag": "vip", "timezone": "+03:00"}
    assert found == given | {"status": "active"}


def test_a_client_gets_the_code_of_the_phone_and_the_configured_zone(
    mailer: Mailer, database: Database
) -> None:
    found = mailer("clients", "add", "--phone", PHONE, "--json").json
    assert (found["operator_code"], found["tag"], found["timezone"]) == ("916", "", "Europe/Moscow")


@pytest.mark.parametrize(
    "written",
    [
        "+79161234567",
        "89161234567",
        "8 (916) 123-45-67",
        "+7 916 123.45.67",
        "7\u00a0[916]\u2011123‑45–67 ",
        "\u202a+7\u200b9161234567\u202c\ufeff",
        "'79161234567",
        "\u2019+7 916 123-45-67",
        '="79161234567"',
        '="\u200e8 916 123 45 67"',
        "79161234567.0",
        "79161234567,00",
        "79 161 234 567.00",
        "79\u00a0161\u00a0234\u00a0567",
    ],
)
def test_a_phone_is_stored_in_one_shape_however_it_is_written(written: str) -> None:
    assert clients.parse_phone(written) == int(PHONE)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("7916123456", "has 10 digits instead of 11"),
        ("791612345678", "has 12 digits instead of 11"),
        ("9161234567", "has 10 digits instead of 11"),
        ("69161234567", "does not begin with 7"),
        ("+89161234567", "begins with +8 instead of +7"),
        ("7916123456x", "has other characters than digits"),
        ("７９１６１２３４５６７", "has other characters than digits"),
        ("7_9161234567", "has other characters than digits"),
        ("7,91612E+10", "is a number that a spreadsheet has made of it"),
        ("7916123456.0", "is a number that a spreadsheet has made of it"),
        ("791612345.00", "is a number that a spreadsheet has made of it"),
        ("791 612 345.00", "is a number that a spreadsheet has made of it"),
        ("791,612,345.00", "is a number that a spreadsheet has made of it"),
        ("791612345,00", "has other characters than digits"),
        ("7.91612345670", "is a number that a spreadsheet has made of it"),
        ("79161234567.5", "is a number that a spreadsheet has made of it"),
        ("1", "has 1 digit instead of 11"),
        ("''79161234567", "has other characters than digits"),
        (" ", "is empty"),
    ],
)
def test_a_phone_of_another_shape_is_refused_with_the_reason(
    written: str, reason: str, mailer: Mailer, database: Database
) -> None:
    ran = mailer("clients", "add", "--phone", written, code=2)
    assert ran.err.startswith("error: phone ") and reason in ran.err.splitlines()[0]
    assert ran.err.count("\n") == 2 and ran.out == ""


@given(st.integers(0, 10**10 - 1), st.data())
def test_separators_between_the_digits_change_nothing(number: int, data: st.DataObject) -> None:
    digits = f"{data.draw(st.sampled_from(['7', '+7', '8']))}{number:010}"
    written = "".join(each + data.draw(st.text(" ()-.", max_size=2)) for each in digits)
    if written.count(".") != 1:
        assert clients.parse_phone(written) == 70_000_000_000 + number


@given(st.text(max_size=15))
def test_any_text_is_a_phone_of_eleven_digits_or_is_refused(text: str) -> None:
    try:
        assert 70_000_000_000 <= clients.parse_phone(text) <= 79_999_999_999
    except Invalid as error:
        assert error.message.startswith("phone ")


@pytest.mark.parametrize("tag", ["a\x1b[31mb", "a\nb", "a\tb", "a\x00b", "a\u2028b"])
def test_a_tag_with_control_characters_is_refused(tag: str, mailer: Mailer, database: Database) -> None:
    ran = mailer("clients", "add", "--phone", PHONE, "--tag", tag, code=2)
    assert "has control characters" in ran.err and ran.err.isprintable() is False
    assert "\x1b" not in ran.err


def test_two_spellings_of_one_letter_are_one_tag(mailer: Mailer, database: Database) -> None:
    mailer("clients", "add", "--phone", PHONE, "--tag", "спящии\u0306")
    assert mailer("clients", "list", "--tag", "спящий", "--json").json[0]["tag"] == "спящий"


@pytest.mark.parametrize(
    ("option", "value"), [("--operator-code", "91"), ("--operator-code", "9x6"), ("--timezone", "Mars/Base")]
)
def test_a_bad_attribute_is_wrong_usage(option: str, value: str, mailer: Mailer, database: Database) -> None:
    ran = mailer("clients", "add", "--phone", PHONE, option, value, code=2)
    assert value in ran.err
    assert mailer("clients", "list", "--json").json == []


def test_a_zone_with_an_inverted_sign_is_taken_with_a_warning(mailer: Mailer, database: Database) -> None:
    ran = mailer("clients", "add", "--phone", PHONE, "--timezone", "Etc/GMT+3", "--json")
    assert ran.json["timezone"] == "Etc/GMT+3"
    assert ran.err.startswith("warning: Etc/GMT+3 is -03:00")


def test_a_phone_belongs_to_one_client(two: Mailer) -> None:
    for refused in (
        two("clients", "add", "--phone", f"+{PHONE}", code=1),
        two("clients", "edit", "2", "--phone", PHONE, code=1),
    ):
        assert refused.err == "error: this phone is that of client 1\nhint: mailer clients edit 1\n"


# listing


def test_a_list_is_newest_first_and_goes_on_after_an_id(two: Mailer) -> None:
    for last in range(3, 8):
        two("clients", "add", "--phone", f"7916000000{last}")
    ids = [each["id"] for each in two("clients", "list", "--limit", 3, "--json").json]
    rest = [each["id"] for each in two("clients", "list", "--after", 5, "--json").json]
    assert (ids, rest) == ([7, 6, 5], [4, 3, 2, 1])


def test_pages_of_a_list_meet_without_gap_or_repeat(
    two: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for last in range(3, 8):
        two("clients", "add", "--phone", f"7916000000{last}")
    monkeypatch.setattr("mailer_cli.clients.listing.PAGE", 2)
    for limit in (None, 1, 2, 3, 4, 7, 9):
        ids = [each.id for each in clients.listed(database, clients.Wanted(), limit)]
        assert ids == [7, 6, 5, 4, 3, 2, 1][:limit]


def test_a_list_holds_up_no_writer_between_two_pages(
    two: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailer_cli.clients.listing.PAGE", 1)
    monkeypatch.setattr("mailer_cli.database.BUSY_TIMEOUT", 0)
    listing = clients.listed(database, clients.Wanted())
    assert next(listing).id == 2
    two("clients", "add", "--phone", "79160000003")
    assert [each.id for each in listing] == [1]


def test_filters_are_or_within_an_attribute_and_and_between(two: Mailer) -> None:
    two("clients", "add", "--phone", "79260000003", "--tag", "vip")

    def ids(*options: str) -> list[int]:
        return [each["id"] for each in two("clients", "list", *options, "--json").json]

    assert ids("--tag", "vip") == [3, 1]
    assert ids("--operator-code", "916", "--operator-code", "903") == [2, 1]
    assert ids("--tag", "vip", "--operator-code", "926", "--operator-code", "903") == [3]
    assert ids("--phone", "+7 903 123-45-67") == [2]
    assert ids("--tag", "VIP") == []


def test_a_list_for_people_shows_the_status_and_cannot_be_misread(mailer: Mailer, database: Database) -> None:
    mailer("clients", "add", "--phone", PHONE, "--tag", "[red]x[/y] :fire:", "--timezone", "UTC")
    mailer("clients", "block", 1)
    heading, row = mailer("clients", "list").out.splitlines()
    assert heading.split() == ["id", "phone", "code", "tag", "time", "zone", "status"]
    assert row.split() == ["1", PHONE, "916", "[red]x[/y]", ":fire:", "UTC", "blocked"]


def test_an_empty_list_is_said_and_is_an_empty_array(mailer: Mailer, database: Database) -> None:
    assert mailer("clients", "list").out == "no clients found\n"
    assert mailer("clients", "list", "--json").out == "[]\n"


# showing and editing


def test_show_is_the_same_client_for_people_and_programs(two: Mailer) -> None:
    assert two("clients", "show", 1, "--json").json["phone"] == PHONE
    shown = two("clients", "show", 1).out
    assert "phone          79161234567" in shown and "status         active" in shown


@pytest.mark.parametrize("command", [("show",), ("edit", "--tag", "x"), ("remove", "--yes"), ("block",)])
def test_an_id_that_is_nobodys_or_was_removed_is_refused(command: tuple[str, ...], two: Mailer) -> None:
    name, *options = command
    assert "there is no client 7" in two("clients", name, 7, *options, code=1).err
    two("clients", "remove", 1, "--yes")
    assert "client 1 was removed" in two("clients", name, 1, *options, code=1).err


def test_edit_changes_what_is_given_and_nothing_else(two: Mailer) -> None:
    before = two("clients", "show", 1, "--json").json
    after = two("clients", "edit", 1, "--tag", "", "--json").json
    assert after == before | {"tag": "", "updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]


def test_edit_to_the_same_values_leaves_the_client_untouched(two: Mailer) -> None:
    before = two("clients", "show", 1, "--json").json
    assert two("clients", "edit", 1, "--tag", "vip", "--phone", PHONE, "--json").json == before


def test_the_operator_code_does_not_follow_the_phone(two: Mailer) -> None:
    found = two("clients", "edit", 1, "--phone", "79260000000", "--json").json
    assert (found["phone"], found["operator_code"]) == ("79260000000", "916")


def test_edit_without_a_change_is_wrong_usage(two: Mailer) -> None:
    assert two("clients", "edit", 1, code=2).err.startswith("error: nothing to change\nhint: ")


def test_messages_that_wait_follow_a_new_zone(two: Mailer, database: Database) -> None:
    mail_everybody(database)
    two("clients", "edit", 1, "--timezone", "+05:00")
    assert messages(database) == [(1, "pending", None, "+05:00"), (2, "pending", None, "Asia/Omsk")]


# removing


def test_a_removed_client_keeps_all_but_the_phone(two: Mailer, database: Database) -> None:
    mail_everybody(database)
    assert two("clients", "remove", 1, "--yes", "--json").json == {"removed": 1, "cancelled": 1}
    assert [each["id"] for each in two("clients", "list", "--json").json] == [2]
    kept = two("clients", "list", "--status", "removed", "--json").json[0]
    assert (kept["phone"], kept["operator_code"], kept["tag"]) == (None, "916", "vip")
    assert kept["timezone"] == "Europe/Moscow"
    assert messages(database) == [
        (1, "cancelled", "client removed", "Europe/Moscow"),
        (2, "pending", None, "Asia/Omsk"),
    ]


def test_remove_needs_a_yes_where_nobody_can_be_asked(two: Mailer) -> None:
    assert "--yes" in two("clients", "remove", 1, code=2).err
    assert two("clients", "show", 1).code == 0


def test_a_phone_is_free_again_after_its_client_was_removed(two: Mailer) -> None:
    two("clients", "remove", 2, "--yes")
    assert two("clients", "add", "--phone", OTHER, "--json").json["id"] == 3


# the stop list


def test_blocking_cancels_what_waits_and_joins_no_audience(two: Mailer, database: Database) -> None:
    mail_everybody(database)
    ran = two("clients", "block", 1, "--phone", "79990000000", "--json")
    assert ran.json == {"blocked": [PHONE, "79990000000"], "cancelled": 1}
    assert two("clients", "block", 1, "--json").json == {"blocked": [], "cancelled": 0}
    mail_everybody(database)
    assert [(client, status, reason) for client, status, reason, _ in messages(database)] == [
        (1, "cancelled", "client blocked"),
        (2, "pending", None),
        (2, "pending", None),
    ]


def test_a_block_survives_removal_and_a_new_client_with_the_phone(two: Mailer) -> None:
    two("clients", "block", 1)
    two("clients", "remove", 1, "--yes")
    two("clients", "add", "--phone", PHONE)
    assert [each["id"] for each in two("clients", "list", "--status", "blocked", "--json").json] == [3]


def test_an_unblocked_client_is_active_again_and_what_was_cancelled_stays_so(
    two: Mailer, database: Database
) -> None:
    mail_everybody(database)
    two("clients", "block", 1)
    assert two("clients", "unblock", 1, "--phone", OTHER, "--json").json == {"unblocked": [PHONE]}
    assert len(two("clients", "list", "--status", "active", "--json").json) == 2
    assert messages(database)[0][1] == "cancelled"


def test_a_blocked_client_stays_blocked_under_a_new_phone(two: Mailer) -> None:
    two("clients", "block", 1)
    two("clients", "edit", 1, "--phone", "79160000001")
    blocked = two("clients", "list", "--status", "blocked", "--json").json
    assert [(each["id"], each["phone"]) for each in blocked] == [(1, "79160000001"), (None, PHONE)]
    two("clients", "edit", 2, "--phone", PHONE)
    assert len(two("clients", "list", "--status", "blocked", "--json").json) == 2


def test_a_client_who_gets_a_blocked_phone_loses_what_waits(two: Mailer, database: Database) -> None:
    mail_everybody(database)
    two("clients", "block", "--phone", "79990000000")
    two("clients", "edit", 2, "--phone", "79990000000")
    assert [message[1:3] for message in messages(database)] == [
        ("pending", None),
        ("cancelled", "client blocked"),
    ]


def test_block_refuses_all_when_one_id_is_nobodys(two: Mailer) -> None:
    two("clients", "block", 1, 7, code=1)
    assert two("clients", "list", "--status", "blocked", "--json").json == []


@pytest.mark.parametrize("command", ["block", "unblock"])
def test_the_stop_list_wants_to_know_whom(command: str, mailer: Mailer, database: Database) -> None:
    assert mailer("clients", command, code=2).err.startswith("error: which client?")


def test_changes_of_one_client_find_his_messages_by_an_index(two: Mailer, database: Database) -> None:
    from mailer_cli.clients.change import _messages_of

    mail_everybody(database)
    query = select(col(Message.id)).where(_messages_of(col(Message.client_id) == 1))
    with database.read() as connection:
        text = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all())
    assert "message_mailing_id_client_id_unique" in plan or "AUTOINDEX" in plan.upper()
    assert "SCAN message" not in plan
