"""The table of bars: one row for each thing measured, and how rows are printed."""

import math
import operator
import re
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
VOID = "VOID: "
BOUND = re.compile(r"(>=|<=|>|<) ([0-9.]+) ?(%?)")
WIDTHS = (48, 9, 10, 12, 8, 26, 16, 14)
HEADS = ("what", "ratio", "bar", "goal", "verdict", "spread", "CPU s/10,000", "peak MB")


@dataclass(frozen=True)
class Row:
    """One thing measured. `ratio` is the median of the rounds; None when there is none, and `note` says why.

    `bar` and `goal` begin with an operator and a number: `>= 3 x`, `<= 8 %`, `< 0.3 s`, or are empty where
    nothing is demanded. With `%` the ratio is still a share of 1. The rest is printed as it is.
    """

    what: str
    ratio: float | None
    bar: str = ""
    goal: str = ""
    spread: str = ""
    cpu: str = ""
    memory: str = ""
    note: str = ""

    @property
    def is_void(self) -> bool:
        """Whether something was lost, repeated or not recorded, so that there is no figure."""
        return self.note.startswith(VOID)

    @property
    def verdict(self) -> str:
        """`goal`, `ok`, `MISSED` or empty, where there is nothing to compare."""
        if self.ratio is None or not BOUND.match(self.bar):
            return ""
        if not reaches(self.ratio, self.bar):
            return "MISSED"
        return "goal" if BOUND.match(self.goal) and reaches(self.ratio, self.goal) else "ok"


def reaches(ratio: float, bound: str) -> bool:
    """Whether the ratio keeps to a bound as `>= 3 x`. Raises: ValueError for another shape."""
    found = BOUND.match(bound)
    if found is None:
        raise ValueError(f"a bound is an operator and a number, not {bound!r}")
    comparison, number, percent = found.groups()
    return bool(OPERATORS[comparison](ratio, float(number) / (100 if percent else 1)))


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The least and the greatest of the rounds, and how many there were."""
    if not values:
        return ""
    return f"{number(min(values), digits)}..{number(max(values), digits)} of {len(values)}"


def median(values: Iterable[float]) -> float:
    """Raises: StatisticsError when there are none."""
    return statistics.median(values)


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, but all before the point; thousands with commas, never an exponent."""
    if not value:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    written = f"{value:,.{places}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def line(row: Row) -> str:
    """A row as it is printed: the columns, and its note indented below them."""
    ratio = ""
    if row.ratio is not None:
        ratio = f"{number(row.ratio * 100)} %" if "%" in row.bar else number(row.ratio)
    cells = (row.what, ratio, row.bar, row.goal, row.verdict, row.spread, row.cpu, row.memory)
    written = _columns(cells)
    if not row.note:
        return written
    return written + "\n" + textwrap.fill(row.note, 110, initial_indent="    ", subsequent_indent="    ")


def head() -> str:
    columns = _columns(HEADS)
    return columns + "\n" + "-" * len(columns)


def _columns(cells: Sequence[str]) -> str:
    what, *rest = (f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
    return " ".join((what, *rest)).rstrip()
