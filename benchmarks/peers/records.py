"""What the peers share: a table of messages in SQLite, one way to send, one way to record.

One connection to the database and one keep-alive session to the sink for each thread. The journal is WAL,
with `synchronous=FULL` as in `mailer`: what is recorded survives a power cut.
"""

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.measure import Recorded
from benchmarks.sink import JWT

FILE = "records.db"
TEXT = "Скидка 20 % до воскресенья: промокод ЛЕТО"
POLL = 0.05  # seconds between looks whether all is done
HEADERS = {"Authorization": f"Bearer {JWT}"}
mine = threading.local()


def connect(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / FILE, timeout=60, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def create(folder: Path, messages: int) -> None:
    """The table with all messages pending."""
    with closing(connect(folder)) as database:
        columns = "id INTEGER PRIMARY KEY, phone INTEGER, text TEXT, status TEXT, sent_at REAL"
        database.execute(f"CREATE TABLE message ({columns})")
        database.execute("CREATE INDEX message_pending ON message (id) WHERE status = 'pending'")
        database.execute("BEGIN")
        rows = ((number, phone, TEXT) for number, phone in phones(messages))
        database.executemany("INSERT INTO message VALUES (?, ?, ?, 'pending', NULL)", rows)
        database.execute("COMMIT")


def phones(messages: int) -> Iterator[tuple[int, int]]:
    """Ids from 1, each with its phone."""
    return ((number, 79_000_000_000 + number) for number in range(1, messages + 1))


def deliver(message_id: int, phone: int) -> None:
    """Send one message and record it. Raises: RuntimeError when the answer is not OK."""
    send(message_id, phone, TEXT)
    if not hasattr(mine, "database"):
        mine.database = connect(Path.cwd())
    mine.database.execute(
        "UPDATE message SET status = 'sent', sent_at = ? WHERE id = ?", (time.time(), message_id)
    )


def send(message_id: int, phone: int, text: str) -> None:
    """One request over this thread's session. Raises: RuntimeError when the answer is not OK."""
    if not hasattr(mine, "http"):
        import requests

        mine.http = requests.Session()
        mine.http.trust_env = False  # reads .netrc and the proxies anew for every request
        mine.http.headers.update(HEADERS)
    body = {"id": message_id, "phone": phone, "text": text}
    answer = mine.http.post(f"{os.environ['SINK']}{message_id}", json=body, timeout=30)
    if answer.json()["code"] != 0:
        raise RuntimeError(f"message {message_id}: {answer.text}")


def wait_for_all(folder: Path) -> None:
    """Until nothing is pending any more, or the one who measures is gone."""
    parent = os.getppid()
    with closing(connect(folder)) as database:
        while database.execute("SELECT 1 FROM message WHERE status = 'pending' LIMIT 1").fetchone():
            time.sleep(POLL)
            if os.getppid() != parent:
                return


def recorded(folder: Path, counted: str) -> Recorded:
    """What a query for the number sent and the moment of the last record finds."""
    with closing(connect(folder)) as database:
        messages, last_at = database.execute(counted).fetchone()
    return Recorded(messages, last_at)


def main(prepare: Callable[[Path, int], None], work: Callable[..., None]) -> None:
    """`prepare N` or `work URL [OPTIONS]`, in the working folder."""
    verb, first, *options = sys.argv[1:]
    if verb == "prepare":
        prepare(Path.cwd(), int(first))
    else:
        os.environ["SINK"] = first  # also for processes that it starts
        work(*options)
