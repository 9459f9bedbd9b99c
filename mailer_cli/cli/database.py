"""`mailer init` and `mailer db`: the database as a file."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailer_cli import output
from mailer_cli.cli.common import DryRun, Force, Invocation, Yes, command, confirm, parse_duration
from mailer_cli.errors import Invalid
from mailer_cli.plural import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mailer_cli.outbox import Started
    from mailer_cli.retention import Purged

db = typer.Typer(no_args_is_help=True, help="The database: upgrade, check, backup, restore, purge.")

Source = Annotated[Path, typer.Argument(metavar="FILE", help="A backup that `mailer db backup` made.")]
Target = Annotated[Path, typer.Argument(metavar="FILE|-", help="Where the copy goes; - is standard output.")]


def register(app: typer.Typer) -> None:
    """Hang these commands on the program."""
    app.add_typer(db, name="db")
    command(app, "init", example="mailer init", exits=(0, 2, 74, 75, 78))(init)


def init(at: Invocation) -> output.Result:
    """Make the database and a .env to fill in. Nothing is overwritten; repeating is safe."""
    from mailer_cli import database, settings

    env_file = at.env_file or Path(".env")
    _require_no_database(at, env_file)
    env_made = settings.write_template(env_file)
    opened, made = database.create_database(at.settings)
    lines = [
        f"{'made' if env_made else 'kept'} {env_file}",
        f"{'made' if made else 'kept'} {opened.path}, schema {database.SCHEMA}",
        f"time zone {at.settings.timezone}, from {at.settings.timezone_source}: times are in it, and clients"
        " without one get it; MAILER_TIMEZONE in .env changes that, mailer clients rezone those who have it",
        *_whose(opened.path if made else env_file, is_new=made or env_made),
        _next_step(at, env_file),
    ]
    found = {"database": str(opened.path), "made": made, "env_file": str(env_file), "env_made": env_made}
    readable = f"other users can read {env_file}, which holds the token: chmod 600 {env_file}"
    warnings = (readable,) if settings.others_can_read(env_file) else ()
    found |= {"schema": database.SCHEMA, "timezone": at.settings.timezone}
    return output.Note(found, lines, warnings=(*warnings, *at.zone_warnings))


def _require_no_database(at: Invocation, env_file: Path) -> None:
    """Raises: Invalid when the settings would be written where SQLite would take them for its own."""
    from mailer_cli import files, settings

    given = at.settings if env_file.exists() else settings.load(Path(os.devnull))
    if at.database_setting:
        given = replace(given, database=at.database_setting)
    if what := files.taken_for(env_file, files.of_database(given)):
        raise Invalid(f"{env_file} cannot be the settings file: it is {what}", "name another file")


def _whose(path: Path, *, is_new: bool) -> list[str]:
    """Root is told that what it has made is not its own."""
    from mailer_cli import owners

    uid = path.stat().st_uid
    if not is_new or uid == os.geteuid():
        return []
    return [f"they are {owners.name_of(uid)}'s, whose folder this is"]


def _next_step(at: Invocation, env_file: Path) -> str:
    if at.settings.token is None:
        return f"next: write the gateway's token into {env_file} (TOKEN=...), then: mailer doctor"
    return "next: mailer doctor; mailer clients import FILE; mailer mailings create"


@command(db, "upgrade", example="mailer db upgrade", exits=(0, 2, 74, 75, 78), changes="id")
def upgrade(at: Invocation) -> output.Result:
    """Bring the database's schema up to date, all or nothing. Repeating is safe."""
    from mailer_cli import database

    opened = database.unopened(at.settings)
    database.require_file(opened.path)
    before, after = database.upgrade(opened, at.settings)
    done = (
        f"upgraded from {before or 'nothing'} to {after}"
        if before != after
        else f"has schema {after} already"
    )
    return output.Note({"before": before, "after": after}, [f"{opened.path} {done}"])


@command(db, "check", example="mailer db check", exits=(0, 1, 2, 74, 75, 78))
def check(at: Invocation) -> output.Result:
    """Look for damage in the file and for broken rules in its content. Changes nothing."""
    from mailer_cli import invariants
    from mailer_cli.cli.findings import shown

    return shown(list(invariants.check(at.database, at.now())))


@command(db, "backup", example="mailer db backup /backups/mailer.db", exits=(0, 1, 2, 74, 75, 78))
def backup(at: Invocation, target: Target, force: Force = False) -> output.Result | None:
    """Copy the database, also while a dispatch runs. FILE is complete and checked, or not there at all.

    With - the copy is made in the temporary folder (TMPDIR), then written to standard output.
    """
    from mailer_cli import backup as copies
    from mailer_cli import files

    if files.to_stdout(target) and at.printer.as_json:
        raise Invalid("a database is no JSON", "name a file, or leave out --json")
    size = copies.back_up(at.database, at.target(target, force=force))
    if files.to_stdout(target):
        return None
    return output.Note(
        {"file": str(target), "bytes": size}, [f"copied {at.database.path} to {target}, {size / 1e6:.1f} MB"]
    )


