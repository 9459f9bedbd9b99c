"""Ways to break a machine under a laboratory's processes; each block mends at its end what it broke."""

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailer_cli.database import Database
from tests.lab import Lab, Process, Ran, wait_for, wait_for_seconds

UNLIMITED = resource.RLIM_INFINITY
PAGE = 4096  # bytes of a page of the database
CHANGE_COUNTER = 24  # its place in the file; whoever has pages in memory reads them anew when it moves


@contextlib.contextmanager
def shortened(module: Any, name: str, value: float) -> Iterator[None]:
    """Processes that are forked meanwhile have this limit instead of their own."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


# No room


def limit_files(process: Process, size: int = UNLIMITED) -> None:
    """Let a living process write no file beyond so many bytes."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, UNLIMITED))


def no_room_beyond(size: int) -> Callable[[], None]:
    """For `each_child`."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, UNLIMITED))


@dataclass(frozen=True)
class Disk:
    """A file system of its own, with the database on it."""

    folder: Path

    def fill(self) -> None:
        """To its last byte."""
        with (self.folder / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(PAGE)):
                pass

    def make_room(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(lab: Lab, mib: int = 8) -> Iterator[Disk]:
    """Put the database on a disk of its own. Raises: PermissionError where nothing may be mounted."""
    with data_folder(lab, "disk") as folder:
        with mounted(folder, mib):
            move(folder.with_name("disk.before"), folder)
            lab.database = Database(lab.database.path)  # what is copied to another disk is another file
            try:
                yield Disk(folder)
            finally:
                Disk(folder).make_room()
                move(folder, folder.with_name("disk.before"))
        move(folder.with_name("disk.before"), folder)
        lab.database = Database(lab.database.path)


@contextlib.contextmanager
def mounted(folder: Path, mib: int) -> Iterator[None]:
    """An empty tmpfs over the folder, whose files wait meanwhile in `<folder>.before`."""
    beside = folder.with_name(f"{folder.name}.before")
    beside.mkdir()
    move(folder, beside)
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "mailer-tests", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        move(beside, folder)
        raise PermissionError("nothing may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def move(source: Path, target: Path) -> None:
    for each in source.iterdir():
        shutil.move(each, target / each.name)


@contextlib.contextmanager
def data_folder(lab: Lab, name: str = "data") -> Iterator[Path]:
    """Keep the database in a folder of its own; the laboratory finds it by a link."""
    folder = lab.folder / name
    folder.mkdir()
    files = ("mailer.db", "mailer.db-journal", "mailer.db.lock")
    carry(lab.folder, folder, files)
    link = lab.folder / "mailer.db"
    link.symlink_to(folder / "mailer.db")
    try:
        yield folder
    finally:
        link.unlink()
        carry(folder, lab.folder, files)


def carry(source: Path, target: Path, names: tuple[str, ...]) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            (source / name).rename(target / name)


# No permission


def obey_permissions() -> None:
    """Be bound by the modes of files, also as root; for `each_child`."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # to pass over modes when writing, and when reading
            assert libc.prctl(24, capability, 0, 0, 0) == 0  # also in a program that is started from here
        version, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert libc.capset(version, nothing) == 0


@contextlib.contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    before = path.stat().st_mode & 0o7777
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(before)


# Locks


@contextlib.contextmanager
def locked(lab: Lab, *statements: str) -> Iterator[None]:
    """Another program is inside a transaction."""
    lab.may_be_locked = True
    with contextlib.closing(lab._sqlite()) as raw:
        for each in statements:
            raw.execute(each).fetchall()
        yield
        raw.execute("ROLLBACK")


A_WRITER = ("BEGIN IMMEDIATE",)
A_READER = ("BEGIN", "SELECT count(*) FROM message")


def freeze(lab: Lab, process: Process) -> None:
    """SIGSTOP, but not while it holds a lock of the database's: that would stop the others too."""
    while True:
        process.send(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)  # each thread of it
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(lab._sqlite()) as raw:
            raw.execute("PRAGMA busy_timeout = 100")
            raw.execute("BEGIN EXCLUSIVE")
            raw.execute("ROLLBACK")
            return
        process.send(signal.SIGCONT)
        wait_for_seconds(0.007)  # or it would never get out of its transaction


# Damage


@contextlib.contextmanager
def damaged(lab: Lab, name: str) -> Iterator[None]:
    """Nonsense in the first page of a table or index. Whatever else was written meanwhile stays."""
    page = lab.number("SELECT rootpage FROM sqlite_schema WHERE name = ?", name)
    place, nonsense = (page - 1) * PAGE, b"\xa5" * PAGE
    path = lab.folder / "mailer.db"
    with path.open("r+b", buffering=0) as file:
        good = exchange(file, place, nonsense)
        bump(file)
        try:
            yield
        finally:
            assert exchange(file, place, good) == nonsense, "the page was written meanwhile"
            bump(file)


@contextlib.contextmanager
def cut_off(lab: Lab, pages: int) -> Iterator[None]:
    """Only the first pages of the file are left."""
    path = lab.folder / "mailer.db"
    good = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        file.truncate(pages * PAGE)
        try:
            yield
        finally:
            assert path.stat().st_size == pages * PAGE, "the file was written meanwhile"
            exchange(file, 0, good)


def exchange(file: Any, place: int, new: bytes) -> bytes:
    """What stood there before."""
    file.seek(place)
    old: bytes = file.read(len(new))
    file.seek(place)
    file.write(new)
    return old


def bump(file: Any) -> None:
    """Let everybody read again what they have in memory."""
    file.seek(CHANGE_COUNTER)
    counter = int.from_bytes(file.read(4), "big") + 1
    exchange(file, CHANGE_COUNTER, counter.to_bytes(4, "big"))


def one_line(ran: Ran, code: int) -> None:
    """It failed with this code and one line, perhaps a hint."""
    assert ran.code == code, ran
    lines = ran.err.splitlines()
    errors = [each for each in lines if each.startswith(("error: ", '{"error"'))]
    assert len(errors) == 1, ran
    assert all(each in errors or each.startswith(("hint: ", "warning: ")) for each in lines), ran


def wait_until_stuck(lab: Lab) -> None:
    """Until no request comes any more."""
    seen = [-1] * 20

    def is_stuck() -> bool:
        seen.append(len(lab.ledger))
        return seen[-1] == seen[-20]

    wait_for(is_stuck)
