"""What is said while a request waits for its connection is heard before its first byte, whatever it is."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from mailer_cli import caution, clients, dispatch, mailings
from mailer_cli.stop import Stop
from mailer_cli.times import Window
from tests import judge
from tests.breakage import freeze
from tests.judge import stored
from tests.lab import FIRST_PHONE, PATIENCE, Lab, wait_for, wait_for_seconds

MESSAGES = 8
SECOND = timedelta(seconds=1)
GATEWAY = "gateway.example"

pytestmark = pytest.mark.timeout(60)


class Names:
    """A name server that answers when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = threading.Event()
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, *given: Any, **named: Any) -> Any:
        if host == GATEWAY:
            self.asked.set()
            assert self.go.wait(PATIENCE)
            host = "127.0.0.1"
        return self._real(host, *given, **named)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    server = Names()
    monkeypatch.setattr(socket, "getaddrinfo", server)
    monkeypatch.setattr(caution, "SLOW_START", 0.05)
    return server


@pytest.fixture
def lab(tmp_path: Path, names: Names) -> Iterator[Lab]:
    with Lab(tmp_path, concurrency=MESSAGES) as lab, lab.gateway_here(lambda: datetime.now(UTC)):
        lab.url = lab.url.replace("127.0.0.1", GATEWAY)
        yield lab


@contextmanager
def run_that_waits(lab: Lab, names: Names, stop: Stop | None = None) -> Iterator[Callable[[], Any]]:
    """A run with all its requests on their way to a connection; afterwards, what it did."""
    done: list[dispatch.Summary] = []
    thread = threading.Thread(target=lambda: done.append(lab.run_here(url=lab.url, stop=stop)))
    thread.start()

    def ended() -> dispatch.Summary:
        thread.join(PATIENCE)
        return done[0]

    try:
        wait_for(lambda: lab.statuses().get("sending") == MESSAGES)
        assert names.asked.wait(PATIENCE)
        yield ended
    finally:
        names.go.set()
        thread.join(PATIENCE)


Word = Callable[[Connection, int, datetime], object]


def everybody(connection: Connection) -> list[int]:
    return list(connection.exec_driver_sql("SELECT id FROM client WHERE removed_at IS NULL").scalars())


def remove_clients(connection: Connection, mailing: int, now: datetime) -> None:
    for each in everybody(connection):
        clients.remove(connection, each, now)


def block_clients(connection: Connection, mailing: int, now: datetime) -> None:
    clients.block(connection, {FIRST_PHONE + place for place in range(MESSAGES)}, now)


def close_window(connection: Connection, mailing: int, now: datetime) -> None:
    hour = (now + timedelta(hours=3 + 2)).hour  # clients are in Moscow
    mailings.pause(connection, [mailing], now)
    window = Window(hour * 60, hour * 60 + 1)
    mailings.edit(connection, mailing, {"window": window}, now, 1000)
    mailings.resume(connection, [mailing], now)


def end_soon(connection: Connection, mailing: int, now: datetime) -> None:
    mailings.edit(connection, mailing, {"end_at": now + SECOND}, now, 1000)


def change_phones(connection: Connection, mailing: int, now: datetime) -> None:
    for each in everybody(connection):
        clients.edit(connection, each, clients.Given(phone=79_990_000_000 + each), now)


def change_text(connection: Connection, mailing: int, now: datetime) -> None:
    mailings.pause(connection, [mailing], now)
    mailings.edit(connection, mailing, {"text": "mended"}, now, 1000)
    mailings.resume(connection, [mailing], now)


WORDS: dict[str, Word] = {
    "pause": lambda connection, mailing, now: mailings.pause(connection, [mailing], now),
    "cancel": lambda connection, mailing, now: mailings.cancel(connection, [mailing], now),
    "remove": mailings.remove,
    "an_earlier_end": end_soon,
    "a_window": close_window,
    "clients_removed": remove_clients,
    "clients_blocked": block_clients,
}


def say(lab: Lab, word: Word, mailing: int) -> None:
    with lab.database.write() as connection:
        word(connection, mailing, datetime.now(UTC))


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_what_is_said_before_the_first_byte_is_heard(lab: Lab, names: Names, word: Word) -> None:
    mailing = lab.add_mailing(MESSAGES)
    with run_that_waits(lab, names) as ended:
        say(lab, word, mailing)
        wait_for_seconds(1.1)
        names.go.set()
        summary = ended()
    assert lab.ledger == []
    assert (summary.counts.claimed, summary.counts.deferred) == (MESSAGES, MESSAGES)
    assert {row[0] for row in lab.query("SELECT outcome FROM attempt")} == {"released"}
    lab.check_invariants()


def test_who_was_not_meant_gets_his_message(lab: Lab, names: Names) -> None:
    lab.add_mailing(MESSAGES)
    with run_that_waits(lab, names) as ended:
        blocked = {FIRST_PHONE, FIRST_PHONE + 1}
        with lab.database.write() as connection:
            clients.block(connection, blocked, datetime.now(UTC))
        wait_for_seconds(1.1)
        names.go.set()
        ended()
    assert len(lab.ledger) == MESSAGES - 2 and not {each.phone for each in lab.ledger} & blocked
    assert lab.statuses() == {"sent": MESSAGES - 2, "cancelled": 2}
    lab.check_invariants()