@command(
    db,
    "restore",
    example="mailer db restore /backups/mailer.db --yes",
    exits=(0, 1, 2, 74, 75, 78),
    changes="id",
)
def restore(
    at: Invocation,
    source: Source,
    keep_pending: Annotated[
        bool,
        typer.Option("--keep-pending", help="Nothing was sent since the backup: what waited still waits."),
    ] = False,
    yes: Yes = False,
) -> output.Result:
    """Put a backup in the place of the database. The replaced one is kept beside it.

    Open mailings are paused. What waited in the backup may have been sent since, so it becomes unknown;
    `mailer mailings retry ID --status unknown` gives it back to the queue. A mailing that has begun since the
    backup may have been sent whole: it is named, and resume asks.
    """
    from mailer_cli import backup as copies

    schema = copies.look_at(source)
    confirm(at, f"replace the database {at.settings.database} by {source}, schema {schema}?", yes)
    done = copies.restore(at.settings, source, at.now(), keep_pending=keep_pending)
    after = done.after
    lines = [
        f"restored {at.settings.database} from {source}",
        *([f"kept what it was as {done.kept}"] if done.kept else []),
        f"{counted(after.paused, 'mailing')} paused, {counted(after.unknown, 'message')} unknown,"
        f" {after.pending:,} pending",
        "clients and the stop list are those of the backup",
        *_may_be_sent(at, after.started),
        "next: mailer mailings list --status paused; look at each before mailer mailings resume ID",
    ]
    found = {"database": at.settings.database, "kept": str(done.kept) if done.kept else None}
    counts = {"paused": after.paused, "unknown": after.unknown, "pending": after.pending}
    started = {"may_be_sent": [each.mailing_id for each in after.started]}
    return output.Note(found | {"schema_before": done.schema_before} | counts | started, lines)


def _may_be_sent(at: Invocation, started: "Sequence[Started]") -> list[str]:
    """What a restore cannot know, of each mailing of which the backup knew only that it was to start."""
    return [
        f"mailing {each.mailing_id} was to start {at.show_time(each.start_at)}, and may have been sent since"
        " the backup: resume asks"
        for each in started
    ]


@command(
    db, "purge", example="mailer db purge --older-than 90d --yes", exits=(0, 1, 2, 74, 75, 78), changes="id"
)
def purge(
    at: Invocation,
    older_than: Annotated[
        str, typer.Option(metavar="DURATION", help="How long ago a mailing ended: 90d, 12h.")
    ],
    dry_run: DryRun = False,
    yes: Yes = False,
) -> output.Result:
    """Delete the messages of mailings that ended long ago; the mailings and their totals stay.

    What is unfinished is never touched: a mailing with a message that waits or is in flight is skipped; what
    is unknown is final. Runs of that time go too. Safe while a dispatch runs; if interrupted, repeat it.
    """
    from mailer_cli import retention

    now = at.now()
    before = now - parse_duration("--older-than", older_than)
    if dry_run or not yes:
        planned = retention.plan(at.database, before)
        if dry_run:
            return _purged(at, planned, before, dry_run=True)
        what = f"{counted(planned.messages, 'message')} of {counted(len(planned.mailings), 'mailing')}"
        confirm(at, f"Delete {what} that ended before {at.show_time(before)}?", yes)
    with at.printer.progress("purging", None) as progress:
        done = retention.purge(at.database, before, now, sleep=time.sleep, progress=progress)
    return _purged(at, done, before, dry_run=False)


def _purged(at: Invocation, done: "Purged", before: "datetime", *, dry_run: bool) -> output.Note:
    from mailer_cli.times import json_time

    counts = {"messages": done.messages, "attempts": done.attempts, "runs": done.runs}
    whole = ", ".join(counted(number, name.removesuffix("s")) for name, number in counts.items())
    ended = f"{counted(len(done.mailings), 'mailing')} that ended before {at.show_time(before)}"
    lines = [
        f"{'would delete' if dry_run else 'deleted'} {whole}",
        f"{'would purge' if dry_run else 'purged'} {ended}; their totals stay",
    ]
    if done.messages and not dry_run:
        lines.append("the file keeps its size; new data fills the free space first")
    skipped = [
        {
            "mailing_id": each.mailing_id,
            "pending": each.pending,
            "sending": each.sending,
            "open_attempts": each.open_attempts,
        }
        for _, each in sorted(done.skipped.items())
    ]
    data = {"before": json_time(before), "mailings": len(done.mailings), **counts, "skipped": skipped}
    return output.Note(data, lines, [_skipped(skipped)] if skipped else [])


def _skipped(rows: list[dict[str, int]]) -> output.Table:
    title = f"skipped {counted(len(rows), 'mailing')}, unfinished until a mailer dispatch has seen to it:"
    columns = [output.column(name, right=True) for name in rows[0]]
    return output.Table(rows, columns, title=title)
