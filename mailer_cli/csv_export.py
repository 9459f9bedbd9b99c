"""Clients -> CSV with the columns of an import, in pages; importing it again changes nothing."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlmodel import col

from mailer_cli import clients
from mailer_cli.clients import ClientStatus, Wanted
from mailer_cli.csv_import.columns import COLUMNS
from mailer_cli.csv_import.lines import MARK
from mailer_cli.database import Database
from mailer_cli.models import Client

# at the start of a cell, or of what becomes one where a spreadsheet takes another delimiter than ours
FORMULA = re.compile(r"(^|[,;\t\r\n])(?=[\"\s]*[-=+@＝＋－＠])|^(?=[\t\r\n])")


@dataclass
class Export:
    """A list being written. `spreadsheet_safe` puts an apostrophe before what a spreadsheet would run as a
    formula; such a list is for reading, not for importing. `marked` begins it with the mark of UTF-8."""

    database: Database
    wanted: Wanted
    delimiter: str = ","
    spreadsheet_safe: bool = False
    marked: bool = False
    written: int = 0
    stopped: int = 0  # numbers on the stop list that are no client's

    def pieces(self) -> Iterator[str]:
        """The CSV, newest client first; then, unless a filter or status keeps them out, blocked numbers that
        are no client's, or the stop list would be lost with them."""
        attributes = [getattr(Client, name) for name in COLUMNS if name != "status"]
        yield (MARK if self.marked else "") + self._lines([COLUMNS])
        for page in clients.pages(self.database, [col(Client.id), *attributes, clients.STATUS], self.wanted):
            rows = (row[1:] for row in page)
            yield self._lines(map(_harmless, rows) if self.spreadsheet_safe else rows)
            self.written += len(page)
        if self.wanted.status != ClientStatus.ACTIVE:
            for numbers in clients.stopped(self.database, self.wanted):
                yield self._lines((phone, "", "", "", ClientStatus.BLOCKED.value) for phone, _ in numbers)
                self.stopped += len(numbers)

    def _lines(self, rows: Iterable[Sequence[object]]) -> str:
        text = io.StringIO()
        csv.writer(text, delimiter=self.delimiter, lineterminator="\n").writerows(rows)
        return text.getvalue()


def _harmless(row: Sequence[object]) -> list[object]:
    return [FORMULA.sub(r"\1'", cell) if isinstance(cell, str) else cell for cell in row]
