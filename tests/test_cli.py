"""What holds for every command: help, options, errors, exit codes, and one JSON value."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mailer_cli import __version__
from mailer_cli.cli import app, main
from mailer_cli.database import Database
from tests.conftest import Mailer


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from leaves(child, (*path, name))
    else:
        yield path, command


COMMANDS = dict(leaves(typer.main.get_command(app)))
README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_has_an_example_of_this_command_and_its_exit_codes(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"mailer {' '.join(words)}" in shown.split("Example:")[1].split("Exit codes:")[0]
    assert re.search(r"Exit codes:\n +0  done", shown)
    assert {"--json", "--quiet", "--verbose"} <= set(shown.split(",")[0].split()) | set(
        re.findall(r"--\w+", shown)
    )
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("words", sorted({words[0] for words in COMMANDS}))
def test_the_readme_names_every_command(words: str) -> None:
    assert re.search(rf"^(\$ )?mailer ([\w, ]*, )?{words}\b", README, re.M), words


def test_every_command_line_of_the_readme_is_understood(mailer: Mailer, database: Database) -> None:
    """Each `$ mailer ...` line names a command that there is, with options that it has."""
    lines = re.findall(r"^\$ mailer (.+?)(?: \|.*)?$", README, re.M)
    assert len(lines) > 10
    for line in lines:
        words = [word for word in line.split() if not word.startswith("-")]
        command = COMMANDS.get((words[0],)) or COMMANDS[words[0], words[1]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[\w-]+", line)) <= known, line


def test_the_version_is_printed(mailer: Mailer) -> None:
    assert mailer("--version").out == f"mailer {__version__}\n"


def test_the_program_alone_shows_its_help_and_is_a_misuse(mailer: Mailer) -> None:
    ran = mailer(code=2)
    assert "Commands:" in ran.err and "error:" not in ran.err and ran.out == ""
    assert "import" in mailer("clients", code=2).err


def test_a_misspelled_command_is_one_line_with_a_suggestion(mailer: Mailer) -> None:
    ran = mailer("clinets", code=2)
    assert ran.err.splitlines() == [
        "error: there is no command 'clinets' of mailer",
        "hint: did you mean mailer clients?",
    ]


def test_a_misspelled_option_names_the_command_that_helps(mailer: Mailer) -> None:
    ran = mailer("clients", "list", "--tga", "vip", code=2)
    assert "--tga" in ran.err and "hint: mailer clients list --help" in ran.err


def test_an_error_is_one_json_object_on_stderr(mailer: Mailer) -> None:
    ran = mailer("clients", "list", "--json", code=78)
    assert ran.out == ""
    error = json.loads(ran.err)["error"]
    assert error == {
        "code": "misconfigured",
        "message": "there is no database mailer.db",
        "hint": "mailer init",
    }
    assert json.loads(mailer("nothing", "--json", code=2).err)["error"]["code"] == "invalid"


def test_a_folder_is_entered_before_the_command(mailer: Mailer, folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    mailer("-C", "elsewhere", "init")
    assert (folder / "elsewhere" / "mailer.db").exists()
    assert "cannot enter" in mailer("-C", "nowhere", "stats", code=2).err


def test_database_and_settings_file_can_be_named(mailer: Mailer, folder: Path) -> None:
    (folder / "other.env").write_text("MAILER_DATABASE=other.db\n")
    mailer("--env-file", "other.env", "init")
    mailer("--env-file", "other.env", "--database", "third.db", "init")
    assert (folder / "other.db").exists() and (folder / "third.db").exists()
    assert mailer("--env-file", "none.env", "stats", code=78).err.startswith(
        "error: there is no settings file"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("clients", "list"),
        ("mailings", "list"),
        ("messages", "list"),
        ("stats",),
        ("dispatch",),
        ("dispatch", "--dry-run"),
        ("doctor",),
        ("db", "check"),
        ("schedule", "cron"),
        ("clients", "export"),
    ],
    ids=" ".join,
)
def test_json_is_one_value_and_nothing_else(
    mailer: Mailer, database: Database, words: tuple[str, ...]
) -> None:
    assert mailer(*words, "--json").json is not None


def test_a_bug_is_one_line_with_its_place_and_without_values(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("79161234567")

    monkeypatch.setattr("mailer_cli.stats.general", broken)
    ran = mailer("stats", code=70)
    assert re.match(r"error: internal error: KeyError at test_cli\.py:\d+\n", ran.err)
    assert "79161234567" not in ran.err


def test_what_changes_something_is_in_the_log_with_its_ids_and_without_phones(
    mailer: Mailer, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILER_LOG", "mailer.log")
    mailer("clients", "add", "--phone", "79161234567")
    mailer("mailings", "create", "--text", "hi", "--all", "--end", "+1h", "--dry-run")
    mailer("mailings", "create", "--text", "hi", "--all", "--end", "+1h")
    mailer("mailings", "create", "--text", "hi", "--all", "--end", "+1h", "--paused")
    mailer("mailings", "pause", 1, 2)
    mailer("mailings", "show", 1)
    mailer("mailings", "pause", 7, code=1)
    mailer("clients", "remove", 1, "--yes")
    kept = [json.loads(line) for line in (folder / "mailer.log").read_text().splitlines()]
    assert [each.pop("event") for each in kept] == ["command"] * 5 and all(each.pop("at") for each in kept)
    assert kept == [
        {"command": "mailer clients add", "client_id": 1},
        {"command": "mailer mailings create", "mailing_id": 1},
        {"command": "mailer mailings create", "mailing_id": 2},
        {"command": "mailer mailings pause", "mailing_ids": [1, 2]},
        {"command": "mailer clients remove", "removed": 1, "cancelled": 1},
    ]


def test_verbose_tells_on_stderr_what_is_used_and_done(
    mailer: Mailer, database: Database, folder: Path
) -> None:
    ran = mailer("clients", "add", "--phone", "79161234567", "--verbose", "--json")
    assert ran.json["id"] == 1
    assert f"database {folder / 'mailer.db'}, times in Europe/Moscow" in ran.err
    assert '"client_id": 1' in ran.err and "79161234567" not in ran.err


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_and_version_load_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    heavy = "sqlalchemy sqlmodel httpx aiohttp alembic rich pydantic tenacity asyncio"
    code = (
        "import sys; from mailer_cli.cli import main; main(sys.argv[1:]);"
        f"print(sorted(set({heavy.split()!r}) & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert ran.stderr == "[]\n"


def test_a_reader_that_leaves_early_is_no_error(mailer: Mailer, database: Database) -> None:
    script = f"{sys.executable} -m mailer_cli clients export | head -c 1"
    env_path = str(Path(__file__).parent.parent)
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": env_path, "PATH": "/usr/bin:/bin"},
    )
    assert (ran.returncode, ran.stderr) == (0, "")
