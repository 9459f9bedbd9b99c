"""What can go when: how much of a mailing now, how much with a window that opens later, how much never."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches

from sqlalchemy import Connection, func, select
from sqlmodel import col

from mailer_cli import audience
from mailer_cli.audience import Filter
from mailer_cli.mailings.overview import Overview
from mailer_cli.mailings.plan import Plan
from mailer_cli.models import Client, Message
from mailer_cli.outbox import GUARD
from mailer_cli.times import Window, is_known

MOST_TAGS = 10_000  # that are looked through for what is near
SURELY_OPENS = timedelta(days=3)  # every window does in that time, also where a clock change swallows one
Zones = Iterable[tuple[str, int]]  # a zone, and how many wait in it


@dataclass(frozen=True)
class Prospect:
    """How many messages may go at once, after their windows have opened, and never, since the end comes
    first. What waits for a zone that is not known here is in none of them."""

    now: int = 0
    later: int = 0
    never: int = 0
    opens_at: datetime | None = None  # the first window, for those later
    saved_by: datetime | None = None  # an end after this lets those go, too

    @property
    def is_partial(self) -> bool:
        """Whether not all of them may go at once."""
        return self.later + self.never > 0


def prospect(zones: Zones, window: Window | None, start_at: datetime, end_at: datetime) -> Prospect:
    """Of so many in each zone, from the start (or from now) on."""
    if window is None:
        total = sum(count for _, count in zones)
        return Prospect(now=total) if start_at < end_at - GUARD else Prospect(never=total)
    opening = [(_opens_at(window, zone, start_at), count) for zone, count in zones if is_known(zone)]
    later = [each for each in opening if start_at < each[0] < end_at - GUARD]
    never = [each for each in opening if each[0] >= end_at - GUARD]
    return Prospect(
        now=sum(count for at, count in opening if at <= start_at < end_at - GUARD),
        later=sum(count for _, count in later),
        never=sum(count for _, count in never),
        opens_at=min((at for at, _ in later), default=None),
        saved_by=max((at for at, _ in never), default=None),
    )


def _opens_at(window: Window, zone: str, moment: datetime) -> datetime:
    """When it is open for long enough to begin a request."""
    opens_at = window.opens_at(zone, moment)
    closes_at = window.closes_at(zone, opens_at)
    return opens_at if closes_at > opens_at + GUARD else window.opens_at(zone, closes_at)


def of_plan(connection: Connection, plan: Plan, now: datetime) -> Prospect:
    """Of those who match now, from the start on."""
    zones = audience.break_down(connection, plan.filter).by_timezone
    return prospect(zones, plan.window, max(now, plan.start_at), plan.end_at)


def of_mailing(connection: Connection, mailing: Overview) -> Prospect:
    """Of what waits in a mailing; before its audience is fixed, of those who match now."""
    plan, now = mailing.plan, mailing.seen_at
    if mailing.fixed_at is None:
        return of_plan(connection, plan, now)
    if plan.window is None:
        return prospect([("", mailing.waiting)], None, now, plan.end_at)
    waiting = (
        select(col(Message.timezone), func.count())
        .where(col(Message.mailing_id) == mailing.id, col(Message.status) == "pending")
        .group_by(col(Message.timezone))
    )
    zones = [(zone, count) for zone, count in connection.execute(waiting)]
    return prospect(zones, plan.window, now, plan.end_at)


def may_be_late(mailing: Overview) -> bool:
    """Whether it may end before some window opens, asked of no message."""
    plan = mailing.plan
    begins_at = max(mailing.seen_at, plan.start_at)
    return plan.window is not None and plan.end_at - begins_at < SURELY_OPENS


def near(connection: Connection, wanted: Filter) -> list[str]:
    """Tags and operator codes that clients have, and that look like those that nobody has."""
    found: list[str] = []
    for column, asked in ((Client.tag, wanted.tags), (Client.operator_code, wanted.operator_codes)):
        if asked:
            living = select(col(column)).where(col(Client.removed_at).is_(None), col(column) != "")
            there = set(connection.execute(living.distinct().limit(MOST_TAGS)).scalars())
            folded = {each.casefold(): each for each in sorted(there)}
            for each in set(asked) - there:
                found += [folded[like] for like in get_close_matches(each.casefold(), folded, n=3)]
    return list(dict.fromkeys(found))
