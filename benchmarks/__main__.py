"""`python -m benchmarks`: dispatch and import beside a plain loop, in one run, as ratios.

    python -m benchmarks [--messages 2000] [--rows 100000] [--rounds 3]

The sink is the sandbox gateway, a process of its own; it answers at once, or after 50 ms. Rounds go A B A B,
and medians are compared. Each figure counts the database and the gateway's ledger afterwards: what was sent,
recorded and accepted must be the same number, or the figure is void. Compare ratios of one run only.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlmodel import Field, Session, SQLModel, create_engine, select

JWT = "eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDB9.c2FuZGJveA"
CODES = range(900, 1000)


class LoopMessage(SQLModel, table=True):
    """A message as the plain loop keeps it."""

    id: int | None = Field(default=None, primary_key=True)
    phone: int
    text: str
    status: str = "pending"


class LoopClient(SQLModel, table=True):
    """A client as the plain loop imports it."""

    id: int | None = Field(default=None, primary_key=True)
    phone: str = Field(unique=True)
    operator_code: str
    tag: str
    timezone: str


@dataclass(frozen=True)
class Timed:
    """One round: seconds of the wall clock and of the processor, for so many items."""

    items: int
    seconds: float
    cpu: float

    @property
    def per_second(self) -> float:
        return self.items / self.seconds


@contextmanager
def timed(items: int, found: list[Timed]) -> Iterator[None]:
    """Measure this process and the children that end inside."""
    before, began = cpu(), time.perf_counter()
    yield
    found.append(Timed(items, time.perf_counter() - began, cpu() - before))


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def mailer(folder: Path, *arguments: str) -> object:
    """Run a command in a folder; its JSON."""
    command = [sys.executable, "-m", "mailer_cli", *arguments, "--json"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit {ran.returncode}: {ran.stderr}")
    return json.loads(ran.stdout)


@contextmanager
def sink(folder: Path, latency: float) -> Iterator[str]:
    """The sandbox gateway in a process of its own; its address."""
    options = ["--latency", str(latency), "--ledger", str(folder / "ledger.jsonl"), "--stop-after", "600"]
    command = [sys.executable, "-m", "mailer_cli", "sandbox", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder) as process:
        try:
            yield json.loads(next(iter(process.stdout or ())))["url"]
        finally:
            process.terminate()


def accepted(folder: Path) -> int:
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    return sum(json.loads(line)["accepted"] for line in lines)


def write_clients(path: Path, rows: int) -> None:
    """Clean rows with unique phones, as many as wanted."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["phone", "operator_code", "tag", "timezone"])
        for number in range(rows):
            code = CODES[number % len(CODES)]
            out.writerow(
                [
                    f"7{code}{number // len(CODES):07}",
                    code,
                    ("vip", "retail", "")[number % 3],
                    "Europe/Moscow",
                ]
            )


def dispatch_round(messages: int, latency: float, found: list[Timed]) -> None:
    with scratch() as folder, sink(folder, latency) as url:
        (folder / ".env").write_text(f"TOKEN={JWT}\nURL={url}\n")
        mailer(folder, "init")
        write_clients(folder / "clients.csv", messages)
        mailer(folder, "clients", "import", "clients.csv")
        mailer(folder, "mailings", "create", "--text", "hello", "--all", "--end", "+2h")
        with timed(messages, found):
            ran = mailer(folder, "dispatch")
        recorded = mailer(folder, "stats")
        assert isinstance(ran, dict) and isinstance(recorded, dict)
        require(messages, ran["sent"], recorded["messages"]["by_status"]["sent"], accepted(folder))


