"""What a terminal would obey, put wherever data can come from: it is shown and never sent."""

import io
import json
import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from mailer_cli import output
from mailer_cli.cli import main
from mailer_cli.database import Database
from tests.rows import NOON, add_attempt, add_client, add_mailing, add_message

# the clipboard, the title, colours by a C1 byte, right to left, a line that overwrites itself, Rich's markup
NASTY = "\x1b]52;c;ZXZpbA==\x07\x1b]0;x\x1b\\\x9b31m\u202egnp\u2066\u200b\x7f\x08\r\x0b\u2028[/x][red]"
OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
BYTES = os.fsdecode(b"\xff\x9b31m")  # what a shell hands over, and no UTF-8
PHONE = 79161234567


class Screen(io.StringIO):
    """A terminal without colours, so that whatever it is told comes from data."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def hostile(database: Database) -> None:
    """A database that is full of it, as a restored or an edited one may be."""
    client = add_client(database, PHONE, tag=NASTY, timezone=NASTY)
    known = add_client(database, PHONE + 1, tag=NASTY, operator_code="\x1b[m")
    mailing = add_mailing(
        database, text=f"a\n{NASTY}", tags=(NASTY,), operator_codes=("\x1b[m",), everyone=False
    )
    for each in (client, known):
        message = add_message(database, mailing, each, "failed", reason=NASTY, timezone=NASTY)
        add_attempt(database, message, 1, ended_at=NOON, outcome="rejected", error=NASTY)
    with database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE run SET host = ?, stopped = ?, ended_at = started_at", (NASTY, NASTY)
        )
    Path(NASTY.replace("/", "")).write_text(f"phone,tag,{NASTY}\n{NASTY},{NASTY},x\n7916,x\n")


Shown = Callable[..., str]


@pytest.fixture(params=["terminal", "pipe"])
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """All that a command says, to a terminal or into a pipe; it must not have run into a bug of ours."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str | int) -> str:
        stdout, stderr = (
            (Screen(), Screen()) if request.param == "terminal" else (io.StringIO(), io.StringIO())
        )
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stdout)
            patched.setattr(sys, "stderr", stderr)
            patched.setattr(sys, "stdin", Screen("n\n"))
            code = main([str(each) for each in arguments])
        assert code != 70, stderr.getvalue()
        return stdout.getvalue() + stderr.getvalue()

    return run


def obeyed(text: str) -> set[str]:
    return {each for each in text if unicodedata.category(each) in OBEYED} - {"\n"}


FILE = NASTY.replace("/", "")
LOOKS = [
    ("clients", "list"),
    ("clients", "show", 1),
    ("clients", "edit", 2, "--operator-code", "916"),
    ("clients", "import", FILE),
    ("clients", "import", FILE, "--skip-invalid", "--rejects", f"{FILE}.bad"),
    ("mailings", "list"),
    ("mailings", "show", 1),
    ("mailings", "pause", 1),
    ("mailings", "edit", 1, "--text", NASTY, "--dry-run"),
    ("mailings", "create", "--text", NASTY, "--all", "--end", "+1h"),
    ("mailings", "create", "--text", "x", "--all", "--end", "+1h", "--dry-run"),
    ("messages", "list"),
    ("messages", "list", "--reason", NASTY),
    ("messages", "show", 1),
    ("stats",),
    *(("stats", 1, "--by", by) for by in ("status", "operator", "tag", "timezone", "reason", "hour")),
    ("doctor",),
    ("db", "check"),
    ("db", "backup", f"{FILE}.db", "--force"),
    ("--database", f"{FILE}.db", "stats"),
    ("db", "restore", f"{FILE}.db"),
    ("dispatch", "--dry-run"),
    ("dispatch",),
]
MISTAKES = [
    (NASTY,),
    (f"--{NASTY}",),
    ("stats", f"--{NASTY}"),
    ("stats", NASTY),
    ("stats", 1, "--by", NASTY),
    ("-C", NASTY, "stats"),
    ("--env-file", NASTY, "stats"),
    ("--database", NASTY, "stats"),
    ("--database", f"postgresql://{NASTY}", "stats"),
    ("--database", FILE, "stats"),
    ("clients", "show", NASTY),
    ("clients", "add", "--phone", NASTY),
    ("clients", "add", "--phone", PHONE, "--tag", NASTY),
    ("clients", "add", "--phone", PHONE, "--timezone", NASTY),
    ("clients", "add", "--phone", PHONE, "--operator-code", NASTY),
    ("clients", "list", "--status", NASTY),
    ("clients", "import", f"{NASTY}/"),
    ("clients", "export", f"{NASTY}/x"),
    ("mailings", "show", NASTY),
    ("mailings", "list", "--status", NASTY),
    ("mailings", "create", "--text-file", f"{NASTY}/", "--all", "--end", "+1h"),
    *(
        ("mailings", "create", "--text", "x", "--all", "--end", "+1h", option, NASTY)
        for option in ("--start", "--end", "--rate", "--window", "--tag", "--operator-code", "--priority")
    ),
    ("messages", "list", "--status", NASTY),
    ("health", "--max-age", NASTY),
    ("db", "restore", f"{NASTY}/", "--yes"),
    ("db", "restore", FILE, "--yes"),
    ("sandbox", "--fault", NASTY),
    ("sandbox", "--latency", NASTY),
    ("messages", "list", "--reason", BYTES),
    ("--database", BYTES, "init"),
    ("db", "backup", BYTES),
]


def test_what_data_would_do_to_a_terminal_is_shown_and_not_done(hostile: None, shown: Shown) -> None:
    for arguments in LOOKS:
        for option in ("--no-color", "--json", "--verbose"):
            words = (option, *arguments) if option == "--no-color" else (*arguments, option)
            assert obeyed(shown(*words)) == set(), words


def test_a_mistake_is_repeated_harmlessly(hostile: None, shown: Shown) -> None:
    for arguments in MISTAKES:
        assert obeyed(shown(*arguments)) == obeyed(shown(*arguments, "--json")) == set(), arguments


def test_a_setting_is_repeated_harmlessly(hostile: None, shown: Shown) -> None:
    right = Path(".env").read_text()
    for name in ("URL", "MAILER_RATE", "MAILER_TIMEZONE", "MAILER_JOURNAL", "MAILER_LOG", "MAILER_X\x1b"):
        Path(".env").write_text(f"{right}{name}='{NASTY}'\n")
        for command in ("doctor", "stats", "dispatch"):
            assert obeyed(shown(command)) == set(), name


def test_a_csv_list_is_harmless_on_a_terminal_and_exact_in_a_pipe(
    hostile: None, shown: Shown, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["shown"] == "pipe":
        assert NASTY in shown("clients", "export")
        return
    out = shown("clients", "export", "--delimiter", "tab")
    assert obeyed(out) == {"\t"}
    assert "\\x1b]52" in out and out.count("\n") == 3


def test_no_character_there_is_gets_through_and_json_loses_none() -> None:
    text = "".join(map(chr, range(sys.maxunicode, -1, -1)))  # backwards, so that no halves make a pair
    assert obeyed(output.clean(text)) == obeyed(output.dumps(text)) == set()
    assert json.loads(output.dumps(text)) == text


def test_the_name_of_a_list_is_harmless_beside_its_bar(
    hostile: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "300")
    stderr = Screen()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert main(["clients", "import", FILE]) == 1
    assert "importing" in stderr.getvalue() and "[x]" in stderr.getvalue()
    assert not {"\x07", "\x9b", "\u202e"} & set(stderr.getvalue()) and "\x1b]" not in stderr.getvalue()
