"""Whose files are: what root makes beside somebody's database is his, and what he cannot use is found out."""

import os
import pwd
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

READ, WRITE, ENTER = 4, 2, 1  # as in the modes of files


def open_or_make(path: Path, flags: int, like: Path) -> tuple[int, bool]:
    """A descriptor of the file, made if it is not there, 0600, for the owner of `like`; whether it was made.

    A link to nothing is not followed: it may be somebody else's. Raises: OSError.
    """
    flags |= os.O_CLOEXEC
    with suppress(FileNotFoundError):
        return os.open(path, flags), False
    try:
        made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        with suppress(FileNotFoundError):
            return os.open(path, flags), False  # somebody was quicker
        raise FileNotFoundError(error.errno, "it is a link to nothing", str(path)) from error
    hand_over(made, like)
    return made, True


def hand_over(file: int, like: Path) -> None:
    """Give what root has made the owner and group of `like`, or of its folder when it is not there yet, as
    SQLite does with its journals."""
    if os.geteuid() != 0:
        return
    with suppress(OSError):
        there = (like if like.exists() else like.parent).stat()
        os.fchown(file, there.st_uid, there.st_gid)


def identity(file: Path | int) -> tuple[int, int] | None:
    """What a file is, whatever its name; None when nothing is there, or can be reached."""
    try:
        found = os.stat(file)  # noqa: PTH116  of a descriptor too
    except OSError:
        return None
    return found.st_dev, found.st_ino


@dataclass(frozen=True)
class Person:
    """Somebody who may or may not use a file."""

    uid: int
    groups: frozenset[int]

    @property
    def name(self) -> str:
        return name_of(self.uid)


def person(user: int | str) -> Person:
    """By a name or a number. Raises: KeyError for a name that nobody has."""
    try:
        known = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        return Person(int(user), frozenset()) if str(user).isdigit() else _nobody(user)
    return Person(known.pw_uid, frozenset(os.getgrouplist(known.pw_name, known.pw_gid)))


def _nobody(user: int | str) -> Person:
    raise KeyError(user)


def name_of(uid: int) -> str:
    """The name of a user, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def kept_from(who: Person, path: Path, bits: int) -> Path | None:
    """What keeps somebody from using a file so: the file, or a folder on the way to it; None when nothing
    does, or the file is not there. Where access lists say more than modes, they are believed to allow it."""
    named, real = path.absolute(), path.resolve()  # a link and what it leads to have two ways
    ways = dict.fromkeys([*reversed(named.parents), *reversed(real.parents)])
    for each, needed in [*((folder, ENTER) for folder in ways), (real, bits)]:
        with suppress(OSError):
            if not _may(who, each, needed):
                return each
    return None


def _may(who: Person, path: Path, bits: int) -> bool:
    there = path.stat()
    if who.uid == 0 or _has_list(path):
        return True
    shift = 6 if there.st_uid == who.uid else 3 if there.st_gid in who.groups else 0
    return (stat.S_IMODE(there.st_mode) >> shift) & bits == bits


def _has_list(path: Path) -> bool:
    with suppress(OSError):
        return bool(os.getxattr(path, "system.posix_acl_access"))
    return False
