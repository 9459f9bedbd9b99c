"""What can go wrong for an operator, as a tree; each leaf has its exit code.

    MailerError
    |-- Refused         1   no such id, wrong state, rows rejected
    |-- Invalid         2   wrong usage or input
    |-- GatewayDown    69   gateway unavailable, breaker open
    |-- DatabaseFailed 74   not a database, read-only, full, damaged
    |-- TryLater       75   database locked past its limit
    |-- Nonsense       76   the gateway's answers cannot be believed
    |-- TokenRefused   77   the gateway does not take the token
    `-- Misconfigured  78   a setting, the schema, or no database

70 is left for what is none of these: our own bug. The numbers are those of sysexits.h.
"""

from datetime import datetime


class MailerError(Exception):
    """An error to be shown as one line, with a hint that names the command that helps."""

    exit_code = 70
    code = "internal"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Refused(MailerError):
    exit_code = 1
    code = "refused"


class Invalid(MailerError):
    exit_code = 2
    code = "invalid"


class WrongTimes(Invalid):
    """Moments that do not go together: `{}` stands in the sentence for each of them, which is shown in the
    zone of whoever typed it."""

    def __init__(self, sentence: str, *moments: datetime, hint: str | None = None) -> None:
        super().__init__(sentence.format(*(each.isoformat() for each in moments)), hint)
        self.sentence = sentence
        self.moments = moments


class GatewayDown(MailerError):
    exit_code = 69
    code = "gateway_down"


class DatabaseFailed(MailerError):
    exit_code = 74
    code = "database"


class DamagedRow(DatabaseFailed):
    """A row that cannot be what it is; a run sets it aside and goes on."""


class TryLater(MailerError):
    exit_code = 75
    code = "try_later"


class Nonsense(MailerError):
    exit_code = 76
    code = "gateway_nonsense"


class TokenRefused(MailerError):
    exit_code = 77
    code = "token_refused"


class Misconfigured(MailerError):
    exit_code = 78
    code = "misconfigured"


def failure(exit_code: int, message: str, hint: str | None = None) -> MailerError | None:
    """The error that ends with this exit code; None for a signal, which is no error."""
    kinds: list[type[MailerError]] = [MailerError, *MailerError.__subclasses__()]
    return next((each(message, hint) for each in kinds if each.exit_code == exit_code), None)
