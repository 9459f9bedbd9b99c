"""One bad row beside good mailings: a file that was damaged, restored by halves, or written by others.

It costs itself, is said once, and the run goes on to the end.
"""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from mailer_cli import audience
from tests.lab import Lab

MESSAGE = "UPDATE message SET {} WHERE id = (SELECT min(id) FROM message)"
LAST = "UPDATE message SET {} WHERE id = (SELECT max(id) FROM message)"
CLIENT = "UPDATE client SET {} WHERE id = 1"
MAILING = "UPDATE mailing SET {} WHERE id = 1"
NOT_UTF8 = "CAST(x'ff41' AS TEXT)"
TRIED = """
    INSERT INTO run (id, host, pid, started_at, ended_at, claimed, sent, failed, deferred, unknown, expired,
        repeats) VALUES ({run}, 'gone', 1, '2026-01-01 09:00:00.000000', {ended}, 0, 0, 0, 0, 0, 0, 0);
    INSERT INTO attempt (message_id, number, run_id, started_at) SELECT min(id), {number}, {owner},
        '2026-01-01 09:00:00.000000' FROM message;
"""

IN_MESSAGES = {
    "a phone that is none": CLIENT.format("phone = 5"),
    "a phone that is a text": CLIENT.format("phone = 'abc'"),
    "a phone that is no whole number": CLIENT.format("phone = 79000000000.5"),
    "no phone and not removed": CLIENT.format("phone = NULL"),
    "no client": "DELETE FROM client WHERE id = 1",
    "failures below nothing": MESSAGE.format("failures = -1"),
    "more unknowns than attempts": MESSAGE.format("unknowns = 3"),
    "an owner although it waits": MESSAGE.format("sent_at = created_at"),
    "a zone that is no text": LAST.format("timezone = x'00ff'"),
    "a zone that is not UTF-8": LAST.format(f"timezone = {NOT_UTF8}"),
    "an attempt more than it has": TRIED.format(
        run=1, ended="'2026-01-01 09:00:00.000000'", number=1, owner=1
    ),
    "an attempt of a run that cannot be": TRIED.format(run=1, ended="NULL", number=1, owner="'no run'"),
    "an attempt of a run below nothing": TRIED.format(run=1, ended="NULL", number=1, owner=-5),
    "a dead run's, and damaged": TRIED.format(run=1, ended="NULL", number=1, owner=1)
    + MESSAGE.format("status = 'sending', run_id = 1, attempts = 1, failures = -3"),
}
HARMLESS = {
    "a wording that is not there": MESSAGE.format("wording_id = 77"),
    "a phone of its own that is none": MESSAGE.format("phone = 12"),
    "tried, and nothing is known of it": MESSAGE.format("attempts = 2"),
    "a huge counter": MESSAGE.format("attempts = 9223372036854775807"),
    "a counter that is a text": MESSAGE.format("attempts = 'many'"),
    "a zone that nobody asks for": MESSAGE.format("timezone = x'00ff'"),
    "a time that is none": MESSAGE.format("created_at = 'then'"),
    "another message's status": MESSAGE.format("status = 'lost'"),
    "another run's end": "INSERT INTO run SELECT 99, x'ff', 'pid', 'then', 'now', 0, 0, 0, 0, 0, 0, 0, 0, 0",
    "a block that is none": "INSERT INTO block VALUES (5, 'then')",
    "a client's tag": CLIENT.format("tag = 'a' || char(0) || 'b', operator_code = 'nine'"),
    "a client's tag that is not UTF-8": CLIENT.format(f"tag = {NOT_UTF8}, created_at = 'then'"),
}
IN_MAILINGS = {
    "a rate of nothing": MAILING.format("rate = 0"),
    "a rate below nothing": MAILING.format("rate = -1"),
    "a rate that is a text": MAILING.format("rate = 'fast'"),
    "a rate of nearly nothing": MAILING.format("rate = 1e-300"),
    "an end that is no time": MAILING.format("end_at = 'tomorrow'"),
    "an end that is not UTF-8": MAILING.format(f"end_at = CAST('z' || {NOT_UTF8} AS TEXT)"),
    "a rate's moment that is no time": MAILING.format(
        "rate = 5, next_free_at = '2026-02-31 00:00:00.000000'"
    ),
    "half a window": MAILING.format("window_from = 540, window_to = NULL"),
    "the other half of a window": MAILING.format("window_from = NULL, window_to = 540"),
    "a window beyond the day": MAILING.format("window_from = 0, window_to = 99999"),
    "a window that begins where it ends": MAILING.format("window_from = 540, window_to = 540"),
    "no wording": MAILING.format("wording_id = 77"),
    "a text that is not UTF-8": f"UPDATE wording SET text = {NOT_UTF8} WHERE id = 1",
    "a text that is none": "UPDATE wording SET text = x'00ff' WHERE id = 1",
    "an empty text": "UPDATE wording SET text = '' WHERE id = 1",
}
BEFORE_IT_IS_FIXED = {
    "a filter that is no JSON": MAILING.format("tags = '[\"lab'"),
    "a filter that is no list": MAILING.format("tags = '\"lab 1\"'"),
    "a filter of numbers": MAILING.format("tags = '[[1]]'"),
    "a filter that is not UTF-8": MAILING.format(f"tags = {NOT_UTF8}"),
    "no filter, and not for everyone": MAILING.format("tags = '[]'"),
}


