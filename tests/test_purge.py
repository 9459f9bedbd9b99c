"""`mailer db purge`: what goes, what stays, and that it may be killed or run beside a dispatch."""

import contextlib
import io
import shutil
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from mailer_cli import audience, invariants, outbox, retention, stats
from mailer_cli.cli import main
from mailer_cli.database import Database, RunLocks
from mailer_cli.findings import exit_code
from mailer_cli.models import MessageStatus, Outcome
from mailer_cli.outbox import purge
from tests import child, judge, lab
from tests.conftest import Mailer
from tests.rows import add_attempt, add_client, add_mailing, add_message, add_run

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
OLD = ("--older-than", "90d", "--yes")
FINAL = ("sent", "sent", "failed", "unknown", "expired", "cancelled")
HISTORY = {"sent": "ok", "failed": "rejected", "unknown": "unknown"}


def query(database: Database, sql: str) -> list[Any]:
    with database.read() as connection:
        return [row[0] if len(row) == 1 else tuple(row) for row in connection.execute(text(sql))]


def run_sql(database: Database, sql: str) -> None:
    with database.write() as connection:
        connection.execute(text(sql))


def old_mailing(database: Database, *statuses: str, days: float = 100, **changed: object) -> int:
    """A mailing that ended so many days ago, with a message in each of these statuses and its history."""
    end_at = NOW - days * DAY
    times = {"start_at": end_at - DAY, "end_at": end_at, "fixed_at": end_at - DAY}
    mailing = add_mailing(database, **(times | changed))
    for status in statuses:
        number = query(database, "SELECT count(*) FROM client")[0]
        client = add_client(database, 79160000000 + number)
        tried = {"attempts": 1, "phone": 79160000000 + number, "wording_id": 1} if status in HISTORY else {}
        counters = {"failures": int(status == "failed"), "unknowns": int(status == "unknown")}
        message = add_message(database, mailing, client, status, **tried, **counters)
        if status in HISTORY:
            moments = {"ended_at": end_at, "outcome": HISTORY[status]}
            add_attempt(database, message, 1, **moments)
    run_sql(database, f"UPDATE run SET ended_at = '{judge.stored(end_at)}' WHERE ended_at IS NULL")
    return mailing


def say(database: Database, mailing: int) -> None:
    """An operator's word on the mailing's message of unknown fate."""
    with database.write() as connection:
        unknown = "SELECT id FROM message WHERE status = 'unknown' AND mailing_id = :mailing"
        message = connection.execute(text(unknown), {"mailing": mailing}).scalar_one()
        outbox.resolve(connection, message, MessageStatus.SENT, NOW)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "PAGE", 2)
    monkeypatch.setattr(purge, "LOOKED_AT", 2)
    monkeypatch.setattr(retention, "TURN", 0)


# What goes and what stays


def test_messages_go_and_every_total_stays(mailer: Mailer, database: Database, small_pages: None) -> None:
    mailing = old_mailing(database, *FINAL)
    young = old_mailing(database, *FINAL, days=80)
    say(database, mailing)
    asked = [
        ["stats"], ["stats", "--json"], ["stats", mailing, "--by", "status"],
        ["mailings", "list"], ["mailings", "list", "--json"], ["mailings", "show", mailing, "--json"],
        ["clients", "list", "--json"], ["stats", young, "--json"], ["messages", "list", "--mailing", young],
    ]  # fmt: skip
    before = [mailer(*each).out for each in asked]
    wordings = query(database, "SELECT id, text FROM wording")
    done = mailer("db", "purge", *OLD, "--json").json
    assert {name: value for name, value in done.items() if name != "before"} == {
        "mailings": 1, "messages": 6, "attempts": 4, "runs": 4, "skipped": [],
    }  # fmt: skip
    assert [mailer(*each).out for each in asked] == before
    assert query(database, "SELECT id, text FROM wording") == wordings
    assert query(database, "SELECT DISTINCT mailing_id FROM message") == [young]
    assert query(database, "SELECT count(*) FROM attempt") == [4]
    assert query(database, "SELECT count(*) FROM resolution") == [0]
    assert query(database, "SELECT id FROM mailing WHERE purged_at IS NOT NULL") == [mailing]
    mailer("db", "check")


