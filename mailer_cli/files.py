"""Files that the operator names: lists are read as bytes; results appear whole or not at all, and never in
the place of what the program itself lives on."""

import errno
import io
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from mailer_cli import owners
from mailer_cli.database import unopened
from mailer_cli.database.files import COMPANIONS
from mailer_cli.errors import DatabaseFailed, Invalid, Refused
from mailer_cli.idle import lock_of
from mailer_cli.owners import ENTER, READ, WRITE, Person, hand_over
from mailer_cli.settings import Settings

STDIN, STDOUT = 0, 1
STREAM = Path("-")  # standard input, or output
SETTINGS = "the settings file"


def open_input(path: Path) -> AbstractContextManager[BinaryIO]:
    """The file, or standard input for `-`. Raises: Invalid."""
    if path == STREAM:
        return nullcontext(standard_input())
    try:
        return path.open("rb")
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from error


def standard_input() -> BinaryIO:
    """Raises: Invalid when there is none, as after `<&-`."""
    if sys.stdin is None:
        raise Invalid("cannot read standard input: it is closed", "name a file")
    return sys.stdin.buffer


# What no result may take the place of


@dataclass(frozen=True)
class Own:
    """A file that must not be written over, and what it is to the operator. `-` is what stdin reads."""

    path: Path
    what: str


def own_files(settings: Settings) -> list[Own]:
    """What belongs to this installation by its name, there or not yet there."""
    names = [Path(".env"), *([settings.env_file] if settings.env_file else [])]
    return [
        *of_database(settings),
        *(Own(each, SETTINGS) for each in names),
        *([Own(Path(settings.log), "the log")] if settings.log else []),
    ]


def of_database(settings: Settings) -> list[Own]:
    """The database, and what is found by its name."""
    database = unopened(settings).path
    real = database.resolve()
    return [
        Own(database, "the database"),
        *(Own(real.with_name(real.name + end), "a journal of the database") for end in COMPANIONS),
        Own(lock_of(database), "the lock of the database"),
    ]


def kept_from(who: Person, settings: Settings) -> list[Path]:
    """What of this installation somebody could not use as a dispatch has to: perhaps root has made it."""
    folder = unopened(settings).path.resolve().parent
    needs = [(folder, WRITE | ENTER)]
    for each in own_files(settings):
        needs.append((each.path, READ if each.what == SETTINGS else READ | WRITE))
    if settings.log and not Path(settings.log).exists():
        needs.append((Path(settings.log).resolve().parent, WRITE | ENTER))
    found = (owners.kept_from(who, path, bits) for path, bits in needs)
    return list(dict.fromkeys(each for each in found if each is not None))


def taken_for(path: Path, own: Iterable[Own]) -> str | None:
    """What a path is to the operator, whatever link leads there; None when it is none of those."""
    places = _places(path)
    return next((each.what for each in own if _places(each.path) & places), None)


def _places(path: Path) -> set[tuple[object, ...]]:
    """What a path leads to, as the system knows it: the file itself, and its name in its folder. Empty for
    devices and pipes."""
    descriptor = _descriptor(path, STDIN)
    found: set[tuple[object, ...]] = set()
    with suppress(OSError):
        file = os.stat(path if descriptor is None else descriptor)  # noqa: PTH116  of a descriptor too
        if not stat.S_ISREG(file.st_mode):
            return set()
        found.add((file.st_dev, file.st_ino))
    if descriptor is None:
        real = path.resolve()
        with suppress(OSError):
            folder = real.parent.stat()
            found.add((folder.st_dev, folder.st_ino, real.name))
    return found


def _descriptor(path: Path, stream: int) -> int | None:
    """The open file that is meant by `-`, /dev/stdout, /dev/fd/3 and the like."""
    if path == STREAM:
        return stream
    opened = Path("/proc/self/fd").resolve()
    while path.parent.resolve() != opened:
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return int(path.name) if path.name.isdigit() else None


# Writing


def to_stdout(path: Path) -> bool:
    """Whether standard output is meant, by whatever name."""
    return _descriptor(path, STDOUT) == STDOUT


def target(path: Path, own: Iterable[Own], *, force: bool) -> "Target":
    """A place that may be written; nothing is touched yet.

    Raises: Invalid when it is a folder, a link to nothing, in no folder, or one of our own.
    """
    descriptor = _descriptor(path, STDOUT)
    if descriptor is None:
        _require_usable(path)
    found = Target(path, force, descriptor)
    what = taken_for(path if descriptor is None else Path(f"/dev/fd/{descriptor}"), own)
    if what is not None:
        raise Invalid(f"{found.name} is {what}", "name another file")
    return found


