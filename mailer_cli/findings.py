"""What a check found, for `doctor` and `db check`."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mailer_cli.errors import DatabaseFailed, MailerError, Refused


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One sentence about one thing. An error has the exit code of the command that would stumble on it."""

    name: str
    level: Level
    text: str
    hint: str | None = None
    exit_code: int = 0


def ok(name: str, text: str) -> Finding:
    return Finding(name, Level.OK, text)


def warning(name: str, text: str, hint: str | None = None) -> Finding:
    return Finding(name, Level.WARNING, text, hint)


def failure(name: str, error: MailerError) -> Finding:
    """The finding of a check that ran into an error."""
    return Finding(name, Level.ERROR, error.message, error.hint, error.exit_code)


def damaged(name: str, text: str, hint: str) -> Finding:
    return failure(name, DatabaseFailed(text, hint))


def broken(name: str, text: str, hint: str) -> Finding:
    return failure(name, Refused(text, hint))


def exit_code(findings: Sequence[Finding]) -> int:
    """That of the gravest error, damage before anything else; 0 when there is none."""
    codes = [each.exit_code for each in findings if each.level == Level.ERROR]
    return DatabaseFailed.exit_code if DatabaseFailed.exit_code in codes else next(iter(codes), 0)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    shown = [
        {"name": each.name, "level": each.level, "text": each.text, "hint": each.hint} for each in findings
    ]
    return {"ok": exit_code(findings) == 0, "findings": shown}
