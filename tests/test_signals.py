"""Signals at any moment: a run drains, whatever else is at work is undone, and there is no traceback ever."""

import fcntl
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from mailer_cli.database import Database
from mailer_cli.stop import PERSONAL, TOGETHER, WISHES, Interrupted, Stop
from tests.breakage import freeze
from tests.conftest import Mailer
from tests.judge import sent_everything
from tests.lab import Lab, Process, wait_for, wait_for_seconds

ROOT = Path(__file__).parents[1]
OpenLab = Callable[..., Lab]
NAMES = {each.name: each for each in WISHES}

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def open_lab(tmp_path: Path) -> Iterator[OpenLab]:
    """`open_lab(concurrency=8)`: a laboratory with these settings, closed behind the test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Lab(tmp_path, **settings))


# What is meant by them


class Time:
    """Seconds that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def said(*words: tuple[float, int]) -> Stop:
    """A stop to which signals were said, each after so many seconds."""
    timer = Time()
    stop = Stop(timer)
    for seconds, number in words:
        timer.now += seconds
        stop.ask(number)
    return stop


@pytest.mark.parametrize("number", WISHES)
def test_the_first_word_asks_and_does_not_abort(number: int) -> None:
    stop = said((0, number))
    assert stop.is_asked and not stop.is_abort


@pytest.mark.parametrize("number", PERSONAL)
def test_two_words_within_moments_are_one_wish(number: int) -> None:
    """GNU timeout asks the program and then its group; a terminal asks a wrapper and what it started."""
    assert not said((0, number), (0, number), (TOGETHER / 2, number)).is_abort


@pytest.mark.parametrize("number", PERSONAL)
def test_a_second_wish_aborts(number: int) -> None:
    stop = said((0, signal.SIGTERM), (0, signal.SIGTERM), (TOGETHER, number))
    assert stop.aborted_by == number


@pytest.mark.parametrize("number", set(WISHES) - set(PERSONAL))
def test_nobody_insists_by_a_closed_terminal_or_a_limit(number: int) -> None:
    stop = said((0, number), (9, number), (9, number), (9, signal.SIGTERM))
    assert stop.is_asked and not stop.is_abort


def test_a_command_is_interrupted_once_and_its_cleaning_up_is_not() -> None:
    stop = Stop(Time())
    stop.interrupt()
    with pytest.raises(Interrupted) as caught:
        stop.ask(signal.SIGHUP)
    assert caught.value.code == 128 + signal.SIGHUP
    stop.ask(signal.SIGHUP)


def test_what_is_said_while_the_program_starts_waits_for_the_command() -> None:
    stop = said((0, signal.SIGTERM))
    with pytest.raises(Interrupted):
        stop.interrupt()


# A run that sends


@pytest.mark.parametrize("name", NAMES)
def test_a_run_drains_whatever_tells_it_to_end(open_lab: OpenLab, name: str) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(60)
    lab.open_gateway("--latency", "0.2-0.4")
    process = lab.start()
    lab.wait_for_requests(9)
    process.send(NAMES[name])
    ran = process.wait()
    assert ran.code == 0, ran
    assert ran.json["stopped"] == "signal"
    one_request_each(lab)


def one_request_each(lab: Lab) -> None:
    assert lab.statuses().keys() == {"sent", "pending"}
    lab.run_until_final()
    assert sent_everything(lab)
    assert len(lab.ledger) == len(lab.accepted())
    lab.check_invariants()


