"""`mailer dispatch` as a contender: a database made by the program's own commands, copied for each round; and
its client for the gateway alone."""

import contextlib
import csv
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Prepared, Recorded
from benchmarks.sink import JWT, environment

CODES = range(900, 1000)
TEXT = "Скидка 20 % до воскресенья: промокод ЛЕТО"


@dataclass
class Templates:
    """Databases with so many pending messages, each made once in the folder."""

    folder: Path

    def get(self, messages: int) -> Path:
        found = self.folder / str(messages)
        if not found.exists():
            making = self.folder / "making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            _make(making, messages)
            making.rename(found)
        return found


def _make(folder: Path, messages: int) -> None:
    """Import so many clients and create a mailing to all of them, which fixes its audience at once."""
    write_clients(folder / "clients.csv", messages)
    mailer(folder, "init")
    mailer(folder, "clients", "import", "clients.csv")
    mailer(folder, "mailings", "create", "--text", TEXT, "--all", "--end", "+12h")
    (folder / "clients.csv").unlink()


def write_clients(path: Path, rows: int) -> None:
    """Clean rows with phones of their own, of a hundred operators and three tags."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["phone", "operator_code", "tag", "timezone"])
        for number in range(rows):
            serial, code = divmod(number, len(CODES))
            tag = ("vip", "retail", "")[number % 3]
            out.writerow([f"7{CODES[code]}{serial:07}", CODES[code], tag, "Europe/Moscow"])


def mailer(folder: Path, *arguments: str) -> Any:
    """Run a command in a folder; its JSON. Raises: RuntimeError."""
    command = [sys.executable, "-m", "mailer_cli", *arguments, "--json"]
    ran = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"mailer {' '.join(arguments)}: exit {ran.returncode}: {ran.stderr.strip()}")
    return json.loads(ran.stdout)


@dataclass(frozen=True)
class Dispatch:
    """So many `mailer dispatch` at once. `settings` are written to `.env` as `MAILER_<NAME>`; with `watched`
    the time in transactions is told among the details."""

    templates: Templates
    settings: Mapping[str, object] = field(default_factory=dict)
    runs: int = 1
    watched: bool = False

    @property
    def name(self) -> str:
        return "mailer dispatch" if self.runs == 1 else f"{self.runs} x mailer dispatch"

    def missing(self) -> None:
        return None

    @contextmanager
    def prepared(self, folder: Path, messages: int, url: str) -> Iterator[Prepared]:
        shutil.copytree(self.templates.get(messages), folder, dirs_exist_ok=True)
        settings = {"max_seconds": 3600} | dict(self.settings)
        lines = [
            f"TOKEN={JWT}",
            f"URL={url}",
            *(f"MAILER_{name.upper()}={settings[name]}" for name in settings),
        ]
        (folder / ".env").write_text("\n".join([*lines, ""]))
        (folder / ".env").chmod(0o600)
        module = "benchmarks.watched_dispatch" if self.watched else "mailer_cli"
        command = [sys.executable, "-m", module, "dispatch", "--json"]
        yield Prepared([command] * self.runs, lambda: self._recorded(folder))

    def _recorded(self, folder: Path) -> Recorded:
        with contextlib.closing(sqlite3.connect(folder / "mailer.db")) as database:
            sent = database.execute("SELECT count(*) FROM message WHERE status = 'sent'").fetchone()[0]
        summaries = [json.loads((folder / f"out-{number}").read_text()) for number in range(1, self.runs + 1)]
        details = {"seconds": max(each["seconds"] for each in summaries)}
        if self.watched:
            details |= json.loads((folder / "watched.json").read_text())
        return Recorded(sent, said=sum(each["sent"] for each in summaries), details=details)


@dataclass(frozen=True)
class BareClient:
    """The gateway's client alone: no queue, no database."""

    in_flight: int
    name: str = "the client alone"

    def missing(self) -> None:
        return None

    @contextmanager
    def prepared(self, folder: Path, messages: int, url: str) -> Iterator[Prepared]:
        options = (url, str(messages), str(self.in_flight))
        yield Prepared(
            [[sys.executable, "-m", "benchmarks.bare_client", *options]],
            lambda: Recorded(int((folder / "out-1").read_text())),
        )
