"""What an operator does to a mailing that is there: pause, resume, cancel, remove; more clients, another try.

Whoever steers several steers all or none: the first that cannot be is an error, and nothing is done. Living
runs look at these marks before every request.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, update
from sqlmodel import col

from mailer_cli import audience, outbox
from mailer_cli.audience import Added
from mailer_cli.database.rows import these
from mailer_cli.errors import Refused
from mailer_cli.mailings.overview import REFUSED_RUNS, Overview, find, overviews
from mailer_cli.models import Mailing, MailingStatus, Message, MessageStatus
from mailer_cli.outbox import Retried

GOING = (MailingStatus.SCHEDULED, MailingStatus.RUNNING)
OPEN = (*GOING, MailingStatus.PAUSED)


def pause(connection: Connection, mailing_ids: Sequence[int] | None, now: datetime) -> list[Overview]:
    """Let these sleep, or with None all that are scheduled or running. Repeating is safe.

    Raises: Refused.
    """
    chosen = [require_open(each, "paused") for each in _chosen(connection, mailing_ids, GOING, now)]
    awake = [each.id for each in chosen if each.paused_at is None]
    _mark(connection, awake, paused_at=now, updated_at=now)
    return _again(connection, chosen)


def resume(
    connection: Connection, mailing_ids: Sequence[int] | None, now: datetime, *, sure: bool = False
) -> list[Overview]:
    """Wake these, or with None all that are paused. Repeating is safe.

    Raises: Refused, also when one may have been sent since the backup that it came out of, unless `sure`.
    """
    chosen = resumable(connection, mailing_ids, now)
    doubted = [each for each in chosen if each.may_be_sent]
    if doubted and not sure:
        raise Refused(maybe_sent(doubted[0]), f"mailer mailings resume {doubted[0].id} --yes")
    asleep = [each.id for each in chosen if each.paused_at is not None]
    _mark(connection, asleep, paused_at=None, updated_at=now)
    _mark(connection, [each.id for each in doubted], restored_at=None)
    _mark(connection, [each.id for each in chosen if each.refused_runs], refused_runs=0)
    return _again(connection, chosen)


def resumable(connection: Connection, mailing_ids: Sequence[int] | None, now: datetime) -> list[Overview]:
    """What `resume` would wake, and what is awake. Raises: Refused."""
    sleeping = _chosen(connection, mailing_ids, (MailingStatus.PAUSED,), now)
    return [require_open(each, "resumed") for each in sleeping]


def maybe_sent(found: Overview) -> str:
    """Why a mailing that came out of a backup must not go on by itself."""
    return f"mailing {found.id} had not begun in the backup: it may have been sent, whole, since then"


def remember(
    connection: Connection, taken: Collection[int], refused: Collection[int], now: datetime
) -> list[int]:
    """Remember for the next runs of which mailings one was taken, and of which ten were refused in a row.

    Those that sleep from now on, for it was the third run so.
    """
    if taken:
        doubted = update(Mailing).where(col(Mailing.id).in_(taken), col(Mailing.refused_runs) > 0)
        connection.execute(doubted.values(refused_runs=0))
    if not refused:
        return []
    mine = update(Mailing).where(col(Mailing.id).in_(refused))
    connection.execute(mine.values(refused_runs=col(Mailing.refused_runs) + 1))
    tired = mine.where(col(Mailing.refused_runs) >= REFUSED_RUNS, col(Mailing.paused_at).is_(None))
    slept = connection.execute(tired.values(paused_at=now, updated_at=now).returning(col(Mailing.id)))
    return list(slept.scalars())


def cancel(connection: Connection, mailing_ids: Sequence[int] | None, now: datetime) -> list[Overview]:
    """End these for good, or with None all that are open; what is in flight finishes. Repeating is safe.

    Raises: Refused.
    """
    chosen = stoppable(connection, mailing_ids, now)
    alive = [each.id for each in chosen if each.cancelled_at is None]
    _mark(connection, alive, cancelled_at=now, updated_at=now)
    outbox.cancel(connection, col(Message.mailing_id).in_(these(alive)), "mailing cancelled")
    outbox.forget(connection, col(Mailing.id).in_(these(alive)))
    return _again(connection, chosen)


def stoppable(connection: Connection, mailing_ids: Sequence[int] | None, now: datetime) -> list[Overview]:
    """What `cancel` would end, and what is cancelled already. Raises: Refused."""
    chosen = _chosen(connection, mailing_ids, OPEN, now)
    return [each if each.cancelled_at else require_open(each, "cancelled") for each in chosen]


def remove(connection: Connection, mailing_id: int, now: datetime) -> Overview:
    """Cancel what waits, and hide the mailing; what it sent stays in the general statistics.

    Raises: Refused.
    """
    found = find(connection, mailing_id, now)
    if found.status in OPEN:
        _mark(connection, [found.id], cancelled_at=now)
    outbox.cancel(connection, col(Message.mailing_id) == mailing_id, "mailing removed")
    outbox.forget(connection, col(Mailing.id) == mailing_id)
    (gone,) = _again(connection, [found])
    _mark(connection, [found.id], removed_at=now, updated_at=now)
    return gone


def top_up(
    connection: Connection, mailing_id: int, now: datetime, *, sure: bool = False
) -> tuple[Overview, Added]:
    """Add the clients who match now and have no message yet. Repeating is safe.

    Raises: Refused when the audience is not fixed, or nothing more can be sent; or when some may have been
    added since the backup that it came out of, unless `sure`.
    """
    found = require_time(find(connection, mailing_id, now), "topped up")
    if found.fixed_at is None:
        raise Refused(
            f"mailing {mailing_id} has no audience yet: whoever matches when it starts will be in it"
        )
    if found.restored_at is not None and not sure:
        raise Refused(
            f"mailing {mailing_id} came out of a backup: whoever was added since would get it again",
            f"mailer mailings top-up {mailing_id} --yes",
        )
    added = audience.top_up(connection, mailing_id, now)
    _mark(connection, [mailing_id], restored_at=None)
    return find(connection, mailing_id, now), added


def retry(
    connection: Connection, mailing_id: int, status: MessageStatus, reason: str | None, now: datetime
) -> tuple[Overview, Retried]:
    """Let messages that failed, or whose fate is unknown, wait again with fresh limits.

    Raises: Refused when nothing more can be sent.
    """
    require_time(find(connection, mailing_id, now), "retried")
    retried = outbox.retry(connection, mailing_id, [status], reason, now)
    return find(connection, mailing_id, now), retried


def require_open(found: Overview, done: str) -> Overview:
    """The same, if it has something to do, or is paused and may get something, and has time for it.

    Raises: Refused.
    """
    _require_messages(found)
    asleep = found.paused_at is not None and found.cancelled_at is None
    if (found.status in OPEN or asleep) and not found.has_ended:
        return found
    raise _refusal(found, "has ended" if found.status in OPEN else f"is {found.status}", done)


def require_time(found: Overview, done: str) -> Overview:
    """The same, if messages of it may still be sent, be it completed or not. Raises: Refused."""
    _require_messages(found)
    if found.cancelled_at is None and not found.has_ended:
        return found
    raise _refusal(found, "has ended" if found.cancelled_at is None else "is cancelled", done)


def _require_messages(found: Overview) -> None:
    """Raises: Refused when they were purged: who got one is not known any more, so nobody may get another."""
    if found.purged_at is not None:
        raise Refused(
            f"mailing {found.id} was purged on {found.purged_at:%Y-%m-%d}; create a new one",
            "mailer mailings create --help",
        )


def _refusal(found: Overview, why: str, done: str) -> Refused:
    return Refused(f"mailing {found.id} {why}, it cannot be {done}", f"mailer mailings show {found.id}")


def _chosen(
    connection: Connection, mailing_ids: Sequence[int] | None, among: Collection[MailingStatus], now: datetime
) -> list[Overview]:
    if mailing_ids is not None:
        return _found(connection, dict.fromkeys(mailing_ids), now)
    living = (col(Mailing.removed_at).is_(None), col(Mailing.end_at) > now)
    return [each for each in overviews(connection, now, *living) if each.status in among]


def _again(connection: Connection, seen: Sequence[Overview]) -> list[Overview]:
    ids = [each.id for each in seen]
    return _found(connection, ids, seen[0].seen_at) if seen else []


def _found(connection: Connection, mailing_ids: Iterable[int], now: datetime) -> list[Overview]:
    """All at once, in the order given. Raises: Refused."""
    ids = list(mailing_ids)
    there = (col(Mailing.id).in_(these(ids)), col(Mailing.removed_at).is_(None))
    found = {each.id: each for each in overviews(connection, now, *there)}
    return [found.get(each) or find(connection, each, now) for each in ids]


def _mark(connection: Connection, mailing_ids: Sequence[int], **values: datetime | int | None) -> None:
    connection.execute(update(Mailing).where(col(Mailing.id).in_(these(mailing_ids))).values(values))
