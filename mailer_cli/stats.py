"""Read-only counts -> frozen dataclasses.

How many messages are in which status comes from `tally`, whose cost does not grow with messages. Who they
went to, why and when is counted over the messages of one mailing, in one pass, two to three seconds for a
million: page by page, so that no commit waits for it. What is sent meanwhile is counted once, as it was when
its page was read; so the numbers shown with a breakdown are those of its pass, and add up.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, cast, func, select
from sqlmodel import col

from mailer_cli import mailings, outbox
from mailer_cli.database import Database
from mailer_cli.mailings import prospects
from mailer_cli.mailings.overview import PAGE, Counts, Overview, overviews
from mailer_cli.models import Client, Mailing, MailingStatus, Message, MessageStatus, Tally
from mailer_cli.times import json_time

RECENT = timedelta(
    minutes=2
)  # two periods of cron: the pause between runs is in it, a dead cron is seen soon


class By(StrEnum):
    """What the messages of one mailing are told apart by."""

    OPERATOR = "operator"
    TAG = "tag"
    TIMEZONE = "timezone"
    REASON = "reason"
    HOUR = "hour"


KEYS = {
    By.OPERATOR: col(Client.operator_code),
    By.TAG: col(Client.tag),
    By.TIMEZONE: col(Message.timezone),
    By.REASON: col(Message.reason),
    By.HOUR: func.substr(cast(col(Message.sent_at), Text), 1, len("2026-11-23 09")),
}
COUNTED = 10_000  # messages told apart in one short reading transaction


@dataclass(frozen=True)
class General:
    """Every mailing that is not removed, newest first, and every message that there ever was."""

    mailings: Sequence[Overview]
    messages: Counts


@dataclass(frozen=True)
class Group:
    """The messages that have `key` in common; that of an hour is when it begins, in UTC, as in JSON."""

    key: str
    counts: Counts

    @property
    def total(self) -> int:
        return sum(self.counts.values())


Breakdown = Sequence[Group]
"""The biggest group first; hours as they passed."""


@dataclass(frozen=True)
class Pace:
    """How fast a mailing goes. Both are None while nothing goes."""

    per_second: float | None = None
    eta: datetime | None = None


@dataclass(frozen=True)
class Details:
    """One mailing, how fast it goes, and the breakdowns that were asked for."""

    mailing: Overview
    pace: Pace
    breakdowns: Mapping[By, Breakdown]
    unknown_zones: Mapping[str, int]  # not known here: how many messages wait for each


def general(connection: Connection, now: datetime) -> General:
    """The messages of removed mailings are counted, the mailings themselves are not."""
    total = func.sum(col(Tally.messages))
    rows = connection.execute(select(col(Tally.status), total).group_by(col(Tally.status)))
    found = {MessageStatus(status): int(messages) for status, messages in rows}
    return General(_mailings(connection, now), {each: found.get(each, 0) for each in MessageStatus})


def _mailings(connection: Connection, now: datetime) -> list[Overview]:
    """Page by page: a statement takes only so many ids."""
    found: list[Overview] = []
    while True:
        older = [col(Mailing.id) < found[-1].id] if found else []
        page = overviews(connection, now, col(Mailing.removed_at).is_(None), *older, limit=PAGE)
        found += page
        if len(page) < PAGE:
            return found


def details(database: Database, mailing_id: int, now: datetime, *wanted: By) -> Details:
    """The breakdowns of a purged mailing are empty. Raises: Refused when there is no such mailing."""
    with database.read() as connection:
        mailing = mailings.find(connection, mailing_id, now)
        pace = _pace(connection, mailing)
        unknown_zones = outbox.unknown_zones(connection, now, mailing_id)
    if not wanted:
        return Details(mailing, pace, {}, unknown_zones)
    counts, breakdowns = _break_down(database, mailing_id, wanted)
    with database.read() as connection:  # a purge may have come between the pages
        statement = select(col(Mailing.purged_at)).where(col(Mailing.id) == mailing_id)
        purged_at = connection.execute(statement).scalar_one()
    if purged_at is not None:
        return Details(replace(mailing, purged_at=purged_at), pace, dict.fromkeys(wanted, ()), {})
    return Details(replace(mailing, counts=counts), pace, breakdowns, unknown_zones)


def _break_down(database: Database, mailing_id: int, by: Sequence[By]) -> tuple[Counts, dict[By, Breakdown]]:
    """Messages by status, and by what was asked for. Those without a reason, or not sent, are in no group of
    that breakdown."""
    counts: Counter[str] = Counter()
    counted: dict[By, defaultdict[str, Counter[str]]] = {each: defaultdict(Counter) for each in by}
    for status, messages, *values in _counted(database, mailing_id, by):
        counts[status] += messages
        for each, value in zip(by, values, strict=True):
            if value is not None:
                counted[each][value][status] += messages
    breakdowns = {each: _in_order(each, groups) for each, groups in counted.items()}
    return {status: counts[status] for status in MessageStatus}, breakdowns


def _counted(database: Database, mailing_id: int, by: Sequence[By]) -> Iterator[Sequence[Any]]:
    """Status, number of messages, and their keys; page by page in the order of clients, as the index is."""
    after, rows = 0, COUNTED
    while rows == COUNTED:
        page = page_of(mailing_id, after, by).subquery()
        client_id, status, *keys = page.columns
        statement = select(func.max(client_id), status, func.count(), *keys).group_by(status, *keys)
        with database.read() as connection:
            found = connection.execute(statement).all()
        yield from (each[1:] for each in found)
        after, rows = max((each[0] for each in found), default=0), sum(each[2] for each in found)


def page_of(mailing_id: int, after: int, by: Sequence[By]) -> Select[Any]:
    """The client, the status and the keys of a mailing's next messages, as many as are told apart at once."""
    keys: list[ColumnElement[Any]] = [KEYS[each].label(each.value) for each in by]
    return (
        select(col(Message.client_id), col(Message.status), *keys)
        .join(Client, col(Client.id) == col(Message.client_id))
        .where(col(Message.mailing_id) == mailing_id, col(Message.client_id) > after)
        .order_by(col(Message.client_id))
        .limit(COUNTED)
    )


