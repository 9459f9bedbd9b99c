"""The laboratory: a scratch folder, a real gateway on loopback, real dispatch processes, and a judge.

    with Lab(folder) as lab:
        lab.add_mailing(messages=600)
        lab.open_gateway("--latency", "0.005-0.02")
        run = lab.start()
        run.kill()
        lab.run()
        lab.check_invariants()

The gateway's ledger and the database are the two witnesses. Triggers of the laboratory's own note every
change of a message's status and every deletion, so that the judge knows the past and not only how it ended.
Everything stops by itself: the gateway after STOP_AFTER, each process at its time limit, the rest when the
laboratory closes.
"""

import asyncio
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import random
import re
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, insert, select
from sqlmodel import col

from mailer_cli import dispatch, sandbox
from mailer_cli.cli import main
from mailer_cli.database import Database, create_database, open_database
from mailer_cli.errors import DatabaseFailed, TryLater
from mailer_cli.logs import open_log
from mailer_cli.models import Client, Mailing, MessageStatus, Outcome, Wording
from mailer_cli.settings import Settings
from mailer_cli.stop import Stop

ROOT = Path(__file__).parents[1]
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.c2FuZGJveA"  # expires in 2100, signed by nobody
STOP_AFTER = 600  # seconds; a gateway that was forgotten ends by itself
ON_ITS_WAY = 0.1  # seconds from the last look at a clock to the gateway
PATIENCE = 60.0  # seconds; whatever takes longer is a fault
HOUR = timedelta(hours=1)
ZONE = "Europe/Moscow"
FIRST_PHONE = 79_000_000_000
LOCKED = re.compile(r"\blocked\b")  # a client may be blocked

AUDIT = """
    CREATE TABLE lab_change (
        id INTEGER PRIMARY KEY, message_id INTEGER, old TEXT, new TEXT, old_run INTEGER, new_run INTEGER,
        reason TEXT
    );
    CREATE TRIGGER lab_audit AFTER UPDATE OF status ON message WHEN OLD.status <> NEW.status BEGIN
        INSERT INTO lab_change (message_id, old, new, old_run, new_run, reason)
        VALUES (NEW.id, OLD.status, NEW.status, OLD.run_id, NEW.run_id, coalesce(NEW.reason, ''));
    END;
    CREATE TABLE lab_deletion (message_id INTEGER, client_id INTEGER, mailing_id INTEGER, status TEXT);
    CREATE TRIGGER lab_deletions AFTER DELETE ON message BEGIN
        INSERT INTO lab_deletion VALUES (OLD.id, OLD.client_id, OLD.mailing_id, OLD.status);
    END;
"""


# What stands in the database before a run


@functools.cache
def _blank() -> bytes:
    """An empty database with the schema; the migrations run once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mailer.db"
        create_database(Settings(database=str(path)))
        return path.read_bytes()


def new_database(folder: Path) -> Database:
    """A database of one's own."""
    path = folder / "mailer.db"
    path.write_bytes(_blank())
    return open_database(Settings(database=str(path)))


def add_clients(connection: Connection, count: int, *, zone: str = ZONE, tag: str = "") -> list[int]:
    """New clients with phones of their own; their ids."""
    known = connection.exec_driver_sql("SELECT count(*) FROM client").scalar_one()
    now = datetime.now(UTC)
    rows = [
        {
            "phone": FIRST_PHONE + known + number,
            "operator_code": "900",
            "tag": tag,
            "timezone": zone,
            "created_at": now,
            "updated_at": now,
        }
        for number in range(count)
    ]
    if rows:
        connection.execute(insert(Client), rows)
    found = select(col(Client.id)).order_by(col(Client.id).desc()).limit(count)
    return sorted(connection.execute(found).scalars())


def add_mailing(
    connection: Connection,
    *,
    now: datetime,
    end_at: datetime | None = None,
    tags: tuple[str, ...] = (),
    **columns: Any,
) -> int:
    """A mailing to everyone, or to these tags, that began an hour ago; its id."""
    wording = insert(Wording).values(text="Привет! 50 % off").returning(col(Wording.id))
    row = {
        "wording_id": connection.execute(wording).scalar_one(),
        "start_at": now - HOUR,
        "end_at": end_at or now + HOUR,
        "operator_codes": (),
        "tags": tags,
        "everyone": not tags,
        "priority": 0,
        "created_at": now,
        "updated_at": now,
    }
    return connection.execute(insert(Mailing).values(row | columns).returning(col(Mailing.id))).scalar_one()


# Witnesses


