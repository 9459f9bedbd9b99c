"""What is sent, to whom and when, as an operator decides it: its rules, and a mailing made of it."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert
from sqlmodel import col

from mailer_cli import audience
from mailer_cli.audience import Filter
from mailer_cli.errors import Invalid, WrongTimes
from mailer_cli.models import Mailing, Wording
from mailer_cli.times import Window, json_time

LINE_BREAKS = "\n\t"  # the control characters that a text may hold


@dataclass(frozen=True)
class Plan:
    """Everything about a mailing that an operator may change. The rate is in messages per second; a
    higher priority goes first."""

    text: str
    start_at: datetime
    end_at: datetime
    filter: Filter
    window: Window | None = None
    rate: float | None = None
    priority: int = 0

    def as_json(self) -> dict[str, Any]:
        """The part of a mailing's JSON that a plan decides."""
        return {
            "start": json_time(self.start_at),
            "end": json_time(self.end_at),
            "text": self.text,
            "filter": {
                "operator_codes": list(self.filter.operator_codes),
                "tags": list(self.filter.tags),
                "all": self.filter.everyone,
            },
            "window": self.window and {"from": self.window.start, "to": self.window.end},
            "rate": int(self.rate) if self.rate is not None and self.rate.is_integer() else self.rate,
            "priority": self.priority,
        }


def check(plan: Plan, now: datetime, max_text: int) -> None:
    """Raises: Invalid when nothing could ever be sent by this plan."""
    check_text(plan.text, max_text)
    check_times(plan, now)


def check_text(text: str, max_text: int) -> None:
    """Raises: Invalid."""
    if not text.strip():
        raise Invalid("the text is empty")
    if len(text) > max_text:
        raise Invalid(
            f"the text is too long: {len(text):,} characters, allowed are {max_text:,} (MAILER_MAX_TEXT)"
        )
    for place, character in enumerate(text, start=1):
        if unicodedata.category(character) in ("Cc", "Cs") and character not in LINE_BREAKS:
            raise Invalid(f"the text has a control character at place {place}: {character!r}")


def check_times(plan: Plan, now: datetime) -> None:
    """Raises: Invalid. A start in the past is none: it starts at once."""
    if plan.end_at <= now:
        raise WrongTimes("the end, {}, has passed", plan.end_at)
    if plan.end_at <= plan.start_at:
        raise WrongTimes("the end, {}, is not after the start, {}", plan.end_at, plan.start_at)


def create(connection: Connection, plan: Plan, *, paused: bool, now: datetime, max_text: int) -> int:
    """Make a mailing, and its messages too when its time has come; its id, which is never used again.

    Raises: Invalid.
    """
    check(plan, now, max_text)
    values = {
        **columns(plan),
        "wording_id": new_wording(connection, plan.text),
        "paused_at": now if paused else None,
        "created_at": now,
        "updated_at": now,
    }
    mailing_id = connection.execute(insert(Mailing).values(values).returning(col(Mailing.id))).scalar_one()
    audience.fix(connection, mailing_id, now)
    return mailing_id


def new_wording(connection: Connection, text: str) -> int:
    return connection.execute(insert(Wording).values(text=text).returning(col(Wording.id))).scalar_one()


def columns(plan: Plan) -> Mapping[str, Any]:
    """The plan as columns of `mailing`, all but the text."""
    return {
        "start_at": plan.start_at,
        "end_at": plan.end_at,
        "operator_codes": plan.filter.operator_codes,
        "tags": plan.filter.tags,
        "everyone": plan.filter.everyone,
        "window_from": plan.window.from_minute if plan.window else None,
        "window_to": plan.window.to_minute if plan.window else None,
        "rate": plan.rate,
        "priority": plan.priority,
    }
