"""Many rows for one statement, as one JSON parameter: SQLite then goes through them by itself, once, where
the driver would come back to Python, and wait for its turn there, with each of them."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, literal_column, select


def columns(*names: str) -> dict[str, ColumnElement[Any]]:
    """The columns of the rows in the parameter `rows`, for the SET and WHERE of an UPDATE."""
    value = func.json_each(bindparam("rows")).table_valued("value", name="given").c.value
    return {
        name: func.json_extract(value, literal_column(f"'$[{place}]'")) for place, name in enumerate(names)
    }


def numbers(name: str) -> Select[Any]:
    """The integers in the parameter of this name, for an IN."""
    return select(func.json_each(bindparam(name)).table_valued("value", name=f"given_{name}").c.value)


def these(values: Iterable[int]) -> Select[Any]:
    """The integers themselves, for an IN: however many they are, they are one parameter."""
    given: ColumnElement[str] = bindparam(None, packed_numbers(values), unique=True)
    return select(func.json_each(given).table_valued("value", name="these").c.value)


def packed(rows: Iterable[Sequence[str | int | None]]) -> str:
    """The parameter for `columns`."""
    return json.dumps(list(rows))


def packed_numbers(values: Iterable[int]) -> str:
    """The parameter for `numbers`."""
    return json.dumps(list(values))


def stored(moment: datetime) -> str:
    """A moment as the database keeps it."""
    return moment.astimezone(UTC).isoformat(" ", "microseconds")[:26]
