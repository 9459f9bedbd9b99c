"""What must be true of a `World` after every step: the judge of `tests.lab`, and what only a world knows."""

from typing import Any

from sqlalchemy import bindparam, text

from mailer_cli import invariants, outbox
from mailer_cli.audience import FILTER_CHANGED
from tests import judge
from tests.world import BOUND, World


def check(world: Any) -> None:
    """Raises: AssertionError."""
    judge.check_tally(world)
    check_changes(world)
    check_no_message_disappears(world)
    judge.check_i3_repeats_are_explained(world)
    judge.check_i4_what_may_have_been_taken_is_repeated_as_it_was(world)
    judge.check_one_number_gets_one_message(world)
    judge.check_i5_sent_means_taken(world)
    check_what_was_taken_is_never_denied(world)
    judge.check_i8_sending_has_one_open_attempt(world)
    judge.check_i9_only_the_dead_are_recovered(world)
    check_the_living_keep_what_they_own(world)
    judge.check_i10_counters_equal_the_attempts(world)
    judge.check_i11_limits_are_kept(world, world.limits.failures, world.limits.unknowns)
    check_zones_follow(world)
    check_what_may_go_is_looked_at(world)
    check_doctor_is_content(world)


def check_changes(world: World) -> None:
    """The arrows of the states, and those that a widened filter or a top-up adds; I6."""
    changes = world.query("""
        SELECT old, new, reason FROM lab_change WHERE NOT (old = 'cancelled' AND new = 'pending')
    """)
    for old, new, _ in changes:
        assert new in judge.MAY_BECOME.get(old, set()), f"{old} became {new}"
    back = world.query("SELECT message_id FROM lab_change WHERE old = 'cancelled' AND new = 'pending'")
    for (message,) in back:
        reasons = world.query(
            "SELECT reason FROM lab_change WHERE message_id = ? AND new = 'cancelled'", message
        )
        assert {(FILTER_CHANGED,), (outbox.ALREADY_SENT,)} & set(reasons)


def check_no_message_disappears(world: World) -> None:
    """I1: what was ever seen, or was ever sent, is there."""
    there = set(world.statuses())
    assert world.messages <= there
    world.messages |= there
    assert {each.id for each in world.ledger} <= there


def check_what_was_taken_is_never_denied(world: World) -> None:
    """But by an operator's own word."""
    denied = world.query("""
        SELECT id FROM message WHERE status IN ('failed', 'expired', 'cancelled')
        AND id NOT IN (SELECT message_id FROM resolution)
    """)
    assert {row[0] for row in denied}.isdisjoint(world.accepted())


def check_the_living_keep_what_they_own(world: World) -> None:
    """I9: who holds his lock and has not recorded yet finds his attempt open and the message his own, unless
    it is sent."""
    rows = world.query("""
        SELECT message.id, number, attempt.run_id, status, message.run_id, attempts
        FROM attempt JOIN message ON message.id = message_id WHERE outcome IS NULL
    """)
    held = {(id, number, run): (status, owner, latest) for id, number, run, status, owner, latest in rows}
    for worker in world.workers:
        for each in worker.flights if worker.has_lock else ():
            claimed = each.claimed
            found = held.get((claimed.message_id, claimed.attempt, worker.run))
            assert found is not None, "a living run's attempt was given up"
            assert found[0] == "sent" or found == ("sending", worker.run, claimed.attempt)


def check_zones_follow(world: World) -> None:
    """Until an attempt may have been taken, which fixes them."""
    for message, zone in world.query(f"SELECT id, timezone FROM message WHERE {BOUND}"):
        assert world.zones.setdefault(message, zone) == zone
    astray = world.query(f"""
        SELECT message.id FROM message JOIN client ON client.id = client_id
        WHERE status IN ('pending', 'sending') AND NOT {BOUND} AND message.timezone <> client.timezone
    """)
    assert astray == []


def check_what_may_go_is_looked_at(world: World) -> None:
    """No mailing sleeps of which something may be claimed; that a clock was set, a claim has to notice."""
    wanted, unwanted = world._claimable()
    asleep = world.query(
        """
        SELECT message.id, turn, next_due_at FROM message JOIN mailing ON mailing.id = mailing_id, gateway
        WHERE status = 'pending' AND coalesce(looked_at, '') <= ?
          AND coalesce(turn = 'later' AND next_due_at > ?, TRUE)
        """,
        judge.stored(world.now),
        judge.stored(world.now),
    )
    assert [each for each in asleep if each[0] in wanted | unwanted] == []


def check_doctor_is_content(world: World) -> None:
    """What `doctor` looks for never happens."""
    with world.database.read() as connection:
        for each in invariants.INVARIANTS:
            used = {name: words for name, words in invariants.WORDS.items() if f":{name}" in each.violations}
            query = text(each.violations).bindparams(*(bindparam(name, expanding=True) for name in used))
            assert connection.execute(query, used).scalar_one() == 0, each.name
