"""How a command behaves beside its result: quiet when asked, whole tables in a pipe, a word when it waits."""

import io
import json
import os
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailer_cli.cli import operations
from mailer_cli.database import Database, engine
from mailer_cli.output import Printer
from tests.conftest import TOKEN, Mailer
from tests.rows import add_client, add_mailing, add_messages
from tests.test_cli import COMMANDS

# quiet

QUIET = {
    "clients add": "--phone 79161234599",
    "clients show": "1",
    "clients edit": "1 --tag new",
    "clients remove": "3 --yes",
    "clients rezone": "--from UTC --to Europe/Moscow",
    "clients block": "2",
    "clients unblock": "2",
    "clients import": "list.csv",
    "clients export": "out.csv",
    "mailings create": "--text x --end +1h --all",
    "mailings show": "1",
    "mailings edit": "1 --priority 3",
    "mailings pause": "1 2",
    "mailings resume": "1 2",
    "mailings cancel": "2 3 --yes",
    "mailings remove": "3 --yes",
    "mailings top-up": "1",
    "mailings retry": "1",
    "mailings preview": "1",
    "messages show": "{message}",
    "messages resolve": "{unknown} --as sent",
    "db upgrade": "",
    "db check": "",
    "db backup": "copy.db",
    "db restore": "copy.db --yes",
    "db purge": "--older-than 90d --yes",
    "dispatch": "",
}
ASKED_FOR = {"schedule cron", "schedule systemd", "clients list", "mailings list", "messages list"}
"""What is wanted for what it prints; so is an export to standard output, and a plan."""


def three_mailings(database: Database) -> dict[str, int]:
    for number in range(3):
        add_client(database, 79261234500 + number, tag="vip")
    end = datetime.now(UTC) + timedelta(hours=1)
    ids = [add_mailing(database, text=f"text {number}", end_at=end) for number in range(3)]
    for each in ids:
        add_messages(database, each, {"pending": 1})
    sent = add_messages(database, ids[0], {"sent": 1, "unknown": 1})
    return {"message": sent[0], "unknown": sent[-1]}


def test_a_quiet_command_says_nothing_when_all_is_well(mailer: Mailer, database: Database) -> None:
    ids = three_mailings(database)
    Path("list.csv").write_text("phone\n79161234511\n")
    mailer("mailings", "pause", "--all")  # nothing goes to a gateway that is not there
    asked = [words for words in COMMANDS if words[0] not in ("demo", "sandbox", "health", "doctor")]
    for words in asked:
        name = " ".join(words)
        if name in ASKED_FOR or name == "db check":  # these messages are not a run's
            continue
        ran = mailer(*words, *QUIET.get(name, "").format(**ids).split(), "--quiet", code=None)
        assert (ran.code, ran.out) == (0, ""), (name, ran)
    assert mailer("clients", "export", "-q").out.startswith("phone,")


@pytest.mark.parametrize("act", ["pause", "resume", "cancel"])
def test_several_mailings_are_steered_without_a_word(act: str, mailer: Mailer, database: Database) -> None:
    three_mailings(database)
    yes = ["--yes"] if act == "cancel" else []
    assert mailer("mailings", act, 1, 2, *yes, "-q").out == ""
    assert mailer("mailings", act, "--all", *yes, "--quiet").out == ""
    assert len(mailer("mailings", act, 1, 2, *yes, "-q", "--json").json) == 2


# tables in a pipe


def test_a_table_in_a_pipe_has_every_column_and_every_cell_whole(mailer: Mailer, database: Database) -> None:
    text = "a long text, " * 20
    add_client(database, 79261234500, tag="t" * 120)
    mailing = add_mailing(database, text=text)
    wanted = ("sent", "failed", "unknown", "expired", "cancelled", "pending")
    add_messages(database, mailing, dict.fromkeys(wanted, 1))
    shown = mailer("stats").out
    header, row = next(
        pair
        for pair in zip(shown.splitlines(), shown.splitlines()[1:], strict=False)
        if pair[0].startswith(("id", " id"))
    )
    assert {"total", "sent", "pending", "failed", "unknown", "expired", "cancelled"} <= set(header.split())
    assert text.strip() in row
    assert text.strip() in mailer("mailings", "list").out and " for " in mailer("mailings", "list").out
    assert "t" * 120 in mailer("clients", "list").out
    header = mailer("messages", "list").out.splitlines()[0].split()
    assert header == ["id", "mailing", "client", "phone", "status", "attempts", "sent", "due", "reason"]


