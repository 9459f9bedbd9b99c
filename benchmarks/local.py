"""What needs no gateway: import, audience, statistics, help, an idle run; each beside a bare way of doing it.

    python -m benchmarks.local [--rows 1000000] [--rounds 3]

Import, help and idle run are processes of their own; audience and statistics are timed inside this one, from
their first statement to the commit.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.table import VOID, Row, line, median, spread

if TYPE_CHECKING:
    from sqlalchemy import (
        Connection,
    )  # this process stays small: its children are said to have had its memory

JWT = "eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDB9.c2FuZGJveA"
ROOT = Path(__file__).parent.parent
ZONES = ("Europe/Moscow", "Asia/Yekaterinburg", "Asia/Vladivostok")
TAGS = ("vip", "retail", "")
BAR_ROWS = 1_000_000
STRIDE = 618_033_989  # has no divisor in common with 10^9: each phone comes once, far from the one before
STARTS = 7  # rounds of what takes a tenth of a second, for each that was asked for

BARE_TABLE = "CREATE TABLE client (phone TEXT UNIQUE, operator_code TEXT, tag TEXT, timezone TEXT);"
BARE_AUDIENCE = """
    INSERT INTO message (mailing_id, client_id, status, timezone, attempts, failures, unknowns,
                         failures_forgiven, unknowns_forgiven, created_at, due_at)
    SELECT 1, id, 'pending', timezone, 0, 0, 0, 0, 0, created_at, created_at FROM client
"""
BARE_PROGRAM = """
import typer
app = typer.Typer()
@app.command()
def hello(name: str) -> None:
    print(name)
app()
"""


class Given(Protocol):
    """What was asked for; `folder` is scratch."""

    @property
    def rounds(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def folder(self) -> Path: ...


class Void(Exception):
    """The figure says nothing: not all was done."""


@dataclass(frozen=True)
class Used:
    """What one round took: seconds of the clock, of the processor, and bytes of memory at its peak, if it was
    a process of its own."""

    seconds: float
    cpu: float
    memory: int = 0
    said: str = field(default="", repr=False)


def rows(given: Given) -> Iterator[Row]:
    yield _help(given)
    yield _idle(given)
    yield from _imports(given)
    yield from _large(given)


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAILER_")}
    return kept | {"PYTHONPATH": str(ROOT), "TZ": "Europe/Moscow"}


def run(folder: Path, command: Sequence[str], typed: str = "") -> Used:
    """One process until its end. Raises: Void when it fails."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(typed)
        process.stdin.close()
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Void(f"{' '.join(command)}: exit {process.returncode}")
    return Used(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, said)


def mailer(folder: Path, *words: str) -> Used:
    return run(folder, [sys.executable, "-m", "mailer_cli", *words])


def by_turns(rounds: int, bare: Callable[[], Used], ours: Callable[[], Used]) -> list[tuple[Used, Used]]:
    """A B A B: the machine's moods fall on both."""
    return [(bare(), ours()) for _ in range(rounds)]


def compared(bar: Row, pairs: Sequence[tuple[Used, Used]], unit: str = "seconds") -> Row:
    """The row with the ratio of the medians, of the clock's seconds or of the processor's (`cpu`)."""

    def ratio(name: str) -> float:
        bare, ours = ([getattr(pair[side], name) for pair in pairs] for side in (0, 1))
        return median(ours) / median(bare)

    cpu = median(ours.cpu for _, ours in pairs)
    memory = max(ours.memory for _, ours in pairs)
    return replace(
        bar,
        ratio=ratio(unit),
        spread=spread([getattr(ours, unit) / getattr(bare, unit) for bare, ours in pairs]),
        cpu=f"{cpu:.2f} in all",
        memory=f"{memory / 1e6:.0f}" if memory else "",
        note="; ".join(filter(None, [bar.note, f"{ratio('cpu'):.2f} x in CPU s" if unit != "cpu" else ""])),
    )


