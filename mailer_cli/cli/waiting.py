"""What a dispatch with nothing to send says: what waits, and for what."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from mailer_cli.cli.common import Invocation
from mailer_cli.plural import agree, counted

if TYPE_CHECKING:
    from mailer_cli.mailings import Overview
    from mailer_cli.mailings.waiting import Waiting


def why_nothing(at: Invocation, only: int | None, unknown_zones: int = 0) -> str:
    """One line; `unknown_zones` is how many messages wait for those, which is said elsewhere."""
    from mailer_cli import mailings, outbox
    from mailer_cli.idle import NOTHING_TO_DO
    from mailer_cli.mailings.waiting import waiting

    parts: list[str] = []
    with suppress(*outbox.SIGNS), at.database.read() as connection:
        if only is not None:
            parts = _why(at, mailings.find(connection, only, at.now()))
        parts = parts or list(_parts(at, waiting(connection, at.now(), only), unknown_zones))
    return f"{NOTHING_TO_DO} now: {', '.join(parts)}" if parts else NOTHING_TO_DO


def _why(at: Invocation, found: "Overview") -> list[str]:
    """Why this mailing as a whole is not sent; nothing when single messages of it wait for their time."""
    waits = f" with {counted(found.waiting, 'message')} that {agree(found.waiting, 'waits', 'wait')}"
    said = {
        "paused": f"is paused{waits if found.fixed_at else ''}; to go on: mailer mailings resume {found.id}",
        "scheduled": f"starts {at.show_time(found.plan.start_at)}",
        "completed": "is completed",
        "cancelled": "is cancelled",
        "expired": f"ended {at.show_time(found.plan.end_at)}",
    }
    ended = {**said, "running": said["expired"]} if found.has_ended else said
    status = found.status.value
    return [f"mailing {found.id} {ended[status]}"] if status in ended else []


def _parts(at: Invocation, found: "Waiting", unknown_zones: int) -> Iterator[str]:
    later = found.later - unknown_zones
    if later > 0:
        until = f" until {at.show_time(found.opens_at)} at the earliest" if found.opens_at else ""
        yield f"{counted(later, 'message')} {agree(later, 'waits', 'wait')}{until}"
    if found.paused:
        what = f"{found.paused:,}" if later > 0 else counted(found.paused, "message")
        yield f"{what} {agree(found.paused, 'is', 'are')} paused"
    if found.never:
        end = agree(found.never, "its mailing ends", "their mailings end")
        yield f"{counted(found.never, 'message')} cannot go before {end}"
    if found.new:
        first = agree(found.new, "starts", "start, the first")
        yield f"{counted(found.new, 'mailing')} {first} {at.show_time(found.starts_at)}"
    if found.new_paused:
        sleep = agree(found.new_paused, "is paused, and has", "are paused, and have")
        yield f"{counted(found.new_paused, 'mailing')} {sleep} not begun"
