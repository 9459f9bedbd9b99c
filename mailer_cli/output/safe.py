"""User data made harmless for a terminal, measured in its cells, or written as JSON."""

import json
import re
import unicodedata
from typing import Any

HARMLESS = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, bidi and other format characters, lone surrogates


def clean(text: str) -> str:
    """The text without anything that a terminal would obey: control characters are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def clean_lines(text: str) -> str:
    """A text of several lines, each of them clean; line ends and tabs stay."""
    return re.sub(r"[^\n\t]+", lambda found: clean(found[0]), text)


def _visible(character: str) -> str:
    if character in HARMLESS:
        return HARMLESS[character]
    if unicodedata.category(character) not in OBEYED:
        return character
    point = ord(character)
    return f"\\x{point:02x}" if point <= 0xFF else f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


ENCODER = json.JSONEncoder(ensure_ascii=False)  # json.dumps would make one for every row of a list


def dumps(value: Any) -> str:
    """One line of JSON, readable and as harmless as `clean`: what a terminal obeys is `\\u`-escaped."""
    text = ENCODER.encode(value)
    if text.isprintable():
        return text
    return re.sub(r"[^ -~]", lambda found: _json_escape(found[0]), text)


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1] if unicodedata.category(character) in OBEYED else character


def width(text: str) -> int:
    """Cells of a terminal that the text takes: two for a wide character, none for a combining one."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, cells: int) -> str:
    """The text in at most so many cells; `…` at its end says that some is missing."""
    if width(text) <= cells:
        return text
    room = cells - 1
    for index, character in enumerate(text):
        room -= _cells(character)
        if room < 0:
            return f"{text[:index]}…"
    return text


def pad(text: str, cells: int, *, right: bool = False) -> str:
    space = " " * (cells - width(text))
    return space + text if right else text + space
