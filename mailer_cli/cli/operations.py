"""`mailer doctor`, `health` and `schedule`: keeping it running."""

import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailer_cli import output
from mailer_cli.cli.common import Invocation, command, parse_duration

if TYPE_CHECKING:
    from mailer_cli.schedule import Installation

schedule = typer.Typer(no_args_is_help=True, help="Entries for cron and systemd, with the right paths.")

MaxAge = Annotated[
    str, typer.Option(metavar="DURATION", help="How long ago a dispatch may have been at work: 3m, 1h.")
]


def register(app: typer.Typer) -> None:
    """Hang these commands on the program."""
    app.add_typer(schedule, name="schedule")
    command(app, "doctor", example="mailer doctor", exits=(0, 2, 74, 75, 77, 78))(doctor)
    command(app, "health", example="mailer health --max-age 3m", exits=(0, 1, 2, 78))(health)


def doctor(at: Invocation) -> output.Result:
    """Look at settings, token, database, clock and zones, and say what is wrong. Sends no request.

    The exit code is that of the command which would stumble on it.
    """
    from mailer_cli import doctor
    from mailer_cli.cli.findings import shown

    return shown(list(doctor.examine(lambda: at.settings, at.now())))


def health(at: Invocation, max_age: MaxAge = "3m") -> output.Result:
    """Tell monitoring whether a dispatch has been at work lately and did not end in trouble: exit 0 or 1."""
    from mailer_cli import database
    from mailer_cli.times import json_time

    limit = parse_duration("--max-age", max_age)
    opened = database.unopened(at.settings)
    database.require_file(opened.path)
    beaten_at = database.last_beat(opened)
    age = at.now() - beaten_at if beaten_at else None
    bad = database.bad_end(opened, beaten_at)
    healthy = age is not None and abs(age) <= limit and bad is None
    found: dict[str, Any] = {
        "healthy": healthy,
        "last_run_at": json_time(beaten_at) if beaten_at else None,
        "age_seconds": round(age.total_seconds(), 3) if age is not None else None,
        "reason": bad.reason if bad else None,
        "since": json_time(bad.since) if bad else None,
    }
    if bad and age is not None and abs(age) <= limit:
        told = f"unhealthy: since {at.show_time(bad.since)} each run has ended by {bad.reason}: mailer doctor"
    else:
        told = _told(age, max_age, healthy)
    return output.Note(found, [told], exit_code=0 if healthy else 1)


def _told(age: timedelta | None, max_age: str, healthy: bool) -> str:
    if age is None:
        return "unhealthy: no dispatch has ever run here"
    seconds = age.total_seconds()
    if healthy:
        return f"healthy: a dispatch was at work {abs(seconds):.0f} s ago"
    if seconds < 0:
        return f"unhealthy: the last dispatch was {-seconds:.0f} s in the future, check the clock"
    return f"unhealthy: no dispatch for {seconds:.0f} s, allowed are {max_age}"


@command(schedule, "cron", example="mailer schedule cron", exits=(0, 2, 78))
def cron(at: Invocation) -> output.Result:
    """Print a crontab for this folder."""
    from mailer_cli import schedule

    return output.Text("crontab", [schedule.crontab(_installation(at))], warnings=_left_behind())


@command(schedule, "systemd", example="mailer schedule systemd", exits=(0, 2, 78))
def systemd(at: Invocation) -> output.Result:
    """Print a service and a timer for this folder."""
    from mailer_cli import schedule

    here = _installation(at)
    unit = [schedule.service(here), "\n", schedule.timer()]
    return output.Text("systemd", unit, warnings=(*_left_behind(), *_unusable(at, here)))


def _left_behind(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """What is set here and not there: cron and systemd start with an environment of their own. Names only."""
    names = sorted(each for each in environment if each.startswith("MAILER_") and environment[each].strip())
    names += ["TZ"] if environment.get("TZ") and "MAILER_TIMEZONE" not in names else []
    if not names:
        return ()
    return (f"set in the environment, and not in these lines: {', '.join(names)}; put it into .env",)


def _unusable(at: Invocation, here: "Installation") -> tuple[str, ...]:
    """What the unit's user cannot use of what it needs."""
    from mailer_cli import files, owners

    try:
        who = owners.person(here.user)
    except KeyError:
        return (f"there is no user {here.user} here, whom the unit names",)
    program = [Path(sys.executable), Path(here.command[0]), Path(__file__)]
    found = [
        owners.kept_from(who, each, owners.READ) for each in (*program, *(each.resolve() for each in program))
    ]
    kept = [*files.kept_from(who, at.settings), *(each for each in found if each is not None)]
    return tuple(f"the unit runs as {here.user}, who cannot use {each}" for each in dict.fromkeys(kept))


def _installation(at: Invocation) -> "Installation":
    from mailer_cli import database
    from mailer_cli.schedule import Installation

    here = Path.cwd()
    options = ["-C", str(here)]
    if at.env_file:
        options += ["--env-file", str(here / at.env_file)]
    if at.database_setting:
        options += ["--database", at.database_setting]
    written = [database.unopened(at.settings).path, *([Path(at.settings.log)] if at.settings.log else [])]
    writable = list(dict.fromkeys(each.resolve().parent for each in written))
    return Installation(
        command=[*_program(), *options],
        folder=here,
        writable=writable,
        user=_owner(writable[0]),
        max_seconds=at.settings.max_seconds,
        timeout=at.settings.timeout,
    )


def _owner(folder: Path) -> str:
    """Who owns the database's folder, also when root asks."""
    from mailer_cli import owners

    try:
        return owners.name_of(folder.stat().st_uid)
    except OSError:  # no such folder yet
        return owners.name_of(os.getuid())


def _program() -> list[str]:
    """How this program was started, from anywhere."""
    started = Path(sys.argv[0])
    if started.name == "mailer" and started.is_file():
        return [str(started.absolute())]
    return [sys.executable, "-m", "mailer_cli"]
