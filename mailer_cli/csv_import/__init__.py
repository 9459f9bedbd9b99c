"""CSV -> checked rows -> one set-based upsert -> report.

The road of a list, and where each step is:

    lines.py      bytes -> lines: encoding, how long a line may be, line numbers
    columns.py    the first record -> which columns are ours
    records.py    lines -> records: delimiter, quotes
    reading.py    records -> checked rows, and rejects
    faults.py     why they were rejected, by line and by kind
    staging.py    checked rows -> temporary tables -> new and changed clients
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from mailer_cli.csv_import import staging
from mailer_cli.csv_import.columns import Choice, chosen
from mailer_cli.csv_import.faults import SHOWN, Faults, Kind
from mailer_cli.csv_import.lines import Source
from mailer_cli.csv_import.reading import Reading
from mailer_cli.csv_import.records import open_records
from mailer_cli.csv_import.staging import OnConflict
from mailer_cli.database import Database
from mailer_cli.errors import Refused

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = [
    "SHOWN",
    "Choice",
    "Faults",
    "Imported",
    "Kind",
    "OnConflict",
    "Options",
    "Report",
    "Source",
    "chosen",
    "import_clients",
]

SELDOM = 200_000  # objects: more than some chunks have


@dataclass(frozen=True)
class Options:
    encoding: str = "utf-8"
    on_conflict: OnConflict = OnConflict.UPDATE
    skip_invalid: bool = False
    dry_run: bool = False
    columns: Choice = field(default_factory=Choice)


@dataclass(frozen=True)
class Report:
    """What an import did, or with `dry_run` would do; empty lines count nowhere.

    `repeated` are those of `same` that only repeat an earlier line of the list.
    """

    new: int
    changed: int
    same: int
    rejected: int
    default_timezone: int
    blocked: int  # put on the stop list
    total: int
    repeated: int = 0


@dataclass(frozen=True)
class Imported:
    """The report, whether the list was refused as a whole, and what an operator wants to know besides."""

    report: Report
    refused: bool
    faults: Faults
    ignored_columns: Sequence[str]
    warnings: Sequence[str]


def import_clients(
    database: Database,
    source: Source,
    options: Options,
    rejects: "SupportsWrite[str] | None",
    default_zone: str,
    now: datetime,
    progress: Callable[[int], None] = lambda done: None,
) -> Imported:
    """Bring the clients up to date with a list; everything or nothing. Repeating changes nothing more.

    `progress` hears how many bytes were read. Raises: Invalid when the list cannot be read as one.
    """
    header, chunks = open_records(source, options.encoding, options.columns)
    with database.bulk(), _seldom_collected():
        reading = Reading(database, header, options.on_conflict, rejects)
        for chunk in chunks:
            reading.take(chunk)
            progress(source.done)
        refused = reading.faults.total > 0 and not options.skip_invalid
        counts = staging.NOTHING if refused else _apply(database, options, default_zone, now)
    repeated = 0 if refused else reading.repeated
    report = Report(
        counts.new,
        counts.changed,
        counts.same + repeated,
        reading.faults.total,
        counts.default_timezone,
        counts.blocked,
        reading.total,
        repeated,
    )
    warnings = list(reading.attributes.warnings)
    return Imported(report, refused, reading.faults, header.ignored, warnings)


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Reading makes no cycles, and looking for them would take a third of its time; they are looked for
    seldom."""
    before = gc.get_threshold()
    gc.set_threshold(SELDOM, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _apply(database: Database, options: Options, default_zone: str, now: datetime) -> staging.Counts:
    with database.read() if options.dry_run else database.write() as connection:
        counts = staging.compare(connection, options.on_conflict)
        if options.on_conflict == OnConflict.ERROR and counts.same:
            raise Refused("some clients of this list were added while it was read", "import it again")
        if not options.dry_run:
            staging.apply(connection, counts, default_zone, now)
    return counts
