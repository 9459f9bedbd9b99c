"""Numbers that nothing can hold, and streams that are closed: refused in one line, never a bug of ours."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mailer_cli.database import Database
from mailer_cli.settings import Settings
from tests.conftest import TOKEN, Mailer
from tests.test_cli import COMMANDS

ROOT = Path(__file__).parents[1]
ODD = (
    "99999999999999999999999",
    "-99999999999999999999999",
    "9223372036854775808",
    "-1",
    "0",
    "٣",
    "1e400",
    "nan",
    "9" * 5000,
)
SPANS = {"--older-than", "--max-age", "--rate", "--end", "--start", "--latency", "--outage", "--fault"}
NEEDED: dict[tuple[str, ...], list[str]] = {
    ("sandbox",): ["--stop-after", "0.01"],
    ("mailings", "create"): ["--text", "x", "--all", "--end", "+1h", "--paused"],
    ("mailings", "remove"): ["--yes"],
    ("mailings", "cancel"): ["--yes"],
    ("clients", "remove"): ["--yes"],
    ("clients", "edit"): ["--tag", "x"],
    ("db", "purge"): ["--older-than", "90d", "--yes"],
    ("messages", "resolve"): ["--as", "sent"],
}


def is_argument(parameter: Any) -> bool:
    return not parameter.opts[0].startswith("-")


def numbers() -> list[tuple[tuple[str, ...], Any]]:
    """Every parameter that takes a number, a duration, a rate or a time, with its command."""
    return [
        (words, each)
        for words, command in COMMANDS.items()
        for each in command.params
        if each.type_descriptor.annotation in (int, float) or SPANS & set(each.opts)
    ]


FOUND = numbers()


def test_numbers_are_found_in_most_commands() -> None:
    assert len(FOUND) > 35
    assert {words for words, _ in FOUND} >= {("dispatch",), ("clients", "show"), ("sandbox",), ("stats",)}


@pytest.mark.parametrize(
    ("words", "parameter"), FOUND, ids=[f"{'-'.join(words)}-{each.name}" for words, each in FOUND]
)
def test_an_odd_number_is_no_bug(
    mailer: Mailer, database: Database, words: tuple[str, ...], parameter: Any
) -> None:
    given = [*words, *NEEDED.get(words, [])]
    arguments = ["1" for each in COMMANDS[words].params if is_argument(each) and each.required]
    for odd in ODD:
        value = f"+{odd}d" if parameter.name in ("end", "start") else odd
        if is_argument(parameter):
            ran = mailer(*given, "--", value, code=None)
        else:
            ran = mailer(*given, f"{parameter.opts[0]}={value}", *arguments, code=None)
        assert ran.code in (0, 1, 2, 69, 78), (odd[:30], ran)
        assert ran.err.count("error: ") == (ran.code != 0), ran


CLOSED = (
    ("clients", "import", "-"),
    ("clients", "import", "-", "--rejects", "rejects.csv"),
    ("mailings", "create", "--text-file", "-", "--all", "--end", "+1h"),
    ("mailings", "edit", "1", "--text-file", "-"),
    ("db", "purge", "--older-than", "1d"),
    ("db", "restore", "mailer.db"),
    ("mailings", "cancel", "--all"),
    ("stats",),
    ("dispatch",),
)


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-"])
@pytest.mark.parametrize("words", CLOSED, ids=" ".join)
def test_a_stream_that_is_closed_is_no_bug(database: Database, words: tuple[str, ...], closed: str) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "mailer_cli", *words]
    ran = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ran.returncode in (0, 1, 2, 74), ran
    assert ran.stderr.count("error: ") == (ran.returncode > 0), ran


@pytest.mark.parametrize("host", ["xn--", "xn--a", "a.xn--", "xn--ü", "%zz", "a%40b"])
@pytest.mark.parametrize("name", ["URL", "MAILER_PROXY"])
def test_a_host_that_is_no_name_is_a_wrong_setting(
    mailer: Mailer, database: Database, host: str, name: str
) -> None:
    settings = {"TOKEN": TOKEN, "URL": "http://127.0.0.1:9/"} | {name: f"http://{host}/"}
    Path(".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    for command in ("dispatch", "doctor"):
        ran = mailer(command, code=78)
        assert name in ran.out + ran.err and host not in ran.out + ran.err


@pytest.mark.parametrize(
    "host", ["xn--mnchen-3ya.de", "münchen.de", "a_b", "[::1]", "127.0.0.1", "h-1.example."]
)
def test_a_host_that_is_a_name_is_taken(host: str) -> None:
    assert Settings(url=f"http://{host}/").require_url() == f"http://{host}"
