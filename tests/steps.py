"""Steps at which a process can be made to die by kill -9.

The program knows nothing of them and pays nothing for them: a process of the laboratory is forked from the
test's own, and `arm` puts the step around the program's functions in the child alone.

    Step("claim committed", Sender, "_in_database")           after the function has returned
    Step("half claimed", claim, "_take", statement=1)         after its first statement
    Step("before the first byte", _Letter, "__aiter__", at=BEFORE)
"""

import functools
import inspect
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

from sqlalchemy import Engine, event

from mailer_cli.database import Database
from tests.lab import Lab

BEFORE, AFTER = "before", "after"


def die() -> None:
    """As if by kill -9: nothing is flushed, closed or said."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Step:
    """A moment in the `nth` call of a function: before it, after it, or, with `statement`, when so many
    statements have been executed in it."""

    name: str
    owner: Any = field(repr=False)
    function: str
    at: str = AFTER
    nth: int = 1
    statement: int = 0

    def arm(self, happen: Callable[[], object] = die) -> None:
        """Let `happen` happen at this step, in this process, for good."""
        original = inspect.getattr_static(self.owner, self.function)
        moment = _Moment(self, happen)
        setattr(self.owner, self.function, _around(original, moment))
        if self.statement:
            _after_each_statement(moment.executed)

    def __str__(self) -> str:
        return self.name


class _Moment:
    """Counts the calls of one function, and the statements inside."""

    def __init__(self, step: Step, happen: Callable[[], object]) -> None:
        self._step, self._happen = step, happen
        self._calls = self._statements = 0
        self._is_inside = False

    def enters(self) -> None:
        self._calls += 1
        self._is_inside = self._calls == self._step.nth
        if self._is_inside and self._step.at == BEFORE:
            self._happen()

    def leaves(self) -> None:
        if self._is_inside and self._step.at == AFTER and not self._step.statement:
            self._happen()
        self._is_inside = False

    def executed(self) -> None:
        if self._is_inside and self._step.statement:
            self._statements += 1
            if self._statements == self._step.statement:
                self._happen()


def _around(original: Any, moment: _Moment) -> Callable[..., Any]:
    """The function, with the moment told of its beginning and end."""
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def waited(*given: Any, **named: Any) -> Any:
            moment.enters()
            result = await original(*given, **named)
            moment.leaves()
            return result

        return waited
    if inspect.isasyncgenfunction(original):

        @functools.wraps(original)
        async def streamed(*given: Any, **named: Any) -> AsyncIterator[Any]:
            moment.enters()
            async for each in original(*given, **named):
                yield each
            moment.leaves()

        return streamed

    @functools.wraps(original)
    def called(*given: Any, **named: Any) -> Any:
        moment.enters()
        result = original(*given, **named)
        moment.leaves()
        return result

    return called


def _after_each_statement(executed: Callable[[], object]) -> None:
    event.listen(Engine, "after_cursor_execute", lambda *_: executed())


def count_steps(happen: Callable[[], object], wanted: int) -> Callable[[], int]:
    """Let `happen` happen at the so-many-th of all steps, whatever it is: each statement when it has been
    executed, each commit, each request before its first byte and after its last, each answer.

    Gives what tells how many there have been.
    """
    from mailer_cli.gateway import client

    seen = 0

    def step() -> None:
        nonlocal seen
        seen += 1
        if seen == wanted:
            happen()

    _after_each_statement(step)
    _after_each_commit(step)
    for owner, name in ((client._Letter, "__aiter__"), (client.Gateway, "_exchange")):
        everywhere = _Everywhere(step)
        setattr(owner, name, _around(inspect.getattr_static(owner, name), everywhere))
    return lambda: seen


class _Everywhere(_Moment):
    """Each beginning and each end."""

    def __init__(self, step: Callable[[], object]) -> None:
        self.enters = self.leaves = step  # type: ignore[method-assign]  # a moment that is always there


def _after_each_commit(step: Callable[[], object]) -> None:
    original = Database.write

    @contextmanager
    def write(database: Database) -> Iterator[Any]:
        with original(database) as connection:
            yield connection
        step()

    Database.write = write  # type: ignore[method-assign]  # in a child that is about to die


def die_step_by_step(lab: Lab, *, first: int, deaths: int, stride: int = 1, until: float = inf) -> int:
    """Let runs die, one at each `stride`-th step from the first on, and from the beginning again when a run
    has no more of them; how many did. There is work for all of them."""
    done, wanted = 0, first
    while done < deaths and time.monotonic() < until:
        if lab.open_messages() < MANY:
            lab.add_mailing(MANY)
        with lab.each_child(partial(count_steps, die, wanted)):
            ran = lab.start().wait()
        done += ran.code == -signal.SIGKILL
        wanted = wanted + stride if ran.code == -signal.SIGKILL else first
        lab.forget_backoffs()
    return done


MANY = 20  # messages that wait before each run
