"""Which runs are alive: byte-range locks that the kernel frees when a process dies."""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from mailer_cli.database.engine import Database
from mailer_cli.errors import DatabaseFailed, Refused, TryLater
from mailer_cli.idle import lock_of


class RunLocks:
    """Who is alive is a lock, not a clock: byte *run id* of one file beside the database, freed by the
    kernel when the process dies. The file is never unlinked nor replaced and no child inherits it; its
    modification time is the heartbeat that `health` reads.

    Raises: DatabaseFailed when the file cannot be opened.
    """

    def __init__(self, database: Database) -> None:
        self.path = lock_path(database)
        try:
            self._file = _open(self.path)
        except OSError as error:
            raise DatabaseFailed(f"cannot open lock file {self.path}: {error.strerror}") from error

    def take(self, run_id: int) -> None:
        """Hold the lock of this run until `close`, or until the process ends.

        Raises: TryLater when it is held, which only a restore does.
        """
        with _unless_restored():
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, run_id))

    def keep_content(self) -> None:
        """Keep restores away until `close`, but neither runs nor others who ask for the same.

        Raises: TryLater when a restore is at work.
        """
        with _unless_restored():
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _flock(fcntl.F_RDLCK, PURGES))

    def take_all(self) -> None:
        """Hold the locks of all runs, present and to come, and that of purges.

        Raises: Refused, naming a run that is alive, or a purge.
        """
        everything = _flock(fcntl.F_WRLCK, 0, length=0)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, everything)
        except BlockingIOError as error:
            held = struct.unpack(FLOCK, fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, everything))
            if held[2] == PURGES:
                raise Refused("a purge is at work", "wait for its end") from error
            raise Refused(
                f"run {held[2]} is alive: a dispatch is at work",
                "wait for its end, or pause its mailings; keep cron or the timer from starting another",
            ) from error

    def is_free(self, run_id: int) -> bool:
        """Whether nobody holds the lock of this run; its holder itself is told True by the kernel."""
        if not (isinstance(run_id, int) and 0 < run_id < 2**62):
            return True  # from a damaged row; no run can have it
        found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, run_id))
        return bool(struct.unpack(FLOCK, found)[0] == fcntl.F_UNLCK)

    def beat(self) -> None:
        """Say that a dispatch is at work."""
        os.utime(self._file)

    def close(self) -> None:
        os.close(self._file)


def lock_path(database: Database) -> Path:
    return lock_of(database.path)


def last_beat(database: Database) -> datetime | None:
    """When a dispatch was last at work; None when none ever was."""
    try:
        beaten = lock_path(database).stat().st_mtime
    except OSError:
        return None
    return datetime.fromtimestamp(beaten, UTC) if beaten else None


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)
    os.utime(made, (0, 0))  # it is there, but no dispatch has beaten yet
    return made


@contextmanager
def _unless_restored() -> Iterator[None]:
    try:
        yield
    except BlockingIOError as error:
        raise TryLater("the database is being restored", "run the command again in a moment") from error


PURGES = 0  # no run has this id

FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: type, whence, start, length, pid


def _flock(kind: int, offset: int, length: int = 1) -> bytes:
    """The lock on bytes from `offset` on; length 0 has no end."""
    return struct.pack(FLOCK, kind, os.SEEK_SET, offset, length, 0)
