"""Leave to begin: what is true now of messages that were claimed and whose requests have not begun."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, select
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.database.rows import numbers, packed_numbers
from mailer_cli.models import Client, Mailing, Message, MessageStatus
from mailer_cli.outbox.claim import Claimed
from mailer_cli.outbox.number import unwanted
from mailer_cli.times import Window, is_known


@dataclass(frozen=True, slots=True)
class Leave:
    """That a request may begin, and what binds it now."""

    deadline: datetime  # the mailing's end or the window's closing
    rate: float | None  # the mailing's own


def leaves(
    connection: Connection, run_id: int, claimed: Collection[Claimed], now: datetime
) -> dict[int, Leave]:
    """Which of these messages may go just as they were claimed, by their ids. One statement, for a few.

    Not those whose mailing was stopped or has ended, whose window has closed, whose client is unwanted; nor,
    as long as nobody can have got it, one with another phone or text than a claim would give it now.
    """
    if not claimed:
        return {}
    doubtful = {each.message_id for each in claimed if each.doubtful}
    given = {"ids": packed_numbers(each.message_id for each in claimed), "run": run_id, "now": now}
    found = connection.execute(_STILL_WANTED, given).all()
    deadlines = {row.id: _deadline(row, now) for row in found if row.is_same or row.id in doubtful}
    return {
        row.id: Leave(deadline, row.rate) for row in found if (deadline := deadlines.get(row.id)) is not None
    }


_STILL_WANTED: Select[*tuple[Any, ...]] = (
    select(
        col(Message.id),
        col(Message.timezone),
        col(Mailing.end_at),
        col(Mailing.window_from),
        col(Mailing.window_to),
        col(Mailing.rate),
        (
            (col(Message.phone) == col(Client.phone)) & (col(Message.wording_id) == col(Mailing.wording_id))
        ).label("is_same"),
    )
    .join(Mailing, col(Mailing.id) == col(Message.mailing_id))
    .join(Client, col(Client.id) == col(Message.client_id))
    .where(
        col(Message.id).in_(numbers("ids")),
        col(Message.status) == MessageStatus.SENDING.value,
        col(Message.run_id) == bindparam("run"),
        col(Mailing.paused_at).is_(None),
        col(Mailing.cancelled_at).is_(None),
        col(Mailing.removed_at).is_(None),
        col(Mailing.start_at) <= bindparam("now", type_=UTCDateTime()),
        col(Mailing.end_at) > bindparam("now", type_=UTCDateTime()),
        ~unwanted(),
    )
)


def _deadline(row: Row[*tuple[Any, ...]], now: datetime) -> datetime | None:
    """None when the window is closed."""
    end_at: datetime = row.end_at
    if row.window_from is None:
        return end_at
    window = Window(row.window_from, row.window_to)
    if not is_known(row.timezone) or not window.is_open(row.timezone, now):
        return None
    return min(end_at, window.closes_at(row.timezone, now))
