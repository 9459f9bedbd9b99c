"""A plan revised, also while it runs: what may change when, and what follows for messages that wait."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypedDict

from sqlalchemy import Connection, case, update
from sqlmodel import col

from mailer_cli import audience
from mailer_cli.audience import Added
from mailer_cli.errors import Refused, WrongTimes
from mailer_cli.mailings.overview import Overview, find
from mailer_cli.mailings.plan import Plan, check_text, check_times, columns, new_wording
from mailer_cli.mailings.steering import require_open
from mailer_cli.models import Mailing
from mailer_cli.times import Window

WHILE_PAUSED = ("text", "filter", "window")


class Edit(TypedDict, total=False):
    """What an operator wants otherwise; what is absent stays as it is. Codes and tags stand for themselves:
    an empty sequence lifts that restriction."""

    text: str
    start_at: datetime
    end_at: datetime
    operator_codes: Sequence[str]
    tags: Sequence[str]
    everyone: bool
    window: Window | None
    rate: float | None
    priority: int


@dataclass(frozen=True)
class Edited:
    """The mailing after an edit, its plan before, and what became of its messages."""

    mailing: Overview
    before: Plan
    cancelled: int
    added: int
    already_sent: int  # who would have been added, but that his number has the mailing already, or may have

    def changes(self) -> dict[str, list[Any]]:
        """Old and new value of what changed, by its name in JSON."""
        return _changes(self.before, self.mailing.plan)


def edit(connection: Connection, mailing_id: int, wanted: Edit, now: datetime, max_text: int) -> Edited:
    """Revise a mailing, and let its waiting messages follow, but those that may have been taken.

    Raises: Refused when its state forbids it, Invalid.
    """
    found = require_open(find(connection, mailing_id, now), "edited")
    plan = revised(found.plan, wanted)
    changed = _changes(found.plan, plan)
    _permit(found, changed)
    _check(found.id, plan, changed, now, max_text)
    cancelled, added = _apply(connection, found, plan, changed) if changed else (0, Added(0))
    after = find(connection, mailing_id, now)
    return Edited(after, found.plan, cancelled, added.waiting, added.already_sent)


def revised(plan: Plan, wanted: Edit) -> Plan:
    """The plan with the edit in it. Raises: Invalid when the filter is none."""
    values: dict[str, Any] = dict(wanted)
    codes, tags = values.pop("operator_codes", None), values.pop("tags", None)
    everyone = values.pop("everyone", False)
    if everyone:
        values["filter"] = audience.choose(codes or (), tags or (), everyone=True)
    elif codes is not None or tags is not None:
        old = plan.filter
        values["filter"] = audience.choose(
            old.operator_codes if codes is None else codes, old.tags if tags is None else tags, everyone=False
        )
    return replace(plan, **values)


def _changes(before: Plan, after: Plan) -> dict[str, list[Any]]:
    old, new = before.as_json(), after.as_json()
    return {name: [old[name], new[name]] for name in old if old[name] != new[name]}


def _permit(found: Overview, changed: Mapping[str, Any]) -> None:
    if found.fixed_at is None:
        return
    if "start" in changed:
        raise Refused(f"mailing {found.id} has started, its start cannot change any more")
    for name in WHILE_PAUSED:
        if name in changed and found.paused_at is None:
            raise Refused(
                f"mailing {found.id} is running: its {name} can change only while it is paused",
                f"mailer mailings pause {found.id}",
            )


def _check(mailing_id: int, plan: Plan, changed: Mapping[str, Any], now: datetime, max_text: int) -> None:
    """Look at what changed alone: a limit lowered since must not stand in the way of a new priority."""
    if "text" in changed:
        check_text(plan.text, max_text)
    if "end" in changed and plan.end_at <= now:
        raise WrongTimes(
            "the new end, {}, has passed",
            plan.end_at,
            hint=f"to end it now: mailer mailings cancel {mailing_id}",
        )
    check_times(plan, now)


def _apply(
    connection: Connection, found: Overview, plan: Plan, changed: Mapping[str, Any]
) -> tuple[int, Added]:
    values = {**columns(plan), "updated_at": found.seen_at}
    if "text" in changed:
        values |= {"wording_id": new_wording(connection, plan.text), "refused_runs": 0}
    if "rate" in changed:
        values["next_free_at"] = _next_free(plan.rate, found.seen_at)
    connection.execute(update(Mailing).where(col(Mailing.id) == found.id).values(values))
    if "filter" in changed and found.fixed_at is not None:
        return audience.refit(connection, found.id, found.plan.filter, found.seen_at)
    return 0, Added(0)


def _next_free(rate: float | None, now: datetime) -> Any:
    """After one message an hour, five a second must not wait for the hour."""
    if rate is None:
        return None
    soon = now + timedelta(seconds=1 / rate)
    return case((col(Mailing.next_free_at) > soon, soon), else_=col(Mailing.next_free_at))