def test_whoever_says_how_wide_a_pipe_is_gets_it_so(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_mailing(database, text="a long text, " * 20)
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, mailer("mailings", "list").out.splitlines())) <= 60


# JSON


def test_json_has_the_text_where_people_see_it(mailer: Mailer, database: Database) -> None:
    ids = three_mailings(database)
    assert mailer("messages", "show", ids["message"], "--json").json["text"] == "text 0"
    assert [each["text"] for each in mailer("stats", "--json").json["by_mailing"]] == [
        "text 2",
        "text 1",
        "text 0",
    ]


# times as they were typed


def test_a_wrong_end_is_told_in_the_zone_of_whoever_typed_it(mailer: Mailer, database: Database) -> None:
    words = ["mailings", "create", "--text", "x", "--all"]
    ran = mailer(*words, "--start", "2126-11-28 21:00", "--end", "2126-11-28 20:00", code=2)
    assert ran.err == (
        "error: the end, 2126-11-28 20:00 +03:00, is not after the start, 2126-11-28 21:00 +03:00\n"
    )
    assert "+03:00, has passed" in mailer(*words, "--end", "2025-01-01 10:00", code=2).err
    made = mailer(*words, "--start", "+1h", "--end", "+2h", "--json").json["id"]
    ran = mailer("mailings", "edit", made, "--end", "2025-01-01 10:00", code=2)
    assert ran.err.splitlines() == [
        "error: the new end, 2025-01-01 10:00 +03:00, has passed",
        f"hint: to end it now: mailer mailings cancel {made}",
    ]


# waiting


@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])
@pytest.mark.parametrize("quiet", [[], ["--quiet"], ["--json"]])
def test_a_command_that_waits_for_another_process_says_so(
    lock: str, quiet: list[str], mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 0.05)
    mailing = add_mailing(database)
    add_messages(database, mailing, {"pending": 1})
    other = sqlite3.connect("mailer.db", isolation_level=None, check_same_thread=False)
    other.execute(f"BEGIN {lock}")
    later = threading.Timer(1, lambda: other.execute("ROLLBACK"))
    later.start()
    ran = mailer("mailings", "pause", mailing, *quiet)
    later.join()
    other.close()
    said = "" if quiet else "waiting for another process that uses mailer.db ...\n"
    assert ran.err == said


# what is set here and not there


@pytest.mark.parametrize("command", ["cron", "systemd"])
def test_a_schedule_says_what_of_the_environment_it_leaves_behind(
    command: str, mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TZ")
    assert "environment" not in mailer("schedule", command).err
    monkeypatch.setenv("MAILER_TOKEN", TOKEN)
    monkeypatch.setenv("MAILER_RATE", "5/s")
    monkeypatch.setenv("MAILER_LOG", " ")
    ran = mailer("schedule", command)
    assert "environment, and not in these lines: MAILER_RATE, MAILER_TOKEN;" in ran.err
    assert TOKEN not in ran.err + ran.out and "environment, and" not in ran.out


def test_a_zone_of_the_environment_is_left_behind_too() -> None:
    assert "TZ" in operations._left_behind({"TZ": "Asia/Omsk"})[0]
    assert operations._left_behind({"HOME": "/root", "MAILER_LOG": ""}) == ()


# a bar and what is said meanwhile


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_said_beside_a_bar_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TERM", "xterm")
    screen = Screen()
    printer = Printer(stderr=screen)
    said = json.dumps({"at": "2026-11-27", "text": "[red]" + "x" * 100})
    with printer.progress("sending", 10) as progress:
        progress(3)
        printer.say(said)
        progress(4)
    lines = [line.rpartition("\x1b[2K")[2] for line in screen.getvalue().split("\n")]
    assert said in lines
    printer.say("after")
    assert screen.getvalue().endswith("after\n")
