"""`mailer dispatch`: send what is due, as cron does every minute."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailer_cli import output
from mailer_cli.cli.common import LARGEST_ID, DryRun, Invocation, command, utc_now
from mailer_cli.cli.mailing_views import zone_warnings
from mailer_cli.cli.waiting import why_nothing
from mailer_cli.errors import DatabaseFailed, Misconfigured
from mailer_cli.plural import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailer_cli.dispatch import Summary
    from mailer_cli.outbox import Misfit

EXIT_CODES = {
    "clock_ahead": 75,
    "gateway_down": 69,
    "gateway_nonsense": 76,
    "too_many_rejected": 76,
    "token_refused": 77,
    "wrong_url": 78,
}
TROUBLE = {
    "gateway_down": "the gateway is down ({fault}); each run tries one message until it is back",
    "gateway_nonsense": "the gateway's answers cannot be believed ({fault}); each run tries one message",
    "too_many_rejected": "the gateway refused ten messages in a row of {mailings}; the rest of it waits. See "
    "mailer stats",
    "token_refused": "the gateway refuses the token; the messages wait. Put a new TOKEN into .env",
    "wrong_url": "what answers at URL is not the gateway; the messages wait. Check URL in .env",
}
PAUSED = (
    "mailing {id} has paused itself: in three runs in a row ten of its messages in a row were "
    "refused. See mailer mailings show {id}, then mailer mailings resume {id}"
)
ENDINGS = {
    "time_up": "its time was up; the next run goes on",
    "signal": "it was told to stop",
    "clock_ahead": "the clock was set ahead",
}


def register(app: typer.Typer) -> None:
    """Hang the command on the program."""

    exits = (0, 1, 2, 69, 74, 75, 76, 77, 78)

    @command(app, "dispatch", example="mailer dispatch --quiet", exits=exits, drains=True)
    def dispatch(
        at: Invocation,
        mailing: Annotated[
            int | None, typer.Option(metavar="ID", min=1, max=LARGEST_ID, help="Send this mailing alone.")
        ] = None,
        max_seconds: Annotated[
            float | None,
            typer.Option(metavar="S", min=1, max=86_400, help="Claim nothing after so many seconds."),
        ] = None,
        dry_run: DryRun = False,
    ) -> output.Result:
        """Send every message that is due. Made for cron: run it every minute; overlapping runs are safe.

        One SIGTERM, Ctrl-C or closed terminal lets what is in flight finish and gives back the rest; a second
        SIGTERM or Ctrl-C, a second later or more, aborts.
        """
        return show_plan(at, mailing) if dry_run else run_now(at, mailing, max_seconds)


def run_now(at: Invocation, mailing: int | None, max_seconds: float | None = None) -> output.Result:
    """One run, which a signal does not cut off; what it did."""
    at.stop.drain()
    return _result(at, _run(at, mailing, max_seconds), mailing)


def _run(at: Invocation, mailing: int | None, max_seconds: float | None) -> "Summary":
    import dataclasses
    import os
    import random
    import socket
    import time

    from mailer_cli import dispatch
    from mailer_cli.belief import boot_of

    settings = at.settings
    if max_seconds is not None:
        settings = dataclasses.replace(settings, max_seconds=max_seconds)
    _require(at, mailing)
    with at.printer.progress("sending", _waiting(at, mailing)) as progress:
        world = dispatch.World(
            clock=utc_now,
            timer=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),  # counts while the machine sleeps
            chance=random.random,
            log=at.log,
            host=socket.gethostname(),
            pid=os.getpid(),
            stop=at.stop,
            reload_token=lambda: _renewed_token(at),
            progress=progress,
            boot=lambda: boot_of(time.clock_gettime(time.CLOCK_BOOTTIME)),
            warn=at.printer.warn,
        )
        return dispatch.run(at.database, settings, world, mailing)


def _require(at: Invocation, mailing: int | None) -> None:
    """Raises: Refused when there is no such mailing."""
    from mailer_cli import mailings

    if mailing is not None:
        with at.database.read() as connection:
            mailings.find(connection, mailing, at.now())


def _renewed_token(at: Invocation) -> str | None:
    """The token as it is set now; None when that cannot be used, for the run has requests in flight, or is
    for another address than theirs."""
    from mailer_cli import settings

    try:
        url, token = settings.load(at.env_file).require_gateway()
        return token if url == at.settings.require_url() else None
    except Misconfigured:
        return None


def _waiting(at: Invocation, mailing: int | None) -> int | None:
    """How many messages a progress bar should expect; not asked when nobody watches."""
    from mailer_cli import dispatch

    if not at.printer.shows_progress:
        return None
    return sum(each.waiting + (each.audience or 0) for each in dispatch.plan(at.database, at.now(), mailing))


def _result(at: Invocation, summary: "Summary", mailing: int | None) -> output.Result:
    data = as_json(summary)
    exit_code = EXIT_CODES.get(summary.stopped or "", DatabaseFailed.exit_code if summary.misfits else 0)
    if at.stop.aborted_by is not None:
        exit_code = 128 + at.stop.aborted_by
    lines = (
        [] if at.printer.quiet else _lines(at, summary, mailing)
    )  # also in trouble: that is said once, as a warning
    return output.Note(data, lines, exit_code=exit_code, warnings=_warnings(at, summary))


def as_json(summary: "Summary") -> dict[str, Any]:
    """A run as scripts see it."""
    from mailer_cli.times import json_time

    return {
        "run_id": summary.run_id,
        "started_at": json_time(summary.started_at),
        "seconds": summary.seconds,
        **vars(summary.counts),
        "stopped": summary.stopped,
        "put_aside": list(summary.put_aside),
        "paused": list(summary.paused),
    }


def _warnings(at: Invocation, summary: "Summary") -> tuple[str, ...]:
    """Cron mails every word: in quiet runs only what is news is said."""
    quiet = at.printer.quiet
    found: list[str] = []
    if summary.stopped in TROUBLE and not (quiet and not summary.is_news):
        fault = summary.fault or "opened by another run"
        put_aside = ", ".join(f"mailing {each}" for each in summary.put_aside)
        found.append(TROUBLE[summary.stopped].format(fault=fault, mailings=put_aside))
    elif summary.is_news:
        found.append("the gateway is back")
    found += [PAUSED.format(id=each) for each in summary.paused]
    if summary.is_news_of_zones or not quiet:
        found += zone_warnings(summary.unknown_zones)
    if summary.stopped == "clock_ahead" and (summary.is_news_of_clock or not quiet):
        found.append(_doubt(summary))
    if quiet and summary.counts.expired:
        expired = counted(summary.counts.expired, "message")
        found.append(f"{expired} expired: their mailings ended before they could go. See mailer stats")
    if summary.given_back:
        found.append(
            f"{counted(summary.given_back, 'message')} had ended by a clock that was ahead, and wait again:"
            " their mailings have not ended"
        )
    return (*found, *_misfits(summary.misfits))


def _doubt(summary: "Summary") -> str:
    ahead = f" by {summary.clock_ahead}" if summary.clock_ahead else ""
    return (
        f"the clock was set ahead{ahead.partition('.')[0]} while the machine ran, and is doubted: nothing is"
        " sent or ended by it until it has stayed so for ten minutes. Check it: timedatectl"
    )


def _misfits(misfits: "Sequence[Misfit]") -> list[str]:
    """Each is said once, also when quiet: the next run does not meet it any more."""
    if not misfits:
        return []
    told = ", ".join(f"{each.what} ({each.why})" for each in misfits[:5])
    more = f" and {len(misfits) - 5:,} more" if len(misfits) > 5 else ""
    return [
        f"damaged rows in the database were set aside: {told}{more}; such a message is failed or unknown,"
        " such a mailing paused. See mailer db check; mailer db restore FILE"
    ]


def _lines(at: Invocation, summary: "Summary", mailing: int | None) -> list[str]:
    if summary.run_id is None and summary.stopped == "clock_ahead":
        return []
    if summary.run_id is None:
        return [why_nothing(at, mailing, sum(summary.unknown_zones.values()))]
    counts = {name: number for name, number in vars(summary.counts).items() if number}
    did = ", ".join(f"{number:,} {name}" for name, number in counts.items()) or "nothing to send"
    lines = [f"run {summary.run_id}: {did} in {summary.seconds:.1f} s"]
    if summary.stopped in ENDINGS:
        lines.append(f"the run ended early: {ENDINGS[summary.stopped]}")
    elif mailing is not None and not summary.counts.claimed and summary.stopped is None:
        lines.append(why_nothing(at, mailing))  # the run was for others: it ended or recovered something
    return lines


def show_plan(at: Invocation, mailing: int | None) -> output.Result:
    """What the next run would do."""
    at.stop.interrupt()
    from mailer_cli import dispatch

    _require(at, mailing)
    planned = dispatch.plan(at.database, at.now(), mailing)
    rows = [
        {"mailing_id": each.mailing_id, "audience": each.audience, "waiting": each.waiting}
        for each in planned
    ]
    columns = (
        output.column("mailing_id", "mailing", right=True),
        output.Column("new audience", lambda row: str(row["audience"] or ""), right=True),
        output.column("waiting", right=True),
    )
    return output.Table(rows, columns, empty="" if rows else why_nothing(at, mailing))
