"""`mailer stats`: what it counts, how it adds up, and how it looks."""

import contextlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from mailer_cli import stats
from mailer_cli.database import Database
from mailer_cli.models import MailingStatus, MessageStatus
from tests.conftest import Mailer
from tests.lab import Lab
from tests.rows import NOON, add_client, add_mailing, add_message, add_messages

STATUSES = [status.value for status in MessageStatus]


def counted(groups: list[dict[str, Any]]) -> dict[str, int]:
    return {each["key"]: each["total"] for each in groups}


def test_an_empty_database_has_every_status_with_zero(mailer: Mailer, database: Database) -> None:
    found = mailer("stats", "--json").json
    assert found == {
        "mailings": {"total": 0, "by_status": {status.value: 0 for status in MailingStatus}},
        "messages": {"total": 0, "by_status": dict.fromkeys(STATUSES, 0)},
        "by_mailing": [],
    }
    assert mailer("stats").out == "0 mailings\n0 messages\n"


def test_the_general_statistics_count_mailings_and_messages_by_status(
    mailer: Mailer, database: Database
) -> None:
    first = add_mailing(database)
    second = add_mailing(database, cancelled_at=NOON)
    add_messages(database, first, {"sent": 3, "pending": 1, "sending": 1})
    add_messages(database, second, {"cancelled": 2, "unknown": 1})
    found = mailer("stats", "--json").json
    assert found["mailings"]["total"] == 2
    assert found["mailings"]["by_status"]["running"] == found["mailings"]["by_status"]["cancelled"] == 1
    assert found["messages"]["total"] == 8
    assert found["messages"]["by_status"] == {
        "pending": 1, "sending": 1, "sent": 3, "failed": 0, "unknown": 1, "expired": 0, "cancelled": 2
    }  # fmt: skip
    assert [each["id"] for each in found["by_mailing"]] == [second, first]


def test_a_mailing_in_the_general_statistics_is_the_one_of_show(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database, text="Secret")
    add_messages(database, mailing, {"sent": 1})
    shown = mailer("mailings", "show", mailing, "--json").json
    assert shown["text"] == "Secret"
    assert mailer("stats", "--json").json["by_mailing"] == [shown]


def test_a_removed_mailing_is_hidden_and_its_messages_stay_in_the_totals(
    mailer: Mailer, database: Database
) -> None:
    removed, kept = add_mailing(database), add_mailing(database)
    add_messages(database, removed, {"sent": 2, "pending": 1})
    add_messages(database, kept, {"sent": 1})
    mailer("mailings", "remove", removed, "--yes")
    found = mailer("stats", "--json").json
    assert found["mailings"]["total"] == 1
    assert [each["id"] for each in found["by_mailing"]] == [kept]
    assert (found["messages"]["by_status"]["sent"], found["messages"]["by_status"]["cancelled"]) == (3, 1)
    assert "3 messages of them in mailings that were removed" in mailer("stats").out


def test_more_mailings_than_a_page_are_all_there_once(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "PAGE", 2)
    made = [add_mailing(database) for _ in range(5)]
    found = mailer("stats", "--json").json
    assert [each["id"] for each in found["by_mailing"]] == made[::-1]


def test_the_general_statistics_never_read_a_message(database: Database) -> None:
    add_messages(database, add_mailing(database), {"sent": 3})
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    with database.read() as connection:
        stats.general(connection, NOON)
    assert statements
    assert not [each for each in statements if "FROM message" in each or "JOIN message" in each]


def test_one_mailing_is_told_apart_by_operator_tag_and_zone(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database)
    people = [(79160000001, "vip", "UTC"), (79160000002, "", "Asia/Omsk"), (79030000003, "vip", "UTC")]
    for phone, tag, zone in people:
        client = add_client(database, phone, tag=tag)
        add_message(database, mailing, client, "failed" if tag else "expired", timezone=zone)
    found = mailer("stats", mailing, "--json").json
    assert counted(found["by_operator"]) == {"916": 2, "903": 1}
    assert counted(found["by_tag"]) == {"vip": 2, "": 1}
    assert counted(found["by_timezone"]) == {"UTC": 2, "Asia/Omsk": 1}
    assert found["by_operator"][0] == {
        "key": "916", "total": 2, "pending": 0, "sending": 0, "sent": 0, "failed": 1, "unknown": 0,
        "expired": 1, "cancelled": 0,
    }  # fmt: skip


def test_the_details_begin_with_the_whole_mailing(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database)
    add_messages(database, mailing, {"sent": 1, "failed": 1})
    shown = mailer("mailings", "show", mailing, "--json").json
    found = mailer("stats", mailing, "--json").json
    assert {name: found[name] for name in shown} == shown
    assert set(found) - set(shown) == {
        "by_operator", "by_tag", "by_timezone", "by_reason", "by_hour", "rate_per_second", "eta",
    }  # fmt: skip


def test_messages_of_other_mailings_are_not_counted(mailer: Mailer, database: Database) -> None:
    other, mailing = add_mailing(database), add_mailing(database)
    add_messages(database, other, {"sent": 5})
    add_messages(database, mailing, {"sent": 1})
    found = mailer("stats", mailing, "--json").json
    assert [sum(counted(found[f"by_{by}"]).values()) for by in stats.By] == [1, 1, 1, 0, 1]


def test_reasons_are_those_of_messages_that_have_one(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database)
    for place, (status, reason) in enumerate(
        [("failed", "HTTP 400"), ("failed", "HTTP 400"), ("sent", None)]
    ):
        add_message(database, mailing, add_client(database, 79160000000 + place), status, reason=reason)
    assert counted(mailer("stats", mailing, "--json").json["by_reason"]) == {"HTTP 400": 2}


def test_hours_are_those_of_sending_in_utc_for_scripts_and_in_the_zone_for_people(
    mailer: Mailer, database: Database
) -> None:
    mailing = add_mailing(database)
    for place, minute in enumerate((0, 59, 60)):
        client = add_client(database, 79160000000 + place)
        add_message(database, mailing, client, "sent", sent_at=NOON + timedelta(minutes=minute))
    found = mailer("stats", mailing, "--json").json["by_hour"]
    assert counted(found) == {"2026-01-05T12:00:00.000Z": 2, "2026-01-05T13:00:00.000Z": 1}
    assert [each["key"] for each in found] == sorted(counted(found))
    lines = mailer("stats", mailing, "--by", "hour").out.splitlines()
    assert lines[-2].startswith("2026-01-05 15:00 +03:00     2  ████")


def test_the_biggest_group_comes_first(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database)
    for place, tag in enumerate(["a", "b", "b", "c", "c", "c"]):
        add_message(database, mailing, add_client(database, 79160000000 + place, tag=tag))
    assert list(counted(mailer("stats", mailing, "--json").json["by_tag"])) == ["c", "b", "a"]


@pytest.mark.parametrize("by", ["status", "operator", "tag", "timezone", "reason", "hour"])
def test_json_is_the_whole_object_whatever_people_would_see(
    mailer: Mailer, database: Database, by: str
) -> None:
    mailing = add_mailing(database)
    add_messages(database, mailing, {"sent": 2, "failed": 1})
    whole = mailer("stats", mailing, "--json").json
    assert mailer("stats", mailing, "--by", by, "--json").json == whole
    assert mailer("stats", mailing, "--by", by).out.startswith(f"mailing {mailing}, completed, 3 messages")


def test_an_idle_mailing_has_no_rate(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database)
    add_messages(database, mailing, {"sent": 3, "pending": 2})  # sent in January
    found = mailer("stats", mailing, "--json").json
    assert (found["rate_per_second"], found["eta"]) == (None, None)


def test_a_mailing_without_open_messages_has_no_rate(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database)
    add_message(database, mailing, add_client(database, 79160000000), "sent", sent_at=datetime.now(UTC))
    assert mailer("stats", mailing, "--json").json["rate_per_second"] is None


def test_a_paused_mailing_has_no_rate(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database, paused_at=NOON)
    add_message(database, mailing, add_client(database, 79160000000), "sent", sent_at=datetime.now(UTC))
    add_messages(database, mailing, {"pending": 1})
    assert mailer("stats", mailing, "--json").json["eta"] is None


def test_the_rate_is_that_of_the_past_two_minutes_and_foretells_the_end(database: Database) -> None:
    now = datetime(2026, 1, 5, 12, tzinfo=UTC)
    mailing = add_mailing(database, end_at=now + timedelta(hours=1), start_at=now - timedelta(hours=1))
    for place, seconds in enumerate((300, 10, 7, 4, 1)):
        client = add_client(database, 79160000000 + place)
        add_message(database, mailing, client, "sent", sent_at=now - timedelta(seconds=seconds))
    add_messages(database, mailing, {"pending": 3, "sending": 1})
    found = stats.details(database, mailing, now)
    assert found.pace == stats.Pace(0.4, now + timedelta(seconds=10))


def test_an_end_that_comes_too_soon_is_said(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database, end_at=datetime.now(UTC) + timedelta(seconds=20))
    sent_at = datetime.now(UTC) - timedelta(seconds=60)
    add_message(database, mailing, add_client(database, 79160000000), "sent", sent_at=sent_at)
    add_messages(database, mailing, {"pending": 5})
    assert "after its end" in mailer("stats", mailing).out


def test_a_mailing_that_does_not_exist_is_refused(mailer: Mailer, database: Database) -> None:
    ran = mailer("stats", 5, code=1)
    assert (ran.out, ran.err) == ("", "error: no such mailing: 5\nhint: mailer mailings list\n")


def test_telling_apart_needs_a_mailing(mailer: Mailer, database: Database) -> None:
    ran = mailer("stats", "--by", "tag", code=2)
    assert ran.err == "error: --by needs a mailing\nhint: mailer stats MAILING --by tag\n"


def test_a_piped_line_is_a_mailing_with_its_whole_text(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database, text="Everything must go. " * 20)
    add_messages(database, mailing, dict.fromkeys(STATUSES, 1))
    lines = mailer("stats").out.splitlines()
    assert ("Everything must go. " * 20).strip() in lines[-1]
    assert lines[-1].split()[:2] == [str(mailing), "running"]
    assert "█" in lines[-1] and "▒" in lines[-1] and "░" in lines[-1]


def test_only_the_biggest_of_many_groups_are_shown_to_people(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database)
    for place in range(60):
        client = add_client(database, 79160000000 + place, tag=f"t{place}")
        add_message(database, mailing, client, "sent")
    out = mailer("stats", mailing, "--by", "tag").out
    assert "the 50 biggest of 60; --json has all" in out
    assert len(mailer("stats", mailing, "--json").json["by_tag"]) == 60


@pytest.mark.parametrize("seed", range(3))
def test_the_tally_equals_the_rows_after_many_changes(mailer: Mailer, database: Database, seed: int) -> None:
    chance = random.Random(seed)
    mailing = add_mailing(database)
    ids = add_messages(database, mailing, {"pending": 12, "sent": 4, "unknown": 4})
    for _ in range(100):
        status = chance.choice([each for each in STATUSES if each != "sending"])
        values = {"status": status, "sent_at": str(NOON) if status == "sent" else None}
        with database.write() as connection:
            connection.execute(
                text("UPDATE message SET status = :status, sent_at = :sent_at WHERE id = :id"),
                {**values, "id": chance.choice(ids)},
            )
    with database.read() as connection:
        counted_rows = connection.execute(text("SELECT status, count(*) FROM message GROUP BY status"))
        rows = {row[0]: row[1] for row in counted_rows}
    found = stats.details(database, mailing, datetime.now(UTC), stats.By.TIMEZONE)
    assert found.mailing.counts == {status: rows.get(status, 0) for status in STATUSES}
    assert found.breakdowns[stats.By.TIMEZONE][0].counts == found.mailing.counts


@pytest.mark.parametrize("page", [1, 2, 6, 7, 100])
def test_pages_change_nothing_in_what_is_counted(
    page: int, mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing, other = add_mailing(database), add_mailing(database)
    add_messages(database, mailing, {"sent": 3, "pending": 2, "failed": 1})
    add_messages(database, other, {"sent": 3})
    whole = mailer("stats", mailing, "--json").json
    monkeypatch.setattr(stats, "COUNTED", page)
    assert mailer("stats", mailing, "--json").json == whole


def test_counting_holds_up_no_commit_and_what_it_shows_adds_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "COUNTED", 2)
    monkeypatch.setattr("mailer_cli.database.engine.BUSY_TIMEOUT", 0)
    mailing = add_mailing(database)
    ids = add_messages(database, mailing, {"pending": 7})
    counted_in_peace = stats._counted

    def counted_while_sending(*given: Any) -> Iterator[Any]:
        for row in counted_in_peace(*given):
            both = {"first": ids.pop(0), "last": ids.pop()} if len(ids) > 1 else {"first": 0, "last": 0}
            with database.write() as connection:
                connection.execute(
                    text("UPDATE message SET status = 'sent', sent_at = :at WHERE id IN (:first, :last)"),
                    {"at": str(NOON), **both},
                )
            yield row

    monkeypatch.setattr(stats, "_counted", counted_while_sending)
    found = stats.details(Database(database.path), mailing, datetime.now(UTC), *stats.By)
    counts = found.mailing.counts
    assert (found.mailing.total, counts[MessageStatus.PENDING], counts[MessageStatus.SENT]) == (7, 5, 2)
    for by in (stats.By.OPERATOR, stats.By.TAG, stats.By.TIMEZONE):
        for status in MessageStatus:
            assert sum(each.counts[status] for each in found.breakdowns[by]) == counts[status]


def test_a_page_is_found_by_its_key_and_not_sorted(database: Database) -> None:
    page = stats.page_of(1, 5, tuple(stats.By)).compile(database.engine)
    with database.read() as connection:
        given = tuple(page.params[name] for name in page.positiontup)
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {page}", given)]
    assert "(mailing_id=? AND client_id>?)" in plan[0]
    assert not [line for line in plan if "SCAN" in line or "TEMP B-TREE" in line], plan


def test_the_general_statistics_and_one_mailing_scan_no_messages(database: Database) -> None:
    mailing = add_mailing(database)
    add_messages(database, mailing, {"sent": 3})
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, given: Any, *rest: Any) -> None:
        if statement.startswith("SELECT"):
            asked = connection.connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {statement}", given)
            plans.extend(row[3] for row in asked)

    event.listen(database.engine, "before_cursor_execute", explain)
    with database.read() as connection:
        stats.general(connection, NOON)
    stats.details(database, mailing, NOON)
    assert any("tally" in each for each in plans)
    assert not [each for each in plans if "message" in each], plans


def test_what_is_shown_during_a_dispatch_equals_the_rows_and_adds_up(tmp_path: Path) -> None:
    seen = set()
    with Lab(tmp_path, concurrency=4) as lab:
        mailing = lab.add_mailing(150)
        lab.open_gateway("--latency", "0.05")
        run = lab.start()
        while run.is_alive:
            with contextlib.closing(lab._sqlite()) as raw:
                raw.execute("BEGIN")
                rows = dict(raw.execute("SELECT status, count(*) FROM message GROUP BY status"))
                tally = dict(raw.execute("SELECT status, messages FROM tally WHERE messages > 0"))
                raw.execute("COMMIT")
            assert rows == tally
            found = stats.details(lab.database, mailing, datetime.now(UTC), *stats.By)
            counts = found.mailing.counts
            assert found.mailing.total in (0, 150)  # the run fixes the audience
            for by in (stats.By.OPERATOR, stats.By.TAG, stats.By.TIMEZONE):
                for status in MessageStatus:
                    assert sum(each.counts[status] for each in found.breakdowns[by]) == counts[status]
            seen.add(counts[MessageStatus.SENT])
    assert len(seen) > 2
