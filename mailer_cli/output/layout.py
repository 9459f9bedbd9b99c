"""How a table finds room: which columns stay, how wide they are, and its cells as harmless strings."""

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mailer_cli.output.results import Column, Table
from mailer_cli.output.safe import clean, shorten, width

SAMPLE = 200  # rows looked at to choose the widths of a list; the rest streams
LEAST = 10  # cells that a flexible column keeps
GAP = 2  # cells between columns

Cells = Sequence[str]


@dataclass(frozen=True)
class Layout:
    """A table ready to be drawn; `rows` stream. A cell of a later row may be wider than its column."""

    columns: Sequence[Column]
    widths: Sequence[int]
    rows: Iterator[Cells]
    left_out: Sequence[Column]

    @property
    def width(self) -> int:
        return _needed(self.widths)


def lay_out(table: Table, room: int | None) -> Layout | None:
    """The table in so many cells, wider only if what must stay needs it; with all columns and whole cells
    when room is None. None when it has no rows."""
    rows = iter(table.rows)
    sample = list(itertools.islice(rows, SAMPLE))
    if not sample:
        return None
    cells = [[clean(each.show(row)) for each in table.columns] for row in sample]
    columns, widths = fit(table.columns, cells, room if room is not None else sys.maxsize)
    kept = [each in columns for each in table.columns]
    sampled = (list(itertools.compress(row, kept)) for row in cells)
    streamed = ([clean(each.show(row)) for each in columns] for row in rows)
    whole = itertools.chain(sampled, streamed)
    shown = whole if room is None else (_shortened(row, columns, widths) for row in whole)
    return Layout(columns, widths, iter(shown), [each for each in table.columns if each not in columns])


def fit(columns: Sequence[Column], cells: Sequence[Cells], room: int) -> tuple[list[Column], list[int]]:
    """The columns that find room, and their widths: what must stay, then the rest while it fits, those that
    leave last before the others; then the flexible shrink."""
    wanted = [max(map(width, (each.title, *shown))) for each, *shown in zip(columns, *cells, strict=True)]
    if room < sum(wanted):  # a long text leaves the others their room
        wanted = [min(size, each.most or size) for each, size in zip(columns, wanted, strict=True)]
    least = [min(size, LEAST) if each.flexible else size for each, size in zip(columns, wanted, strict=True)]
    kept = {index for index, each in enumerate(columns) if not each.leaves}
    for index in sorted(set(range(len(columns))) - kept, key=lambda index: columns[index].leaves):
        if _needed(least[each] for each in kept | {index}) <= room:
            kept.add(index)
    over = _needed(wanted[index] for index in kept) - room
    widths = []
    for index in sorted(kept):
        give = max(0, min(over, wanted[index] - least[index]))
        over -= give
        widths.append(wanted[index] - give)
    return [columns[index] for index in sorted(kept)], widths


def _needed(widths: Iterable[int]) -> int:
    return sum(size + GAP for size in widths) - GAP


def _shortened(row: Cells, columns: Sequence[Column], widths: Sequence[int]) -> Cells:
    return [
        shorten(cell, size) if each.flexible else cell
        for cell, each, size in zip(row, columns, widths, strict=True)
    ]
