"""The tables of `--full`: how it grows with messages, with requests in flight and with latency."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from benchmarks.given import Given, or_void
from benchmarks.ours import Dispatch
from benchmarks.peers import PEERS, Peer
from benchmarks.speed import LATENCY, alone, beside, of_the_limit, per_second
from benchmarks.table import Row, number

MESSAGES = (10_000, 100_000, 1_000_000)
RUNS = (1, 2)
IN_FLIGHT = (1, 8, 64, 256, 512)
LATENCIES = (0.05, 0.5)
ROUND = 10  # seconds that a round with latency should take at its limit
MOST = 20_000  # messages of such a round
SLOW_PEERS = 10  # with latency they get a tenth of the messages


def rows(given: Given) -> Iterator[Row]:
    """One round each: these are tables to look at, and the bars are measured elsewhere."""
    yield from _messages(given)
    yield from _at_once(given)
    yield from _latencies(given)
    yield from _peers_with_latency(given)


def _messages(given: Given) -> Iterator[Row]:
    for runs in RUNS:
        base: list[float] = []
        for messages in MESSAGES:
            bar = Row(f"{messages:,} messages, {runs} dispatcher{'s' * (runs > 1)}, to {MESSAGES[0]:,}", None)
            yield or_void(bar, partial(_to_the_first, given, given.dispatch(runs), messages, base))


def _at_once(given: Given) -> Iterator[Row]:
    base: list[float] = []
    for in_flight in IN_FLIGHT:
        bar = Row(f"at once, {in_flight} in flight, to {IN_FLIGHT[0]}", None)
        contender = given.dispatch(concurrency=in_flight)
        yield or_void(bar, partial(_to_the_first, given, contender, given.messages, base))


def _to_the_first(given: Given, contender: Dispatch, messages: int, base: list[float], bar: Row) -> Row:
    """Its speed, from the first request to the last, to that of the first of its table."""
    found = given.once(contender, messages)
    base.append(found.between)
    return alone(bar, [found.between / base[0]], [found], f"{number(found.between)} messages/s")


def _latencies(given: Given) -> Iterator[Row]:
    for latency in LATENCIES:
        for in_flight in IN_FLIGHT:
            bar = Row(f"{latency * 1000:.0f} ms, {in_flight} in flight, to the limit", None)
            messages = min(MOST, round(ROUND * in_flight / latency))
            yield or_void(bar, partial(of_the_limit, given, in_flight, latency, messages, 1))


def _peers_with_latency(given: Given) -> Iterator[Row]:
    for peer in PEERS.values():
        bar = Row(f"at 50 ms against {peer.name}", None)
        if how := peer.missing():
            yield replace(bar, note=f"not measured: {how}")
        else:
            yield or_void(bar, partial(_one_pair, given, peer))


def _one_pair(given: Given, peer: Peer, bar: Row) -> Row:
    ours = given.once(given.dispatch(), given.messages, LATENCY)
    theirs = given.once(peer, max(1, given.messages // SLOW_PEERS), LATENCY)
    return beside(bar, [ours], [theirs], per_second, "one round")
