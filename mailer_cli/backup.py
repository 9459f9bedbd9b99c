"""Copies of the database: made while a dispatch runs, and put back so that nothing is sent twice by it."""

import shutil
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
    require_folder,
    require_known,
    schema_of,
    unopened,
    upgrade,
)
from mailer_cli.database.files import copy_as_it_is, copy_compact, damage, put_in_place
from mailer_cli.errors import DatabaseFailed, Invalid, Misconfigured
from mailer_cli.files import Target, partial, sync_folder
from mailer_cli.settings import Settings


def back_up(database: Database, target: Target) -> int:
    """Copy the database into `target`, checked and complete or not at all; its size in bytes.

    Works while others write. Raises: Refused when a file is there that may not be replaced; Invalid;
    DatabaseFailed.
    """
    target.require_free()
    if target.is_stream:
        return _stream(database, target)
    with target.replaced() as beside:
        _copy(database, beside)
        return beside.stat().st_size


def _stream(database: Database, target: Target) -> int:
    """By way of a file: a slow reader holds up nobody, and what is not whole is not begun."""
    with target.binary() as out, tempfile.NamedTemporaryFile(prefix="mailer-backup-") as copy:
        _copy(database, Path(copy.name))
        with Path(copy.name).open("rb") as whole:
            shutil.copyfileobj(whole, out)
        return Path(copy.name).stat().st_size


def _copy(database: Database, copy: Path) -> None:
    copy_compact(database, copy)
    _require_sound(Database(copy), "the copy")


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
        with _beside(live.path) as copy:
            fresh = Database(copy)
            copy_as_it_is(source, copy)
            _require_sound(fresh, str(source))
            upgrade(fresh, settings)
            with fresh.write() as connection:
                after = outbox.after_restore(connection, now, keep_pending=keep_pending)
            was_there = put_in_place(live, fresh, aside)
            sync_folder(live.path.parent)
    finally:
        locks.close()
    return Restored(aside if was_there else None, schema, after)


def _require_sound(copy: Database, name: str) -> None:
    found = damage(copy)
    if found:
        raise DatabaseFailed(f"{name} is damaged: {found[0]}", "mailer db check")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """An empty file, 0600, in the folder of `path`; whatever is left of it is removed at the end."""
    try:
        with partial(path, like=path) as made:
            yield made
    except OSError as error:
        raise DatabaseFailed(f"cannot write in {path.parent}: {error.strerror}") from error
