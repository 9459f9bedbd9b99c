"""One round: start the processes, watch them, and count afterwards.

A figure is void unless what was wanted, what the contender says, what its database has and what the sink
took are the same number, and the sink took no message twice.
"""

import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.sink import Entry, Sink, environment, open_sink

LOOKS = (1, 50)  # ms between looks at the memory of what runs: at first, and at most
TICKS = os.sysconf("SC_CLK_TCK")


class Void(Exception):
    """The figure says nothing: something was lost, repeated, not recorded, or never finished."""


@dataclass(frozen=True)
class Recorded:
    """What a contender's database says afterwards. `last_at` is the moment of the last record, in seconds of
    the clock; None where the processes end with it. `said` is what it printed, if it printed a number."""

    messages: int
    last_at: float | None = None
    said: int | None = None
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """All that is needed to work off the messages; `servers` are processes that work for it meanwhile."""

    commands: Sequence[Sequence[str]]
    recorded: Callable[[], Recorded]
    servers: Sequence[int] = ()


class Contender(Protocol):
    """A way to get messages to the sink and to record them."""

    @property
    def name(self) -> str: ...

    def missing(self) -> str | None:
        """How to get what it needs; None when all is there."""

    def prepared(self, folder: Path, messages: int, url: str) -> AbstractContextManager[Prepared]:
        """Put so many messages into its queue or database; not part of the measured time."""


@dataclass(frozen=True)
class Measured:
    """One round. `seconds` from the start of the processes to the last record, `span` from the first request
    to the last by the sink's log; `cpu` in seconds of all its processes, `memory` in bytes: the sum of their
    peaks, shared pages counted in each."""

    messages: int
    seconds: float
    span: float
    cpu: float
    memory: int
    entries: Sequence[Entry] = field(repr=False)
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        return self.messages / self.seconds

    @property
    def between(self) -> float:
        """Messages a second between the first request and the last, without start and end."""
        return max(0, self.messages - 1) / max(self.span, 0.001)

    @property
    def cpu_per_10_000(self) -> float:
        return self.cpu / self.messages * 10_000


def once(
    contender: Contender,
    messages: int,
    *,
    sink: str,
    latency: float = 0.0,
    limit: float = 600.0,
    partly: bool = False,
) -> Measured:
    """One round of at most `limit` seconds; `partly` when it is meant to end before all is sent.

    Raises: Void.
    """
    with scratch() as folder, open_sink(sink, latency) as gateway:
        with contender.prepared(folder, messages, gateway.url) as ready:
            os.sync()  # nobody pays for writing what was prepared
            watch = Watch(folder, ready.servers)
            watch.run(ready.commands, limit)
            recorded = ready.recorded()
        return _checked(messages, recorded, gateway, watch, partly)


def _checked(wanted: int, recorded: Recorded, gateway: Sink, watch: "Watch", partly: bool) -> Measured:
    entries = gateway.accepted()
    require_whole(recorded.messages if partly else wanted, recorded, entries)
    seconds = (recorded.last_at or watch.ended_at) - watch.began_at
    moments = [moment for moment, _ in entries]
    span = (max(moments) - min(moments)) / 1000
    return Measured(
        recorded.messages, seconds, span, watch.cpu, watch.memory, entries, dict(recorded.details)
    )


def require_whole(wanted: int, recorded: Recorded, entries: Sequence[Entry]) -> None:
    """Every message sent once, recorded and said. Raises: Void."""
    taken = len({number for _, number in entries})
    found = {"wanted": wanted, "recorded": recorded.messages, "accepted": taken, "requests": len(entries)}
    if recorded.said is not None:
        found["said"] = recorded.said
    if len(set(found.values())) != 1 or not wanted:
        raise Void(", ".join(f"{name} {number:,}" for name, number in found.items()))


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mailer-benchmark-") as name:
        yield Path(name)


class Watch:
    """Processes while they run: their beginning and end, CPU seconds and memory, children included."""

    def __init__(self, folder: Path, servers: Sequence[int] = ()) -> None:
        self.began_at = self.ended_at = 0.0
        self.cpu = 0.0
        self.memory = 0
        self._folder, self._servers = folder, servers
        self._running: dict[int, subprocess.Popen[bytes]] = {}  # by the descriptor that tells of the end

    def run(self, commands: Sequence[Sequence[str]], limit: float) -> None:
        """Start all at once and wait for all; their output goes to `out-1`, `out-2` ... in the folder.

        Raises: Void when one fails, or is not done in time.
        """
        before = sum(map(_cpu_of, self._servers))
        self.began_at = time.time()
        try:
            for number, command in enumerate(commands, 1):
                self._start(number, command)
            self._wait(time.monotonic() + limit)
        finally:
            self._kill()
        self.cpu += sum(map(_cpu_of, self._servers)) - before

    def _start(self, number: int, command: Sequence[str]) -> None:
        out, errors = self._folder / f"out-{number}", self._folder / f"err-{number}"
        with out.open("wb") as said, errors.open("wb") as complained:
            process = subprocess.Popen(
                command, cwd=self._folder, env=environment(), stdout=said, stderr=complained
            )
        self._running[os.pidfd_open(process.pid)] = process

    def _wait(self, until: float) -> None:
        poller, pause = select.poll(), LOOKS[0]
        for descriptor in self._running:
            poller.register(descriptor, select.POLLIN)
        while self._running:
            ended = poller.poll(pause)
            pause = min(2 * pause, LOOKS[1])
            self.ended_at = time.time()
            for descriptor, _ in ended:
                poller.unregister(descriptor)
                self._reap(descriptor)
            self.memory = max(self.memory, self._memory_now())
            if time.monotonic() > until:
                raise Void("not done in time")

    def _reap(self, descriptor: int) -> None:
        process = self._running.pop(descriptor)
        os.close(descriptor)
        _, status, used = os.wait4(process.pid, 0)  # its children that it has waited for are in
        process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu += used.ru_utime + used.ru_stime
        if process.returncode:
            errors = "\n".join(path.read_text(errors="replace") for path in self._folder.glob("err-*"))
            raise Void(f"exit {process.returncode}: {errors.strip()[-600:]}")

    def _memory_now(self) -> int:
        own = [each.pid for each in self._running.values()]
        return sum(map(_peak_of, _with_children([*own, *self._servers])))

    def _kill(self) -> None:
        for descriptor, process in self._running.items():
            for pid in reversed(_with_children([process.pid])):
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            process.wait()
            os.close(descriptor)
        self._running.clear()


def _with_children(pids: Sequence[int]) -> list[int]:
    """Processes and all that descend from them, parents first."""
    found = list(pids)
    for pid in found:  # grows meanwhile
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, path.read_text().split())
    return found


def _peak_of(pid: int) -> int:
    """Bytes of memory that a process had at most until now; 0 when it is gone."""
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()):
            return int(found[1]) * 1024
    return 0


def _cpu_of(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
