"""Lines -> records of a CSV list. What cannot be read as one costs its line, not the list."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mailer_cli.attributes import parse_phone
from mailer_cli.csv_import.columns import HEADER_HINT, Choice, Header, likeness, read_header
from mailer_cli.csv_import.faults import Fault
from mailer_cli.csv_import.lines import LONGEST, MARK_IN_CP1251, Lines, Source, is_too_long
from mailer_cli.errors import Invalid

DELIMITERS = (",", ";", "\t")
SEPARATOR = re.compile(
    r'"?sep=([^"\w\r\n])"?[,;\t]*\s*', re.IGNORECASE
)  # a spreadsheet's word on its own list

Record = list[str]


@dataclass(frozen=True)
class Chunk:
    """Records that follow each other, the number of the first line of each, and what is wrong with those
    lines that could not be read."""

    lines: Sequence[int]
    records: Sequence[Record]
    faults: Mapping[int, Fault] = field(default_factory=dict)


def open_records(
    source: Source, encoding: str, choice: Choice | None = None
) -> tuple[Header, Iterator[Chunk]]:
    """The header, and a stream of the records under it in chunks; an empty line is a record too.

    Raises: Invalid, also while the stream is read, when the file is no list in this encoding.
    """
    lines = Lines(source, encoding)
    header = _header(lines, source.name, choice or Choice())
    return header, _chunks(lines, header)


def _header(lines: Lines, name: str, choice: Choice) -> Header:
    text = _first_line(lines)
    delimiters: Sequence[str] = DELIMITERS
    if said := SEPARATOR.fullmatch(text):
        delimiters, text = said[1], _first_line(lines)
    if text.startswith(MARK_IN_CP1251):
        raise Invalid(f"{name} is UTF-8, not cp1251", "leave out --encoding")
    if not text:
        raise Invalid(f"{name} is empty", HEADER_HINT)
    begun = lines.number - 1
    while True:
        if is_too_long(text):
            raise Invalid(f"line {begun} of {name} is longer than {LONGEST:,} characters", HEADER_HINT)
        readings = [(each, *_cells(text, each)) for each in delimiters]
        delimiter, names, whole = max(readings, key=lambda each: likeness(each[1], choice))
        if whole:
            return read_header(name, names, delimiter, choice, lines.marked)
        more = _next_line(lines)  # its quotes reach into it
        if more is None:
            raise _unreadable(name, begun)
        text += more


def _unreadable(name: str, line: int) -> Invalid:
    return Invalid(
        f"{name} is no CSV from line {line} on: {NO_PARTNER}, or a cell is longer than"
        f" {csv.field_size_limit():,} characters",
        'look there; inside quotes write ""',
    )


def _first_line(lines: Lines) -> str:
    """The next one that is not empty."""
    while (line := _next_line(lines)) is not None:
        if line.strip():
            return line
    return ""


def _next_line(lines: Lines) -> str | None:
    while not lines.waiting:
        if not lines.more():
            return None
    line = lines.waiting[0]
    lines.drop(1)
    return line


def _cells(text: str, delimiter: str) -> tuple[Record, bool]:
    """The cells of the one record in the text, and whether it is a whole one."""
    record = Record()
    with suppress(csv.Error):
        record = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)), True
    return record, False


def _chunks(lines: Lines, header: Header) -> Iterator[Chunk]:
    goes_on = True
    while goes_on:
        goes_on = lines.more()
        chunk = _at_once(lines, header) or _one_by_one(lines, header, ended=not goes_on)
        if chunk.records:
            yield chunk


def _at_once(lines: Lines, header: Header) -> Chunk | None:
    """What `_one_by_one` finds, and faster; None unless each line is a record that can be read."""
    waiting = lines.waiting
    if not waiting or max(map(len, waiting)) > LONGEST:
        return None
    try:
        records = [*csv.reader(waiting, delimiter=header.delimiter, strict=True)]
    except csv.Error:
        return None
    if len(records) != len(waiting):
        return None
    chunk = Chunk(range(lines.number, lines.number + len(records)), records)
    lines.drop(len(records))
    return chunk


class _Walk:
    """An iterator over lines that can be sent back; `ended` once it was asked for more than there are."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.at = 0
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.ended = self.at >= len(self.lines)
        if self.ended:
            raise StopIteration
        self.at += 1
        return self.lines[self.at - 1]


def _one_by_one(lines: Lines, header: Header, *, ended: bool) -> Chunk:
    """The records of the lines that wait. After one that cannot be read it goes on with the next line, so
    that a quote without its partner swallows nothing. Of a record whose end is not read yet, unless
    everything is, the lines go on waiting."""
    walk, numbers, records, faults = _Walk(lines.waiting), [], [], {}
    reader = csv.reader(walk, delimiter=header.delimiter, strict=True)  # begins anew after an error
    start = 0
    while start < len(walk.lines):
        record, fault = _read(reader, walk, header)
        if walk.ended and not ended and sum(map(len, walk.lines[start:])) <= LONGEST:
            break
        if record is None:
            record, walk.at = _loosely(walk.lines[start], header.delimiter), start + 1
        if fault is not None:
            faults[lines.number + start] = fault
        numbers.append(lines.number + start)
        records.append(record)
        start = walk.at
    lines.drop(start)
    return Chunk(numbers, records, faults)


NO_PARTNER = "a quote has no partner"
SWALLOWS = f"{NO_PARTNER}, and swallows other rows"
STRAY = 'a quote inside quotes is not written ""'
QUOTE_HINT = 'inside quotes write "", or none at all'
TOO_BIG = "leave out the column, or shorten it"


def _read(reader: "Iterator[Record]", walk: _Walk, header: Header) -> tuple[Record | None, Fault | None]:
    """The record that begins here, or None when there is none to be read; and what is wrong with it."""
    start = walk.at
    if is_too_long(walk.lines[start]):
        return None, _same(f"the line is longer than {LONGEST:,} characters", TOO_BIG)
    try:
        record = next(reader)
    except csv.Error as error:
        if walk.at > start + 1 or walk.ended:
            return None, _same(NO_PARTNER, QUOTE_HINT)
        if "limit" in str(error):
            return None, _same(f"a cell is longer than {csv.field_size_limit():,} characters", TOO_BIG)
        return None, _same(STRAY, QUOTE_HINT)
    inner = walk.lines[start + 1 : walk.at]
    return record, _same(SWALLOWS, QUOTE_HINT) if any(_is_row(each, header) for each in inner) else None


def _same(reason: str, hint: str) -> Fault:
    return Fault(reason, reason, hint)


def _is_row(line: str, header: Header) -> bool:
    """Whether a line inside quotes looks as if it were meant to be a row."""
    cells = line.split(header.delimiter)
    if not max(1, header.phone) < len(cells) <= len(header.names):
        return False
    try:
        return bool(parse_phone(cells[header.phone]))
    except Invalid:
        return False


def _loosely(line: str, delimiter: str) -> Record:
    """Some cells of a line that cannot be read, for whoever mends it."""
    bare = line.rstrip("\r\n")
    try:
        return next(csv.reader([bare], delimiter=delimiter), [])
    except csv.Error:
        return bare.split(delimiter)