@dataclass(frozen=True)
class Request:
    """A line of the gateway's ledger."""

    at: datetime
    id: int | None
    phone: int | None
    text: str | None
    accepted: bool
    answer: str | int
    connection: int | None


def read_ledger(path: Path) -> list[Request]:
    """The requests in the order of their arrival; a line that is being written is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().rpartition(b"\n")[0].splitlines()
    found = [json.loads(line) for line in lines]
    return [Request(**(line | {"at": datetime.fromisoformat(line["at"])})) for line in found]


@dataclass(frozen=True)
class Ran:
    """What a dispatch process did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Process:
    """A program of ours in a process group of its own, its output in files.

    It is forked from this process, so that it starts in milliseconds and a kill hits the work instead of the
    imports; with `fresh` it is an interpreter of its own, as cron starts it.
    """

    def __init__(
        self, lab: "Lab", name: str, arguments: Sequence[str], prepare: Callable[[], object] | None = None
    ) -> None:
        self.out = lab.folder / f"{name}.out"
        self.err = lab.folder / f"{name}.err"
        self.was_killed = False
        self.gave_up = False  # it said that the database could not be written
        self.may_show_phones = False
        self._child = multiprocessing.get_context("fork").Process(
            target=_become, args=(lab, self.out, self.err, arguments, prepare)
        )
        self._child.start()
        self.pid = self._child.pid or 0

    @property
    def is_alive(self) -> bool:
        return self._child.is_alive()

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, at once; the process is gone when this returns."""
        if self.is_alive:
            self.was_killed = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._child.join(PATIENCE)

    def wait(self, seconds: float = PATIENCE) -> Ran:
        """What it did, once it has ended. Raises: TimeoutError, and then it is killed."""
        self._child.join(seconds)
        code = self._child.exitcode
        if code is None:
            self.kill()
            raise TimeoutError(f"a process took more than {seconds} s")
        self.was_killed |= code == -signal.SIGKILL
        self.gave_up = code in (DatabaseFailed.exit_code, TryLater.exit_code)
        return Ran(code, self.out.read_text(), self.err.read_text())


def _become(
    lab: "Lab", out: Path, err: Path, arguments: Sequence[str], prepare: Callable[[], object] | None
) -> None:
    """Make this fork the program: its folder, environment and output, and nothing of ours but what `prepare`
    does to it."""
    os.setsid()
    os.chdir(lab.folder)
    os.environ.clear()
    os.environ.update(lab.environment)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    lab.in_child()
    if lab.fresh:
        os.execv(sys.executable, [sys.executable, "-m", "mailer_cli", *arguments])
    time.tzset()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
    if prepare is not None:
        prepare()
    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Until the condition holds. Raises: TimeoutError."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds} s in vain")
        time.sleep(0.005)


class Clock:
    """A clock that the test sets; it runs on from there by itself."""

    def __init__(self, start: datetime) -> None:
        self.set(start)

    def set(self, to: datetime) -> None:
        """While nothing is on its way."""
        self._set = self._before = to, time.monotonic()

    def __call__(self) -> datetime:
        return self._read(self._set)

    def at_the_gateway(self) -> datetime:
        """The same, but that what is on its way while the clock jumps arrives by the time it began by."""
        latest, before = self._set, self._before
        return self._read(before if time.monotonic() - latest[1] < ON_ITS_WAY else latest)

    def jump(self, to: datetime) -> None:
        self._before = self._set
        self._set = to, time.monotonic()

    @staticmethod
    def _read(setting: tuple[datetime, float]) -> datetime:
        start, began = setting
        return start + timedelta(seconds=time.monotonic() - began)


UNSEEN: set["Lab"] = set()
"""Laboratories that were not closed yet, so that nobody has looked at what they said."""


def close_forgotten() -> None:
    """Close what a test has left open. Raises: AssertionError for what was said there."""
    for each in list(UNSEEN):
        each.close()


class Lab:
    """A scratch folder with `.env`, database, gateway and dispatchers. `settings` are written to `.env` as
    `MAILER_<NAME>`."""

    def __init__(self, folder: Path, *, fresh: bool = False, **settings: object) -> None:
        self.folder = folder
        self.fresh = fresh
        self.ledger_path = folder / "ledger.jsonl"
        self.url = "http://127.0.0.1:9/v1/send/"
        self.token = TOKEN
        self.log_path = folder / "mailer.log"
        self.settings: dict[str, object] = {"log": str(self.log_path)} | settings
        self.processes: list[Process] = []
        self.warnings: list[str] = []  # of runs inside this process
        self.may_be_locked = False  # the scenario holds the write lock on purpose
        self.may_give_up = False  # the scenario breaks the database on purpose
        self.in_child: Callable[[], object] = lambda: None  # done by each new process before its work
        self._gateway: Process | None = None
        self._port = 0
        self._names = Counter[str]()
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("MAILER_", "PYTHON"))
        }
        self.environment = kept | {"PYTHONPATH": str(ROOT), "TZ": ZONE}
        self.write_env()
        self.database = new_database(folder)
        with contextlib.closing(self._sqlite()) as raw:
            raw.executescript(AUDIT)
        UNSEEN.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End whatever still runs, and look at all that was said. Raises: AssertionError, then."""
        for each in self.processes:
            each.kill()
        UNSEEN.discard(self)
        self.check_output()

    # What is there

    def write_env(self) -> None:
        """Write `.env` anew, in one step, as an operator's editor does."""
        lines = [f"TOKEN={self.token}", f"URL={self.url}"]
        lines += [f"MAILER_{name.upper()}={value}" for name, value in self.settings.items()]
        fresh = self.folder / ".env.new"
        fresh.write_text("\n".join([*lines, ""]))
        fresh.rename(self.folder / ".env")

    def here(self, **changes: Any) -> Settings:
        """Settings for a run inside this process."""
        base = Settings(
            token=self.token, url=self.url, database=str(self.folder / "mailer.db"), max_seconds=20.0
        )
        known = {each.name for each in dataclasses.fields(Settings)}
        ours = {name: value for name, value in self.settings.items() if name in known}
        return dataclasses.replace(base, **(ours | changes))

    def add_mailing(self, messages: int = 0, **columns: Any) -> int:
        """A running mailing to so many clients of its own."""
        with self.database.write() as connection:
            tag = f"lab {self._number('mailing')}"
            zone = columns.pop("zone", ZONE)
            add_clients(connection, messages, zone=zone, tag=tag)
            return add_mailing(connection, **({"now": datetime.now(UTC), "tags": (tag,)} | columns))

    def _sqlite(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder / "mailer.db", timeout=30, isolation_level=None)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with contextlib.closing(self._sqlite()) as raw:
            return raw.execute(sql, values).fetchall()

    def number(self, sql: str, *values: object) -> Any:
        """The first value of the first row."""
        return self.query(sql, *values)[0][0]

    def execute(self, sql: str, *values: object) -> int:
        """Change something, as another program would; how many rows."""
        with contextlib.closing(self._sqlite()) as raw:
            return raw.execute(sql, values).rowcount

    def statuses(self) -> dict[str, int]:
        """How many messages are in each status; those with none are left out."""
        return dict(self.query("SELECT status, count(*) FROM message GROUP BY status"))

    def forget_backoffs(self) -> None:
        """Let time pass: what waits for a repeat is due now."""
        self.execute(
            "UPDATE message SET due_at = created_at WHERE status = 'pending' AND due_at > created_at"
        )

    # The gateway

    def open_gateway(self, *options: str, port: int | None = None) -> None:
        """Start a gateway process; `.env` points to it. A second one takes the place of the first."""
        wanted = self._port if port is None else port
        arguments = ["sandbox", "--json", "--port", str(wanted), "--ledger", str(self.ledger_path)]
        self._gateway = self._launch("gateway", [*arguments, "--stop-after", str(STOP_AFTER), *options])
        out = self._gateway.out
        wait_for(lambda: out.exists() and out.read_text().count("\n"))
        said = json.loads(out.read_text())
        self._port, self.url = said["port"], said["url"]
        self.write_env()

    def close_gateway(self) -> None:
        """Connections are refused from now on."""
        assert self._gateway is not None
        self._gateway.kill()

    @contextlib.contextmanager
    def gateway_here(
        self, clock: Callable[[], datetime], *, latency: str = "0", token: str | None = None
    ) -> Iterator[None]:
        """A gateway in a thread of this process, with the clock of the test in its ledger."""
        ready, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()

        def started(port: int) -> None:
            self.url = f"http://127.0.0.1:{port}/v1/send/"
            ready.set()

        def serve() -> None:
            loop.run_until_complete(
                sandbox.serve(
                    sandbox.parse_faults(latency=latency),
                    token=token,
                    ledger=self.ledger_path,
                    random=random.Random(1),
                    clock=clock,
                    started=started,
                    stop=stop,
                    stop_after=STOP_AFTER,
                )
            )

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            assert ready.wait(PATIENCE)
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    @property
    def ledger(self) -> list[Request]:
        return read_ledger(self.ledger_path)

    def accepted(self) -> Counter[int]:
        """How often each message was accepted by the gateway."""
        return Counter(each.id for each in self.ledger if each.accepted and each.id is not None)

    # Runs

    def start(
        self, *options: str, as_json: bool = True, prepare: Callable[[], object] | None = None
    ) -> Process:
        """Start `mailer dispatch` as a process; `prepare` is done in it before the program begins."""
        return self._launch("dispatch", ["dispatch", *(["--json"] if as_json else []), *options], prepare)

    def run(
        self, *options: str, code: int | None = 0, as_json: bool = True, seconds: float = PATIENCE
    ) -> Ran:
        """One whole dispatch process."""
        ran = self.start(*options, as_json=as_json).wait(seconds)
        assert code is None or ran.code == code, ran
        return ran

    def start_command(self, *arguments: str, prepare: Callable[[], object] | None = None) -> Process:
        """Start any other command, its result as JSON."""
        process = self._launch("command", [*arguments, "--json"], prepare)
        process.may_show_phones = True  # a result is what the operator has asked for
        return process

    def command(self, *arguments: str, code: int = 0) -> Ran:
        """One whole command."""
        ran = self.start_command(*arguments).wait()
        assert ran.code == code, ran
        return ran

    def wait_for_requests(self, count: int) -> None:
        """Until the gateway has seen so many."""
        wait_for(lambda: len(self.ledger) >= count)

    def wait_for_run(self, process: Process) -> int:
        """Until the process is under way, its signal handlers in place; the id of its run."""
        find = "SELECT id FROM run WHERE pid = ?"
        wait_for(lambda: self.query(find, process.pid) or not process.is_alive)
        return int(self.number(find, process.pid))

    def run_until_final(self, most: int = 10, *, code: int | None = 0) -> list[Ran]:
        """Clean runs, backoffs passed over, until nothing is open."""
        runs = []
        while self.open_messages():
            assert len(runs) < most, self.statuses()
            self.forget_backoffs()
            runs.append(self.run(code=code))
        return runs

    def open_messages(self) -> int:
        fixed = self.number("SELECT count(*) FROM mailing WHERE fixed_at IS NOT NULL")
        waiting = self.number("SELECT count(*) FROM message WHERE status IN ('pending', 'sending')")
        return int(waiting) if fixed else 1

    def run_here(
        self,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        only: int | None = None,
        stop: Stop | None = None,
        **changes: Any,
    ) -> dispatch.Summary:
        """One run inside this process, by this clock."""
        settings = self.here(**changes)
        world = dispatch.World(
            clock=clock,
            timer=time.monotonic,
            chance=random.random,
            log=open_log(settings, clock, self.warnings.append),
            host="lab",
            pid=os.getpid(),
            stop=stop or Stop(),
        )
        return dispatch.run(open_database(settings), settings, world, only)

    def _launch(
        self, kind: str, arguments: Sequence[str], prepare: Callable[[], object] | None = None
    ) -> Process:
        process = Process(self, f"{kind}-{self._number(kind)}", arguments, prepare)
        self.processes.append(process)
        return process

    def _number(self, kind: str) -> int:
        self._names[kind] += 1
        return self._names[kind]

    @property
    def killed(self) -> set[int]:
        """The process ids of runs that did not end by themselves, or could not write that they did."""
        gave_up = {each.pid for each in self.processes if self.may_give_up and each.gave_up}
        return gave_up | {each.pid for each in self.processes if each.was_killed}

    def times_locked(self) -> int:
        """How often a run said that the database was locked."""
        paths = (path for each in self.processes for path in (each.out, each.err) if path.exists())
        return sum(len(LOCKED.findall(path.read_text())) for path in paths)

    # The judge

    def check_invariants(self, *, max_failures: int = 8, max_unknown: int = 3) -> None:
        """Everything that dispatch.md promises, in its order. Raises: AssertionError."""
        check_integrity(self)
        check_tally(self)
        check_changes(self)
        check_i1_no_row_disappears(self)
        check_i2_nothing_is_open_after_the_end(self)
        check_i3_repeats_are_explained(self)
        check_i4_requests_of_one_id_are_identical(self)
        check_i5_sent_means_taken(self)
        check_i6_sent_never_changes(self)
        check_i7_nothing_starts_after_the_end(self)
        check_i8_sending_has_one_open_attempt(self)
        check_i9_only_the_dead_are_recovered(self)
        check_i10_counters_equal_the_attempts(self)
        check_i11_limits_are_kept(self, max_failures, max_unknown)
        check_i12_summaries_are_true(self)
        self.check_output()

    def check_output(self) -> None:
        """Whatever was printed or logged: no traceback, no token, no phone, no locked database."""
        if self.log_path.exists():
            check_text(self.log_path.read_text(), may_be_locked=True)
        assert self.warnings == []
        for each in self.processes:
            for path in filter(Path.exists, (each.out, each.err)):
                check_text(
                    path.read_text(),
                    may_be_locked=self.may_be_locked,
                    may_show_phones=each.may_show_phones and path == each.out,
                )


