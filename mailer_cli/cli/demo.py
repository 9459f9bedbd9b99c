"""`mailer demo`: the whole job in a scratch folder, each step a command that the reader can type."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from mailer_cli import output
from mailer_cli.cli.common import Invocation, command
from mailer_cli.errors import MailerError
from mailer_cli.plural import counted
from mailer_cli.stop import Interrupted

JWT = "eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDB9.c2FuZGJveA"  # signed by nobody, good until 2100
SECONDS = 25  # of dispatching, at most
PAUSE = 2.0  # seconds between two runs; cron waits for the minute
FAULTS = (
    "500=0.03",
    "taken-500=0.01",
    "reset=0.02",
    "garbage=0.02",
    "wrong-code=0.03",
    "400=0.01",
    "hang=0.005",
)


def register(app: typer.Typer) -> None:
    """Hang the command on the program."""

    @command(app, "demo", example="mailer demo --faults", exits=(0, 1, 2, 70))
    def demo(
        at: Invocation,
        messages: Annotated[
            int, typer.Option(min=1, max=100_000, help="Clients, so messages at once.")
        ] = 1000,
        faults: Annotated[bool, typer.Option("--faults", help="Let the gateway misbehave.")] = False,
    ) -> output.Result:
        """The whole job, from a CSV file to statistics, against a sandbox gateway on this machine.

        Everything happens in a scratch folder, which is kept for you to look around, unless you end it.
        """
        folder = Path(tempfile.mkdtemp(prefix="mailer-demo-"))
        stage = Stage(folder, at)
        try:
            with _sandbox(folder, faults) as url:
                _prepare(stage, messages, url)
                _send(stage)
            return _conclude(stage)
        except Interrupted:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@dataclass(frozen=True)
class Stage:
    """The scratch folder, and the commands that are run in it before the reader's eyes."""

    folder: Path
    at: Invocation

    @property
    def is_shown(self) -> bool:
        return not (self.at.printer.as_json or self.at.printer.quiet)

    def tell(self, text: str) -> None:
        if self.is_shown:
            self.at.printer.announce(output.Note(None, [text]))

    def run(self, *arguments: str) -> int:
        """Run a command as typed; what it prints is shown as it comes. Its exit code."""
        self.tell("")
        self.tell("$ mailer " + " ".join(_quoted(each) for each in arguments))
        quiet = None if self.is_shown else subprocess.DEVNULL
        return subprocess.run(
            _mailer(*arguments), cwd=self.folder, stdout=quiet, stderr=quiet, check=False
        ).returncode

    def must(self, *arguments: str) -> None:
        if code := self.run(*arguments):
            raise MailerError(f"the demo's step `mailer {arguments[0]}` ended with exit code {code}")

    def ask(self, *arguments: str) -> Any:
        """What a command answers as JSON, unseen."""
        asked = subprocess.run(
            _mailer(*arguments, "--json"), cwd=self.folder, capture_output=True, check=True
        )
        return json.loads(asked.stdout)


def _mailer(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mailer_cli", *arguments]


def _quoted(argument: str) -> str:
    return f'"{argument}"' if " " in argument else argument


@contextmanager
def _sandbox(folder: Path, faults: bool) -> Iterator[str]:
    """A gateway on loopback for the time of the demo; its address. It stops by itself in any case."""
    options = ["--latency", "0.01-0.05", "--ledger", str(folder / "ledger.jsonl"), "--stop-after", "120"]
    for fault in FAULTS if faults else ():
        options += ["--fault", fault]
    with subprocess.Popen(
        _mailer("sandbox", "--json", *options), stdout=subprocess.PIPE, cwd=folder
    ) as process:
        try:
            yield json.loads(next(iter(process.stdout or ())))["url"]
        finally:
            process.terminate()


def _prepare(stage: Stage, messages: int, url: str) -> None:
    stage.tell(f"A scratch folder, {stage.folder}, and a gateway of our own at {url}")
    stage.must("init")
    (stage.folder / ".env").write_text(f"TOKEN={JWT}\nURL={url}\nMAILER_TIMEOUT=2\n")
    stage.tell("(.env now has the sandbox's URL and a token; yours come from your gateway)")
    (stage.folder / "clients.csv").write_text("\n".join(_clients(messages)) + "\n", "utf-8")
    stage.must("clients", "import", "clients.csv")
    stage.must("mailings", "create", "--text", "Скидка 20% до вечера", "--all", "--end", "+2h")
    stage.must(
        *("mailings", "create", "--text", "Новинки недели", "--tag", "vip"),
        *("--start", "tomorrow 10:00", "--end", "tomorrow 20:00"),
    )
    stage.must(
        *("mailings", "create", "--text", "Доброе утро!", "--tag", "retail", "--tag", "опт"),
        *("--window", "08:00-12:00", "--end", "+2d"),
    )


def _clients(wanted: int) -> Iterator[str]:
    """The bundled list, or as many lines as are wanted: the same people with other numbers."""
    header, *people = (
        resources.files("mailer_cli").joinpath("data/clients.csv").read_text("utf-8").splitlines()
    )
    yield header
    seen: set[int] = set()
    turn = 0
    while len(seen) < wanted:
        for person in people[: wanted - len(seen)]:
            phone = int(person[:11])
            phone = phone - phone % 10_000_000 + (phone + turn * 1_234_567) % 10_000_000
            if phone not in seen:
                seen.add(phone)
                yield f"{phone}{person[11:]}"
        turn += 1


def _send(stage: Stage) -> None:
    """Dispatch as cron would, until nothing is due soon."""
    until = time.monotonic() + SECONDS
    while True:
        stage.run("dispatch")
        waiting = stage.ask("messages", "list", "--mailing", "1", "--status", "pending", "--limit", "1")
        if not waiting or time.monotonic() + PAUSE > until:
            return
        stage.tell("(some messages wait for another try; cron would start the next run)")
        time.sleep(PAUSE)


def _conclude(stage: Stage) -> output.Result:
    stage.run("stats")
    stage.run("stats", "1", "--by", "timezone")
    counts = stage.ask("stats")["messages"]["by_status"]
    accepted = Counter(
        line["id"] for line in map(json.loads, (stage.folder / "ledger.jsonl").open()) if line["accepted"]
    )
    taken_twice = sum(accepted.values()) - len(accepted)
    known = counts["sent"] + counts["unknown"] + counts["pending"]
    is_true = counts["sending"] == 0 and counts["sent"] <= len(accepted) <= known
    data = {
        "folder": str(stage.folder),
        "messages": counts,
        "accepted": len(accepted),
        "accepted_again": taken_twice,
        "accounted": is_true,
    }
    lines = [
        "",
        f"The gateway's own ledger: it took {counted(len(accepted), 'message')}, {taken_twice:,} of them"
        " more than once;",
        f"mailer says {counts['sent']:,} sent, {counts['failed']:,} failed, {counts['unknown']:,} unknown, "
        f"{counts['pending']:,} waiting. Every message is accounted for."
        if is_true
        else "This does not agree: please report it.",
        f"Look around: cd {stage.folder}; then, for instance, mailer messages list --mailing 1 --limit 5",
    ]
    return output.Note(data, lines, exit_code=0 if is_true else 70)
