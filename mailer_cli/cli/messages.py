"""`mailer messages`: who got it, who did not, why; and an operator's word on what nobody could know."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mailer_cli import output
from mailer_cli.cli.common import LARGEST_ID, Invocation, Limit, command
from mailer_cli.cli.mailing_views import purge_warnings
from mailer_cli.errors import Invalid

if TYPE_CHECKING:
    from mailer_cli.messages import Event, Overview
    from mailer_cli.models import MessageStatus

group = typer.Typer(no_args_is_help=True, help="Messages: who got it, who did not, and why.")

Id = Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, show_default=False)]
Ids = Annotated[list[int], typer.Argument(metavar="ID...", min=1, max=LARGEST_ID, show_default=False)]


def register(app: typer.Typer) -> None:
    """Hang these commands on the program."""
    app.add_typer(group, name="messages")


@command(group, "list", example="mailer messages list --mailing 5 --status failed --status unknown")
def list_(
    at: Invocation,
    mailing: Annotated[
        int | None, typer.Option(metavar="ID", min=1, max=LARGEST_ID, help="Of this mailing.")
    ] = None,
    client: Annotated[
        int | None, typer.Option(metavar="ID", min=1, max=LARGEST_ID, help="To this client.")
    ] = None,
    status: Annotated[
        list[str] | None, typer.Option(metavar="STATUS", help="In this status; repeatable.")
    ] = None,
    operator_code: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="To clients with this code; repeatable.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="To clients with this tag; repeatable.")
    ] = None,
    phone: Annotated[str | None, typer.Option(metavar="PHONE", help="To this phone.")] = None,
    reason: Annotated[str | None, typer.Option(metavar="REASON", help="With exactly this reason.")] = None,
    limit: Limit = None,
    after: Annotated[
        int | None, typer.Option(metavar="ID", min=1, max=LARGEST_ID, help="Go on after this one.")
    ] = None,
) -> output.Result:
    """List messages, the newest first; those of removed mailings too."""
    from mailer_cli import attributes, audience, messages

    wanted = messages.Wanted(
        mailing_id=mailing,
        client_id=client,
        statuses=_statuses_of(status),
        operator_codes=[attributes.parse_code(each) for each in operator_code or ()],
        tags=[audience.checked_tag(each) for each in tag or ()],
        phone=attributes.parse_phone(phone) if phone is not None else None,
        reason=reason,
    )
    purged = _purge_warnings(at, mailing) if mailing is not None else ()
    found = messages.listed(at.database, wanted, at.now(), after=after, limit=limit)
    return output.Table(
        map(messages.as_json, found), _columns(at), empty="no messages found", warnings=purged
    )


@command(group, "show", example="mailer messages show 12000000001")
def show(at: Invocation, message: Id) -> output.Result:
    """Show a message, its text, and everything that happened to it."""
    from mailer_cli import messages

    with at.database.read() as connection:
        found = messages.find(connection, message)
        text = messages.text_of(connection, message)
        history = messages.history(connection, message)
    events = [messages.event_json(each) for each in history]
    card = _card(at, found, text)
    data = {**card.data, "text": text, "history": events}
    return output.Card(data, card.lines, [_history(at, history)])


@command(group, "resolve", example="mailer messages resolve 12000000001 --as sent", changes="message_id")
def resolve(
    at: Invocation,
    messages_: Ids,
    as_: Annotated[Literal["sent", "failed"], typer.Option("--as", help="What became of them.")],
) -> output.Result:
    """Say what became of messages whose fate the program cannot know: only those that are unknown.

    One id gives one message; several give a list of them, and are settled all or none.
    """
    from mailer_cli import messages
    from mailer_cli.models import MessageStatus

    ids = list(dict.fromkeys(messages_))
    with at.database.write() as connection:
        resolved = messages.resolve(connection, ids, MessageStatus(as_), at.now())
    if len(resolved) == 1:
        return _card(at, resolved[0])
    return output.Table(map(messages.as_json, resolved), _columns(at), done=True)


def _purge_warnings(at: Invocation, mailing_id: int) -> tuple[str, ...]:
    from mailer_cli import mailings

    with at.database.read() as connection:
        return purge_warnings(at, mailings.find(connection, mailing_id, at.now()))


def _columns(at: Invocation) -> tuple[output.Column, ...]:
    return (
        output.column("id", right=True),
        output.column("mailing_id", "mailing", right=True, leaves=2),
        output.column("client_id", "client", right=True, leaves=3),
        output.column("phone"),
        output.column("status", status=True),
        output.column("attempts", right=True, leaves=4),
        output.Column("sent", _time(at, "sent_at"), leaves=1),
        output.Column("due", _time(at, "due_at"), leaves=5),
        output.column("reason", flexible=True),
    )


def _time(at: Invocation, key: str) -> Callable[[output.Json], str]:
    return lambda row: at.show_time(row[key] and datetime.fromisoformat(row[key]))


def _card(at: Invocation, message: "Overview", text: str | None = None) -> output.Card:
    from mailer_cli import messages

    lines = [
        ("message", str(message.id)),
        ("status", message.status.value),
        ("reason", message.reason),
        ("mailing", str(message.mailing_id)),
        ("client", str(message.client_id)),
        ("phone", "none: the client was removed" if message.phone is None else str(message.phone)),
        ("text", text),
        ("attempts", str(message.attempts)),
        ("created", at.show_time(message.created_at)),
        ("due", at.show_time(message.due_at) if message.status == "pending" else None),
        ("sent", at.show_time(message.sent_at)),
    ]
    return output.Card(messages.as_json(message), [(name, value) for name, value in lines if value])


def _history(at: Invocation, history: Sequence["Event"]) -> output.Table:
    rows = [
        {
            "attempt": each.attempt,
            "at": at.show_time(each.started_at),
            "took": f"{(each.ended_at - each.started_at).total_seconds():.2f} s" if each.ended_at else "",
            "outcome": each.outcome or "in flight",
            "http": each.http_status,
            "code": each.code,
            "error": each.error,
        }
        for each in history
    ]
    columns = (
        output.column("attempt", right=True),
        output.column("at"),
        output.column("took", right=True, leaves=1),
        output.column("outcome"),
        output.column("http", right=True),
        output.column("code", right=True),
        output.column("error", flexible=True),
    )
    told = [each for each in columns if any(each.show(row) for row in rows)]
    return output.Table(rows, told, empty="no attempt yet")


def _statuses_of(values: Sequence[str] | None) -> "list[MessageStatus]":
    from mailer_cli.models import MessageStatus

    try:
        return [MessageStatus(each.strip().lower()) for each in values or ()]
    except ValueError as error:
        raise Invalid(f"--status: {error}", f"allowed are {', '.join(MessageStatus)}") from error
