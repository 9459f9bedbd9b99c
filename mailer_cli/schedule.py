"""Entries for cron and systemd, as text, with the paths of this installation."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mailer_cli.errors import Invalid

TEMPLATES = Path(__file__).with_name("templates")
HOMES = ("/home", "/root", "/run/user")
SCRATCH = ("/tmp", "/var/tmp")  # noqa: S108  named, not used
UNSTARTABLE = set("'\"\\")
PATIENCE = 30  # seconds for a database that is locked


@dataclass(frozen=True)
class Installation:
    """How `mailer` is started here: the words before a command, all paths absolute; where it may write;
    as whom."""

    command: Sequence[str]
    folder: Path
    writable: Sequence[Path]
    user: str
    max_seconds: float = 55.0
    timeout: float = 30.0


def crontab(here: Installation) -> str:
    """Raises: Invalid when a path cannot be written in a crontab."""
    return (
        (TEMPLATES / "crontab")
        .read_text()
        .format(
            mailer=" ".join(_cron_word(each) for each in here.command),
            backups=_cron_word(str(here.folder / "backups")),
        )
    )


def service(here: Installation) -> str:
    """Raises: Invalid when a path cannot be written in a unit."""
    program = here.command[0]
    if set(program) & UNSTARTABLE:
        raise Invalid(f"systemd starts no program with a quote or backslash in its path: {program}")
    paths = [Path(each) for each in here.command] + list(here.writable)
    return (
        (TEMPLATES / "mailer.service")
        .read_text()
        .format(
            mailer=" ".join(_unit_word(each) for each in here.command),
            user=here.user,
            writable=" ".join(_unit_word(str(each)) for each in here.writable),
            protect_home="read-only" if _any_below(HOMES, paths) else "yes",
            private_tmp="no" if _any_below(SCRATCH, paths) else "yes",
            max_seconds=here.max_seconds,
            timeout=here.timeout,
            start_limit=round(here.max_seconds + here.timeout) + PATIENCE,
            stop_limit=round(here.timeout) + PATIENCE,
        )
    )


def timer() -> str:
    return (TEMPLATES / "mailer.timer").read_text()


def _cron_word(word: str) -> str:
    """A word for the shell that cron starts; cron makes a line end of `%`, and `%` of `\\%`, before that."""
    return shlex.quote(_one_line(word)).replace("%", r"\%")


def _unit_word(word: str) -> str:
    """A word of a unit file: `%` begins a specifier, and quotes hold blanks together."""
    escaped = _one_line(word).replace("\\", r"\\").replace('"', r"\"").replace("%", "%%")
    return f'"{escaped}"' if any(each in escaped for each in " '\\\";") else escaped


def _one_line(word: str) -> str:
    if not word.isprintable():
        raise Invalid(f"{word!r} cannot be written in a schedule", "rename it without control characters")
    return word


def _any_below(folders: Sequence[str], paths: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in folders)
