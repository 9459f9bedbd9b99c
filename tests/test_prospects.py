"""What is said of when a mailing's messages can go: true, whatever its window and its end."""

from datetime import UTC, datetime, timedelta

import pytest

from mailer_cli.database import Database
from mailer_cli.mailings.prospects import Prospect, prospect
from mailer_cli.times import Window
from tests.conftest import Mailer
from tests.rows import add_client, add_mailing, add_message

NIGHT = datetime(2026, 11, 27, 2, 58, tzinfo=UTC)
HOUR = timedelta(hours=1)
ZONES = (("+00:00", 60), ("+08:00", 40))  # 02:58 and 10:58
MORNING = Window(9 * 60, 12 * 60)
NINE = NIGHT.replace(hour=9, minute=0)


@pytest.mark.parametrize(
    ("window", "hours", "found"),
    [
        (None, 1, Prospect(now=100)),
        (MORNING, 20, Prospect(now=40, later=60, opens_at=NINE)),
        (MORNING, 3, Prospect(now=40, never=60, saved_by=NINE)),
        (Window(13 * 60, 14 * 60), 1, Prospect(never=100, saved_by=NIGHT.replace(hour=13, minute=0))),
        (Window(13 * 60, 14 * 60), 5, Prospect(later=40, never=60, opens_at=NIGHT.replace(hour=5, minute=0),
                                               saved_by=NIGHT.replace(hour=13, minute=0))),
    ],
)  # fmt: skip
def test_a_window_lets_some_go_now_others_later_and_others_never(
    window: Window | None, hours: int, found: Prospect
) -> None:
    assert prospect(ZONES, window, NIGHT, NIGHT + hours * HOUR) == found


def test_what_waits_for_an_unknown_zone_is_promised_nothing() -> None:
    assert prospect([("Mars/Base", 5)], MORNING, NIGHT, NIGHT + 20 * HOUR) == Prospect()
    assert prospect([("Mars/Base", 5)], None, NIGHT, NIGHT + 20 * HOUR) == Prospect(now=5)


def clock(hours: int) -> str:
    return f"{(datetime.now(UTC) + hours * HOUR):%H}:00"


@pytest.fixture
def clients(mailer: Mailer) -> None:
    mailer("init")
    for place in range(3):
        mailer("clients", "add", "--phone", 79160000000 + place, "--timezone", "+00:00", "--tag", "vip")
    mailer("clients", "add", "--phone", 79160000009, "--timezone", "+05:00", "--tag", "vip")


@pytest.mark.usefixtures("clients")
def test_create_says_how_many_go_with_the_next_run_and_when_the_others(mailer: Mailer) -> None:
    window = f"{clock(-1)}-{clock(2)}"
    said = mailer("mailings", "create", "--text", "x", "--all", "--end", "+47h", "--window", window).out
    assert "3 messages of mailing 1 go with the next run of mailer dispatch; 1 other waits" in said
    assert "waits for a window, the first opens at 20" in said
    later = f"{clock(3)}-{clock(4)}"
    said = mailer("mailings", "create", "--text", "x", "--all", "--end", "+47h", "--window", later).out
    assert "4 messages of mailing 2 wait for their windows, the first opens at" in said
    assert "next run" not in said


@pytest.mark.usefixtures("clients")
def test_create_and_edit_warn_of_what_can_never_go(mailer: Mailer) -> None:
    window = ("--window", f"{clock(3)}-{clock(4)}")
    plan = ("mailings", "create", "--text", "x", "--tag", "vip", "--end", "+1h", *window)
    never = "4 messages cannot go before the end, their windows open too late; they do with an end after"
    assert never in mailer(*plan, "--dry-run").err
    made = mailer(*plan)
    assert never in made.err
    assert "no message of mailing 1 can go now" in made.out
    assert mailer("mailings", "edit", 1, "--end", "+47h").err == ""
    assert never in mailer("mailings", "edit", 1, "--end", "+1h").err
    assert never in mailer("mailings", "resume", 1).err
    assert never in mailer("mailings", "top-up", 1).err
    assert mailer("mailings", "edit", 1, "--priority", 3).err == ""


@pytest.mark.usefixtures("clients")
def test_several_that_are_resumed_are_warned_of_like_one(mailer: Mailer) -> None:
    window = ("--window", f"{clock(3)}-{clock(4)}")
    plan = ("mailings", "create", "--text", "x", "--tag", "vip", "--paused")
    for _ in range(7):
        mailer(*plan, "--end", "+1h", *window)
    mailer(*plan, "--end", "+47h", *window)
    mailer(*plan, "--end", "+1h")
    never = ": 4 messages cannot go before the end, their windows open too late; they do with an end after"
    said = mailer("mailings", "resume", 9, 8, 2, 1).err.splitlines()
    assert [f"warning: mailing {each}{never}" for each in (2, 1)] == [each.rsplit(" ", 3)[0] for each in said]
    assert mailer("mailings", "pause", "--all", "--json").err == ""
    ran = mailer("mailings", "resume", "--all", "--quiet")
    assert ran.out == ""
    assert ran.err.count(never) == 5
    assert "2 more mailings have messages that cannot go, likewise" in ran.err


@pytest.mark.usefixtures("clients")
def test_a_dry_run_says_as_create_does_how_many_can_go_and_when_the_others(mailer: Mailer) -> None:
    plan = ("mailings", "create", "--dry-run", "--text", "x", "--all", "--end", "+47h")
    window = ("--window", f"{clock(-1)}-{clock(2)}")
    said = mailer(*plan, *window).out
    assert "3 messages would go with the next run of mailer dispatch; 1 other waits for a window" in said
    assert "the first opens at 20" in said
    paused = mailer(*plan, *window, "--paused").out
    assert "3 messages would go with the next run of mailer dispatch, once it is resumed; 1 other" in paused
    assert "4 messages would go at its start" in mailer(*plan, "--start", "+1h").out
    later = mailer(*plan, "--window", f"{clock(3)}-{clock(4)}").out
    assert "4 messages wait for their windows, the first opens at 20" in later
    assert "message" not in mailer(*plan[:4], "x", "--tag", "nobody", "--end", "+47h").out


@pytest.mark.usefixtures("clients")
def test_a_mailing_that_nobody_matches_says_what_is_near_and_promises_nothing(mailer: Mailer) -> None:
    ran = mailer("mailings", "create", "--text", "x", "--tag", "Vpi", "--end", "+1h")
    assert "no client matches mailing 1 now; did you mean 'vip'?" in ran.err
    assert "next run" not in ran.out
    assert "pause" not in ran.out
    assert mailer("mailings", "create", "--text", "x", "--tag", "zzz", "--end", "+1h").err.count("mean") == 0


def test_no_end_is_promised_while_some_wait_for_their_windows(mailer: Mailer, database: Database) -> None:
    now = datetime.now(UTC)
    hours = {"window_from": (now.hour * 60 - 60) % 1440, "window_to": (now.hour * 60 + 120) % 1440}
    for zone, eta in (("UTC", True), ("+05:00", False)):
        mailing = add_mailing(database, end_at=now + 47 * HOUR, **hours)
        for status, place in (("sent", 1), ("pending", 2)):
            client = add_client(database, 79160000000 + 10 * mailing + place)
            add_message(
                database, mailing, client, status, timezone=zone, sent_at=now if status == "sent" else None
            )
        found = mailer("stats", mailing, "--json").json
        assert found["rate_per_second"] > 0
        assert (found["eta"] is not None) is eta
