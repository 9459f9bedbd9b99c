"""Faults, with real processes: whatever happens, no message is lost, and each repeat is explained.

Every scenario ends with the invariants of dispatch.md, put to the database and to the gateway's ledger.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from mailer_cli import sandbox
from mailer_cli.company import CROWD, LONGEST
from mailer_cli.database import engine, lock_path
from mailer_cli.errors import TryLater
from mailer_cli.models import Outcome
from mailer_cli.sender import Sender
from mailer_cli.stop import TOGETHER
from tests import lab as laboratory
from tests.breakage import freeze
from tests.faults import EVERY_ANSWER, end_soon, fault_options, kill_runs, terminate_runs
from tests.judge import TOKEN, sent_everything, stored, toll
from tests.lab import HOUR, Clock, Lab, wait_for, wait_for_seconds

SECOND = timedelta(seconds=1)
RENEWED = f"{TOKEN}Q"
OpenLab = Callable[..., Lab]

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def open_lab(tmp_path: Path) -> Iterator[OpenLab]:
    """`open_lab(concurrency=8)`: a laboratory with these settings, closed behind the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Lab(tmp_path, **settings))


def test_a_run_shows_that_it_is_at_work_as_long_as_it_lasts(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=1)
    lab.add_mailing(4)
    lab.open_gateway("--latency", "0.4")
    run = lab.start()
    lab.wait_for_run(run)
    lock = lock_path(lab.database)
    beats = {lock.stat().st_mtime_ns}
    wait_for(lambda: beats.add(lock.stat().st_mtime_ns) or len(beats) > 3 or not run.is_alive)
    assert len(beats) > 3
    run.wait()


# Runs that die