def wait_for_seconds(seconds: float) -> None:
    """Let time itself pass, where nothing shows that something has happened."""
    time.sleep(seconds)


def check_text(text: str, *, may_be_locked: bool = False, may_show_phones: bool = False) -> None:
    """What may never be printed."""
    assert "Traceback" not in text, text
    assert "internal error" not in text, text
    assert not any(part in text for part in TOKEN.split(".")), text
    assert may_show_phones or not re.search(r"(?<!\d)7\d{10}(?!\d)", text), text
    assert may_be_locked or not LOCKED.search(text), text


def check_integrity(lab: Lab) -> None:
    assert lab.query("PRAGMA integrity_check") == [("ok",)]
    assert lab.query("PRAGMA foreign_key_check") == []


def check_tally(lab: Lab) -> None:
    """What was purged is counted for good."""
    counted = lab.query("""
        SELECT mailing_id, status, count(*) FROM (
            SELECT mailing_id, status FROM message UNION ALL SELECT mailing_id, status FROM lab_deletion
        ) GROUP BY mailing_id, status
    """)
    kept = lab.query("SELECT mailing_id, status, messages FROM tally WHERE messages > 0")
    assert sorted(counted) == sorted(kept)


MAY_BECOME = {
    "pending": {"sending", "expired", "cancelled", "unknown", "sent"},
    "sending": {"sent", "failed", "pending", "unknown"},
    "failed": {"pending", "sent"},
    "unknown": {"pending", "sent", "failed"},
    "expired": {"sent"},
    "cancelled": {"sent"},
}
"""The arrows of dispatch.md; `sent` from anywhere, when an answer comes late."""


