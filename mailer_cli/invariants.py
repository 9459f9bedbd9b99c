"""What must be true of the database by itself, each rule a query (I5, I8, I10 of docs/dispatch)."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, text
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.database import Database, files
from mailer_cli.database.engine import Unreadable
from mailer_cli.database.fit import misfits
from mailer_cli.findings import Finding, broken, damaged, failure, ok
from mailer_cli.models import FAILURES, UNKNOWNS, Outcome
from mailer_cli.plural import agree, counted

SHOWN = 10


@dataclass(frozen=True)
class Invariant:
    """A rule, and a query that counts what breaks it."""

    name: str
    rule: str
    violations: str


INVARIANTS = (
    Invariant(
        "tally",
        "the counts of each mailing equal its messages, or those that it had before it was purged",
        """
        SELECT count(*) FROM (
            SELECT mailing_id, status FROM (
                SELECT mailing_id, status, count(*) AS messages FROM message GROUP BY mailing_id, status
                UNION ALL
                SELECT mailing_id, status, -messages FROM tally
            ) AS both_sides
            GROUP BY mailing_id, status
            HAVING sum(messages) > 0 OR sum(messages) < 0
               AND mailing_id NOT IN (SELECT id FROM mailing WHERE purged_at IS NOT NULL)
        ) AS differing
        """,
    ),
    Invariant(
        "purged",
        "nothing of a purged mailing waits or is being sent",
        """
        SELECT count(*) FROM tally JOIN mailing ON mailing.id = tally.mailing_id
        WHERE purged_at IS NOT NULL AND status IN ('pending', 'sending') AND messages > 0
        """,
    ),
    Invariant(
        "turns",
        "a mailing of which something waits has a turn, and no later one than the first of that may go",
        """
        SELECT count(*) FROM (
            SELECT mailing.*, looked_at, (
                SELECT min(due_at) FROM message WHERE mailing_id = mailing.id AND status = 'pending'
            ) AS first_due_at
            FROM mailing, gateway
        ) AS waiting
        WHERE first_due_at IS NOT NULL AND (
            turn IS NULL OR turn NOT IN ('now', 'held', 'later') OR next_due_at IS NULL
            OR (turn = 'later' AND next_due_at >= '9998-01-01' AND end_at > datetime(looked_at, '+3 seconds'))
            OR (turn = 'later' AND next_due_at < '9998-01-01' AND window_from IS NULL
                AND next_due_at > first_due_at AND next_due_at > start_at)
        )
        """,
    ),
    Invariant(
        "owner",
        "what is being sent is owned by a run that has not ended",
        """
        SELECT count(*) FROM message LEFT JOIN run ON run.id = message.run_id
        WHERE (message.status = 'sending') <> (run.id IS NOT NULL)
           OR (message.status = 'sending' AND run.ended_at IS NOT NULL)
        """,
    ),
    Invariant(
        "in flight",
        "what is being sent has one open attempt, its latest",
        """
        SELECT count(*) FROM message WHERE status = 'sending' AND (
            SELECT count(*) || ' ' || max(number) FROM attempt
            WHERE message_id = message.id AND outcome IS NULL
        ) IS NOT '1 ' || attempts
        """,
    ),
    Invariant(
        "sent",
        "a message is sent exactly when an attempt was accepted, or an operator said so",
        """
        SELECT count(*) FROM message WHERE (status = 'sent') <> (
            EXISTS (SELECT 1 FROM attempt WHERE message_id = message.id AND outcome IN :accepted)
            OR EXISTS (SELECT 1 FROM resolution WHERE message_id = message.id AND status = 'sent')
        )
        """,
    ),
    Invariant(
        "counters",
        "the counters of each message equal its attempts",
        """
        SELECT count(*) FROM message WHERE (attempts, failures, unknowns) <> (
            SELECT count(*),
                   count(CASE WHEN outcome IN :failures THEN 1 END),
                   count(CASE WHEN outcome IN :unknowns THEN 1 END)
            FROM attempt WHERE message_id = message.id
        )
        """,
    ),
)

WORDS = {
    "accepted": [each for each in Outcome if each.is_ok],
    "failures": list(FAILURES),
    "unknowns": list(UNKNOWNS),
}

OVERDUE = text("""
    SELECT coalesce(sum(tally.messages), 0) FROM tally JOIN mailing ON mailing.id = tally.mailing_id
    WHERE tally.status IN ('pending', 'sending') AND tally.messages > 0 AND mailing.end_at <= :now
""").bindparams(bindparam("now", type_=UTCDateTime()))


def check(database: Database, now: datetime) -> Iterator[Finding]:
    """The file first, then its content, as both are at one moment; a dispatch goes on meanwhile."""
    try:
        with files.at_one_moment(database) as still:
            yield from _check_file(still)
            yield _check_rows(still)
            yield from (_check_rule(still, each) for each in INVARIANTS)
            yield _overdue(still, now)
    except Unreadable as error:
        yield failure("file", error)


def _check_file(database: Database) -> Iterator[Finding]:
    found = files.damage(database, thorough=True)
    hint = "mailer db restore FILE"
    yield damaged("file", f"damaged: {found[0]}", hint) if found else ok("file", "the file is sound")
    lost = files.broken_references(database)
    yield (
        damaged(
            "references",
            f"{counted(lost, 'row')} {agree(lost, 'refers', 'refer')} to rows that are not there",
            hint,
        )
        if lost
        else ok("references", "every row refers to rows that are there")
    )


def _check_rows(database: Database) -> Finding:
    """The columns' types and the CHECKs, which SQLite does not ask of what is there already."""
    found: list[str] = []
    for name, table in SQLModel.metadata.tables.items():
        with database.read() as connection:
            some = itertools.islice(misfits(connection, table), SHOWN + 1)
            found += [f"{name} {key}: {why}" for key, why in some]
    if not found:
        return ok("rows", "every row is what its table says")
    more = " and more" if len(found) > SHOWN else ""
    return damaged("rows", f"damaged: {'; '.join(found[:SHOWN])}{more}", "mailer db restore FILE")


def _check_rule(database: Database, rule: Invariant) -> Finding:
    used = {name: words for name, words in WORDS.items() if f":{name}" in rule.violations}
    query = text(rule.violations).bindparams(*(bindparam(name, expanding=True) for name in used))
    with database.read() as connection:
        count = connection.execute(query, used).scalar_one()
    if count:
        return broken(
            rule.name, f"{counted(count, 'time')} it is not so that {rule.rule}", "please report it"
        )
    return ok(rule.name, rule.rule)


def _overdue(database: Database, now: datetime) -> Finding:
    """I2 as of now: not broken as long as no run has had the time to end them."""
    with database.read() as connection:
        count = connection.execute(OVERDUE, {"now": now}).scalar_one()
    if count:
        return ok(
            "ended",
            f"{counted(count, 'message')} of ended mailings {agree(count, 'is', 'are')} left"
            " for the next dispatch to end",
        )
    return ok("ended", "no ended mailing has messages that wait")
