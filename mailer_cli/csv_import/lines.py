"""Bytes -> lines of a list: encoding, bounded lines, their numbers. Memory does not grow with the file."""

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO

from mailer_cli.errors import Invalid

BUFFER = 1 << 18  # bytes read, checked and staged together
LONGEST = 1 << 18  # characters of a line; of a longer one, which is no client, only the beginning is kept
MARK = "\ufeff"  # before UTF-8; Python's own utf-8-sig takes it away too, at a third of the speed
MARK_IN_CP1251 = MARK.encode().decode("cp1251")


class Source(io.RawIOBase):
    """A binary stream that knows how much of it was read, and takes no NUL byte."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        self.done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # what io hands over
        try:
            piece = self.file.read(len(buffer))
        except OSError as error:
            raise Invalid(f"cannot read {self.name}: {error.strerror}") from error
        if b"\0" in piece:
            raise Invalid(f"{self.name} has NUL bytes: it is no CSV, or UTF-16", "save it as CSV UTF-8")
        buffer[: len(piece)] = piece
        self.done += len(piece)
        return len(piece)


class Lines:
    """What is read of a list and not yet taken: `waiting`, with their ends, the first of them `number`.

    `marked` says whether the list began with a byte order mark.
    """

    def __init__(self, source: Source, encoding: str) -> None:
        self.waiting: list[str] = []
        self.number = 1
        self.marked = False
        self._lines = _lines(_texts(source, encoding))

    def more(self) -> bool:
        """Read on; False at the end of the list. Raises: Invalid."""
        fresh = next(self._lines, None)
        if fresh is None:
            return False
        if self.number == 1 and not self.waiting and fresh and fresh[0].startswith(MARK):
            self.marked = True
            fresh[0] = fresh[0].removeprefix(MARK)
        self.waiting += fresh
        return True

    def drop(self, count: int) -> None:
        """Take so many lines."""
        del self.waiting[:count]
        self.number += count


def is_too_long(line: str) -> bool:
    return len(line) > LONGEST


def _texts(source: Source, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    passed = 1
    piece = b"first"
    try:
        while piece:
            piece = source.read(BUFFER)
            text = decoder.decode(piece, final=not piece)
            yield text
            passed += text.count("\n") or text.count("\r")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        other = "--encoding cp1251" if encoding == "utf-8" else "leave out --encoding if it is UTF-8"
        line = passed + (before.count(b"\n") or before.count(b"\r"))
        raise Invalid(f"{source.name} is not {encoding} from about line {line} on", other) from error


def _lines(texts: Iterator[str]) -> Iterator[list[str]]:
    """The lines of these texts, in lists as the texts come: ended by \\n, \\r\\n or \\r, as csv sees them."""
    rest = ""
    for text in texts:
        lines = io.StringIO(rest + text, newline="").readlines()
        rest = lines.pop() if lines and not lines[-1].endswith("\n") else ""  # it may go on, also after a \r
        if is_too_long(rest):
            rest = rest[:LONGEST] + rest[-1]  # too long still, with the \r that a \n may follow
        yield lines
    if rest:
        yield [rest]