def check_changes(lab: Lab) -> None:
    for old, new, count in lab.query("SELECT old, new, count(*) FROM lab_change GROUP BY old, new"):
        assert new in MAY_BECOME.get(old, set()), f"{count} messages went from {old} to {new}"


def check_i1_no_row_disappears(lab: Lab) -> None:
    """I1: each client of a fixed mailing has one message, and whatever the gateway saw is known here.

    Only a purge deletes messages, and only those that are final.
    """
    lost = lab.query("""
        SELECT message_id FROM lab_deletion JOIN mailing ON mailing.id = mailing_id
        WHERE purged_at IS NULL OR status IN ('pending', 'sending')
    """)
    assert lost == []
    missing = lab.query("""
        SELECT mailing.id, client.id FROM mailing, json_each(mailing.tags) AS tag
        JOIN client ON client.tag = tag.value
        LEFT JOIN message ON message.mailing_id = mailing.id AND message.client_id = client.id
        WHERE mailing.fixed_at IS NOT NULL AND client.created_at < mailing.fixed_at AND message.id IS NULL
          AND (mailing.id, client.id) NOT IN (SELECT mailing_id, client_id FROM lab_deletion)
    """)
    assert missing == []
    known = {row[0] for row in lab.query("SELECT id FROM message UNION SELECT message_id FROM lab_deletion")}
    assert {each.id for each in lab.ledger if each.id is not None} <= known


