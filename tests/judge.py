"""The judge of a laboratory: what dispatch.md promises, put to the database and to the gateway's ledger.

Each check raises AssertionError. They ask a laboratory for `query`, `number`, `ledger` and `accepted` alone.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from mailer_cli.models import MessageStatus
from mailer_cli.times import zone_of
from tests.wire import FATES

if TYPE_CHECKING:
    from tests.lab import Lab

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.c2FuZGJveA"  # expires in 2100, signed by nobody
LOCKED = re.compile(r"\blocked\b")  # a client may be blocked


def check_text(text: str, *, may_be_locked: bool = False, may_show_phones: bool = False) -> None:
    """What may never be printed."""
    assert "Traceback" not in text, text
    assert "internal error" not in text, text
    assert not any(part in text for part in TOKEN.split(".")), text
    assert may_show_phones or not re.search(r"(?<!\d)7\d{10}(?!\d)", text), text
    assert may_be_locked or not LOCKED.search(text), text


def check_integrity(lab: "Lab") -> None:
    assert lab.query("PRAGMA integrity_check") == [("ok",)]
    assert lab.query("PRAGMA foreign_key_check") == []


def check_tally(lab: "Lab") -> None:
    """What was purged is counted for good."""
    counted = lab.query("""
        SELECT mailing_id, status, count(*) FROM (
            SELECT mailing_id, status FROM message UNION ALL SELECT mailing_id, status FROM lab_deletion
        ) GROUP BY mailing_id, status
    """)
    kept = lab.query("SELECT mailing_id, status, messages FROM tally WHERE messages > 0")
    assert sorted(counted) == sorted(kept)


MAY_BECOME = {
    "pending": {"sending", "expired", "cancelled", "unknown", "sent"},
    "sending": {"sent", "failed", "pending", "unknown"},
    "failed": {"pending", "sent"},
    "unknown": {"pending", "sent", "failed"},
    "expired": {"sent", "pending"},
    "cancelled": {"sent"},
}
"""The arrows of dispatch.md; `sent` from anywhere, when an answer comes late. What had expired waits again
only when it was a clock that was ahead, so that its mailing has not ended."""


def check_changes(lab: "Lab") -> None:
    for old, new, count in lab.query("SELECT old, new, count(*) FROM lab_change GROUP BY old, new"):
        assert new in MAY_BECOME.get(old, set()), f"{count} messages went from {old} to {new}"


def check_i1_no_row_disappears(lab: "Lab") -> None:
    """I1: each client of a fixed mailing has one message, and whatever the gateway saw is known here.

    Only a purge deletes messages, and only those that are final.
    """
    lost = lab.query("""
        SELECT message_id FROM lab_deletion JOIN mailing ON mailing.id = mailing_id
        WHERE purged_at IS NULL OR status IN ('pending', 'sending')
    """)
    assert lost == []
    missing = lab.query("""
        SELECT mailing.id, client.id FROM mailing, json_each(mailing.tags) AS tag
        JOIN client ON client.tag = tag.value
        LEFT JOIN message ON message.mailing_id = mailing.id AND message.client_id = client.id
        WHERE mailing.fixed_at IS NOT NULL AND client.created_at < mailing.fixed_at AND message.id IS NULL
          AND (mailing.id, client.id) NOT IN (SELECT mailing_id, client_id FROM lab_deletion)
    """)
    assert missing == []
    known = {row[0] for row in lab.query("SELECT id FROM message UNION SELECT message_id FROM lab_deletion")}
    assert {each.id for each in lab.ledger if each.id is not None} <= known


def check_i2_nothing_is_open_after_the_end(lab: "Lab") -> None:
    """I2, for mailings that a whole run has seen after their end."""
    still_open = lab.query("""
        SELECT message.id, message.status FROM message JOIN mailing ON mailing.id = message.mailing_id
        WHERE message.status IN ('pending', 'sending')
          AND mailing.end_at <= (SELECT max(started_at) FROM run WHERE ended_at IS NOT NULL)
    """)
    assert still_open == []


def unknown_attempts(lab: "Lab") -> Counter[int]:
    """How many attempts of each message may have been taken without our knowing."""
    return Counter(
        dict(
            lab.query("""
        SELECT message_id, count(*) FROM attempt
        WHERE outcome IN ('unknown', 'late_ok', 'server') GROUP BY message_id
    """)
        )
    )


def check_i3_repeats_are_explained(lab: "Lab") -> None:
    """I3: accepted at most once more than there are attempts whose fate was unknown."""
    doubts = unknown_attempts(lab)
    open_attempts = Counter(
        row[0] for row in lab.query("SELECT message_id FROM attempt WHERE outcome IS NULL")
    )
    bad = {id: times for id, times in lab.accepted().items() if times > 1 + doubts[id] + open_attempts[id]}
    assert bad == {}


UNSURE = {"hang", "slow", "reset", "disconnect", "bad-chunks", "garbage", "foreign", "huge", 500, 502, 504}
UNSURE |= {name for name, fate in FATES.items() if not fate.is_sure}
"""Answers after which a run cannot know whether the gateway took the message."""


def check_i4_what_may_have_been_taken_is_repeated_as_it_was(lab: "Lab") -> None:
    """I4: from the first request of an id on that may have been taken all are identical, and the database
    says the same."""
    seen = defaultdict[int, list[tuple[int | None, str | None]]](list)
    for each in lab.ledger:
        if each.id is not None and (each.id in seen or each.accepted or each.answer in UNSURE):
            seen[each.id].append((each.phone, each.text))
    assert {id: said for id, said in seen.items() if len(set(said)) > 1} == {}
    kept = lab.query("""
        SELECT message.id, phone, text FROM message JOIN wording ON wording.id = wording_id
    """)
    assert all(seen[id][0] == (phone, text) for id, phone, text in kept if id in seen)


def check_one_number_gets_one_message(lab: "Lab") -> None:
    """Of a mailing a number gets at most one message that may have been taken, unless its own repeat; or the
    operator said that the other had failed."""
    denied = {row[0] for row in lab.query("SELECT message_id FROM resolution WHERE status = 'failed'")}
    bound = lab.query("""
        SELECT id, mailing_id, phone FROM message WHERE EXISTS (
            SELECT 1 FROM attempt WHERE message_id = message.id
            AND (outcome IS NULL OR outcome IN ('ok', 'late_ok', 'server', 'unknown'))
        )
    """)
    mailings = dict(
        lab.query("SELECT id, mailing_id FROM message UNION SELECT message_id, mailing_id FROM lab_deletion")
    )
    bound += [(each.id, mailings[each.id], each.phone) for each in lab.ledger if each.accepted]
    got = defaultdict[tuple[int, int], set[int]](set)
    for id, mailing, phone in bound:
        if id not in denied:
            got[mailing, phone].add(id)
    assert [each for each in got.items() if len(each[1]) > 1] == []


def check_i5_sent_means_taken(lab: "Lab") -> None:
    """I5: `sent` exactly when some attempt is OK, or the operator said so; and the gateway agrees."""
    has_ok = {
        row[0] for row in lab.query("SELECT message_id FROM attempt WHERE outcome IN ('ok', 'late_ok')")
    }
    resolved = {row[0] for row in lab.query("SELECT message_id FROM resolution WHERE status = 'sent'")}
    sent = {row[0] for row in lab.query("SELECT id FROM message WHERE status = 'sent'")}
    assert has_ok <= sent <= has_ok | resolved
    assert has_ok <= lab.accepted().keys()


def check_accepted_is_never_denied(lab: "Lab") -> None:
    """What the gateway took is `sent`, or at least not called failed, expired or cancelled."""
    denied = "SELECT id FROM message WHERE status IN ('failed', 'expired', 'cancelled')"
    assert {row[0] for row in lab.query(denied)}.isdisjoint(lab.accepted())


def check_i6_sent_never_changes(lab: "Lab") -> None:
    """I6, and nobody is told later that it was not."""
    assert lab.query("SELECT message_id, new FROM lab_change WHERE old = 'sent'") == []
    check_accepted_is_never_denied(lab)


def check_i7_nothing_starts_after_the_end(lab: "Lab") -> None:
    """I7, by the gateway's clock, which is also ours."""
    ends = dict(lab.query("SELECT message.id, end_at FROM message JOIN mailing ON mailing.id = mailing_id"))
    late = [each for each in lab.ledger if each.id in ends and each.at >= as_utc(ends[each.id])]
    assert late == []


FREE = (datetime.min.replace(tzinfo=UTC), (0,))  # every number, until somebody blocks it
HEARD_WITHIN = timedelta(seconds=1.5)  # a second, and what a word needs to be committed, a request to arrive


def check_nothing_begins_after_it_was_forbidden(lab: "Lab") -> None:
    """Whatever the way: paused, cancelled, removed; an end or a window edited; the client removed, or with
    another phone; either number blocked. What was allowed within the last second may have begun by that."""
    if lab.has_own_clock:
        return
    plan = "is_stopped, start_at, end_at, window_from, window_to"
    plans = _history(lab.query(f"SELECT mailing_id, at, {plan} FROM lab_plan ORDER BY id"))
    people = _history(lab.query("SELECT client_id, at, phone FROM lab_person ORDER BY id"))
    blocks = _history(lab.query("SELECT phone, at, is_blocked FROM lab_block ORDER BY id"))
    messages = {
        row[0]: row[1:] for row in lab.query("SELECT id, mailing_id, client_id, timezone FROM message")
    }
    bound = unknown_attempts(lab)
    for each in lab.ledger:
        if each.id not in messages or each.phone is None:
            continue
        mailing, client, zone = messages[each.id]
        said = _in_force(plans[mailing], each.at)
        assert any(_lets_go(*one, zone, each.at) for one in said), f"forbidden by its plan: {said}"
        phones = [one for (one,) in _in_force(people[client], each.at)]
        assert any(phones), f"the client was removed: {each.id}"
        assert each.phone in phones or bound[each.id], f"another's phone: {each.id}"
        numbers = {each.phone, *(phones if len(phones) == 1 else ())}
        stops = [[one for (one,) in _in_force([FREE, *blocks[number]], each.at)] for number in numbers]
        assert not any(all(one) for one in stops), f"blocked: {each.id}"


def _history(rows: list[tuple[Any, ...]]) -> dict[int, list[tuple[datetime, Any]]]:
    """Of each thing when what was said of it."""
    found = defaultdict[int, list[tuple[datetime, Any]]](list)
    for about, at, *said in rows:
        found[about].append((as_utc(at), said))
    return found


def _in_force(history: list[tuple[datetime, Any]], at: datetime) -> list[Any]:
    """All that was so at some moment of HEARD_WITHIN before."""
    past = [said for when, said in history if when <= at - HEARD_WITHIN]
    return past[-1:] + [said for when, said in history if at - HEARD_WITHIN < when <= at]


def _lets_go(
    is_stopped: int, start: str, end: str, opens: int | None, closes: int | None, zone: str, at: datetime
) -> bool:
    if is_stopped or not as_utc(start) <= at < as_utc(end):
        return False
    if opens is None or closes is None:
        return True
    local = at.astimezone(zone_of(zone))
    minute = local.hour * 60 + local.minute
    return opens <= minute < closes if opens < closes else minute >= opens or minute < closes


SERVED_WITHIN = 3  # runs
SPOKE = ("gateway_down", "gateway_nonsense", "too_many_rejected")  # such a run ended by itself all the same


def check_good_mailings_are_served(lab: "Lab") -> None:
    """Of any three runs that ended by themselves one asks about each mailing of which something that was
    never tried is due, if the gateway would have taken it. Where a test scripts the gateway its rule says so,
    and each operator of a mailing is to be asked; else it is so when none of the three found it in trouble,
    and it took something of others in each.

    Nothing is said of mailings whose plan was changed, or that have a window, nor by a clock of a test's own.
    """
    if lab.has_own_clock:
        return
    runs = lab.query(f"""
        SELECT id, started_at, ended_at, sent AND (stopped IS NULL OR stopped NOT LIKE 'gateway%') FROM run
        WHERE ended_at IS NOT NULL AND (stopped IS NULL OR stopped IN {SPOKE}) ORDER BY id
    """)
    asked = lab.query("""
        SELECT mailing_id, phone, attempt.started_at FROM attempt JOIN message ON id = message_id
    """)
    good: dict[tuple[int, ...], dict[tuple[tuple[int, int], str], str]] = {}
    for three in zip(*(runs[n:] for n in range(SERVED_WITHIN)), strict=False):
        (first, began, *_), (last, _, ended, _) = three[0], three[-1]
        said = tuple(n for n, each in enumerate(lab.spoken) if each.first <= first and last <= each.last)
        if not said and not all(is_up for *_, is_up in three):
            continue
        if said not in good:
            good[said] = _waited(lab, said)
        waited = {which for (which, since), until in good[said].items() if since <= began and until > ended}
        served = {_which(id, phone, said) for id, phone, at in asked if began <= at <= ended}
        assert waited <= served, f"{waited - served} had no turn in runs {first} to {last}"


