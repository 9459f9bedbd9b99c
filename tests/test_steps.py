"""kill -9 at every step: what the database and the gateway know then, and what the next run makes of it."""

import contextlib
import importlib
import itertools
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from mailer_cli import audience, backup, outbox
from mailer_cli import files as named_files
from mailer_cli.cli import common
from mailer_cli.database import files
from mailer_cli.dispatch import _Run
from mailer_cli.gateway.client import Gateway, _Letter
from mailer_cli.sender import Sender
from tests.judge import toll
from tests.lab import Lab, Ran
from tests.old_schemas import make_0001
from tests.steps import BEFORE, Step, count_steps, die, die_step_by_step

pytestmark = pytest.mark.timeout(60)

MESSAGES = 6
CLAIM, RECORD = (importlib.import_module(f"mailer_cli.outbox.{name}") for name in ("claim", "record"))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Six messages, two in flight at once, and a gateway that takes them at once."""
    with Lab(tmp_path, concurrency=2) as lab:
        lab.add_mailing(MESSAGES)
        lab.open_gateway()
        yield lab


def dispatch_dies(lab: Lab, step: Step) -> None:
    with lab.each_child(step.arm):
        ran = lab.start().wait()
    assert ran.code == -signal.SIGKILL, ran


@dataclass(frozen=True)
class Left:
    """What is there after a death. `taken` by the gateway, `open` attempts, `unended` runs."""

    pending: int = 0
    sending: int = 0
    sent: int = 0
    expired: int = 0
    taken: int = 0
    open: int = 0
    given_up: int = 0
    unended: int = 1
    is_fixed: bool = True


def left(lab: Lab) -> Left:
    statuses = lab.statuses()
    assert statuses.keys() <= {"pending", "sending", "sent", "expired"}
    return Left(
        **statuses,
        taken=sum(lab.accepted().values()),
        open=lab.number("SELECT count(*) FROM attempt WHERE outcome IS NULL"),
        given_up=lab.number("SELECT count(*) FROM attempt WHERE outcome = 'unknown'"),
        unended=lab.number("SELECT count(*) FROM run WHERE ended_at IS NULL"),
        is_fixed=lab.number("SELECT fixed_at IS NOT NULL FROM mailing") == 1,
    )


UNFIXED = Left(is_fixed=False)
WAITING = Left(pending=6)
ONE_CLAIMED = Left(pending=5, sending=1, open=1)
ONE_TAKEN = replace(ONE_CLAIMED, taken=1)
TWO_CLAIMED = Left(pending=3, sending=2, open=2, sent=1, taken=1)
ALL_SENT = Left(sent=6, taken=6)
TURN = (Sender, "_in_database")

IN_A_RUN = {
    Step("a run is noted, not committed", outbox, "begin_run"): Left(unended=0, is_fixed=False),
    Step("a run is noted", _Run, "_begin"): UNFIXED,
    Step("an audience is fixed, without messages", audience, "fix", statement=1): UNFIXED,
    Step("ids are reserved", audience, "fix", statement=3): UNFIXED,
    Step("an audience is there, not committed", audience, "fix"): UNFIXED,
    Step("an audience is fixed", _Run, "_fix_audiences"): WAITING,
    Step("a message is taken, without an attempt", CLAIM, "_take", statement=2): WAITING,
    Step("a claim is made, not committed", outbox, "claim"): WAITING,
    Step("a claim is committed", *TURN): ONE_CLAIMED,
    Step("a request is about to begin", Gateway, "send", at=BEFORE): ONE_CLAIMED,
    Step("before the first byte", _Letter, "__aiter__", at=BEFORE): ONE_CLAIMED,
    Step("an answer is there, not recorded", Gateway, "send"): ONE_TAKEN,
    Step("in the middle of recording", RECORD, "_settle", statement=1): ONE_TAKEN,
    Step("a message is recorded, not committed", outbox, "record", nth=2): ONE_TAKEN,
    Step("recorded and claimed anew, not committed", outbox, "claim", nth=2): ONE_TAKEN,
    Step("a record is committed", *TURN, nth=2): TWO_CLAIMED,
    Step("an end is noted, not committed", outbox, "end_run"): ALL_SENT,
    Step("an end is noted", _Run, "_end"): replace(ALL_SENT, unended=0),
}
"""Each step of a run that has all its way before it, and what is left when it dies there."""


@pytest.mark.parametrize("step", IN_A_RUN, ids=str)
def test_a_run_that_dies_leaves_exactly_what_was_committed_and_the_next_one_ends_it(
    lab: Lab, step: Step
) -> None:
    dispatch_dies(lab, step)
    found = left(lab)
    assert found == IN_A_RUN[step]
    lab.run()
    done = Left(sent=6, taken=6 + found.taken - found.sent, given_up=found.open, unended=0)
    assert left(lab) == done
    lab.check_invariants()


def test_a_request_whose_body_is_out_is_taken_although_its_run_dies(lab: Lab) -> None:
    """The kernel still hands over what was written: the only step at which the gateway decides."""
    dispatch_dies(lab, Step("after the body", Gateway, "_exchange"))
    lab.wait_for_requests(1)
    assert left(lab) == ONE_TAKEN
    lab.run()
    assert left(lab) == Left(sent=6, taken=7, given_up=1, unended=0)
    lab.check_invariants()


@pytest.fixture
def orphaned(lab: Lab) -> Lab:
    """A run has died with its first message in flight, unsent."""
    dispatch_dies(lab, Step("a claim is committed", *TURN))
    return lab


ORPHANED = replace(ONE_CLAIMED, unended=2)
IN_RECOVERY = {
    Step("an orphan is counted", outbox, "recover", statement=1): ORPHANED,
    Step("orphans are due, their attempts open", outbox, "recover", statement=3): ORPHANED,
    Step("recovered, not committed", outbox, "recover"): ORPHANED,
    Step("recovered", _Run, "_recover"): Left(pending=6, given_up=1),
}


@pytest.mark.parametrize("step", IN_RECOVERY, ids=str)
def test_a_recovery_that_dies_is_done_by_the_next_run_and_counts_once(orphaned: Lab, step: Step) -> None:
    dispatch_dies(orphaned, step)
    assert left(orphaned) == IN_RECOVERY[step]
    orphaned.run()
    assert left(orphaned) == Left(sent=6, taken=6, given_up=1, unended=0)
    assert orphaned.number("SELECT sum(unknowns) FROM message") == 1
    orphaned.check_invariants()


@pytest.fixture
def ended(lab: Lab) -> Lab:
    """The mailing has ended with all its messages waiting."""
    dispatch_dies(lab, Step("an audience is fixed", _Run, "_fix_audiences"))
    lab.execute("UPDATE mailing SET end_at = fixed_at")
    return lab


IN_EXPIRY = {
    Step("what is in doubt is ended", outbox, "expire", statement=3): Left(pending=6, unended=1),
    Step("expired, not committed", outbox, "expire"): Left(pending=6, unended=1),
    Step("expired", _Run, "_expire"): Left(expired=6, unended=1),
}


@pytest.mark.parametrize("step", IN_EXPIRY, ids=str)
def test_an_expiry_that_dies_is_done_by_the_next_run(ended: Lab, step: Step) -> None:
    dispatch_dies(ended, step)
    assert left(ended) == IN_EXPIRY[step]
    ended.run()
    assert left(ended) == Left(expired=6, unended=0)
    ended.check_invariants()


# Commands: all or nothing


@dataclass(frozen=True)
class Change:
    """A command that changes much at once, and what has to be there before it. `{old}` is a mailing that
    waits, `{new}` one whose time has not come."""

    words: str
    before: Callable[[Lab], object] = lambda lab: None

    def __str__(self) -> str:
        return self.words


def some_failed(lab: Lab) -> None:
    lab.execute("UPDATE message SET status = 'failed', reason = 'http 400' WHERE id % 2")


def some_unknown(lab: Lab) -> None:
    lab.execute("UPDATE message SET status = 'unknown', reason = 'read timeout' WHERE id % 2")


def one_has_gone_before(lab: Lab) -> None:
    """Of the mailing, one message was cancelled by its filter; and a client has come since."""
    lab.execute(
        "UPDATE message SET status = 'cancelled', reason = 'filter changed' WHERE id IN "
        "(SELECT min(id) FROM message)"
    )
    lab.execute("UPDATE mailing SET paused_at = created_at")
    lab.execute("UPDATE client SET tag = 'vip' WHERE id % 2")


def a_list(lab: Lab) -> None:
    known = [(f"{phone}", "changed") for (phone,) in lab.query("SELECT phone FROM client LIMIT 3")]
    new = [(f"7911000000{number}", "new") for number in range(5)]
    rows = [f"{phone},{tag}" for phone, tag in known + new]
    (lab.folder / "list.csv").write_text("\n".join(["phone,tag", *rows, ""]))


COMMANDS = (
    Change("clients import list.csv", a_list),
    Change("clients edit 1 --timezone Asia/Omsk --tag other"),
    Change("clients remove 1 --yes"),
    Change("clients block 1"),
    Change("mailings create --text again --all --end +1h"),
    Change("mailings edit 1 --tag vip", one_has_gone_before),
    Change("mailings pause 1"),
    Change("mailings cancel 1 --yes", some_unknown),
    Change("mailings remove 1 --yes"),
    Change("mailings top-up 1", lambda lab: lab.execute("UPDATE client SET tag = 'lab 1'")),
    Change("mailings retry 1 --status failed", some_failed),
)


@pytest.mark.parametrize("change", COMMANDS, ids=str)
def test_a_command_that_dies_at_any_step_has_done_all_or_nothing(tmp_path: Path, change: Change) -> None:
    with Lab(tmp_path) as lab:
        lab.add_mailing(MESSAGES)
        dispatch_dies(lab, Step("an audience is fixed", _Run, "_fix_audiences"))
        change.before(lab)
        kept, before, now = lab.database.path.read_bytes(), content(lab), datetime.now(UTC)
        assert carry_out(lab, change, now, 0).code == 0
        after, deaths = content(lab), Counter[str]()
        assert after != before
        for wanted in itertools.count(1):
            lab.database.path.write_bytes(kept)
            ran = carry_out(lab, change, now, wanted)
            if ran.code == 0:
                break
            assert ran.code == -signal.SIGKILL, ran
            found = content(lab)
            assert found in (before, after), f"half done at step {wanted}"
            deaths["none" if found == before else "all"] += 1
        print(f"{change}: {dict(deaths)}")
        assert deaths["none"]
        assert deaths["all"]


def carry_out(lab: Lab, change: Change, now: datetime, step: int) -> Ran:
    """The command at this moment, killed at this step; 0 is none."""

    def prepare() -> None:
        common.utc_now = lambda: now
        count_steps(die, step)

    with lab.each_child(prepare):
        return lab.start_command(*change.words.split()).wait()


def content(lab: Lab) -> list[str]:
    """All that the database holds, but when the laboratory has heard of it."""
    with contextlib.closing(lab._sqlite()) as raw:
        return [line for line in raw.iterdump() if not line.startswith(HEARD)]


HEARD = tuple(f'INSERT INTO "lab_{table}"' for table in ("plan", "person", "block"))


MIGRATIONS: dict[str, Callable[[Path], object]] = {"init": lambda path: None, "db upgrade": make_0001}
"""Commands that change the schema, and what is there before."""


@pytest.mark.parametrize("command", MIGRATIONS)
def test_a_migration_can_be_killed_at_any_step_and_repeated(tmp_path: Path, command: str) -> None:
    with Lab(tmp_path) as lab:

        def begin() -> None:
            for path in tmp_path.glob("mailer.db*"):
                path.unlink()
            MIGRATIONS[command](lab.database.path)

        begin()
        before = content(lab)
        lab.command(*command.split())
        after, deaths = content(lab), Counter[str]()
        assert after != before
        for wanted in itertools.count(1):
            begin()
            with lab.each_child(partial(count_steps, die, wanted)):
                ran = lab.start_command(*command.split()).wait()
            if ran.code == 0:
                break
            assert ran.code == -signal.SIGKILL, ran
            found = content(lab)
            assert found in (before, after)
            deaths["none" if found == before else "all"] += 1
            lab.command(*command.split())
            assert content(lab) == after
        print(f"{command}: {dict(deaths)}")
        assert deaths["none"]
        assert deaths["all"]


# Copies

IN_A_BACKUP = {
    Step("copied, not looked at", backup, "copy_compact"): False,
    Step("sound, not on the disk", backup, "_require_sound"): False,
    Step("on the disk, not in its place", named_files, "sync"): False,
    Step("in its place", named_files, "sync", nth=2): True,
}


@pytest.mark.parametrize("was_there", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize("step", IN_A_BACKUP, ids=str)
def test_a_backup_that_dies_is_whole_or_as_it_was(tmp_path: Path, step: Step, was_there: bool) -> None:
    with Lab(tmp_path) as lab:
        target = tmp_path / "backup.db"
        if was_there:
            lab.command("db", "backup", "backup.db")
        before = target.read_bytes() if was_there else None
        lab.add_mailing(MESSAGES)
        with lab.each_child(step.arm):
            ran = lab.start_command("db", "backup", "backup.db", "--force").wait()
        assert ran.code == -signal.SIGKILL
        if IN_A_BACKUP[step]:
            with contextlib.closing(sqlite3.connect(target)) as raw:
                assert raw.execute("SELECT count(*) FROM client").fetchone() == (MESSAGES,)
        else:
            assert (target.read_bytes() if target.exists() else None) == before
        lab.command("db", "backup", "backup.db", "--force")


IN_A_RESTORE = {
    Step("made safe, not in its place", outbox, "after_restore"): False,
    Step("the old one is kept", files, "_keep"): False,
    Step("in its place", files, "_overwrite"): True,
}


@pytest.mark.parametrize("step", IN_A_RESTORE, ids=str)
def test_a_restore_that_dies_leaves_the_old_content_or_the_new(tmp_path: Path, step: Step) -> None:
    with Lab(tmp_path) as lab:
        lab.add_mailing(MESSAGES)
        dispatch_dies(lab, Step("an audience is fixed", _Run, "_fix_audiences"))
        lab.command("db", "backup", "backup.db")
        lab.execute("UPDATE message SET status = 'cancelled', reason = 'since'")
        before = content(lab)
        with lab.each_child(step.arm):
            ran = lab.start_command("db", "restore", "backup.db", "--yes").wait()
        assert ran.code == -signal.SIGKILL
        if IN_A_RESTORE[step]:
            assert lab.statuses() == {"unknown": MESSAGES}
        else:
            assert content(lab) == before
        lab.command("db", "restore", "backup.db", "--yes")
        assert lab.statuses() == {"unknown": MESSAGES}
        assert lab.number("SELECT count(*) FROM mailing WHERE paused_at IS NULL") == 0


# Every step there is


def test_a_run_may_die_at_any_step_again_and_again(lab: Lab) -> None:
    deaths = die_step_by_step(lab, first=1, deaths=40, stride=7)
    lab.run_until_final(4)
    cost = toll(lab)
    print(f"{deaths} deaths: {cost}")
    assert deaths == 40
    assert (cost.lost, cost.unexplained) == (0, 0)
    lab.check_invariants()
