"""The rules of the layout and of style: one road, one room a library, one clock, one queue."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mailer_cli"

ROAD = [
    *("__main__", "start", "cli", "output"),
    *("dispatch", "sender", "company", "caution", "trust", "decide", "gate", "breaker", "blame", "news"),
    *("stats", "messages", "doctor", "schedule"),
    *("csv_export", "csv_import", "clients", "mailings"),
    *("sandbox", "gateway", "audience", "backup", "retention", "outbox"),
    *("invariants", "findings", "logs", "files"),
    *(
        "database",
        "idle",
        "belief",
        "models",
        "settings",
        "stop",
        "attributes",
        "system_zone",
        "times",
        "words",
        "plural",
        "owners",
        "errors",
    ),
]
"""A module may import what stands after it, never what stands before it."""

ROOMS = {
    "typer": {"cli"},
    "rich": {"output"},
    "httpx": {"gateway"},
    "yarl": {"gateway"},
    "aiohttp": {"gateway", "sandbox"},
    "certifi": {"gateway"},
    "tenacity": {"gateway", "database"},
    "dotenv": {"settings"},
    "alembic": {"database", "migrations"},
}


@functools.cache
def modules() -> tuple[tuple[str, Path, ast.Module], ...]:
    """Every source file with the name of the module or package that it belongs to."""
    paths = sorted(PACKAGE.rglob("*.py"))
    names = (path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in paths)
    return tuple(
        (name, path, ast.parse(path.read_text()))
        for name, path in zip(names, paths, strict=True)
        if name != "__init__"
    )


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names of all that a file imports, lazily or not, types aside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called(tree: ast.Module) -> Iterator[str]:
    """Every call as it is written, less its arguments."""
    yield from (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_imports_run_one_way_along_the_road() -> None:
    for name, path, tree in modules():
        if name == "migrations":
            continue
        for target in imported(tree):
            if target.startswith("mailer_cli."):
                other = target.split(".")[1]
                if other in ROAD and other != name:
                    assert ROAD.index(name) < ROAD.index(other), f"{path.name} imports {target}"


def test_every_module_has_its_place_on_the_road() -> None:
    assert {name for name, _, _ in modules()} - {"migrations"} <= set(ROAD)


@pytest.mark.parametrize("library", ROOMS)
def test_each_library_has_one_room(library: str) -> None:
    users = {name for name, _, tree in modules() for each in imported(tree) if each.split(".")[0] == library}
    assert users == ROOMS[library] & {name for name, _, _ in modules()}


def test_only_output_prints() -> None:
    assert {name for name, _, tree in modules() if "print" in called(tree)} == {"output"}


def test_the_clock_and_chance_are_read_where_a_command_begins() -> None:
    clocks = {
        "datetime.now",
        "datetime.utcnow",
        "time.time",
        "time.clock_gettime",
        "time.monotonic",
        "random.random",
        "random.Random",
    }
    assert {name for name, _, tree in modules() if clocks & set(called(tree))} == {"start", "cli"}


def test_only_audience_creates_messages_and_only_outbox_changes_them() -> None:
    creators = {name for name, _, tree in modules() if "insert(Message)" in ast.unparse(tree)}
    changers = {name for name, _, tree in modules() if "update(Message)" in ast.unparse(tree)}
    removers = {
        path.relative_to(PACKAGE).as_posix()
        for _, path, tree in modules()
        if "delete(Message)" in ast.unparse(tree)
    }
    assert (creators, changers, removers) == ({"audience"}, {"outbox"}, {"outbox/purge.py"})


def run_check(*arguments: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_ruff_finds_nothing() -> None:
    run_check("ruff", "check", ".")


def test_the_code_is_formatted() -> None:
    run_check("ruff", "format", "--check", ".")


@pytest.mark.timeout(300)
def test_mypy_strict_finds_nothing() -> None:
    run_check("mypy")
