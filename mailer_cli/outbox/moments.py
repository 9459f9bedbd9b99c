"""New moments for requests that have missed theirs: what is repeated, and what a stall has made late, passes
the same pace as everybody else."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select, update
from sqlmodel import col

from mailer_cli.database.rows import numbers, packed_numbers
from mailer_cli.models import GatewayState, Mailing
from mailer_cli.outbox.pace import AT_ONCE, Lead, Pace


def renew(
    connection: Connection,
    late: Sequence[tuple[int, int]],
    rate: float | None,
    now: datetime,
    lead: Lead = AT_ONCE,
) -> dict[int, datetime]:
    """When each of these messages, given with its mailing, may start; those are left out for which the rates
    have no moment soon. `rate` is that of all mailings together.

    Needs the write transaction of the next claim, and comes before it.
    """
    if not late:
        return {}
    rows = connection.execute(_RATES, {"ids": packed_numbers({mailing for _, mailing in late})}).all()
    paces = {row.id: Pace(row.rate, row.next_free_at, now, lead) for row in rows}
    free_at = connection.execute(select(col(GatewayState.next_free_at))).scalar_one()
    shared, moments = Pace(rate, free_at, now, lead), dict[int, datetime]()
    for message_id, mailing_id in late:
        pace = paces[mailing_id]
        if pace.is_free and shared.is_free:
            moments[message_id] = moment = max(pace.moment, shared.moment)
            pace.take(moment)
            shared.take(moment)
    _advance(connection, paces, shared)
    return moments


_RATES: Select[*tuple[Any, ...]] = select(
    col(Mailing.id), col(Mailing.rate), col(Mailing.next_free_at)
).where(col(Mailing.id).in_(numbers("ids")))


def _advance(connection: Connection, paces: Mapping[int, Pace], shared: Pace) -> None:
    """Store how far the rates are used up."""
    for mailing_id, pace in paces.items():
        if pace.rate is not None and pace.taken:
            mine = update(Mailing).where(col(Mailing.id) == mailing_id)
            connection.execute(mine.values(next_free_at=pace.moment))
    if shared.rate is not None and shared.taken:
        connection.execute(update(GatewayState).values(next_free_at=shared.moment))
