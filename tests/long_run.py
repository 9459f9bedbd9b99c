"""The long run: the faults of the suite, many times over. `python -m tests.long_run --full`.

Every number has a bound: without options it is over in ten minutes, with --full in about an hour. Exit code 1
when something was lost, repeated without a reason, or locked.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.faults import (
    EVERY_ANSWER,
    end_at_random,
    fault_options,
    import_beside_a_run,
    kill_runs,
    outage_options,
    terminate_runs,
)
from tests.judge import Toll, toll
from tests.lab import Lab
from tests.machine import MACHINE_FAULTS
from tests.outages import OUTAGES
from tests.steps import die_step_by_step


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    scenario: str
    injected: int
    toll: Toll
    locked: int
    seconds: float
    broken: str = ""  # the invariant that did not hold

    @property
    def is_clean(self) -> bool:
        return not (self.toll.lost or self.toll.unexplained or self.locked or self.broken)


Scenario = Callable[[Lab, argparse.Namespace, random.Random], int]


def kills(lab: Lab, wanted: argparse.Namespace, chance: random.Random) -> int:
    """kill -9 at random points."""
    lab.add_mailing(wanted.messages)
    lab.open_gateway("--latency", "0.02-0.06")
    return kill_runs(lab, wanted.kills, chance, wanted.until)


def signals(lab: Lab, wanted: argparse.Namespace, chance: random.Random) -> int:
    """SIGTERM at random points."""
    lab.add_mailing(wanted.messages)
    lab.open_gateway("--latency", "0.02-0.06")
    return terminate_runs(lab, wanted.signals, chance, wanted.until)


def hell(lab: Lab, wanted: argparse.Namespace, chance: random.Random) -> int:
    """Every row of the table of outcomes at 5 %, and runs killed among them.

    A refused token or address ends a run, so there are hundreds of them. What is left when the time is over
    goes to a gateway in good health.
    """
    lab.add_mailing(wanted.messages)
    lab.open_gateway(
        *("--seed", str(chance.randrange(10**6)), "--retry-after", "0"),
        *fault_options(dict.fromkeys(EVERY_ANSWER, 0.05)),
        *outage_options(wanted.seconds),
        *("--stop-after", str(wanted.seconds + 120)),
    )
    kill_runs(lab, wanted.kills // 10, chance, wanted.until)
    while lab.open_messages() and time.monotonic() < wanted.until:
        lab.forget_backoffs()
        lab.run(code=None)
    if lab.open_messages():
        lab.close_gateway()
        lab.open_gateway()
    not_sent = lab.number("SELECT count(*) FROM attempt WHERE outcome = 'not_sent'")
    return not_sent + sum(each.answer != "ok" for each in lab.ledger)


def overlap(lab: Lab, wanted: argparse.Namespace, chance: random.Random) -> int:
    """Many dispatchers at once."""
    lab.add_mailing(wanted.messages)
    lab.open_gateway("--latency", "0.03")
    processes = [lab.start() for _ in range(wanted.dispatchers)]
    for each in processes:
        each.wait(wanted.seconds)
    return len(processes)


def ends(lab: Lab, wanted: argparse.Namespace, chance: random.Random) -> int:
    """Mailings that end while they are being sent."""
    lab.open_gateway("--latency", "0.02-0.1", "--fault", "hang=0.01")
    return end_at_random(lab, wanted.ends, chance, wanted.until)


def steps(lab: Lab, wanted: argparse.Namespace, chance: random.Random) -> int:
    """kill -9 at each step in turn: each statement, each commit, each request and each answer."""
    lab.open_gateway()
    return die_step_by_step(lab, first=1, deaths=wanted.kills, until=wanted.until)


def importers(lab: Lab, wanted: argparse.Namespace, chance: random.Random) -> int:
    """Four lists that are imported again and again during a dispatch."""
    lab.open_gateway("--latency", "0.03")
    lab.add_mailing(wanted.messages)
    return import_beside_a_run(lab, importers=4, rows=wanted.messages)


def machine_fault(name: str) -> Scenario:
    """A fault of the machine under running dispatchers, as `tests.machine` has them."""
    return lambda lab, wanted, chance: MACHINE_FAULTS[name](lab, wanted.messages, chance)


def outage(name: str) -> Scenario:
    return lambda lab, wanted, chance: OUTAGES[name](lab, wanted.messages, chance)


SCENARIOS: dict[str, Scenario] = {
    **{each.__name__: each for each in (kills, steps, signals, hell, overlap, importers, ends)},
    **{name: outage(name) for name in OUTAGES},
    **{name: machine_fault(name) for name in MACHINE_FAULTS},
}
FIGURES: dict[str, dict[str, int | float]] = {
    "kills": {"kills": 1000, "messages": 20_000},
    "steps": {"kills": 1000},
    "signals": {"signals": 100, "messages": 10_000},
    "hell": {"messages": 20_000, "seconds": 900, "kills": 50, "concurrency": 64},
    "overlap": {"messages": 10_000},
    "importers": {"messages": 10_000},
    "ends": {"ends": 10_000},
}
"""What each scenario takes with `--full`; the faults are those of the design, or more."""
FULL = {"seconds": 1200.0}
QUICK = {
    "kills": 60,
    "signals": 30,
    "messages": 2000,
    "ends": 500,
    "dispatchers": 8,
    "concurrency": 16,
    "seconds": 120.0,
    "seed": 1,
}


@contextmanager
def scratch(keep: bool) -> Iterator[Path]:
    if keep:
        yield Path(tempfile.mkdtemp(prefix="mailer-long-run-"))
        return
    with tempfile.TemporaryDirectory(prefix="mailer-long-run-") as folder:
        yield Path(folder)


def measure(name: str, wanted: argparse.Namespace) -> Row:
    """One scenario in a laboratory of its own, followed by clean runs and the judge."""
    began, broken, injected = time.monotonic(), "", 0
    wanted.until = began + wanted.seconds
    with scratch(wanted.keep) as folder:
        lab = Lab(folder, fresh=wanted.fresh, concurrency=wanted.concurrency, timeout=1)
        try:
            with lab:
                injected = SCENARIOS[name](lab, wanted, random.Random(wanted.seed))
                lab.run_until_final(100, code=None)
                lab.check_invariants()
        except (AssertionError, TimeoutError) as error:
            broken = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return Row(name, injected, toll(lab), lab.times_locked(), time.monotonic() - began, broken)


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.long_run", description=__doc__)
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help=f"of {' '.join(SCENARIOS)}; else all")
    parser.add_argument("--full", action="store_true", help="each fault as often as the design wants it")
    for name, value in QUICK.items():
        helped = "at most, for the faults of one scenario" if name == "seconds" else None
        parser.add_argument(f"--{name}", type=type(value), help=helped, metavar=f"{value:g}")
    parser.add_argument("--fresh", action="store_true", help="an interpreter for each run, as cron starts it")
    parser.add_argument("--keep", action="store_true", help="keep the folders of the laboratories")
    wanted = parser.parse_args(arguments)
    if unknown := set(wanted.scenario) - SCENARIOS.keys():
        parser.error(f"no such scenario: {' '.join(sorted(unknown))}")
    return wanted


def figures(name: str, wanted: argparse.Namespace) -> argparse.Namespace:
    """What one scenario takes: what was asked for, else its own figure, else the quick one."""
    own = FULL | FIGURES.get(name, {}) if wanted.full else {}
    said = {each: value for each, value in vars(wanted).items() if value is not None}
    return argparse.Namespace(**(QUICK | own | said))


def main(arguments: Sequence[str] | None = None) -> int:
    wanted = options(arguments)
    print(f"seed {wanted.seed or QUICK['seed']}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    print(
        f"{'scenario':<20}{'messages':>9}{'faults':>8}{'lost':>6}{'repeats':>9}{'unknown':>9}"
        f"{'unexplained':>13}{'locked':>8}{'seconds':>9}"
    )
    clean = True
    for name in wanted.scenario or SCENARIOS:
        row = measure(name, figures(name, wanted))
        cost = row.toll
        print(
            f"{name:<20}{cost.messages:>9}{row.injected:>8}{cost.lost:>6}{cost.repeats:>9}{cost.unknown:>9}"
            f"{cost.unexplained:>13}{row.locked:>8}{row.seconds:>9.1f}  {row.broken}",
            flush=True,
        )
        clean = clean and row.is_clean
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
