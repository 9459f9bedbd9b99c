"""What `doctor` and `health` say of a sound installation, and of every way it can be broken."""

import base64
import json
import os
import re
import resource
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mailer_cli.database import Database, RunLocks, create_database, lock_path
from mailer_cli.settings import Settings
from tests.breakage import mode, obey_permissions
from tests.conftest import TOKEN, Mailer, Ran
from tests.lab import Lab

NOW = datetime.now(UTC)
RUN = (
    "id, host, pid, started_at, ended_at, stopped, claimed, sent, failed, deferred, unknown, expired, repeats"
)
SECRET = "c2VjcmV0"


def token(claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{SECRET}.{payload}.{SECRET}"


def expiring(**delta: float) -> str:
    return token({"exp": (NOW + timedelta(**delta)).timestamp()})


def finding(ran: Ran, name: str) -> dict[str, Any]:
    (found,) = (each for each in ran.json["findings"] if each["name"] == name)
    return dict(found)


def beat(database: Database, seconds_ago: float = 0) -> datetime:
    """As if a dispatch had been at work then."""
    RunLocks(database).close()
    moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    os.utime(lock_path(database), (moment.timestamp(), moment.timestamp()))
    return moment


def change(database: Database, sql: str) -> None:
    with database.write() as connection:
        connection.exec_driver_sql(sql)


def test_a_sound_installation_gives_no_error_and_no_warning(mailer: Mailer, database: Database) -> None:
    beat(database)
    ran = mailer("doctor", "--json")
    assert ran.json["ok"] is True
    assert {each["level"] for each in ran.json["findings"]} == {"ok"}
    assert {each["name"] for each in ran.json["findings"]} == {
        "sqlite",
        "settings",
        "url",
        "token",
        "log",
        "owner",
        "database",
        "journal",
        "writing",
        "dispatch",
        "last run",
        "breaker",
        "clock",
        "time zones",
    }
    assert TOKEN not in ran.out


def test_people_read_at_most_80_columns_with_a_hint_below(mailer: Mailer, database: Database) -> None:
    ran = mailer("doctor")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "warning  dispatch" in ran.out
    assert "hint: mailer schedule cron" in ran.out


def test_quiet_says_nothing_while_all_is_well_and_what_is_wrong_otherwise(
    mailer: Mailer, database: Database
) -> None:
    assert mailer("doctor", "--quiet").out == ""
    database.path.unlink()
    assert "there is no database" in mailer("doctor", "--quiet", code=78).out


@pytest.mark.parametrize(
    ("given", "level", "said", "code"),
    [
        pytest.param(expiring(days=30), "ok", "expires at", 0, id="in 30 days"),
        pytest.param(expiring(days=6), "warning", "in 143 hours", 0, id="in 6 days"),
        pytest.param(expiring(days=-1), "error", "the token expired at", 77, id="yesterday"),
        (token({}), "ok", "does not expire", 0),
        (token({"exp": "soon"}), "error", "not a JWT", 78),
        (token({"exp": 10**30}), "error", "not a JWT", 78),
        (token([]), "error", "not a JWT", 78),
        (f"{SECRET}.%%%.{SECRET}", "error", "not a JWT", 78),
        (f"{SECRET}./w.{SECRET}", "error", "not a JWT", 78),
        (f"{SECRET}.{SECRET}", "error", "three parts", 78),
        ("", "error", "missing", 78),
    ],
)
def test_the_token_is_read_and_never_shown(
    mailer: Mailer, database: Database, given: str, level: str, said: str, code: int
) -> None:
    Path(".env").write_text(f"TOKEN='{given}'\nURL=https://h/\n")
    ran = mailer("doctor", "--json", code=code)
    found = finding(ran, "token")
    assert (found["level"], ran.json["ok"]) == (level, code == 0)
    assert said in found["text"]
    assert SECRET not in ran.out


@pytest.mark.parametrize(
    ("url", "level"),
    [
        ("https://gateway/", "ok"),
        ("http://localhost:8080/", "ok"),
        ("http://127.0.0.2/", "ok"),
        ("http://[::1]:8080/", "ok"),
        ("http://gateway/", "warning"),
        ("http://127.evil.org/", "warning"),
        ("gateway", "error"),
    ],
)
def test_a_url_is_encrypted_or_does_not_leave_the_machine(
    mailer: Mailer, database: Database, url: str, level: str
) -> None:
    Path(".env").write_text(f"TOKEN={TOKEN}\nURL={url}\n")
    assert finding(mailer("doctor", "--json", code=78 if level == "error" else 0), "url")["level"] == level


def test_settings_that_others_can_read_are_a_warning(mailer: Mailer, database: Database) -> None:
    Path(".env").chmod(0o640)
    assert "other users can read .env" in mailer("doctor").out


def test_a_misspelled_setting_is_a_warning(mailer: Mailer, database: Database) -> None:
    with Path(".env").open("a") as file:
        file.write("MAILER_CONCURENCY=5\n")
    assert "no setting has the name MAILER_CONCURENCY" in mailer("doctor").out


def test_a_bad_setting_is_a_finding(mailer: Mailer, database: Database) -> None:
    with Path(".env").open("a") as file:
        file.write("MAILER_RATE=fast\n")
    found = finding(mailer("doctor", "--json", code=78), "settings")
    assert (found["level"], "MAILER_RATE is 'fast'" in found["text"]) == ("error", True)


@pytest.mark.parametrize(
    ("breakage", "said", "code"),
    [
        (lambda path: path.unlink(), "there is no database", 78),
        (lambda path: path.write_bytes(b"garbage" * 99), "is not a database", 74),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "is damaged", 74),
        (lambda path: (path.unlink(), path.mkdir()), "is not a database file", 74),
        (lambda path: path.write_bytes(b""), "has no mailer schema", 78),
    ],
)
def test_a_broken_database_is_a_finding(
    mailer: Mailer, database: Database, breakage: Any, said: str, code: int
) -> None:
    breakage(database.path)
    found = finding(mailer("doctor", "--json", code=code), "database")
    assert said in found["text"]


