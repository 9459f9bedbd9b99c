"""The database file as a whole: copies, damage, and putting another content in its place.

A database in use is never renamed or unlinked: whoever has it open would go on with the old file, and its
journal, found by name, would be applied to the wrong one (sqlite.org/howtocorrupt.html, 4.2). A new content
therefore comes in as one transaction, after which everybody sees it.
"""

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from mailer_cli.database.engine import Database, Unreadable, translated
from mailer_cli.database.journal import journal_of, set_journal
from mailer_cli.database.schema import last_ids, raise_ids
from mailer_cli.errors import DatabaseFailed
from mailer_cli.owners import open_or_make

PIECE = 1 << 20  # bytes of a database that are compared, and copied, together
LOOKS, FEW = 8, 16  # without a lock, at most, and until no more pieces than these have changed
COMPANIONS = ("-journal", "-wal", "-shm")  # found by name, and applied to whatever has the name


def copy_compact(database: Database, target: Path) -> None:
    """Copy a database that is in use into an empty file, without what was deleted.

    Raises: as `read`; OSError.
    """
    if _reader_is_harmless(database):
        with database.outside_transactions() as raw:
            _vacuum(raw, target)
        return
    whole = target.with_name(f"{target.name}.whole")
    try:
        copy_in_use(database, whole)
        with translated(database.path), closing(sqlite3.connect(whole, isolation_level=None)) as raw:
            _vacuum(raw, target)
    finally:
        remove(whole)


def _vacuum(raw: sqlite3.Connection, target: Path) -> None:
    raw.execute("VACUUM INTO ?", (str(target),))


def _reader_is_harmless(database: Database) -> bool:
    """In a write-ahead log readers and writers pass each other; with another journal nothing is committed
    while somebody reads."""
    with database.outside_transactions() as raw:
        return journal_of(raw) == "wal"


@contextmanager
def at_one_moment(database: Database) -> Iterator[Database]:
    """The database as it is now, for looks that take long: a copy in the temporary folder (TMPDIR), where a
    reader would keep everybody from committing. Raises: as `read`."""
    if _reader_is_harmless(database):
        yield database
        return
    with tempfile.TemporaryDirectory(prefix="mailer-check-") as folder:
        copy = Path(folder) / "copy.db"
        try:
            copy_in_use(database, copy)
        except OSError as error:
            hint = "TMPDIR=FOLDER names another folder for it"
            raise DatabaseFailed(f"cannot make a copy in {folder}: {error.strerror}", hint) from error
        yield Database(copy, called=database.path)


def copy_in_use(database: Database, target: Path) -> None:
    """Copy the file as it is at one moment, while others write; not for a write-ahead log.

    It is read without a lock as often as much has changed meanwhile; then all is looked at once more under a
    reader's lock, for as long as reading takes, and what differs still is remembered and written afterwards.
    A slow target holds up nobody. Raises: as `read`; OSError.
    """
    seen: list[int | None] = []
    # closed when no transaction is open: with any descriptor of it the kernel takes SQLite's own locks
    with database.path.open("rb") as source, open(target, "xb", opener=_private) as copy:
        for _ in range(LOOKS):
            if _write(copy, _changed(source, seen)) <= FEW:
                break
        with database.read() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema")  # takes the lock
            late, size = [*_changed(source, seen)], os.fstat(source.fileno()).st_size
        _write(copy, late)
        copy.truncate(size)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _changed(source: BinaryIO, seen: list[int | None]) -> Iterator[tuple[int, bytes]]:
    """The pieces of the file that are not as they were seen, each with its place; they are seen now."""
    source.seek(0)
    for number, piece in enumerate(iter(lambda: source.read(PIECE), b"")):
        found = hash(piece)  # 64 bits, keyed anew in each process; four times as fast as a digest
        if number == len(seen):
            seen.append(None)
        if seen[number] != found:
            seen[number] = found
            yield number * PIECE, piece


def _write(copy: BinaryIO, pieces: Iterable[tuple[int, bytes]]) -> int:
    """How many there were."""
    number = 0
    for place, piece in pieces:
        copy.seek(place)
        copy.write(piece)
        number += 1
    return number


def copy_as_it_is(source: Path, target: Path) -> None:
    """Copy page by page, also what is damaged. Raises: DatabaseFailed, TryLater."""
    address = f"file://{quote(str(source.absolute()))}?mode=ro"
    with translated(source), closing(sqlite3.connect(address, uri=True, isolation_level=None)) as raw:
        _copy_pages(raw, target)


def _copy_pages(raw: sqlite3.Connection, target: Path) -> None:
    raw.execute("BEGIN")
    raw.execute("PRAGMA schema_version")  # takes the read lock, for which `backup` would wait for ever
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        raw.backup(copy)
        set_journal(copy, "delete")  # one file that needs no companion
    raw.execute("COMMIT")


def damage(database: Database, *, thorough: bool = False) -> list[str]:
    """What SQLite finds wrong with the file, at most ten; thorough: also indexes against their tables.

    Raises: DatabaseFailed when it cannot be read at all.
    """
    check = "integrity_check" if thorough else "quick_check"
    with database.read() as connection:
        found = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA {check}(10)")]
    return [each for each in found if each != "ok"]


def broken_references(database: Database) -> int:
    """Rows that refer to a row that is not there."""
    with database.read() as connection:
        return len(connection.exec_driver_sql("PRAGMA foreign_key_check").all())


@contextmanager
def alone(database: Database) -> Iterator[sqlite3.Connection]:
    """Nobody else reads or writes until it ends, over several transactions.

    Raises: TryLater; DatabaseFailed.
    """
    with database.outside_transactions() as raw:
        raw.execute("PRAGMA locking_mode = EXCLUSIVE")
        raw.execute("BEGIN EXCLUSIVE")
        raw.execute("COMMIT")  # the lock stays until the connection is closed
        yield raw


def put_in_place(live: Database, fresh: Database, aside: Path) -> bool:
    """Give the database the content of `fresh` in one transaction, and keep what it was `aside`.

    Whoever has it open goes on with the new content. Ids that were given before are not given again.
    False when nothing was there. Raises: TryLater, DatabaseFailed; nothing is changed then.
    """
    was_there = live.path.exists()
    try:
        if was_there:
            _overwrite(live, fresh, aside)
            return True
    except Unreadable:
        pass  # nobody can be using it
    _put_away(live.path, aside)
    fresh.path.replace(live.path)
    return was_there


def _overwrite(live: Database, fresh: Database, aside: Path) -> None:
    with alone(live) as raw:
        with fresh.write() as connection:
            raise_ids(connection, last_ids(raw))
        _keep(raw, live.path, aside)
        with fresh.outside_transactions() as fresh_raw:
            fresh_raw.backup(raw)


def _keep(raw: sqlite3.Connection, live: Path, aside: Path) -> None:
    file, made = open_or_make(aside, os.O_WRONLY, like=live)
    os.close(file)
    if not made:
        raise FileExistsError(None, "is there already", str(aside))
    try:
        _copy_pages(raw, aside)
    except BaseException:
        remove(aside)
        raise


def _put_away(path: Path, aside: Path) -> None:
    """Rename a file and what belongs to it by name: a stale journal would be applied to the new file."""
    for end in ("", *COMPANIONS):
        with suppress(FileNotFoundError):
            path.with_name(path.name + end).replace(aside.with_name(aside.name + end))


def remove(path: Path) -> None:
    """Remove a database that nobody else knows of."""
    for end in ("", *COMPANIONS):
        path.with_name(path.name + end).unlink(missing_ok=True)
