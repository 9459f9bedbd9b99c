"""Who gets a mailing."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, text

from mailer_cli import audience, mailings
from mailer_cli.audience import Added, Filter
from mailer_cli.database import Database
from mailer_cli.errors import Invalid

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
VIP_916, GOLD_916, VIP_926, PLAIN_903 = 1, 2, 3, 4


@pytest.fixture
def four(database: Database) -> Database:
    """A database with four clients."""
    with database.write() as connection:
        for code, tag in (("916", "vip"), ("916", "gold"), ("926", "vip"), ("903", "")):
            add_client(connection, code, tag)
    return database


def add_client(connection: Connection, code: str, tag: str, zone: str = "Europe/Moscow") -> None:
    connection.execute(
        text(
            "INSERT INTO client (phone, operator_code, tag, timezone, created_at, updated_at)"
            " SELECT 79160000000 + count(*), :code, :tag, :zone, :now, :now FROM client"
        ),
        {"code": code, "tag": tag, "zone": zone, "now": "2026-06-01 00:00:00.000000"},
    )


def run_sql(database: Database, statement: str) -> None:
    with database.write() as connection:
        connection.execute(text(statement))


def plan(wanted: Filter, start_at: datetime = NOW) -> mailings.Plan:
    return mailings.Plan("Hello", start_at, start_at + timedelta(hours=2), wanted)


def create(database: Database, wanted: Filter, now: datetime = NOW, **options: bool) -> int:
    with database.write() as connection:
        paused = options.get("paused", False)
        return mailings.create(connection, plan(wanted), paused=paused, now=now, max_text=100)


def clients_of(database: Database, mailing_id: int, status: str = "pending") -> list[int]:
    with database.read() as connection:
        statement = text(
            "SELECT client_id FROM message WHERE mailing_id = :id AND status = :status ORDER BY 1"
        )
        return list(connection.execute(statement, {"id": mailing_id, "status": status}).scalars())


def pending(database: Database, mailing_id: int) -> tuple[int, int]:
    """What the tally says is waiting, and what is."""
    with database.read() as connection:
        found = mailings.find(connection, mailing_id, NOW)
    return found.waiting, len(clients_of(database, mailing_id))


def change_filter(
    database: Database, mailing_id: int, codes: Sequence[str], tags: Sequence[str]
) -> tuple[int, int]:
    run_sql(database, f"UPDATE mailing SET paused_at = created_at WHERE id = {mailing_id}")
    wanted: mailings.Edit = {"operator_codes": codes, "tags": tags, "everyone": not (codes or tags)}
    with database.write() as connection:
        done = mailings.edit(connection, mailing_id, wanted, NOW + timedelta(minutes=1), 100)
    return done.cancelled, done.added


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(("916",)), [VIP_916, GOLD_916]),
        (Filter(("916", "903")), [VIP_916, GOLD_916, PLAIN_903]),
        (Filter((), ("vip",)), [VIP_916, VIP_926]),
        (Filter((), ("vip", "gold")), [VIP_916, GOLD_916, VIP_926]),
        (Filter(("916",), ("vip",)), [VIP_916]),
        (Filter(("903",), ("vip",)), []),
        (Filter((), ("VIP",)), []),
        (Filter(), [VIP_916, GOLD_916, VIP_926, PLAIN_903]),
    ],
)
def test_codes_are_alternatives_and_tags_are_alternatives_and_both_must_match(
    four: Database, wanted: Filter, found: list[int]
) -> None:
    assert clients_of(four, create(four, wanted)) == found


def test_removed_and_blocked_clients_join_no_audience(four: Database) -> None:
    run_sql(four, "UPDATE client SET phone = NULL, removed_at = updated_at WHERE id = 1")
    run_sql(four, "INSERT INTO block SELECT phone, created_at FROM client WHERE id = 2")
    assert clients_of(four, create(four, Filter())) == [VIP_926, PLAIN_903]


def test_an_audience_is_fixed_once_and_does_not_grow_by_itself(four: Database) -> None:
    mailing_id = create(four, Filter((), ("vip",)))
    with four.write() as connection:
        add_client(connection, "916", "vip")
        assert audience.fix(connection, mailing_id, NOW) == 0
    assert clients_of(four, mailing_id) == [VIP_916, VIP_926]


def test_an_audience_is_fixed_only_when_it_is_due(four: Database) -> None:
    paused = create(four, Filter(), paused=True)
    early = create(four, Filter(), now=NOW - timedelta(hours=1))
    with four.write() as connection:
        assert audience.fix(connection, paused, NOW) == 0
        assert audience.fix(connection, early, NOW - timedelta(seconds=1)) == 0
        assert audience.fix(connection, early, NOW + timedelta(hours=2)) == 0  # its end
        assert audience.fix(connection, early, NOW) == 4


def test_top_up_adds_each_new_client_once_and_the_tally_knows(four: Database) -> None:
    mailing_id = create(four, Filter((), ("vip",)))
    with four.write() as connection:
        add_client(connection, "916", "vip")
        assert audience.top_up(connection, mailing_id, NOW) == Added(1)
        assert audience.top_up(connection, mailing_id, NOW) == Added(0)
    assert pending(four, mailing_id) == (3, 3)


def test_a_message_keeps_the_zone_of_its_client(four: Database) -> None:
    with four.write() as connection:
        add_client(connection, "999", "east", "Asia/Omsk")
    mailing_id = create(four, Filter(("999",)))
    with four.read() as connection:
        statement = text("SELECT timezone FROM message WHERE mailing_id = :id")
        assert connection.execute(statement, {"id": mailing_id}).scalar() == "Asia/Omsk"


def test_message_ids_are_not_used_again_after_an_old_backup_is_restored(four: Database) -> None:
    create(four, Filter())
    later = NOW + timedelta(milliseconds=1)
    with four.write() as connection:
        last = connection.execute(text("SELECT max(id) FROM message")).scalar_one()
        for table in ("message", "tally", "mailing", "sqlite_sequence"):
            connection.execute(text(f"DELETE FROM {table}"))
        connection.execute(text("INSERT INTO sqlite_sequence VALUES ('message', 0)"))
    create(four, Filter(), now=later)
    with four.read() as connection:
        first = connection.execute(text("SELECT min(id) FROM message")).scalar_one()
    assert last < first < 2**53


def test_a_breakdown_counts_who_would_get_it_by_operator_and_zone(four: Database) -> None:
    with four.read() as connection:
        found = audience.break_down(connection, Filter())
    assert found.by_operator == (("916", 2), ("903", 1), ("926", 1))
    assert found.by_timezone == (("Europe/Moscow", 4),)
    assert found.size == 4


def test_a_narrower_filter_cancels_who_is_outside_it(four: Database) -> None:
    mailing_id = create(four, Filter(("916", "926")))
    assert change_filter(four, mailing_id, ["916"], ["vip"]) == (2, 0)
    assert clients_of(four, mailing_id) == [VIP_916]
    assert clients_of(four, mailing_id, "cancelled") == [GOLD_916, VIP_926]
    assert pending(four, mailing_id) == (1, 1)


def test_a_wider_filter_adds_and_brings_back_whom_a_narrower_one_cancelled(four: Database) -> None:
    mailing_id = create(four, Filter(("916",)))
    change_filter(four, mailing_id, ["916"], ["vip"])
    run_sql(four, f"UPDATE client SET timezone = 'Asia/Omsk' WHERE id = {GOLD_916}")
    assert change_filter(four, mailing_id, ["916", "926"], []) == (0, 2)
    assert clients_of(four, mailing_id) == [VIP_916, GOLD_916, VIP_926]
    with four.read() as connection:
        statement = text("SELECT timezone FROM message WHERE client_id = :id")
        assert connection.execute(statement, {"id": GOLD_916}).scalar() == "Asia/Omsk"


def test_a_filter_moved_aside_cancels_and_adds_at_once(four: Database) -> None:
    mailing_id = create(four, Filter(("916",)))
    assert change_filter(four, mailing_id, [], ["vip"]) == (1, 1)
    assert clients_of(four, mailing_id) == [VIP_916, VIP_926]


def test_who_left_the_filter_stays_in_when_it_only_widens(four: Database) -> None:
    mailing_id = create(four, Filter(("916",)))
    run_sql(four, f"UPDATE client SET operator_code = '977' WHERE id = {VIP_916}")
    assert change_filter(four, mailing_id, ["916", "926"], []) == (0, 1)
    assert clients_of(four, mailing_id) == [VIP_916, GOLD_916, VIP_926]


@pytest.mark.parametrize(
    ("outcome", "is_bound"), [("rejected", False), ("not_sent", False), ("unknown", True)]
)
def test_a_filter_touches_no_message_that_somebody_may_have_got(
    four: Database, outcome: str, is_bound: bool
) -> None:
    mailing_id = create(four, Filter(("916",)))
    add_attempt(four, GOLD_916, outcome)
    assert change_filter(four, mailing_id, ["916"], ["vip"]) == (0 if is_bound else 1, 0)
    assert clients_of(four, mailing_id) == ([VIP_916, GOLD_916] if is_bound else [VIP_916])


def add_attempt(database: Database, client_id: int, outcome: str) -> None:
    """The client's one message waits after an attempt that came to this."""
    tried = "attempts = 1, phone = 79160000001, wording_id = 1"
    run_sql(database, "INSERT INTO run VALUES (1, 'h', 1, '2026-06-01', NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0)")
    run_sql(database, f"UPDATE message SET {tried} WHERE client_id = {client_id}")
    run_sql(
        database,
        "INSERT INTO attempt (message_id, number, run_id, started_at, ended_at, outcome)"
        f" SELECT id, 1, 1, created_at, created_at, '{outcome}' FROM message WHERE client_id = {client_id}",
    )


