"""The rate, by the sink's log: in no second above it, and kept up while there is work."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.given import Given
from benchmarks.measure import Void
from benchmarks.speed import LATENCY, alone
from benchmarks.table import VOID, Row, number

RATES, ALL_RATES = (100, 1000), (100, 500, 1000, 2000)
SECONDS = 6  # of work at each rate
IN_FLIGHT = 256  # at 50 ms the 64 as shipped would not let 2,000 a second through


def rows(given: Given) -> Iterator[Row]:
    """Each rate with one run and with two; `--full` has more of them, and a sink that takes its time."""
    for latency in (0.0, LATENCY) if given.full else (0.0,):
        for rate in ALL_RATES if given.full else RATES:
            for runs in (1, 2):
                yield from _both(given, rate, runs, latency)


def _both(given: Given, rate: int, runs: int, latency: float) -> Iterator[Row]:
    """The busiest second and the mean from the first request to the last, each to the rate."""
    who = f"rate {rate}/s, {runs} run{'s' * (runs > 1)}" + (f", {latency * 1000:.0f} ms" if latency else "")
    busiest = Row(f"{who}: busiest second", None, "<= 1.05 x")
    mean = Row(f"{who}: mean", None, ">= 0.95 x")
    contender = given.dispatch(runs, rate=rate, concurrency=IN_FLIGHT)
    try:
        rounds = given.rounds if given.full else 1
        found = [given.once(contender, rate * SECONDS, latency) for _ in range(rounds)]
    except Void as reason:
        yield replace(busiest, note=f"{VOID}{reason}")
        return
    most = [busiest_second([moment for moment, _ in each.entries]) for each in found]
    row = alone(
        busiest, [each / rate for each in most], found, f"at most {max(most):,} requests in any second"
    )
    yield replace(row, ratio=max(most) / rate)  # never means never: the worst of the rounds
    means = [each.between for each in found]
    yield alone(mean, [each / rate for each in means], found, f"{number(min(means))} messages/s")


def busiest_second(moments: Sequence[int], width: int = 1000) -> int:
    """The most of these moments, in ms, that lie within any `width` ms."""
    ordered = sorted(moments)
    most = first = 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] >= width:
            first += 1
        most = max(most, last - first + 1)
    return most
