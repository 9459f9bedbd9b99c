"""Results for eyes, by Rich. User data comes to it as `Text`, never as `str`, which would be markup."""

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table as Grid
from rich.text import Text as Line

from mailer_cli.output.layout import GAP, SAMPLE, Cells, Layout, lay_out
from mailer_cli.output.results import DONE, LOST, OPEN, Card, Column, Table
from mailer_cli.output.safe import clean, pad

if TYPE_CHECKING:
    from rich.progress import Progress

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
    "active": "green",
    "blocked": "red",
    "removed": "dim",
}
GLYPH_STYLES = {DONE: "green", LOST: "red", OPEN: "yellow"}


def console(file: TextIO, *, colour: bool) -> Console:
    return Console(file=file, no_color=not colour or None, highlight=False, markup=False, emoji=False)


def progress(screen: Console) -> "Progress":
    """A bar that goes when it is done. The usual first column would take what it shows for markup."""
    from rich.progress import Progress, TextColumn

    label = TextColumn("{task.description}", markup=False)
    return Progress(label, *Progress.get_default_columns()[1:], console=screen, transient=True)


def above(bar: "Progress", line: str) -> None:
    """A line that scrolls by above a bar, which is drawn anew under it."""
    bar.console.print(Line(line), soft_wrap=True)


def table(screen: Console, shown: Table) -> None:
    """Rows that fit in the sample are one Rich table; those of a longer list stream after it, as it looks."""
    layout = lay_out(shown, screen.width)
    if layout is None:
        print(shown.empty, file=screen.file)
        return
    _grid(screen, layout, list(itertools.islice(layout.rows, SAMPLE)))
    for row in layout.rows:
        screen.print(_line(row, layout), soft_wrap=True)
    if layout.left_out:
        names = ", ".join(each.title for each in layout.left_out)
        screen.print(Line(f"no room for: {names}", "dim"))


def _grid(screen: Console, layout: Layout, rows: Iterable[Cells]) -> None:
    # between two columns Rich puts the padding and one cell of the box
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for each, size in zip(layout.columns, layout.widths, strict=True):
        justify: JustifyMethod = "right" if each.right else "left"
        grid.add_column(Line(each.title), justify=justify, no_wrap=True, width=size)
    for row in rows:
        grid.add_row(*(_cell(cell, each) for cell, each in zip(row, layout.columns, strict=True)))
    wide = Console(
        file=screen.file, width=max(screen.width, layout.width), no_color=screen.no_color, highlight=False
    )
    wide.print(grid, crop=False)  # what must stay may be wider than the screen: never cut


def _line(row: Cells, layout: Layout) -> Line:
    cells = (
        _cell(pad(cell, size, right=each.right), each)
        for cell, each, size in zip(row, layout.columns, layout.widths, strict=True)
    )
    line = Line(" " * GAP).join(cells)
    line.rstrip()
    return line


def _cell(cell: str, column: Column) -> Line:
    if not column.bar:
        return Line(cell, STATUS_STYLES.get(cell.strip(), "") if column.status else "")
    runs = ((glyph, "".join(run)) for glyph, run in itertools.groupby(cell))
    return Line.assemble(*((run, GLYPH_STYLES.get(glyph, GLYPH_STYLES[DONE])) for glyph, run in runs))


def card(screen: Console, shown: Card) -> None:
    """A line per attribute; a long value goes on under itself."""
    grid = Grid.grid(padding=(0, GAP, 0, 0))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in shown.lines:
        style = STATUS_STYLES.get(value, "") if name == "status" else ""
        grid.add_row(Line(name), Line(clean(value), style))
    screen.print(grid)
