"""Whether the clock may be believed: it is held against the time since the machine started.

Both go on together, also while a laptop sleeps, so their difference changes only when the clock is set. When
it is set ahead by more than FORWARD, as that of a virtual machine that wakes may be, once, it is doubted
until it has stayed so for PATIENCE; meanwhile nothing is begun and nothing ended. After a start of the
machine there is nothing to hold it against.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

FORWARD = 120.0  # seconds
PATIENCE = 600.0  # seconds since the machine started, which nobody sets
DRIFT = 1.0  # seconds; a clock that is slewed by less is not written down anew

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PLACE, SIZE = 1024, 128  # in the lock file, behind whatever else may stand there


@dataclass(frozen=True)
class Boot:
    """Which start of the machine this is, and how many seconds ago it was, sleep included."""

    id: str
    seconds: float


def boot_of(seconds: float) -> Boot | None:
    """None where the machine does not name its starts."""
    with suppress(OSError):
        return Boot(BOOT_ID.read_text(encoding="ascii").strip(), seconds)
    return None


@dataclass(frozen=True)
class Belief:
    """What is believed: the clock when the machine started, and since when another one is doubted."""

    boot_id: str
    started: float  # seconds of the epoch
    doubted_since: float | None = None  # seconds after the start

    def differs(self, other: "Belief") -> bool:
        """By more than a clock that is slewed does from look to look."""
        same = (self.boot_id, self.doubted_since) == (other.boot_id, other.doubted_since)
        return not same or abs(self.started - other.started) > DRIFT

    def packed(self) -> bytes:
        since = "-" if self.doubted_since is None else f"{self.doubted_since:.3f}"
        return f"{self.boot_id} {self.started:.3f} {since}\n".encode().ljust(SIZE, b"\0")


def judged(before: Belief | None, now: datetime, boot: Boot) -> Belief:
    """What is to be believed at this look at the clock."""
    started = now.timestamp() - boot.seconds
    believed = Belief(boot.id, started)
    if before is None or before.boot_id != boot.id or started - before.started <= FORWARD:
        return believed
    since = boot.seconds if before.doubted_since is None else before.doubted_since
    return believed if boot.seconds - since >= PATIENCE else Belief(boot.id, before.started, since)


def ahead(file: int, now: datetime, boot: Boot | None) -> timedelta | None:
    """How far ahead of what is believed a clock is that is doubted; None when it is believed.

    The belief is kept in the open lock file. Where it cannot be written, no clock is doubted.
    """
    if boot is None:
        return None
    before = _read(file)
    after = judged(before, now, boot)
    if before is None or after.differs(before):
        with suppress(OSError):
            os.pwrite(file, after.packed(), PLACE)
    if after.doubted_since is None:
        return None
    return timedelta(seconds=now.timestamp() - boot.seconds - after.started)


def _read(file: int) -> Belief | None:
    with suppress(OSError, ValueError):
        boot_id, started, since = os.pread(file, SIZE, PLACE).rstrip(b"\0").decode("ascii").split()
        return Belief(boot_id, float(started), None if since == "-" else float(since))
    return None