def loop_round(messages: int, latency: float, found: list[Timed]) -> None:
    """What most solutions of the task do: a request and an ORM commit, one after the other."""
    with scratch() as folder, sink(folder, latency) as url:
        engine = create_engine(f"sqlite:///{folder / 'loop.db'}")
        SQLModel.metadata.create_all(engine)
        with Session(engine) as session, httpx.Client(headers={"Authorization": f"Bearer {JWT}"}) as http:
            session.add_all(LoopMessage(phone=79_000_000_000 + n, text="hello") for n in range(messages))
            session.commit()
            with timed(messages, found):
                for message in session.exec(select(LoopMessage).where(LoopMessage.status == "pending")).all():
                    body = {"id": message.id, "phone": message.phone, "text": message.text}
                    answer = http.post(f"{url}{message.id}", json=body)
                    message.status = "sent" if answer.json()["code"] == 0 else "failed"
                    session.add(message)
                    session.commit()
            sent = len(session.exec(select(LoopMessage).where(LoopMessage.status == "sent")).all())
        require(messages, sent, sent, accepted(folder))


def import_round(source: Path, rows: int, found: list[Timed]) -> None:
    with scratch() as folder:
        mailer(folder, "init")
        with timed(rows, found):
            report = mailer(folder, "clients", "import", str(source))
        assert isinstance(report, dict)
        require(rows, report["new"], report["total"])


def sqlite_round(source: Path, rows: int, found: list[Timed]) -> None:
    """`sqlite3 .import` of the same file, which checks nothing."""
    with scratch() as folder, timed(rows, found):
        schema = "CREATE TABLE client (phone TEXT UNIQUE, operator_code TEXT, tag TEXT, timezone TEXT);"
        script = f"{schema}\n.import --csv --skip 1 {source} client\n"
        subprocess.run(["sqlite3", str(folder / "plain.db")], input=script, text=True, check=True)


def orm_import_round(source: Path, rows: int, found: list[Timed]) -> None:
    """A SQLModel object a row, and one commit."""
    with scratch() as folder:
        engine = create_engine(f"sqlite:///{folder / 'loop.db'}")
        SQLModel.metadata.create_all(engine)
        with timed(rows, found), Session(engine) as session, source.open(newline="") as file:
            session.add_all(LoopClient(**row) for row in csv.DictReader(file))
            session.commit()


def require(*numbers: int) -> None:
    if len(set(numbers)) != 1:
        raise SystemExit(f"void: wanted, sent, recorded and accepted differ: {numbers}")


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mailer-benchmark-") as name:
        yield Path(name)


def compare(name: str, rounds: int, contenders: dict[str, Callable[[list[Timed]], None]]) -> None:
    """Let the contenders take turns, and print each beside the first."""
    found: dict[str, list[Timed]] = {contender: [] for contender in contenders}
    for _ in range(rounds):
        for contender, take_turn in contenders.items():
            take_turn(found[contender])
    base = statistics.median(each.per_second for each in found[next(iter(contenders))])
    for contender, measured in found.items():
        rates = [each.per_second for each in measured]
        median = statistics.median(rates)
        spent = statistics.median(each.cpu / each.items * 10_000 for each in measured)
        spread = f"{min(rates):,.0f}..{max(rates):,.0f}"
        print(f"{name:<22} {contender:<18} {median:>9,.0f} {spread:>18} {spent:>9.2f} {median / base:>7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    print(f"{'what':<22} {'who':<18} {'median/s':>9} {'spread':>18} {'cpu s/10k':>9} {'ratio':>7}")
    for name, latency in (("dispatch, at once", 0.0), ("dispatch, 50 ms", 0.05)):
        messages = given.messages if not latency else max(100, given.messages // 10)
        compare(
            name,
            given.rounds,
            {
                "plain loop": lambda found, n=messages, wait=latency: loop_round(n, wait, found),
                "mailer dispatch": lambda found, n=given.messages, wait=latency: dispatch_round(
                    n, wait, found
                ),
            },
        )
    with scratch() as folder:
        source, rows = folder / "clients.csv", given.rows
        write_clients(source, rows)
        contenders = {
            "plain loop": lambda found: orm_import_round(source, rows, found),
            "mailer import": lambda found: import_round(source, rows, found),
        }
        if shutil.which("sqlite3"):
            contenders["sqlite3 .import"] = lambda found: sqlite_round(source, rows, found)
        compare("import", given.rounds, contenders)


if __name__ == "__main__":
    main()