def check_i2_nothing_is_open_after_the_end(lab: Lab) -> None:
    """I2, for mailings that a whole run has seen after their end."""
    still_open = lab.query("""
        SELECT message.id, message.status FROM message JOIN mailing ON mailing.id = message.mailing_id
        WHERE message.status IN ('pending', 'sending')
          AND mailing.end_at <= (SELECT max(started_at) FROM run WHERE ended_at IS NOT NULL)
    """)
    assert still_open == []


def unknown_attempts(lab: Lab) -> Counter[int]:
    """How many attempts of each message may have been taken without our knowing."""
    return Counter(
        dict(
            lab.query("""
        SELECT message_id, count(*) FROM attempt
        WHERE outcome IN ('unknown', 'late_ok', 'server') GROUP BY message_id
    """)
        )
    )


def check_i3_repeats_are_explained(lab: Lab) -> None:
    """I3: accepted at most once more than there are attempts whose fate was unknown."""
    doubts = unknown_attempts(lab)
    open_attempts = Counter(
        row[0] for row in lab.query("SELECT message_id FROM attempt WHERE outcome IS NULL")
    )
    bad = {id: times for id, times in lab.accepted().items() if times > 1 + doubts[id] + open_attempts[id]}
    assert bad == {}


def check_i4_requests_of_one_id_are_identical(lab: Lab) -> None:
    """I4, and they are what the database says."""
    seen = defaultdict(set)
    for each in lab.ledger:
        if each.id is not None:
            seen[each.id].add((each.phone, each.text))
    assert {id: said for id, said in seen.items() if len(said) > 1} == {}
    kept = lab.query("""
        SELECT message.id, phone, text FROM message JOIN wording ON wording.id = wording_id
    """)
    assert all(seen[id] == {(phone, text)} for id, phone, text in kept if id in seen)