def _require_usable(path: Path) -> None:
    if path.is_dir():
        raise Invalid(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise Invalid(f"cannot write {path}: there is no folder {path.parent}", f"mkdir -p {path.parent}")
    if path.is_symlink() and not path.exists():  # perhaps somebody else's, in a folder for all
        raise Invalid(f"cannot write {path}: it is a link to nothing")


@dataclass(frozen=True)
class Target:
    """Where a result goes. A file is made beside it and takes its place at the end, with only its owner to
    read it; a pipe, a device or what is open already is written as it goes, unless it is a terminal, which
    would obey what is in it."""

    path: Path
    force: bool
    descriptor: int | None = None

    @property
    def name(self) -> str:
        return "standard output" if self.path == STREAM else str(self.path)

    @property
    def is_stream(self) -> bool:
        return self.descriptor is not None or (self.path.exists() and not self.path.is_file())

    def require_free(self) -> None:
        """Raises: Refused when a file is there that nobody said could be replaced."""
        if not (self.force or self.is_stream) and self.path.exists():
            raise Refused(f"{self.path} is there already", "add --force to replace it, or name another file")

    @contextmanager
    def text(self, encoding: str = "utf-8") -> Iterator[IO[str]]:
        """Line ends as they are. Raises: Invalid, Refused, DatabaseFailed; nothing is there then."""
        with (
            self.binary() as file,
            io.TextIOWrapper(file, encoding=encoding, errors="backslashreplace", newline="") as text,
        ):
            yield text

    @contextmanager
    def binary(self) -> Iterator[BinaryIO]:
        """Raises: as `text`."""
        with self._explained():
            if self.is_stream:
                with self._stream() as file:
                    yield file
            else:
                with self.replaced() as beside, beside.open("wb") as file:
                    yield file

    @contextmanager
    def replaced(self) -> Iterator[Path]:
        """The path of an empty file beside it, which takes its place when all of it is on the disk."""
        self.require_free()
        real = self.path.resolve()
        # whoever could use what it replaces
        with self._explained(), partial(real, like=real if real.exists() else None) as beside:
            yield beside
            sync(beside)
            self.require_free()  # somebody may have been quicker
            beside.replace(real)
            sync_folder(real.parent)

    @contextmanager
    def _stream(self) -> Iterator[BinaryIO]:
        if self.descriptor == STDOUT and sys.stdout is None:  # what was opened since may have its number
            raise DatabaseFailed(f"cannot write {self.name}: it is closed", "send it somewhere")
        # a copy of the descriptor goes on where the others stand, instead of from the beginning
        with open(self.path if self.descriptor is None else os.dup(self.descriptor), "wb") as file:  # noqa: PTH123
            if file.isatty():
                raise Invalid(f"cannot write {self.name}: it is a terminal", "name a file")
            yield file

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DatabaseFailed(f"cannot write {self.name}: {error.strerror}") from error


class LateText:
    """A text that is begun by its first word: nothing is touched as long as there is nothing to say."""

    def __init__(self, target: Target, stack: ExitStack, refusal: str, encoding: str) -> None:
        self._target, self._stack, self._refusal, self._encoding = target, stack, refusal, encoding
        self._file = (
            stack.enter_context(target.text(encoding)) if target.is_stream else None
        )  # somebody may listen

    def write(self, text: str, /) -> int:
        """Raises: as `Target.text`; with `refusal` when a file is there already."""
        if self._file is None:
            try:
                self._target.require_free()
            except Refused as error:
                raise Refused(self._refusal, error.hint) from error
            self._file = self._stack.enter_context(self._target.text(self._encoding))
        return self._file.write(text)


@contextmanager
def written_late(target: Target, refusal: str, encoding: str = "utf-8") -> Iterator[LateText]:
    """A text that perhaps is never begun. An error inside leaves what was there."""
    with ExitStack() as stack:
        yield LateText(target, stack, refusal, encoding)


@contextmanager
def partial(path: Path, like: Path | None) -> Iterator[Path]:
    """An empty file, 0600, in the folder of `path`; whatever is left of it is removed at the end, with what
    SQLite may have put beside it. From root it has the owner of `like`."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    if like is not None:
        hand_over(descriptor, like)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        for end in ("", *COMPANIONS):
            Path(name + end).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """`sync`, where a folder can be synced: not on each network disk, nor one that may not be read."""
    try:
        sync(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise
