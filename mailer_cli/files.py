"""Files that the operator names: lists are read as bytes, results appear whole or not at all."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, BinaryIO

from mailer_cli.errors import DatabaseFailed, Invalid


def open_input(path: Path) -> AbstractContextManager[BinaryIO]:
    """The file, or standard input for `-`. Raises: Invalid."""
    if str(path) == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return path.open("rb")
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from error


@contextmanager
def written_whole(path: Path) -> Iterator[IO[str]]:
    """A UTF-8 text that takes the place of the file when all of it is on disk; only its owner reads it.

    What is no plain file, as /dev/stderr, is written as it goes, unless it is a terminal, which would obey
    what is in it. Raises: Invalid, DatabaseFailed.
    """
    if path.is_dir():
        raise Invalid(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise Invalid(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_symlink() and not path.exists():  # perhaps somebody else's, in a folder for all
        raise Invalid(f"cannot write {path}: it is a link to nothing")
    plain = path.is_file() or not path.exists()
    try:
        with _replacing(path.resolve()) if plain else path.open("w", encoding="utf-8", newline="") as file:
            if file.isatty():
                raise Invalid(f"cannot write {path}: it is a terminal", "name a file")
            yield file
    except OSError as error:
        raise DatabaseFailed(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    with NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        beside = Path(file.name)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