def test_a_purge_repeated_has_nothing_to_do(mailer: Mailer, database: Database) -> None:
    old_mailing(database, *FINAL)
    mailer("db", "purge", *OLD)
    purged = query(database, "SELECT * FROM mailing")
    done = mailer("db", "purge", *OLD, "--json").json
    assert (done["mailings"], done["messages"], done["attempts"], done["runs"]) == (0, 0, 0, 0)
    assert query(database, "SELECT * FROM mailing") == purged


def test_mailings_that_ended_later_or_have_no_messages_are_left_as_they_are(
    mailer: Mailer, database: Database
) -> None:
    old_mailing(database)
    old_mailing(database, fixed_at=None)
    old_mailing(database, "sent", days=89.99)
    old_mailing(database, "cancelled", days=-1, cancelled_at=NOW - 100 * DAY)
    before = query(database, "SELECT * FROM mailing"), query(database, "SELECT * FROM message")
    assert mailer("db", "purge", *OLD, "--json").json["mailings"] == 0
    assert (query(database, "SELECT * FROM mailing"), query(database, "SELECT * FROM message")) == before


@pytest.mark.parametrize("mark", ["cancelled_at", "removed_at", "paused_at"])
def test_mailings_that_were_cancelled_removed_or_paused_are_purged_like_others(
    mailer: Mailer, database: Database, mark: str
) -> None:
    old_mailing(database, "sent", "cancelled", **{mark: NOW - 100 * DAY})
    before = mailer("stats").out
    assert mailer("db", "purge", *OLD, "--json").json["messages"] == 2
    assert mailer("stats").out == before


@pytest.mark.parametrize(
    ("unfinished", "why"),
    [
        ("pending", {"pending": 1, "sending": 0, "open_attempts": 0}),
        ("sending", {"pending": 0, "sending": 1, "open_attempts": 1}),
        ("open", {"pending": 0, "sending": 0, "open_attempts": 1}),
    ],
)
def test_a_mailing_with_something_unfinished_is_skipped_whole(
    mailer: Mailer, database: Database, unfinished: str, why: dict[str, int]
) -> None:
    mailing = old_mailing(database, "sent")
    status = "failed" if unfinished == "open" else unfinished
    message = add_message(
        database, mailing, add_client(database, 79990000000), status, attempts=1, phone=1, wording_id=1
    )
    if unfinished != "pending":
        add_attempt(database, message, 1)
    finished = old_mailing(database, "sent")
    assert mailer("db", "purge", "--older-than", "90d", "--dry-run", "--json").json["messages"] == 1
    done = mailer("db", "purge", *OLD, "--json").json
    assert (done["mailings"], done["messages"]) == (1, 1)
    assert done["skipped"] == [{"mailing_id": mailing, **why}]
    assert query(database, "SELECT id FROM mailing WHERE purged_at IS NOT NULL") == [finished]
    assert query(database, f"SELECT count(*) FROM message WHERE mailing_id = {mailing}") == [2]
    assert "skipped 1 mailing, unfinished" in mailer("db", "purge", *OLD).out


def test_what_has_become_unfinished_since_it_was_looked_at_is_found_under_the_write_lock(
    database: Database,
) -> None:
    mailing = old_mailing(database, "sent", "pending")
    with database.write() as connection:
        page = purge.purge(connection, [mailing], NOW - 90 * DAY, NOW)
    assert [each.mailing_id for each in page.unfinished] == [mailing]
    assert (page.purged, page.messages) == ((), 0)
    assert query(database, "SELECT purged_at FROM mailing") == [None]


def test_a_waiting_message_that_its_tally_has_lost_is_not_deleted(database: Database) -> None:
    old_mailing(database, "sent", "pending")
    run_sql(database, "UPDATE tally SET messages = 0 WHERE status = 'pending'")
    purge_now(database)
    assert query(database, "SELECT status FROM message") == ["pending"]


