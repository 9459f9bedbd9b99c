"""Beside how many: one mailing is sent while others sleep until their windows open."""

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks.given import Given, or_void
from benchmarks.measure import Prepared
from benchmarks.ours import TEXT, Dispatch, mailer
from benchmarks.speed import alone
from benchmarks.table import Row, median, number

OTHERS = (1, 100, 10_000)


@dataclass(frozen=True)
class Beside(Dispatch):
    """`mailer dispatch` in a database with so many other open mailings, one client each."""

    others: int = 1

    @contextmanager
    def prepared(self, folder: Path, messages: int, url: str) -> Iterator[Prepared]:
        with super().prepared(folder, messages, url) as ready:
            hour = datetime.now(UTC).hour + 3  # of Moscow, where the clients are
            window = f"{(hour + 2) % 24:02}:00-{(hour + 3) % 24:02}:00"
            plan = ("--text", TEXT, "--all", "--end", "+12h", "--window", window)
            made = mailer(folder, "mailings", "create", *plan)
            with contextlib.closing(sqlite3.connect(folder / "mailer.db")) as database:
                _multiply(database, made["id"], self.others)
                database.commit()
            yield ready


def _multiply(database: sqlite3.Connection, mailing: int, others: int) -> None:
    """Let one message of the mailing stay, and make so many of the two."""
    database.execute(
        "DELETE FROM message WHERE mailing_id = ?1"
        " AND id > (SELECT min(id) FROM message WHERE mailing_id = ?1)",
        (mailing,),
    )
    for table, key, shift in (("mailing", "id", "id"), ("message", "mailing_id", "id")):
        names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        given = {each: f"{each} + number" if each in (key, shift) else each for each in names}
        database.execute(
            f"WITH RECURSIVE more (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM more LIMIT ?)"
            f" INSERT INTO {table} ({', '.join(given)}) SELECT {', '.join(given.values())} FROM {table}, more"
            f" WHERE {key} = ?",
            (max(1, others - 1), mailing),
        )
    database.execute(
        "UPDATE tally SET messages = (SELECT count(*) FROM message"
        " WHERE message.mailing_id = tally.mailing_id AND message.status = tally.status)"
    )


def rows(given: Given) -> Iterator[Row]:
    base: list[float] = []
    for others in OTHERS:
        bar = Row(f"beside {others:,} open mailing{'s' * (others > 1)}, to {OTHERS[0]}", None, ">= 0.9 x")
        yield or_void(bar, partial(_beside, given, others, base))


def _beside(given: Given, others: int, base: list[float], bar: Row) -> Row:
    contender = Beside(given.dispatch().templates, others=others)
    found = [given.once(contender, given.messages) for _ in range(given.rounds)]
    speeds = [each.between for each in found]
    base.append(median(speeds))
    return alone(bar, [each / base[0] for each in speeds], found, f"{number(median(speeds))} messages/s")
