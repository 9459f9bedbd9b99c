"""Rows for tests that read: mailings whose messages are where a test wants them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, text

from mailer_cli.database import Database
from mailer_cli.models import Attempt, Client, Mailing, Message, Run, Wording

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def add_mailing(database: Database, **changed: object) -> int:
    """A mailing that runs now, with its audience fixed; its id."""
    now = datetime.now(UTC)
    values: dict[str, object] = {
        "start_at": now - timedelta(hours=1),
        "end_at": now + timedelta(hours=1),
        "operator_codes": (),
        "tags": (),
        "everyone": True,
        "priority": 0,
        "fixed_at": now,
        "created_at": now,
        "updated_at": now,
    }
    with database.write() as connection:
        worded = {"text": changed.pop("text", "Hello")}
        wording = connection.execute(insert(Wording).values(worded)).inserted_primary_key[0]
        made = connection.execute(insert(Mailing).values({**values, "wording_id": wording, **changed}))
        return int(made.inserted_primary_key[0])


def add_client(database: Database, phone: int, **changed: object) -> int:
    values: dict[str, object] = {
        "phone": phone,
        "operator_code": str(phone)[1:4],
        "tag": "",
        "timezone": "UTC",
        "created_at": NOON,
        "updated_at": NOON,
    }
    with database.write() as connection:
        return int(connection.execute(insert(Client).values({**values, **changed})).inserted_primary_key[0])


def add_message(
    database: Database, mailing_id: int, client_id: int, status: str = "pending", **changed: object
) -> int:
    """A message in this status, and the tally and its mailing's turn with it; what was tried has a phone and
    its wording."""
    values: dict[str, object] = {
        "mailing_id": mailing_id,
        "client_id": client_id,
        "status": status,
        "timezone": "UTC",
        "created_at": NOON,
        "due_at": NOON,
        "sent_at": NOON if status == "sent" else None,
        "run_id": add_run(database) if status == "sending" else None,
    }
    with database.write() as connection:
        made = connection.execute(insert(Message).values({**values, **changed})).inserted_primary_key[0]
        connection.execute(
            text("UPDATE tally SET messages = messages + 1 WHERE mailing_id = :mailing AND status = :status"),
            {"mailing": mailing_id, "status": status},
        )
        if status == "pending":
            connection.execute(_WAKE, {"mailing": mailing_id})
        return int(made)


_WAKE = text("UPDATE mailing SET turn = 'now', next_due_at = start_at WHERE id = :mailing")


def add_messages(database: Database, mailing_id: int, wanted: Mapping[str, int]) -> list[int]:
    """So many messages in each status, each to a client of its own; their ids."""
    with database.read() as connection:
        known = connection.execute(text("SELECT count(*) FROM client")).scalar_one()
    statuses = [status for status, number in wanted.items() for _ in range(number)]
    return [
        add_message(database, mailing_id, add_client(database, 79160000000 + known + place), status)
        for place, status in enumerate(statuses)
    ]


def add_run(database: Database) -> int:
    with database.write() as connection:
        made = connection.execute(insert(Run).values(host="here", pid=1, started_at=NOON))
        return int(made.inserted_primary_key[0])


def add_attempt(database: Database, message_id: int, number: int, **changed: object) -> None:
    values = {"message_id": message_id, "number": number, "run_id": add_run(database), "started_at": NOON}
    with database.write() as connection:
        connection.execute(insert(Attempt).values({**values, **changed}))
