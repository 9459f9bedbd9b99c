"""A small database with a message in every state, written as the rows themselves."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, insert, select
from sqlmodel import col

from mailer_cli import audience
from mailer_cli.database import Database
from mailer_cli.models import Attempt, Client, Mailing, Message, Outcome, Run, Wording

NOW = datetime.now(UTC)


def mailing(connection: Connection, mailing_id: int, *, fixed: bool = True, **changed: object) -> None:
    """A mailing to everybody that has begun an hour ago and ends in another."""
    if connection.execute(select(col(Wording.id))).first() is None:
        connection.execute(insert(Wording).values(id=1, text="hello"))
    row: dict[str, object] = {
        "id": mailing_id,
        "wording_id": 1,
        "start_at": NOW - timedelta(hours=1),
        "end_at": NOW + timedelta(hours=1),
        "operator_codes": (),
        "tags": (),
        "everyone": True,
        "priority": 0,
        "created_at": NOW,
        "updated_at": NOW,
    }
    connection.execute(insert(Mailing).values(row | changed))
    if fixed:
        audience.fix(connection, mailing_id, NOW)


def clients(connection: Connection, count: int) -> None:
    rows = [
        {
            "phone": 79160000000 + number,
            "operator_code": "916",
            "tag": "",
            "timezone": "Europe/Moscow",
            "created_at": NOW,
            "updated_at": NOW,
        }
        for number in range(count)
    ]
    connection.execute(insert(Client), rows)


def attempt(connection: Connection, message_id: int, run_id: int, outcome: Outcome | None) -> None:
    """The first attempt of a message, open or ended, and what it does to the message."""
    ended_at = NOW if outcome else None
    connection.execute(
        insert(Attempt).values(
            message_id=message_id, number=1, run_id=run_id, started_at=NOW, ended_at=ended_at, outcome=outcome
        )
    )
    status = {None: "sending", Outcome.OK: "sent", Outcome.UNKNOWN: "unknown"}[outcome]
    connection.exec_driver_sql(
        "UPDATE message SET status = ?, attempts = 1, wording_id = 1, run_id = ?,"
        " phone = (SELECT phone FROM client WHERE id = client_id), sent_at = ?, unknowns = ? WHERE id = ?",
        (
            status,
            None if outcome else run_id,
            NOW.isoformat(" ").split("+")[0] if status == "sent" else None,
            int(outcome == Outcome.UNKNOWN),
            message_id,
        ),
    )


def a_campaign(database: Database) -> dict[str, int]:
    """Mailing 1 with a message that was sent, one in flight, one unknown and two that wait; run 1 has not
    ended. The ids of the messages by what they are."""
    with database.write() as connection:
        clients(connection, 5)
        mailing(connection, 1)
        connection.execute(insert(Run).values(id=1, host="here", pid=1, started_at=NOW))
        ids = connection.execute(select(col(Message.id)).order_by(col(Message.id))).scalars().all()
        attempt(connection, ids[0], 1, Outcome.OK)
        attempt(connection, ids[1], 1, None)
        attempt(connection, ids[2], 1, Outcome.UNKNOWN)
    return dict(zip(("sent", "in flight", "unknown", "waits", "waits too"), ids, strict=True))


def statuses(database: Database) -> dict[int, str]:
    with database.read() as connection:
        rows = connection.execute(select(col(Message.id), col(Message.status)))
        return {row.id: str(row.status) for row in rows}
