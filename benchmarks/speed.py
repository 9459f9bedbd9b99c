"""How fast: dispatch beside its peers, with latency, two at once, in the database, with a million waiting."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from benchmarks.given import Given, or_void
from benchmarks.measure import Measured, Void
from benchmarks.ours import BareClient
from benchmarks.peers import PEERS, Peer
from benchmarks.table import Row, median, number, spread

BARS = {"huey": (">= 3 x", ">= 7 x"), "dramatiq": (">= 1.2 x", ">= 3 x")}
LATENCY = 0.05  # seconds
LOOPS_SHARE = 5  # a loop gets a fifth of the messages: it takes ten times as long for each
FEW = 10_000  # pending messages, the other side of the memory's ratio
MEMORY_SECONDS = 5  # of dispatch, with few and with many pending
CONCURRENCY = 64  # as shipped


def beside_peer(name: str, given: Given) -> Iterator[Row]:
    """A B A B with one peer."""
    peer = PEERS[name]
    bar = Row(f"dispatch against {peer.name}", None, *BARS.get(name, ()))
    if how := peer.missing():
        yield replace(bar, note=f"not measured: {how}")
    else:
        yield or_void(bar, partial(_pairs, given, peer))


def _pairs(given: Given, peer: Peer, bar: Row) -> Row:
    ours: list[Measured] = []
    theirs: list[Measured] = []
    share = LOOPS_SHARE if peer.module == "loop" else 1
    for _ in range(given.rounds):
        ours.append(given.once(given.dispatch(), given.messages))
        theirs.append(given.once(peer, max(1, given.messages // share)))
    between = median([a.between / b.between for a, b in zip(ours, theirs, strict=True)])
    note = f"between the first request and the last {number(between)} x"
    return beside(bar, ours, theirs, per_second, note)


def with_latency(given: Given) -> Iterator[Row]:
    """50 ms of latency, 64 and 256 in flight, against what the requests in flight would allow."""
    for in_flight, share, bars in ((64, 1, (">= 0.82", ">= 0.95")), (256, 2, (">= 0.35", ">= 0.85"))):
        bar = Row(f"dispatch at 50 ms, {in_flight} in flight, to the limit", None, *bars)
        messages = given.messages * share
        yield or_void(bar, partial(of_the_limit, given, in_flight, LATENCY, messages, given.rounds))


def of_the_limit(given: Given, in_flight: int, latency: float, messages: int, rounds: int, bar: Row) -> Row:
    """Messages a second of a run, the start of the interpreter left out, against in flight / latency."""
    limit = in_flight / latency
    contender = given.dispatch(concurrency=in_flight)
    found = [given.once(contender, messages, latency) for _ in range(rounds)]
    note = f"{number(median(map(of_the_run, found)))} of {number(limit)} messages/s"
    return alone(bar, [of_the_run(each) / limit for each in found], found, note)


def in_database(given: Given) -> Iterator[Row]:
    """The share of a run's wall time between BEGIN and COMMIT; and what queue and database take from it."""
    bar = Row("share of wall time in the database", None, "<= 8 %", "<= 4 %")
    yield or_void(bar, partial(_share, given, 0.0))
    yield or_void(Row("  the same at 50 ms", None), partial(_share, given, LATENCY))
    for latency, when in ((0.0, ""), (LATENCY, " at 50 ms")):
        row = Row(f"dispatch against its client alone{when}", None)
        yield or_void(row, partial(_beside_the_client, given, latency))


def _share(given: Given, latency: float, bar: Row) -> Row:
    watched = given.dispatch(watched=True)
    found = [given.once(watched, given.messages, latency) for _ in range(given.rounds)]
    for each in found:
        seen, least = each.details["transactions"], each.messages / CONCURRENCY
        if seen < least:  # what is claimed is in flight, so no claim is larger
            raise Void(f"the stop watch saw {seen} transactions, and there were at least {least:.0f}")
    of_cpu = median(each.details["cpu"] / each.details["seconds"] for each in found)
    transactions = median(each.details["transactions"] for each in found)
    note = (
        f"from BEGIN until COMMIT is done, waiting for the interpreter included; CPU seconds in there are "
        f"{number(of_cpu * 100)} % of the wall time; {number(transactions)} transactions"
    )
    return alone(bar, [each.details["wall"] / each.details["seconds"] for each in found], found, note)


