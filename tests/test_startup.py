"""What a command may not import: it pays for what it uses, 1,440 times a day."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mailer_cli.database import Database, RunLocks

ROOT = Path(__file__).parent.parent
NETWORK = frozenset(["httpx", "httpcore", "aiohttp", "yarl", "tenacity"])
DATABASE = frozenset(["sqlalchemy", "sqlmodel", "alembic"])
PARSING = frozenset(["typer", "pydantic"])
SCREEN = frozenset(["rich", "pygments", "markdown_it"])
ASYNC = frozenset({"asyncio"})

FORBIDDEN = {
    "--help": DATABASE | NETWORK | SCREEN | ASYNC | {"pydantic", "sqlite3", "dotenv", "zoneinfo"},
    "mailings create --help": DATABASE | NETWORK | SCREEN | ASYNC | {"sqlite3"},  # Typer needs pydantic
    "--version": DATABASE | NETWORK | SCREEN | ASYNC | {"pydantic", "sqlite3", "dotenv", "zoneinfo"},
    "dispatch": DATABASE | NETWORK | SCREEN | ASYNC | PARSING | {"mailer_cli.cli", "mailer_cli.database"},
    "dispatch --quiet": DATABASE | NETWORK | SCREEN | ASYNC | PARSING | {"mailer_cli.output"},
    "dispatch --json": NETWORK | SCREEN | {"alembic", "mailer_cli.gateway.client"},
    "health --max-age 3m": NETWORK
    | SCREEN
    | {"alembic", "sqlmodel", "mailer_cli.models", "mailer_cli.outbox"},
    "schedule cron": NETWORK | SCREEN | {"alembic", "sqlmodel", "mailer_cli.models", "mailer_cli.outbox"},
}


def run(words: str, **environment: str) -> tuple[str, set[str]]:
    """What a command says, in an interpreter of its own, and all that it imported."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write('\\n' + ' '.join(sys.modules)))\n"
        "sys.argv[0] = 'mailer'\n"
        "from mailer_cli.__main__ import main\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", code, *words.split()]
    known = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    ran = subprocess.run(
        command, capture_output=True, text=True, env=known | {"PYTHONPATH": str(ROOT)} | environment
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, set(ran.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("words", FORBIDDEN)
def test_a_command_imports_only_what_it_uses(words: str, database: Database) -> None:
    locks = RunLocks(database)
    locks.beat()
    locks.close()
    said, imported = run(words)
    assert said or "--quiet" in words
    assert not FORBIDDEN[words] & imported, sorted(FORBIDDEN[words] & imported)


def test_completion_imports_no_database_and_no_network(database: Database) -> None:
    said, imported = run("", _MAILER_COMPLETE="complete_bash", COMP_WORDS="mailer cl", COMP_CWORD="1")
    assert said.split() == ["clients"]
    heavy = (DATABASE | NETWORK | ASYNC | SCREEN | {"sqlite3"}) & imported
    assert not heavy, sorted(heavy)


def test_the_installed_program_starts_where_an_idle_run_ends() -> None:
    """A start at the command line itself would import all that it needs to read options."""
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"mailer": "mailer_cli.__main__:main"}
