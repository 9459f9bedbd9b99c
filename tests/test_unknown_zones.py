"""A client whose zone this machine does not know: a database from newer zone data, or a venv without it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailer_cli import news, times
from mailer_cli.database import Database
from tests.conftest import Mailer
from tests.judge import stored
from tests.lab import Lab, Ran
from tests.rows import add_client, add_mailing, add_message

NOWHERE = ["Mars/Base", "Europe/Kyiw", "../../etc/passwd", "+99:00", "Etc", "zone.tab", "a\x00b", "", "Ж"]
ALL_DAY = {"window_from": 1, "window_to": 0}  # all but a minute of the day
WHY = "time zone Mars/Base is not known here"


def awake(lab: Lab) -> dict[str, int]:
    """A window that is open now, wherever the minute of this run lies."""
    minute = datetime.now(UTC).hour * 60
    return {"window_from": (minute - 720) % 1440, "window_to": (minute + 710) % 1440}


@pytest.mark.parametrize("zone", NOWHERE)
def test_it_waits_and_all_others_are_served(tmp_path: Path, zone: str) -> None:
    with Lab(tmp_path) as lab:
        lab.open_gateway()
        lost = lab.add_mailing(3, zone=zone, **awake(lab))
        with lab.database.write() as connection:
            connection.exec_driver_sql("UPDATE client SET timezone = 'UTC' WHERE id = 1")
        lab.add_mailing(2, zone=zone)  # without a window nobody asks for the zone
        lab.add_mailing(2, zone="UTC", **awake(lab))
        ran = lab.run()
        assert ran.json["sent"] == 1 + 2 + 2
        assert "2 messages of mailings with a window wait" in ran.err
        assert ran.err.count("warning: ") == 1
        assert lab.statuses() == {"sent": 5, "pending": 2}
        waiting = lab.query("SELECT DISTINCT mailing_id FROM message WHERE status = 'pending'")
        assert waiting == [(lost,)]
        idle = lab.run(as_json=False)
        assert (idle.out, idle.err) == ("nothing to do\n", ran.err)
        lab.check_invariants()


def test_it_expires_with_its_mailing_and_goes_once_its_zone_is_mended(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.open_gateway()
        first = lab.add_mailing(2, zone="Mars/Base", **awake(lab))
        lab.run()
        lab.command("clients", "edit", "1", "--timezone", "UTC")
        assert lab.run().json["sent"] == 1
        lab.execute("UPDATE mailing SET end_at = ? WHERE id = ?", stored(datetime.now(UTC)), first)
        ran = lab.run()
        assert (ran.json["expired"], ran.err) == (1, "")
        lab.check_invariants()


def test_cron_hears_of_it_once_an_hour_and_again_when_it_comes_back(tmp_path: Path) -> None:
    def quietly() -> Ran:
        return lab.run("--quiet", as_json=False)

    with Lab(tmp_path) as lab:
        lab.open_gateway()
        lab.add_mailing(1, zone="Mars/Base", **awake(lab))
        assert "Mars/Base (1)" in quietly().err
        assert (quietly().err, quietly().out) == ("", "")
        lab.execute("UPDATE notice SET said_at = ?", stored(datetime.now(UTC) - timedelta(hours=1)))
        assert "Mars/Base (1)" in quietly().err
        lab.command("mailings", "pause", "1")
        assert quietly().err == ""
        lab.command("mailings", "resume", "1")
        assert "Mars/Base (1)" in quietly().err
        lab.add_mailing(1, zone="Mars/Other", **awake(lab))
        assert "Mars/Base (1), Mars/Other (1)" in quietly().err


def test_a_notice_by_a_clock_that_was_ahead_does_not_silence_the_next(database: Database) -> None:
    now = datetime.now(UTC)
    assert news.is_news(database, "subject", "words", now + timedelta(days=1))
    assert news.is_news(database, "subject", "words", now)
    assert not news.is_news(database, "subject", "words", now)
    assert news.is_news(database, "subject", "other words", now)
    assert not news.is_news(database, "subject", "", now)
    assert news.is_news(database, "subject", "other words", now)


def test_every_command_that_looks_says_why(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database, **ALL_DAY)
    client = add_client(database, 79160000001, timezone="Mars/Base")
    message = add_message(database, mailing, client, timezone="Mars/Base")
    plain = add_mailing(database)
    other = add_message(database, plain, client, timezone="Mars/Base")
    assert WHY in mailer("messages", "show", message).out
    reasons = {each["id"]: each["reason"] for each in mailer("messages", "list", "--json").json}
    assert reasons == {message: WHY, other: None}
    for command in (["stats", mailing], ["stats", mailing, "--by", "timezone"]):
        assert "1 message of mailings with a window wait" in mailer(*command).err
    assert mailer("stats", plain).err == ""
    assert mailer("stats", mailing, "--json").json["by_timezone"][0]["key"] == "Mars/Base"
    told = mailer("doctor", "--json", code=78).json["findings"]
    (zones,) = [each["text"] for each in told if each["name"] == "time zones"]
    assert zones.endswith("Mars/Base (1)")


@pytest.mark.parametrize(
    "command",
    [
        "clients list",
        "clients export all.csv",
        "mailings list",
        "mailings show 1",
        "mailings create --text A --all --end +1h --window 09:00-21:00 --dry-run",
        "mailings create --text A --all --end +1h --window 09:00-21:00 --paused",
        "mailings top-up 1",
        "dispatch --dry-run",
        "messages list",
        "db check",
        "health --max-age 1h",
    ],
)
def test_other_commands_work(mailer: Mailer, database: Database, command: str) -> None:
    mailing = add_mailing(database, **ALL_DAY)
    client = add_client(database, 79160000001, timezone="Mars/Base")
    add_message(database, mailing, client, timezone="Mars/Base")
    mailer("dispatch")
    mailer(*command.split())


def test_utc_needs_no_zone_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_there(name: str) -> None:
        raise KeyError(name)

    times.zone_of.cache_clear()
    monkeypatch.setattr(times, "ZoneInfo", nothing_there)
    assert times.show_time(datetime(2026, 1, 1, tzinfo=UTC), "UTC") == "2026-01-01 00:00 +00:00"
    assert times.zone_of("+03:00")
    times.zone_of.cache_clear()


def test_everybody_of_a_zone_gets_another_and_what_waits_follows(mailer: Mailer, database: Database) -> None:
    mailing = add_mailing(database, **ALL_DAY)
    for number, zone in enumerate(("Etc/UTC", "Etc/UTC", "Asia/Omsk", "Mars/Base")):
        client = add_client(database, 79160000001 + number, timezone=zone)
        add_message(database, mailing, client, timezone=zone)
    moved = {"changed": 2, "from": "Etc/UTC", "to": "Europe/Moscow"}
    wanted = ("clients", "rezone", "--from", "etc/utc", "--to", "europe/moscow", "--json")
    assert mailer(*wanted, "--dry-run").json == moved
    assert mailer(*wanted).json == moved
    assert mailer(*wanted).json == moved | {"changed": 0}
    assert (
        mailer("clients", "rezone", "--from", "Mars/Base", "--to", "UTC").out
        == "moved 1 client from Mars/Base to UTC\n"
    )
    by_zone = mailer("stats", mailing, "--json").json["by_timezone"]
    assert {each["key"]: each["total"] for each in by_zone} == {"Europe/Moscow": 2, "Asia/Omsk": 1, "UTC": 1}
    assert mailer("clients", "rezone", "--from", "UTC", "--to", "Mars/Base", code=2).err


def test_a_quiet_run_says_once_what_has_expired(mailer: Mailer, database: Database) -> None:
    now = datetime.now(UTC)
    mailing = add_mailing(database, end_at=now - timedelta(seconds=1))
    for number in range(2):
        add_message(database, mailing, add_client(database, 79160000001 + number))
    said = mailer("dispatch", "--quiet")
    assert (said.out, "2 messages expired: their mailings ended" in said.err) == ("", True)
    assert mailer("dispatch", "--quiet").err == ""
