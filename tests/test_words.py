"""What looks the same is the same: on the command line, in lists, and in what was stored before."""

import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer_cli import attributes, audience
from mailer_cli.database import Database
from mailer_cli.errors import Invalid
from mailer_cli.words import plain, plain_cell
from tests.conftest import Mailer
from tests.old_schemas import make_0001, make_0002
from tests.rows import add_client

UNSEEN = [
    *("\u00ad", "\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\u202a", "\u202e", "\u2060", "\u2066"),
    *("\u2069", "\ufeff", "\ufe0f", "\ufe00", "\u034f", "\u061c", "\u180e", "\u3164", "\U000e0061"),
    "\U000e0100",
]
BLANKS = ["\u00a0", "\u2007", "\u2009", "\u202f", "\u3000"]


@pytest.mark.parametrize("mark", UNSEEN, ids=ascii)
@pytest.mark.parametrize("word", ["{}vip", "vi{}p", "vip{}", " {} vip{} "])
def test_what_nobody_sees_is_not_there(mark: str, word: str) -> None:
    assert plain(word.format(mark, mark)) == "vip"


@pytest.mark.parametrize("blank", BLANKS, ids=ascii)
def test_every_blank_is_a_space(blank: str) -> None:
    assert plain(f"{blank}new{blank}one{blank}") == "new one"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("caf\u00e9", "cafe\u0301", True),
        ("caf\u00e9", "cafe\u034f\u0301", True),
        ("a\u2011b", "a-b", True),
        ("\u2764\ufe0f", "\u2764", True),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\U0001f469\U0001f467", False),
        ("\u2764\ufe0f\u200d\U0001f525", "\u2764\u200d\U0001f525", True),
        ("\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "\U0001f3f4", False),
        ("VIP", "vip", False),
        ("a  b", "a b", False),
    ],
)
def test_a_joiner_counts_only_where_it_makes_another_picture(one: str, other: str, same: bool) -> None:
    assert (plain(one) == plain(other)) == same


@given(st.text(max_size=12))
def test_a_plain_word_stays_as_it_is(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert plain_cell(plain_cell(text)) == plain_cell(text)


def test_every_format_character_that_is_not_drawn_goes() -> None:
    drawn = {"ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN"}  # number signs and the like, which are seen
    for point in range(sys.maxunicode + 1):
        each = chr(point)
        if unicodedata.category(each) == "Cf" and unicodedata.name(each, "?").split()[0] not in drawn:
            assert plain(f"a{each}b") == "ab", hex(point)


def test_a_filter_takes_a_tag_by_the_rule_that_stores_it() -> None:
    for written in ('="vip"', "\ufeffvip\u00a0", "vi\u00adp"):
        assert audience.checked_tag(written) == attributes.parse_tag(written) == "vip"
    for written in ("a\u2028b", "a\x00b", "a\tb"):
        for rule in (audience.checked_tag, attributes.parse_tag):
            with pytest.raises(Invalid, match="control characters"):
                rule(written)


@pytest.mark.parametrize("written", ["\u200b", "\ufeff \u00a0"])
def test_a_tag_of_nothing_that_is_seen_is_none(written: str, mailer: Mailer, database: Database) -> None:
    assert attributes.parse_tag(written) == ""
    ran = mailer("mailings", "create", "--text", "x", "--end", "+1h", "--tag", written, code=2)
    assert "empty tag" in ran.err


def test_pasted_options_mean_what_they_look_like(mailer: Mailer, database: Database) -> None:
    added = mailer(
        *("clients", "add", "--phone", "\u202a+79161234567\u202c", "--tag", "\u00a0vi\u200bp"),
        *("--operator-code", "916\ufeff", "--timezone", "Asia\u200b/Omsk", "--json"),
    ).json
    assert [added[name] for name in ("phone", "tag", "operator_code", "timezone")] == [
        *("79161234567", "vip", "916", "Asia/Omsk")
    ]
    assert len(mailer("clients", "list", "--tag", "vip\u200b", "--operator-code", "\u00a0916", "--json").json)
    made = mailer(
        *("mailings", "create", "--text", "\u200bas it is", "--end", "tomorrow\u00a009:00\u200b"),
        *("--tag", "vip\u00ad", "--window", "09:00\u00a0-\u00a021:00", "--rate", "5/s\u200b", "--json"),
    ).json
    assert (made["messages"]["total"], made["filter"]["tags"]) == (1, ["vip"])
    assert made["text"] == "\u200bas it is"
    assert len(mailer("mailings", "list", "--tag", "v\u200bip", "--json").json) == 1
    assert (
        len(mailer("messages", "list", "--tag", "vip\ufeff", "--phone", "'79161234567", "--json").json) == 1
    )
    mailer("clients", "block", "--phone", '="79161234567"')
    assert len(mailer("clients", "list", "--status", "blocked", "--json").json) == 1


def test_tags_that_were_stored_before_are_made_plain(mailer: Mailer, folder: Path) -> None:
    make_0002(folder / "mailer.db")
    mailer("db", "upgrade")
    assert [each["tag"] for each in mailer("clients", "list", "--json").json] == ["vip", "", "новые", "vip"]
    assert mailer("mailings", "show", 1, "--json").json["filter"]["tags"] == ["vip", "=x"]
    mailer("db", "check")


def test_an_upgrade_without_such_tags_changes_no_client(mailer: Mailer, folder: Path) -> None:
    make_0001(folder / "mailer.db")
    mailer("db", "upgrade")
    assert [each["tag"] for each in mailer("clients", "list", "--json").json] == ["vip"]


def test_a_zone_is_refused_with_what_to_write(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = mailer("clients", "add", "--phone", "79161234567", "--timezone", "UTC+3", code=2)
    assert ran.err == "error: time zone 'UTC+3' is not a time zone\nhint: write +03:00\n"
    monkeypatch.setenv("MAILER_TIMEZONE", "MSK")
    assert "hint: write Europe/Moscow\n" in mailer("clients", "list", code=78).err


def test_a_filter_finds_clients_by_what_is_seen(database: Database, mailer: Mailer) -> None:
    add_client(database, 79161234567, tag="новые")
    made = mailer("mailings", "create", "--text", "x", "--end", "+1h", "--tag", "но\u200bвые", "--json")
    assert json.loads(made.out)["messages"]["total"] == 1