def or_void(bar: Row, measure: Callable[[Row], Row]) -> Row:
    try:
        return measure(bar)
    except Void as reason:
        return replace(bar, note=f"{VOID}{reason}")


# Import


def write_clients(path: Path, number: int, *, ordered: bool = False) -> None:
    """Clean rows with phones of their own, in no order, as lists are; three tags, three zones."""
    step = 1_000_000_000 // number if ordered else STRIDE
    with path.open("w") as file:
        file.write("phone,operator_code,tag,timezone\n")
        for place in range(number):
            phone = 79_000_000_000 + place * step % 1_000_000_000
            code, tag, zone = str(phone)[1:4], TAGS[place % 3], ZONES[place // 3 % 3]
            file.write(f"{phone},{code},{tag},{zone}\n")


def _imports(given: Given) -> Iterator[Row]:
    bars = {
        "clients.csv": _bar_of_a_million(given),
        "sorted.csv": Row("  the same rows, sorted by phone", None),
    }
    if shutil.which("sqlite3") is None:
        yield from (replace(bar, note="not measured: apt-get install sqlite3") for bar in bars.values())
        return
    for name, bar in bars.items():
        source = given.folder / name
        write_clients(source, given.rows, ordered=name == "sorted.csv")
        yield or_void(bar, partial(_import, given, source))
    source = given.folder / "clients.csv"
    yield or_void(Row("  the same list again, nothing changed", None), lambda bar: _again(given, bar, source))


def _bar_of_a_million(given: Given) -> Row:
    what = f"import {given.rows:,} against sqlite3 .import"
    if given.rows < BAR_ROWS:
        return Row(what, None, note=f"the bar is for {BAR_ROWS:,}: of fewer the start-up is the greater part")
    return Row(what, None, "<= 1.5 x", "<= 1.0 x")


def _import(given: Given, source: Path, bar: Row) -> Row:
    return compared(
        bar,
        by_turns(given.rounds, lambda: _bare_import(given, source), lambda: _imported(given, source, "new")),
    )


def _again(given: Given, bar: Row, source: Path) -> Row:
    with scratch(given) as folder:
        mailer(folder, "init")
        mailer(folder, "clients", "import", str(source))
        pairs = by_turns(
            given.rounds,
            lambda: _bare_import(given, source),
            lambda: _imported(given, source, "same", folder),
        )
    return compared(bar, pairs)


def _bare_import(given: Given, source: Path) -> Used:
    with scratch(given) as folder:
        typed = f"{BARE_TABLE}\n.import --csv --skip 1 {source} client\nSELECT count(*) FROM client;\n"
        used = run(folder, ["sqlite3", "bare.db"], typed)
    if used.said.strip() != str(given.rows):
        raise Void(f"sqlite3 has {used.said.strip()} rows of {given.rows}")
    return used


def _imported(given: Given, source: Path, expected: str, folder: Path | None = None) -> Used:
    if folder is None:
        with scratch(given) as made:
            mailer(made, "init")
            return _imported(given, source, expected, made)
    used = mailer(folder, "clients", "import", str(source), "--json")
    if json.loads(used.said)[expected] != given.rows:
        raise Void(f"wanted {given.rows} {expected}, the report is {used.said}")
    return used


# Audience and statistics


def _large(given: Given) -> Iterator[Row]:
    """Of one database with as many clients, and then as many messages."""
    audience = Row(f"audience of {given.rows:,} against INSERT ... SELECT", None, "<= 1.3 x", "<= 1.05 x")
    general = Row(f"general statistics over {given.rows:,} messages", None, "< 0.3 s", "< 0.05 s")
    one = Row(f"  of one mailing of {given.rows:,}, without breakdowns, s", None)
    with scratch(given) as folder:
        write_clients(folder / "clients.csv", given.rows)
        mailer(folder, "init")
        mailer(folder, "clients", "import", "clients.csv")
        mailer(folder, "mailings", "create", "--text", "Hi", "--all", "--end", "+12h", "--start", "+1h")
        yield or_void(audience, lambda bar: _audience(given, bar, folder / "mailer.db"))
        yield from (or_void(bar, lambda bar: _statistics(given, bar, folder)) for bar in (general, one))


def _audience(given: Given, bar: Row, path: Path) -> Row:
    from mailer_cli import audience, database
    from mailer_cli.settings import Settings

    base = path.with_name("base.db")
    shutil.copy(path, base)
    opened = database.open_database(Settings(database=str(path)))
    later = datetime.fromtimestamp(time.time() + 2 * 3600, UTC)

    def once(make: "Callable[[Connection], int]") -> Used:
        shutil.copy(base, path)
        os.sync()
        began, spent = time.perf_counter(), time.process_time()
        with opened.write() as connection:
            made = make(connection)
        used = Used(time.perf_counter() - began, time.process_time() - spent)
        if made != given.rows:
            raise Void(f"{made} messages for {given.rows} clients")
        return used

    pairs = by_turns(
        given.rounds,
        lambda: once(lambda connection: connection.exec_driver_sql(BARE_AUDIENCE).rowcount),
        lambda: once(lambda connection: audience.fix(connection, 1, later)),
    )
    return compared(bar, pairs)  # what was made last stays for the statistics


def _statistics(given: Given, bar: Row, folder: Path) -> Row:
    from mailer_cli import database, stats
    from mailer_cli.settings import Settings

    opened = database.open_database(Settings(database=str(folder / "mailer.db")))
    now, found = datetime.fromtimestamp(time.time(), UTC), list[float]()
    for _ in range(1 + given.rounds):  # the first makes the statements
        began = time.perf_counter()
        if bar.bar:
            with opened.read() as connection:
                counts = stats.general(connection, now).messages
        else:
            counts = stats.details(opened, 1, now).mailing.counts
        found.append(time.perf_counter() - began)
        if sum(counts.values()) != given.rows:
            raise Void(f"{sum(counts.values())} messages counted, {given.rows} are there")
    return replace(bar, ratio=median(found[1:]), spread=spread(found[1:]))


# Start-up


def _help(given: Given) -> Row:
    bar = Row("mailer --help against a bare Typer program's", None, "<= 1.5 x", "<= 1.0 x", note="of CPU s")
    with scratch(given) as folder:
        (folder / "bare.py").write_text(BARE_PROGRAM)
        return or_void(
            bar,
            lambda bar: _start(
                given, bar, folder, [sys.executable, "bare.py", "--help"], ["--help"], "dispatch"
            ),
        )


def _idle(given: Given) -> Row:
    bar = Row('an idle dispatch against "import sqlmodel"', None, "<= 1.6 x", "<= 0.3 x", note="of CPU s")
    with scratch(given) as folder:
        (folder / ".env").write_text(f"TOKEN={JWT}\nURL=http://127.0.0.1:9/v1/send/\n")
        mailer(folder, "init")
        mailer(folder, "dispatch", "--quiet")  # makes the lock file
        bare = [sys.executable, "-c", "import sqlmodel"]
        return or_void(bar, lambda bar: _start(given, bar, folder, bare, ["dispatch"], "nothing to do"))


def _start(
    given: Given, bar: Row, folder: Path, bare: Sequence[str], words: Sequence[str], expected: str
) -> Row:
    def ours() -> Used:
        used = mailer(folder, *words)
        if expected not in used.said:
            raise Void(f"mailer {' '.join(words)} said {used.said!r}")
        return used

    by_turns(1, lambda: run(folder, bare), ours)  # compiled, and in memory
    return compared(bar, by_turns(STARTS * given.rounds, lambda: run(folder, bare), ours), "cpu")


@contextmanager
def scratch(given: Given) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        yield Path(name)


@dataclass(frozen=True)
class _Options:
    rows: int
    rounds: int
    folder: Path


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.local", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mailer-benchmark-") as folder:
        for row in rows(_Options(wanted.rows, wanted.rounds, Path(folder))):
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
