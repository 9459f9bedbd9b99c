"""What a command may end in: values that know what JSON shows and how people see it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailer_cli.errors import MailerError

BAR = 20  # cells of a full bar
DONE, LOST, OPEN = "█", "▒", "░"  # told apart without colour

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table. When there is no room, the one with the highest `leaves` goes first; those
    with 0 stay. A `flexible` one is shortened instead, first to the cells that it may have at `most`;
    numbers and ids never are."""

    title: str
    show: Callable[[Json], str]
    right: bool = False
    leaves: int = 0
    flexible: bool = False
    most: int | None = None
    status: bool = False  # coloured by the word in it
    bar: bool = False  # coloured by what `bar` and `stack` draw


def column(key: str, title: str | None = None, **options: Any) -> Column:
    """A column that shows one value of the row as it is."""
    name = title if title is not None else key.replace("_", " ")
    return Column(name, lambda row: "" if row[key] is None else str(row[key]), **options)


def bar(share: float) -> str:
    """A bar of at most BAR cells for 0.0 to 1.0; what is not nothing is seen."""
    eighths = round(max(0.0, min(1.0, share)) * BAR * 8) or (1 if share > 0 else 0)
    rest = " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    return DONE * (eighths // 8) + rest


def stack(done: int, lost: int, waiting: int, cells: int = BAR) -> str:
    """A bar of exactly `cells` cells, divided among three counts; what is not nothing is seen.

    Empty when all three are 0.
    """
    counts = {DONE: done, LOST: lost, OPEN: waiting}
    total = sum(counts.values())
    if total == 0:
        return ""
    parts = {glyph: max(1, round(cells * count / total)) for glyph, count in counts.items() if count}
    biggest = max(parts, key=lambda glyph: parts[glyph])
    parts[biggest] += cells - sum(parts.values())  # rounding is least seen there
    return "".join(glyph * size for glyph, size in parts.items())


@dataclass(frozen=True)
class Table:
    """Rows of one shape, in a stream: JSON is an array of them, or of what `data` makes of each. One that
    tells what was `done` is not shown when quiet; one that was asked for is."""

    rows: Iterable[Json]
    columns: Sequence[Column]
    data: Callable[[Json], Json] | None = None
    empty: str = "nothing found"
    title: str | None = None
    exit_code: int = 0
    warnings: tuple[str, ...] = ()
    done: bool = False


@dataclass(frozen=True)
class Card:
    """One entity, a line per attribute; `tables` and `notes` follow it. `error` is what scripts are told of a
    failure beside it."""

    data: Json
    lines: Sequence[tuple[str, str]]
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    exit_code: int = 0
    warnings: tuple[str, ...] = ()
    error: MailerError | None = None


@dataclass(frozen=True)
class Note:
    """Something done or found, in sentences. `error` is what scripts are told of a failure beside it."""

    data: Any
    lines: Sequence[str]
    tables: Sequence[Table] = ()
    exit_code: int = 0
    warnings: tuple[str, ...] = ()
    error: MailerError | None = None


@dataclass(frozen=True)
class Text:
    """A text to be used as it is: CSV, a crontab, metrics. JSON is one string under `key`."""

    key: str
    pieces: Iterable[str]
    exit_code: int = 0
    warnings: tuple[str, ...] = ()


Result = Table | Card | Note | Text
