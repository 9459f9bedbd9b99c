"""Is everything in place? Each check is a small function that gives findings; no request is sent."""

import base64
import binascii
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import func, select, update
from sqlmodel import col

from mailer_cli import database, files, logs, owners
from mailer_cli.database import Database, choose_journal
from mailer_cli.database.ended import GOOD
from mailer_cli.database.journal import journal_of
from mailer_cli.errors import DatabaseFailed, MailerError, Misconfigured, TokenRefused
from mailer_cli.findings import Finding, failure, ok, warning
from mailer_cli.models import Client, GatewayState, Mailing, Run
from mailer_cli.plural import counted
from mailer_cli.settings import Settings, others_can_read
from mailer_cli.times import is_known, show_time

TOKEN_WARNING = timedelta(days=7)
CLOCK_TOLERANCE = timedelta(seconds=5)  # two hosts' clocks are never quite equal
PROBE = 64 * 1024  # bytes, as much as a turn writes
LITTLE = 50_000_000  # bytes
OLDEST_SQLITE = (3, 35, 0)  # UPDATE ... RETURNING


@dataclass(frozen=True)
class Case:
    """What is examined, and when."""

    settings: Settings
    now: datetime

    def time(self, moment: datetime) -> str:
        return show_time(moment, self.settings.timezone)


def examine(load: Callable[[], Settings], now: datetime) -> Iterator[Finding]:
    """Everything that can be looked at without sending a request; whatever is broken becomes a finding."""
    yield from _safely("sqlite", _sqlite)
    try:
        case = Case(load(), now)
    except MailerError as error:
        yield failure("settings", error)
        return
    for name, check in CHECKS.items():
        yield from _safely(name, check, case)
    yield from _safely("database", _in_database, case)


def _safely(name: str, check: Callable[..., Iterable[Finding]], *given: Any) -> Iterator[Finding]:
    try:
        yield from check(*given)
    except MailerError as error:
        yield failure(name, error)
    except Exception as error:  # a doctor does not die of what the patient has
        yield failure(name, MailerError(f"cannot be checked: {type(error).__name__}", "please report it"))


def _sqlite() -> Iterator[Finding]:
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise Misconfigured(f"SQLite {found} is too old, mailer needs {oldest}", "use a newer Python")
    yield ok("sqlite", f"SQLite {found}")


def _settings(case: Case) -> Iterator[Finding]:
    path = case.settings.env_file or Path(".env")
    if not path.exists():
        yield ok("settings", "valid; there is no .env, all come from the environment")
    elif others_can_read(path):
        yield warning("settings", f"other users can read {path}, which holds the token", f"chmod 600 {path}")
    else:
        yield ok("settings", f"valid; {path} is the operator's alone")
    if case.settings.unknown:
        names = ", ".join(case.settings.unknown)
        yield warning("settings", f"no setting has the name {names}", "correct it, or take it out")


def _gateway(case: Case) -> Iterator[Finding]:
    url = case.settings.require_url()
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        yield warning("url", f"{url} sends the token and all phones unencrypted", "use https://")
    else:
        yield ok("url", url)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _token(case: Case) -> Iterator[Finding]:
    token = case.settings.require_token()
    expires_at = expiry(token)
    if expires_at is None:
        yield ok("token", "a JWT that does not expire")
    elif expires_at <= case.now:
        raise TokenRefused(f"the token expired at {case.time(expires_at)}", "put a new one into .env: TOKEN")
    elif expires_at - case.now < TOKEN_WARNING:
        left = (expires_at - case.now) // timedelta(hours=1)
        yield warning(
            "token", f"the token expires at {case.time(expires_at)}, in {left} hours", "get a new one in time"
        )
    else:
        yield ok("token", f"a JWT that expires at {case.time(expires_at)}")


def expiry(token: str) -> datetime | None:
    """When a JWT expires, unverified; None when it does not say. Raises: Misconfigured, without the token."""
    _, payload, _ = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        seconds = claims.get("exp")
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (binascii.Error, ValueError, AttributeError, TypeError, OverflowError, OSError):
        text = "TOKEN is not a JWT: its middle part cannot be read"
        raise Misconfigured(text, "copy the token again") from None


def _log(case: Case) -> Iterator[Finding]:
    if case.settings.log is None:
        yield ok("log", "none is kept (MAILER_LOG)")
        return
    path = Path(case.settings.log)
    if what := logs.mistaken_for(path, case.settings):
        yield warning("log", f"MAILER_LOG names {what}, {path}: no log is kept", "name another file")
        return
    try:
        os.close(logs.open_file(path, like=database.unopened(case.settings).path))
        yield ok("log", f"{path} can be written")
    except OSError as error:
        yield warning("log", f"{path} cannot be written: {error.strerror}", f"ls -ld {path} {path.parent}")


def _owner(case: Case) -> Iterator[Finding]:
    """What the owner of the database, as whom cron and systemd run it, could not use."""
    path = database.unopened(case.settings).path
    if not path.exists():
        return
    who = owners.person(path.stat().st_uid)
    kept = list(files.kept_from(who, case.settings))
    for each in kept:
        text = f"{who.name}, whose the database is, cannot use {each}"
        error = DatabaseFailed(text, f"sudo chown --reference={path} {each}")
        yield failure("owner", error)
    if not kept:
        yield ok("owner", f"{who.name}, whose the database is, can use all that belongs to it")


def _in_database(case: Case) -> Iterator[Finding]:
    opened = database.open_database(case.settings)
    if opened.path.stat().st_mode & 0o007:  # a group may be meant to
        text = f"every user can read {opened.path}, which holds the phones"
        yield warning("database", text, f"chmod o= {opened.path}")
    else:
        yield ok("database", f"{opened.path} has schema {database.SCHEMA}")
    for name, check in DATABASE_CHECKS.items():
        yield from _safely(name, check, case, opened)


