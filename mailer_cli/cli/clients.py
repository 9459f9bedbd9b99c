"""`mailer clients`: people, their stop list, and lists of them as CSV."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mailer_cli import output
from mailer_cli.cli.common import LARGEST_ID, DryRun, Invocation, Limit, Yes, command, confirm
from mailer_cli.errors import Invalid
from mailer_cli.plural import counted

if TYPE_CHECKING:
    from mailer_cli.clients import Entry, Given, Wanted

app = typer.Typer(no_args_is_help=True, help="Clients: add, list, edit, remove, block, import, export.")

Id = Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="A client's id.")]
Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", min=1, max=LARGEST_ID, help="Clients' ids.")
]
Phone = Annotated[str | None, typer.Option(metavar="P", help="As 79161234567 or +7 916 123-45-67.")]
Phones = Annotated[list[str] | None, typer.Option("--phone", metavar="P", help="A phone; may be repeated.")]
Code = Annotated[str | None, typer.Option(metavar="C", help="Three digits; of the phone when left out.")]
Tag = Annotated[str | None, typer.Option(metavar="T", help='A label; "" is none.')]
Zone = Annotated[str | None, typer.Option(metavar="Z", help="As Europe/Moscow or +03:00.")]
Codes = Annotated[list[str] | None, typer.Option("--operator-code", metavar="C", help="Any of these codes.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="T", help="Any of these tags.")]

COLUMNS = (
    output.column("id", right=True),
    output.column("phone"),
    output.column("operator_code", "code"),
    output.column("tag", flexible=True),
    output.column("timezone", "time zone", leaves=1),
    output.column("status", status=True),
)


def register(program: typer.Typer) -> None:
    """Hang these commands on the program."""
    from mailer_cli.cli import clients_csv  # noqa: F401  its commands hang on `app`

    program.add_typer(app, name="clients")


def _json(row: output.Json) -> output.Json:
    from mailer_cli.times import json_time

    return {
        "id": row["id"],
        "phone": None if row["phone"] is None else str(row["phone"]),
        "operator_code": row["operator_code"],
        "tag": row["tag"],
        "timezone": row["timezone"],
        "created_at": json_time(row["created_at"]),
        "updated_at": json_time(row["updated_at"]),
        "status": row["status"],
    }


def _card(at: Invocation, entry: "Entry", warnings: tuple[str, ...] = ()) -> output.Card:
    lines = [
        ("id", str(entry.id)),
        ("phone", str(entry.phone)),
        ("operator code", entry.operator_code),
        ("tag", entry.tag),
        ("time zone", entry.timezone),
        ("status", entry.status),
        ("created", at.show_time(entry.created_at)),
        ("updated", at.show_time(entry.updated_at)),
    ]
    return output.Card(_json(vars(entry)), lines, warnings=warnings)


def _given(
    phone: str | None, operator_code: str | None, tag: str | None, timezone: str | None
) -> tuple["Given", tuple[str, ...]]:
    """The checked attributes, and the warnings about them. Raises: Invalid."""
    from mailer_cli import clients

    zone = None if timezone is None else clients.parse_zone(timezone)
    given = clients.Given(
        None if phone is None else clients.parse_phone(phone),
        None if operator_code is None else clients.parse_code(operator_code),
        None if tag is None else clients.parse_tag(tag),
        None if zone is None else zone.name,
    )
    return given, (zone.warning,) if zone is not None and zone.warning else ()


def wanted_clients(
    operator_code: list[str] | None, tag: list[str] | None, phone: str | None, status: str | None
) -> "Wanted":
    """Raises: Invalid."""
    from mailer_cli import clients

    return clients.Wanted(
        tuple(clients.parse_code(each) for each in operator_code or ()),
        tuple(clients.parse_tag(each) for each in tag or ()),
        None if phone is None else clients.parse_phone(phone),
        None if status is None else clients.ClientStatus(status),
    )


@command(
    app,
    "add",
    example='mailer clients add --phone "+7 916 123-45-67" --tag vip --timezone Asia/Omsk',
    changes="client_id",
)
def add(
    at: Invocation,
    phone: Annotated[str, typer.Option(metavar="P", help="As 79161234567 or +7 916 123-45-67.")],
    operator_code: Code = None,
    tag: Tag = None,
    timezone: Zone = None,
) -> output.Result:
    """Add a client. Without a zone he gets the configured one."""
    from mailer_cli import clients

    given, warnings = _given(None, operator_code, tag, timezone)
    number = clients.parse_phone(phone)
    with at.database.write() as connection:
        entry = clients.add(connection, number, given, at.settings.timezone, at.now())
    return _card(at, entry, warnings)


@command(app, "list", example="mailer clients list --tag vip --limit 20")
def list_(
    at: Invocation,
    operator_code: Codes = None,
    tag: Tags = None,
    phone: Phone = None,
    status: Annotated[
        Literal["active", "blocked", "removed"] | None,
        typer.Option(help="Only these; all but the removed when left out."),
    ] = None,
    limit: Limit = None,
    after: Annotated[
        int | None, typer.Option(metavar="ID", min=1, max=LARGEST_ID, help="Go on after this client.")
    ] = None,
) -> output.Result:
    """List clients, newest first.

    With --status blocked the whole stop list is shown: after the clients the numbers that are no client's.
    """
    from mailer_cli import clients

    wanted = wanted_clients(operator_code, tag, phone, status)
    entries = clients.listed(at.database, wanted, limit, after)
    return output.Table(map(vars, entries), COLUMNS, data=_json, empty="no clients found")


@command(app, "show", example="mailer clients show 5")
def show(at: Invocation, client_id: Id) -> output.Result:
    """Show one client."""
    from mailer_cli import clients

    with at.database.read() as connection:
        return _card(at, clients.find(connection, client_id))


@command(app, "edit", example="mailer clients edit 5 --timezone +05:00", changes="client_id")
def edit(
    at: Invocation,
    client_id: Id,
    phone: Phone = None,
    operator_code: Annotated[
        str | None, typer.Option(metavar="C", help="Three digits; does not follow the phone by itself.")
    ] = None,
    tag: Tag = None,
    timezone: Zone = None,
) -> output.Result:
    """Change a client; what is left out stays. A blocked one stays blocked under a new phone.

    Messages that wait take the new phone and zone, unless they may have been taken with the old ones.
    """
    from mailer_cli import clients

    given, warnings = _given(phone, operator_code, tag, timezone)
    if given == clients.Given():
        raise Invalid("nothing to change", "give --phone, --operator-code, --tag or --timezone")
    with at.database.write() as connection:
        entry = clients.edit(connection, client_id, given, at.now())
    return _card(at, entry, warnings)


@command(app, "rezone", example="mailer clients rezone --from Etc/UTC --to Europe/Moscow", changes="id")
def rezone(
    at: Invocation,
    from_: Annotated[str, typer.Option("--from", metavar="Z", help="The zone that they have.")],
    to: Annotated[str, typer.Option("--to", metavar="Z", help="The zone that they get.")],
    dry_run: DryRun = False,
) -> output.Result:
    """Give all clients of one zone another, as after an import that gave the wrong one by default.

    Messages that wait follow, unless they may have been taken already.
    """
    from mailer_cli import clients

    zone, old = clients.parse_zone(to), from_
    with suppress(Invalid):  # one that is not known here may be left
        old = clients.parse_zone(from_).name
    if dry_run:
        with at.database.read() as connection:
            changed = clients.in_zone(connection, old) if old != zone.name else 0
    else:
        with at.database.write() as connection:
            changed = clients.rezone(connection, old, zone.name, at.now()) if old != zone.name else 0
    said = f"{'would move' if dry_run else 'moved'} {counted(changed, 'client')} from {old} to {zone.name}"
    warnings = (zone.warning,) if zone.warning else ()
    return output.Note({"changed": changed, "from": old, "to": zone.name}, [said], warnings=warnings)


@command(app, "remove", example="mailer clients remove 5 --yes", changes="client_id")
def remove(at: Invocation, client_id: Id, yes: Yes = False) -> output.Result:
    """Remove a client for good: he loses his phone, and messages that wait are cancelled.

    What was sent to him stays in the statistics, with the phone that it went to until `mailer db purge`. The
    stop list keeps his phone if it was there.
    """
    from mailer_cli import clients

    with at.database.read() as connection:
        clients.find(connection, client_id)
    confirm(at, f"remove client {client_id} for good?", yes)
    with at.database.write() as connection:
        cancelled = clients.remove(connection, client_id, at.now())
    lines = [f"removed client {client_id}", *_cancelled(cancelled)]
    return output.Note({"removed": client_id, "cancelled": cancelled}, lines)


@command(app, "block", example="mailer clients block 5 8 --phone 79161234567", changes="client_id")
def block(at: Invocation, client_ids: Ids = None, phones: Phones = None) -> output.Result:
    """Put phones on the stop list: nothing more is sent to them, whatever is imported later.

    By a client's id, or by a phone, which need not be a client's. Messages that wait are cancelled.
    """
    from mailer_cli import clients

    given = _phones(client_ids, phones)
    with at.database.write() as connection:
        wanted = given | clients.phones_of(connection, client_ids or [])
        new, cancelled = clients.block(connection, wanted, at.now())
    before = len(wanted) - len(new)
    said = f"blocked {counted(len(new), 'number')}"
    lines = [f"{said}, already were {before:,}" if before else said, *_cancelled(cancelled)]
    return output.Note({"blocked": [str(each) for each in new], "cancelled": cancelled}, lines)


@command(app, "unblock", example="mailer clients unblock 5", changes="client_id")
def unblock(at: Invocation, client_ids: Ids = None, phones: Phones = None) -> output.Result:
    """Take phones off the stop list. Messages that were cancelled stay so."""
    from mailer_cli import clients

    given = _phones(client_ids, phones)
    with at.database.write() as connection:
        wanted = given | clients.phones_of(connection, client_ids or [])
        there = clients.unblock(connection, wanted)
    never = len(wanted) - len(there)
    said = f"unblocked {counted(len(there), 'number')}"
    lines = [f"{said}, were not blocked {never:,}" if never else said]
    return output.Note({"unblocked": [str(each) for each in there]}, lines)


def _phones(client_ids: list[int] | None, phones: list[str] | None) -> set[int]:
    """Raises: Invalid."""
    from mailer_cli import clients

    if not client_ids and not phones:
        raise Invalid("which client?", "give ids, or --phone")
    return {clients.parse_phone(each) for each in phones or ()}


def _cancelled(count: int) -> list[str]:
    return [f"messages cancelled: {count:,}"] if count else []
