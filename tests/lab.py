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
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from mailer_cli.models import Client, Mailing, Wording
from mailer_cli.settings import Settings
from mailer_cli.stop import WISHES, Stop
from tests import judge

ROOT = Path(__file__).parents[1]
STOP_AFTER = 600  # seconds; a gateway that was forgotten ends by itself
ON_ITS_WAY = 0.1  # seconds from the last look at a clock to the gateway
ON_THE_WAY = timedelta(seconds=ON_ITS_WAY)
PATIENCE = 60.0  # seconds; whatever takes longer is a fault
HOUR = timedelta(hours=1)
ZONE = "Europe/Moscow"
FIRST_PHONE = 79_000_000_000

PLANNED = "paused_at, cancelled_at, removed_at, start_at, end_at, window_from, window_to"
PLAN = """
    INSERT INTO lab_plan (mailing_id, is_stopped, start_at, end_at, window_from, window_to) VALUES (
        NEW.id, coalesce(NEW.paused_at, NEW.cancelled_at, NEW.removed_at) IS NOT NULL,
        NEW.start_at, NEW.end_at, NEW.window_from, NEW.window_to
    )
"""
PERSON = "INSERT INTO lab_person (client_id, phone) VALUES (NEW.id, NEW.phone)"
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
    CREATE TABLE lab_plan (
        id INTEGER PRIMARY KEY, at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')), mailing_id INTEGER,
        is_stopped INTEGER, start_at TEXT, end_at TEXT, window_from INTEGER, window_to INTEGER
    );
    CREATE TABLE lab_person (
        id INTEGER PRIMARY KEY, at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')), client_id INTEGER,
        phone INTEGER
    );
    CREATE TABLE lab_block (
        id INTEGER PRIMARY KEY, at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')), phone INTEGER,
        is_blocked INTEGER
    );
