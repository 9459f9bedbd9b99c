"""The only printer: tables, cards and sentences for people, JSON for scripts, the error line.

A command ends in one result. The result holds what JSON shows; how people see it is said beside it, so that
both renderings are decided in one place.
"""

import itertools
import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from mailer_cli.errors import Invalid, MailerError

PIPE_WIDTH = 80
SAMPLE = 200  # rows looked at to choose the widths of a list; the rest streams
BAR = 20  # cells of a full bar

STATUS_STYLES = {
    "sent": "green",
    "completed": "green",
    "running": "cyan",
    "sending": "cyan",
    "pending": "yellow",
    "scheduled": "yellow",
    "paused": "yellow",
    "failed": "red",
    "unknown": "magenta",
    "expired": "red",
    "cancelled": "dim",
}

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table. When there is no room, the one with the highest `leaves` goes first; those
    with 0 stay. A `flexible` one is shortened instead; numbers and ids never are."""

    title: str
    show: Callable[[Json], str]
    right: bool = False
    leaves: int = 0
    flexible: bool = False
    status: bool = False  # coloured by the word in it


def column(key: str, title: str | None = None, **options: Any) -> Column:
    """A column that shows one value of the row as it is."""
    name = title if title is not None else key.replace("_", " ")
    return Column(name, lambda row: "" if row[key] is None else str(row[key]), **options)


def bar(share: float) -> str:
    """A bar of at most BAR cells for 0.0 to 1.0; what is not nothing is seen."""
    eighths = round(max(0.0, min(1.0, share)) * BAR * 8) or (1 if share > 0 else 0)
    rest = " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    return "█" * (eighths // 8) + rest


@dataclass(frozen=True)
class Table:
    """Rows of one shape, in a stream: JSON is an array of them."""

    rows: Iterable[Json]
    columns: Sequence[Column]
    empty: str = "nothing found"
    title: str | None = None
    exit_code: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """One entity, a line per attribute; `tables` follow it."""

    data: Json
    lines: Sequence[tuple[str, str]]
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    exit_code: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Note:
    """Something done or found, in sentences."""

    data: Any
    lines: Sequence[str]
    tables: Sequence[Table] = ()
    exit_code: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """A text to be used as it is: CSV, a crontab, metrics. JSON is one string under `key`."""

    key: str
    pieces: Iterable[str]
    exit_code: int = 0
    warnings: tuple[str, ...] = ()


Result = Table | Card | Note | Text


class Progress(Protocol):
    def __call__(self, done: int, /) -> None: ...


@dataclass
class Printer:
    """Prints results as this invocation wants them."""

    as_json: bool = False
    quiet: bool = False
    colour: bool = True
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)

    def show(self, result: Result) -> int:
        """Print the result; its exit code."""
        for warning in result.warnings:
            self.warn(warning)
        if self.as_json:
            self._json(result)
        else:
            self._human(result)
        self.stdout.flush()
        return result.exit_code

    def announce(self, note: Note) -> None:
        """Print what scripts wait for, now, quiet or not; the command itself goes on."""
        print(dumps(note.data) if self.as_json else clean(note.lines[0]), file=self.stdout, flush=True)

    def warn(self, text: str) -> None:
        print(f"warning: {clean(text)}", file=self.stderr)

    def say(self, text: str) -> None:
        """A line about what is going on, for whoever watches."""
        if not self.quiet:
            print(clean(text), file=self.stderr, flush=True)

    def error(self, error: MailerError) -> None:
        if self.as_json:
            shown = {"code": error.code, "message": clean(error.message), "hint": error.hint}
            print(json.dumps({"error": shown}, ensure_ascii=False), file=self.stderr)
            return
        print(f"error: {clean(error.message)}", file=self.stderr)
        if error.hint:
            print(f"hint: {clean(error.hint)}", file=self.stderr)

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Ask on a terminal; without one only `--yes` is a yes.

        Raises: Invalid when nobody can be asked.
        """
        if yes:
            return True
        if not (sys.stdin.isatty() and self.stderr.isatty()):
            raise Invalid("this needs a yes, and there is no terminal to ask on", "add --yes")
        print(f"{clean(question)} [y/N] ", end="", file=self.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    @property
    def shows_progress(self) -> bool:
        return not self.as_json and not self.quiet and self.stderr.isatty()

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Progress]:
        """A bar on a terminal, nothing anywhere else; call it with the amount done so far."""
        if not self.shows_progress:
            yield lambda done: None
            return
        from rich import progress

        console = self._console(self.stderr)
        with progress.Progress(console=console, transient=True) as shown:
            task = shown.add_task(label, total=total)
            yield lambda done: shown.update(task, completed=done)

    def _json(self, result: Result) -> None:
        match result:
            case Table():
                self._json_rows(result.rows)
            case Text():
                print(dumps({result.key: "".join(result.pieces)}), file=self.stdout)
            case Card() | Note():
                print(dumps(result.data), file=self.stdout)

    def _json_rows(self, rows: Iterable[Json]) -> None:
        first = True
        for row in rows:
            self.stdout.write(("[" if first else ",\n ") + dumps(row))
            first = False
        self.stdout.write("[]\n" if first else "]\n")

    def _human(self, result: Result) -> None:
        match result:
            case Table():
                self._table(result)
            case Text():
                for piece in result.pieces:
                    self.stdout.write(piece)
            case Card() | Note() if self.quiet:
                return
            case Card():
                self._card(result)
                self._tables(result.tables)
                self._lines(result.notes)
            case Note():
                self._lines(result.lines)
                self._tables(result.tables)

    def _lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            print(clean(line), file=self.stdout)

    def _tables(self, tables: Sequence[Table]) -> None:
        for table in tables:
            print(file=self.stdout)
            self._table(table)

    def _card(self, card: Card) -> None:
        width = max((len(name) for name, _ in card.lines), default=0)
        console = self._console(self.stdout)
        for name, value in card.lines:
            style = STATUS_STYLES.get(value) if name == "status" else None
            console.print(styled(f"{name:<{width}}  ", "bold"), styled(value, style), sep="", end="\n")

    def _table(self, table: Table) -> None:
        rows = iter(table.rows)
        sample = list(itertools.islice(rows, SAMPLE))
        if table.title and not self.quiet:
            print(clean(table.title), file=self.stdout)
        if not sample:
            if not self.quiet:
                print(table.empty, file=self.stdout)
            return
        cells = [[clean(each.show(row)) for each in table.columns] for row in sample]
        console = self._console(self.stdout)
        columns, widths = fit(table.columns, cells, console.width)
        kept = [table.columns.index(each) for each in columns]
        sampled = ([row[index] for index in kept] for row in cells)
        streamed = ([clean(each.show(row)) for each in columns] for row in rows)
        self._grid(console, columns, widths, itertools.chain(sampled, streamed))

    def _grid(
        self, console: Any, columns: Sequence[Column], widths: Sequence[int], rows: Iterable[Sequence[str]]
    ) -> None:
        from rich.text import Text as Line

        heading = [pad(each.title, width, each.right) for each, width in zip(columns, widths, strict=True)]
        console.print(Line("  ".join(heading).rstrip(), "bold"), soft_wrap=True)
        if self.stdout.isatty():
            console.print(Line("  ".join("─" * width for width in widths), "dim"), soft_wrap=True)
        for row in rows:
            line = Line()
            for each, width, cell in zip(columns, widths, row, strict=True):
                text = pad(shorten(cell, width) if each.flexible else cell, width, each.right)
                line.append("  " if line else "")
                line.append(text, STATUS_STYLES.get(cell.strip(), "") if each.status else "")
            line.rstrip()
            console.print(line, soft_wrap=True)

    def _console(self, file: TextIO) -> Any:
        from rich.console import Console

        terminal = file.isatty()
        return Console(
            file=file,
            width=None if terminal else PIPE_WIDTH,
            no_color=not self.colour or None,
            highlight=False,
            markup=False,
            emoji=False,
        )


