"""`mailer` with a stop watch at its transactions, for the share of time spent in the database.

From entering a transaction (the wait for the lock and BEGIN) until COMMIT has returned, on the wall clock
and in CPU seconds of its thread. The program has no hook for it; `watched.json` in the folder tells.
"""

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Connection

from mailer_cli.cli import main
from mailer_cli.database import Database

Transaction = Callable[[Database], AbstractContextManager[Connection]]


class StopWatch:
    """What the transactions took so far, in seconds; they never overlap within one run."""

    def __init__(self) -> None:
        self.transactions = 0
        self.wall = self.cpu = 0.0

    def around(self, transaction: Transaction) -> Transaction:
        @functools.wraps(transaction)
        @contextmanager
        def timed(database: Database) -> Iterator[Connection]:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                with transaction(database) as connection:
                    yield connection
            finally:
                self.transactions += 1
                self.wall += time.perf_counter() - wall
                self.cpu += time.thread_time() - cpu

        return timed


if __name__ == "__main__":
    watch = StopWatch()
    for name in ("read", "write"):
        setattr(Database, name, watch.around(getattr(Database, name)))
    code = main(sys.argv[1:])
    told = {"transactions": watch.transactions, "wall": watch.wall, "cpu": watch.cpu}
    Path("watched.json").write_text(json.dumps(told))
    sys.exit(code)
