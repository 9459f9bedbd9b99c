"""Whom the gateway's faults belong to: kept in the database, a row for each scope that has failed since its
last OK, so none as long as all is well."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, not_, or_, select
from sqlmodel import col

from mailer_cli.models import Fault, Mailing
from mailer_cli.outbox.wary import Blame, Scope

FORGOTTEN = timedelta(days=1)  # after the last fault

_ROWS = select(
    col(Fault.mailing_id),
    col(Fault.operator_code),
    col(Fault.faults),
    col(Fault.since_at),
    col(Fault.failed_at),
)


def read(connection: Connection) -> dict[Scope, Blame]:
    return {
        (mailing_id, operator): Blame(faults, since_at, failed_at)
        for mailing_id, operator, faults, since_at, failed_at in connection.execute(_ROWS)
    }


def write(connection: Connection, before: Mapping[Scope, Blame], after: Mapping[Scope, Blame]) -> None:
    """Store what has changed."""
    for mailing_id, operator in [scope for scope, blame in before.items() if after.get(scope) != blame]:
        mine = (col(Fault.mailing_id) == mailing_id, col(Fault.operator_code) == operator)
        connection.execute(delete(Fault).where(*mine))
    rows = [
        {"mailing_id": scope[0], "operator_code": scope[1], **vars(blame)}
        for scope, blame in after.items()
        if before.get(scope) != blame
    ]
    if rows:
        connection.execute(insert(Fault), rows)


def forget(connection: Connection, now: datetime) -> None:
    """Delete what says nothing any more: of mailings that are over, too old, or by a clock that was ahead."""
    alive = select(col(Mailing.id)).where(col(Mailing.end_at) > now, col(Mailing.cancelled_at).is_(None))
    is_over = (col(Fault.mailing_id) > 0) & not_(col(Fault.mailing_id).in_(alive))
    is_old = not_(col(Fault.failed_at).between(now - FORGOTTEN, now))
    connection.execute(delete(Fault).where(or_(is_over, is_old)))