def _in_order(by: By, groups: Mapping[str, Counter[str]]) -> Breakdown:
    found = [
        Group(_hour(key) if by is By.HOUR else key, {status: counts[status] for status in MessageStatus})
        for key, counts in groups.items()
    ]
    return sorted(found, key=lambda group: (0 if by is By.HOUR else -group.total, group.key))


def _hour(written: str) -> str:
    return json_time(datetime.fromisoformat(written).replace(tzinfo=UTC))


def _pace(connection: Connection, mailing: Overview) -> Pace:
    """What was sent in the past two minutes, or since the first of it, foretells when the rest will be.

    As if what waits for another try were due now: it may well take longer. While some wait for their windows
    nobody can tell when the rest will be.
    """
    now, counts = mailing.seen_at, mailing.counts
    waiting = counts[MessageStatus.PENDING] + counts[MessageStatus.SENDING]
    if mailing.status is not MailingStatus.RUNNING or not waiting:
        return Pace()
    recent = select(func.count(), func.min(col(Message.sent_at))).where(
        col(Message.mailing_id) == mailing.id, col(Message.sent_at) > now - RECENT
    )
    sent, first = connection.execute(recent).one()
    if first is None:
        return Pace()
    rate = sent / max((now - first).total_seconds(), 1.0)
    is_open = mailing.plan.window is None or not prospects.of_mailing(connection, mailing).is_partial
    return Pace(round(rate, 3), now + timedelta(seconds=waiting / rate) if is_open else None)


def general_json(found: General) -> dict[str, Any]:
    listed = [mailings.as_json(each) for each in found.mailings]
    by_status = Counter(each.status for each in found.mailings)
    return {
        "mailings": {
            "total": len(listed),
            "by_status": {status.value: by_status[status] for status in MailingStatus},
        },
        "messages": {"total": sum(found.messages.values()), "by_status": _plain(found.messages)},
        "by_mailing": listed,
    }


def details_json(found: Details) -> dict[str, Any]:
    return {
        **mailings.as_json(found.mailing),
        **{f"by_{by}": [group_json(each) for each in groups] for by, groups in found.breakdowns.items()},
        "rate_per_second": found.pace.per_second,
        "eta": json_time(found.pace.eta) if found.pace.eta else None,
    }


def group_json(group: Group) -> dict[str, Any]:
    return {"key": group.key, "total": group.total, **_plain(group.counts)}


def _plain(counts: Counts) -> dict[str, int]:
    return {status.value: messages for status, messages in counts.items()}
