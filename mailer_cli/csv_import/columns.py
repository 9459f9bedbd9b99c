"""The first record of a list -> which of its columns are ours; one that is nearly ours is never lost."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from mailer_cli.errors import Invalid
from mailer_cli.words import plain

COLUMNS = ("phone", "operator_code", "tag", "timezone", "status")
REJECT_COLUMNS = ("line", "reason")  # what a rejects file adds to the header
HEADER_HINT = f"the first line must name the columns: {', '.join(COLUMNS)}; or add --map phone=COLUMN"

# What people call our columns: the whole name without blanks, digits and signs, or one word of it.
NAMES = {
    "timezone": "timezone timezones tz zone utc gmt offset utcoffset gmtoffset"
    " часовойпояс часоваязона пояс зона таймзона",
    "operator_code": "operatorcode operator operators code opcode opercode def defcode mobilecode phonecode"
    " prefix carrier provider код кодоператора оператор операторсвязи префикс",
    "tag": "tag tags label labels tagname segment тег теги тэг тэги метка метки ярлык сегмент",
    "phone": "phone phones phonenumber phonenumbers phoneno mobile mobilephone mobilenumber mobileno cell"
    " cellphone tel telephone telephonenumber msisdn number телефон телефоны номер номертелефона мобильный"
    " сотовый тел",
    "status": "status статус",
}
WORDS = {
    "timezone": "timezone tz пояс таймзона",
    "operator_code": "operator оператор оператора",
    "tag": "tag tags тег теги тэг тэги",
    "phone": "phone phones mobile tel telephone msisdn телефон телефоны телефона тел моб мобильный",
}
BY_NAME = {name: ours for ours, names in NAMES.items() for name in names.split()}
BY_WORD = {word: ours for ours, words in WORDS.items() for word in words.split()}
MISSPELLED = ("phone", "phonenumber", "telephone", "operatorcode", "timezone", "телефон", "часовойпояс")


@dataclass(frozen=True)
class Choice:
    """What an operator said of a list's columns: which is ours, and which mean something else."""

    mapped: Mapping[str, str] = field(default_factory=dict)  # ours -> theirs, folded
    ignored: frozenset[str] = frozenset()


def chosen(maps: Iterable[str], ignored: Iterable[str]) -> Choice:
    """The choice of `--map OURS=THEIRS` and `--ignore THEIRS`. Raises: Invalid."""
    mapped: dict[str, str] = {}
    for each in maps:
        ours, _, theirs = (plain(part).lower() for part in each.partition("="))
        if ours not in COLUMNS or not theirs:
            turned = f"write --map {theirs}={shlex.quote(ours)}" if theirs in COLUMNS and ours else None
            allowed = f"one of {', '.join(COLUMNS)}, = and a column of the list"
            raise Invalid(f"--map is {each!r}, allowed is {allowed}", turned or "write --map phone=Mobile")
        if ours in mapped or theirs in mapped.values():
            raise Invalid(
                f"--map names {(ours if ours in mapped else theirs)!r} twice", "leave one of them out"
            )
        mapped[ours] = theirs
    skipped = frozenset(folded(each) for each in ignored)
    if both := skipped & set(mapped.values()):
        raise Invalid(f"--map and --ignore both name {min(both)!r}", "leave one of them out")
    return Choice(mapped, skipped)


@dataclass(frozen=True)
class Header:
    """The names as the list has them, and where ours are: the phone, and the others or None.

    `marked` says that a byte order mark stood before them.
    """

    names: list[str]
    delimiter: str
    phone: int
    others: tuple[int | None, ...]
    ignored: Sequence[str] = ()
    marked: bool = False


def folded(name: str) -> str:
    return plain(name).lower()


def likeness(names: Sequence[str], choice: Choice) -> tuple[int, int, int]:
    """How much these look like a header of ours: the more, the more likely is their delimiter."""
    wanted = {*COLUMNS, *choice.mapped.values()}
    ours = sum(folded(each) in wanted for each in names)
    return ours, sum(near(each) is not None for each in names), len(names)


def read_header(source: str, names: Sequence[str], delimiter: str, choice: Choice, marked: bool) -> Header:
    """Raises: Invalid when a column that is needed is not there, is there twice, or is only nearly there."""
    while names and not plain(names[-1]):
        names = names[:-1]  # a delimiter too many
    places = {ours: _place(source, names, ours, choice) for ours in COLUMNS}
    left = [each for index, each in enumerate(names) if index not in places.values() and plain(each)]
    foreign = [each for each in left if folded(each) not in choice.ignored]
    nearly = [(each, near(each)) for each in foreign]
    if doubtful := [(each, ours) for each, ours in nearly if ours is not None and places[ours] is None]:
        raise _nearly(source, doubtful)
    phone, *others = places.values()
    if phone is None:
        raise Invalid(f"{source} has no column phone in its first line", HEADER_HINT)
    shown = [plain(each) for each in foreign if folded(each) not in REJECT_COLUMNS]
    return Header(list(names), delimiter, phone, tuple(others), shown, marked)


def _place(source: str, names: Sequence[str], ours: str, choice: Choice) -> int | None:
    theirs = choice.mapped.get(ours)
    wanted = theirs if theirs is not None else ours
    found = [index for index, each in enumerate(names) if folded(each) == wanted]
    if theirs is None and (ours in choice.ignored or ours in choice.mapped.values()):
        return None
    if len(found) > 1:
        raise Invalid(f"{source} has the column {wanted} twice", HEADER_HINT)
    if theirs is not None and not found:
        listed = ", ".join(repr(plain(each)) for each in names if plain(each))
        raise Invalid(f"{source} has no column {theirs!r} for --map", f"it has {listed}")
    return found[0] if found else None


def near(name: str) -> str | None:
    """Our column that is probably meant by a name; a name of ours means itself."""
    words = re.findall(r"[^\W\d_]+", folded(name))
    whole = "".join(words)
    if whole in BY_NAME:
        return BY_NAME[whole]
    if {"time", "zone"} <= set(words):
        return "timezone"
    meant = {BY_WORD[each] for each in words if each in BY_WORD}
    if meant:
        return next(ours for ours in WORDS if ours in meant)
    close = get_close_matches(whole, MISSPELLED, n=1, cutoff=0.8) if len(whole) > 4 else []
    return BY_NAME[close[0]] if close else None


def _nearly(source: str, doubtful: Sequence[tuple[str, str]]) -> Invalid:
    listed = ", ".join(f"{plain(each)!r} for {ours}" for each, ours in doubtful)
    options, mapped = [], set[str]()
    for each, ours in doubtful:
        word = shlex.quote(plain(each))
        options.append(f"--ignore {word}" if ours in mapped else f"--map {ours}={word}")
        mapped.add(ours)
    rest = "" if len(mapped) < len(doubtful) else "; or --ignore COLUMN, if it means something else"
    return Invalid(f"{source} has columns that may be ours: {listed}", f"add {' '.join(options)}{rest}")