def test_twenty_kills_lose_nothing_and_each_repeat_is_explained(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(600)
    lab.open_gateway("--latency", "0.02-0.06")
    killed = kill_runs(lab, 20, random.Random(20))
    lab.run_until_final(4)
    lab.check_invariants()
    cost = toll(lab)
    print(f"{killed} kills: {cost}")
    assert (cost.messages, cost.lost, cost.unexplained) == (600, 0, 0)
    assert cost.repeats <= 8 * killed
    assert set(lab.statuses()) <= {"sent", "unknown"}


def test_what_a_killed_run_owned_goes_again_at_once(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(30)
    lab.open_gateway("--latency", "0.3")
    victim = lab.start()
    wait_for(lambda: lab.statuses().get("sending") == 8)
    victim.kill()
    owned = lab.statuses().get("sending", 0)
    lab.run()
    assert lab.number("SELECT count(*) FROM attempt WHERE error = 'run died'") == owned > 0
    assert sent_everything(lab)
    lab.check_invariants()


def test_a_living_run_keeps_what_it_owns(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=4)
    lab.add_mailing(12)
    lab.open_gateway("--latency", "0.7")
    first = lab.start()
    lab.wait_for_requests(1)
    lab.run()
    assert first.wait().code == 0
    assert lab.number("SELECT count(*) FROM run WHERE stopped = 'died'") == 0
    assert set(lab.accepted().values()) == {1}
    assert sent_everything(lab)
    lab.check_invariants()


def test_a_run_that_was_stopped_in_time_is_not_taken_for_dead(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=4, timeout=1)
    lab.add_mailing(8)
    lab.open_gateway("--latency", "0.5")
    frozen = lab.start()
    run = lab.wait_for_run(frozen)
    lab.wait_for_requests(1)
    freeze(lab, frozen)
    owned = lab.query("SELECT id FROM message WHERE run_id = ?", run)
    lab.run()
    assert lab.query("SELECT id FROM message WHERE run_id = ?", run) == owned != []
    frozen.send(signal.SIGCONT)
    assert frozen.wait().code == 0
    lab.run_until_final()
    assert sent_everything(lab)
    lab.check_invariants()


# Runs that are told to stop


def test_sigterm_at_any_point_leaves_neither_repeats_nor_doubts(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(600)
    lab.open_gateway("--latency", "0.02-0.06")
    assert terminate_runs(lab, 10, random.Random(10)) == 10
    assert lab.statuses()["pending"] > 0
    lab.run_until_final()
    lab.check_invariants()
    assert lab.number("SELECT count(*) FROM attempt WHERE outcome = 'unknown'") == 0
    assert set(lab.accepted().values()) == {1}


def test_the_second_ctrl_c_aborts_and_records_what_it_cannot_know(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(50)
    lab.open_gateway("--fault", "hang=1")
    process = lab.start()
    lab.wait_for_requests(8)
    process.send(signal.SIGINT)
    wait_for_seconds(TOGETHER + 0.1)
    process.send(signal.SIGINT)
    assert process.wait(5).code == 130
    assert lab.statuses() == {"pending": 50}
    assert lab.query("SELECT outcome, error, count(*) FROM attempt GROUP BY 1, 2") == [
        ("unknown", "aborted", 8)
    ]
    lab.check_invariants()


def test_an_abort_gives_back_what_the_rate_had_not_let_start(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8, rate=20)
    lab.add_mailing(50)
    lab.open_gateway("--fault", "hang=1")
    process = lab.start()
    lab.wait_for_requests(2)
    process.send(signal.SIGTERM)
    wait_for_seconds(TOGETHER + 0.1)
    process.send(signal.SIGINT)
    assert process.wait(5).code == 128 + signal.SIGINT
    begun = {each.id for each in lab.ledger}
    doubted = {row[0] for row in lab.query("SELECT message_id FROM attempt WHERE outcome = 'unknown'")}
    assert doubted <= begun
    lab.check_invariants()


# The gateway is away


def test_a_gateway_that_is_down_costs_one_request_a_run_and_no_message_its_limits(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8, timeout=1)
    lab.add_mailing(100)
    lab.open_gateway()
    lab.close_gateway()
    said = [lab.run("--quiet", as_json=False, code=69) for _ in range(4)]
    assert [each.err.count("gateway is down") for each in said] == [1, 0, 0, 0]
    assert [each.out + each.err for each in said[1:]] == ["", "", ""]
    assert lab.number("SELECT opened_at IS NOT NULL FROM gateway") == 1
    claimed = lab.query("SELECT claimed FROM run ORDER BY id")
    assert claimed[1:] == [(1,), (1,), (1,)]
    assert lab.query("SELECT DISTINCT failures, unknowns, status FROM message") == [(0, 0, "pending")]
    lab.open_gateway()
    back = [lab.run("--quiet", as_json=False) for _ in range(2)]
    assert [each.err.count("back") for each in back] == [1, 0]
    assert sent_everything(lab)
    lab.check_invariants()


def test_the_port_of_a_gateway_that_is_away_is_given_to_nobody_else(open_lab: OpenLab) -> None:
    """Another test beside this one would get its messages."""
    lab = open_lab()
    lab.open_gateway()
    lab.close_gateway()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", httpx.URL(lab.url).port))


def test_a_run_that_asked_nobody_does_not_say_that_the_gateway_is_back(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8, timeout=1)
    lab.add_mailing(20, end_at=datetime.now(UTC) + 12 * SECOND)
    lab.open_gateway()
    lab.close_gateway()
    assert lab.run("--quiet", as_json=False, code=69).err.count("gateway is down") == 1
    lab.execute("UPDATE mailing SET end_at = created_at")  # the next run only has to expire the rest
    ran = lab.run("--quiet", as_json=False)
    assert ran.out == "" and "gateway" not in ran.err
    assert ran.err.startswith("warning: 20 messages expired")
    assert lab.statuses() == {"expired": 20}


def test_an_open_breaker_and_an_old_wish_to_be_left_alone_do_not_make_the_run_spin(open_lab: OpenLab) -> None:
    lab = open_lab(timeout=4)
    lab.add_mailing(20)
    lab.open_gateway("--fault", "hang=1")
    lab.execute(
        "UPDATE gateway SET faults = 9, opened_at = '2026-01-01 00:00:00', busy_until = '2026-01-01 00:00:00'"
    )
    before = os.times()
    lab.run(code=69)
    after = os.times()
    assert after.children_user - before.children_user < 2.0  # seconds, of four in which it only waits
    assert lab.number("SELECT count(*) FROM attempt") == 1


def test_a_busy_gateway_makes_the_whole_run_wait(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(150)
    lab.open_gateway("--fault", "429=0.02", "--seed", "3", "--latency", "0.02")
    lab.run()
    ledger = lab.ledger
    busy = [each.at for each in ledger if each.answer == "429"]
    assert busy
    for at in busy:
        quiet = [each for each in ledger if at + 0.3 * SECOND < each.at < at + SECOND]
        assert quiet == [], (at, quiet)
    assert sent_everything(lab)
    lab.check_invariants()


def test_a_gateway_that_is_busy_for_longer_than_the_run_ends_it(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(50)
    lab.open_gateway("--fault", "429=1")
    ran = lab.run("--max-seconds", "1", code=69)
    assert ran.json["stopped"] == "gateway_down"
    assert ran.json["seconds"] < 1
    assert lab.query("SELECT DISTINCT status, failures FROM message") == [("pending", 0)]
    assert lab.number("SELECT max(due_at) FROM message") <= stored(datetime.now(UTC) + SECOND)
    lab.check_invariants()


def test_a_refused_token_stops_the_run_and_costs_nothing(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(50)
    lab.open_gateway("--token", RENEWED)
    said = [lab.run("--quiet", as_json=False, code=77) for _ in range(2)]
    assert [each.err.count("token") for each in said] == [1, 0]
    assert lab.query("SELECT DISTINCT status, failures, unknowns FROM message") == [("pending", 0, 0)]
    assert len(lab.ledger) == 2
    lab.check_invariants()


def test_a_token_that_is_renewed_while_the_run_goes_is_used(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=16)
    lab.add_mailing(40)
    lab.open_gateway("--token", RENEWED, "--latency", "0.5")
    process = lab.start()
    lab.wait_for_requests(1)
    lab.token = RENEWED
    lab.write_env()
    assert process.wait().code == 0
    assert sent_everything(lab)
    lab.check_invariants()


def test_a_renewed_token_for_another_gateway_is_not_shown_to_this_one(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=16)
    lab.add_mailing(40)
    lab.open_gateway("--token", RENEWED, "--latency", "0.5")
    process = lab.start()
    lab.wait_for_requests(1)
    lab.token, lab.url = RENEWED, lab.url.replace("127.0.0.1", "localhost")
    lab.write_env()
    assert process.wait().json["stopped"] == "token_refused"
    assert lab.accepted() == {}
    lab.run()  # the next one goes to the other
    assert sent_everything(lab)


def test_a_run_does_not_end_because_an_answer_and_its_look_around_coincide(open_lab: OpenLab) -> None:
    """A turn that came between an answer and its landing saw the only slot taken, and nothing after it."""
    lab = open_lab(concurrency=1)
    lab.add_mailing(12)
    lab.open_gateway("--latency", "0.497-0.503")  # the run looks around every 0.5 s
    lab.run()
    assert sent_everything(lab)
    lab.check_invariants()


def test_settings_that_are_broken_while_the_run_goes_lose_nothing(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=16)
    lab.add_mailing(40)
    lab.open_gateway("--token", RENEWED, "--latency", "0.5")
    process = lab.start()
    lab.wait_for_requests(1)
    lab.settings["rate"] = "nonsense"
    lab.write_env()
    assert process.wait().code == 77
    assert lab.query("SELECT DISTINCT status, unknowns FROM message") == [("pending", 0)]
    lab.check_invariants()


@pytest.mark.parametrize("fault", ["404", "redirect", "path"])
def test_what_is_not_the_gateway_stops_the_run(open_lab: OpenLab, fault: str) -> None:
    lab = open_lab(concurrency=8)
    lab.add_mailing(50)
    lab.open_gateway(*([] if fault == "path" else ["--fault", f"{fault}=1"]))
    if fault == "path":
        lab.url = lab.url.replace("/v1/send/", "/elsewhere/")
        lab.write_env()
    assert lab.run(code=78).json["stopped"] == "wrong_url"
    assert lab.query("SELECT DISTINCT status, failures FROM message") == [("pending", 0)]
    assert len(lab.ledger) == 1


# Every row of the table of outcomes


def test_every_kind_of_answer_at_once_ends_every_message(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=32, timeout=0.6)
    lab.add_mailing(1200)
    few = {Outcome.OK: 0.005, Outcome.BUSY: 0.006, Outcome.CONFIG: 0.01}  # they slow or stop a whole run
    shares = dict.fromkeys(EVERY_ANSWER, 0.05) | few
    lab.open_gateway("--seed", "398", "--outage", "4+0.7", *fault_options(shares))
    runs = lab.run_until_final(40, code=None)
    assert {each.code for each in runs} <= {0, 69, 76, 77, 78}
    lab.check_invariants()
    answers = Counter(str(each.answer) for each in lab.ledger)
    print(f"{len(runs)} runs: {toll(lab)}; {dict(answers)}")
    assert answers.keys() >= set(sandbox.KINDS)
    assert toll(lab).lost == 0


# Ends, windows, the operator


def test_nothing_is_sent_after_the_end_and_the_rest_expires(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8, timeout=1)
    lab.open_gateway("--latency", "0.02-0.1", "--fault", "hang=0.02", "--fault", "500=0.02")
    end_soon(lab, 2000, 4 * SECOND)
    lab.check_invariants()
    assert lab.statuses().keys() == {"sent", "expired", "unknown"}
    print(lab.statuses())


NIGHTS = {
    "Berlin, an hour is left out": datetime(2026, 3, 28, 19, 0, tzinfo=UTC),
    "Berlin, an hour comes twice": datetime(2026, 10, 24, 18, 0, tzinfo=UTC),
    "Lord Howe, half an hour comes twice": datetime(2026, 4, 4, 9, 0, tzinfo=UTC),
    "New York, an hour is left out": datetime(2026, 3, 8, 1, 0, tzinfo=UTC),
}
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "+05:45",
)


@pytest.mark.parametrize("evening", NIGHTS.values(), ids=NIGHTS.keys())
def test_nobody_gets_a_message_outside_his_window(open_lab: OpenLab, evening: datetime) -> None:
    lab = open_lab(concurrency=8)
    clock = Clock(evening)
    with lab.gateway_here(clock):
        for half_hour in range(0, 24, 1):
            clock.jump(evening + half_hour * HOUR / 2)
            now = clock()
            mailing = lab.add_mailing(
                0,
                now=now,
                end_at=now + HOUR / 4,
                tags=("everybody",),
                window_from=22 * 60,
                window_to=2 * 60 + 30,
            )
            if not half_hour:
                with lab.database.write() as connection:
                    for zone in ZONES:
                        laboratory.add_clients(connection, 1, zone=zone, tag="everybody")
            lab.run_here(clock)
            sent = lab.query("SELECT timezone FROM message WHERE mailing_id = ? AND status = 'sent'", mailing)
            assert {row[0] for row in sent} == {zone for zone in ZONES if is_night(zone, now)}, now
    zones = dict(lab.query("SELECT id, timezone FROM message"))
    assert all(is_night(zones[each.id or 0], each.at) for each in lab.ledger)
    assert lab.ledger


def is_night(zone: str, moment: datetime) -> bool:
    """Whether it is 22:00 to 02:30 there; told apart from the program's own way."""
    if zone.startswith("+"):
        hours, minutes = zone[1:].split(":")
        local = moment + timedelta(hours=int(hours), minutes=int(minutes))
    else:
        local = moment.astimezone(ZoneInfo(zone))
    return not "02:30" <= local.strftime("%H:%M") < "22:00"


STOPPED_BY = ("paused_at", "cancelled_at", "removed_at")


@pytest.mark.parametrize("column", STOPPED_BY)
def test_a_mailing_that_is_stopped_goes_no_further(open_lab: OpenLab, column: str) -> None:
    lab = open_lab(concurrency=8)
    mailing = lab.add_mailing(600)
    lab.open_gateway("--latency", "0.02-0.05")
    process = lab.start()
    lab.wait_for_requests(60)
    lab.execute(f"UPDATE mailing SET {column} = created_at WHERE id = ?", mailing)
    at = datetime.now(UTC)
    assert process.wait().code == 0
    assert [each for each in lab.ledger if each.at > at + SECOND] == []
    assert lab.statuses()["sent"] < 600
    if column != "paused_at":
        lab.run()
        assert "pending" not in lab.statuses()
    lab.check_invariants()


def test_a_pause_reaches_requests_that_wait_for_another_try(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=8)
    mailing = lab.add_mailing(20)
    lab.open_gateway()
    lab.close_gateway()
    process = lab.start()
    wait_for(lambda: lab.statuses().get("sending") == 8)
    lab.execute("UPDATE mailing SET paused_at = created_at WHERE id = ?", mailing)
    at = datetime.now(UTC)
    wait_for(lambda: datetime.now(UTC) > at + 0.8 * SECOND)
    lab.open_gateway()
    assert process.wait().code in (0, 69)
    assert [each for each in lab.ledger if each.at > at + SECOND] == []
    assert lab.query("SELECT DISTINCT failures, unknowns FROM message") == [(0, 0)]
    lab.check_invariants()


# Many at once


def test_four_dispatchers_share_the_work_and_repeat_nothing(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=16)
    lab.add_mailing(2000)
    lab.open_gateway("--latency", "0.08")  # work enough for one that starts late
    runs = [lab.start() for _ in range(4)]
    assert [each.wait().code for each in runs] == [0, 0, 0, 0]
    lab.check_invariants()
    assert len(lab.accepted()) == sum(lab.accepted().values()) == 2000
    sent = lab.query("SELECT sent FROM run ORDER BY id")
    print(f"sent by each: {sent}")
    assert len(sent) == 4
    assert all(count > 0 for (count,) in sent)


def test_importers_and_a_dispatch_lock_each_other_out_of_nothing(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=16)
    lab.add_mailing(500)
    lab.open_gateway("--latency", "0.02")
    importers = [import_clients(lab, first) for first in (0, 500_000)]
    try:
        lab.run()
        said = [each.communicate(timeout=30)[0] for each in importers]
    finally:
        for each in importers:
            each.kill()
    print(f"imports beside the dispatch: {said}")
    assert [each.returncode for each in importers] == [0, 0]
    assert sent_everything(lab)
    lab.check_invariants()


IMPORTER = """
import sys, time
from pathlib import Path
from mailer_cli.database import open_database
from mailer_cli.settings import Settings
database, until, times = open_database(Settings(database="mailer.db")), time.monotonic() + 2, 0
rows = [(70000000000 + int(sys.argv[1]) + n, "900", "imported", "Europe/Moscow") for n in range(2000)]
while time.monotonic() < until:
    with database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO client (phone, operator_code, tag, timezone, created_at, updated_at) "
            "VALUES (?, ?, ?, ?, '2026-01-01 00:00:00', '2026-01-01 00:00:00') "
            "ON CONFLICT (phone) DO UPDATE SET tag = excluded.tag", rows)
    times += 1
print(times, end="")
"""


def import_clients(lab: Lab, first: int) -> subprocess.Popen[str]:
    """Upserts by the thousand, again and again for two seconds, as `clients import` does them."""
    command = [sys.executable, "-c", IMPORTER, str(first)]
    return subprocess.Popen(
        command,
        cwd=lab.folder,
        env=lab.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_no_second_sees_more_than_the_rate(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=64, rate=100)
    lab.add_mailing(500)
    lab.open_gateway("--latency", "0.05")
    runs = [lab.start() for _ in range(2)]
    assert [each.wait().code for each in runs] == [0, 0]
    times = [each.at for each in lab.ledger]
    most = busiest_second(times)
    average = (len(times) - 1) / (times[-1] - times[0]).total_seconds()
    print(f"busiest second {most}, on average {average:.1f} a second")
    assert most <= 105  # contract.md: never more than 5 % above it
    assert average >= 60
    lab.check_invariants()


def test_a_rate_costs_a_commit_for_several_messages_not_for_each(
    open_lab: OpenLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = open_lab(concurrency=16, rate=200)
    lab.add_mailing(100)
    lab.open_gateway()
    turns, turn = [], Sender._record_and_claim

    def counted(sender: Sender, done: Any, *more: Any) -> Any:
        turns.append(len(done))
        return turn(sender, done, *more)

    monkeypatch.setattr(Sender, "_record_and_claim", counted)
    lab.run_here()
    print(f"{len(turns)} turns")
    assert sent_everything(lab)
    assert len(turns) < 50  # a slow machine makes fewer


def test_a_turn_waits_for_a_sixth_of_the_requests_but_not_longer_than_it_may(
    open_lab: OpenLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = open_lab(concurrency=32)
    lab.add_mailing(320)
    lab.open_gateway("--latency", "0.02-0.3")
    ended, waited, turn = 0.0, 0, Sender._record_and_claim

    def watched(sender: Sender, done: Any, *more: Any) -> Any:
        nonlocal ended, waited
        if 0 < len(done) * CROWD < len(done) + len(sender._in_flight):
            waited += 1
            assert time.monotonic() - ended >= LONGEST
        turned = turn(sender, done, *more)
        ended = time.monotonic()
        return turned

    monkeypatch.setattr(Sender, "_record_and_claim", watched)
    lab.run_here()
    assert sent_everything(lab)
    assert waited > 10


def busiest_second(times: list[datetime]) -> int:
    """The most requests in any half-open second that begins with one of them."""
    return max(sum(start <= each < start + SECOND for each in times) for start in times)


def test_a_big_mailing_starves_no_small_one_and_the_urgent_go_first(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=4)
    big, small = lab.add_mailing(200), lab.add_mailing(20)
    urgent = lab.add_mailing(20, priority=5)
    lab.open_gateway("--latency", "0.02")
    lab.run()
    mailing_of = dict(lab.query("SELECT id, mailing_id FROM message"))
    order = [mailing_of[each.id] for each in lab.ledger]
    assert set(order[:18]) == {urgent}
    assert last_of(order, small) <= 20 + 2 * 20 + 8
    assert last_of(order, big) == len(order) - 1
    lab.check_invariants()


def last_of(order: list[int], mailing: int) -> int:
    return len(order) - 1 - order[::-1].index(mailing)


def test_a_run_of_one_mailing_leaves_the_others_alone(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=4)
    wanted, other = lab.add_mailing(10), lab.add_mailing(10)
    lab.open_gateway()
    lab.run_here(only=wanted)
    assert lab.query("SELECT DISTINCT mailing_id, status FROM message") == [(wanted, "sent")]
    assert lab.number("SELECT fixed_at FROM mailing WHERE id = ?", other) is None


# Nothing to do, and machines that fail


def test_an_idle_run_writes_nothing_and_says_nothing(open_lab: OpenLab) -> None:
    lab = open_lab()
    lab.add_mailing(5)
    lab.open_gateway()
    lab.run()
    path, lock = lab.folder / "mailer.db", lab.folder / "mailer.db.lock"
    os.utime(lock, (0, 0))
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    with contextlib.closing(lab._sqlite()) as watcher:
        version = watcher.execute("PRAGMA data_version").fetchone()
        ran = lab.run("--quiet", as_json=False)
        assert watcher.execute("PRAGMA data_version").fetchone() == version
    assert (ran.out, ran.err) == ("", "")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert lock.stat().st_mtime > 0
    assert lab.run().json["run_id"] is None


def break_nothing(lab: Lab) -> None:
    (lab.folder / "mailer.db").unlink()


def break_file(lab: Lab) -> None:
    (lab.folder / "mailer.db").write_bytes(b"this is not a database" * 200)


def break_header(lab: Lab) -> None:
    path = lab.folder / "mailer.db"
    path.write_bytes(path.read_bytes()[:8192])


def take_token(lab: Lab) -> None:
    (lab.folder / ".env").write_text(f"URL={lab.url}\n")


def take_url(lab: Lab) -> None:
    (lab.folder / ".env").write_text(f"TOKEN={TOKEN}\n")


@pytest.mark.parametrize(
    ("break_it", "code"),
    [(break_nothing, 78), (break_file, 74), (break_header, 74), (take_token, 78), (take_url, 78)],
)
def test_a_machine_that_fails_is_one_line_and_its_exit_code(
    open_lab: OpenLab, break_it: Callable[[Lab], None], code: int
) -> None:
    lab = open_lab()
    lab.add_mailing(5)
    break_it(lab)
    ran = lab.run(code=code, as_json=False)
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") <= 2  # the line and its hint


def test_a_database_that_stays_locked_is_a_matter_of_later(
    open_lab: OpenLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.1)
    lab = open_lab()
    lab.add_mailing(5)
    with contextlib.closing(lab._sqlite()) as raw:
        raw.execute("BEGIN IMMEDIATE")
        with pytest.raises(TryLater) as caught:
            lab.run_here()
    assert caught.value.exit_code == 75
    assert lab.number("SELECT count(*) FROM run") == 0


def test_what_is_known_is_recorded_although_the_database_is_locked_for_a_while(open_lab: OpenLab) -> None:
    lab = open_lab(concurrency=4)
    lab.add_mailing(8)
    lab.open_gateway("--latency", "0.5")
    process = lab.start()
    lab.wait_for_requests(1)
    with contextlib.closing(lab._sqlite()) as raw:
        raw.execute("BEGIN IMMEDIATE")
        wait_for_seconds(1.0)
        raw.execute("ROLLBACK")
    assert process.wait().code == 0
    assert sent_everything(lab)
    lab.check_invariants()
