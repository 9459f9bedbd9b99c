"""Waiting for a zone that this machine does not know: nobody can tell when a window is open there."""

from collections import Counter
from datetime import datetime

from sqlalchemy import BigInteger, Connection, Text, bindparam, func, select, text
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.models import Message
from mailer_cli.outbox.close import PENDING
from mailer_cli.times import is_known

_ZONES = text("""
    WITH RECURSIVE zone (mailing_id, name) AS (
        SELECT id, (SELECT min(timezone) FROM message WHERE mailing_id = mailing.id AND status = 'pending')
        FROM mailing
        WHERE turn IS NOT NULL AND window_from IS NOT NULL AND paused_at IS NULL
          AND cancelled_at IS NULL AND removed_at IS NULL AND start_at <= :now AND end_at > :now
          AND id = coalesce(:only, id)
        UNION ALL
        SELECT mailing_id, (
            SELECT min(timezone) FROM message
            WHERE mailing_id = zone.mailing_id AND status = 'pending' AND timezone > zone.name
        )
        FROM zone WHERE zone.name IS NOT NULL
    )
    SELECT mailing_id, name FROM zone WHERE name IS NOT NULL
""").bindparams(bindparam("now", type_=UTCDateTime()))
_ZONES_OF_ALL = _ZONES.columns(mailing_id=BigInteger(), name=Text())  # a few seeks a mailing, as in `choose`
_WAITING = select(func.count()).where(
    col(Message.mailing_id) == bindparam("mailing"), PENDING, col(Message.timezone) == bindparam("zone")
)


def unknown_zones(connection: Connection, now: datetime, only: int | None = None) -> Counter[str]:
    """Zones that are not known here, each with how many messages wait for it: those of mailings with a
    window that run now. All others are served."""
    found = Counter[str]()
    for mailing_id, zone in connection.execute(_ZONES_OF_ALL, {"now": now, "only": only}).all():
        if not is_known(zone):
            found[zone] += connection.execute(_WAITING, {"mailing": mailing_id, "zone": zone}).scalar_one()
    return found
