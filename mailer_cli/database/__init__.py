"""Where the data lives; the only package that knows the dialect and its file.

engine.py    an open database: transactions that take turns, the driver's errors in our words
schema.py    making, opening, upgrading; ids that are never used again
journal.py   which journal is safe with this SQLite
paging.py    long lists, read in short transactions
turns.py     a run's transactions, each done once, whatever its COMMIT says
rows.py      many rows for one statement
fit.py       rows that are not what their table says
temporary.py where SQLite keeps what is temporary
files.py     the file as a whole: copies, damage, putting another content in its place
locks.py     which runs are alive
ended.py     how the newest runs have ended
"""

from mailer_cli import SCHEMA
from mailer_cli.database.ended import BadEnd, bad_end
from mailer_cli.database.engine import BUSY_TIMEOUT, Database, insert_new, persistently, translated
from mailer_cli.database.journal import Journal, choose_journal
from mailer_cli.database.locks import RunLocks, last_beat, lock_path
from mailer_cli.database.paging import pages
from mailer_cli.database.schema import (
    create_database,
    open_database,
    require_file,
    require_folder,
    require_known,
    reserve_message_ids,
    schema_of,
    unopened,
    upgrade,
)

__all__ = [
    "BUSY_TIMEOUT",
    "SCHEMA",
    "BadEnd",
    "Database",
    "Journal",
    "RunLocks",
    "bad_end",
    "choose_journal",
    "create_database",
    "insert_new",
    "last_beat",
    "lock_path",
    "open_database",
    "pages",
    "persistently",
    "require_file",
    "require_folder",
    "require_known",
    "reserve_message_ids",
    "schema_of",
    "translated",
    "unopened",
    "upgrade",
]
