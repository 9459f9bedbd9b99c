"""Rows that are not what their table says: SQLite asks neither for a column's type nor, in a file that was
damaged, or written by another program, for its CHECKs.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Float,
    Integer,
    Table,
)
from sqlalchemy.types import TypeDecorator

KINDS: tuple[tuple[type[Any], str], ...] = (  # the first that the column's type is
    (Boolean, "{0} IN (0, 1)"),
    (DateTime, "typeof({0}) = 'text' AND is_moment(CAST({0} AS BLOB))"),
    (BigInteger, "typeof({0}) = 'integer'"),
    (Integer, "typeof({0}) = 'integer'"),
    (Float, "typeof({0}) IN ('integer', 'real')"),
)
TEXT = "typeof({0}) = 'text' AND is_utf8(CAST({0} AS BLOB))"
WORDS = (
    "CASE WHEN json_valid({0}) AND json_type({0}) = 'array'"
    " THEN NOT EXISTS (SELECT 1 FROM json_each({0}) WHERE type <> 'text') ELSE 0 END"
)


def misfits(
    connection: Connection, table: Table, which: str = "1", more: Mapping[str, str] | None = None
) -> Iterator[tuple[int, str]]:
    """The first column of each such row, its key, and what is wrong with it: a column's name, a rule's, or a
    name in `more`, whose conditions in SQL must be true, too."""
    conditions = {**_columns(table), **_rules(table), **(more or {})}
    key = next(iter(table.primary_key.columns)).name
    shown = ", ".join(f"coalesce(({each}), 1)" for each in conditions.values())
    fit = " AND ".join(f"coalesce(({each}), 1)" for each in conditions.values())
    _teach(connection)
    query = f"SELECT {key}, {shown} FROM {table.name} WHERE ({which}) AND NOT ({fit})"  # noqa: S608  our names
    for found, *holds in connection.exec_driver_sql(query):
        yield found, ", ".join(name for name, true in zip(conditions, holds, strict=True) if not true)


def _columns(table: Table) -> dict[str, str]:
    return {column.name: _condition(column) for column in table.columns}


def _condition(column: Column[Any]) -> str:
    kind: object = column.type
    if isinstance(kind, TypeDecorator) and type(kind).__name__ != "Words":
        kind = kind.impl_instance
    shape = WORDS if isinstance(kind, TypeDecorator) else TEXT
    shape = next((sql for each, sql in KINDS if isinstance(kind, each)), shape).format(column.name)
    return f"{column.name} IS NULL OR {shape}" if column.nullable else shape


def _rules(table: Table) -> dict[str, str]:
    return {
        str(each.name).removeprefix(f"{table.name}_"): str(each.sqltext)
        for each in table.constraints
        if isinstance(each, CheckConstraint)
    }


def _teach(connection: Connection) -> None:
    """What SQL cannot ask by itself."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)  # noqa: S101  for mypy
    raw.create_function("is_utf8", 1, _is_utf8, deterministic=True)
    raw.create_function("is_moment", 1, _is_moment, deterministic=True)


def _is_utf8(value: bytes | None) -> bool:
    with suppress(UnicodeDecodeError):
        return value is None or value.decode() is not None
    return False


def _is_moment(value: bytes | None) -> bool:
    with suppress(ValueError):
        return value is None or datetime.fromisoformat(value.decode("ascii")) is not None
    return False


@contextmanager
def unchecked(connection: Connection) -> Iterator[None]:
    """Let a row be changed that breaks a CHECK, and will go on to."""
    connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
    try:
        yield
    finally:
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = OFF")
