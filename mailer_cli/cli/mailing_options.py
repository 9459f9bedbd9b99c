"""The options of `mailer mailings`, and what is written in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mailer_cli.cli.common import LARGEST_ID, Invocation, read_text
from mailer_cli.errors import Invalid

if TYPE_CHECKING:
    from mailer_cli.mailings import Edit
    from mailer_cli.models import MailingStatus
    from mailer_cli.times import Window

PRIORITY = 1000


def parse_id(value: str) -> int:
    """Raises: Invalid."""
    if len(value) < 20 and value.isascii() and value.isdigit() and 0 < int(value) <= LARGEST_ID:
        return int(value)
    raise Invalid(f"{value!r} is not an id", "mailer mailings list")


Id = Annotated[int, typer.Argument(metavar="ID", parser=parse_id, show_default=False)]
Ids = Annotated[list[int] | None, typer.Argument(metavar="ID...", parser=parse_id, show_default=False)]
After = Annotated[int | None, typer.Option(metavar="ID", parser=parse_id, help="Go on after this one.")]
Everything = Annotated[bool, typer.Option("--all", help="All instead of ids.")]
End = Annotated[
    str,
    typer.Option(
        metavar="TIME", help="Nothing is sent from then on; as 2026-12-31T18:00, tomorrow 09:00, +90m."
    ),
]
Start = Annotated[str, typer.Option(metavar="TIME", help="Nothing is sent before.")]
NewEnd = Annotated[str | None, typer.Option("--end", metavar="TIME", help="Earlier or later.")]
NewStart = Annotated[str | None, typer.Option("--start", metavar="TIME", help="Only before it has started.")]
TextOption = Annotated[str | None, typer.Option("--text", metavar="TEXT", help="What is sent.")]
TextFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="What is sent, from a file; - is standard input.")
]
Codes = Annotated[
    list[str] | None,
    typer.Option("--operator-code", metavar="CODE", help="Clients with this operator code; repeatable."),
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Clients with this tag; repeatable.")
]
AnyCode = Annotated[bool, typer.Option("--any-operator-code", help="Whatever the operator code.")]
AnyTag = Annotated[bool, typer.Option("--any-tag", help="Whatever the tag.")]
NamedCodes = Annotated[
    list[str] | None,
    typer.Option("--operator-code", metavar="CODE", help="Whose filter names this code; repeatable."),
]
NamedTags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Whose filter names this tag; repeatable.")
]
Statuses = Annotated[
    list[str] | None, typer.Option("--status", metavar="STATUS", help="In this status; repeatable.")
]
Everyone = Annotated[bool, typer.Option("--all", help="Every client, without a filter.")]
Hours = Annotated[
    str | None,
    typer.Option("--window", metavar="A-B", help="Send only in these hours of each client, as 09:00-21:00."),
]
Rate = Annotated[
    str | None, typer.Option("--rate", metavar="N/s", help="At most so many a second; also N/m, N/h.")
]
NoWindow = Annotated[bool, typer.Option("--no-window", help="Send at any hour.")]
NoRate = Annotated[bool, typer.Option("--no-rate", help="No rate of its own.")]
Priority = Annotated[
    int | None, typer.Option(metavar="N", min=-PRIORITY, max=PRIORITY, help="The highest goes first.")
]
Paused = Annotated[bool, typer.Option("--paused", help="Asleep until it is resumed.")]
Dispatch = Annotated[bool, typer.Option("--dispatch", help="Send at once, in this process.")]
Preview = Annotated[bool, typer.Option("--dry-run", help="Show who would get it, create nothing.")]
Fate = Annotated[Literal["failed", "unknown"], typer.Option("--status", help="Which of its messages.")]
Reason = Annotated[str | None, typer.Option(metavar="REASON", help="Only those with exactly this reason.")]


def text_of(text: str | None, source: Path | None) -> str | None:
    """What is sent; the line ends after the last line of a file are no part of it, as in `$(...)`."""
    if source is None:
        return text
    if text is not None:
        raise Invalid("--text and --text-file contradict each other", "leave one of them out")
    return read_text(source).replace("\r\n", "\n").rstrip("\n")


def required_text_of(text: str | None, source: Path | None) -> str:
    written = text_of(text, source)
    if written is None:
        raise Invalid("there is no text", "add --text or --text-file")
    return written


def statuses_of(values: Sequence[str] | None) -> "list[MailingStatus]":
    from mailer_cli.models import MailingStatus

    for each in values or ():
        if each not in list(MailingStatus):
            raise Invalid(f"--status is {each!r}, allowed are {', '.join(MailingStatus)}")
    return [MailingStatus(each) for each in values or ()]


def window_of(value: str) -> "Window":
    from mailer_cli.times import BadTime, parse_window

    try:
        return parse_window(value)
    except BadTime as error:
        raise Invalid(f"--window: {error}", error.hint) from error


def rate_of(value: str) -> float:
    from mailer_cli.settings import parse_rate

    try:
        return parse_rate(value)
    except ValueError as error:
        raise Invalid(f"--rate is {value!r}, allowed is {error}") from error


def want_content(wanted: "Edit", text: str | None, source: Path | None, priority: int | None) -> None:
    if (written := text_of(text, source)) is not None:
        wanted["text"] = written
    if priority is not None:
        wanted["priority"] = priority


def want_times(wanted: "Edit", at: Invocation, start: str | None, end: str | None) -> None:
    if start is not None:
        wanted["start_at"] = at.parse_time("--start", start)
    if end is not None:
        wanted["end_at"] = at.parse_time("--end", end)


def want_filter(
    wanted: "Edit",
    codes: Sequence[str] | None,
    any_code: bool,
    tags: Sequence[str] | None,
    any_tag: bool,
    everyone: bool,
) -> None:
    _only_one("--operator-code", bool(codes), "--any-operator-code", any_code)
    _only_one("--tag", bool(tags), "--any-tag", any_tag)
    if codes or any_code:
        wanted["operator_codes"] = codes or ()
    if tags or any_tag:
        wanted["tags"] = tags or ()
    if everyone:
        wanted["everyone"] = True


def want_pace(wanted: "Edit", window: str | None, no_window: bool, rate: str | None, no_rate: bool) -> None:
    _only_one("--window", window is not None, "--no-window", no_window)
    _only_one("--rate", rate is not None, "--no-rate", no_rate)
    if window is not None or no_window:
        wanted["window"] = window_of(window) if window is not None else None
    if rate is not None or no_rate:
        wanted["rate"] = rate_of(rate) if rate is not None else None


def _only_one(one: str, is_one: bool, other: str, is_other: bool) -> None:
    if is_one and is_other:
        raise Invalid(f"{one} and {other} contradict each other", "leave one of them out")
