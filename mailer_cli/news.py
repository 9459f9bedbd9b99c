"""What was said already: cron mails every word, so what lasts is said when it begins and once an hour."""

from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select
from sqlmodel import col

from mailer_cli.database import Database
from mailer_cli.models import Notice

SAY_AGAIN = timedelta(hours=1)


def is_news(database: Database, subject: str, words: str, now: datetime) -> bool:
    """Whether this is to be said of the subject now; it counts as said then. Without words there is nothing
    to say, and the next word is news. Writes only what changes."""
    last = select(col(Notice.words), col(Notice.said_at)).where(col(Notice.subject) == subject)
    with database.read() as connection:
        said = connection.execute(last).first()
    if said is None:
        if not words:
            return False
    elif said.words == words and abs(now - said.said_at) < SAY_AGAIN:  # not if a clock ahead has said it
        return False
    with database.write() as connection:
        connection.execute(delete(Notice).where(col(Notice.subject) == subject))
        if words:
            connection.execute(insert(Notice).values(subject=subject, words=words, said_at=now))
    return bool(words)
