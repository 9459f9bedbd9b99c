"""The log: one JSON object a line, from which everything about a mailing, message or client can be found."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mailer_cli.database import unopened
from mailer_cli.files import own_files, taken_for
from mailer_cli.owners import identity, open_or_make
from mailer_cli.settings import Settings
from mailer_cli.times import json_time

PHONE = re.compile(r"(?<!\d)7\d{10}(?!\d)")
CLOSED = -1
SECOND = timedelta(seconds=1)


def _foreign(value: object) -> str:
    return json_time(value) if isinstance(value, datetime) else str(value)


ENCODER = json.JSONEncoder(default=_foreign)  # made once; ASCII alone, so that every reader sees one line


def open_log(
    settings: Settings,
    clock: Callable[[], datetime],
    warn: Callable[[str], None],
    echo: Callable[[str], None] | None = None,
) -> "Log":
    """The log that MAILER_LOG names; without one, a log that costs nothing. `echo` gets every line too.

    A name that is another file's of ours is no log: `warn` hears of it.
    """
    path = Path(settings.log) if settings.log else None
    if path is not None and (what := mistaken_for(path, settings)):
        warn(f"MAILER_LOG names {what}, {path}; the work goes on without a log")
        path = None
    return Log(path, clock, warn, settings.token, echo, like=unopened(settings).path)


def mistaken_for(path: Path, settings: Settings) -> str | None:
    """What the name of the log is to the operator otherwise; None when it is nothing else."""
    return taken_for(path, own_files(replace(settings, log=None)))


class Log:
    """Appends lines to a file, one write each, and follows it when logrotate renames it.

    A log that cannot be written never stops the work: `warn` hears of it once.
    """

    def __init__(
        self,
        path: Path | None,
        clock: Callable[[], datetime],
        warn: Callable[[str], None],
        secret: str | None = None,
        echo: Callable[[str], None] | None = None,
        like: Path = Path(),
    ) -> None:
        self._path = path
        self._like = like  # whose the file is to be if root makes it
        self._echo = echo
        self._clock = clock
        self._warn = warn
        self._secret = secret
        self._file = CLOSED
        self._identity: tuple[int, int] | None = None
        self._looked_at = datetime.min.replace(tzinfo=UTC)
        self._broken_line = False
        self._warned = False

    def write(self, event: str, /, **fields: Any) -> None:
        """Append a line: `at` (UTC), `event`, then the fields; phones are masked, the token is left out."""
        if self._path is None and self._echo is None:
            return
        now = self._clock()
        line = ENCODER.encode({"at": json_time(now), "event": event} | _masked(fields))
        if self._secret is not None and self._secret in line:
            line = line.replace(self._secret, "***")
        if self._echo is not None:
            self._echo(line)
        if self._path is None:
            return
        try:
            self._follow(self._path, now)
            self._append(line.encode() + b"\n")
        except OSError as error:
            self._complain(
                f"cannot write the log {self._path}: {error.strerror}; the work goes on without it"
            )

    def close(self) -> None:
        if self._file != CLOSED:
            os.close(self._file)
            self._file = CLOSED

    def _append(self, line: bytes) -> None:
        if self._broken_line:  # a full disk cut the one before
            line = b"\n" + line
        written = os.write(self._file, line)
        self._broken_line = written < len(line)
        if self._broken_line:
            raise OSError(None, "the disk is full")

    def _follow(self, path: Path, now: datetime) -> None:
        """Open the file anew when its name means another one; looked at once a second."""
        if self._file != CLOSED and abs(now - self._looked_at) < SECOND:
            return
        if self._file == CLOSED or identity(path) != self._identity:
            self.close()
            self._file = open_file(path, self._like)
            self._identity = identity(self._file)
        self._looked_at = now

    def _complain(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(text)


def open_file(path: Path, like: Path) -> int:
    """A descriptor to append to, as root for the owner of `like`. Raises: OSError."""
    # not blocking: a pipe that nobody reads is an error, not a wait
    return open_or_make(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK, like)[0]


def _masked(fields: dict[str, Any]) -> dict[str, Any]:
    for name, value in fields.items():
        if name == "phone" and value is not None:
            fields[name] = mask(value)
        elif isinstance(value, str) and len(value) > 10:
            fields[name] = PHONE.sub(lambda found: mask(found[0]), value)
    return fields


def mask(phone: int | str) -> str:
    """A phone as logs and errors may show it: `7916***4567`."""
    digits = str(phone)
    return f"{digits[:4]}***{digits[-4:]}"
