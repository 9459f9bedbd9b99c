"""The command line: assembly, and `main()`, the only place where an error becomes an exit code."""

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from mailer_cli import __version__
from mailer_cli.cli import (
    clients,
    database,
    demo,
    dispatch,
    mailings,
    messages,
    misuse,
    operations,
    sandbox,
    stats,
)
from mailer_cli.cli.common import Invocation
from mailer_cli.errors import DatabaseFailed, Invalid, MailerError
from mailer_cli.output import Printer, unwritten
from mailer_cli.stop import Stop

app = typer.Typer(
    name="mailer",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="mailer help COMMAND is the same as mailer COMMAND --help.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for noun in (clients, mailings, messages, dispatch, stats, database, operations, sandbox, demo):
    noun.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mailer {__version__}")
        raise typer.Exit


@app.callback()
def before(
    ctx: typer.Context,
    folder: Annotated[
        Path | None, typer.Option("-C", metavar="DIR", help="Run as if started in this folder.")
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings file instead of ./.env.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(metavar="URL|PATH", help="Database instead of MAILER_DATABASE.")
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours; the same as NO_COLOR=1.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run SMS-like campaigns from a shell: clients, mailings, and a dispatcher for cron."""
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise Invalid(f"-C: cannot enter {folder}: {error.strerror}") from error
    colour = not (no_color or os.environ.get("NO_COLOR"))
    ctx.obj = Invocation(env_file=env_file, database_setting=database, colour=colour, stop=ctx.obj)


def main(argv: Sequence[str] | None = None, stop: Stop | None = None) -> int:
    """Run one command; its exit code. Never a traceback: a bug is one line and exit 70."""
    os.umask(0o077)  # whatever is made is the operator's alone
    arguments = list(sys.argv[1:] if argv is None else argv)
    printer, stop = Printer(as_json="--json" in arguments), stop or Stop(time.monotonic)
    try:
        words = misuse.helped(get_command(app), arguments) if "help" in arguments else arguments
        code = app(args=words, prog_name="mailer", standalone_mode=False, obj=stop)
        printer.stdout.flush()
    except BaseException as error:
        if stop.interrupted_by is not None:  # whatever a library has made of it on its way
            return _interrupted(printer, stop.interrupted_by)
        return _failed(printer, error, arguments)
    return code if isinstance(code, int) else 0


def _failed(printer: Printer, error: BaseException, arguments: Sequence[str]) -> int:
    """Tell what has ended a command; its exit code."""
    match error:
        case MailerError():
            return _fail(printer, error)
        case TyperException():
            return _misused(printer, error, arguments)
        case typer.Abort() | KeyboardInterrupt():
            return 130
        case BrokenPipeError() | SystemExit():  # the latter is Typer's, when the reader of a help leaves
            return _reader_left()
        case OSError():  # only one without a file can be the help, or a last flush, that was not written
            return _fail(printer, _unreached(error) if error.filename else unwritten(printer.stdout, error))
        case UnicodeEncodeError():
            return _fail(printer, _not_utf8(arguments) or _bug(error))
        case Exception():
            return _fail(printer, _bug(error))
        case _:
            raise error


def _fail(printer: Printer, error: MailerError) -> int:
    printer.error(error)
    return error.exit_code


def _interrupted(printer: Printer, number: int) -> int:
    if printer.stderr.isatty():
        printer.say("\n")  # the shell's prompt begins a line of its own
    return 128 + number


def _misused(printer: Printer, error: TyperException, arguments: Sequence[str]) -> int:
    context = getattr(error, "ctx", None)
    if context is not None and error.message == context.get_help():  # a group without a command
        printer.say(error.message)
        return Invalid.exit_code
    return _fail(printer, misuse.explained(error, get_command(app), arguments))


def _reader_left() -> int:
    """`mailer --help | head` is no error; keep the interpreter from complaining at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _not_utf8(arguments: Sequence[str]) -> MailerError | None:
    """A file may have any bytes for a name, but what goes into the database is text."""
    odd = next((each for each in arguments if re.search("[\ud800-\udfff]", each)), None)
    return None if odd is None else Invalid(f"{odd!r} is not UTF-8, which SQLite needs")


def _unreached(error: OSError) -> MailerError:
    """A file that cannot even be looked at: a folder that is another's, a name that is too long."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename
    return DatabaseFailed(f"cannot reach {name}: {error.strerror}", "check its name, and its folder's owner")


def _bug(error: Exception) -> MailerError:
    """One line that says where, without values: they may hold phones."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
    return MailerError(
        f"internal error: {type(error).__name__} at {place}", "please report it with this line"
    )
