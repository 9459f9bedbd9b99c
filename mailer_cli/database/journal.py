"""Which journal is safe with this SQLite; decided here and nowhere else."""

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True)
class Journal:
    """Which journal is used and why."""

    mode: str
    reason: str


def choose_journal(setting: str | None, version: tuple[int, ...] = sqlite3.sqlite_version_info) -> Journal:
    """WAL where SQLite is free of the checkpoint race that can corrupt it, else TRUNCATE.

    Source: sqlite.org/wal.html, "The WAL-reset bug": 3.7.0 to 3.51.2, mended in 3.50.7 and 3.44.6 too.
    """
    if setting is not None:
        return Journal(setting, "MAILER_JOURNAL says so")
    mended = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    number = ".".join(map(str, version))
    if mended:
        return Journal("wal", f"SQLite {number} has the WAL-reset bug mended")
    return Journal(
        "truncate", f"SQLite {number} can damage a WAL database when two processes checkpoint at once"
    )


def journal_of(raw: sqlite3.Connection) -> str:
    """The journal in use."""
    return str(raw.execute("PRAGMA journal_mode").fetchone()[0])


def set_journal(raw: sqlite3.Connection, mode: str) -> None:
    """Change it; needs a moment alone with the database. Raises: sqlite3.OperationalError."""
    raw.execute(f"PRAGMA journal_mode = {mode}")