def _journal(case: Case, opened: Database) -> Iterator[Finding]:
    chosen = choose_journal(case.settings.journal)
    with opened.outside_transactions() as raw:
        used = journal_of(raw)
    if used == chosen.mode:
        yield ok("journal", f"{used}: {chosen.reason}")
    else:
        yield warning("journal", f"{used}, but {chosen.mode} is due: {chosen.reason}", "mailer db upgrade")


def _dispatch(case: Case, opened: Database) -> Iterator[Finding]:
    beaten_at = database.last_beat(opened)
    if beaten_at is None:
        yield warning("dispatch", "none has ever run here", "mailer schedule cron")
    else:
        yield ok("dispatch", f"last at work at {case.time(beaten_at)}")


def _last_run(case: Case, opened: Database) -> Iterator[Finding]:
    newest = select(col(Run.id), col(Run.started_at), col(Run.ended_at), col(Run.stopped))
    with opened.read() as connection:
        run = connection.execute(newest.order_by(col(Run.id).desc()).limit(1)).first()
    if run is None:
        yield ok("last run", "no dispatch has had anything to do yet")
        return
    began = f"run {run.id} began at {case.time(run.started_at)}"
    if run.ended_at is None:
        yield ok("last run", f"{began} and has not ended")
    elif run.stopped is None:
        yield ok("last run", f"{began} and did all that was due")
    elif run.stopped in GOOD:
        yield ok("last run", f"{began} and was stopped: {run.stopped}")
    else:
        hint = REMEDIES.get(run.stopped, "mailer dispatch says more; please report an internal error")
        yield warning("last run", f"{began} and was stopped: {run.stopped}", hint)


REMEDIES = {
    "token_refused": "put a new TOKEN into .env",
    "wrong_url": "check URL in .env",
    "gateway_down": "ask those who run the gateway; each run tries one message until it is back",
    "gateway_nonsense": "ask those who run the gateway; each run tries one message until it is back",
    "too_many_rejected": "mailer messages list --status failed, then mailer mailings edit or cancel",
}


def _writing(case: Case, opened: Database) -> Iterator[Finding]:
    """Write as a run does, in the file, its journal and beside it, and take it back."""
    free = shutil.disk_usage(opened.path.resolve().parent).free
    room = f"{free / 1e6:,.0f} MB are free"
    try:
        with tempfile.TemporaryFile(dir=opened.path.resolve().parent) as beside:
            beside.write(bytes(PROBE))
            beside.flush()
    except OSError as error:
        folder = opened.path.resolve().parent
        raise DatabaseFailed(
            f"nothing can be written in {folder}: {error.strerror}; {room}", f"ls -ld {folder}; df {folder}"
        ) from error
    with opened.write() as connection:
        connection.execute(update(GatewayState).values(faults=col(GatewayState.faults)))
        connection.rollback()
    if free < LITTLE:
        yield warning("writing", f"it can be written, but only {room}", "free some space")
    else:
        yield ok("writing", f"it can be written; {room}")


def _breaker(case: Case, opened: Database) -> Iterator[Finding]:
    with opened.read() as connection:
        state = connection.execute(select(col(GatewayState.opened_at), col(GatewayState.faults))).one()
    if state.opened_at is None:
        yield ok("breaker", "closed")
    else:
        yield warning(
            "breaker",
            f"open since {case.time(state.opened_at)}, after {counted(state.faults, 'fault')} of the gateway"
            " in a row",
            "it closes by itself when the gateway answers again",
        )


def _clock(case: Case, opened: Database) -> Iterator[Finding]:
    moments = (Run.started_at, Run.ended_at, Mailing.created_at, Mailing.updated_at)
    with opened.read() as connection:
        newest = [connection.execute(select(func.max(col(each)))).scalar() for each in moments]
    latest = max((each for each in newest if each is not None), default=case.now)
    if latest > case.now + CLOCK_TOLERANCE:
        text = f"the clock says {case.time(case.now)}, but the database was changed at {case.time(latest)}"
        yield warning("clock", text, "check the clock: timedatectl")
    else:
        yield ok("clock", case.time(case.now))


def _zones(case: Case, opened: Database) -> Iterator[Finding]:
    with opened.read() as connection:
        used = connection.execute(
            select(col(Client.timezone), func.count())
            .where(col(Client.removed_at).is_(None))
            .group_by(col(Client.timezone))
        ).all()
    lost = [(name, clients) for name, clients in used if not is_known(name)]
    if lost:
        unknown = [f"{name} ({clients:,})" for name, clients in lost]
        raise Misconfigured(
            "this machine does not know the time zones of some clients, whose messages wait where there is a"
            f" window: {', '.join(unknown[:5])}",
            "install newer zone data (tzdata), or mailer clients rezone"
            f" --from {quote(lost[0][0])} --to ZONE",
        )
    here = f"{case.settings.timezone} here, from {case.settings.timezone_source}"
    if case.settings.timezone_doubt is not None:
        text = f"{case.settings.timezone_doubt}; taken is {here}"
        yield warning("time zones", text, "say which it is: MAILER_TIMEZONE in .env")
    else:
        yield ok("time zones", f"{here}; those of all clients are known")


CHECKS = {"settings": _settings, "url": _gateway, "token": _token, "log": _log, "owner": _owner}
DATABASE_CHECKS = {
    "journal": _journal,
    "writing": _writing,
    "dispatch": _dispatch,
    "last run": _last_run,
    "breaker": _breaker,
    "clock": _clock,
    "time zones": _zones,
}
