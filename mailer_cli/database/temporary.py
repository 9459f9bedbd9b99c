"""Where SQLite keeps what is temporary, and the error when there is no room for it."""

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import exc

from mailer_cli.errors import DatabaseFailed

FOLDERS = ("/var/tmp", "/usr/tmp", "/tmp")  # noqa: S108  SQLite's own, in its order
HINT = "free some space there, or name another one: TMPDIR=FOLDER mailer ..."
UNWRITTEN = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_GETTEMPPATH)


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The temporary folder that SQLite takes."""
    named = [environment.get("SQLITE_TMPDIR"), environment.get("TMPDIR"), *FOLDERS]
    usable = (Path(each) for each in named if each and os.access(each, os.W_OK | os.X_OK))
    return next((each for each in usable if each.is_dir()), Path())


@contextmanager
def named(path: Path, *, writes: bool) -> Iterator[None]:
    """Tell a full temporary folder from a full database: a transaction that only reads fills nothing else."""
    try:
        yield
    except exc.DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0)
        is_full = code & 0xFF == sqlite3.SQLITE_FULL and (not writes or _is_fuller(folder(), path.parent))
        if is_full or (code in UNWRITTEN and not writes):
            what = "no space left in" if is_full else "cannot write in"
            raise DatabaseFailed(f"{what} the temporary folder {folder()}", HINT) from error
        raise


def _is_fuller(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return shutil.disk_usage(one).free < shutil.disk_usage(other).free
    return False
