"""The only printer: tables, cards and sentences for people, JSON for scripts, the error line.

A command ends in one result. The result holds what JSON shows; how people see it is said beside it, so that
both renderings are decided in one place. The way of a result:

    results.py    what a command may end in: Table, Card, Note, Text; columns and bars
    safe.py       user data made harmless; how wide it is; JSON
    layout.py     the columns that find room, and their widths
    plain.py      lines for a pipe: no box, one record a line, without Rich
    terminal.py   the same for eyes, by Rich
    printer.py    which of them, and where to
"""

from mailer_cli.output.plain import PIPE_WIDTH
from mailer_cli.output.printer import Printer, Progress, failed, unwritten
from mailer_cli.output.results import (
    BAR,
    DONE,
    LOST,
    OPEN,
    Card,
    Column,
    Json,
    Note,
    Result,
    Table,
    Text,
    bar,
    column,
    stack,
)
from mailer_cli.output.safe import clean, dumps, shorten

__all__ = [
    "BAR",
    "DONE",
    "LOST",
    "OPEN",
    "PIPE_WIDTH",
    "Card",
    "Column",
    "Json",
    "Note",
    "Printer",
    "Progress",
    "Result",
    "Table",
    "Text",
    "bar",
    "clean",
    "column",
    "dumps",
    "failed",
    "shorten",
    "stack",
    "unwritten",
]
