"""Records -> checked rows, which are staged, and rejects with reasons; memory does not grow with the list."""

import csv
import gc
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from mailer_cli import clients
from mailer_cli.attributes import BadAttribute
from mailer_cli.csv_import import staging
from mailer_cli.csv_import.columns import REJECT_COLUMNS, Header, folded
from mailer_cli.csv_import.faults import Fault, Faults, Reject
from mailer_cli.csv_import.lines import MARK
from mailer_cli.csv_import.records import Chunk
from mailer_cli.csv_import.staging import OnConflict
from mailer_cli.database import Database
from mailer_cli.errors import Invalid
from mailer_cli.plural import counted
from mailer_cli.words import plain, plain_number

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

KEPT = 50_000  # combinations of attributes remembered; a list has some hundreds, unless it is a strange one
Cells = tuple[str, ...]

KNOWN = "phone of a client already"
TWICE = "phone of an earlier line of the list, other values"
TWICE_HINT = "leave one of the lines"
TOO_MANY = "more fields than the first line names"
TOO_MANY_HINT = "put a cell that holds the delimiter into quotes"


class Bad(Invalid):
    """A row that cannot be taken."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def _fault_of(error: Invalid) -> Fault:
    if isinstance(error, Bad):
        return error.fault
    kind = error.kind if isinstance(error, BadAttribute) else error.message
    return Fault(error.message, kind, error.hint)


class Attributes(dict[Cells, int]):
    """Ids of the combinations of code, tag, zone and status in a list: cells as written -> id. Each
    combination is checked when it comes first, and then waits in `fresh` to be staged. Raises: Invalid."""

    def __init__(self) -> None:
        self.fresh: list[staging.Numbered] = []
        self.warnings: dict[str, None] = {}
        self._last = 0
        self._faults: dict[Cells, Fault] = {}  # a search for what was meant takes longer than a thousand rows

    def __missing__(self, cells: Cells) -> int:
        if cells in self._faults:
            raise Bad(self._faults[cells])
        try:
            return self._take(cells)
        except Invalid as error:
            if len(self._faults) >= KEPT:
                self._faults.clear()
            self._faults[cells] = _fault_of(error)
            raise

    def _take(self, cells: Cells) -> int:
        code, tag, zone, status = cells
        checked = (
            clients.parse_code(code) if plain_number(code) else None,
            clients.parse_tag(tag) or None,
            self._zone(zone) if plain_number(zone) else None,
            clients.parse_blocked(status) or None,
        )
        if len(self) >= KEPT:
            self.clear()
        self._last += 1
        self.fresh.append((self._last, *checked))
        self[cells] = self._last
        return self._last

    def _zone(self, cell: str) -> str:
        """Raises: Bad, with what to write: whoever mends the list sees nothing else."""
        try:
            zone = clients.parse_zone(cell)
        except Invalid as error:
            reason = f"{error.message}: {error.hint}" if error.hint else error.message
            raise Bad(Fault(reason, f"time zone is none: {error.hint}", error.hint)) from error
        if zone.warning:
            self.warnings[zone.warning] = None
        return zone.name


class Reading:
    """A list while it is read: what was staged, what was rejected, and why."""

    def __init__(
        self,
        database: Database,
        header: Header,
        on_conflict: OnConflict,
        rejects: "SupportsWrite[str] | None",
    ) -> None:
        self.total = self.repeated = 0
        self.faults = Faults()
        self.attributes = Attributes()
        self._database = database
        self._header = header
        self._fails_on_known = on_conflict == OnConflict.ERROR
        self._rejects = RejectsFile(rejects, header) if rejects is not None else None
        with database.read() as connection:  # nothing but temporary tables is written
            staging.prepare(connection)

    def take(self, chunk: Chunk) -> None:
        """Check records, stage the good ones, tell of the others."""
        found, faults = self._check_at_once(chunk), dict[int, Fault]()
        if found is None:
            found, faults = self._check(chunk)
        self.total += len(found) + len(faults)
        with self._database.read() as connection:
            if self._fails_on_known:
                known = staging.known_clients(connection, [phone for phone, _, _ in found])
                faults |= {
                    line: Fault(f"phone of client {known[phone]}", KNOWN)
                    for phone, line, _ in found
                    if phone in known
                }
                found = [row for row in found if row[0] not in known]
            repeats = staging.stage(connection, found, self.attributes.fresh)
        if repeats or self._fails_on_known:
            gc.collect(0)  # few cycles, but in them the long statements that asked about all phones
        self.attributes.fresh.clear()
        self.repeated += sum(each.same for each in repeats)
        faults |= {
            each.line: Fault(f"phone of line {each.first_line}, other values", TWICE, TWICE_HINT)
            for each in repeats
            if not each.same
        }
        if faults:
            self._reject(chunk, faults)

    def _check_at_once(self, chunk: Chunk) -> list[staging.Staged] | None:
        """What `_check` finds, column by column and faster; None when some cell needs a closer look."""
        if chunk.faults:
            return None
        try:
            columns = [*zip(*chunk.records, strict=True)]
            phones = clients.plain_phones(columns[self._header.phone])
            if phones is None or len(columns) != len(self._header.names):
                return None
            empty = ("",) * len(phones)
            others = (empty if place is None else columns[place] for place in self._header.others)
            ids = map(self.attributes.__getitem__, zip(*others, strict=True))
            return [*zip(phones, chunk.lines, ids, strict=True)]
        except (ValueError, IndexError, Invalid):
            return None

    def _check(self, chunk: Chunk) -> tuple[list[staging.Staged], dict[int, Fault]]:
        found, faults = [], dict(chunk.faults)
        width = len(self._header.names)
        place, pick = self._header.phone, _picker(self._header.others)
        attributes, parse_phone = self.attributes, clients.parse_phone
        for line, cells in zip(chunk.lines, chunk.records, strict=True):
            if line in chunk.faults or not any(cells):
                continue
            try:
                fitting = cells if len(cells) == width else _fitted(cells, width)
                found.append((parse_phone(fitting[place]), line, attributes[pick(fitting)]))
            except Invalid as error:
                if not _blank(cells):
                    faults[line] = _fault_of(error)
        return found, faults

    def _reject(self, chunk: Chunk, faults: Mapping[int, Fault]) -> None:
        pairs = [pair for pair in zip(chunk.lines, chunk.records, strict=True) if pair[0] in faults]
        self.faults.add([Reject(line, faults[line]) for line, _ in pairs])
        if self._rejects is not None:
            for line, cells in pairs:
                self._rejects.write(line, faults[line].reason, cells)


def _blank(cells: Sequence[str]) -> bool:
    return not any(cells) or not any(map(plain, cells))


def _fitted(cells: list[str], width: int) -> list[str]:
    """The cells of a row that lacks its last ones, or has more: a spreadsheet drops empty cells at the end
    of rows by blocks of sixteen rows, or writes some. Raises: Bad when one too many is not empty."""
    if not _blank(cells[width:]):
        raise Bad(Fault(f"{counted(len(cells), 'field')} instead of {width:,}", TOO_MANY, TOO_MANY_HINT))
    return [*cells[:width], *[""] * (width - len(cells))]


def _picker(places: Sequence[int | None]) -> Callable[[list[str]], Cells]:
    """A function that takes the cells at these places; an absent one is empty."""
    if None not in places:
        return itemgetter(*places)
    return lambda cells: tuple("" if place is None else cells[place] for place in places)


class RejectsFile:
    """Rejected records as they were, each with its line and the reason, to be mended and imported again: with
    the list's own delimiter, and the mark before it if the list had one.

    Line and reason stand in columns of their own also where a record had too few fields or too many. Nothing
    is written before the first.
    """

    def __init__(self, file: "SupportsWrite[str]", header: Header) -> None:
        names = header.names
        again = tuple(map(folded, names[-2:])) == REJECT_COLUMNS  # a rejects file itself
        self._kept = len(names) - 2 if again else len(names)
        self._width = len(names)
        self._file, self._marked = file, header.marked
        self._writer = csv.writer(file, delimiter=header.delimiter, lineterminator="\n")
        self._header: list[str] | None = [*names[: self._kept], *REJECT_COLUMNS]

    def write(self, line: int, reason: str, cells: Sequence[str]) -> None:
        if self._header is not None:
            self._file.write(MARK if self._marked else "")
            self._writer.writerow(self._header)
            self._header = None
        own = cells[: self._kept]
        missing = [""] * (self._kept - len(own))
        surplus = [] if _blank(cells[self._width :]) else cells[self._width :]
        self._writer.writerow([*own, *missing, line, reason, *surplus])
