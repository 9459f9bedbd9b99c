"""Results as lines for a pipe: no box, one record a line, nothing that needs Rich."""

from collections.abc import Iterator, Sequence

from mailer_cli.output.layout import GAP, Cells, lay_out
from mailer_cli.output.results import Card, Column, Table
from mailer_cli.output.safe import clean, pad

PIPE_WIDTH = 80


def table(shown: Table, room: int | None = None) -> Iterator[str]:
    """Every column and every cell whole, for whatever reads it, unless somebody wants so many cells."""
    layout = lay_out(shown, room)
    if layout is None:
        yield shown.empty
        return
    yield _line([each.title for each in layout.columns], layout.columns, layout.widths)
    for row in layout.rows:
        yield _line(row, layout.columns, layout.widths)


def _line(cells: Cells, columns: Sequence[Column], widths: Sequence[int]) -> str:
    padded = (
        pad(cell, size, right=each.right) for cell, each, size in zip(cells, columns, widths, strict=True)
    )
    return (" " * GAP).join(padded).rstrip()


def card(shown: Card) -> Iterator[str]:
    names = max((len(name) for name, _ in shown.lines), default=0)
    for name, value in shown.lines:
        yield f"{name:<{names}}{' ' * GAP}{clean(value)}".rstrip()
