"""Which rendering a result gets in this invocation, and where it goes."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

from mailer_cli.errors import DatabaseFailed, Invalid, MailerError, failure
from mailer_cli.output import plain
from mailer_cli.output.results import Card, Json, Note, Result, Table, Text
from mailer_cli.output.safe import clean, clean_lines, dumps

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class Progress(Protocol):
    def __call__(self, done: int, /) -> None: ...


@dataclass
class Printer:
    """Prints results as this invocation wants them."""

    as_json: bool = False
    quiet: bool = False
    colour: bool = True
    stdout: TextIO = field(default_factory=lambda: _usable(sys.stdout))
    stderr: TextIO = field(default_factory=lambda: _usable(sys.stderr))

    _bar: "Bar | None" = None  # while it is shown

    def show(self, result: Result) -> int:
        """Print the result; its exit code, also when the reader leaves before the end.

        Raises: DatabaseFailed when it cannot be written.
        """
        for warning in result.warnings:
            self.warn(warning)
        with _written(self.stdout):
            if self.as_json:
                self._json(result)
            else:
                self._human(result)
        if self.as_json and (error := failed(result, quiet=self.quiet)):
            self.error(error)
        return result.exit_code

    def announce(self, note: Note) -> None:
        """Print what scripts wait for, now, quiet or not; the command itself goes on."""
        with _written(self.stdout):
            self._lines([dumps(note.data)] if self.as_json else map(clean, note.lines))

    def warn(self, text: str) -> None:
        self._tell(f"warning: {clean(text)}")

    def say(self, text: str) -> None:
        """A line about what is going on, for whoever watches."""
        if not self.quiet:
            self._tell("\n".join(map(clean, text.splitlines())))

    def error(self, error: MailerError) -> None:
        if self.as_json:
            shown = {"code": error.code, "message": clean(error.message), "hint": error.hint}
            self._tell(dumps({"error": shown}))
            return
        self._tell(f"error: {clean(error.message)}")
        if error.hint:
            self._tell(f"hint: {clean(error.hint)}")

    @property
    def can_ask(self) -> bool:
        return sys.stdin is not None and sys.stdin.isatty() and self.stderr.isatty()

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Ask on a terminal; without one only `--yes` is a yes.

        Raises: Invalid when nobody can be asked.
        """
        if yes:
            return True
        if not self.can_ask:
            raise Invalid("this needs a yes, and there is no terminal to ask on", "add --yes")
        print(f"{clean(question)} [y/N] ", end="", file=self.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    @property
    def shows_progress(self) -> bool:
        return not self.as_json and not self.quiet and self.stderr.isatty()

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Progress]:
        """A bar on a terminal, nothing anywhere else; call it with the amount done so far."""
        if not self.shows_progress:
            yield lambda done: None
            return
        from mailer_cli.output import terminal

        shown = terminal.progress(terminal.console(self.stderr, colour=self.colour))
        with _untroubled(shown):
            task = shown.add_task(clean(label), total=total)
            self._bar = shown
            try:
                yield lambda done: shown.update(task, completed=done)
            finally:
                self._bar = None

    def _tell(self, line: str) -> None:
        """A line on stderr, above a bar; where nobody can be told, the exit code has to do."""
        with suppress(OSError):
            if self._bar is not None:
                from mailer_cli.output import terminal

                terminal.above(self._bar, line)
            else:
                print(line, file=self.stderr, flush=True)

    def _json(self, result: Result) -> None:
        match result:
            case Table():
                self._json_rows(map(result.data, result.rows) if result.data else result.rows)
            case Text():
                self._lines([dumps({result.key: "".join(result.pieces)})])
            case Card() | Note():
                self._lines([dumps(result.data)])

    def _json_rows(self, rows: Iterable[Json]) -> None:
        first = True
        for row in rows:
            self.stdout.write(("[" if first else ",\n ") + dumps(row))
            first = False
        self.stdout.write("[]\n" if first else "]\n")

    def _human(self, result: Result) -> None:
        match result:
            case Table(done=True) | Card() | Note() if self.quiet and result.exit_code == 0:
                return
            case Table():
                self._table(result)
            case Text():
                is_read = self.stdout.isatty()  # by eyes; a file or a pipe gets it as it is
                for piece in result.pieces:
                    self.stdout.write(clean_lines(piece) if is_read else piece)
            case Card():
                self._card(result)
                self._tables(result.tables)
                self._lines(map(clean, result.notes))
            case Note():
                self._lines(map(clean, result.lines))
                self._tables(result.tables)

    def _lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.stdout.write(f"{line}\n")

    def _tables(self, tables: Sequence[Table]) -> None:
        for table in tables:
            self._lines([""])
            self._table(table)

    def _card(self, card: Card) -> None:
        if not self.stdout.isatty():
            return self._lines(plain.card(card))
        from mailer_cli.output import terminal

        return terminal.card(terminal.console(self.stdout, colour=self.colour), card)

    def _table(self, table: Table) -> None:
        if table.title and not self.quiet:
            self._lines([clean(table.title)])
        if not self.stdout.isatty():
            return self._lines(plain.table(table, _columns()))
        from mailer_cli.output import terminal

        return terminal.table(terminal.console(self.stdout, colour=self.colour), table)


@contextmanager
def _untroubled(bar: "Bar") -> Iterator[None]:
    """Show it; where that fails, because the terminal is gone, the work that it is about goes on."""
    with suppress(OSError):
        bar.start()
    try:
        yield
    finally:
        with suppress(OSError):
            bar.stop()


def failed(result: Result, *, quiet: bool) -> MailerError | None:
    """What a script is told on stderr of a command that has a result and yet did not do what it should."""
    if not result.exit_code or not isinstance(result, Card | Note):
        return None
    if result.error is not None or quiet or isinstance(result, Card):
        return result.error
    return failure(result.exit_code, [*result.warnings, *result.lines, "it failed"][0])


def _columns() -> int | None:
    """How wide a table in a pipe is wanted; None when nobody said it."""
    wanted = os.environ.get("COLUMNS", "")
    return int(wanted) if wanted.isascii() and wanted.isdecimal() and 0 < int(wanted) < 100_000 else None


def _usable(stream: TextIO | None) -> TextIO:
    """The stream, taking every character: a pipe gets UTF-8 whatever the locale says, a terminal that
    lacks a character gets its escape. A closed one (`>&-`) fails when it is written to, as a full one."""
    if stream is None:
        return open(os.devnull, encoding="utf-8")  # noqa: PTH123  not writable; lives as long as we do
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    return stream


@contextmanager
def _written(stream: TextIO) -> Iterator[None]:
    try:
        yield
        stream.flush()
    except OSError as error:
        if not has_left(error):
            raise unwritten(stream, error) from error
        _let_go(stream)  # `mailer clients list | head` is no error


def has_left(error: OSError) -> bool:
    """Whether nobody is there to read: a pipe that was closed, or a terminal."""
    return isinstance(error, BrokenPipeError) or error.errno == errno.EIO


def unwritten(stream: TextIO, error: OSError) -> DatabaseFailed:
    """The error of a stream that took no more."""
    _let_go(stream)
    return DatabaseFailed(f"cannot write the output: {error.strerror or 'it is closed'}", "send it elsewhere")


def _let_go(stream: TextIO) -> None:
    """Send what the stream still holds nowhere, or the interpreter complains of it at its end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