def check_i5_sent_means_taken(lab: Lab) -> None:
    """I5: `sent` exactly when some attempt is OK, or the operator said so; and the gateway agrees."""
    has_ok = {
        row[0] for row in lab.query("SELECT message_id FROM attempt WHERE outcome IN ('ok', 'late_ok')")
    }
    resolved = {row[0] for row in lab.query("SELECT message_id FROM resolution WHERE status = 'sent'")}
    sent = {row[0] for row in lab.query("SELECT id FROM message WHERE status = 'sent'")}
    assert has_ok <= sent <= has_ok | resolved
    assert has_ok <= lab.accepted().keys()


def check_accepted_is_never_denied(lab: Lab) -> None:
    """What the gateway took is `sent`, or at least not called failed, expired or cancelled."""
    denied = "SELECT id FROM message WHERE status IN ('failed', 'expired', 'cancelled')"
    assert {row[0] for row in lab.query(denied)}.isdisjoint(lab.accepted())


def check_i6_sent_never_changes(lab: Lab) -> None:
    """I6, and nobody is told later that it was not."""
    assert lab.query("SELECT message_id, new FROM lab_change WHERE old = 'sent'") == []
    check_accepted_is_never_denied(lab)


def check_i7_nothing_starts_after_the_end(lab: Lab) -> None:
    """I7, by the gateway's clock, which is also ours."""
    ends = dict(lab.query("SELECT message.id, end_at FROM message JOIN mailing ON mailing.id = mailing_id"))
    late = [each for each in lab.ledger if each.id in ends and each.at >= as_utc(ends[each.id])]
    assert late == []


def check_i8_sending_has_one_open_attempt(lab: Lab) -> None:
    """I8: its latest, of the run that owns it."""
    wrong = lab.query("""
        SELECT message.id FROM message WHERE status = 'sending' AND NOT EXISTS (
            SELECT 1 FROM attempt WHERE message_id = message.id AND number = message.attempts
            AND attempt.run_id = message.run_id AND outcome IS NULL
        )
        UNION ALL
        SELECT message_id FROM attempt WHERE outcome IS NULL GROUP BY message_id HAVING count(*) > 1
        UNION ALL
        SELECT message.id FROM message WHERE attempts <> (
            SELECT count(*) FROM attempt WHERE message_id = message.id
        )
    """)
    assert wrong == []


def check_i9_only_the_dead_are_recovered(lab: Lab) -> None:
    """I9: every run that others found dead was killed by us."""
    died = {row[0] for row in lab.query("SELECT pid FROM run WHERE stopped = 'died'")}
    assert died <= lab.killed
    taken = lab.query("""
        SELECT old_run FROM lab_change JOIN run ON run.id = old_run
        WHERE old = 'sending' AND new_run IS NOT NULL AND new_run <> old_run
    """)
    assert taken == []


def check_i10_counters_equal_the_attempts(lab: Lab) -> None:
    """I10: `failures` and `unknowns` are what the attempts say."""
    wrong = lab.query("""
        SELECT id, failures, unknowns FROM message
        WHERE failures <> (SELECT count(*) FROM attempt WHERE message_id = message.id
                           AND outcome IN ('temporary', 'rejected', 'server'))
           OR unknowns <> (SELECT count(*) FROM attempt WHERE message_id = message.id
                           AND outcome IN ('unknown', 'late_ok'))
    """)
    assert wrong == []


