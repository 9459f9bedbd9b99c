"""Every interleaving of a small world: one message, two processes at a time, at most three attempts."""

import os
from pathlib import Path

import pytest

from mailer_cli.decide import Limits
from tests.lab import new_database
from tests.small import World
from tests.small_program import Program

IS_LONG = int(os.environ.get("MAILER_EXAMPLES", "0")) > 100
EVERY_STEP = {
    *("begin", "claim", "request", "record", "record, claim", "crash", "lose the lock"),
    *("the end passes", "expire", "cancel", "retry", "resolve"),
}
SCOPES = {
    "time-outs": (Limits(failures=3, unknowns=3), ("ok", "time-out, taken"), 5_000),
    "server-errors": (Limits(failures=2, unknowns=2), ("ok", "server error, taken"), 9_000),
}
if IS_LONG:
    SCOPES |= {
        "refusals": (Limits(2, 1), ("ok", "refused", "rejected", "time-out, taken"), 20_000),
        "failures": (Limits(2, 3), ("ok", "wrong code", "server error, taken", "time-out, taken"), 20_000),
    }
"""Limits, what may happen to a request, and how many states there are at least."""


@pytest.mark.timeout(3600 if IS_LONG else 120)
@pytest.mark.parametrize(("limits", "fates", "least"), SCOPES.values(), ids=SCOPES.keys())
def test_no_interleaving_breaks_a_promise(
    tmp_path: Path, limits: Limits, fates: tuple[str, ...], least: int
) -> None:
    with new_database(tmp_path).write() as connection:
        world = World(Program(connection, limits), fates)
        world.explore()
        world.bury_everything()
    print(f"{len(world.came_from)} states, {world.program.calls} calls, {dict(world.steps)}")
    assert len(world.came_from) >= least
    assert world.steps.keys() == EVERY_STEP