def test_a_new_phone_reaches_what_is_claimed(lab: Lab, names: Names) -> None:
    mailing = lab.add_mailing(MESSAGES)
    with run_that_waits(lab, names) as ended:
        say(lab, change_phones, mailing)
        wait_for_seconds(1.1)
        names.go.set()
        ended()
    assert len(lab.ledger) == MESSAGES and all((each.phone or 0) > 79_990_000_000 for each in lab.ledger)
    lab.check_invariants()


def test_a_mended_text_reaches_what_is_claimed(lab: Lab, names: Names) -> None:
    mailing = lab.add_mailing(MESSAGES)
    with run_that_waits(lab, names) as ended:
        say(lab, change_text, mailing)
        wait_for_seconds(1.1)
        names.go.set()
        ended()
    assert [each.text for each in lab.ledger] == ["mended"] * MESSAGES
    lab.check_invariants()


def test_a_request_takes_no_longer_than_an_end_that_came_nearer(lab: Lab, names: Names) -> None:
    mailing = lab.add_mailing(MESSAGES)
    lab.execute("UPDATE mailing SET end_at = ?", stored(datetime.now(UTC) + 100 * SECOND))
    with run_that_waits(lab, names) as ended:
        say(lab, end_soon, mailing)
        assert ended().seconds < 50  # although no name ever came
    assert lab.statuses() == {"expired": MESSAGES}


def test_a_run_that_is_told_to_stop_waits_for_no_connection(lab: Lab, names: Names) -> None:
    lab.add_mailing(MESSAGES)
    stop = Stop(time.monotonic)
    with run_that_waits(lab, names, stop) as ended:
        stop.ask(15)
        assert (ended().stopped, names.go.is_set()) == ("signal", False)
    assert lab.query("SELECT DISTINCT outcome FROM attempt") == [("released",)]
    assert lab.statuses() == {"pending": MESSAGES}
    lab.check_invariants()


def test_a_run_whose_time_is_up_waits_for_no_connection(lab: Lab, names: Names) -> None:
    lab.add_mailing(MESSAGES)
    lab.settings["max_seconds"] = 3.0
    with run_that_waits(lab, names) as ended:
        assert (ended().stopped, names.go.is_set()) == ("time_up", False)
    assert lab.query("SELECT DISTINCT outcome FROM attempt") == [("released",)]
    assert lab.statuses() == {"pending": MESSAGES}
    lab.check_invariants()


def hang_names(go: Path) -> None:
    """In a child: names are answered when that file is there."""
    names = Names()
    socket.getaddrinfo = names  # type: ignore[assignment]
    caution.SLOW_START = 0.05

    def watch() -> None:
        wait_for(go.exists)
        names.go.set()

    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_a_run_that_was_suspended_hears_what_was_said_meanwhile(tmp_path: Path, word: Word) -> None:
    go = tmp_path / "go"
    with Lab(tmp_path, concurrency=MESSAGES) as lab:
        lab.open_gateway()
        lab.url = lab.url.replace("127.0.0.1", GATEWAY)
        lab.write_env()
        mailing = lab.add_mailing(MESSAGES)
        with lab.each_child(partial(hang_names, go)):
            process = lab.start()
        wait_for(lambda: lab.statuses().get("sending") == MESSAGES)
        freeze(lab, process)
        say(lab, word, mailing)
        go.touch()
        wait_for_seconds(1.2)
        process.send(signal.SIGCONT)
        assert process.wait().code == 0
        assert lab.ledger == []
        lab.check_invariants()


# The judge


FORBIDDEN = {
    "stopped": "UPDATE lab_plan SET is_stopped = 1",
    "ended": "UPDATE lab_plan SET end_at = start_at",
    "not begun": "UPDATE lab_plan SET start_at = end_at",
    "removed": "UPDATE lab_person SET phone = NULL",
    "another's phone": "UPDATE lab_person SET phone = phone + 1",
    "blocked": "INSERT INTO lab_block (at, phone, is_blocked) SELECT at, phone, 1 FROM lab_person",
}


@pytest.mark.parametrize("word", FORBIDDEN.values(), ids=FORBIDDEN)
@pytest.mark.parametrize("was_allowed", [False, True])
def test_the_judge_sees_what_began_a_second_after_it_was_forbidden(
    tmp_path: Path, word: str, was_allowed: bool
) -> None:
    with Lab(tmp_path) as lab:
        lab.add_mailing(3)
        lab.open_gateway()
        lab.run()
        first = min(each.at for each in lab.ledger)
        for table in ("lab_plan", "lab_person"):  # all was known long before
            lab.execute(f"UPDATE {table} SET at = ?", stored(first - 5 * SECOND))
        judge.check_nothing_begins_after_it_was_forbidden(lab)
        lab.execute(word)
        if was_allowed:
            lab.execute("UPDATE lab_block SET at = ?", stored(first - 0.5 * SECOND))
            lab.execute(
                """
                INSERT INTO lab_plan (at, mailing_id, is_stopped, start_at, end_at)
                SELECT ?, id, 0, start_at, end_at FROM mailing
            """,
                stored(first - 3 * SECOND),
            )
            lab.execute("UPDATE lab_plan SET at = ? WHERE id = 1", stored(first - 0.5 * SECOND))
            lab.execute(
                "INSERT INTO lab_person (at, client_id, phone) SELECT ?, id, phone FROM client",
                stored(first - 3 * SECOND),
            )
            judge.check_nothing_begins_after_it_was_forbidden(lab)
        else:
            with pytest.raises(AssertionError):
                judge.check_nothing_begins_after_it_was_forbidden(lab)
