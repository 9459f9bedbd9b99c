"""What is kept of mailings that ended long ago: they themselves and their totals, not their messages.

Purging goes by short write transactions, with a pause after each in which a dispatch gets its turn.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from mailer_cli.database import Database, RunLocks
from mailer_cli.outbox import purge as outbox

TURN = 0.12  # seconds; who waits for the write lock asks for it at least every 0.1
MAILINGS_AT_ONCE = 100  # in one transaction, when they are small


@dataclass
class Purged:
    """What a purge deleted, or would delete; `skipped` are mailings of which something is unfinished."""

    mailings: set[int] = field(default_factory=set)
    messages: int = 0
    attempts: int = 0
    runs: int = 0
    skipped: dict[int, outbox.Aged] = field(default_factory=dict)


def plan(database: Database, before: datetime) -> Purged:
    """What a purge of all that ended before that moment would delete; nothing is changed."""
    found, ripe = _look(database, before)
    found.mailings.update(ripe)
    for messages, attempts in (page for each in ripe for page in _counted(database, each)):
        found.messages += messages
        found.attempts += attempts
    found.runs = len(_spare_runs(database, before, without=ripe))
    return found


def purge(
    database: Database,
    before: datetime,
    now: datetime,
    *,
    sleep: Callable[[float], None],
    progress: Callable[[int], None] = lambda messages: None,
) -> Purged:
    """Delete the messages of all mailings that ended before that moment, and the runs of that time.

    Safe beside dispatches. Killed at any point and repeated it comes to the same. `progress` hears how many
    messages are deleted so far. Raises: TryLater, also while a restore is at work; DatabaseFailed.
    """
    locks = RunLocks(database)
    try:
        locks.keep_content()  # what is known of runs must be true of the database in which they are deleted
        done, ripe = _look(database, before)
        for page in _purge_messages(database, ripe, before, now, sleep):
            done.mailings.update(page.purged)
            done.skipped.update({each.mailing_id: each for each in page.unfinished})
            done.messages += page.messages
            done.attempts += page.attempts
            progress(done.messages)
        done.runs = _delete_runs(database, _spare_runs(database, before), sleep)
    finally:
        locks.close()
    return done


def _look(database: Database, before: datetime) -> tuple[Purged, list[int]]:
    """What has to be left alone, and the mailings that can be purged."""
    with database.read() as connection:
        aged = outbox.aged(connection, before)
    skipped = {each.mailing_id: each for each in aged if each.is_unfinished}
    return Purged(skipped=skipped), [each.mailing_id for each in aged if not each.is_unfinished]


def _purge_messages(
    database: Database,
    mailing_ids: Iterable[int],
    before: datetime,
    now: datetime,
    sleep: Callable[[float], None],
) -> Iterator[outbox.Page]:
    for some in _in_groups(mailing_ids, MAILINGS_AT_ONCE):
        is_last = False
        while not is_last:
            with database.write() as connection:
                page = outbox.purge(connection, some, before, now)
            yield page
            sleep(TURN)
            is_last = page.is_last


def _in_groups(ids: Iterable[int], size: int) -> Iterator[list[int]]:
    left = iter(ids)
    while group := list(islice(left, size)):
        yield group


def _counted(database: Database, mailing_id: int) -> Iterator[tuple[int, int]]:
    """How many messages and attempts a mailing has, page by page."""
    after: int | None = 0
    while after is not None:
        with database.read() as connection:
            after, messages, attempts = outbox.count_page(connection, mailing_id, after)
        yield messages, attempts


def _spare_runs(database: Database, before: datetime, without: Sequence[int] = ()) -> set[int]:
    """Runs that ended before that moment and have no attempts, nor can get any, apart from those of the
    mailings `without`."""
    with database.read() as connection:
        spare = set(outbox.ended_runs(connection, before))
    after: int | None = 0
    while spare and after is not None:
        with database.read() as connection:
            after, kept = outbox.runs_of_page(connection, after, without)
        spare.difference_update(kept)
    return spare


def _delete_runs(database: Database, run_ids: Iterable[int], sleep: Callable[[float], None]) -> int:
    deleted = 0
    with database.without_references():
        for some in _in_groups(sorted(run_ids), outbox.PAGE):
            with database.write() as connection:
                deleted += outbox.delete_runs(connection, some)
            sleep(TURN)
    return deleted
