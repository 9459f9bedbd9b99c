"""What only the operator may see: files, the token, phones."""

import os
import pty
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mailer_cli import start
from mailer_cli.database import Database
from mailer_cli.gateway.client import Gateway
from mailer_cli.stop import Stop
from tests.conftest import TOKEN, Mailer
from tests.rows import add_client, add_mailing, add_message
from tests.test_settings import HIDDEN, WORD

PHONE = 79161234567


@pytest.fixture
def lax() -> Iterator[None]:
    """Whoever calls has no umask at all; each command has to set its own."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def logged(database: Database) -> Path:
    """The log of a folder with a message that is due, to a gateway that is away."""
    with Path(".env").open("a") as file:
        file.write("MAILER_LOG=log\nMAILER_TIMEOUT=0.2\n")  # too short to try again
    add_message(database, add_mailing(database, text="for you alone"), add_client(database, PHONE))
    return Path("log")


# Files


@pytest.mark.parametrize("journal", ["wal", "truncate"])
def test_every_file_is_the_operators_alone(mailer: Mailer, lax: None, journal: str) -> None:
    Path(".env").unlink()
    Path("list.csv").write_text(f"phone\n{PHONE}\nx\n")
    Path("list.csv").chmod(0o600)
    commands = [
        ("init",),
        ("clients", "import", "list.csv", "--skip-invalid", "--rejects", "bad.csv"),
        ("mailings", "create", "--text", "x", "--all", "--end", "+1h"),
        ("clients", "export", "out.csv"),
        ("db", "backup", "copy.db"),
        ("dispatch",),
        ("db", "restore", "copy.db", "--yes"),
        ("sandbox", "--ledger", "ledger.jsonl", "--stop-after", "0.1"),
    ]
    for command in commands:
        os.umask(0)
        mailer(*command, code=None)
        if command == ("init",):
            with Path(".env").open("a") as file:
                file.write(
                    f"TOKEN={TOKEN}\nURL=http://127.0.0.1:9/\nMAILER_TIMEOUT=0.2\nMAILER_LOG=log\nMAILER_JOURNAL={journal}\n"
                )
            os.umask(0)
            mailer("db", "upgrade")
        with closing(sqlite3.connect("mailer.db")) as raw:  # holds what a run would leave behind
            raw.execute("SELECT count(*) FROM client").fetchone()
            made = {path.name: path.stat().st_mode & 0o777 for path in Path().iterdir()}
        assert set(made.values()) == {0o600}, made
    assert {"bad.csv", "out.csv", "copy.db", "log", "mailer.db.lock", "ledger.jsonl"} <= set(made)
    assert any(".before-restore-" in name for name in made)
    assert ("mailer.db-wal" in made) == (journal == "wal")


def test_the_quick_way_of_an_idle_dispatch_sets_it_too(
    mailer: Mailer, database: Database, lax: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailer("dispatch")  # the first one makes the lock
    os.umask(0)
    monkeypatch.setattr("sys.argv", ["mailer", "dispatch"])
    assert start.main(Stop(time.monotonic)) == 0
    assert os.umask(0) == 0o077


@pytest.mark.parametrize("command", [("clients", "export"), ("db", "backup")])
def test_what_takes_the_place_of_an_open_file_is_closed(
    mailer: Mailer, database: Database, command: tuple[str, ...]
) -> None:
    Path("old").write_text("old")
    Path("old").chmod(0o644)
    mailer(*command, "old", "--force")
    assert Path("old").stat().st_mode & 0o777 == 0o600


def test_init_warns_of_settings_that_others_can_read_and_a_dispatch_is_silent(
    mailer: Mailer, database: Database
) -> None:
    assert mailer("init").err == ""
    Path(".env").chmod(0o644)
    ran = mailer("init")
    assert ran.err == "warning: other users can read .env, which holds the token: chmod 600 .env\n"
    assert mailer("dispatch", "--quiet").err == ""


@pytest.mark.parametrize(("mode", "said"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_database_that_everybody_can_read_is_a_warning(
    mailer: Mailer, database: Database, mode: int, said: bool
) -> None:
    database.path.chmod(mode)
    assert ("every user can read mailer.db" in mailer("doctor").out) == said


def test_a_list_goes_through_a_link_to_a_file_and_never_through_a_link_to_nothing(
    mailer: Mailer, database: Database
) -> None:
    Path("there").write_text("old")
    Path("link").symlink_to("there")
    mailer("clients", "export", "link", "--force")
    assert Path("link").is_symlink() and Path("there").read_text().startswith("phone")
    Path("there").unlink()
    assert "a link to nothing" in mailer("clients", "export", "link", code=2).err
    assert not Path("there").exists()


def test_a_list_is_not_written_to_a_terminal_that_has_a_name(mailer: Mailer, database: Database) -> None:
    leader, follower = pty.openpty()
    Path("bad.csv").write_text("phone\n\x1b]0;x\x07\n")
    for command in (("export",), ("import", "bad.csv", "--rejects")):
        assert "it is a terminal" in mailer("clients", *command, os.ttyname(follower), code=2).err
    os.close(follower)
    os.close(leader)


@pytest.mark.parametrize(
    "command",
    [
        ("clients", "export"),
        ("clients", "import"),
        ("db", "backup"),
        ("db", "restore", "--yes"),
    ],
)
def test_a_file_that_cannot_be_looked_at_is_no_bug(
    mailer: Mailer, database: Database, command: tuple[str, ...]
) -> None:
    ran = mailer(*command, "x" * 300, code=None)
    assert ran.code in (2, 74) and "File name too long" in ran.err


# The token and phones


def test_the_token_is_in_nothing_that_is_printed_or_logged(mailer: Mailer, logged: Path) -> None:
    commands: list[tuple[str, ...]] = [
        ("init",),
        ("doctor",),
        ("dispatch",),
        ("schedule", "cron"),
        ("schedule", "systemd"),
        ("stats",),
        ("mailings", "create", "--text", "x", "--all", "--end", "+1h", "--dispatch"),
    ]
    for command in commands:
        ran = mailer(*command, "--verbose", code=None)
        assert ran.out + ran.err and TOKEN not in ran.out + ran.err
    assert TOKEN not in logged.read_text()


def test_the_log_and_what_verbose_says_have_no_whole_phone_and_no_text(mailer: Mailer, logged: Path) -> None:
    ran = mailer("dispatch", "--verbose", code=69)
    for told in (ran.out + ran.err, logged.read_text()):
        assert "7916***4567" in told
        assert str(PHONE) not in told and "for you alone" not in told


@pytest.mark.parametrize("name", ["URL", "MAILER_PROXY", "MAILER_DATABASE"])
@pytest.mark.parametrize("value", HIDDEN)
def test_no_command_shows_a_password_in_an_address(mailer: Mailer, name: str, value: str) -> None:
    lines = {"TOKEN": TOKEN, "URL": "http://127.0.0.1:9/"} | {name: value}
    Path(".env").write_text("".join(f"{name}='{value}'\n" for name, value in lines.items()))
    for command in (
        ["doctor"],
        ["dispatch", "-v"],
        ["init"],
        ["clients", "list", "--json"],
        ["schedule", "cron"],
    ):
        ran = mailer(*command, code=None)
        assert ran.code != 70 and WORD not in ran.out + ran.err, command
    if name == "MAILER_DATABASE":
        ran = mailer("--database", value, "db", "upgrade", code=None)
        assert ran.code in (74, 78) and WORD not in ran.out + ran.err


def test_a_bug_in_the_middle_of_a_run_tells_neither_token_nor_phone(
    mailer: Mailer, logged: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: Gateway, *given: object, **more: object) -> None:
        raise ValueError(f"{given} {TOKEN}")

    monkeypatch.setattr(Gateway, "send", broken)
    ran = mailer("dispatch", code=70)
    told = ran.out + ran.err + caplog.text + logged.read_text()
    assert "ValueError" in told and str(PHONE) not in told and TOKEN not in told


# The page that says so


def test_the_page_names_tests_that_are_there() -> None:
    here = Path(__file__).parent
    page = (here.parent / "docs" / "SECURITY.md").read_text()
    module = ""
    names = re.findall(r"`(\.\.|test_\w+)(?:::(test_\w+))?`", page)
    for name, test in names:
        module = module if name == ".." else name
        text = (here / f"{module}.py").read_text()
        assert not test or f"def {test}(" in text, (module, test)
    assert len(names) > 15
