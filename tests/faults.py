"""Faults that a test injects a few times and a long run for an hour."""

import random
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import inf

from mailer_cli import sandbox
from mailer_cli.models import Outcome
from tests.judge import stored
from tests.lab import FIRST_PHONE, Lab, add_clients, add_mailing, wait_for


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
    Outcome.UNKNOWN: (
        *("hang", "slow", "reset", "disconnect", "bad-chunks", "garbage", "foreign", "huge"),
        *("500", "502", "504", "taken-500", "taken-hang", "taken-reset", "taken-204", "taken-gzip"),
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
