"""Machines that fail around a run: its output, its log, its clock, its own time, its schema, room for more.

Scenarios as in tests/machine.py, which lists them.
"""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mailer_cli import SCHEMA
from tests.breakage import Disk, freeze, mounted, no_room_beyond, one_line
from tests.judge import stored
from tests.lab import HOUR, Clock, Lab, wait_for

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
AT_ONCE = 50  # messages for each fault


def rounds(lab: Lab, messages: int, latency: str = "0") -> Iterator[int]:
    """A gateway, and a new mailing for each fault; the number of the fault."""
    lab.open_gateway("--latency", latency)
    for number in range(max(2, messages // AT_ONCE)):
        lab.add_mailing(AT_ONCE)
        yield number


# Output


def nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def both_closed() -> None:
    os.closerange(1, 3)


OUTLETS: tuple[tuple[Callable[[], object], int], ...] = (
    (lambda: os.close(1), 74),  # >&-
    (lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 1), 74),
    (nobody, 0),  # | true
    (both_closed, 74),
)


def no_output(lab: Lab, messages: int, chance: random.Random) -> int:
    """The result cannot be written; all of it stands in the database."""
    lab.fresh = True
    for number in rounds(lab, messages):
        outlet, code = OUTLETS[number % len(OUTLETS)]
        with lab.each_child(outlet):
            ran = lab.run(code=code)
        assert lab.open_messages() == 0
        if code and outlet is not both_closed:
            one_line(ran, code)
        else:
            assert ran.err == ""
    lab.fresh = False
    return number + 1


# The log


def no_log(lab: Lab, messages: int, chance: random.Random) -> int:
    """The log's disk is full, or its folder is not there: one warning, and the work is done."""
    before = lab.settings["log"]
    for number in rounds(lab, messages):
        lab.settings["log"] = ("/dev/full", "missing/mailer.log")[number % 2]
        lab.write_env()
        one_warning(lab)
    lab.settings["log"] = before
    lab.write_env()
    return number + 1


def full_log_disk(lab: Lab, messages: int, chance: random.Random) -> int:
    """A small disk with the log on it. Raises: PermissionError where nothing may be mounted."""
    folder, before = lab.folder / "logs", lab.settings["log"]
    folder.mkdir()
    with mounted(folder, 1):
        lab.settings["log"] = str(folder / "mailer.log")
        disk = Disk(folder)
        for number in rounds(lab, messages):  # noqa: B007
            disk.fill()
            one_warning(lab)
            disk.make_room()
        lab.settings["log"] = before
    lab.write_env()
    return number + 1


def one_warning(lab: Lab) -> None:
    ran = lab.run()
    assert lab.open_messages() == 0
    assert ran.err.startswith("warning: cannot write the log"), ran
    assert ran.err.count("\n") == 1, ran


# Time

ASLEEP = 3.5 * SECOND  # so far from its end a run goes on; and longer than a limit of 1 s and OVERSLEPT


def suspended(lab: Lab, messages: int, chance: random.Random) -> int:
    """Asleep past the time limits of its requests, or past a mailing's end, while another run is at work."""
    lab.settings["timeout"] = 1
    faults = max(2, messages // (2 * AT_ONCE))
    lab.open_gateway("--latency", "0.1-0.2")
    for number in range(faults):
        seen, mailing = len(lab.ledger), lab.add_mailing(2 * AT_ONCE)
        process = lab.start()
        lab.wait_for_requests(seen + chance.randrange(9, 30))
        if number % 2:
            end_at = datetime.now(UTC) + ASLEEP
            lab.execute("UPDATE mailing SET end_at = ? WHERE id = ?", stored(end_at), mailing)
        freeze(lab, process)
        until = datetime.now(UTC) + ASLEEP
        lab.run(code=None)
        wait_for(lambda until=until: datetime.now(UTC) > until)
        process.send(signal.SIGCONT)
        ran = process.wait()
        assert (ran.code, ran.err) == (0, ""), ran
        lab.forget_backoffs()
    return faults


JUMPS = (HOUR, -HOUR, DAY, -DAY)


def clock_jumps(lab: Lab, messages: int, chance: random.Random) -> int:
    """The clock is set in the middle of a run, and mended before the next one."""
    clock, faults = Clock(datetime.now(UTC)), max(len(JUMPS), messages // AT_ONCE)
    with lab.gateway_here(clock.at_the_gateway, latency="0.02"):
        for number in range(faults):
            lab.add_mailing(AT_ONCE, now=clock(), end_at=clock() + 2 * HOUR, rate=200)
            with clock_set_soon(clock, JUMPS[number % len(JUMPS)], chance.uniform(0, 0.2)):
                lab.run_here(clock, max_seconds=1, rate=300)
            lab.run_here(clock, rate=300)
            assert lab.statuses().keys() <= {"sent", "expired"}
    lab.open_gateway()
    assert set(lab.accepted().values()) == {1}
    return faults


@contextmanager
def clock_set_soon(clock: Clock, jump: timedelta, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, lambda: clock.jump(clock() + jump))
    timer.start()
    yield
    timer.join()
    clock.set(clock() - jump)


# The schema


def other_schema(lab: Lab, messages: int, chance: random.Random) -> int:
    """The database of a newer mailer, and of an older one: nothing is touched."""
    for number in rounds(lab, messages):
        lab.fresh = number == 0  # the quick look of an idle run is its own
        version, hint = (("9999", "install the newer"), ("0000", "mailer db upgrade"))[number % 2]
        lab.execute("UPDATE alembic_version SET version_num = ?", version)
        seen = len(lab.ledger)
        said = [lab.run("--quiet", as_json=False, code=78), lab.command("mailings", "list", code=78)]
        if version == "9999":
            said.append(lab.command("db", "upgrade", code=78))
        for each in said:
            one_line(each, 78)
            assert hint in each.err, each
        assert len(lab.ledger) == seen
        lab.execute("UPDATE alembic_version SET version_num = ?", SCHEMA)
        lab.fresh = False
        lab.run()
    return number + 1


# Room for more


def no_room_for_more(lab: Lab, messages: int, chance: random.Random) -> int:
    """The database cannot grow: an audience, an import, a backup and a new database wait for room."""
    lab.may_give_up = True
    lab.open_gateway()
    list_of = lab.folder / "clients.csv"
    list_of.write_text("phone\n" + "".join(f"{79_500_000_000 + each}\n" for each in range(3000)))
    lab.add_mailing(messages + 600)
    commands = (
        ("dispatch",),
        ("clients", "import", str(list_of)),
        ("db", "backup", "copy.db"),
        ("--database", "new.db", "init"),
    )
    with lab.each_child(no_room_beyond((lab.folder / "mailer.db").stat().st_size // 2)):
        one_line(lab.command(*commands[0], code=74), 74)
    with lab.each_child(no_room_beyond((lab.folder / "mailer.db").stat().st_size)):
        for each in commands[:2]:
            one_line(lab.command(*each, code=74), 74)
    with lab.each_child(no_room_beyond(8192)):
        for each in commands[2:]:
            one_line(lab.command(*each, code=74), 74)
    assert lab.statuses() == {}
    assert lab.number("SELECT count(*) FROM client WHERE phone >= 79500000000") == 0
    assert not any(Path(lab.folder).glob("*copy.db*"))
    for each in commands:
        lab.command(*each)
    return 5
