"""Which way the program goes. A cron run with nothing to do ends here, 1,440 times a day, before anything
heavy is imported; whatever else it is, or may be, is for the command line."""

import os
import sys
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from mailer_cli.stop import Stop


@dataclass(frozen=True)
class Run:
    """`mailer dispatch` as `mailer schedule` writes it."""

    folder: str = "."
    env_file: str | None = None
    database: str | None = None
    quiet: bool = False


def main(stop: Stop) -> int:
    """Run one command; its exit code."""
    os.umask(0o077)  # whatever is made is the operator's alone
    run = read(sys.argv[1:])
    if run is not None and is_over(run):
        return 0
    from mailer_cli import cli

    return cli.main(stop=stop)


def read(arguments: Sequence[str]) -> Run | None:
    """The dispatch that is meant; None for other commands, and for what only the command line understands."""
    given, words = dict[str, str](), list(arguments)
    while len(words) > 1 and words[0] in ("-C", "--env-file", "--database"):
        given[words[0]] = words[1]
        words = words[2:]
    if words[:1] != ["dispatch"] or not {*words[1:]} <= {"-q", "--quiet"}:
        return None
    return Run(given.get("-C", "."), given.get("--env-file"), given.get("--database"), len(words) > 1)


def is_over(run: Run) -> bool:
    """Whether it had surely nothing to do, and said so. On any doubt, and on any fault, it is not."""
    import time
    from datetime import UTC, datetime

    from mailer_cli import belief, idle, settings

    try:
        with chdir(run.folder):
            found = settings.load(Path(run.env_file) if run.env_file is not None else None)
            found.require_gateway()
            path = run.database or found.database
            boot = belief.boot_of(time.clock_gettime(time.CLOCK_BOOTTIME))
            now, or_later = datetime.now(UTC), not run.quiet  # who is told wants to know what waits
            if "://" in path or not idle.beat_if_idle(Path(path), now, boot, or_later=or_later):
                return False
        if not run.quiet:
            sys.stdout.write(f"{idle.NOTHING_TO_DO}\n")
            sys.stdout.flush()
    except Exception:
        return False  # what it was is found out, and said, by the command itself
    return True