""" + "".join(
    f"""
    CREATE TRIGGER lab_{name} AFTER {event} BEGIN {what}; END;
    """
    for name, event, what in (
        ("planned", "INSERT ON mailing", PLAN),
        ("replanned", f"UPDATE OF {PLANNED} ON mailing", PLAN),
        ("met", "INSERT ON client", PERSON),
        ("moved", "UPDATE OF phone, removed_at ON client", PERSON),
        ("blocked", "INSERT ON block", "INSERT INTO lab_block (phone, is_blocked) VALUES (NEW.phone, 1)"),
        ("unblocked", "DELETE ON block", "INSERT INTO lab_block (phone, is_blocked) VALUES (OLD.phone, 0)"),
    )
)
"""What the judge has to know of the past: each change of a status, each deletion, and each word of the
operator's, with its time."""


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

    def __init__(self, lab: "Lab", name: str, arguments: Sequence[str]) -> None:
        self.out = lab.folder / f"{name}.out"
        self.err = lab.folder / f"{name}.err"
        self.was_killed = False
        self.gave_up = False  # it said that the database could not be written
        self.may_show_phones = False
        self._child = multiprocessing.get_context("fork").Process(
            target=_become, args=(lab, self.out, self.err, arguments)
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


def _become(lab: "Lab", out: Path, err: Path, arguments: Sequence[str]) -> None:
    """Make this fork the program: its folder, environment and output, and nothing of ours but what `in_child`
    does to it."""
    os.setsid()
    for each in WISHES:  # whatever has started the tests
        signal.signal(each, signal.SIG_DFL)
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
    stop = Stop(time.monotonic)
    stop.listen()
    code = main(arguments, stop)
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


def _kept_port() -> socket.socket:
    """A port for a gateway that comes and goes: meanwhile it refuses, and is given to nobody else."""
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that the gateway may listen there, too
    kept.bind(("127.0.0.1", 0))
    return kept


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
        self.token = judge.TOKEN
        self.log_path = folder / "mailer.log"
        self.settings: dict[str, object] = {"log": str(self.log_path)} | settings
        self.processes: list[Process] = []
        self.warnings: list[str] = []  # of runs inside this process
        self.may_be_locked = False  # the scenario holds the write lock on purpose
        self.may_give_up = False  # the scenario breaks the database on purpose
        self.has_own_clock = False  # what the ledger says cannot be compared with when something was said
        self.spoken: list[judge.Spoken] = []  # by gateways that a test scripts
        self.in_child: Callable[[], object] = lambda: None  # done by each new process before its work
        self._gateway: Process | None = None
        self._kept = _kept_port()
        self._port = self._kept.getsockname()[1]
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
        self._kept.close()
        UNSEEN.discard(self)
        self.check_output()

    @contextlib.contextmanager
    def each_child(self, hook: Callable[[], object]) -> Iterator[None]:
        """Every process that is started meanwhile does this before its work."""
        before, self.in_child = self.in_child, hook
        try:
            yield
        finally:
            self.in_child = before

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

    def open_gateway(self, *options: str) -> None:
        """Start a gateway process; `.env` points to it. A second one takes the place of the first."""
        arguments = ["sandbox", "--json", "--port", str(self._port), "--ledger", str(self.ledger_path)]
        self._gateway = self._launch("gateway", [*arguments, "--stop-after", str(STOP_AFTER), *options])
        out = self._gateway.out
        wait_for(lambda: out.exists() and out.read_text().count("\n"))
        self.url = json.loads(out.read_text())["url"]
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
        self.has_own_clock |= isinstance(getattr(clock, "__self__", clock), Clock)
        self.has_own_clock |= abs(clock() - datetime.now(UTC)) > ON_THE_WAY
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

    def start(self, *options: str, as_json: bool = True) -> Process:
        """Start `mailer dispatch` as a process."""
        return self._launch("dispatch", ["dispatch", *(["--json"] if as_json else []), *options])

    def run(
        self, *options: str, code: int | None = 0, as_json: bool = True, seconds: float = PATIENCE
    ) -> Ran:
        """One whole dispatch process."""
        ran = self.start(*options, as_json=as_json).wait(seconds)
        assert code is None or ran.code == code, ran
        return ran

    def start_command(self, *arguments: str) -> Process:
        """Start any other command, its result as JSON."""
        process = self._launch("command", [*arguments, "--json"])
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
        world: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> dispatch.Summary:
        """One run inside this process, by this clock; `world` is what comes from outside otherwise."""
        settings = self.here(**changes)
        here = dispatch.World(
            clock=clock,
            timer=time.monotonic,
            chance=random.random,
            log=open_log(settings, clock, self.warnings.append),
            host="lab",
            pid=os.getpid(),
            stop=stop or Stop(time.monotonic),
        )
        here = dataclasses.replace(here, **(world or {}))
        return dispatch.run(open_database(settings), settings, here, only)

    def _launch(self, kind: str, arguments: Sequence[str]) -> Process:
        process = Process(self, f"{kind}-{self._number(kind)}", arguments)
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
        """How often a run said that the database was locked, where nobody held it on purpose."""
        if self.may_be_locked:
            return 0
        paths = (path for each in self.processes for path in (each.out, each.err) if path.exists())
        return sum(len(judge.LOCKED.findall(path.read_text())) for path in paths)

    # The judge

    def check_invariants(self, *, max_failures: int = 8, max_unknown: int = 3) -> None:
        """Everything that dispatch.md promises, in its order. Raises: AssertionError."""
        judge.check_integrity(self)
        judge.check_tally(self)
        judge.check_changes(self)
        judge.check_i1_no_row_disappears(self)
        judge.check_i2_nothing_is_open_after_the_end(self)
        judge.check_i3_repeats_are_explained(self)
        judge.check_i4_what_may_have_been_taken_is_repeated_as_it_was(self)
        judge.check_one_number_gets_one_message(self)
        judge.check_i5_sent_means_taken(self)
        judge.check_i6_sent_never_changes(self)
        judge.check_i7_nothing_starts_after_the_end(self)
        judge.check_nothing_begins_after_it_was_forbidden(self)
        judge.check_good_mailings_are_served(self)
        judge.check_i8_sending_has_one_open_attempt(self)
        judge.check_i9_only_the_dead_are_recovered(self)
        judge.check_i10_counters_equal_the_attempts(self)
        judge.check_i11_limits_are_kept(self, max_failures, max_unknown)
        judge.check_i12_summaries_are_true(self)
        self.check_output()

    def check_output(self) -> None:
        """Whatever was printed or logged: no traceback, no token, no phone, no locked database."""
        if self.log_path.exists():
            judge.check_text(self.log_path.read_text(), may_be_locked=True)
        assert self.warnings == []
        for each in self.processes:
            for path in filter(Path.exists, (each.out, each.err)):
                judge.check_text(
                    path.read_text(),
                    may_be_locked=self.may_be_locked,
                    may_show_phones=each.may_show_phones and path == each.out,
                )


def wait_for_seconds(seconds: float) -> None:
    """Let time itself pass, where nothing shows that something has happened."""
    time.sleep(seconds)
