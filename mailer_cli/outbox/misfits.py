"""Rows that stop a run, found when one has: each is set aside, so that it costs itself and nothing else.

A message becomes `failed`, or `unknown` where it may have been taken; a mailing is paused; a tally and the
gateway's state are made anew. The rest of the row is left as it is, for whoever wants to mend it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Table, case, delete, exists, insert, or_, text, update
from sqlalchemy.exc import IntegrityError, NoResultFound
from sqlmodel import SQLModel, col

from mailer_cli.database.fit import misfits, unchecked
from mailer_cli.database.rows import numbers, packed_numbers
from mailer_cli.errors import DamagedRow
from mailer_cli.models import Attempt, GatewayState, Mailing, Message, MessageStatus, Outcome, Wording
from mailer_cli.outbox.number import doubtful

SIGNS = (DamagedRow, IntegrityError, NoResultFound, ValueError, TypeError, LookupError, ArithmeticError)
"""How a row that cannot be what it is shows itself; so does a bug of ours, but then no row is found."""

RATE = "rate IS NULL OR rate BETWEEN 0.0001 AND 100000"
MESSAGE = {
    "no client": "EXISTS (SELECT 1 FROM client WHERE client.id = message.client_id)",
    "phone": """
        EXISTS (SELECT 1 FROM client WHERE client.id = message.client_id AND (
            removed_at IS NOT NULL OR typeof(coalesce(message.phone, client.phone)) = 'integer'
            AND coalesce(message.phone, client.phone) BETWEEN 70000000000 AND 79999999999
        ))
    """,
    "attempts": "NOT EXISTS (SELECT 1 FROM attempt WHERE message_id = message.id AND number > attempts)",
}


@dataclass(frozen=True)
class Misfit:
    """What was set aside, and for what."""

    what: str  # "message 12"
    why: str


def set_aside(connection: Connection, dead: Sequence[int], now: datetime) -> list[Misfit]:
    """Set aside what would stop a run; none when there is no such row. Repeating is safe.

    Of what is in flight only what the `dead` runs owned. Needs a write transaction.
    """
    with unchecked(connection):
        unreadable = {each for each, _ in misfits(connection, _table(Wording))}
        found = _mailings(connection, unreadable, now) + _messages(connection, unreadable, dead, now)
        return found + _tallies(connection) + _gateway(connection)


def _table(model: type[SQLModel]) -> Table:
    return SQLModel.metadata.tables[str(model.__tablename__)]


def _wording(unreadable: set[int]) -> str:
    bad = ", ".join(map(str, unreadable)) or "0"
    there = f"EXISTS (SELECT 1 FROM wording WHERE wording.id = wording_id AND id NOT IN ({bad}))"  # noqa: S608
    return f"wording_id IS NULL OR {there}"


def _mailings(connection: Connection, unreadable: set[int], now: datetime) -> list[Misfit]:
    going = "paused_at IS NULL AND cancelled_at IS NULL AND removed_at IS NULL AND purged_at IS NULL"
    more = {"text": _wording(unreadable), "rate": RATE}
    found = list(misfits(connection, _table(Mailing), going, more))
    for mailing_id, _ in found:
        connection.execute(update(Mailing).where(col(Mailing.id) == mailing_id).values(paused_at=now))
    return [Misfit(f"mailing {mailing_id}", why) for mailing_id, why in found]


def _messages(
    connection: Connection, unreadable: set[int], dead: Sequence[int], now: datetime
) -> list[Misfit]:
    owners = ", ".join(str(each) for each in dead if isinstance(each, int)) or "NULL"
    open_ = f"status = 'pending' OR status = 'sending' AND run_id IN ({owners})"
    more = MESSAGE | {"text": _wording(unreadable)}
    alike = defaultdict(list)
    for message_id, why in misfits(connection, _table(Message), open_, more):
        alike[why].append(message_id)
    for why, ids in alike.items():
        _end(connection, packed_numbers(ids), f"damaged: {why}", now)
    return [Misfit(f"message {each}", why) for why, ids in alike.items() for each in ids]


def _end(connection: Connection, ids: str, reason: str, now: datetime) -> None:
    which = col(Message.id).in_(numbers("ids"))
    in_flight = exists().where(col(Attempt.message_id) == col(Message.id), col(Attempt.outcome).is_(None))
    doubted = or_(doubtful(), in_flight)
    ended = {
        "status": case((doubted, MessageStatus.UNKNOWN.value), else_=MessageStatus.FAILED.value),
        "reason": reason,
        "run_id": None,
        "sent_at": None,
    }
    connection.execute(update(Message).where(which).values(ended), {"ids": ids})
    over = update(Attempt).where(col(Attempt.message_id).in_(numbers("ids")), col(Attempt.outcome).is_(None))
    lost = {"ended_at": now, "outcome": Outcome.UNKNOWN.value, "error": "run died"}
    connection.execute(over.values(lost), {"ids": ids})


_WRONG = text("""
    WITH unfinished (id) AS (
        SELECT mailing_id FROM tally WHERE status IN ('pending', 'sending') AND messages <> 0
    )
    SELECT mailing_id FROM (
        SELECT mailing_id, status, count(*) AS messages FROM message
        WHERE mailing_id IN (SELECT id FROM unfinished) GROUP BY mailing_id, status
        UNION ALL
        SELECT mailing_id, status, -messages FROM tally WHERE mailing_id IN (SELECT id FROM unfinished)
    ) AS both_sides GROUP BY mailing_id, status HAVING sum(messages) <> 0
""")
_RECOUNT = text("""
    UPDATE tally SET messages = (
        SELECT count(*) FROM message WHERE mailing_id = tally.mailing_id AND status = tally.status
    ) WHERE mailing_id = :mailing
""")


def _tallies(connection: Connection) -> list[Misfit]:
    wrong = sorted(set(connection.execute(_WRONG).scalars()))
    for mailing_id in wrong:
        connection.execute(_RECOUNT, {"mailing": mailing_id})
    return [Misfit(f"the tally of mailing {mailing_id}", "messages") for mailing_id in wrong]


def _gateway(connection: Connection) -> list[Misfit]:
    found = [why for _, why in misfits(connection, _table(GatewayState))]
    there = connection.exec_driver_sql("SELECT count(*) FROM gateway").scalar_one()
    if there == 1 and not found:
        return []
    connection.execute(delete(GatewayState))
    connection.execute(insert(GatewayState).values(GatewayState().model_dump()))
    return [Misfit("the gateway's state", ", ".join(found) or "rows")]
