"""Real processes beside the test's own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[1]


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """A Python of its own in the working folder; `arguments` are its `sys.argv[1:]`."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + dedent(code)]
        + [str(each) for each in arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    """Its output, once it has ended well."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@contextmanager
def holding(code: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A process that has come to the end of `code` and stays there until it is killed or the block ends."""
    process = start(dedent(code) + "\nprint('ready', flush=True)\nsys.stdin.read()\n", *arguments)
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said == "ready\n", process.communicate()[1]
        yield process
    finally:
        process.kill()
        process.communicate()


A_RUN = """
    from pathlib import Path
    from mailer_cli.database import Database, RunLocks
    locks = RunLocks(Database(Path("mailer.db")))
    locks.take(int(sys.argv[1]))
"""
A_WRITER = """
    import sqlite3
    connection = sqlite3.connect("mailer.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
"""
A_READER = """
    import sqlite3
    connection = sqlite3.connect("mailer.db", isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM run").fetchall()
"""
