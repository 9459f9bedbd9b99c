"""Bytes -> records of a CSV list: encoding, delimiter, header, line numbers."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import BinaryIO

from mailer_cli.errors import Invalid

COLUMNS = ("phone", "operator_code", "tag", "timezone")
DELIMITERS = (",", ";", "\t")
REJECT_COLUMNS = ("line", "reason")  # what a rejects file adds to the header

BUFFER = 1 << 18
HEADER_HINT = f"the first line must name the columns: {', '.join(COLUMNS)}"
MARK = "\ufeff"  # before UTF-8; Python's own utf-8-sig takes it away too, at a third of the speed
MARK_IN_CP1251 = MARK.encode().decode("cp1251")

CHUNK = 20_000  # records read, checked and staged together

Record = list[str]


@dataclass(frozen=True)
class Chunk:
    """Records that follow each other, and the number of the first line of each."""

    lines: Sequence[int]
    records: Sequence[Record]


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


@dataclass(frozen=True)
class Header:
    """The names as the file has them, and where ours are: the phone, and the others or None."""

    names: list[str]
    delimiter: str
    phone: int
    others: tuple[int | None, ...]

    @property
    def ignored(self) -> list[str]:
        own = (*COLUMNS, *REJECT_COLUMNS)
        return [name.strip() for name in self.names if name.strip() and _folded(name) not in own]


def open_records(source: Source, encoding: str) -> tuple[Header, Iterator[Chunk]]:
    """The header, and a stream of the records under it in chunks; an empty line is a record too.

    Raises: Invalid, also while the stream is read, when the file is no CSV list in this encoding.
    """
    buffered = io.BufferedReader(source, BUFFER)
    lines = io.TextIOWrapper(buffered, encoding=encoding, newline="")
    with _explained(source.name, encoding, lambda: 1):
        first, height = _first_record(lines)
        header = _read_header(source.name, first.removeprefix(MARK))
    return header, _chunks(lines, header, source.name, encoding, height)


def _first_record(lines: Iterator[str]) -> tuple[str, int]:
    """The first line that is not empty, with those that its quotes reach into; how many were read."""
    text, height = "", 0
    for line in lines:
        text, height = text + line if text.strip() else line, height + 1
        whole = text.count('"') % 2 == 0 or len(text) > csv.field_size_limit()
        if text.strip() and whole:
            break
    return text, height


def _read_header(name: str, text: str) -> Header:
    if not text.strip():
        raise Invalid(f"{name} is empty", HEADER_HINT)
    if text.startswith(MARK_IN_CP1251):
        raise Invalid(f"{name} is UTF-8, not cp1251", "leave out --encoding")
    readings = [(_cells(text, delimiter), delimiter) for delimiter in DELIMITERS]
    names, delimiter = max(readings, key=lambda each: len(set(COLUMNS) & set(map(_folded, each[0]))))
    folded = [_folded(each) for each in names]
    for column in COLUMNS:
        if folded.count(column) > 1:
            raise Invalid(f"{name} has the column {column} twice", HEADER_HINT)
    phone, *others = (folded.index(column) if column in folded else None for column in COLUMNS)
    if phone is None:
        raise Invalid(f"{name} has no column phone in its first line", HEADER_HINT)
    return Header(names, delimiter, phone, tuple(others))


def _cells(text: str, delimiter: str) -> list[str]:
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])


def _folded(name: str) -> str:
    return name.strip().lower()


def _chunks(lines: Iterator[str], header: Header, name: str, encoding: str, height: int) -> Iterator[Chunk]:
    # strict, or a quote that is never closed would swallow the rest of the list without a word
    reader = csv.reader(lines, delimiter=header.delimiter, strict=True)
    first, records = height + 1, list[Record]()
    with _explained(name, encoding, lambda: first + sum(map(_height, records))):
        while True:
            records = []  # anew, for the last are with the caller; a fault leaves here what came before it
            records.extend(islice(reader, CHUNK))
            if not records:
                return
            after = reader.line_num + height + 1
            plain = after - first == len(records)
            yield Chunk(range(first, after) if plain else _first_lines(first, records), records)
            first, records = after, []


def _first_lines(first: int, records: Sequence[Record]) -> list[int]:
    return list(accumulate(map(_height, records[:-1]), initial=first))


def _height(record: Record) -> int:
    """How many lines a record takes; more than one when there are line ends inside quotes."""
    return 1 + sum(cell.count("\n") + cell.count("\r") - cell.count("\r\n") for cell in record)


@contextmanager
def _explained(name: str, encoding: str, line: Callable[[], int]) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        other = "--encoding cp1251" if encoding == "utf-8" else "leave out --encoding if it is UTF-8"
        number = line() + error.object[: error.start].count(b"\n")  # read ahead of the reader
        raise Invalid(f"{name} is not {encoding} from about line {number} on", other) from error
    except csv.Error as error:
        raise Invalid(
            f"{name} is no CSV from line {line()} on: {error}",
            'look there for a quote without its partner; inside quotes write ""',
        ) from error
