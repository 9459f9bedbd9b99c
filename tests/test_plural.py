"""Numbers in sentences: the noun, the verb and the separators of each agree with the number."""

import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from mailer_cli.cli import mailing_views as views
from mailer_cli.cli import waiting
from mailer_cli.cli.common import Invocation
from mailer_cli.database import Database
from mailer_cli.mailings.prospects import Prospect
from mailer_cli.mailings.waiting import Waiting
from mailer_cli.outbox import Retried
from mailer_cli.plural import agree, counted
from tests.conftest import Mailer

AT = Invocation()
NOW = datetime(2026, 11, 27, tzinfo=UTC)
SENTENCES: dict[str, Callable[[int], str]] = {
    "counted": lambda number: counted(number, "message"),
    "zones": lambda number: " ".join(views.zone_warnings({"Mars/Base": number})),
    "going": lambda number: views.going(AT, "", Prospect(now=number), "now", ("goes", "go")),
    "later": lambda number: views.going(AT, "", Prospect(later=number, opens_at=NOW), "now", ("goes", "go")),
    "others": lambda number: views.going(
        AT, "", Prospect(now=number, later=number, opens_at=NOW), "now", ("goes", "go")
    ),
    "never": lambda number: " ".join(views.never(AT, Prospect(never=number, saved_by=NOW))),
    "already": lambda number: " ".join(views.already_sent(number)),
    "retried": lambda number: " ".join(views.retried("failed", Retried(number, 0))),
    "waiting": lambda number: ", ".join(
        waiting._parts(AT, Waiting(number, NOW, number, number, number, NOW, number), 0)
    ),
}


@pytest.mark.parametrize("number", [0, 1, 2, 1000])
@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_noun_and_verb_agree_with_the_number(sentence: Callable[[int], str], number: int) -> None:
    said = sentence(number)
    assert "1000" not in said
    for figure, noun in re.findall(r"\b([\d,]+) (?:more )?(messages?|others?|mailings?|clients?)\b", said):
        assert noun.endswith("s") is (figure != "1"), said
    assert not re.search(r"\b(messages|others|mailings|windows) (waits|goes|starts|opens|is|has)\b", said)
    assert not re.search(r"\b(message|other|mailing) (wait|go|start|are|have)\b", said)


def test_one_or_many() -> None:
    assert [agree(each, "is", "are") for each in (0, 1, 2)] == ["are", "is", "are"]


def test_numbers_of_stop_list_and_rezone_agree(database: Database, mailer: Mailer) -> None:
    mailer("clients", "add", "--phone", 79160000001, "--timezone", "UTC")
    assert mailer("clients", "rezone", "--from", "UTC", "--to", "+03:00").out.startswith(
        "moved 1 client from"
    )
    assert mailer("clients", "block", 1).out == "blocked 1 number\n"
    said = mailer("clients", "block", 1, "--phone", 79160000002, "--phone", 79160000003).out
    assert said == "blocked 2 numbers, already were 1\n"
    assert mailer("clients", "unblock", 1).out == "unblocked 1 number\n"
    assert mailer("clients", "unblock", 1).out == "unblocked 0 numbers, were not blocked 1\n"


def test_zones_that_are_not_known_are_named_in_the_command_that_helps() -> None:
    (said,) = views.zone_warnings({"Mars/Base": 1})
    assert "1 message of mailings with a window waits, for this machine does not know the time zone" in said
    assert "mailer clients rezone --from Mars/Base --to ZONE" in said
