"""Long lists, newest first, in short reading transactions: by how many rows are looked at, not only by how
many are found, since a filter may find few among millions."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, select
from sqlalchemy.orm import Mapped

from mailer_cli.database.engine import Database

Item = TypeVar("Item")
Bounds = Sequence[ColumnElement[bool]]

LOOKED_AT = 20_000  # rows in one transaction, however few of them are wanted


def pages(
    database: Database,
    key: Mapped[int],
    look: Callable[[Connection, Bounds, int], Sequence[Item]],
    key_of: Callable[[Item], int],
    *,
    size: int,
    limit: int | None = None,
    after: int | None = None,
    within: Bounds = (),
    is_direct: bool = False,
) -> Iterator[Sequence[Item]]:
    """Pages of what `look` finds within bounds of the key, which it has to obey, up to `size` items at once.

    `within` are bounds of the key, too, that hold for all. `is_direct`: nothing is looked at in vain.
    """
    floor: int | None = 0
    while floor is not None and (limit is None or limit > 0):
        wanted = size if limit is None else min(size, limit)
        bounds = [*within, *([] if after is None else [key < after])]
        with database.read() as connection:
            floor = None if is_direct else _floor(connection, key, bounds)
            page = look(connection, [*bounds, *([] if floor is None else [key >= floor])], wanted)
        if page:
            yield page
        if len(page) == wanted:
            floor = key_of(page[-1])
        after = floor
        limit = None if limit is None else limit - len(page)


def _floor(connection: Connection, key: Mapped[int], bounds: Bounds) -> int | None:
    """The key of the last row that is to be looked at; None when there are not so many."""
    last = select(key).where(*bounds).order_by(key.desc()).offset(LOOKED_AT - 1).limit(1)
    return connection.execute(last).scalar()