def test_a_wider_filter_does_not_bring_back_who_was_removed_or_blocked(four: Database) -> None:
    mailing_id = create(four, Filter())
    change_filter(four, mailing_id, [], ["nobody"])
    run_sql(four, "UPDATE client SET phone = NULL, removed_at = updated_at WHERE id = 1")
    run_sql(four, "INSERT INTO block SELECT phone, created_at FROM client WHERE id = 2")
    assert change_filter(four, mailing_id, [], []) == (0, 2)
    assert clients_of(four, mailing_id) == [VIP_926, PLAIN_903]


@pytest.mark.parametrize(
    ("wider", "narrower", "covers"),
    [
        (Filter(), Filter(("916",), ("vip",)), True),
        (Filter(("916",)), Filter(), False),
        (Filter(("916", "926")), Filter(("926",)), True),
        (Filter(("916",)), Filter(("916",), ("vip",)), True),
        (Filter(("916",), ("vip",)), Filter(("916",)), False),
        (Filter(("916",)), Filter((), ("vip",)), False),
        (Filter(("916",)), Filter(("926",)), False),
    ],
)
def test_a_filter_covers_another_when_it_restricts_nothing_more(
    wider: Filter, narrower: Filter, covers: bool
) -> None:
    assert wider.covers(narrower) is covers


def test_tags_are_trimmed_and_composed_and_keep_their_order_once() -> None:
    tags = [" b ", "и\u0306", "b", "\u0439"]  # й in two characters, and in one
    assert audience.choose([], tags, everyone=False).tags == ("b", "\u0439")


@pytest.mark.parametrize("code", ["91", "9160", "abc", "٩١٦", "", "9 6"])
def test_an_operator_code_is_three_digits(code: str) -> None:
    with pytest.raises(Invalid, match="three digits"):
        audience.choose([code], [], everyone=False)


@pytest.mark.parametrize("tag", ["", "  ", "a\x1bb", "a\nb", "\udcff"])
def test_a_tag_that_nobody_can_have_is_refused(tag: str) -> None:
    with pytest.raises(Invalid):
        audience.choose([], [tag], everyone=False)


def test_nobody_named_means_everybody_only_when_that_is_said() -> None:
    with pytest.raises(Invalid) as refused:
        audience.choose([], [], everyone=False)
    assert "--all" in (refused.value.hint or "")
    assert audience.choose([], [], everyone=True).everyone
    with pytest.raises(Invalid, match="contradict"):
        audience.choose(["916"], [], everyone=True)