def test_a_damaged_table_is_a_finding_and_the_other_checks_go_on(mailer: Mailer, database: Database) -> None:
    with closing(sqlite3.connect(database.path, isolation_level=None)) as raw:
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("DROP TABLE run")
    ran = mailer("doctor", "--json", code=74)
    assert finding(ran, "last run")["level"] == "error"
    assert finding(ran, "breaker")["level"] == "ok"


def test_a_check_that_stumbles_is_a_finding_and_the_other_checks_go_on(
    mailer: Mailer, database: Database
) -> None:
    change(database, "DELETE FROM gateway")
    ran = mailer("doctor", "--json", code=70)
    assert "cannot be checked" in finding(ran, "breaker")["text"]
    assert finding(ran, "clock")["level"] == "ok"


def test_another_journal_than_the_one_that_is_due_is_a_warning(mailer: Mailer, folder: Path) -> None:
    create_database(Settings(journal="wal"))
    with Path(".env").open("a") as file:
        file.write("MAILER_JOURNAL=truncate\n")
    found = finding(mailer("doctor", "--json"), "journal")
    assert (found["level"], found["hint"]) == ("warning", "mailer db upgrade")
    mailer("db", "upgrade")
    assert finding(mailer("doctor", "--json"), "journal")["level"] == "ok"


@pytest.mark.parametrize(
    ("ended_at", "stopped", "said"),
    [
        ("NULL", "NULL", "has not ended"),
        ("'2026-01-01 00:01:00.000000'", "NULL", "did all that was due"),
        ("'2026-01-01 00:01:00.000000'", "'time_up'", "stopped: time_up"),
    ],
)
def test_the_last_run_is_told(
    mailer: Mailer, database: Database, ended_at: str, stopped: str, said: str
) -> None:
    change(
        database,
        f"INSERT INTO run ({RUN}) VALUES (7, 'here', 1, '2026-01-01 00:00:00.000000',"
        f" {ended_at}, {stopped}, 0, 0, 0, 0, 0, 0, 0)",
    )
    text = finding(mailer("doctor", "--json"), "last run")["text"]
    assert text.startswith("run 7 began at 2026-01-01 03:00 +03:00")
    assert said in text


def test_an_open_breaker_is_a_warning(mailer: Mailer, database: Database) -> None:
    change(database, "UPDATE gateway SET faults = 5, opened_at = '2026-01-01 00:00:00.000000'")
    assert "5 faults" in finding(mailer("doctor", "--json"), "breaker")["text"]


def test_a_clock_behind_the_database_is_a_warning(mailer: Mailer, database: Database) -> None:
    change(
        database,
        f"INSERT INTO run ({RUN}) VALUES (7, 'here', 1, '2100-01-01 00:00:00.000000',"
        " NULL, NULL, 0, 0, 0, 0, 0, 0, 0)",
    )
    assert finding(mailer("doctor", "--json"), "clock")["level"] == "warning"


def test_a_client_in_a_zone_that_this_machine_does_not_know_is_an_error(
    mailer: Mailer, database: Database
) -> None:
    change(
        database,
        "INSERT INTO client VALUES"
        " (1, 79161234567, '916', '', 'Mars/Base', '2026-01-01', '2026-01-01', NULL)",
    )
    assert "Mars/Base" in finding(mailer("doctor", "--json", code=78), "time zones")["text"]


def test_a_log_that_cannot_be_written_is_a_warning(mailer: Mailer, database: Database) -> None:
    with Path(".env").open("a") as file:
        file.write("MAILER_LOG=nowhere/mailer.log\n")
    assert "nowhere/mailer.log cannot be written" in mailer("doctor").out


# Health