def _which(mailing: int, phone: int, said: tuple[int, ...]) -> tuple[int, int]:
    """A mailing, and an operator when there are rules for him; else any."""
    return mailing, phone // 10**7 % 1000 if said else 0


def _waited(lab: "Lab", said: tuple[int, ...]) -> dict[tuple[tuple[int, int], str], str]:
    """Since when something of each waited untried, and until when; of it what these rules take."""
    rows = lab.query("""
        SELECT message.id, mailing_id, client.phone, wording.text,
               max(mailing.created_at, start_at, iif(message.created_at > fixed_at, message.created_at, ''),
                   iif(attempts = 0 AND due_at > message.created_at, due_at, '')),
               coalesce((SELECT min(started_at) FROM attempt WHERE message_id = message.id), mailing.end_at)
        FROM message JOIN mailing ON mailing.id = mailing_id JOIN client ON client.id = client_id
        JOIN wording ON wording.id = mailing.wording_id
        WHERE (attempts OR status = 'pending') AND window_from IS NULL
          AND (SELECT count(*) FROM lab_plan WHERE lab_plan.mailing_id = mailing.id) = 1
    """)
    found: dict[tuple[tuple[int, int], str], str] = {}
    for id, mailing, phone, text, since, until in rows:
        if all(lab.spoken[n].takes(id, phone, text) for n in said):
            place = _which(mailing, phone, said), since
            found[place] = max(until, found.get(place, ""))
    return found


def check_i8_sending_has_one_open_attempt(lab: "Lab") -> None:
    """I8: its latest, of the run that owns it."""
    wrong = lab.query("""
        SELECT message.id FROM message WHERE status = 'sending' AND NOT EXISTS (
            SELECT 1 FROM attempt WHERE message_id = message.id AND number = message.attempts
            AND attempt.run_id = message.run_id AND outcome IS NULL
        )
        UNION ALL
        SELECT message_id FROM attempt WHERE outcome IS NULL GROUP BY message_id HAVING count(*) > 1
        UNION ALL
        SELECT message.id FROM message WHERE attempts <> (
            SELECT count(*) FROM attempt WHERE message_id = message.id
        )
    """)
    assert wrong == []


def check_i9_only_the_dead_are_recovered(lab: "Lab") -> None:
    """I9: every run that others found dead was killed by us."""
    died = {row[0] for row in lab.query("SELECT pid FROM run WHERE stopped = 'died'")}
    assert died <= lab.killed
    taken = lab.query("""
        SELECT old_run FROM lab_change JOIN run ON run.id = old_run
        WHERE old = 'sending' AND new_run IS NOT NULL AND new_run <> old_run
    """)
    assert taken == []


def check_i10_counters_equal_the_attempts(lab: "Lab") -> None:
    """I10: `failures` and `unknowns` are what the attempts say."""
    wrong = lab.query("""
        SELECT id, failures, unknowns FROM message
        WHERE failures <> (SELECT count(*) FROM attempt WHERE message_id = message.id
                           AND outcome IN ('temporary', 'rejected', 'server'))
           OR unknowns <> (SELECT count(*) FROM attempt WHERE message_id = message.id
                           AND outcome IN ('unknown', 'late_ok'))
    """)
    assert wrong == []


