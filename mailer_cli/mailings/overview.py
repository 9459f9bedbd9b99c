"""A mailing as it is seen: its plan, its status, and how many of its messages are in which state."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Row, select
from sqlmodel import col

from mailer_cli.audience import Filter
from mailer_cli.database import Database
from mailer_cli.database.rows import these
from mailer_cli.errors import Refused
from mailer_cli.mailings.plan import Plan
from mailer_cli.models import Mailing, MailingStatus, MessageStatus, Tally, Wording
from mailer_cli.times import Window, json_time

TOO_MANY_REJECTED = "too_many_rejected"
REFUSED_RUNS = 3  # in a row that were refused ten of its messages in a row: then a mailing pauses itself
PAGE = 500  # mailings in one short reading transaction

Counts = Mapping[MessageStatus, int]
"""How many messages are in each status, zeros too."""


class Moments(Protocol):
    """What happened to a mailing, and when it ends."""

    @property
    def end_at(self) -> datetime: ...
    @property
    def fixed_at(self) -> datetime | None: ...
    @property
    def paused_at(self) -> datetime | None: ...
    @property
    def cancelled_at(self) -> datetime | None: ...


def status_of(mailing: Moments, counts: Counts, now: datetime) -> MailingStatus:
    """The only place where a mailing's status is decided.

    What was not sent in time outweighs a pause; what is in flight at the end may still arrive.
    """
    is_fixed = mailing.fixed_at is not None
    has_ended = now >= mailing.end_at
    if mailing.cancelled_at is not None:
        return MailingStatus.CANCELLED
    if has_ended and (not is_fixed or counts[MessageStatus.PENDING] or counts[MessageStatus.EXPIRED]):
        return MailingStatus.EXPIRED
    if is_fixed and not (counts[MessageStatus.PENDING] or counts[MessageStatus.SENDING]):
        return MailingStatus.COMPLETED
    if has_ended:
        return MailingStatus.RUNNING
    if mailing.paused_at is not None:
        return MailingStatus.PAUSED
    return MailingStatus.RUNNING if is_fixed else MailingStatus.SCHEDULED


@dataclass(frozen=True)
class Overview:
    """A mailing as it was at `seen_at`."""

    id: int
    plan: Plan
    fixed_at: datetime | None
    paused_at: datetime | None
    cancelled_at: datetime | None
    removed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    purged_at: datetime | None
    counts: Counts
    seen_at: datetime
    refused_runs: int = 0
    restored_at: datetime | None = None

    @property
    def may_be_sent(self) -> bool:
        """Whether it may have been sent, whole, since the backup that it came out of."""
        return self.restored_at is not None and self.fixed_at is None

    @property
    def pause_reason(self) -> str | None:
        """Why it sleeps, when no operator has said so."""
        is_own = self.paused_at is not None and self.refused_runs >= REFUSED_RUNS
        return TOO_MANY_REJECTED if is_own else None

    @property
    def end_at(self) -> datetime:
        return self.plan.end_at

    @property
    def has_ended(self) -> bool:
        return self.seen_at >= self.plan.end_at

    @property
    def status(self) -> MailingStatus:
        return status_of(self, self.counts, self.seen_at)

    @property
    def is_going(self) -> bool:
        return self.status in (MailingStatus.SCHEDULED, MailingStatus.RUNNING)

    @property
    def waiting(self) -> int:
        return self.counts[MessageStatus.PENDING]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def as_json(mailing: Overview) -> dict[str, Any]:
    """A mailing as every command and the statistics print it."""
    return {
        "id": mailing.id,
        "status": mailing.status.value,
        "pause_reason": mailing.pause_reason,
        **mailing.plan.as_json(),
        "created_at": json_time(mailing.created_at),
        "updated_at": json_time(mailing.updated_at),
        "messages": {
            "total": mailing.total,
            **{status.value: messages for status, messages in mailing.counts.items()},
        },
    }


def find(connection: Connection, mailing_id: int, now: datetime) -> Overview:
    """Raises: Refused when there is none, or no longer."""
    found = overviews(connection, now, col(Mailing.id) == mailing_id)
    if not found:
        raise Refused(f"no such mailing: {mailing_id}", "mailer mailings list")
    if found[0].removed_at is not None:
        raise Refused(f"no such mailing: {mailing_id} was removed", "mailer mailings list")
    return found[0]


def listed(
    database: Database,
    now: datetime,
    *,
    after: int | None = None,
    statuses: Collection[str] = (),
    operator_codes: Collection[str] = (),
    tags: Collection[str] = (),
) -> Iterator[Overview]:
    """What is not removed, newest first, in a stream; `after` an id means older than it.

    Of each of the three, what is left out does not restrict, and one match is enough; a code or a tag
    is looked for among those that the mailing's filter names.
    """
    while True:
        older = [col(Mailing.id) < after] if after is not None else []
        with database.read() as connection:
            page = overviews(connection, now, col(Mailing.removed_at).is_(None), *older, limit=PAGE)
        for each in page:
            named = each.plan.filter
            if (
                (not statuses or each.status in statuses)
                and (not operator_codes or not set(named.operator_codes).isdisjoint(operator_codes))
                and (not tags or not set(named.tags).isdisjoint(tags))
            ):
                yield each
        if len(page) < PAGE:
            return
        after = page[-1].id


def overviews(
    connection: Connection, now: datetime, *which: ColumnElement[bool], limit: int | None = None
) -> list[Overview]:
    """The mailings that meet all conditions, newest first, removed ones too."""
    statement = select(Mailing, col(Wording.text)).join(Wording, col(Wording.id) == col(Mailing.wording_id))
    rows = connection.execute(statement.where(*which).order_by(col(Mailing.id).desc()).limit(limit)).all()
    counts = _counts(connection, [row.id for row in rows])
    return [_overview(row, counts[row.id], now) for row in rows]


def _counts(connection: Connection, mailing_ids: Sequence[int]) -> dict[int, dict[MessageStatus, int]]:
    counts = {each: dict.fromkeys(MessageStatus, 0) for each in mailing_ids}
    statement = select(col(Tally.mailing_id), col(Tally.status), col(Tally.messages))
    for mailing_id, status, messages in connection.execute(
        statement.where(col(Tally.mailing_id).in_(these(mailing_ids)))
    ):
        counts[mailing_id][MessageStatus(status)] = messages
    return counts


def _overview(row: Row[Mailing, str], counts: Counts, now: datetime) -> Overview:
    plan = Plan(
        text=row.text,
        start_at=row.start_at,
        end_at=row.end_at,
        filter=Filter(row.operator_codes, row.tags),
        window=None if row.window_from is None else Window(row.window_from, row.window_to),
        rate=row.rate,
        priority=row.priority,
    )
    return Overview(
        id=row.id,
        plan=plan,
        fixed_at=row.fixed_at,
        paused_at=row.paused_at,
        cancelled_at=row.cancelled_at,
        removed_at=row.removed_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        purged_at=row.purged_at,
        counts=counts,
        seen_at=now,
        refused_runs=row.refused_runs,
        restored_at=row.restored_at,
    )