def plant(lab: Lab, statements: str) -> None:
    with closing(sqlite3.connect(lab.folder / "mailer.db", isolation_level=None)) as raw:
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("PRAGMA ignore_check_constraints = ON")
        raw.executescript(statements)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.add_mailing(3)
    lab.add_mailing(4)
    lab.add_mailing(2, window_from=1, window_to=0, zone="UTC", rate=50)
    lab.open_gateway()
    return lab


def fixed(lab: Lab) -> None:
    """Audiences without a request: another program's rows may come between."""
    with lab.database.write() as connection:
        for mailing in (1, 2, 3):
            audience.fix(connection, mailing, datetime.now(UTC))


@pytest.mark.parametrize("statements", IN_MESSAGES.values(), ids=IN_MESSAGES)
def test_a_bad_row_of_a_message_costs_that_message(lab: Lab, statements: str) -> None:
    fixed(lab)
    plant(lab, statements)
    ran = lab.run("--quiet", as_json=False, code=74)
    assert "damaged rows in the database were set aside: message " in ran.err
    assert ran.err.count("\n") == 1
    statuses = lab.statuses()
    assert statuses.pop("sent") == 8
    assert statuses in ({"failed": 1}, {"unknown": 1})
    again = lab.run("--quiet", as_json=False)
    assert (again.err, again.out) == ("", "")


@pytest.mark.parametrize("statements", HARMLESS.values(), ids=HARMLESS)
def test_a_bad_row_that_no_run_asks_for_costs_nothing(lab: Lab, statements: str) -> None:
    fixed(lab)
    plant(lab, statements)
    lab.run("--quiet", as_json=False, code=None)
    assert lab.statuses().get("sent", 0) >= 8
    assert lab.run("--quiet", as_json=False).err == ""


@pytest.mark.parametrize("statements", IN_MAILINGS.values(), ids=IN_MAILINGS)
def test_a_bad_row_of_a_mailing_costs_that_mailing(lab: Lab, statements: str) -> None:
    fixed(lab)
    plant(lab, statements)
    ran = lab.run("--quiet", as_json=False, code=74)
    assert "damaged rows in the database were set aside: mailing 1 (" in ran.err
    assert lab.statuses() == {"sent": 6, "pending": 3}
    assert lab.query("SELECT id FROM mailing WHERE paused_at IS NOT NULL") == [(1,)]
    assert lab.run("--quiet", as_json=False).err == ""


@pytest.mark.parametrize("statements", BEFORE_IT_IS_FIXED.values(), ids=BEFORE_IT_IS_FIXED)
def test_a_filter_that_cannot_be_read_reaches_nobody(lab: Lab, statements: str) -> None:
    plant(lab, statements)
    ran = lab.run("--quiet", as_json=False, code=74)
    assert "mailing 1 (" in ran.err
    assert lab.statuses() == {"sent": 6}
    assert lab.run("--quiet", as_json=False).err == ""


def test_a_tally_that_does_not_count_is_counted_anew(lab: Lab) -> None:
    fixed(lab)
    plant(lab, "UPDATE tally SET messages = -9 WHERE mailing_id = 1 AND status = 'sending'")
    ran = lab.run("--quiet", as_json=False, code=74)
    assert "the tally of mailing 1" in ran.err
    assert lab.statuses() == {"sent": 9}
    lab.check_invariants()


@pytest.mark.parametrize(
    "statements",
    [
        "DELETE FROM gateway",
        "UPDATE gateway SET busy_until = 'later'",
        "UPDATE gateway SET faults = -1",
        "UPDATE gateway SET faults = 'many'",
        f"UPDATE gateway SET said = {NOT_UTF8}",
    ],
)
def test_a_gateway_s_state_that_cannot_be_read_is_forgotten(lab: Lab, statements: str) -> None:
    plant(lab, statements)
    lab.run("--quiet", as_json=False, code=None)
    assert lab.statuses() == {"sent": 9}
    assert lab.run("--quiet", as_json=False).err == ""


def test_damage_at_the_end_and_at_a_recovery_costs_no_other_its_end(lab: Lab) -> None:
    fixed(lab)
    ended = (
        "UPDATE mailing SET start_at = '2026-01-01 09:00:00.000000', end_at = '2026-01-01 10:00:00.000000'"
    )
    plant(lab, f"{MESSAGE.format('sent_at = created_at')}; {ended}")
    ran = lab.run("--quiet", as_json=False, code=74)
    assert "message " in ran.err
    assert lab.statuses() == {"expired": 8, "failed": 1}


def test_a_bug_is_still_a_bug(lab: Lab) -> None:
    fixed(lab)
    plant(lab, "CREATE TRIGGER broken BEFORE INSERT ON attempt BEGIN SELECT raise(ABORT, 'a bug'); END")
    with pytest.raises(IntegrityError, match="a bug"):
        lab.run_here()
    assert lab.statuses() == {"pending": 9}


def test_db_check_names_the_rows(lab: Lab) -> None:
    fixed(lab)
    plant(lab, f"{CLIENT.format('phone = 5')}; {MAILING.format('rate = 0')}")
    findings = {each["name"]: each for each in lab.command("db", "check", code=74).json["findings"]}
    assert findings["rows"]["text"] == "damaged: client 1: phone_shape; mailing 1: rate_positive"
