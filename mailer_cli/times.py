"""Times, zones and windows: how they are written, and what they mean.

A moment is an aware UTC datetime. Nothing here reads the clock: `now` comes in.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

from mailer_cli.words import plain

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
FARTHEST_OFFSET = timedelta(hours=14)
LONGEST = timedelta(days=36_525)  # a century: `now` plus or minus a duration stays inside the calendar

# One digit without a colon is hours, three are a riddle: +330 may be +03:30 or +33:0.
OFFSET = re.compile(r"([+-])(\d\d|\d(?=:|\Z))(?::?([0-5]\d))?", re.ASCII)
# A name of this shape is true if its file loads. Others may be oddities (localtime, right/Europe/Moscow)
# or, where file names ignore case, misspelled.
PLAIN_NAME = re.compile(r"([A-Z][a-z]+/)+([A-Z][a-z]+(_[A-Z][a-z]+)*|UTC)", re.ASCII)
# How an offset is written elsewhere: UTC+3, GMT+03:00, (UTC+03:00) Moscow, a bare 3. East is meant, though
# `Etc/GMT+3` and `TZ=MSK-3` count westwards: so it is not taken, but asked for.
NAMED_OFFSET = re.compile(
    r"\(?(UTC|GMT|MSK|МСК)?\s*([+-]?)([0-9]{1,2})(?::?([0-5][0-9]))?(?:\).*)?", re.IGNORECASE
)
MOSCOW = timedelta(hours=3)  # MSK+4 counts from there
NO_PLACES = frozenset({"localtime", "Factory"})
CALENDAR_DAY = r"(today|tomorrow|\d{4}-\d\d-\d\d)"
CLOCK = r"(\d\d?):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?"
MOMENT = re.compile(rf"{CALENDAR_DAY}(?: +|T){CLOCK} *(Z|[+-][\d:]+)?", re.ASCII | re.IGNORECASE)
DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
WINDOW = re.compile(r"(\d\d?):([0-5]\d) *[-–] *(\d\d?):([0-5]\d)", re.ASCII)

ZONE_HINT = "write an IANA name as Europe/Moscow, or an offset as +03:00"
TIME_HINT = "write 2026-12-31T18:00, 2026-12-31T18:00+03:00, tomorrow 09:00, +90m or now"
DURATION_HINT = "write 45s, 3m, 1h30m or 90d"
WINDOW_HINT = "write 09:00-21:00"


class BadTime(ValueError):
    """What was written is no time, zone, window or duration; one line, to be put behind the option's name."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _quoted(value: str) -> str:
    return repr(value if len(value) <= 60 else f"{value[:59]}…")


@dataclass(frozen=True)
class Zone:
    """An IANA name or an offset, spelled as it is stored; the warning is for whoever wrote it."""

    name: str
    tz: tzinfo
    warning: str | None


@lru_cache(maxsize=1024)  # an import asks for every row
def find_zone(value: str) -> Zone:
    """The zone meant by `Europe/Moscow` in any case, `+03:00`, `+0300`, `+3`, `Z` or `UTC`.

    Raises: BadTime, with similar names in its hint.
    """
    written = plain(value).replace("\u2212", "-")
    offset = _offset(written)
    if offset is not None:
        name = _offset_name(offset)
    elif written.upper() in ("Z", "UTC"):
        name = "UTC"
    else:
        name = _iana_name(written)
    return Zone(name, zone_of(name), _inverted_sign(name))


@cache
def zone_of(name: str) -> tzinfo:
    """The zone of a name that `find_zone` gave.

    Raises: BadTime when this machine does not know it, though another one did.
    """
    offset = _offset(name)
    if offset is not None:
        return timezone(offset)
    if name == "UTC":
        return UTC  # also where there is no zone file at all
    try:
        return ZoneInfo(name)
    except Exception as error:  # unknown; a path; a folder as Europe; a file that is cut off or foreign
        raise BadTime(f"{_quoted(name)} is not a time zone known here", ZONE_HINT) from error


@cache
def is_known(name: str) -> bool:
    """Whether this machine has the rules of a stored zone: newer zone data, or another machine's, may have
    named it."""
    with suppress(BadTime):
        zone_of(name)
        return True
    return False


