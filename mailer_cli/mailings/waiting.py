"""What an idle run leaves waiting, and for what: a few sums over the open mailings, asked of no message."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, func, or_, select
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.models import Mailing, MailingTurn, Tally

_IS_PAUSED = col(Mailing.paused_at).is_not(None)
_NEW = col(Mailing.fixed_at).is_(None)  # nobody has a message of it yet
_KIND = case(
    (_NEW & _IS_PAUSED, "new and paused"),
    (_NEW, "new"),
    (_IS_PAUSED, "paused"),
    (col(Mailing.next_due_at) >= col(Mailing.end_at), "never"),
    else_="later",
)


@dataclass(frozen=True)
class Waiting:
    """Messages that wait, and mailings that have not begun. `opens_at` is when the first of those later
    may go, so far as somebody has looked."""

    later: int = 0
    opens_at: datetime | None = None
    paused: int = 0
    never: int = 0  # their mailings end first
    new: int = 0
    starts_at: datetime | None = None
    new_paused: int = 0


def waiting(connection: Connection, now: datetime, only: int | None = None) -> Waiting:
    """Of one mailing or of all that are open."""
    sleeps = (col(Mailing.turn) != MailingTurn.NOW.value) & (col(Mailing.next_due_at) > now)
    statement = (
        select(
            _KIND.label("kind"),
            func.count(),
            func.coalesce(func.sum(col(Tally.messages)), 0),
            func.min(case((sleeps, col(Mailing.next_due_at))), type_=UTCDateTime()),
            func.min(col(Mailing.start_at), type_=UTCDateTime()),
        )
        .join(
            Tally, (col(Tally.mailing_id) == col(Mailing.id)) & (col(Tally.status) == "pending"), isouter=True
        )
        .where(
            col(Mailing.end_at) > now,
            col(Mailing.cancelled_at).is_(None),
            col(Mailing.removed_at).is_(None),
            or_(_NEW, col(Tally.messages) > 0),
            *([] if only is None else [col(Mailing.id) == only]),
        )
        .group_by("kind")
    )
    found = {kind: rest for kind, *rest in connection.execute(statement)}
    none: tuple[Any, ...] = (0, 0, None, None)
    new, _, _, starts_at = found.get("new", none)
    _, later, opens_at, _ = found.get("later", none)
    return Waiting(
        later=later,
        opens_at=opens_at,
        paused=found.get("paused", none)[1],
        never=found.get("never", none)[1],
        new=new,
        starts_at=starts_at,
        new_paused=found.get("new and paused", none)[0],
    )