def _beside_the_client(given: Given, latency: float, bar: Row) -> Row:
    ours: list[Measured] = []
    client: list[Measured] = []
    for _ in range(given.rounds):
        ours.append(given.once(given.dispatch(), given.messages, latency))
        client.append(given.once(BareClient(CONCURRENCY), given.messages, latency))
    note = "from the first request to the last; the rest is what queue and database take"
    return beside(bar, ours, client, lambda each: each.between, note)


def two_dispatchers(given: Given) -> Iterator[Row]:
    """Two at once beside one, from the first request to the last."""
    bar = Row("two dispatchers against one", None, ">= 1.5 x", ">= 1.9 x")
    yield or_void(bar, partial(_two, given))


def _two(given: Given, bar: Row) -> Row:
    one: list[Measured] = []
    two: list[Measured] = []
    for _ in range(given.rounds):
        one.append(given.once(given.dispatch(), given.messages * 2))
        two.append(given.once(given.dispatch(runs=2), given.messages * 2))
    whole = median(a.per_second / b.per_second for a, b in zip(two, one, strict=True))
    note = f"start and end of the processes included {number(whole)} x"
    return beside(bar, two, one, lambda each: each.between, note)


def with_many_pending(given: Given) -> Iterator[Row]:
    """Peak memory of the same seconds of work, with many and with few messages waiting."""
    bar = Row(f"peak memory, {given.pending:,} against {FEW:,} pending", None, "<= 1.1 x", "<= 1.02 x")
    yield or_void(bar, partial(_memory, given))


def _memory(given: Given, bar: Row) -> Row:
    few: list[Measured] = []
    many: list[Measured] = []
    contender = given.dispatch(max_seconds=MEMORY_SECONDS)
    for _ in range(given.rounds if given.full else 1):
        few.append(given.once(contender, FEW, partly=True))
        many.append(given.once(contender, given.pending, partly=True))
    note = f"{MEMORY_SECONDS} s of work each; the goal is flat, and < 60 MB"
    return replace(beside(bar, many, few, lambda each: each.memory, ""), note=note)


# Rows from rounds


def beside(
    bar: Row,
    ours: Sequence[Measured],
    theirs: Sequence[Measured],
    figure: Callable[[Measured], float],
    note: str,
) -> Row:
    """The ratios of rounds that took turns; CPU and memory of both sides."""
    ratios = [figure(a) / figure(b) for a, b in zip(ours, theirs, strict=True)]
    mine, other = (number(median(map(figure, each))) for each in (ours, theirs))
    return replace(
        bar,
        ratio=median(ratios),
        spread=spread(ratios),
        cpu=f"{_cpu(ours)} : {_cpu(theirs)}",
        memory=f"{_memory_of(ours)} : {_memory_of(theirs)}",
        note=f"{mine} against {other} messages/s; {note}",
    )


def alone(bar: Row, ratios: Sequence[float], found: Sequence[Measured], note: str) -> Row:
    """The row of one contender whose rounds gave these ratios."""
    return replace(
        bar,
        ratio=median(ratios),
        spread=spread(ratios),
        cpu=_cpu(found),
        memory=_memory_of(found),
        note=note,
    )


def per_second(each: Measured) -> float:
    """From the start of the processes to the last record."""
    return each.per_second


def of_the_run(each: Measured) -> float:
    """Messages a second of the run as it tells itself, without the start of the interpreter."""
    return each.messages / each.details["seconds"]


def _cpu(found: Sequence[Measured]) -> str:
    return number(median(each.cpu_per_10_000 for each in found))


def _memory_of(found: Sequence[Measured]) -> str:
    return number(median(each.memory / 1e6 for each in found))