def check_i11_limits_are_kept(lab: "Lab", max_failures: int, max_unknown: int) -> None:
    """I11: no message is tried any more once it has reached a limit."""
    beyond = lab.query(
        """
        SELECT id, status, failures, unknowns FROM (
            SELECT *, failures - failures_forgiven AS failed, unknowns - unknowns_forgiven AS doubts
            FROM message
        ) WHERE failed > ? OR doubts > ? OR status = 'pending' AND (failed >= ? OR doubts >= ?)
        """,
        *(max_failures, max_unknown, max_failures, max_unknown),
    )
    assert beyond == []


def check_i12_summaries_are_true(lab: "Lab") -> None:
    """I12: what a run says it did is what changed, for every run that ended by itself."""
    runs = lab.query("""
        SELECT id, claimed, sent, failed, deferred, repeats FROM run
        WHERE ended_at IS NOT NULL AND stopped IS NOT 'died'
    """)
    changed = Counter[tuple[int, str, str]]()
    for run, old, new, count in lab.query(
        "SELECT coalesce(old_run, new_run), old, new, count(*) FROM lab_change GROUP BY 1, 2, 3"
    ):
        changed[run, old, new] = count
    repeats = dict(lab.query("SELECT run_id, count(*) FROM attempt WHERE number > 1 GROUP BY run_id"))
    late = dict(lab.query("SELECT run_id, count(*) FROM attempt WHERE outcome = 'late_ok' GROUP BY run_id"))
    for run, claimed, sent, failed, deferred, repeated in runs:
        was = Counter({new: changed[run, "sending", new] for new in ("sent", "failed", "pending")})
        told = (claimed, failed, deferred, repeated)
        assert told == (
            changed[run, "pending", "sending"],
            was["failed"],
            was["pending"],
            repeats.get(run, 0),
        )
        assert was["sent"] <= sent <= was["sent"] + late.get(run, 0), run
    check_ends_are_counted(lab)


def check_ends_are_counted(lab: "Lab") -> None:
    """Expired and unknown messages, over all runs: none is told twice; without deaths none is left out."""
    told = lab.query("SELECT sum(expired), sum(unknown) FROM run")[0]
    expired = "SELECT count(*) FROM lab_change WHERE new = 'expired'"
    unknown = "SELECT count(*) FROM lab_change WHERE new = 'unknown' AND reason NOT LIKE 'client %'"
    happened = [lab.number(expired), lab.number(unknown)]
    pairs = list(zip(told, happened, strict=True))
    assert all((said or 0) <= true for said, true in pairs), pairs
    assert lab.killed or all((said or 0) == true for said, true in pairs), pairs


def as_utc(stored: str) -> datetime:
    """A time as SQLite keeps it."""
    found = datetime.fromisoformat(stored)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def stored(moment: datetime) -> str:
    """A time as SQLite keeps it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"


def sent_everything(lab: "Lab") -> bool:
    return set(lab.statuses()) == {MessageStatus.SENT.value}


@dataclass(frozen=True)
class Spoken:
    """What a scripted gateway takes, and of which runs that is so."""

    first: int
    last: int
    takes: Callable[[int, int, str], bool]  # the id, the phone, the text


@dataclass(frozen=True)
class Toll:
    """What a scenario cost."""

    messages: int
    lost: int  # neither in a final state nor known to the gateway's ledger as it should be
    repeats: int
    unknown: int
    unexplained: int

    def __str__(self) -> str:
        return ", ".join(f"{value} {name}" for name, value in vars(self).items())


def toll(lab: "Lab") -> Toll:
    """Count what became of everything."""
    accepted, doubts = lab.accepted(), unknown_attempts(lab)
    finals = lab.query("SELECT id, status FROM message WHERE status NOT IN ('pending', 'sending')")
    statuses = lab.statuses()
    total = sum(statuses.values())
    never_taken = sum(status == "sent" and not accepted[id] for id, status in finals)
    return Toll(
        messages=total,
        lost=total - len(finals) + never_taken,
        repeats=sum(times - 1 for times in accepted.values()),
        unknown=statuses.get("unknown", 0),
        unexplained=sum(max(0, times - 1 - doubts[id]) for id, times in accepted.items()),
    )
