"""Other ways to do the same work; each imports its libraries in processes of its own only.

Each module is run twice in the round's folder: `python -m benchmarks.peers.NAME prepare N`, which is not
timed, and `python -m benchmarks.peers.NAME work URL [OPTIONS]`, which ends with the last message recorded.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.measure import Prepared
from benchmarks.peers import records
from benchmarks.sink import PATIENCE, environment, require_alive, running, unprivileged

EXTRA = "pip install -e '.[bench]'"
REDIS = "apt-get install redis-server"
"""How to get what is missing."""


@dataclass(frozen=True)
class Peer:
    """A peer by the name of its module. `needs` are the libraries that it imports; `counted` is what tells
    how many messages `records.db` has as sent, and when the last of them was recorded."""

    name: str
    module: str
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    uses_redis: bool = False
    counted: str = "SELECT count(*), max(sent_at) FROM message WHERE status = 'sent'"

    def missing(self) -> str | None:
        if not all(find_spec(each) for each in self.needs):
            return EXTRA
        return REDIS if self.uses_redis and shutil.which("redis-server") is None else None

    @contextmanager
    def prepared(self, folder: Path, messages: int, url: str) -> Iterator[Prepared]:
        command = [sys.executable, "-m", f"benchmarks.peers.{self.module}"]
        with _redis(folder) if self.uses_redis else nullcontext() as server:
            prepare = [*command, "prepare", str(messages)]
            subprocess.run(prepare, cwd=folder, env=environment(), check=True, capture_output=True)
            servers = [server.pid] if server else []
            work = [*command, "work", url, *self.options]
            yield Prepared([work], lambda: records.recorded(folder, self.counted), servers)


@contextmanager
def _redis(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Redis of its own, behind `redis.sock` in the folder; it writes nothing to the disk."""
    with tempfile.TemporaryDirectory(prefix="mailer-redis-") as name:
        place = Path(name)
        command = ["redis-server", "--port", "0", "--unixsocket", f"{name}/sock", "--dir", name]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        with running([*unprivileged(place), *command], place) as process:
            until = time.monotonic() + PATIENCE
            while not (place / "sock").exists():
                require_alive(process, until, "redis-server")
            (folder / "redis.sock").symlink_to(place / "sock")
            yield process


def _django(name: str, processes: int, threads: int) -> Peer:
    # 0 is sent; no moment of the last one is needed, for the process ends with it
    counted = "SELECT count(*), NULL FROM post_office_email WHERE status = 0"
    needs, options = ("django", "post_office", "requests"), (str(processes), str(threads))
    return Peer(name, "post_office", needs, options, counted=counted)


PEERS = {
    "huey": Peer("Huey on SQLite, 8 threads", "huey_sqlite", ("huey", "requests")),
    "dramatiq": Peer(
        "dramatiq + Redis, 2 x 8", "dramatiq_redis", ("dramatiq", "redis", "requests"), uses_redis=True
    ),
    "post_office": _django("django-post_office, 1 x 1", 1, 1),
    "post_office_2x8": _django("django-post_office, 2 x 8", 2, 8),
    "loop": Peer("a loop with httpx and SQLModel", "loop"),
}