def test_health_is_well_while_a_dispatch_has_beaten_lately(mailer: Mailer, database: Database) -> None:
    beaten_at = beat(database, 60)
    found = mailer("health", "--json").json
    assert found["healthy"] is True
    assert 60 <= found["age_seconds"] < 90
    assert found["last_run_at"] == beaten_at.isoformat(timespec="milliseconds")[:-6] + "Z"
    assert re.fullmatch(r"healthy: a dispatch was at work \d\d s ago\n", mailer("health").out)


@pytest.mark.parametrize(("seconds", "said"), [(200, "no dispatch for 2"), (-3600, "in the future")])
def test_health_is_lost_when_the_last_beat_is_too_far_away(
    mailer: Mailer, database: Database, seconds: float, said: str
) -> None:
    beat(database, seconds)
    ran = mailer("health", "--max-age", "3m", "--quiet", code=1)
    assert said in ran.out
    assert len(ran.out.splitlines()) == 1
    assert mailer("health", "--json", code=1).json["healthy"] is False
    mailer("health", "--max-age", "2h")


def test_health_is_lost_when_no_dispatch_ever_ran(mailer: Mailer, database: Database) -> None:
    nothing = dict.fromkeys(("last_run_at", "age_seconds", "reason", "since")) | {"healthy": False}
    assert mailer("health", "--json", code=1).json == nothing
    RunLocks(database).close()
    assert mailer("health", "--json", code=1).json == nothing


def test_health_refuses_a_duration_that_is_none(mailer: Mailer, database: Database) -> None:
    assert mailer("health", "--max-age", "soon", code=2).err.startswith(
        "error: --max-age: 'soon' is not a dur"
    )
    mailer("--database", "nowhere.db", "health", code=78)


def ended(database: Database, run: int, stopped: str, seconds_ago: float) -> None:
    """As if a run had ended so then."""
    moment = f"{datetime.now(UTC) - timedelta(seconds=seconds_ago):%Y-%m-%d %H:%M:%S.%f}"
    change(
        database,
        f"INSERT INTO run ({RUN}) VALUES ({run}, 'here', 1, '{moment}', '{moment}', {stopped},"
        " 0, 0, 0, 0, 0, 0, 0)",
    )


BAD = ("token_refused", "gateway_down", "gateway_nonsense", "too_many_rejected", "wrong_url", "internal")


@pytest.mark.parametrize("stopped", BAD)
def test_a_run_that_ends_in_trouble_is_neither_healthy_nor_ok(
    mailer: Mailer, database: Database, stopped: str
) -> None:
    ended(database, 1, "NULL", 400)
    ended(database, 2, f"'{stopped}'", 120)
    ended(database, 3, f"'{stopped}'", 5)
    beat(database, 5)
    ran = mailer("health", "--json", code=1).json
    assert (ran["healthy"], ran["reason"]) == (False, stopped)
    since = datetime.now(UTC) - datetime.fromisoformat(ran["since"])
    assert 120 <= since.total_seconds() < 200
    assert stopped in mailer("health", "--quiet", code=1).out
    found = finding(mailer("doctor", "--json"), "last run")
    assert found["level"] == "warning" and found["hint"]


@pytest.mark.parametrize("stopped", ["NULL", "'signal'", "'time_up'"])
def test_a_run_that_ends_well_makes_it_healthy_again(
    mailer: Mailer, database: Database, stopped: str
) -> None:
    ended(database, 1, "'token_refused'", 60)
    ended(database, 2, stopped, 1)
    beat(database)
    assert mailer("health", "--json").json["reason"] is None


def test_a_later_run_with_nothing_to_do_makes_it_healthy_again(mailer: Mailer, database: Database) -> None:
    ended(database, 1, "'too_many_rejected'", 100)
    beat(database, 40)
    assert mailer("health", "--json").json["healthy"] is True


def test_a_disk_that_takes_nothing_is_an_error(mailer: Mailer, database: Database) -> None:
    size = database.path.stat().st_size // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 100, before[1]))
    try:
        found = finding(mailer("doctor", "--json", code=74), "writing")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found["level"] == "error" and "MB are free" in found["text"]


@pytest.mark.parametrize("bits", [(0o500, 0o600), (0o700, 0o400)], ids=["folder", "file"])
def test_what_may_not_be_written_is_an_error(tmp_path: Path, bits: tuple[int, int]) -> None:
    with Lab(tmp_path) as lab, lab.each_child(obey_permissions):
        with mode(tmp_path / "mailer.db", bits[1]), mode(tmp_path, bits[0]):
            ran = lab.start_command("doctor").wait()
        assert ran.code == 74, ran
        (found,) = (each for each in ran.json["findings"] if each["name"] == "writing")
        assert found["level"] == "error" and found["hint"].startswith("ls -ld")


def test_what_doctor_writes_is_taken_back(mailer: Mailer, database: Database) -> None:
    def seen() -> tuple[bytes, set[str]]:
        return database.path.read_bytes(), {each.name for each in Path().iterdir()} | {"mailer.db-journal"}

    before = seen()
    assert finding(mailer("doctor", "--json"), "writing")["level"] == "ok"
    assert seen() == before