def test_old_runs_go_unless_an_attempt_refers_to_them_or_they_are_the_newest_or_have_not_ended(
    mailer: Mailer, database: Database
) -> None:
    old_mailing(database, "sent")  # its run is spare once it is purged
    old_mailing(database, "sent", days=80)
    runs = [add_run(database) for _ in range(4)]
    long_ago, lately = (f"'{judge.stored(NOW - days * DAY)}'" for days in (100, 80))
    for run, ended_at in zip(runs, (long_ago, "NULL", lately, long_ago), strict=True):
        run_sql(database, f"UPDATE run SET ended_at = {ended_at} WHERE id = {run}")
    run_sql(database, f"UPDATE run SET ended_at = {long_ago} WHERE id < {runs[0]}")
    planned = mailer("db", "purge", "--older-than", "90d", "--dry-run", "--json").json
    assert mailer("db", "purge", *OLD, "--json").json["runs"] == planned["runs"] == 2
    kept_by_attempt = query(database, "SELECT run_id FROM attempt")
    assert query(database, "SELECT id FROM run ORDER BY id") == kept_by_attempt + runs[1:]
    mailer("db", "check")


# How it is asked for


def test_a_dry_run_says_what_would_go_and_changes_nothing(
    mailer: Mailer, database: Database, small_pages: None
) -> None:
    for _ in range(3):
        old_mailing(database, *FINAL)
    before = database.path.read_bytes()
    told = mailer("db", "purge", "--older-than", "90d", "--dry-run").out
    assert "would delete 18 messages, 12 attempts, 11 runs" in told  # the newest run stays
    planned = mailer("db", "purge", "--older-than", "90d", "--dry-run", "--json").json
    assert database.path.read_bytes() == before
    done = mailer("db", "purge", *OLD, "--json").json
    assert {**planned, "before": ""} == {**done, "before": ""}


def test_a_purge_needs_a_yes_without_a_terminal_and_a_duration(mailer: Mailer, database: Database) -> None:
    old_mailing(database, "sent")
    assert "--yes" in mailer("db", "purge", "--older-than", "90d", code=2).err
    assert "--older-than" in mailer("db", "purge", "--yes", code=2).err
    assert "'3 weeks' is not a duration" in mailer("db", "purge", "--older-than", "3 weeks", code=2).err
    assert query(database, "SELECT count(*) FROM message") == [1]


@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 1, 6), ("y\n", 0, 0)])
def test_on_a_terminal_a_purge_says_how_much_would_go_and_asks(
    database: Database, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: int
) -> None:
    old_mailing(database, *FINAL)
    stderr = Screen()
    monkeypatch.setattr(sys, "stdin", Screen(answer))
    monkeypatch.setattr(sys, "stderr", stderr)
    assert main(["db", "purge", "--older-than", "90d"]) == code
    assert stderr.getvalue().startswith("Delete 6 messages of 1 mailing that ended before 20")
    assert query(database, "SELECT count(*) FROM message") == [left]


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_a_quiet_purge_says_nothing(mailer: Mailer, database: Database) -> None:
    old_mailing(database, "sent")
    ran = mailer("db", "purge", *OLD, "--quiet")
    assert (ran.out, ran.err) == ("", "")
    assert query(database, "SELECT count(*) FROM message") == [0]


# Afterwards


@pytest.mark.parametrize(
    "command",
    [
        ["top-up"], ["retry"], ["retry", "--status", "unknown"], ["edit", "--end", "+9h"],
        ["edit", "--all"], ["edit", "--text", "new"], ["edit", "--priority", 1], ["pause"], ["resume"],
        ["cancel", "--yes"],
    ],
    ids=lambda words: " ".join(map(str, words)),
)  # fmt: skip
@pytest.mark.parametrize("end_at", [None, NOW + DAY], ids=["ended", "the clock went back"])
def test_whatever_would_make_messages_or_bring_them_back_is_refused_once_a_mailing_is_purged(
    mailer: Mailer, database: Database, command: list[str], end_at: datetime | None
) -> None:
    mailing = old_mailing(database, *FINAL, paused_at=NOW)
    mailer("db", "purge", *OLD)
    if end_at is not None:
        run_sql(database, f"UPDATE mailing SET end_at = '{judge.stored(end_at)}'")
    before = query(database, "SELECT * FROM mailing")
    ran = mailer("mailings", command[0], mailing, *command[1:], code=1)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert ran.err.splitlines()[0] == f"error: mailing 1 was purged on {today}; create a new one"
    assert query(database, "SELECT * FROM mailing") == before
    assert query(database, "SELECT count(*) FROM message") == [0]


def test_all_mailings_are_steered_past_a_purged_one(mailer: Mailer, database: Database) -> None:
    old_mailing(database, "sent", paused_at=NOW)
    mailer("db", "purge", *OLD)
    run_sql(database, f"UPDATE mailing SET end_at = '{judge.stored(NOW + DAY)}'")
    for words in (["pause", "--all"], ["resume", "--all"], ["cancel", "--all", "--yes"]):
        assert mailer("mailings", *words, "--json").json == []


def test_a_purged_mailing_can_be_removed(mailer: Mailer, database: Database) -> None:
    mailing = old_mailing(database, *FINAL)
    mailer("db", "purge", *OLD)
    mailer("mailings", "remove", mailing, "--yes")
    assert "6 messages of them in mailings that were removed" in mailer("stats").out
    mailer("db", "check")


@pytest.mark.parametrize("by", list(stats.By))
def test_statistics_of_a_purged_mailing_keep_the_totals_and_say_why_they_tell_nothing_apart(
    mailer: Mailer, database: Database, by: str
) -> None:
    mailing = old_mailing(database, *FINAL)
    mailer("db", "purge", *OLD)
    ran = mailer("stats", mailing, "--by", by)
    assert "6 messages" in ran.out and "its messages were purged" in ran.out
    assert ran.err.startswith("warning: the messages of mailing 1 were purged on 20")
    ran = mailer("stats", mailing, "--json")
    assert (ran.json[f"by_{by}"], ran.json["messages"]["total"]) == ([], 6)
    assert ran.err.startswith("warning: the messages of mailing 1 were purged on 20")
    assert "only these totals are left" in mailer("stats", mailing).out


def test_a_breakdown_during_which_its_mailing_is_purged_keeps_the_totals(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailing = old_mailing(database, *FINAL)
    count = stats._counted

    def and_purge(*arguments: Any) -> Iterator[Any]:
        purge_now(database)
        return count(*arguments)

    monkeypatch.setattr(stats, "_counted", and_purge)
    found = stats.details(database, mailing, NOW, stats.By.OPERATOR)
    assert (found.mailing.total, found.breakdowns) == (6, {stats.By.OPERATOR: ()})


def purge_now(database: Database) -> retention.Purged:
    return retention.purge(database, NOW - 90 * DAY, NOW, sleep=lambda seconds: None)


def test_messages_that_were_purged_are_said_to_be(mailer: Mailer, database: Database) -> None:
    mailing = old_mailing(database, "sent")
    (message,) = query(database, "SELECT id FROM message")
    mailer("db", "purge", *OLD)
    ran = mailer("messages", "list", "--mailing", mailing, "--json")
    assert ran.json == []
    assert ran.err.startswith("warning: the messages of mailing 1 were purged on 20")
    assert mailer("messages", "show", message, code=1).err.startswith(f"error: no such message: {message}")


def test_ids_of_purged_messages_are_never_used_again(mailer: Mailer, database: Database) -> None:
    mailing = old_mailing(database, *FINAL)
    with database.write() as connection:  # as if by a clock that is ahead
        connection.execute(text("UPDATE sqlite_sequence SET seq = 9000000000000000 WHERE name = 'message'"))
        connection.execute(
            text("UPDATE message SET id = 9000000000000000 WHERE status = 'cancelled'")
        )  # it has no attempt
    mailer("db", "purge", *OLD)
    assert query(database, "SELECT count(*) FROM message") == [0]
    new = mailer("mailings", "create", "--all", "--text", "x", "--end", "+1h", "--json").json
    assert new["id"] == mailing + 1
    assert query(database, "SELECT min(id) FROM message") == [9000000000000001]


def test_a_backup_of_before_the_purge_is_restored_whole(mailer: Mailer, database: Database) -> None:
    mailing = old_mailing(database, *FINAL)
    mailer("db", "backup", "copy.db")
    before = query(database, "SELECT * FROM message"), mailer("stats", mailing, "--json").json
    mailer("db", "purge", *OLD)
    mailer("db", "restore", "copy.db", "--yes")
    assert (query(database, "SELECT * FROM message"), mailer("stats", mailing, "--json").json) == before
    mailer("db", "check")
    with database.write() as connection:
        new = add_mailing_row(connection)
        audience.fix(connection, new, NOW)
    assert query(database, f"SELECT count(*) FROM message WHERE mailing_id = {new}") == [6]
    mailer("db", "purge", *OLD)
    mailer("db", "check")


def add_mailing_row(connection: Any) -> int:
    return lab.add_mailing(connection, now=NOW)


def test_a_late_answer_to_a_purged_message_changes_nothing(database: Database) -> None:
    old_mailing(database, "unknown")
    ((message, run),) = query(database, "SELECT message_id, run_id FROM attempt")
    purge_now(database)
    late = outbox.Verdict(message, 1, Outcome.OK, NOW, MessageStatus.SENT, NOW)
    with database.write() as connection:
        assert outbox.record(connection, run, [late]) == []


# Beside others, and killed


def check(database: Database) -> None:
    found = list(invariants.check(database, NOW))
    assert exit_code(found) == 0, found


def test_between_two_pages_every_rule_holds_and_a_small_mailing_has_none_of_its_own(
    mailer: Mailer, database: Database, small_pages: None
) -> None:
    for statuses in (FINAL, ("sent",), ("failed",), ("sent",), FINAL):
        old_mailing(database, *statuses)
    before = mailer("stats", "--json").out
    seen: list[tuple[int, int]] = []

    def look(seconds: float) -> None:
        check(database)
        assert mailer("stats", "--json").out == before
        begun = "(SELECT count(*) FROM mailing WHERE purged_at IS NOT NULL)"
        seen.extend(query(database, f"SELECT count(*), {begun} FROM message"))

    retention.purge(database, NOW - 90 * DAY, NOW, sleep=look)
    assert seen[:8] == [(13, 1), (11, 1), (9, 1), (7, 3), (5, 5), (3, 5), (1, 5), (0, 5)]


def test_more_messages_of_a_purged_mailing_than_were_counted_are_a_broken_rule(
    mailer: Mailer, database: Database
) -> None:
    mailing = old_mailing(database, "failed", "failed")
    run_sql(database, "UPDATE mailing SET purged_at = end_at")
    run_sql(database, "UPDATE tally SET messages = 3 WHERE status = 'failed'")  # one is deleted already
    mailer("db", "check")
    run_sql(database, f"UPDATE tally SET messages = 1 WHERE status = 'failed' AND mailing_id = {mailing}")
    assert "tally" in mailer("db", "check", code=1).out


def test_a_mailing_was_purged_when_its_purge_began(database: Database, small_pages: None) -> None:
    old_mailing(database, *FINAL)
    with database.write() as connection:
        purge.purge(connection, [1], NOW - 90 * DAY, NOW - DAY)
    purge_now(database)
    assert query(database, "SELECT purged_at FROM mailing") == [judge.stored(NOW - DAY)]


def test_a_purge_waits_after_each_page_for_longer_than_who_wants_a_turn(
    database: Database, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite asks again for the lock after 0.1 seconds at the latest."""
    monkeypatch.undo()
    monkeypatch.setattr(purge, "PAGE", 2)
    old_mailing(database, *FINAL)
    slept: list[float] = []
    retention.purge(database, NOW - 90 * DAY, NOW, sleep=slept.append)
    assert len(slept) >= 3 and min(slept) > 0.1


KILLED = """
    import os, signal
    from datetime import datetime, timedelta
    from pathlib import Path
    from sqlalchemy import Engine, event
    from mailer_cli import retention
    from mailer_cli.database import Database
    from mailer_cli.outbox import purge

    purge.PAGE, retention.TURN = 2, 0
    left, where, now = int(sys.argv[1]), sys.argv[2], datetime.fromisoformat(sys.argv[3])

    def die():
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @event.listens_for(Engine, "before_cursor_execute")
    def look(connection, cursor, statement, *rest):
        if where in statement:
            die()

    sleep = lambda seconds: die() if where == "sleep" else None
    retention.purge(Database(Path("mailer.db")), now - timedelta(days=90), now, sleep=sleep)
"""


@pytest.mark.parametrize(
    ("where", "time"),
    [
        *(("sleep", time) for time in (1, 3, 6, 7)),
        *(("DELETE FROM message", time) for time in (1, 2, 6)),
        ("DELETE FROM attempt", 3),
        ("UPDATE mailing SET purged_at", 1),
        ("DELETE FROM run", 1),
    ],
)
def test_a_purge_that_is_killed_breaks_nothing_and_comes_to_the_same_when_repeated(
    mailer: Mailer, database: Database, folder: Path, small_pages: None, where: str, time: int
) -> None:
    for statuses in (FINAL, ("sent",), (*FINAL, "pending"), ("failed",), ("sent",)):
        say_if_any(database, old_mailing(database, *statuses))
    shutil.copy("mailer.db", "whole.db")
    before = mailer("stats", "--json").out
    process = child.start(KILLED, time, where, NOW.isoformat())
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    check(database)
    assert mailer("stats", "--json").out == before
    purge_now(database)
    whole = Database(folder / "whole.db")
    purge_now(whole)
    assert content(database) == content(whole)
    assert query(database, "SELECT DISTINCT mailing_id FROM message") == [3]


def say_if_any(database: Database, mailing: int) -> None:
    if query(database, f"SELECT 1 FROM message WHERE status = 'unknown' AND mailing_id = {mailing}"):
        say(database, mailing)


def content(database: Database) -> dict[str, list[Any]]:
    tables = ("client", "mailing", "message", "attempt", "resolution", "tally", "run", "sqlite_sequence")
    return {name: query(database, f"SELECT * FROM {name} ORDER BY 1, 2") for name in tables}


def test_two_purges_at_once_come_to_the_same(mailer: Mailer, database: Database) -> None:
    for _ in range(5):
        old_mailing(database, *FINAL)
    before = mailer("stats", "--json").out
    both = [child.start(KILLED, 0, "nowhere", NOW.isoformat()) for _ in range(2)]
    for each in both:
        child.finish(each)
    assert query(database, "SELECT count(*) FROM message") == [0]
    assert query(database, "SELECT count(*) FROM run") == [1]
    assert mailer("stats", "--json").out == before
    check(database)


def test_a_restore_and_a_purge_keep_each_other_out(mailer: Mailer, database: Database) -> None:
    old_mailing(database, "sent")
    mailer("db", "backup", "copy.db")
    restored: list[str] = []

    def restore(seconds: float) -> None:
        restored.append(mailer("db", "restore", "copy.db", "--yes", code=1).err)

    retention.purge(database, NOW - 90 * DAY, NOW, sleep=restore)
    assert restored and "a purge is at work" in restored[0]
    mailer("db", "restore", "copy.db", "--yes")
    locks = RunLocks(database)
    locks.take_all()
    assert "being restored" in mailer("db", "purge", *OLD, code=75).err
    locks.close()
    assert query(database, "SELECT count(*) FROM message") == [1]


def test_a_purge_scans_no_messages_under_the_write_lock(database: Database) -> None:
    mailing = old_mailing(database, *FINAL)
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
            raw = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in raw)

    event.listen(database.engine, "before_cursor_execute", explain)
    with database.write() as connection:
        purge.purge(connection, [mailing], NOW - 90 * DAY, NOW)
    event.remove(database.engine, "before_cursor_execute", explain)
    scanned = [each for each in plans if each.startswith(("SCAN message", "SCAN attempt"))]
    assert [each for each in scanned if "attempt_open" not in each] == []
    assert any("SEARCH message" in each for each in plans)


def test_deleting_runs_looks_through_no_table_for_each_of_them(database: Database) -> None:
    """As SQLite does for a reference that no index leads to: 100 runs x 1,000 attempts here."""
    old_mailing(database, *["sent"] * 3, days=80)
    messages = """
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
        INSERT INTO attempt SELECT message_id, i + 1, run_id, started_at, ended_at, outcome, NULL, NULL, NULL
        FROM attempt, n WHERE message_id = (SELECT min(id) FROM message)
    """
    run_sql(database, messages)
    ended_at = judge.stored(NOW - 100 * DAY)
    run_sql(database, "DELETE FROM run WHERE id NOT IN (SELECT run_id FROM attempt)")
    for _ in range(100):
        add_run(database)
    run_sql(database, f"UPDATE run SET ended_at = '{ended_at}'")
    steps: list[None] = []

    def count(raw: Any, _: object) -> None:
        raw.set_progress_handler(lambda: steps.append(None), 1000)

    event.listen(database.engine, "connect", count)
    assert purge_now(database).runs == 99
    assert len(steps) < 100


@pytest.mark.timeout(120)
def test_a_purge_and_a_dispatch_at_work_do_not_lock_each_other_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "PAGE", 50)  # the processes of the laboratory are forks of this one
    with lab.Lab(tmp_path) as here:
        old = here.add_mailing(600)
        here.open_gateway("--latency", "0.005-0.02")
        here.run()
        here.execute("UPDATE mailing SET end_at = ?", judge.stored(datetime.now(UTC)))
        here.add_mailing(1500, rate=300.0)
        dispatch = here.start()
        here.wait_for_requests(700)
        now = ("--older-than", "0s", "--yes")
        for _ in range(3):
            killed = here.start_command("db", "purge", *now)
            lab.wait_for_seconds(0.3)
            killed.kill()
            check(here.database)  # each rule in one statement, so that the dispatch may go on meanwhile
            judge.check_i1_no_row_disappears(here)
        began = len(here.ledger)
        done = here.command("db", "purge", *now).json
        assert done["messages"] > 0
        assert len(here.ledger) > began + 50 and dispatch.is_alive
        assert dispatch.wait().json["sent"] == 1500
        assert here.query("SELECT mailing_id, count(*) FROM message GROUP BY 1") == [(old + 1, 1500)]
        assert here.number("SELECT count(*) FROM run") == 1
        assert here.command("stats", str(old)).json["messages"]["sent"] == 600
        here.check_invariants()


def test_the_judge_sees_a_message_that_no_purge_has_deleted(tmp_path: Path) -> None:
    with lab.Lab(tmp_path) as here:
        mailing = here.add_mailing(3)
        here.open_gateway()
        here.run()
        here.check_invariants()
        with contextlib.closing(here._sqlite()) as raw:
            raw.execute("PRAGMA foreign_keys = OFF")
            raw.execute("DELETE FROM attempt WHERE message_id = (SELECT min(id) FROM message)")
            raw.execute("DELETE FROM message WHERE id = (SELECT min(id) FROM message)")
        with pytest.raises(AssertionError):
            judge.check_i1_no_row_disappears(here)
        here.execute("UPDATE mailing SET purged_at = end_at WHERE id = ?", mailing)
        judge.check_i1_no_row_disappears(here)
        here.execute("UPDATE tally SET messages = messages - 1 WHERE status = 'sent'")
        with pytest.raises(AssertionError):
            judge.check_tally(here)