def check_i11_limits_are_kept(lab: Lab, max_failures: int, max_unknown: int) -> None:
    """I11: no message is tried any more once it has reached a limit."""
    beyond = lab.query(
        """
        SELECT id, status, failures, unknowns FROM (
            SELECT *, failures - failures_forgiven AS failed, unknowns - unknowns_forgiven AS doubts
            FROM message
        ) WHERE failed > ? OR doubts > ? OR status = 'pending' AND (failed >= ? OR doubts >= ?)
        """,
        *(max_failures, max_unknown, max_failures, max_unknown),
    )
    assert beyond == []


def check_i12_summaries_are_true(lab: Lab) -> None:
    """I12: what a run says it did is what changed, for every run that ended by itself."""
    runs = lab.query("""
        SELECT id, claimed, sent, failed, deferred, repeats FROM run
        WHERE ended_at IS NOT NULL AND stopped IS NOT 'died'
    """)
    changed = Counter[tuple[int, str, str]]()
    for run, old, new, count in lab.query(
        "SELECT coalesce(old_run, new_run), old, new, count(*) FROM lab_change GROUP BY 1, 2, 3"
    ):
        changed[run, old, new] = count
    repeats = dict(lab.query("SELECT run_id, count(*) FROM attempt WHERE number > 1 GROUP BY run_id"))
    late = dict(lab.query("SELECT run_id, count(*) FROM attempt WHERE outcome = 'late_ok' GROUP BY run_id"))
    for run, claimed, sent, failed, deferred, repeated in runs:
        was = Counter({new: changed[run, "sending", new] for new in ("sent", "failed", "pending")})
        told = (claimed, failed, deferred, repeated)
        assert told == (
            changed[run, "pending", "sending"],
            was["failed"],
            was["pending"],
            repeats.get(run, 0),
        )
        assert was["sent"] <= sent <= was["sent"] + late.get(run, 0), run
    check_ends_are_counted(lab)


def check_ends_are_counted(lab: Lab) -> None:
    """Expired and unknown messages, over all runs: none is told twice; without deaths none is left out."""
    told = lab.query("SELECT sum(expired), sum(unknown) FROM run")[0]
    expired = "SELECT count(*) FROM lab_change WHERE new = 'expired'"
    unknown = "SELECT count(*) FROM lab_change WHERE new = 'unknown' AND reason NOT LIKE 'client %'"
    happened = [lab.number(expired), lab.number(unknown)]
    pairs = list(zip(told, happened, strict=True))
    assert all((said or 0) <= true for said, true in pairs), pairs
    assert lab.killed or all((said or 0) == true for said, true in pairs), pairs


def as_utc(stored: str) -> datetime:
    """A time as SQLite keeps it."""
    found = datetime.fromisoformat(stored)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def stored(moment: datetime) -> str:
    """A time as SQLite keeps it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"


def sent_everything(lab: Lab) -> bool:
    return set(lab.statuses()) == {MessageStatus.SENT.value}


# Faults that a test injects a few times and a long run for an hour


def kill_runs(lab: Lab, kills: int, chance: random.Random, until: float = inf) -> int:
    """kill -9 so many runs while there is work, each at a random point; how many were alive to be killed."""
    done = 0
    while done < kills and time.monotonic() < until and lab.open_messages():
        process = lab.start()
        if chance.random() < 0.75:  # the others may be hit while they start
            lab.wait_for_run(process)
        time.sleep(chance.uniform(0, 0.25))
        process.kill()
        done += process.was_killed
        lab.forget_backoffs()
    return done


def terminate_runs(lab: Lab, signals: int, chance: random.Random, until: float = inf) -> int:
    """SIGTERM so many runs while there is work, each at a random point; how many took it as they should."""
    done = 0
    while done < signals and time.monotonic() < until and lab.open_messages():
        process = lab.start()
        lab.wait_for_run(process)
        time.sleep(chance.uniform(0, 0.3))
        process.send(signal.SIGTERM)
        ran = process.wait()
        assert (ran.code, ran.json["stopped"]) == (0, "signal"), ran
        assert "sending" not in lab.statuses()
        done += 1
    return done


def end_soon(lab: Lab, messages: int, left: timedelta) -> int:
    """Let a mailing end while it is being sent, and let another run find out; its id."""
    seen, mailing = len(lab.ledger), lab.add_mailing(messages)
    process = lab.start()
    lab.wait_for_requests(seen + 5)
    end_at = datetime.now(UTC) + left
    lab.execute("UPDATE mailing SET end_at = ? WHERE id = ?", stored(end_at), mailing)
    assert process.wait().code in (0, 69)
    wait_for(lambda: datetime.now(UTC) > end_at)
    lab.run(code=None)
    return mailing


def end_at_random(lab: Lab, mailings: int, chance: random.Random, until: float = inf) -> int:
    """Let so many mailings end while they are being sent, each at a moment of its own; how many did."""
    done = 0
    while done < mailings and time.monotonic() < until:
        batch = min(ENDS_AT_ONCE, mailings - done)
        now = datetime.now(UTC)
        with lab.database.write() as connection:
            add_clients(connection, MESSAGES_EACH, tag=(tag := f"ends {lab._number('ends')}"))
            ends = [now + timedelta(seconds=chance.uniform(2.1, ENDS_WITHIN)) for _ in range(batch)]
            for end_at in ends:
                add_mailing(connection, now=now, end_at=end_at, tags=(tag,))
        while datetime.now(UTC) < max(ends):
            lab.run(code=None)
            lab.forget_backoffs()
        done += batch
    return done


ENDS_AT_ONCE = 250
ENDS_WITHIN = 8.0  # seconds
MESSAGES_EACH = 12  # more than can be sent in that time


def import_beside_a_run(lab: Lab, importers: int, rows: int) -> int:
    """So many importers, each with a list of its own again and again, as long as a run lasts; how many lists
    came in whole."""
    for number in range(importers):
        phones = range(FIRST_PHONE + 10**8 * (number + 1), FIRST_PHONE + 10**8 * (number + 1) + rows)
        lines = [f"{phone},list {number}" for phone in phones]
        (lab.folder / f"list-{number}.csv").write_text("\n".join(["phone,tag", *lines, ""]))
    run, done = lab.start(), 0
    while run.is_alive:
        lists = [lab.start_command("clients", "import", f"list-{number}.csv") for number in range(importers)]
        assert [each.wait().code for each in lists] == [0] * importers
        done += importers
    assert run.wait().code == 0
    assert lab.number("SELECT count(*) FROM client WHERE tag LIKE 'list %'") == importers * rows
    return done


EVERY_ANSWER: dict[Outcome, tuple[str, ...]] = {
    Outcome.OK: ("taken-twice",),
    Outcome.BUSY: sandbox.BUSY,
    Outcome.TEMPORARY: ("wrong-code",),
    Outcome.REJECTED: ("400", "413", "422"),
    Outcome.CONFIG: ("401", "403", "404", "405", "redirect"),
    Outcome.SERVER: ("500", "502", "504", "taken-500"),
    Outcome.UNKNOWN: (
        *("hang", "slow", "reset", "disconnect", "bad-chunks", "garbage", "foreign", "huge"),
        *("taken-hang", "taken-reset", "taken-204", "taken-gzip"),
    ),
}
"""The table of outcomes as the gateway can play it; NOT_SENT has no answer, and outages stand for it."""


def fault_options(shares: Mapping[Outcome, float]) -> list[str]:
    """Each row at its share of all requests, evenly over its kinds."""
    rates = {
        kind: share / len(EVERY_ANSWER[row]) for row, share in shares.items() for kind in EVERY_ANSWER[row]
    }
    return [word for kind, rate in rates.items() for word in ("--fault", f"{kind}={rate}")]


def outage_options(seconds: float) -> list[str]:
    """An outage every half a minute, for so many seconds.

    With an open breaker each run costs one refused connection, so it takes 12 seconds of each 30 until one
    attempt in twenty is one.
    """
    starts = range(10, 10 + int(seconds), 30)
    return [word for start in starts for word in ("--outage", f"{start}+12")]


@dataclass(frozen=True)
class Toll:
    """What a scenario cost."""

    messages: int
    lost: int  # neither in a final state nor known to the gateway's ledger as it should be
    repeats: int
    unknown: int
    unexplained: int

    def __str__(self) -> str:
        return ", ".join(f"{value} {name}" for name, value in vars(self).items())


def toll(lab: Lab) -> Toll:
    """Count what became of everything."""
    accepted, doubts = lab.accepted(), unknown_attempts(lab)
    finals = lab.query("SELECT id, status FROM message WHERE status NOT IN ('pending', 'sending')")
    statuses = lab.statuses()
    total = sum(statuses.values())
    never_taken = sum(status == "sent" and not accepted[id] for id, status in finals)
    return Toll(
        messages=total,
        lost=total - len(finals) + never_taken,
        repeats=sum(times - 1 for times in accepted.values()),
        unknown=statuses.get("unknown", 0),
        unexplained=sum(max(0, times - 1 - doubts[id]) for id, times in accepted.items()),
    )
