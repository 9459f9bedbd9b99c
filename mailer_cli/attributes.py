"""What a phone, an operator code, a tag and a time zone may be, in a command, a list and a filter."""

import re
import unicodedata
from collections.abc import Sequence

from mailer_cli.errors import Invalid
from mailer_cli.plural import counted
from mailer_cli.times import BadTime, Zone, find_zone
from mailer_cli.words import plain_cell, plain_number

PHONE_HINT = "write 79161234567, +7 916 123-45-67 or 8 (916) 123-45-67"
BETWEEN_DIGITS = re.compile(r"[\s().\[\]\u2010-\u2015\u2212-]")
PHONE = re.compile(r"(?:\+?7|8)(\d{10})", re.ASCII)
NO_FRACTION = re.compile(
    r"(\d{11}|\d\d( \d{3}){3})[.,]0+", re.ASCII
)  # a spreadsheet's number, all of it there
FRACTION = re.compile(r"\+?(\d+|\d{1,3}([ ,]\d{3})+)\.\d+", re.ASCII)  # one, of which digits may be missing
CODE = re.compile(r"\d{3}", re.ASCII)
UNWANTED = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: controls, halves of characters, line separators


class BadAttribute(Invalid):
    """A value that cannot be a client's; its kind is what it has in common with others."""

    def __init__(self, what: str, value: str, fault: str, hint: str | None = None) -> None:
        super().__init__(f"{what} {_quoted(value)} {fault}", hint)
        self.kind = f"{what} {fault}"


def parse_phone(value: str) -> int:
    """The phone as it is stored. Raises: Invalid with the reason."""
    if len(value) == 11 and value[0] == "7" and value.isascii() and value.isdecimal():
        return int(value)  # as most lists have it
    written = plain_number(value)
    if NO_FRACTION.fullmatch(written):
        written = re.split("[.,]", written)[0]
    match = PHONE.fullmatch(BETWEEN_DIGITS.sub("", written))
    if match is None or FRACTION.fullmatch(written):
        raise BadAttribute("phone", value, _fault(written), PHONE_HINT)
    return int(f"7{match[1]}")


def plain_phones(values: Sequence[str]) -> list[int] | None:
    """What `parse_phone` makes of each when all are written as they are stored, else None."""
    written = "".join(values)
    if not (written.isascii() and written.isdecimal() and set(map(len, values)) == {11}):
        return None
    phones = [*map(int, values)]
    return phones if min(phones) >= 70_000_000_000 and max(phones) < 80_000_000_000 else None


def _fault(written: str) -> str:
    bare = BETWEEN_DIGITS.sub("", written)
    digits = bare.removeprefix("+")
    if not bare:
        return "is empty"
    if re.search(r"\d[eE]\+?\d", written) or FRACTION.fullmatch(written):
        return "is a number that a spreadsheet has made of it"
    if not (digits.isascii() and digits.isdecimal()):
        return "has other characters than digits"
    if len(digits) != 11:
        return f"has {counted(len(digits), 'digit')} instead of 11"
    return "begins with +8 instead of +7" if bare.startswith("+8") else "does not begin with 7"


def parse_code(value: str) -> str:
    """Raises: Invalid."""
    code = plain_number(value)
    if not CODE.fullmatch(code):
        raise BadAttribute("operator code", value, "is not three digits", "write 916")
    return code


def derived_code(phone: int) -> str:
    """The operator code of a phone whose owner never took it to another operator."""
    return str(phone)[1:4]


def parse_tag(value: str) -> str:
    """The tag as it is stored and compared; "" is none. Raises: Invalid."""
    tag = plain_cell(value)
    if not tag.isprintable() and any(unicodedata.category(each) in UNWANTED for each in tag):
        raise BadAttribute("tag", value, "has control characters")
    return tag


def parse_blocked(value: str) -> bool:
    """Whether the status of a listed client is `blocked`; it may be left out. Raises: Invalid."""
    status = plain_cell(value).lower()
    if status not in ("", "active", "blocked"):
        hint = "--ignore status, if it means something else"
        raise BadAttribute("status", value, "is neither active nor blocked", hint)
    return status == "blocked"


def parse_zone(value: str) -> Zone:
    """Raises: Invalid."""
    try:
        return find_zone(plain_number(value))
    except BadTime as error:
        raise Invalid(f"time zone {error}", error.hint) from error


def _quoted(value: str) -> str:
    return repr(value if len(value) <= 40 else f"{value[:39]}…")
