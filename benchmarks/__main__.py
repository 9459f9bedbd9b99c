"""`python -m benchmarks`: dispatch beside its peers, and what else has a bar, as ratios of one run.

It installs nothing. Rounds go A B A B and medians are compared; what a machine does differs from hour to
hour, so compare ratios of one run only. Each figure counts afterwards: what was wanted, sent, recorded and
accepted by the sink must be the same number, or the figure is void and the exit code 1.
"""

import argparse
import importlib.util
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks import crowd, machine, rate, scale, sink, speed, table
from benchmarks.given import Given, say
from benchmarks.measure import scratch
from benchmarks.peers import PEERS

Section = Callable[[Given], Iterator[table.Row]]


def local(given: Given) -> Iterator[table.Row]:
    """What needs no gateway: import, audience, statistics, help, an idle run."""
    from benchmarks import local as found

    yield from found.rows(given)


SECTIONS: dict[str, Section] = {
    **{name: partial(speed.beside_peer, name) for name in PEERS},
    "latency": speed.with_latency,
    "database": speed.in_database,
    "two": speed.two_dispatchers,
    "memory": speed.with_many_pending,
    "rate": rate.rows,
    "crowd": crowd.rows,
    "local": local,
    "scale": scale.rows,
}
ONLY_FULL = ("scale",)
if importlib.util.find_spec("benchmarks.local") is None:
    del SECTIONS["local"]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="WHAT", help=f"of {' '.join(SECTIONS)}"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="20,000 messages, 5 rounds, and the tables of scale: takes an hour",
    )
    parser.add_argument("--messages", type=int, help="in each round (default 5,000)")
    parser.add_argument("--rounds", type=int, help="of each pair (default 3)")
    parser.add_argument("--rows", type=int, help="of the imported file (default 100,000, full 1,000,000)")
    parser.add_argument("--pending", type=int, default=1_000_000, help="messages, for the peak memory")
    parser.add_argument("--sink", choices=("nginx", "sandbox"), help="default nginx, if it can be had")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    return parser.parse_args()


def main() -> int:
    wanted = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends with it
    lacking = sink.why_no_nginx()
    if wanted.sink == "nginx" and lacking:
        sys.exit(lacking)
    with scratch() as folder:
        given = Given(
            messages=wanted.messages or (20_000 if wanted.full else 5000),
            rounds=wanted.rounds or (5 if wanted.full else 3),
            rows=wanted.rows or (1_000_000 if wanted.full else 100_000),
            pending=wanted.pending,
            full=wanted.full,
            sink=wanted.sink or ("sandbox" if lacking else "nginx"),
            folder=folder,
        )
        return measure(given, wanted.only, wanted.json, lacking)


def measure(given: Given, only: list[str] | None, written: Path | None, lacking: str | None) -> int:
    """Print the table row by row as it is measured; 1 when a figure is void."""
    about = machine.described() | {
        "sink": f"{given.sink} ({lacking})" if lacking else given.sink,
        "each": f"{given.messages:,} messages; rounds: {given.rounds}",
    }
    for name, value in about.items():
        print(f"{name:<10} {value}")
    print("\n" + table.head(), flush=True)
    rows = []
    for name in only or [each for each in SECTIONS if given.full or each not in ONLY_FULL]:
        say(f"{name} ...")
        for row in SECTIONS[name](given):
            rows.append(row)
            print(table.line(row), flush=True)
    if written:
        shown = [{**asdict(row), "verdict": row.verdict} for row in rows]
        written.write_text(json.dumps({"about": about, "rows": shown}, indent=1, ensure_ascii=False) + "\n")
    return 1 if any(row.is_void for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