def _offset_name(offset: timedelta) -> str:
    """As `+03:00`; seconds, which only old zones have, are cut."""
    hours, minutes = divmod(abs(offset) // MINUTE, 60)
    return f"{'-' if offset < timedelta(0) else '+'}{hours:02}:{minutes:02}"


def _offset(text: str) -> timedelta | None:
    match = OFFSET.fullmatch(text)
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    size = timedelta(hours=int(hours), minutes=int(minutes or 0))
    if size > FARTHEST_OFFSET:
        raise BadTime(f"{text} is not an offset from -14:00 to +14:00", ZONE_HINT)
    return -size if sign == "-" else size


def _iana_name(written: str) -> str:
    if PLAIN_NAME.fullmatch(written):  # 0.1 ms at every start instead of 14 for all names
        with suppress(BadTime):
            zone_of(written)
            return written
    try:
        return _iana_names()[written.lower()]
    except KeyError:
        raise BadTime(f"{_quoted(written)} is not a time zone", _zone_hint(written)) from None


@cache
def _iana_names() -> dict[str, str]:
    return {name.lower(): name for name in sorted(available_timezones() - NO_PLACES)}


# Nobody's IANA names, but what people in Russia call their zones.
RUSSIAN = {
    "Europe/Kaliningrad": "калининград",
    "Europe/Moscow": "москва московское мск msk msd петербург санкт-петербург спб",
    "Europe/Samara": "самара samt",
    "Asia/Yekaterinburg": "екатеринбург yekt",
    "Asia/Omsk": "омск omst",
    "Asia/Novosibirsk": "новосибирск novt",
    "Asia/Krasnoyarsk": "красноярск krat",
    "Asia/Irkutsk": "иркутск irkt",
    "Asia/Yakutsk": "якутск yakt",
    "Asia/Vladivostok": "владивосток vlat",
    "Asia/Magadan": "магадан magt",
    "Asia/Kamchatka": "камчатка pett",
}
CALLED = {word: name for name, words in RUSSIAN.items() for word in words.split()}


def _zone_hint(written: str) -> str:
    """What to write instead; for `UTC+3` and MSK it is known."""
    if (offset := _named_offset(written)) is not None:
        return f"write {_offset_name(offset)}"
    if written.lower() in CALLED:
        return f"write {CALLED[written.lower()]}"
    return _like(written)


def _named_offset(written: str) -> timedelta | None:
    match = NAMED_OFFSET.fullmatch(written)
    if match is None:
        return None
    named, sign, hours, minutes = match.groups()
    size = MINUTE * (int(hours) * 60 + int(minutes or 0))
    offset = -size if sign == "-" else size
    if (named or "").lower() in ("msk", "мск"):
        offset += MOSCOW
    return offset if abs(offset) <= FARTHEST_OFFSET else None


def _like(written: str) -> str:
    searchable = len(written) <= 40 and not any(char.isdigit() for char in written)  # GMT+3 is not GMT+0
    similar = _similar_names(written.lower().replace(" ", "_")) if searchable else []
    return f"did you mean {' or '.join(similar)}?" if similar else ZONE_HINT


@lru_cache(maxsize=1024)  # a bad column repeats itself, and a search takes milliseconds
def _similar_names(folded: str) -> list[str]:
    from difflib import get_close_matches

    names = _iana_names()
    cities = {name.rpartition("/")[2]: names[name] for name in names}
    known = cities | names
    return list(dict.fromkeys(known[match] for match in get_close_matches(folded, known, cutoff=0.8)))


def _inverted_sign(name: str) -> str | None:
    match = re.fullmatch(r"Etc/GMT([+-][1-9]\d?)", name)
    if match is None:
        return None
    east = timedelta(hours=-int(match[1]))
    side, other = ("east", "west") if east > timedelta(0) else ("west", "east")
    return (
        f"{name} is {_offset_name(east)}, {side} of Greenwich, for its sign is inverted;"
        f" write {_offset_name(-east)} if you meant {other}"
    )


def parse_time(value: str, zone: str, now: datetime) -> datetime:
    """The moment meant by `now`, `+1h30m`, `tomorrow 09:00` or ISO 8601, in `zone` unless it has an offset.

    Raises: BadTime, also for a local time that does not exist or exists twice.
    """
    with suppress(OverflowError):
        moment = _moment(plain(value), zone, now)
        if 1970 <= moment.year < 9999:  # every zone can show it
            return moment
    raise BadTime(f"{_quoted(value)} is outside the years 1970 to 9998")


def _moment(text: str, zone: str, now: datetime) -> datetime:
    if text.lower() == "now":
        return now
    if text.startswith("+"):
        return now + parse_duration(text[1:])
    match = MOMENT.fullmatch(text)
    if match is None:
        whole_day = re.fullmatch(CALENDAR_DAY, text, re.IGNORECASE)
        hint = f"add the time of day, as {text} 18:00" if whole_day else TIME_HINT
        raise BadTime(f"{_quoted(text)} is not a time", hint)
    day, *clock, offset = match.groups()
    name = find_zone(offset).name if offset else zone
    today = now.astimezone(zone_of(name)).date()
    try:
        local = datetime.combine(_day(day.lower(), today), _clock(*clock))
    except ValueError as error:  # 31 February, 25:00
        raise BadTime(f"{_quoted(text)} is not a time: {error}", TIME_HINT) from error
    return _only_reading(local, name)


def _day(written: str, today: date) -> date:
    match written:
        case "today":
            return today
        case "tomorrow":
            return today + DAY
        case _:
            return date.fromisoformat(written)


def _clock(hour: str, minute: str, second: str | None, fraction: str | None) -> time:
    return time(int(hour), int(minute), int(second or 0), int((fraction or "").ljust(6, "0")))


def _only_reading(local: datetime, zone: str) -> datetime:
    # In a gap and in a fold, and nowhere else, the two values of `fold` differ in UTC (PEP 495).
    tz = zone_of(zone)
    early, late = sorted(local.replace(tzinfo=tz, fold=fold).astimezone(UTC) for fold in (0, 1))
    if early == late:
        return early
    fate = "comes twice" if late.astimezone(tz).replace(tzinfo=None) == local else "does not exist"
    precision = "auto" if local.second or local.microsecond else "minutes"
    first, second = (moment.astimezone(tz).isoformat(timespec=precision) for moment in (early, late))
    clock = local.time().isoformat(precision)
    raise BadTime(f"{clock} on {local.date()} {fate} in {zone}: write {first} or {second}")


def parse_duration(value: str) -> timedelta:
    """`45s`, `3m`, `1h30m`, `90d`; a day is 24 hours.

    Raises: BadTime, also for more than a century.
    """
    match = DURATION.fullmatch(plain(value))
    if match is None:
        raise BadTime(f"{_quoted(value)} is not a duration", DURATION_HINT)
    with suppress(OverflowError, ValueError):  # int() refuses thousands of digits
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        duration = timedelta(days, hours=hours, minutes=minutes, seconds=seconds)
        if duration <= LONGEST:
            return duration
    raise BadTime(f"{_quoted(value)} is longer than a century", DURATION_HINT)


def show_time(moment: datetime, zone: str) -> str:
    """For people, as `2026-12-31 18:00 +03:00`; seconds only where there are some, fractions never."""
    local = moment.astimezone(zone_of(zone))
    written = f"{local:%Y-%m-%d %H:%M:%S}" if local.second else f"{local:%Y-%m-%d %H:%M}"
    return f"{written} {_offset_name(local.utcoffset() or timedelta(0))}"


def json_time(moment: datetime) -> str:
    """For programs, as `2026-12-31T15:00:00.000Z`; what is below a millisecond is cut."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@dataclass(frozen=True)
class Window:
    """The part of every local day in which messages may go: `[from, to)`, over midnight if from > to.

    Decided only by converting UTC to local time, so gaps and folds need no special case.
    """

    from_minute: int
    to_minute: int

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    @property
    def start(self) -> str:
        return _clock_name(self.from_minute)

    @property
    def end(self) -> str:
        return _clock_name(self.to_minute)

    def is_open(self, zone: str, moment: datetime) -> bool:
        minute = _minute_of_day(moment, zone)
        if self.from_minute < self.to_minute:
            return self.from_minute <= minute < self.to_minute
        return minute >= self.from_minute or minute < self.to_minute

    def opens_at(self, zone: str, moment: datetime) -> datetime:
        """The first instant at or after `moment` at which it is open."""
        return moment if self.is_open(zone, moment) else self._turns(zone, moment, self.from_minute)

    def closes_at(self, zone: str, moment: datetime) -> datetime:
        """The first instant after `moment`, at which it must be open, when it no longer is."""
        return self._turns(zone, moment, self.to_minute)

    def _turns(self, zone: str, moment: datetime, bound: int) -> datetime:
        minute = moment.astimezone(UTC).replace(second=0, microsecond=0)
        likely = minute + MINUTE * ((bound - _minute_of_day(minute, zone)) % 1440)
        if _minute_of_day(likely, zone) == bound:
            return likely
        return _search_turn(self, zone, minute)  # the clock is changed before `likely`


@lru_cache(maxsize=1024)  # a millisecond, in two nights a year, for every message of the minute
def _search_turn(window: Window, zone: str, minute: datetime) -> datetime:
    before = window.is_open(zone, minute)
    while window.is_open(zone, minute) == before:
        minute += MINUTE
    return minute


def parse_window(value: str) -> Window:
    """`09:00-21:00` or `21:00-09:00`; `24:00` may be its end.

    Raises: BadTime, also for equal bounds.
    """
    match = WINDOW.fullmatch(plain(value))
    if match is None:
        raise BadTime(f"{_quoted(value)} is not a window", WINDOW_HINT)
    from_hour, from_minute, to_hour, to_minute = map(int, match.groups())
    start, end = from_hour * 60 + from_minute, to_hour * 60 + to_minute
    if start >= 1440 or end > 1440:
        raise BadTime(f"{_quoted(value)} is not a window: the day ends at 24:00", WINDOW_HINT)
    if start == end % 1440:
        raise BadTime(f"window {_quoted(value)} begins where it ends", "leave it out to send at any hour")
    return Window(start, end % 1440)


def _clock_name(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _minute_of_day(moment: datetime, zone: str) -> int:
    local = moment.astimezone(zone_of(zone))
    return local.hour * 60 + local.minute
