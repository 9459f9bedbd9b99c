"""Mailings as people see them: the card, the list, and the sentences about what was done."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mailer_cli import output
from mailer_cli.cli.common import Invocation
from mailer_cli.plural import agree, counted

if TYPE_CHECKING:
    from mailer_cli.audience import Breakdown, Filter
    from mailer_cli.mailings import Edited, Overview, Plan
    from mailer_cli.mailings.prospects import Prospect
    from mailer_cli.outbox import Retried
    from mailer_cli.settings import Settings


WHY = {
    None: "",
    "too_many_rejected": ", by itself: in three runs in a row ten of its messages in a row were refused",
}


def card(
    at: Invocation, mailing: "Overview", notes: Sequence[str] = (), warnings: Sequence[str] = ()
) -> output.Card:
    from mailer_cli import mailings

    paused = (
        [("paused", f"{at.show_time(mailing.paused_at)}{WHY[mailing.pause_reason]}")]
        if mailing.paused_at
        else []
    )
    cancelled = [("cancelled", at.show_time(mailing.cancelled_at))] if mailing.cancelled_at else []
    purged = [("purged", f"{at.show_time(mailing.purged_at)}, only these totals are left")]
    lines = [
        ("mailing", str(mailing.id)),
        ("status", mailing.status.value),
        *plan_lines(at, mailing.plan).items(),
        ("created", at.show_time(mailing.created_at)),
        *paused,
        *([("restored", "it may have been sent since the backup")] if mailing.may_be_sent else []),
        *cancelled,
        ("messages", f"{mailing.total:,}" if mailing.fixed_at else "none yet: the start fixes who gets it"),
        *(purged if mailing.purged_at else []),
    ]
    tables = [_shares(mailing)] if mailing.total else []
    notes = ["", *notes] if notes else []
    return output.Card(mailings.as_json(mailing), lines, tables, notes, warnings=tuple(warnings))


def purge_warnings(at: Invocation, mailing: "Overview") -> tuple[str, ...]:
    """What has to be said where messages are missed that were purged."""
    if mailing.purged_at is None:
        return ()
    day = at.show_time(mailing.purged_at)
    return (f"the messages of mailing {mailing.id} were purged on {day}; its totals stay",)


def zone_warnings(waiting: Mapping[str, int]) -> tuple[str, ...]:
    """What has to be said where messages wait for zones that this machine does not know."""
    if not waiting:
        return ()
    zones = ", ".join(f"{name} ({messages:,})" for name, messages in sorted(waiting.items())[:5])
    first = shlex.quote(min(waiting))
    total = sum(waiting.values())
    more = f" and {len(waiting) - 5:,} more" if len(waiting) > 5 else ""
    return (
        f"{counted(total, 'message')} of mailings with a window {agree(total, 'waits', 'wait')}, for this"
        f" machine does not know {agree(len(waiting), 'the time zone', 'the time zones')}: {zones}{more};"
        f" install newer zone data (tzdata), or mailer clients rezone --from {first} --to ZONE",
    )


def plan_lines(at: Invocation, plan: "Plan") -> dict[str, str]:
    return {
        "text": plan.text,
        "start": at.show_time(plan.start_at),
        "end": at.show_time(plan.end_at),
        "for": _filter(plan.filter),
        "window": f"{plan.window}, in each client's own time zone" if plan.window else "at any hour",
        "rate": "as fast as it goes" if plan.rate is None else show_rate(plan.rate),
        "priority": str(plan.priority),
    }


def _filter(wanted: "Filter") -> str:
    codes = f"operator code {' or '.join(wanted.operator_codes)}" if wanted.operator_codes else ""
    tags = f"tag {' or '.join(wanted.tags)}" if wanted.tags else ""
    return ", and ".join(filter(None, (codes, tags))) or "every client"


def show_rate(rate: float) -> str:
    """Messages per the shortest unit of time in which there is a whole one."""
    if rate >= 1:
        return f"{rate:g}/s"
    return f"{rate * 60:g}/m" if rate * 60 >= 1 else f"{rate * 3600:g}/h"


def _shares(mailing: "Overview") -> output.Table:
    rows = [
        {"status": status.value, "messages": messages, "share": messages / mailing.total}
        for status, messages in mailing.counts.items()
        if messages
    ]
    columns = (
        output.column("status", status=True),
        output.Column("messages", lambda row: f"{row['messages']:,}", right=True),
        output.Column("share", lambda row: f"{row['share']:.1%}", right=True),
        output.Column("", lambda row: output.bar(row["share"])),
    )
    return output.Table(rows, columns)


def listing(at: Invocation, found: Iterable["Overview"]) -> output.Table:
    from mailer_cli import mailings

    columns = (
        output.column("id", right=True),
        output.Column("status", _status, status=True),
        output.Column("start", _time(at, "start"), leaves=3),
        output.Column("end", _time(at, "end"), leaves=1),
        output.Column("messages", lambda row: f"{row['messages']['total']:,}", right=True),
        output.Column("sent", lambda row: f"{row['messages']['sent']:,}", right=True),
        output.Column("for", _who, flexible=True, leaves=2),
        output.Column("text", lambda row: " ".join(row["text"].split()), flexible=True, most=60),
    )
    return output.Table(map(mailings.as_json, found), columns, empty="no mailings found")


def _status(row: Mapping[str, Any]) -> str:
    """The word, with a mark where no operator has said so."""
    return f"{row['status']}: refused" if row["pause_reason"] else str(row["status"])


def _time(at: Invocation, key: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: at.show_time(datetime.fromisoformat(row[key]))


def _who(row: Mapping[str, Any]) -> str:
    named = row["filter"]
    return " ".join([",".join(named["operator_codes"]), ",".join(named["tags"])]).strip() or "every client"


def breakdown(found: "Breakdown") -> output.Note:
    """Who would get it now; nothing was done."""
    by_operator, by_timezone = (
        [{"key": key, "total": total} for key, total in pairs]
        for pairs in (found.by_operator, found.by_timezone)
    )
    data = {"audience": found.size, "by_operator": by_operator, "by_timezone": by_timezone}
    tables = [_totals("operator code", by_operator), _totals("time zone", by_timezone)] if found.size else []
    return output.Note(
        data, [f"{counted(found.size, 'client')} would get it now; nothing was created"], tables
    )


def _totals(title: str, rows: Sequence[Mapping[str, Any]]) -> output.Table:
    total = output.Column("clients", lambda row: f"{row['total']:,}", right=True)
    return output.Table(rows, (output.column("key", title, flexible=True), total))


def edited(at: Invocation, done: "Edited", *, dry_run: bool) -> output.Result:
    moved = f"messages: {done.cancelled:,} cancelled, {done.added:,} added"
    notes = [moved] if done.cancelled or done.added else []
    notes += already_sent(done.already_sent)
    if not dry_run:
        return card(at, done.mailing, notes if done.changes() else ["nothing changed"])
    counts = {"cancelled": done.cancelled, "added": done.added, "already_sent": done.already_sent}
    data = {"changes": done.changes(), **counts}
    old, new = plan_lines(at, done.before), plan_lines(at, done.mailing.plan)
    changes = [f"{name}: {old[name]} -> {new[name]}" for name in old if old[name] != new[name]]
    return output.Note(data, [*(changes + notes or ["nothing would change"]), "nothing was done"])


def already_sent(number: int) -> list[str]:
    """Of those who get none."""
    return [f"{number:,} more not: already sent to this number"] if number else []


def retried(status: str, found: "Retried") -> list[str]:
    again = f"{counted(found.again, f'{status} message')} will be tried again"
    none = "no message will be tried again" if found.already_sent else f"there are no such {status} messages"
    return [again if found.again else none, *already_sent(found.already_sent)]


def going(at: Invocation, of: str, found: "Prospect", when: str, verbs: tuple[str, str]) -> str:
    """How much of it goes at once, and when the first window opens for the others."""
    opens = f", the first opens at {at.show_time(found.opens_at)}" if found.opens_at else ""
    if found.now:
        others = f"{counted(found.later, 'other')} {agree(found.later, 'waits', 'wait')}"
        rest = f"; {others} for a window{opens}" if opens else ""
        return f"{counted(found.now, 'message')}{of} {agree(found.now, *verbs)} {when}{rest}"
    if opens:
        wait = agree(found.later, "waits for its window", "wait for their windows")
        return f"{counted(found.later, 'message')}{of} {wait}{opens}"
    return f"no message{of} can go now"


def never(at: Invocation, found: "Prospect") -> list[str]:
    """A warning when the end comes before some windows open."""
    if not found.never or found.saved_by is None:
        return []
    windows = agree(found.never, "its window opens", "their windows open")
    saved = f"{agree(found.never, 'it does', 'they do')} with an end after {at.show_time(found.saved_by)}"
    return [f"{counted(found.never, 'message')} cannot go before the end, {windows} too late; {saved}"]


def never_of(at: Invocation, found: Mapping[int, "Prospect"]) -> tuple[str, ...]:
    """The same of several mailings, a line each for the first five."""
    said = [f"mailing {each}: {line}" for each, prospect in found.items() for line in never(at, prospect)]
    more = len(said) - 5
    others = f"{counted(more, 'more mailing')} {agree(more, 'has', 'have')} messages that cannot go, likewise"
    return (*said[:5], *([others] if more > 0 else []))


def fate(settings: "Settings") -> list[str]:
    """What becomes of a message that may or may not have been taken by the gateway."""
    repeats = 0 if settings.on_unknown == "hold" else settings.max_unknown - 1
    if not repeats:
        return ["a message whose fate is unknown is never repeated"]
    times = {1: "once", 2: "twice"}.get(repeats, f"{repeats} times")
    return [
        f"a message whose fate is unknown is repeated with the same id, at most {times}",
        "never to repeat one: MAILER_ON_UNKNOWN=hold",
    ]
