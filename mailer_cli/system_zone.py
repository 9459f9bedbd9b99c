"""The machine's own zone, as `date` and systemd see it: TZ, then /etc/localtime, then /etc/timezone.

Only /etc/localtime is obeyed by programs and changed by `timedatectl`; /etc/timezone is a note beside it. The
name is needed all the same, since an offset knows of no change of the clocks.
"""

import os
import re
import zoneinfo
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from mailer_cli.times import PLAIN_NAME, BadTime, find_zone, zone_of

# MSK-3 and <+0330>-3:30 count westwards; what changes its clocks has no name to be kept
FIXED = re.compile(r"(?:[A-Za-z]{3,}|<[A-Za-z\d+-]{3,}>)([+-]?)(\d{1,2})(?::([0-5]\d))?(?::00)?", re.ASCII)
SAMPLES = [datetime(2025 + month // 12, month % 12 + 1, 5, 12, tzinfo=UTC) for month in range(144)]


@dataclass(frozen=True)
class SystemZone:
    """The zone that is taken, who names it, and why it may not be the machine's."""

    name: str
    source: str
    doubt: str | None = None


def find(environment: Mapping[str, str] = os.environ, etc: Path = Path("/etc")) -> SystemZone:
    """The machine's zone. Reads files, never the clock."""
    tz = environment.get("TZ")
    if tz is None:
        return _of_files(etc)
    word = tz.strip().removeprefix(":")
    if word.endswith("etc/localtime"):
        return _of_files(etc)
    name = _of_word(word)
    if name is not None:
        return SystemZone(name, "TZ")
    found = _of_files(etc)
    doubt = f"TZ={word[:40]} names no zone that is known here"
    return SystemZone(found.name, found.source, "; ".join(filter(None, (doubt, found.doubt))))


def _of_word(word: str) -> str | None:
    """What TZ means: `date` takes an empty one for UTC."""
    if not word:
        return "UTC"
    if word.startswith("/"):
        return _of_file(Path(word), None)
    return _named(word) or _fixed(word)


def _fixed(word: str) -> str | None:
    match = FIXED.fullmatch(word)
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    west = f"{'+' if sign == '-' else '-'}{int(hours):02}:{minutes or '00'}"
    if int(hours) == 0 and not int(minutes or 0):
        return "UTC"
    with suppress(BadTime):
        return find_zone(west).name
    return None


def _of_files(etc: Path) -> SystemZone:
    noted = None
    with suppress(OSError, UnicodeDecodeError):
        noted = _named((etc / "timezone").read_text(encoding="ascii").strip())
    local = etc / "localtime"
    name = _of_file(local, noted)
    if name is not None:
        stale = noted is not None and not _agree(zone_of(name), zone_of(noted))
        return SystemZone(name, "/etc/localtime", f"/etc/timezone says {noted}" if stale else None)
    if local.exists():
        return _nameless(local, noted)
    if noted is None or _agree(zone_of(noted), UTC):
        return SystemZone(noted or "UTC", "/etc/timezone" if noted else "no file of /etc")
    return SystemZone(noted, "/etc/timezone", "there is no /etc/localtime, so other programs take UTC")


def _nameless(local: Path, noted: str | None) -> SystemZone:
    """A file of rules that no zone has: that of older or newer zone data, or one of somebody's own."""
    with suppress(Exception), local.open("rb") as opened:
        rules = zoneinfo.ZoneInfo.from_file(opened)
        if noted is not None and _agree(rules, zone_of(noted)):
            return SystemZone(noted, "/etc/timezone")
        offsets = {each.astimezone(rules).utcoffset() for each in SAMPLES}
        if len(offsets) == 1:
            return SystemZone(_offset_name(offsets.pop() or timedelta(0)), "/etc/localtime")
    source = "/etc/timezone" if noted else "no file of /etc"
    return SystemZone(noted or "UTC", source, "/etc/localtime is the file of no zone that is known here")


def _offset_name(offset: timedelta) -> str:
    minutes = abs(offset) // timedelta(minutes=1)
    written = f"{'-' if offset < timedelta(0) else '+'}{minutes // 60:02}:{minutes % 60:02}"
    return find_zone(written).name if offset else "UTC"


def _of_file(path: Path, likely: str | None) -> str | None:
    """The name of the zone whose file it is, by where a link leads, else by what is in it."""
    with suppress(OSError, RuntimeError):
        for target in (str(path.readlink()) if path.is_symlink() else "", str(path), str(path.resolve())):
            _, inside, name = target.rpartition("zoneinfo/")
            if inside and (found := _named(name.removeprefix("posix/"))):
                return found
        return _by_content(path.read_bytes(), likely)
    return None


def _by_content(content: bytes, likely: str | None) -> str | None:
    if likely is not None and content in _contents(likely, len(content)):
        return likely
    if not content.startswith(b"TZif"):
        return None
    names = sorted(zoneinfo.available_timezones(), key=_oddity)
    return next((each for each in names if content in _contents(each, len(content))), None)


def _oddity(name: str) -> tuple[bool, bool, str]:
    """The usual names first: UTC before Zulu, Europe/Moscow before W-SU."""
    return name != "UTC", not PLAIN_NAME.fullmatch(name) or name.startswith("Etc/"), name


def _contents(name: str, size: int) -> Iterator[bytes]:
    """The files of a zone that are so long."""
    from importlib import resources  # slow, and next to never asked

    for folder in zoneinfo.TZPATH:
        with suppress(OSError):
            if (Path(folder) / name).stat().st_size == size:
                yield (Path(folder) / name).read_bytes()
    with suppress(OSError, ModuleNotFoundError):
        yield (resources.files("tzdata") / "zoneinfo" / name).read_bytes()


def _named(word: str) -> str | None:
    """The zone of this name; an offset is none."""
    with suppress(BadTime):
        found = find_zone(word).name
        return found if found[:1].isalpha() and word else None
    return None


def _agree(one: tzinfo, other: tzinfo) -> bool:
    """Whether their clocks are the same, summer and winter."""
    return all(each.astimezone(one).utcoffset() == each.astimezone(other).utcoffset() for each in SAMPLES)
