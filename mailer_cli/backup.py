"""Copies of the database: made while a dispatch runs, and put back so that nothing is sent twice by it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mailer_cli import outbox
from mailer_cli.database import (
    Database,
    RunLocks,
    files,
    require_folder,
    require_known,
    schema_of,
    unopened,
    upgrade,
)
from mailer_cli.errors import DatabaseFailed, Invalid, Misconfigured, Refused
from mailer_cli.settings import Settings


def back_up(database: Database, target: Path, *, force: bool = False) -> int:
    """Copy the database into `target`, checked and complete or not at all; its size in bytes.

    Works while others write. Raises: Refused when `target` is there and not `force`; Invalid; DatabaseFailed.
    """
    if target.is_dir():
        raise Invalid(f"{target} is a folder", f"name the file, as {target / 'mailer.db'}")
    if target.exists() and target.samefile(database.path):
        raise Invalid(f"{target} is the database itself", "name another file")
    with _beside(target) as partial:
        files.copy_compact(database, partial)
        _require_sound(Database(partial), "the copy")
        files.sync(partial)
        if target.exists() and not force:
            raise Refused(f"{target} is there already", "add --force to replace it")
        partial.replace(target)
        files.sync(target.parent)
    return target.stat().st_size


@dataclass(frozen=True)
class Restored:
    """What a restore did; `kept` is the database that was replaced."""

    kept: Path | None
    schema_before: str
    after: outbox.AfterRestore


def look_at(source: Path) -> str:
    """The schema of a backup.

    Raises: Invalid when there is no such file; DatabaseFailed, Misconfigured when it is no backup of ours.
    """
    if not source.is_file():
        raise Invalid(f"there is no backup {source}", "ls -l " + str(source.parent))
    backup = Database(source)
    with backup.read() as connection:
        found = schema_of(connection)
    if found is None:
        raise Misconfigured(f"{source} is not a backup of mailer", "name a file that `mailer db backup` made")
    require_known(backup, found)
    return found


def restore(settings: Settings, source: Path, now: datetime, *, keep_pending: bool = False) -> Restored:
    """Put the content of a backup in the place of the database, in one transaction, ready to go on from.

    Raises: Refused when a dispatch is alive; TryLater; and what `look_at` raises. Nothing is changed then.
    """
    schema = look_at(source)
    live = unopened(settings)
    require_folder(live.path)
    if live.path.exists() and source.samefile(live.path):
        raise Invalid(f"{source} is the database itself", "name a backup of it")
    aside = live.path.with_name(f"{live.path.name}.before-restore-{now:%Y%m%dT%H%M%S.%f}Z")
    locks = RunLocks(live)
    try:
        locks.take_all()
        with _beside(live.path) as partial:
            fresh = Database(partial)
            files.copy_as_it_is(source, partial)
            _require_sound(fresh, str(source))
            upgrade(fresh, settings)
            with fresh.write() as connection:
                after = outbox.after_restore(connection, now, keep_pending=keep_pending)
            was_there = files.put_in_place(live, fresh, aside)
            files.sync(live.path.parent)
    finally:
        locks.close()
    return Restored(aside if was_there else None, schema, after)


def _require_sound(copy: Database, name: str) -> None:
    found = files.damage(copy)
    if found:
        raise DatabaseFailed(f"{name} is damaged: {found[0]}", "mailer db check")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """An empty file, 0600, in the folder of `target`; whatever is left of it is removed at the end."""
    if not target.parent.is_dir():
        raise Invalid(f"folder {target.parent} does not exist", f"mkdir -p {target.parent}")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    except OSError as error:
        raise DatabaseFailed(f"cannot write in {target.parent}: {error.strerror}") from error
    os.close(descriptor)
    try:
        yield Path(name)
    except OSError as error:
        raise DatabaseFailed(f"cannot write {target}: {error.strerror}") from error
    finally:
        files.remove(Path(name))
