"""What it ran on, in a few lines: without it a figure means nothing."""

import os
import platform
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import sink

LIBRARIES = ("httpx", "aiohttp", "sqlalchemy", "huey", "dramatiq", "django", "django-post-office", "requests")


def described() -> dict[str, str]:
    """Names and values, in the order in which they are printed."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return {
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "source": _revision(),
        "machine": f"{cores} cores, {_memory() / 2**30:.0f} GB, load {load:.1f} at the start",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "servers": ", ".join(filter(None, (_nginx(), _redis()))) or "none",
        "libraries": ", ".join(filter(None, map(_library, LIBRARIES))),
    }


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    if shutil.which("git") is None:
        return "unknown"
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def _nginx() -> str | None:
    return None if sink.find_nginx() is None else sink.nginx_version()


def _redis() -> str | None:
    if shutil.which("redis-server") is None:
        return None
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    return "redis " + said.partition("v=")[2].partition(" ")[0]


def _library(name: str) -> str | None:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return None
