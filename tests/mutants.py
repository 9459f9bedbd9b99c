"""Planted bugs, and the tests that have to find them: `python -m tests.mutants [NAME ...] [--short]`.

A property test is worth only what it kills. Each mutant is a change of the program's text, applied to a copy;
the tests are run against the copy, and one of them has to fail by an assertion. A text that is no longer
there is an error: the mutant is to be adapted together with the program. Exit code 1 when one survives.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
TIME_LIMIT = 900  # seconds for one run of pytest; a mutant that hangs is not caught
BY_ASSERTION = re.compile(
    r"^FAILED (?P<test>\S+?(?:\[.*?\])?) - (?:AssertionError|assert|.*IntegrityError)", re.MULTILINE
)


@dataclass(frozen=True)
class Trial:
    """What one run of pytest said."""

    code: int
    out: str
    seconds: float

    @property
    def killer(self) -> str | None:
        """The test that failed by an assertion, or by a rule of the schema."""
        found = BY_ASSERTION.search(self.out) if self.code == 1 else None
        return found["test"] if found else None


def copy_of_the_tree(folder: Path) -> None:
    for name in ("mailer_cli", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def run_tests(folder: Path, tests: str, examples: int) -> Trial:
    """pytest against the copy, up to the first failure, without looking for the smallest example."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        *("-n", "0"),  # the mutants themselves share the cores
        "-x",
        "-rf",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        *tests.split(),
    ]
    environment = os.environ | {
        "MAILER_EXAMPLES": str(examples),
        "MAILER_SHRINK": "no",
        "COLUMNS": "200",  # or the summary leaves the reason out
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT
        )
    except subprocess.TimeoutExpired:
        return Trial(-1, "took too long", time.monotonic() - began)
    return Trial(done.returncode, done.stdout + done.stderr, time.monotonic() - began)


def try_mutant(mutant: Mutant | None, tests: Sequence[str], examples: int) -> dict[str, Trial]:
    """Each of the tests against the mutant, or with None against the program as it is."""
    with tempfile.TemporaryDirectory(prefix="mailer-mutant-") as name:
        folder = Path(name)
        copy_of_the_tree(folder)
        for change in mutant.changes if mutant else ():
            change.apply(folder)
        return {each: run_tests(folder, each, examples) for each in tests}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("name", nargs="*", metavar="NAME", help="a mutant; else all. Begins with is enough")
    parser.add_argument("--short", action="store_true", help="the eight alone, each by its quickest test")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--examples", type=int, help="for the state machine, of each mutant")
    parser.add_argument("--list", action="store_true", help="say the names alone")
    wanted = parser.parse_args(arguments)
    chosen = [
        each
        for each in MUTANTS.values()
        if (not wanted.name or each.name.startswith(tuple(wanted.name))) and (each.short or not wanted.short)
    ]
    if wanted.list or not chosen:
        print("\n".join(MUTANTS))
        return 0 if wanted.list else 2
    examples = wanted.examples or (30 if wanted.short else 300)
    plan = {each.name: (each.short,) if wanted.short else each.by for each in chosen}
    for each in chosen:  # before the first is tried
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(ROOT / "mailer_cli", Path(folder) / "mailer_cli")
            for change in each.changes:
                change.apply(Path(folder))
    return judge(chosen, plan, examples, wanted.jobs)


def judge(chosen: Sequence[Mutant], plan: dict[str, tuple[str, ...]], examples: int, jobs: int) -> int:
    """Try the program as it is, then each mutant; print the table."""
    used = sorted({each for tests in plan.values() for each in tests})
    with ThreadPoolExecutor(jobs) as pool:
        sound = pool.map(lambda each: try_mutant(None, [each], examples)[each], used)
        for tests, trial in zip(used, sound, strict=True):
            print(f"{'the program as it is':<60} {tests:<28} {trial.seconds:6.1f} s", flush=True)
            if trial.code != 0:
                print(trial.out)
                return 2
        trials = pool.map(lambda each: try_mutant(each, plan[each.name], examples), chosen)
        survived = [each.name for each, found in zip(chosen, trials, strict=True) if not report(each, found)]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants killed")
    return 1 if survived else 0


def report(mutant: Mutant, found: dict[str, Trial]) -> bool:
    """A line for each test; whether one of them has killed it."""
    for tests, trial in found.items():
        verdict = trial.killer or f"SURVIVED (exit {trial.code})"
        print(f"{mutant.name:<60} {tests:<28} {trial.seconds:6.1f} s  {verdict}", flush=True)
        if trial.killer is None and trial.code != 0:
            print("\n".join(trial.out.splitlines()[-15:]))
    return any(trial.killer for trial in found.values())


if __name__ == "__main__":
    sys.exit(main())
