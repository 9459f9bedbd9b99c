"""Machines that fail in the middle of the work, and are mended: nothing may be lost by it.

Each scenario breaks something under real dispatch processes, a few times or many, and takes the fault away;
what follows are clean runs and the judge. It answers how many faults it has injected.
"""

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from mailer_cli import sender
from mailer_cli.database import engine
from tests.breakage import (
    A_READER,
    A_WRITER,
    PAGE,
    cut_off,
    damaged,
    data_folder,
    freeze,
    limit_files,
    locked,
    mode,
    obey_permissions,
    one_line,
    shortened,
    small_disk,
    wait_until_stuck,
)
from tests.lab import Lab, Process, wait_for, wait_for_seconds
from tests.surroundings import (
    clock_jumps,
    full_log_disk,
    no_log,
    no_output,
    no_room_for_more,
    other_schema,
    suspended,
)

AT_ONCE = 100  # messages for each fault
Scenario = Callable[[Lab, int, random.Random], int]


def at_work(lab: Lab, chance: random.Random) -> Process:
    """A run in the middle of its requests."""
    seen, process = len(lab.ledger), lab.start()
    wanted = seen + chance.randrange(2, 25)
    wait_for(lambda: len(lab.ledger) >= wanted or not process.is_alive)
    return process


Fault = Callable[[Process], AbstractContextManager[object]]


def each_fault(lab: Lab, messages: int, chance: random.Random, fault: Fault, code: int = 74) -> int:
    """In turns a fault that outlasts the run's patience and one that is over before, while there is work."""
    lab.may_give_up = True
    lab.open_gateway("--latency", "0.05-0.1")
    faults = max(1, messages // AT_ONCE)
    for done in range(faults):
        lab.add_mailing(AT_ONCE)
        is_over_in_time = done % 2 == 1
        with (
            shortened(engine, "BUSY_TIMEOUT", 0.2),
            shortened(sender, "PATIENCE", 60 * is_over_in_time + 0.4),
        ):
            process = at_work(lab, chance)
        with fault(process):
            if is_over_in_time:
                wait_until_stuck(lab)
                wait_for_seconds(chance.uniform(0, 0.3))
            else:
                one_line(process.wait(), code)
        if is_over_in_time:
            ran = process.wait()
            assert (ran.code, ran.err) == (0, ""), ran
        lab.forget_backoffs()
    return faults


# The disk is full


def size_limit(lab: Lab, messages: int, chance: random.Random) -> int:
    """The file may not grow, as by a quota; needs no rights. Without a log, whose file would fail as well."""
    lab.settings["log"] = ""
    lab.write_env()

    @contextmanager
    def fault(process: Process) -> Iterator[None]:
        limit_files(process, chance.choice((PAGE, 2 * PAGE, 3 * PAGE)))  # its output is a file, too
        try:
            yield
        finally:
            if process.is_alive:
                limit_files(process)

    return each_fault(lab, messages, chance, fault)


def full_disk(lab: Lab, messages: int, chance: random.Random) -> int:
    """A small disk with the database alone on it. Raises: PermissionError where nothing may be mounted."""
    with small_disk(lab) as disk:

        @contextmanager
        def fault(process: Process) -> Iterator[None]:
            disk.fill()
            try:
                yield
            finally:
                disk.make_room()

        done = each_fault(lab, messages, chance, fault)
        lab.run_until_final(code=None)
        return done


# What cannot be written, read, or found


def read_only(lab: Lab, messages: int, chance: random.Random) -> int:
    """Neither the database, its journal, nor their folder may be written any more in the middle of a run."""
    with data_folder(lab) as folder, lab.each_child(obey_permissions):
        journal, file = folder / "mailer.db-journal", folder / "mailer.db"

        @contextmanager
        def fault(process: Process) -> Iterator[None]:
            with mode(journal, 0o400), mode(file, 0o400), mode(folder, 0o500):
                yield

        done = each_fault(lab, messages, chance, fault)
        lab.run_until_final(code=None)
        return done


def missing_folder(lab: Lab, messages: int, chance: random.Random) -> int:
    """The folder of the database goes away, as a disk that is unmounted, and comes back."""
    with data_folder(lab) as folder:
        away = folder.with_name("away")

        @contextmanager
        def fault(process: Process) -> Iterator[None]:
            folder.rename(away)
            try:
                one_line(lab.run(code=78), 78)
                yield
            finally:
                away.rename(folder)

        done = each_fault(lab, messages, chance, fault)
        lab.run_until_final(code=None)
        return done


def corrupt_page(lab: Lab, messages: int, chance: random.Random) -> int:
    """Nonsense in a page that every run needs."""

    @contextmanager
    def fault(process: Process) -> Iterator[None]:
        freeze(lab, process)
        with damaged(lab, chance.choice(("message", "attempt", "mailing", "gateway", "tally"))):
            process.send(signal.SIGCONT)
            yield

    return each_fault(lab, messages, chance, fault)


def truncated_file(lab: Lab, messages: int, chance: random.Random) -> int:
    """Only the beginning of the file is left."""

    @contextmanager
    def fault(process: Process) -> Iterator[None]:
        freeze(lab, process)
        with cut_off(lab, 0):
            process.send(signal.SIGCONT)
            yield

    return each_fault(lab, messages, chance, fault)


# Locks


def locked_database(lab: Lab, messages: int, chance: random.Random) -> int:
    """Another program holds the write lock, or hangs while it reads and so keeps commits waiting."""

    def fault(process: Process) -> AbstractContextManager[None]:
        return locked(lab, *chance.choice((A_WRITER, A_READER)))

    return each_fault(lab, messages, chance, fault, code=75)


def locked_for_a_minute(lab: Lab, messages: int, chance: random.Random) -> int:
    """With the program's own patience: a run at work outlives it, one that begins comes back later."""
    lab.open_gateway("--latency", "0.05-0.1")
    lab.add_mailing(messages)
    process = at_work(lab, chance)
    with locked(lab, *A_WRITER):
        one_line(lab.run(code=75), 75)
        wait_for_seconds(60 - engine.BUSY_TIMEOUT)
    assert process.wait(100).code == 0
    return 2


MACHINE_FAULTS: dict[str, Scenario] = {
    each.__name__: each
    for each in (
        size_limit,
        full_disk,
        read_only,
        missing_folder,
        corrupt_page,
        truncated_file,
        locked_database,
        no_output,
        no_log,
        full_log_disk,
        suspended,
        clock_jumps,
        other_schema,
        no_room_for_more,
        locked_for_a_minute,
    )
}
