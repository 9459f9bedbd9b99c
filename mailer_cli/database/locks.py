"""Which runs are alive: byte-range locks that the kernel frees when a process dies."""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from errno import EACCES
from pathlib import Path

from mailer_cli import belief
from mailer_cli.belief import Boot
from mailer_cli.database.engine import Database
from mailer_cli.errors import DatabaseFailed, Refused, TryLater
from mailer_cli.idle import lock_of
from mailer_cli.owners import identity, name_of, open_or_make


class RunLocks:
    """Who is alive is a lock, not a clock: byte *run id* of the lock file and, far behind its end, of the
    database itself, freed by the kernel when the process dies. A lock file goes by a name: it may be removed,
    put back from a copy, or be a second one where the database has a second name; the database is what it is.

    No child inherits them. The lock file is never unlinked nor replaced by us; its modification time is the
    heartbeat that `health` reads. To be closed when no transaction of this process is open: with any
    descriptor of a database the kernel takes SQLite's own locks. Raises: DatabaseFailed.
    """

    def __init__(self, database: Database) -> None:
        self.path = lock_path(database)
        self._database = database.path
        self._held: list[tuple[int, int, int]] = []  # kind, offset, length
        try:
            self._lock = self._open_lock()
        except OSError as error:
            hint = _hint(self.path, error)
            raise DatabaseFailed(f"cannot open lock file {self.path}: {error.strerror}", hint) from error
        self._itself: int | None = None  # a restore may bring one
        try:
            self._itself = os.open(database.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(self._lock)
            raise DatabaseFailed(
                f"database {database.path} cannot be written: {error.strerror}", _hint(database.path, error)
            ) from error

    def take(self, run_id: int) -> None:
        """Hold the lock of this run until `close`, or until the process ends.

        Raises: TryLater when it is held, which only a restore does.
        """
        with _unless_restored():
            self._take(fcntl.F_WRLCK, run_id, 1)

    def keep_content(self) -> None:
        """Keep restores away until `close`, but neither runs nor others who ask for the same.

        Raises: TryLater when a restore is at work.
        """
        with _unless_restored():
            self._take(fcntl.F_RDLCK, PURGES, 1)

    def take_all(self) -> None:
        """Hold the locks of all runs, present and to come, and that of purges.

        Raises: Refused, naming a run that is alive, or a purge.
        """
        try:
            self._take(fcntl.F_WRLCK, 0, 0)
        except BlockingIOError as error:
            holder = self._holder(0, 0)
            if holder == PURGES:
                raise Refused("a purge is at work", "wait for its end") from error
            raise Refused(
                f"run {holder} is alive: a dispatch is at work",
                "wait for its end, or pause its mailings; keep cron or the timer from starting another",
            ) from error

    def is_free(self, run_id: int) -> bool:
        """Whether nobody holds the lock of this run; its holder itself is told True by the kernel."""
        if not (isinstance(run_id, int) and 0 < run_id < 2**62):
            return True  # from a damaged row; no run can have it
        return self._holder(run_id, 1) is None

    def beat(self) -> None:
        """Say that a dispatch is at work. Raises: OSError."""
        if identity(self.path) != identity(self._lock) and self._is_in_place():
            with suppress(OSError):
                self._follow()
        os.utime(self._lock)

    def clock_ahead(self, now: datetime, boot: Boot | None) -> timedelta | None:
        """How far ahead a clock is that is not to be believed, else None; what is believed is kept here."""
        return belief.ahead(self._lock, now, boot)

    def close(self) -> None:
        for file, _ in self._files():
            os.close(file)

    def _files(self) -> list[tuple[int, int]]:
        """The descriptors, each with where its bytes begin."""
        return [(self._lock, 0), *([] if self._itself is None else [(self._itself, BEHIND)])]

    def _open_lock(self) -> int:
        opened, made = open_or_make(self.path, os.O_RDWR, like=self._database)
        if made:
            os.utime(opened, (0, 0))  # it is there, but no dispatch has beaten yet
        return opened

    def _take(self, kind: int, offset: int, length: int) -> None:
        for file, base in self._files():
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, _flock(kind, base + offset, length))
        self._held.append((kind, offset, length))

    def _holder(self, offset: int, length: int) -> int | None:
        """The first byte in this range that somebody else holds."""
        for file, base in self._files():
            asked = _flock(fcntl.F_WRLCK, base + offset, length)
            kind, _, start, *_ = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))
            if kind != fcntl.F_UNLCK:
                return int(start) - base
        return None

    def _is_in_place(self) -> bool:
        return self._itself is not None and identity(self._database) == identity(self._itself)

    def _follow(self) -> None:
        """Hold the file that has the name now, so that all who go by it see what is alive."""
        opened = self._open_lock()
        with suppress(BlockingIOError):  # the database's own bytes have the last word
            for kind, offset, length in self._held:
                fcntl.fcntl(opened, fcntl.F_OFD_SETLK, _flock(kind, offset, length))
        os.close(self._lock)
        self._lock = opened


def lock_path(database: Database) -> Path:
    return lock_of(database.path)


def last_beat(database: Database) -> datetime | None:
    """When a dispatch was last at work; None when none ever was."""
    try:
        beaten = lock_path(database).stat().st_mtime
    except OSError:
        return None
    return datetime.fromtimestamp(beaten, UTC) if beaten else None


def _hint(path: Path, error: OSError) -> str:
    return f"sudo chown {name_of(os.geteuid())} {path}" if error.errno == EACCES else f"ls -l {path}"


@contextmanager
def _unless_restored() -> Iterator[None]:
    try:
        yield
    except BlockingIOError as error:
        raise TryLater("the database is being restored", "run the command again in a moment") from error


PURGES = 0  # no run has this id
BEHIND = 1 << 62  # no database is so long, and SQLite's own locks are on bytes of the first 2 GiB

FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: type, whence, start, length, pid


def _flock(kind: int, offset: int, length: int) -> bytes:
    """The lock on bytes from `offset` on; length 0 has no end."""
    return struct.pack(FLOCK, kind, os.SEEK_SET, offset, length, 0)
