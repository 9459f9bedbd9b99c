"""What a dispatch with nothing to send says of what waits: for which moment, or for whom."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from mailer_cli.database import Database, lock_path
from mailer_cli.start import Run, is_over
from tests.conftest import Mailer
from tests.rows import add_client, add_mailing, add_message

HOUR = timedelta(hours=1)
PHONES = iter(range(79160000000, 79169999999))


def later() -> dict[str, int]:
    """A window that opens in some hours."""
    hour = datetime.now(UTC).hour
    return {"window_from": (hour + 3) % 24 * 60, "window_to": (hour + 5) % 24 * 60}


def waits(database: Database, messages: int, **changed: object) -> int:
    mailing = add_mailing(database, **{"end_at": datetime.now(UTC) + 47 * HOUR, **changed})
    for _ in range(messages):
        add_message(database, mailing, add_client(database, next(PHONES)))
    return mailing


def said(mailer: Mailer, *options: str | int) -> str:
    """Without the moment."""
    return re.sub(r" \d{4}-[-\d:+ ]+", " T ", mailer("dispatch", *options).out).strip()


def test_what_waits_for_its_window_and_what_is_paused_are_told_apart(
    database: Database, mailer: Mailer
) -> None:
    now = datetime.now(UTC)
    waits(database, 3, **later())
    assert said(mailer) == "nothing to do now: 3 messages wait until T at the earliest"
    opens = (now + 3 * HOUR).astimezone(ZoneInfo("Europe/Moscow")).replace(minute=0)
    assert f"until {opens:%Y-%m-%d %H:%M}" in mailer("dispatch").out
    waits(database, 1, paused_at=now)
    waits(database, 0, fixed_at=None, start_at=now + 2 * HOUR)
    waits(database, 0, fixed_at=None, paused_at=now)
    assert said(mailer) == (
        "nothing to do now: 3 messages wait until T at the earliest, 1 is paused, 1 mailing starts T ,"
        " 1 mailing is paused, and has not begun"
    )
    assert said(mailer, "--dry-run").startswith("mailing")  # what has begun is planned, due or not
    assert mailer("dispatch", "--quiet").out == ""
    assert mailer("dispatch", "--json").json["run_id"] is None


def test_nothing_is_promised_of_what_can_never_go(database: Database, mailer: Mailer) -> None:
    waits(database, 2, end_at=datetime.now(UTC) + HOUR, **later())
    assert said(mailer) == "nothing to do now: 2 messages cannot go before their mailings end"


def test_what_is_over_does_not_wait(database: Database, mailer: Mailer) -> None:
    now = datetime.now(UTC)
    for over in (
        {"removed_at": now},
        {"cancelled_at": now},
        {"end_at": now - HOUR, "start_at": now - 2 * HOUR},
    ):
        add_mailing(database, **over)
    assert mailer("dispatch").out == "nothing to do\n"


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_mailing_that_is_not_sent_says_why(
    dry: tuple[str, ...], database: Database, mailer: Mailer
) -> None:
    now = datetime.now(UTC)
    past = {"start_at": now - 2 * HOUR, "end_at": now - HOUR}
    told = {
        waits(
            database, 2, paused_at=now
        ): "is paused with 2 messages that wait; to go on: mailer mailings resume 1",
        waits(database, 0, fixed_at=None, paused_at=now): "is paused; to go on: mailer mailings resume 2",
        waits(database, 0, fixed_at=None, start_at=now + HOUR): "starts T",
        waits(database, 0): "is completed",
        waits(database, 0, cancelled_at=now): "is cancelled",
        waits(database, 0, fixed_at=None, **past): "ended T",
    }
    for mailing, why in told.items():
        line = said(mailer, "--mailing", mailing, *dry)
        assert line == f"nothing to do now: mailing {mailing} {why}"
    assert "no such mailing: 99" in mailer("dispatch", "--mailing", 99, *dry, code=1).err


def test_one_mailing_alone_is_asked_of_no_other(database: Database, mailer: Mailer) -> None:
    mine = waits(database, 1, **later())
    waits(database, 5, **later())
    assert said(mailer, "--mailing", mine) == "nothing to do now: 1 message waits until T at the earliest"


def test_cron_is_over_at_a_glance_and_who_is_told_learns_what_waits(
    database: Database, mailer: Mailer
) -> None:
    waits(database, 1, **later())
    mailer("dispatch")  # lets it sleep
    assert lock_path(database).exists()
    assert is_over(Run(quiet=True))
    assert not is_over(Run())
