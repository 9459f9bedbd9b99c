"""`mailer stats`: how far all mailings are, or one of them and by what its messages are told apart."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mailer_cli import output
from mailer_cli.cli import mailing_views
from mailer_cli.cli.common import LARGEST_ID, Invocation, command
from mailer_cli.errors import Invalid
from mailer_cli.plural import counted

if TYPE_CHECKING:
    from mailer_cli.mailings import Overview
    from mailer_cli.stats import By, Details, Pace

STATUSES = ("sent", "pending", "sending", "failed", "unknown", "expired", "cancelled")  # as people ask
LOST = ("failed", "unknown", "expired", "cancelled")
OPEN = ("pending", "sending")
LEGEND = (
    f"{output.DONE} sent  {output.LOST} failed, unknown, expired, cancelled  {output.OPEN} pending, sending"
)
LEAVING = {"sending": 8, "cancelled": 7, "expired": 6, "pending": 1}  # what leaves when there is no room
SHORT_BAR = 8
MOST = 50  # groups shown to people; tags may be as many as clients

NONE = {"reason": "no message has a reason", "hour": "nothing is sent yet"}
TITLES = {
    "operator": "operator code",
    "tag": "tag",
    "timezone": "time zone",
    "reason": "reason",
    "hour": "hour of sending",
}


def register(app: typer.Typer) -> None:
    """Hang this command on the program."""

    @command(app, "stats", example="mailer stats 5 --by operator")
    def stats(
        at: Invocation,
        mailing: Annotated[
            int | None,
            typer.Argument(metavar="MAILING", min=1, max=LARGEST_ID, show_default=False, help="Its id."),
        ] = None,
        by: Annotated[
            Literal["status", "operator", "tag", "timezone", "reason", "hour"] | None,
            typer.Option("--by", help="Tell the messages of one mailing apart; for people, JSON has all."),
        ] = None,
    ) -> output.Result:
        """Show how many messages of each mailing are in which status, or the details of one mailing.

        Removed mailings are not shown; their messages stay in the totals.
        """
        if mailing is not None:
            return _one(at, mailing, by)
        if by is not None:
            raise Invalid("--by needs a mailing", f"mailer stats MAILING --by {by}")
        return _all(at)


def _all(at: Invocation) -> output.Note:
    from mailer_cli import stats

    with at.database.read() as connection:
        found = stats.general(connection, at.now())
    rows = [_row(each) for each in found.mailings]
    data = stats.general_json(found)
    tables = [output.Table(rows, _mailing_columns(rows), title=LEGEND)] if rows else []
    return output.Note(data, _totals(data), tables)


def _totals(data: output.Json) -> list[str]:
    mailings, messages = data["mailings"], data["messages"]
    lines = [
        *_sentence(counted(mailings["total"], "mailing"), mailings["by_status"]),
        *_sentence(
            counted(messages["total"], "message"),
            {name: messages["by_status"][name] for name in STATUSES},
        ),
    ]
    if removed := messages["total"] - sum(each["messages"]["total"] for each in data["by_mailing"]):
        lines.append(f"{counted(removed, 'message')} of them in mailings that were removed")
    return lines


def _sentence(whole: str, parts: Mapping[str, int]) -> list[str]:
    """As `9 messages: 7 sent, 2 failed`; in several lines if it has to be, each number with its word."""
    named = ", ".join(f"{number:,}\xa0{name}" for name, number in parts.items() if number)
    lines = textwrap.wrap(f"{whole}: {named}" if named else whole, 80, subsequent_indent="  ")
    return [line.replace("\xa0", " ") for line in lines]


def _row(mailing: "Overview") -> dict[str, Any]:
    counts = {status.value: messages for status, messages in mailing.counts.items()}
    text = " ".join(mailing.plan.text.split())
    return {"id": mailing.id, "state": mailing.status.value, "text": text, "total": mailing.total, **counts}


def _mailing_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[output.Column, ...]:
    return (
        output.column("id", right=True),
        output.column("state", "status", status=True),
        output.column("text", flexible=True, leaves=5),
        *_counts(rows),
        output.Column("", lambda row: _bar(row, SHORT_BAR), bar=True, leaves=4),
    )


def _counts(rows: Sequence[Mapping[str, Any]]) -> list[output.Column]:
    """The total, and every status that some message is in."""
    there = [name for name in STATUSES if any(row[name] for row in rows)]
    return [_number(name, leaves=LEAVING.get(name, 0)) for name in ("total", *there)]


def _number(name: str, leaves: int = 0) -> output.Column:
    return output.Column(name, lambda row: f"{row[name]:,}", right=True, leaves=leaves)


def _bar(row: Mapping[str, Any], cells: int) -> str:
    return output.stack(row["sent"], sum(row[name] for name in LOST), sum(row[name] for name in OPEN), cells)


def _one(at: Invocation, mailing_id: int, by: str | None) -> output.Result:
    """JSON has every breakdown; people wait only for the one they ask for."""
    from mailer_cli import stats

    chosen = [stats.By(by)] if by is not None and by != "status" else []
    wanted = list(stats.By) if at.printer.as_json else chosen
    found = stats.details(at.database, mailing_id, at.now(), *wanted)
    card = _card(at, found)
    if by is None:
        return card
    tables = [_groups(at, found, each) for each in chosen] or card.tables
    return output.Note(card.data, [_headline(found.mailing)], tables, warnings=card.warnings)


def _card(at: Invocation, found: "Details") -> output.Card:
    from mailer_cli import stats

    warnings = mailing_views.purge_warnings(at, found.mailing) if found.breakdowns else ()
    warnings += mailing_views.zone_warnings(found.unknown_zones)
    card = mailing_views.card(at, found.mailing, warnings=warnings)
    pace = _pace(at, found.pace, found.mailing.end_at)
    return replace(card, data=stats.details_json(found), lines=[*card.lines, *pace])


def _pace(at: Invocation, pace: "Pace", end_at: datetime) -> list[tuple[str, str]]:
    if pace.per_second is None or pace.eta is None:
        return []
    late = ", after its end" if pace.eta > end_at else ""
    rate = mailing_views.show_rate(pace.per_second)
    return [("now", f"{rate}, so it would be done at {at.show_time(pace.eta)}{late}")]


def _headline(mailing: "Overview") -> str:
    text = output.shorten(" ".join(mailing.plan.text.split()), 40)
    return f"mailing {mailing.id}, {mailing.status}, {counted(mailing.total, 'message')}: {text}"


def _groups(at: Invocation, found: "Details", by: "By") -> output.Table:
    from mailer_cli import stats

    groups = found.breakdowns[by]
    rows = [stats.group_json(each) for each in (groups if by == "hour" else groups[:MOST])]
    biggest = max((row["total"] for row in rows), default=0)
    cells = 32 if by == "hour" else 12
    columns = (
        output.Column(TITLES[by], lambda row: _key(at, by, row["key"]), flexible=by != "hour"),
        *([_number("sent")] if by == "hour" else _counts(rows)),
        output.Column("", lambda row: _bar(row, -(-cells * row["total"] // biggest)), bar=True, leaves=4),
    )
    more = f"the {MOST} biggest of {len(groups):,}; --json has all" if len(groups) > len(rows) else None
    none = NONE.get(by, "no messages yet") if found.mailing.purged_at is None else "its messages were purged"
    return output.Table(rows, columns, empty=none, title=more)


def _key(at: Invocation, by: "By", key: str) -> str:
    if by == "hour":
        return at.show_time(datetime.fromisoformat(key))
    return key or "(none)"
