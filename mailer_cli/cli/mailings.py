"""`mailer mailings`: plan a mailing, look at it, change it, stop it."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import typer

from mailer_cli import output
from mailer_cli.cli import mailing_options as options
from mailer_cli.cli import mailing_views as views
from mailer_cli.cli.common import DryRun, Invocation, Limit, Yes, command, confirm
from mailer_cli.errors import Invalid, MailerError
from mailer_cli.plural import counted

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mailer_cli.mailings import Edit, Edited, Overview, Plan
    from mailer_cli.mailings.prospects import Prospect

NEXT_RUN = "with the next run of mailer dispatch"
group = typer.Typer(no_args_is_help=True, help="Mailings: plan, look at, change, stop.")


def register(app: typer.Typer) -> None:
    """Hang these commands on the program."""
    app.add_typer(group, name="mailings")


@command(
    group,
    "create",
    example='mailer mailings create --text "Hello" --end "tomorrow 18:00" --tag vip',
    exits=(0, 1, 2, 69, 74, 75, 76, 77, 78),
    changes="mailing_id",
)
def create(
    at: Invocation,
    end: options.End,
    text: options.TextOption = None,
    text_file: options.TextFile = None,
    start: options.Start = "now",
    operator_code: options.Codes = None,
    tag: options.Tags = None,
    everyone: options.Everyone = False,
    window: options.Hours = None,
    rate: options.Rate = None,
    priority: options.Priority = None,
    paused: options.Paused = False,
    dispatch: options.Dispatch = False,
    dry_run: options.Preview = False,
) -> output.Result:
    """Create a mailing.

    One whose time has come goes with the next run of mailer dispatch. A client gets it when his operator
    code is one of those given, and his tag too; what is not given does not restrict.
    """
    from mailer_cli import audience, mailings

    plan = mailings.Plan(
        text=options.required_text_of(text, text_file),
        start_at=at.parse_time("--start", start),
        end_at=at.parse_time("--end", end),
        filter=audience.choose(operator_code or (), tag or (), everyone=everyone),
        window=options.window_of(window) if window is not None else None,
        rate=options.rate_of(rate) if rate is not None else None,
        priority=priority or 0,
    )
    if dry_run:
        return _audience(at, plan, paused)
    if dispatch:
        _require_dispatch(at, plan, paused)
    mailing = _create(at, plan, paused)
    card = _created(at, mailing, dispatch)
    return _dispatched(at, card, mailing.id) if dispatch else card


@command(group, "list", example="mailer mailings list --status running --status paused")
def list_(
    at: Invocation,
    status: options.Statuses = None,
    operator_code: options.NamedCodes = None,
    tag: options.NamedTags = None,
    limit: Limit = None,
    after: options.After = None,
) -> output.Result:
    """List mailings, the newest first."""
    from mailer_cli import attributes, audience, mailings

    found = mailings.listed(
        at.database,
        at.now(),
        after=after,
        statuses=options.statuses_of(status),
        operator_codes=[attributes.parse_code(each) for each in operator_code or ()],
        tags=[audience.checked_tag(each) for each in tag or ()],
    )
    return views.listing(at, itertools.islice(found, limit))


@command(group, "show", example="mailer mailings show 5")
def show(at: Invocation, mailing: options.Id) -> output.Result:
    """Show a mailing and the states of its messages."""
    return views.card(at, _find(at, mailing))


@command(group, "edit", example='mailer mailings edit 5 --end "+3h" --rate 20/s', changes="mailing_id")
def edit(
    at: Invocation,
    mailing: options.Id,
    text: options.TextOption = None,
    text_file: options.TextFile = None,
    start: options.NewStart = None,
    end: options.NewEnd = None,
    operator_code: options.Codes = None,
    any_operator_code: options.AnyCode = False,
    tag: options.Tags = None,
    any_tag: options.AnyTag = False,
    everyone: options.Everyone = False,
    window: options.Hours = None,
    no_window: options.NoWindow = False,
    rate: options.Rate = None,
    no_rate: options.NoRate = False,
    priority: options.Priority = None,
    dry_run: DryRun = False,
) -> output.Result:
    """Change a mailing; what is not given stays.

    Before it starts everything may change. Then its end, rate and priority may, and, while it is paused,
    its text, filter and window: they touch only messages that nobody can have got. A narrower filter cancels
    those that wait for clients outside it, a wider one adds.
    """
    from mailer_cli import mailings

    wanted: Edit = {}
    options.want_content(wanted, text, text_file, priority)
    options.want_times(wanted, at, start, end)
    options.want_filter(wanted, operator_code, any_operator_code, tag, any_tag, everyone)
    options.want_pace(wanted, window, no_window, rate, no_rate)
    if not wanted:
        raise Invalid("nothing to change is given", "mailer mailings edit --help")
    with at.database.write() as connection:
        done = mailings.edit(connection, mailing, wanted, at.now(), at.settings.max_text)
        if dry_run:
            connection.rollback()
    return replace(views.edited(at, done, dry_run=dry_run), warnings=_edit_warnings(at, done))


@command(group, "pause", example="mailer mailings pause 5", changes="mailing_id")
def pause(at: Invocation, ids: options.Ids = None, everything: options.Everything = False) -> output.Result:
    """Let mailings sleep.

    Living runs stop sending them within a second. Repeating is safe.
    """
    from mailer_cli import mailings

    return _steer(at, mailings.pause, _asked(ids, everything), "paused; to go on: mailer mailings resume")


@command(group, "resume", example="mailer mailings resume 5", changes="mailing_id")
def resume(
    at: Invocation, ids: options.Ids = None, everything: options.Everything = False, yes: Yes = False
) -> output.Result:
    """Wake mailings that are paused.

    They go on with the next run of mailer dispatch. One that may have been sent since the backup that it came
    out of is asked about. Repeating is safe.
    """
    from mailer_cli import mailings

    asked = _asked(ids, everything)
    if not yes:
        with at.database.read() as connection:
            chosen = mailings.resumable(connection, asked, at.now())
        doubted = [mailings.maybe_sent(each) for each in chosen if each.may_be_sent]
        yes = bool(doubted) and _is_sure(at, f"{'; '.join(doubted)}. Resume?")
    act = partial(mailings.resume, sure=yes)
    return _steer(at, act, asked, "awake; to stop it: mailer mailings pause")


def _is_sure(at: Invocation, question: str) -> bool:
    """Whether the operator says yes; where nobody can be asked the refusal says what is the matter."""
    if not at.printer.can_ask:
        return False
    confirm(at, question, False)
    return True


@command(group, "cancel", example="mailer mailings cancel 5 --yes", changes="mailing_id")
def cancel(
    at: Invocation, ids: options.Ids = None, everything: options.Everything = False, yes: Yes = False
) -> output.Result:
    """End mailings for good.

    What waits is cancelled, what is in flight finishes. Repeating is safe.
    """
    from mailer_cli import mailings

    asked = _asked(ids, everything)
    with at.database.read() as connection:
        chosen = mailings.stoppable(connection, asked, at.now())
    if any(each.cancelled_at is None for each in chosen):
        confirm(at, f"Cancel {_named(chosen)}?", yes)
    return _steer(at, mailings.cancel, asked, "cancelled; to see it: mailer mailings show")


@command(group, "remove", example="mailer mailings remove 5 --yes", changes="mailing_id")
def remove(at: Invocation, mailing: options.Id, yes: Yes = False) -> output.Result:
    """Remove a mailing.

    What waits is cancelled, what is in flight finishes, and the mailing is no longer listed. What it sent
    stays in the general statistics.
    """
    from mailer_cli import mailings

    confirm(at, f"Remove {_named([_find(at, mailing)])}?", yes)
    with at.database.write() as connection:
        removed = mailings.remove(connection, mailing, at.now())
    return output.Note(mailings.as_json(removed), [f"mailing {mailing} is removed"])


@command(group, "top-up", example="mailer mailings top-up 5", changes="mailing_id")
def top_up(at: Invocation, mailing: options.Id, yes: Yes = False) -> output.Result:
    """Add the clients who match now and joined later.

    An audience is fixed when a mailing starts. A number that has got it, or may have, gets no second one.
    Repeating is safe. After a restore it is asked, since nobody knows who was added after the backup.
    """
    from mailer_cli import mailings

    if not yes and _find(at, mailing).restored_at is not None:
        yes = _is_sure(at, f"Whoever was added to mailing {mailing} after the backup gets it again. Top up?")
    with at.database.write() as connection:
        found, added = mailings.top_up(connection, mailing, at.now(), sure=yes)
    notes = [f"{counted(added.waiting, 'message')} added", *views.already_sent(added.already_sent)]
    late = views.never(at, _prospect(at, found))
    return _counting(views.card(at, found, notes, late), added=added.waiting, already_sent=added.already_sent)


@command(
    group,
    "retry",
    example='mailer mailings retry 5 --status unknown --reason "timed out"',
    changes="mailing_id",
)
def retry(
    at: Invocation, mailing: options.Id, status: options.Fate = "failed", reason: options.Reason = None
) -> output.Result:
    """Let failed or unknown messages wait again.

    Their limits are fresh. What is unknown may have been delivered, and may be delivered again. A number that
    has got another message of this mailing, or may have, gets none.
    """
    from mailer_cli import mailings
    from mailer_cli.models import MessageStatus

    with at.database.write() as connection:
        found, retried = mailings.retry(connection, mailing, MessageStatus(status), reason, at.now())
    doubtful = retried.again > 0 and (status == "unknown" or found.restored_at is not None)
    warnings = ["some of them may have been delivered, and may be delivered again"] if doubtful else []
    late = views.never(at, _prospect(at, found))
    card = views.card(at, found, views.retried(status, retried), [*warnings, *late])
    return _counting(card, retried=retried.again, already_sent=retried.already_sent)


def _counting(card: output.Card, **counts: int) -> output.Card:
    """The mailing with what was done to its messages, in JSON too."""
    return replace(card, data={**card.data, **counts})


def _audience(at: Invocation, plan: "Plan", paused: bool) -> output.Note:
    from mailer_cli import audience, mailings
    from mailer_cli.mailings import prospects

    now = at.now()
    mailings.check(plan, now, at.settings.max_text)
    with at.database.read() as connection:
        found = audience.break_down(connection, plan.filter)
        prospect = prospects.of_plan(connection, plan, now)
    when = "at its start" if plan.start_at > now else NEXT_RUN
    when += ", once it is resumed" if paused else ""
    first = views.going(at, "", prospect, when, ("would go", "would go"))
    note = views.breakdown(found)
    lines = [*note.lines, *([first] if found.size else [])]
    return replace(note, lines=lines, warnings=tuple(views.never(at, prospect)))


def _require_dispatch(at: Invocation, plan: "Plan", paused: bool) -> None:
    """Raises: whatever would keep it from being sent at once, before it is created."""
    if paused or plan.start_at > at.now():
        what = "--paused" if paused else "a start in the future"
        raise Invalid(f"--dispatch and {what} contradict each other", "leave one of them out")
    at.settings.require_gateway()


def _create(at: Invocation, plan: "Plan", paused: bool) -> "Overview":
    from mailer_cli import mailings

    with at.database.write() as connection:
        now = at.now()  # when it is our turn to write, not when we began to wait for it
        made = mailings.create(connection, plan, paused=paused, now=now, max_text=at.settings.max_text)
        at.stop.drain()  # whoever is not told that it is there creates it a second time
        return mailings.find(connection, made, now)


def _created(at: Invocation, mailing: "Overview", dispatch: bool) -> output.Card:
    matching = mailing.total if mailing.fixed_at else _matching(at, mailing)
    if not matching:
        return views.card(at, mailing, warnings=_nobody(at, mailing))
    if mailing.fixed_at:
        when = "now" if dispatch else NEXT_RUN
        first = views.going(at, f" of mailing {mailing.id}", _prospect(at, mailing), when, ("goes", "go"))
    else:
        when = "has been resumed and starts" if mailing.paused_at else "starts"
        first = f"clients that match now: {matching:,}; the audience is fixed when it {when}"
    next_step = ("wake", "resume") if mailing.paused_at else ("stop", "pause")
    notes = [
        first,
        "to {} it: mailer mailings {} {}".format(*next_step, mailing.id),
        *views.fate(at.settings),
    ]
    return views.card(at, mailing, notes, views.never(at, _prospect(at, mailing)))


def _prospect(at: Invocation, mailing: "Overview") -> "Prospect":
    from mailer_cli.mailings import prospects

    with at.database.read() as connection:
        return prospects.of_mailing(connection, mailing)


def _nobody(at: Invocation, mailing: "Overview") -> list[str]:
    from mailer_cli.mailings import prospects

    with at.database.read() as connection:
        near = prospects.near(connection, mailing.plan.filter)
    like = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return [f"no client matches mailing {mailing.id} now{like}"]


def _edit_warnings(at: Invocation, done: "Edited") -> tuple[str, ...]:
    lost = "filter" in done.changes() and not (done.mailing.fixed_at or _matching(at, done.mailing))
    nobody = tuple(_nobody(at, done.mailing)) if lost else ()
    if {"end", "start", "window", "filter"} & set(done.changes()):
        nobody += tuple(views.never(at, _prospect(at, done.mailing)))
    again = f"mailing {done.mailing.id} came out of a backup: those added may have got it since"
    return (*nobody, again) if done.added and done.mailing.restored_at is not None else nobody


def _matching(at: Invocation, mailing: "Overview") -> int:
    from mailer_cli import audience

    with at.database.read() as connection:
        return audience.size(connection, mailing.plan.filter)


def _dispatched(at: Invocation, card: output.Card, mailing_id: int) -> output.Result:
    """Send at once: people see the mailing before the run and its summary after it, JSON is the mailing."""
    from mailer_cli.cli import dispatch

    if not at.printer.as_json:
        at.printer.show(card)
        return dispatch.run_now(at, mailing_id)
    error, warnings = None, tuple[str, ...]()
    try:
        run = dispatch.run_now(at, mailing_id)
        exit_code, warnings = run.exit_code, run.warnings
        error = output.failed(run, quiet=at.printer.quiet)
    except MailerError as fault:  # the mailing is there: whoever is not told creates it a second time
        at.printer.error(fault)
        exit_code = fault.exit_code
    after = views.card(at, _find(at, mailing_id), warnings=(*card.warnings, *warnings))
    return replace(after, exit_code=exit_code, error=error)


def _find(at: Invocation, mailing_id: int) -> "Overview":
    from mailer_cli import mailings

    with at.database.read() as connection:
        return mailings.find(connection, mailing_id, at.now())


def _asked(ids: Sequence[int] | None, everything: bool) -> Sequence[int] | None:
    """The ids, or None for all of them. Raises: Invalid when it is neither or both."""
    if bool(ids) == everything:
        raise Invalid("give ids, or --all" if not ids else "ids and --all contradict each other")
    return ids or None


def _steer(
    at: Invocation,
    act: "Callable[[Connection, Sequence[int] | None, datetime], list[Overview]]",
    asked: Sequence[int] | None,
    note: str,
) -> output.Result:
    """One id gives one mailing; several, or all, give a list of them."""
    with at.database.write() as connection:
        steered = act(connection, asked, at.now())
    if asked is None or len(set(asked)) > 1:
        listed = views.listing(at, steered)
        late = views.never_of(at, _late(at, steered))
        return replace(listed, rows=list(listed.rows), done=True, warnings=late)  # the log wants their ids
    warnings = views.never(at, _prospect(at, steered[0])) if steered[0].is_going else []
    return views.card(at, steered[0], [f"{note} {steered[0].id}"], warnings)


def _late(at: Invocation, steered: Sequence["Overview"]) -> dict[int, "Prospect"]:
    """What can go of those that go on, and whose end may come before a window."""
    from mailer_cli.mailings import prospects

    near = [each for each in steered if each.is_going and prospects.may_be_late(each)]
    return {each.id: _prospect(at, each) for each in near}


def _named(chosen: Sequence["Overview"]) -> str:
    waiting = sum(each.waiting for each in chosen)
    which = f"mailing {chosen[0].id}" if len(chosen) == 1 else counted(len(chosen), "mailing")
    return f"{which} with {counted(waiting, 'waiting message')}"
