"""django-post_office with an e-mail backend that posts to the sink: `send_queued_mail`, as cron runs it.

Its queue and its records are one table in SQLite. It records a batch at a time, and writes no log rows.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import django
from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.core.management import call_command

from benchmarks.peers import records

BATCH = 1000
CHUNK = 500  # rows in one INSERT

THREADS = "POST_OFFICE_THREADS"


class GatewayBackend(BaseEmailBackend):
    """One post for each mail; the phone is the local part of its address."""

    def send_messages(self, messages: Sequence[EmailMessage]) -> int:
        for each in messages:
            phone = int(each.to[0].partition("@")[0])
            records.send(int(each.extra_headers["X-Number"]), phone, each.body)
        return len(messages)


def set_up() -> None:
    settings.configure(
        SECRET_KEY="benchmark",
        USE_TZ=True,
        INSTALLED_APPS=["django.contrib.contenttypes", "post_office"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(Path.cwd() / records.FILE),
                "OPTIONS": {
                    "timeout": 60,
                    "transaction_mode": "IMMEDIATE",
                    "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL",
                },
            }
        },
        POST_OFFICE={
            "BACKENDS": {"default": "benchmarks.peers.post_office.GatewayBackend"},
            "BATCH_SIZE": BATCH,
            "BATCH_DELIVERY_TIMEOUT": 600,
            "THREADS_PER_PROCESS": int(os.environ.get(THREADS, "1")),
            "LOG_LEVEL": 0,
            "MESSAGE_ID_ENABLED": False,
        },
        LOGGING={
            "version": 1,
            "disable_existing_loggers": False,
            "loggers": {"post_office": {"level": "ERROR"}},
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()


def prepare(folder: Path, messages: int) -> None:
    set_up()
    call_command("migrate", verbosity=0)
    from post_office.models import PRIORITY, STATUS, Email

    mails = (
        Email(
            from_email="mailer@localhost",
            to=[f"{phone}@localhost"],
            subject="message",
            message=records.TEXT,
            headers={"X-Number": str(number)},
            priority=PRIORITY.medium,
            status=STATUS.queued,
        )
        for number, phone in records.phones(messages)
    )
    Email.objects.bulk_create(mails, batch_size=CHUNK)


def work(processes: str, threads: str) -> None:
    os.environ[THREADS] = threads
    set_up()
    lock = str(Path.cwd() / "lock")
    call_command("send_queued_mail", processes=int(processes), lockfile=lock, log_level=0)


if __name__ == "__main__":
    records.main(prepare, work)
