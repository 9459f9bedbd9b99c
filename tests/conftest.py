"""What the tests share: a working folder of one's own, and the function that an operator runs."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailer_cli.cli import main
from mailer_cli.database import Database, open_database
from mailer_cli.settings import Settings

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.c2FuZGJveA"  # expires in 2100, signed by nobody


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For files or a word that somebody has named, this process: others take seconds to start.

    For all tests one process more than cores, because a third of the suite is waiting.
    """
    files = [each for each in config.args if Path(each.partition("::")[0]).is_file()]
    return 0 if files or config.option.keyword else (os.cpu_count() or 1) + 1


@dataclass(frozen=True)
class Ran:
    """What one command did: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Mailer = Callable[..., Ran]


@pytest.fixture(autouse=True)
def laboratories() -> Iterator[None]:
    """What a laboratory's processes have said is looked at, also where a test forgets it."""
    yield
    if opened := sys.modules.get("tests.lab"):
        opened.close_forgotten()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a `.env`; the machine's own settings and zone are out of sight."""
    for name in list(os.environ):
        if name.startswith("MAILER_") or name in ("NO_COLOR", "COLUMNS", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TZ", "Europe/Moscow")
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(f"TOKEN={TOKEN}\nURL=http://127.0.0.1:9/v1/send/\n")
    Path(".env").chmod(0o600)
    return tmp_path


@pytest.fixture
def mailer(folder: Path, capsys: pytest.CaptureFixture[str]) -> Mailer:
    """`mailer("clients", "list")` runs the command in the folder, in this process."""

    def run(*arguments: str | int, code: int | None = 0) -> Ran:
        capsys.readouterr()
        found = main([str(each) for each in arguments])
        printed = capsys.readouterr()
        ran = Ran(found, printed.out, printed.err)
        assert code is None or found == code, ran
        return ran

    return run


@pytest.fixture
def database(mailer: Mailer) -> Iterator[Database]:
    """The database of the folder, as `init` makes it."""
    if not MADE:
        mailer("init")
        MADE.update({path.name: path.read_bytes() for path in Path().glob("mailer.db*")})
    for name, content in MADE.items():
        Path(name).touch(0o600)
        Path(name).write_bytes(content)
    yield open_database(Settings())


MADE: dict[str, bytes] = {}
"""What `init` has made for the first test: the migrations take longer than most of what is tested."""
