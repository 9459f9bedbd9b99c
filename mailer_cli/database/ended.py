"""How the newest runs have ended, for whoever asks without the tables' classes."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mailer_cli.database.engine import Database
from mailer_cli.errors import MailerError

GOOD = ("time_up", "signal", "died")  # the last is the next run's to mend
LATER = timedelta(seconds=30)  # a beat so long after a run's end is another's, which had nothing to do

_NEWEST = "SELECT id, ended_at, stopped FROM run WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT 1"
_SINCE = """
    SELECT min(started_at), max(ended_at IS NULL) FROM run WHERE id > coalesce((
        SELECT max(id) FROM run
        WHERE ended_at IS NOT NULL AND (stopped IS NULL OR stopped IN ('time_up', 'signal', 'died'))), 0)
"""


@dataclass(frozen=True)
class BadEnd:
    """Why the newest run ended badly, and since when each has."""

    reason: str
    since: datetime


def bad_end(database: Database, beaten_at: datetime | None) -> BadEnd | None:
    """None when it ended well, when there is none, and when a later run has found nothing to do."""
    with suppress(MailerError), database.read() as connection:
        newest = connection.exec_driver_sql(_NEWEST).first()
        if newest is None or newest.stopped is None or newest.stopped in GOOD:
            return None
        since, is_at_work = connection.exec_driver_sql(_SINCE).one()
        if beaten_at and beaten_at - _moment(newest.ended_at) > LATER and not is_at_work:
            return None
        return BadEnd(newest.stopped, _moment(since))
    return None


def _moment(stored: str) -> datetime:
    return datetime.fromisoformat(stored).replace(tzinfo=UTC)
