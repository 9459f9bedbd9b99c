"""How results look on a terminal and in a pipe, whatever is in them, and what if nobody takes them."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer_cli import output
from mailer_cli.database import Database
from mailer_cli.errors import DatabaseFailed, Invalid, Refused
from mailer_cli.output import Card, Note, Printer, Table, Text, column
from mailer_cli.output.layout import fit
from mailer_cli.output.safe import width
from tests.conftest import Mailer

NASTY = [
    "[/x]",
    "[bold]a[/bold]",
    ":fire:",
    "\x1b]52;c;ZXZpbA==\x07",
    "\u202egnp.exe",
    "a\nb",
    "\x9b31m",
    "漢字",
    "\ud800",
]


class Screen(io.StringIO):
    """A terminal of so many cells."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return sized(monkeypatch, 80)


def sized(monkeypatch: pytest.MonkeyPatch, cells: int) -> Screen:
    monkeypatch.setenv("COLUMNS", str(cells))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return Screen()


def shown(result: output.Result, stream: io.StringIO | None = None, **options: bool) -> str:
    stdout = stream or io.StringIO()
    Printer(stdout=stdout, stderr=io.StringIO(), **options).show(result)
    return stdout.getvalue()


def bare(text: str) -> str:
    """Without colours and weights."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def people(*texts: str) -> Table:
    rows = [{"id": 12_000_000_000 + place, "tag": text} for place, text in enumerate(texts)]
    return Table(rows, [column("id", right=True), column("tag", flexible=True)])


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("where", ["pipe", "terminal"])
def test_user_data_is_shown_and_never_obeyed(screen: Screen, nasty: str, where: str) -> None:
    stream = screen if where == "terminal" else None
    for result in (people(nasty), Card({}, [("tag", nasty)]), Note({}, [nasty])):
        out = bare(shown(result, stream))
        assert output.clean(nasty) in out
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\ud800"} & set(out)


@pytest.mark.parametrize("nasty", NASTY)
def test_json_is_harmless_and_loses_nothing(nasty: str) -> None:
    out = shown(people(nasty), as_json=True)
    assert json.loads(out)[0]["tag"] == nasty
    assert out.removesuffix("\n").isprintable()


def test_a_list_streams_as_one_json_value_in_lines_of_one_row() -> None:
    assert shown(Table([{"a": 1}, {"a": "я"}], []), as_json=True) == '[{"a": 1},\n {"a": "я"}]\n'
    assert shown(Table([], []), as_json=True) == "[]\n"


def test_a_long_list_is_shown_while_it_is_read() -> None:
    stream, seen = io.StringIO(), []

    def rows() -> Iterator[dict[str, int]]:
        for number in range(1000):
            seen.append(len(stream.getvalue()))
            yield {"id": number}

    shown(Table(rows(), [column("id")]), stream)
    assert seen[-1] > 0


@pytest.mark.parametrize("number", [200, 201, 450])
@pytest.mark.parametrize("cells", [40, 80])
def test_no_row_of_a_long_list_is_lost_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, number: int, cells: int
) -> None:
    out = bare(shown(people(*["x"] * number), sized(monkeypatch, cells)))
    assert len([line for line in out.splitlines() if " x" in line]) == number


def test_a_piped_line_has_no_blanks_at_its_end() -> None:
    assert shown(people("a", "")) == "         id  tag\n12000000000  a\n12000000001\n"


def test_an_empty_table_says_so() -> None:
    assert shown(Table([], [column("id")], empty="no clients found")) == "no clients found\n"


def test_in_a_pipe_a_record_is_a_line_and_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = shown(people("漢字" * 60, "a" * 200)).splitlines()
    assert [line.split()[-1] for line in lines] == ["tag", "漢字" * 60, "a" * 200]
    assert lines[1].split()[0] == "12000000000"


def test_a_pipe_is_as_wide_as_columns_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(people("漢字" * 60, "a" * 200)).splitlines()
    assert [width(line) <= 80 for line in lines] == [True] * 3
    assert lines[1].endswith("…")


@pytest.mark.parametrize("cells", [20, 40, 80])
def test_numbers_and_ids_are_never_cut(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    names = ("id", "mailing_id", "client_id", "phone")
    table = Table([dict.fromkeys(names, 12_345_678_901)], [column(name) for name in names])
    assert bare(shown(table, sized(monkeypatch, cells))).count("12345678901") == 4


def test_columns_leave_in_their_order_and_the_screen_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [column("id"), column("first", leaves=1), column("second", leaves=2), column("third", leaves=3)]
    table = Table([{"id": 1, "first": "x" * 10, "second": "y" * 10, "third": "z" * 10}], columns)
    out = bare(shown(table, sized(monkeypatch, 30)))
    assert ("x" * 10 in out, "y" * 10 in out, "z" * 10 in out) == (True, True, False)
    assert out.splitlines()[-1].strip() == "no room for: third"


def test_a_flexible_column_shrinks_only_as_far_as_it_must() -> None:
    columns = [column("id"), column("text", flexible=True)]
    assert fit(columns, [["1", "x" * 50]], 60)[1] == [2, 50]
    assert fit(columns, [["1", "x" * 50]], 40)[1] == [2, 36]
    assert fit(columns, [["1", "x" * 50]], 5)[1] == [2, 10]


@pytest.mark.parametrize("cells", range(4, 40))
def test_a_table_fits_exactly_on_a_terminal(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    table = Table([{"a": "漢字" * 30, "b": 7}], [column("a", flexible=True), column("b", right=True)])
    lines = bare(shown(table, sized(monkeypatch, cells))).splitlines()
    assert max(map(width, lines)) <= max(cells, 13)


def test_a_terminal_has_colours_unless_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table([{"status": "sent"}], [column("status", status=True)])
    assert "\x1b[32msent" in shown(table, sized(monkeypatch, 80))
    assert "\x1b[32m" not in shown(table, sized(monkeypatch, 80), colour=False)
    assert "\x1b" not in shown(table)


def test_a_long_value_of_a_card_goes_on_under_itself_on_a_terminal_and_is_one_line_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = Card({}, [("text", "ab " * 30), ("id", "7")])
    lines = bare(shown(card, sized(monkeypatch, 40))).splitlines()
    assert [line[:8] for line in lines] == ["text  ab", "      ab", "      ab", "id    7 "]
    assert len(shown(card).splitlines()) == 2


@pytest.mark.parametrize(("share", "cells"), [(0, 0), (0.0001, 1), (0.5, 10), (1, 20), (1.5, 20), (-1, 0)])
def test_a_bar_shows_what_is_not_nothing(share: float, cells: int) -> None:
    assert len(output.bar(share)) == cells


@pytest.mark.parametrize(
    ("counts", "drawn"),
    [
        ((0, 0, 0), ""),
        ((1, 0, 0), "██████████"),
        ((1_000_000, 1, 1), "████████▒░"),
        ((0, 1, 1), "▒▒▒▒▒░░░░░"),
        ((1, 1, 1), "████▒▒▒░░░"),
    ],
)
def test_a_divided_bar_is_full_and_hides_nothing(counts: tuple[int, int, int], drawn: str) -> None:
    assert output.stack(*counts, cells=10) == drawn


def test_quiet_says_nothing_but_what_was_asked_for() -> None:
    assert shown(Note({}, ["done"]), quiet=True) == ""
    assert shown(Card({}, [("id", "1")]), quiet=True) == ""
    assert shown(people("a"), quiet=True) != ""
    assert shown(Text("csv", ["a,b\n"]), quiet=True) == "a,b\n"


def test_an_error_is_one_line_whatever_is_in_it() -> None:
    stderr = io.StringIO()
    Printer(stderr=stderr).error(Refused("no tag a\nb\x1b[31m", "mailer\nclients"))
    assert stderr.getvalue() == "error: no tag a\\nb\\x1b[31m\nhint: mailer\\nclients\n"


def test_an_error_for_a_script_is_an_object() -> None:
    stderr = io.StringIO()
    Printer(as_json=True, stderr=stderr).error(Refused("no", "try"))
    assert json.loads(stderr.getvalue()) == {"error": {"code": "refused", "message": "no", "hint": "try"}}


def test_nobody_is_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert Printer(stderr=io.StringIO()).confirm("Sure?", yes=True)
    with pytest.raises(Invalid, match="no terminal"):
        Printer(stderr=io.StringIO()).confirm("Sure?", yes=False)


@pytest.mark.parametrize(("answer", "sure"), [("y\n", True), ("YES\n", True), ("\n", False), ("", False)])
def test_only_yes_is_a_yes(monkeypatch: pytest.MonkeyPatch, answer: str, sure: bool) -> None:
    stdin = Screen(answer)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert Printer(stderr=Screen()).confirm("Sure?", yes=False) is sure


def test_progress_writes_nothing_without_a_terminal() -> None:
    stderr = io.StringIO()
    with Printer(stderr=stderr).progress("rows", 10) as report:
        report(5)
    assert stderr.getvalue() == ""


def test_a_stream_that_takes_nothing_is_an_error_of_the_disk() -> None:
    with Path("/dev/full").open("w") as full, pytest.raises(DatabaseFailed, match="No space left"):
        Printer(stdout=full).show(Note({}, ["x"]))


def run(command: str, folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **changed}
    line = command.replace("mailer", f"{sys.executable} -m mailer_cli")
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "command",
    [
        "mailer stats >/dev/full",
        "mailer stats --json >/dev/full",
        "mailer --help >/dev/full",
        "mailer --version >/dev/full",
        "mailer stats >&-",
    ],
)
def test_nothing_is_lost_unsaid_when_stdout_cannot_be_written(
    database: Database, folder: Path, command: str
) -> None:
    ran = run(command, folder)
    assert ran.returncode == 74
    assert "cannot write the output" in ran.stderr.splitlines()[0]
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr


def test_with_no_one_to_tell_the_exit_code_still_tells(database: Database, folder: Path) -> None:
    assert run("mailer stats 5 2>/dev/full", folder).returncode == 1
    assert run("mailer stats 5 2>&-", folder).returncode == 1
    assert run("mailer stats >/dev/full 2>/dev/full", folder).returncode == 74


@pytest.mark.parametrize("command", ["--help", "stats --json", "clients list", "dispatch", "dispatch --json"])
def test_a_reader_that_leaves_is_no_error(database: Database, folder: Path, command: str) -> None:
    script = f"set -o pipefail; (sleep 0.1; mailer {command}) | true"  # it has left before there is anything
    assert vars(run(script, folder)).items() >= {"returncode": 0, "stdout": "", "stderr": ""}.items()


def test_a_reader_that_leaves_does_not_hide_what_went_wrong(
    database: Database, mailer: Mailer, folder: Path
) -> None:
    mailer("clients", "add", "--phone", "79161234567")
    mailer("mailings", "create", "--all", "--end", "+1h", "--text", "x")
    script = "set -o pipefail; (sleep 0.1; mailer dispatch) | true"
    assert run(script, folder, MAILER_TIMEOUT="1").returncode == 69


def test_a_reader_may_take_the_beginning_alone(database: Database, folder: Path) -> None:
    ran = run("set -o pipefail; mailer stats --json | head -c 1", folder)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "{", "")


@pytest.mark.parametrize("setting", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "latin-1"}])
def test_a_pipe_gets_utf8_whatever_the_locale_says(
    database: Database, folder: Path, setting: dict[str, str]
) -> None:
    text = "'Привет █'"
    ran = run(f"mailer mailings create --all --end +1h --text {text} --json", folder, **setting)
    assert json.loads(ran.stdout)["text"] == "Привет █"
    assert "Привет █" in run("mailer mailings list", folder, **setting).stdout


def test_a_pipe_does_not_wait_for_rich(database: Database, folder: Path) -> None:
    ran = run("mailer stats", folder, PYTHONPROFILEIMPORTTIME="1")
    assert "mailer_cli.stats" in ran.stderr
    assert "rich.console" not in ran.stderr


def test_a_real_terminal_is_recognised(database: Database, folder: Path) -> None:
    leader, follower = pty.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "TERM": "xterm",
        "COLUMNS": "80",
    }
    command = [sys.executable, "-m", "mailer_cli", "messages", "list"]
    subprocess.run(command, cwd=folder, env=environment, stdout=follower, check=True)
    os.close(follower)
    assert b"no messages found" in os.read(leader, 1000)
    os.close(leader)