def fit(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], room: int
) -> tuple[list[Column], list[int]]:
    """The columns that find room, and their widths: the expendable leave first, then the flexible shrink."""
    from rich.cells import cell_len

    wanted = [
        max([cell_len(each.title), *(cell_len(row[index]) for row in cells)])
        for index, each in enumerate(columns)
    ]
    least = [min(width, 12) if each.flexible else width for each, width in zip(columns, wanted, strict=True)]
    kept = list(range(len(columns)))

    def needed(widths: Sequence[int]) -> int:
        return sum(widths[index] for index in kept) + 2 * (len(kept) - 1)

    while needed(least) > room and any(columns[index].leaves for index in kept):
        kept.remove(max(kept, key=lambda index: columns[index].leaves))
    over = max(0, needed(wanted) - room)
    widths = []
    for index in kept:
        give = min(over, wanted[index] - least[index])
        over -= give
        widths.append(wanted[index] - give)
    return [columns[index] for index in kept], widths


def pad(text: str, width: int, right: bool) -> str:
    from rich.cells import cell_len

    space = " " * max(0, width - cell_len(text))
    return space + text if right else text + space


def shorten(text: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def styled(text: str, style: str | None) -> Any:
    """Text for Rich that is not read as markup."""
    from rich.text import Text as Line

    return Line(clean(text), style or "")


HARMLESS = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def clean(text: str) -> str:
    """The text without anything that a terminal would obey: control characters are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in HARMLESS:
        return HARMLESS[character]
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"\\u{ord(character):04x}" if character > "\xff" else f"\\x{ord(character):02x}"
    return character


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def mask(phone: int | str) -> str:
    """A phone as logs and errors may show it: `7916***4567`."""
    digits = str(phone)
    return f"{digits[:4]}***{digits[-4:]}"
