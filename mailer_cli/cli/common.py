"""What all commands share: options, one invocation's settings, and the road from a function to its result."""

import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailer_cli import output
from mailer_cli.errors import Invalid, WrongTimes
from mailer_cli.output import Printer, Result
from mailer_cli.stop import Stop

if TYPE_CHECKING:
    from mailer_cli.database import Database
    from mailer_cli.files import Own, Target
    from mailer_cli.logs import Log
    from mailer_cli.settings import Settings

EXITS = {
    0: "done, or nothing to do",
    1: "refused: no such id, wrong state, rows rejected",
    2: "wrong usage or input",
    69: "gateway unavailable",
    70: "a bug of ours",
    74: "database or disk",
    75: "database locked, try again later",
    76: "gateway talks nonsense",
    77: "token refused",
    78: "configuration: setting, schema, no database",
}

LARGEST_ID = 2**63 - 1  # what the database can hold

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, change nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")]
Limit = Annotated[int | None, typer.Option(min=1, max=LARGEST_ID, metavar="N", help="At most so many rows.")]


Command = Callable[..., Result | None]


def utc_now() -> datetime:
    """The only clock of the program."""
    return datetime.now(UTC)


@dataclass
class Invocation:
    """What was said before the command, and what a command needs to do its work."""

    env_file: Path | None = None
    database_setting: str | None = None
    colour: bool = True
    verbose: bool = False
    printer: Printer = field(default_factory=Printer)
    stop: Stop = field(default_factory=lambda: Stop(time.monotonic))

    @cached_property
    def settings(self) -> "Settings":
        import dataclasses

        from mailer_cli import settings

        found = settings.load(self.env_file)
        return dataclasses.replace(found, database=self.database_setting) if self.database_setting else found

    @cached_property
    def database(self) -> "Database":
        from mailer_cli import database

        opened = database.open_database(self.settings, self._waits)
        if self.verbose:
            self.printer.say(f"database {opened.path.absolute()}, times in {self.settings.timezone}")
        return opened

    def _waits(self) -> None:
        """Nobody should wonder why a command is silent; cron's is quiet, and a script reads JSON."""
        if not self.printer.as_json:
            self.printer.say(f"waiting for another process that uses {self.settings.database} ...")

    @cached_property
    def log(self) -> "Log":
        from mailer_cli import logs

        echo = self.printer.say if self.verbose else None
        return logs.open_log(self.settings, utc_now, self.printer.warn, echo)

    def target(self, path: Path, *, force: bool, besides: "Iterable[Own]" = ()) -> "Target":
        """Where a command may write. Raises: Invalid when it is a file that the program lives on, or of
        those `besides`."""
        from mailer_cli import files

        return files.target(path, [*files.own_files(self.settings), *besides], force=force)

    def now(self) -> datetime:
        return utc_now()

    @property
    def zone_warnings(self) -> tuple[str, ...]:
        """What has to be said where the configured zone becomes somebody's."""
        found = self.settings
        if found.timezone_doubt is None:
            return ()
        taken = f"{found.timezone} is taken for the time zone here, from {found.timezone_source}"
        return (f"{found.timezone_doubt}; {taken}. MAILER_TIMEZONE in .env says which it is",)

    def parse_time(self, option: str, value: str) -> datetime:
        """Raises: Invalid, naming the option."""
        from mailer_cli.times import BadTime, parse_time

        try:
            return parse_time(value, self.settings.timezone, self.now())
        except BadTime as error:
            raise Invalid(f"{option}: {error}", getattr(error, "hint", None)) from error

    def show_time(self, moment: datetime | None) -> str:
        from mailer_cli.times import show_time

        return "" if moment is None else show_time(moment, self.settings.timezone)


