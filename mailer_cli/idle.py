"""The cron minute in which nothing is due, seen without what a run needs: SQL in plain text over the driver.

Beside `database` the only module that knows the dialect. It may say "not surely" too often, for then the
dispatcher looks itself; it never says "surely" when that would find something.
"""

import os
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from mailer_cli import SCHEMA, belief
from mailer_cli.belief import Boot

NOTHING_TO_DO = "nothing to do"

FARTHEST = timedelta(seconds=1350)  # a message waits no longer for a repeat; see `decide`

LATELY = 9  # runs; those before say nothing of the clock of now

GOING = "paused_at IS NULL AND cancelled_at IS NULL AND removed_at IS NULL"
WAITS = "EXISTS (SELECT 1 FROM message WHERE message.mailing_id = mailing.id AND status = 'pending')"
HAS_WORK = f"""
    SELECT EXISTS (SELECT 1 FROM run WHERE ended_at IS NULL)
        OR EXISTS (SELECT 1 FROM attempt WHERE outcome IS NULL)
        OR EXISTS (SELECT 1 FROM mailing
            WHERE fixed_at IS NULL AND {GOING} AND start_at <= :now AND end_at > :now)
        OR EXISTS (SELECT 1 FROM mailing WHERE turn IS NOT NULL AND end_at <= :now AND {WAITS})
        OR EXISTS (SELECT 1 FROM mailing
            WHERE turn IS NOT NULL AND (cancelled_at IS NOT NULL OR removed_at IS NOT NULL) AND {WAITS})
        OR EXISTS (SELECT 1 FROM mailing INDEXED BY mailing_ring
            WHERE turn = 'now' AND {GOING} AND start_at <= :now)
        OR EXISTS (SELECT 1 FROM mailing INDEXED BY mailing_sleepers
            WHERE turn = 'held' AND turn <> 'now' AND {GOING} AND start_at <= :now)
        OR EXISTS (SELECT 1 FROM mailing INDEXED BY mailing_sleepers
            WHERE turn = 'later' AND turn <> 'now' AND next_due_at <= :now AND {GOING})
        OR EXISTS (SELECT 1 FROM gateway CROSS JOIN mailing
            WHERE looked_at > :now AND turn IS NOT NULL AND {GOING} AND start_at <= :now AND end_at > :now)
        OR EXISTS (SELECT 1 FROM notice WHERE subject = 'unknown zones')
        OR EXISTS (SELECT 1 FROM (
                SELECT coalesce(ended_at, started_at) AS seen_at FROM run ORDER BY id DESC LIMIT {LATELY}
            ) CROSS JOIN mailing CROSS JOIN tally
            WHERE seen_at > :now AND tally.mailing_id = mailing.id AND status IN ('expired', 'unknown')
              AND messages > 0 AND end_at > :now AND cancelled_at IS NULL AND removed_at IS NULL)
"""  # noqa: S608  no word of it comes from outside

WAITS_LATER = """
    SELECT EXISTS (SELECT 1 FROM mailing
        WHERE (fixed_at IS NULL OR turn IS NOT NULL)
          AND end_at > :now AND cancelled_at IS NULL AND removed_at IS NULL)
"""


def lock_of(path: Path) -> Path:
    """The lock file of a database, beside the file itself: a symbolic link must not lead to a second one."""
    real = path.resolve()
    return real.with_name(real.name + ".lock")


def beat_if_idle(path: Path, now: datetime, boot: Boot | None = None, *, or_later: bool = False) -> bool:
    """Whether surely nothing is due, nor anything later if that is asked; a dispatch was at work then, and
    that is all it leaves behind. By a clock that is doubted nothing is sure.

    Waits for no lock and takes no write lock. Raises: sqlite3.Error, OSError; nothing is known then.
    """
    if path.stat().st_nlink > 1:
        return False  # the command says why
    # not read-only: an empty WAL would be left behind
    address = f"file://{quote(str(path.absolute()))}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, timeout=0, isolation_level=None)) as raw:
        raw.execute("BEGIN")
        known = raw.execute("SELECT version_num FROM alembic_version").fetchall() == [(SCHEMA,)]
        asked = [HAS_WORK, WAITS_LATER] if or_later else [HAS_WORK]
        has_work = not known or any(raw.execute(each, {"now": _stored(now)}).fetchone()[0] for each in asked)
    if has_work:
        return False
    lock = os.open(lock_of(path), os.O_RDWR | os.O_CLOEXEC)
    try:
        if belief.ahead(lock, now, boot) is not None:
            return False
        os.utime(lock)
    finally:
        os.close(lock)
    return True


def _stored(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}"