def test_one_wish_that_is_said_to_the_program_and_to_its_group_is_one(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(60)
    lab.open_gateway("--latency", "0.4")
    process = lab.start()
    lab.wait_for_requests(9)
    process.send(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait().code == 0
    one_request_each(lab)


def test_a_closed_terminal_ends_create_and_dispatch_in_order(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.command("clients", "import", str(numbers(lab.folder, 60)))
    lab.open_gateway("--latency", "0.2-0.4")
    words = ("mailings", "create", "--all", "--text", "x", "--end", "+1h", "--dispatch")
    process = lab.start_command(*words)
    lab.wait_for_requests(9)
    process.send(signal.SIGHUP)
    ran = process.wait()
    assert ran.code == 0, ran
    assert ran.json["id"] == 1
    one_request_each(lab)


def test_what_is_ignored_since_the_start_stays_ignored(open_lab: OpenLab) -> None:
    """As nohup does it, and a shell for SIGINT where it starts something in the background."""
    lab = open_lab(concurrency=8)
    lab.add_mailing(40)
    lab.open_gateway("--latency", "0.1")

    def ignore() -> None:
        for each in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(each, signal.SIG_IGN)

    with lab.each_child(ignore):
        process = lab.start()
    lab.wait_for_requests(9)
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        process.send(each)
    assert process.wait().json["stopped"] is None
    assert sent_everything(lab)


def test_sigterm_is_heard_also_where_it_was_ignored(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(60)
    lab.open_gateway("--latency", "0.2")
    with lab.each_child(lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)):
        process = lab.start()
    lab.wait_for_requests(9)
    process.send(signal.SIGTERM)
    assert process.wait().json["stopped"] == "signal"


def test_a_suspended_run_whose_terminal_goes_away_drains(open_lab: OpenLab) -> None:
    """Ctrl-Z, then the window is closed: the kernel says SIGHUP and SIGCONT."""
    lab = open_lab(concurrency=8)
    lab.add_mailing(60)
    lab.open_gateway("--latency", "0.3")
    process = lab.start()
    lab.wait_for_requests(9)
    freeze(lab, process)
    process.send(signal.SIGHUP)
    process.send(signal.SIGCONT)
    assert process.wait().code == 0
    one_request_each(lab)


def test_a_run_that_is_told_to_end_while_it_starts_claims_nothing(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(5)
    lab.open_gateway()
    process = lab.start()
    wait_for(process.err.exists)
    process.send(signal.SIGTERM)  # in the middle of what it does before it claims
    assert process.wait().code in (0, -signal.SIGTERM)  # or before its first line
    lab.run_until_final()
    assert len(lab.ledger) == 5


def test_a_run_whose_terminal_is_closed_says_what_it_can_and_drains(open_lab: OpenLab) -> None:
    """Its output fails from then on: the bar, the warnings, the summary."""
    lab = open_lab(concurrency=8)
    lab.add_mailing(60)
    lab.open_gateway("--latency", "0.2-0.4")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(lab.folder)
        os.execve(sys.executable, [sys.executable, "-m", "mailer_cli", "dispatch"], fresh(lab.environment))
    try:
        wait_for(lambda: read_some(terminal) and len(lab.ledger) > 8)
    finally:
        os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0
    one_request_each(lab)


def read_some(terminal: int) -> bool:
    """A terminal that nobody reads is full some time."""
    os.set_blocking(terminal, False)
    with suppress(BlockingIOError):
        os.read(terminal, 100_000)
    return True


def fresh(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"TERM": "xterm"}


# Any command, at any moment

HERE = """
import sys
sys.argv[0] = "mailer"
try:
    print("here", flush=True)
    from mailer_cli.__main__ import main
except KeyboardInterrupt:  # Python's own start ends here
    sys.exit(130)
sys.exit(main())
"""


def start(*words: str, **more: Any) -> "subprocess.Popen[str]":
    """An interpreter that has just come to the program's first line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}

    def as_usual() -> None:
        for each in WISHES:
            signal.signal(each, signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", HERE, *words],
        stdin=more.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
        preexec_fn=as_usual,
        **more,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


def numbers(folder: Path, count: int) -> Path:
    path = folder / "list.csv"
    path.write_text("phone\n" + "".join(f"{79_160_000_000 + number}\n" for number in range(count)))
    return path


COMMANDS = (
    ("dispatch",),
    ("dispatch", "--json"),
    ("clients", "list"),
    ("clients", "import", "list.csv", "--rejects", "rejects.csv"),
    ("clients", "export", "out.csv"),
    ("db", "backup", "copy.db"),
    ("db", "purge", "--older-than", "1d", "--yes"),
    ("stats", "--json"),
    ("--help",),
)


THERE = {"mailer.db", ".env", "list.csv", "mailer.db-journal", "mailer.db.lock"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_has_a_traceback_at_any_moment(
    database: Database, folder: Path, words: tuple[str, ...]
) -> None:
    """In six tries each from the first line on, twice as late each time, with another signal."""
    numbers(folder, 20_000)
    for turn, delay in enumerate((0, 0.02, 0.06, 0.15, 0.3, 0.6)):
        number = (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[turn % 4]
        with start(*words) as process:
            wait_for_seconds(delay)
            process.send_signal(number)
            process.send_signal(number)
            _, err = process.communicate(timeout=50)
        assert "Traceback" not in err and "Exception ignored" not in err, (delay, err)
        assert process.returncode in (0, 128 + number, -number), (delay, err)
        assert process.returncode != -number or delay < 0.05  # before anybody listened
        made = {path.name for path in folder.iterdir()} - THERE
        assert made <= {"out.csv", "rejects.csv", "copy.db"}, made  # whole ones
        with closing(sqlite3.connect("mailer.db")) as raw:
            assert raw.execute("SELECT count(*) FROM client").fetchone()[0] in (0, 20_000)


@pytest.mark.parametrize("name", NAMES)
def test_a_command_that_waits_for_an_answer_is_ended_by_any_signal(
    database: Database, folder: Path, name: str
) -> None:
    """An import from a pipe that says nothing more: its transaction and its files are gone."""
    words = ("clients", "import", "-", "--rejects", "rejects.csv")
    with start(*words, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write("phone\n79161234567\n")
        process.stdin.flush()
        pipe = process.stdin.fileno()
        wait_for(lambda: not any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))), 30)  # until it is read
        process.send_signal(NAMES[name])
        assert process.wait(50) == 128 + NAMES[name]
        assert process.stderr.read() == ""
    assert {path.name for path in folder.iterdir()} - THERE == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_sandbox_ends_well_by_any_signal(database: Database, name: str) -> None:
    with start("sandbox", "--stop-after", "50") as process:
        assert process.stdout is not None and process.stdout.readline().startswith("http://")
        process.send_signal(NAMES[name])
        assert process.wait(30) == 0
        assert process.communicate()[1] == ""


def test_a_demo_that_is_ended_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    with start("demo", "--messages", "20") as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert list(folder.glob("mailer-demo-*"))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=50)
    assert process.returncode == 128 + signal.SIGTERM
    assert not list(folder.glob("mailer-demo-*"))


def test_a_command_that_hangs_in_its_end_is_ended_by_a_second_wish(open_lab: OpenLab) -> None:
    lab = open_lab()
    with lab.each_child(_hang_in_the_end):
        process: Process = lab.start_command("clients", "list")
    wait_for(lambda: (lab.folder / "hangs").exists())
    process.send(signal.SIGINT)
    wait_for(lambda: (lab.folder / "is_closing").exists())
    wait_for_seconds(TOGETHER + 0.1)
    process.send(signal.SIGINT)
    assert process.wait(30).code == 130


def _hang_in_the_end() -> None:
    from mailer_cli import clients

    def hang(*_: object, **__: object) -> None:
        try:
            Path("hangs").touch()
            time.sleep(600)
        finally:
            Path("is_closing").touch()
            time.sleep(600)

    clients.listed = hang  # type: ignore[assignment]  # in a child


def test_an_interruption_that_garbage_has_swallowed_comes_again(tmp_path: Path) -> None:
    """What is raised where an object dies goes nowhere; Python would only print it."""
    code = """
import os, signal, sys, time
from mailer_cli.stop import Stop
stop = Stop(time.monotonic)
stop.listen()
stop.interrupt()
class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
Dying()
time.sleep(50)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert (ran.returncode, ran.stderr) == (143, b"")


def test_an_interruption_that_a_library_has_changed_is_one_still(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pydantic does where it is interrupted while a class is made: an error of its own, and exit 70."""
    from mailer_cli import stats

    def changed(*_: Any) -> None:
        try:
            stops[-1].ask(signal.SIGTERM)
        except BaseException:
            raise ValueError from None

    stops: list[Stop] = []
    monkeypatch.setattr(Stop, "interrupt", lambda stop: (stops.append(stop), INTERRUPT(stop))[-1])
    monkeypatch.setattr(stats, "general", changed)
    ran = mailer("stats", code=143)
    assert ran.out + ran.err == ""


def test_a_mailing_that_is_created_is_told_whatever_comes_meanwhile(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is not told would create it a second time."""
    from mailer_cli import mailings

    stops: list[Stop] = []
    find = mailings.find

    def heard(*given: Any) -> Any:
        stops[-1].ask(signal.SIGTERM)
        return find(*given)

    monkeypatch.setattr(Stop, "interrupt", lambda stop: (stops.append(stop), INTERRUPT(stop))[-1])
    monkeypatch.setattr(mailings, "find", heard)
    ran = mailer("mailings", "create", "--text", "x", "--all", "--end", "+1h", "--json")
    assert ran.json["id"] == 1 and stops[-1].is_asked


INTERRUPT = Stop.interrupt