def command(
    app: typer.Typer,
    name: str,
    *,
    example: str,
    exits: tuple[int, ...] = (0, 1, 2, 74, 75, 78),
    changes: str | None = None,
    drains: bool = False,
) -> Callable[[Command], Command]:
    """Make a function a command: it takes the invocation and its own options and gives one result, or
    None when it has announced all there is.

    The command gets `--json`, `--quiet` and `--verbose`, prints the result, and returns its exit code. One
    that changes things says what its ids are called (`changes="mailing_id"`), and is kept in the log. A
    signal ends it where it is, unless it `drains`: then it asks `at.stop`.
    """
    codes = "\n".join(f"  {code:>2}  {EXITS[code]}" for code in exits)
    epilog = f"\b\nExample:\n  {example}\n\n\b\nExit codes:\n{codes}"

    def register(function: Command) -> Command:
        def run(ctx: typer.Context, json: bool, quiet: bool, verbose: bool, **given: Any) -> int:
            invocation: Invocation = ctx.obj
            invocation.verbose = verbose
            invocation.printer = Printer(as_json=json, quiet=quiet, colour=invocation.colour)
            if drains:
                invocation.stop.drain()
            else:
                invocation.stop.interrupt()
            try:
                result = function(invocation, **given)
            except WrongTimes as error:
                shown = error.sentence.format(*map(invocation.show_time, error.moments))
                raise Invalid(shown, error.hint) from error
            if result is None:
                return 0
            exit_code = invocation.printer.show(result)
            invocation.stop.drain()  # it is done, and was told
            if changes is not None and exit_code == 0 and not given.get("dry_run"):
                # result first, log second
                invocation.log.write("command", command=ctx.command_path, **_changed(result, changes))
            return exit_code

        _sign(run, function)
        app.command(name, epilog=epilog, help=inspect.getdoc(function))(run)
        return function

    return register


def _changed(result: Result, ids: str) -> dict[str, Any]:
    """What the log keeps of a result: the ids, else the counts."""
    if isinstance(result, output.Table):
        return {f"{ids}s": [row["id"] for row in result.rows]} if isinstance(result.rows, list) else {}
    if not isinstance(result, output.Card | output.Note) or not isinstance(result.data, Mapping):
        return {}
    if "id" in result.data:
        return {ids: result.data["id"]}
    return {name: value for name, value in result.data.items() if isinstance(value, int | str)}


def _sign(run: Callable[..., int], function: Command) -> None:
    """Give `run` the options of `function`, less its invocation, and the common ones behind them."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    common = {
        "json": Annotated[bool, typer.Option("--json", help="Print one JSON value.")],
        "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing when all is well.")],
        "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Tell on stderr what goes on.")],
    }
    own = list(inspect.signature(function).parameters.values())[1:]
    parameters = [inspect.Parameter("ctx", keyword, annotation=typer.Context)]
    parameters += [each.replace(kind=keyword) for each in own]
    parameters += [
        inspect.Parameter(name, keyword, default=False, annotation=kind) for name, kind in common.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions take any attribute
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__name__ = function.__name__


def confirm(at: Invocation, question: str, yes: bool) -> None:
    """Raises: Refused... by ending the command when the answer is no."""
    if not at.printer.confirm(question, yes=yes):
        raise typer.Exit(1)


def parse_duration(option: str, value: str) -> timedelta:
    """Raises: Invalid, naming the option."""
    from mailer_cli import times

    try:
        return times.parse_duration(value)
    except times.BadTime as error:
        raise Invalid(f"{option}: {error}", error.hint) from error


def read_text(source: Path) -> str:
    """A text from a file, or from standard input for `-`. Raises: Invalid."""
    try:
        if str(source) == "-":
            from mailer_cli import files

            return files.standard_input().read().decode("utf-8-sig")
        return source.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise Invalid(f"cannot read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{source} is not UTF-8: {error.reason} at byte {error.start}") from error


__all__ = [
    "LARGEST_ID",
    "DryRun",
    "Force",
    "Invocation",
    "Limit",
    "Yes",
    "command",
    "confirm",
    "output",
    "parse_duration",
    "read_text",
    "utc_now",
]
