"""What the one who measures has asked for, and one round of it, told on stderr as it comes."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure import Contender, Measured, Void, once
from benchmarks.ours import Dispatch, Templates
from benchmarks.table import VOID, Row


@dataclass(frozen=True)
class Given:
    """The options; `folder` is scratch for all rounds, gone at the end."""

    messages: int
    rounds: int
    rows: int
    pending: int
    full: bool
    sink: str
    folder: Path
    limit: float = 1800.0  # seconds for one round

    def dispatch(self, runs: int = 1, *, watched: bool = False, **settings: object) -> Dispatch:
        return Dispatch(Templates(self.folder), settings, runs, watched)

    def once(
        self, contender: Contender, messages: int, latency: float = 0.0, *, partly: bool = False
    ) -> Measured:
        """One round. Raises: Void."""
        found = once(contender, messages, sink=self.sink, latency=latency, limit=self.limit, partly=partly)
        say(
            f"{contender.name}: {found.messages:,} messages, {found.per_second:,.0f}/s, "
            f"{found.cpu_per_10_000:.1f} CPU s/10,000, {found.memory / 1e6:.0f} MB"
        )
        return found


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def or_void(bar: Row, measure: Callable[[Row], Row]) -> Row:
    """A row without a figure becomes one with it, or says why there is none."""
    try:
        return measure(bar)
    except Void as reason:
        return replace(bar, note=f"{VOID}{reason}")
