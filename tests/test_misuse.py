"""What is typed wrongly: the right command, never one that sends more, and an error in our words."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailer_cli.cli.misuse import NEVER_GUESSED
from mailer_cli.database import Database
from tests.conftest import Mailer
from tests.test_cli import COMMANDS

GROUPS = ["", *sorted({words[0] for words in COMMANDS if len(words) > 1})]
LIBRARY = r"Input should|Value error|Invalid value|Missing |No such (opt|comm)|valid integer|requires an arg"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (
            "mailings stop 1",
            "mailer mailings pause 1 lets it sleep, mailer mailings cancel 1 ends it for good",
        ),
        ("mailings STOP 1 2", "mailer mailings pause 1 2 lets it sleep"),
        ("mailings delete 7", "mailer mailings remove 7"),
        ("mailings rm", "mailer mailings remove ID"),
        ("mailings start 1", "a mailing starts by itself at its --start; mailer mailings show 1 says when"),
        ("mailings kill 3", "mailer mailings cancel 3"),
        ("mailings new", "mailer mailings create"),
        ("clients delete 5", "mailer clients remove 5"),
        ("clients ls", "mailer clients list"),
        ("clients unsubscribe 5", "mailer clients block 5"),
        ("messages rm 5", "messages go with their mailing"),
        ("stop 3", "mailer mailings pause 3"),
        ("pause 3", "mailer mailings pause 3"),
        ("import x.csv", "mailer clients import"),
        ("backup x.db", "mailer db backup"),
        ("clinets", "did you mean mailer clients?"),
        ("mailings lst", "did you mean mailer mailings list?"),
        ("-C . mailings stop 4", "mailer mailings pause 4"),
        ("--json-no", "mailer --help"),
    ],
)
def test_a_word_of_other_tools_gets_the_right_answer(typed: str, hint: str, mailer: Mailer) -> None:
    lines = mailer(*typed.split(), code=2).err.splitlines()
    assert lines[0].startswith("error: ") and lines[1].startswith(f"hint: {hint}")


@pytest.mark.parametrize("group", GROUPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(data=st.data())
def test_no_slip_of_the_fingers_leads_to_what_sends_more(
    group: str, data: st.DataObject, mailer: Mailer
) -> None:
    names = {words[-1] for words in COMMANDS} | {"stop", "start", "cease", "halt", "recall", "undo", "help"}
    name = data.draw(st.sampled_from(sorted(names)))
    at = data.draw(st.integers(0, len(name) - 1))
    word = data.draw(
        st.sampled_from([name, name[:at] + name[at + 1 :], name[:at] + "x" + name[at:], name[::-1]])
    )
    if word in {words[-1] for words in COMMANDS} | {"help", "", "new", "make", "add"} | set(GROUPS):
        return
    ran = mailer(*group.split(), word, code=None)
    guessed = re.search(r"hint: did you mean (.+)\?", ran.err)
    assert guessed is None or guessed[1].split()[-1] not in NEVER_GUESSED


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("help", "Usage: mailer [OPTIONS]"),
        ("help clients", "Usage: mailer clients [OPTIONS] COMMAND"),
        ("help clients import", "Usage: mailer clients import "),
        ("clients help", "Usage: mailer clients [OPTIONS] COMMAND"),
        ("clients help import", "Usage: mailer clients import "),
        ("-C . help stats", "Usage: mailer stats "),
        ("--database help.db help stats", "Usage: mailer stats "),
    ],
)
def test_help_is_a_command_too(typed: str, shown: str, mailer: Mailer) -> None:
    assert mailer(*typed.split()).out.startswith(shown)


def test_help_of_an_unknown_command_says_so(mailer: Mailer) -> None:
    assert "no command 'nothing'" in mailer("help", "nothing", code=2).err


def test_a_word_that_is_help_may_be_a_value(mailer: Mailer, database: Database) -> None:
    assert mailer("clients", "list", "--tag", "help").out == "no clients found\n"


def options() -> list[tuple[tuple[str, ...], Any]]:
    return [
        (words, param)
        for words, command in COMMANDS.items()
        for param in command.params
        if not getattr(param, "is_flag", False)
    ]


@pytest.mark.parametrize(("words", "param"), options(), ids=lambda each: str(getattr(each, "name", each)))
def test_no_error_about_an_option_is_the_librarys(
    words: tuple[str, ...], param: Any, mailer: Mailer, folder: Path
) -> None:
    """Without a database nothing is done but the reading of the words."""
    numeric = any(each in str(param.type_descriptor.annotation) for each in ("int", "float", "Literal"))
    if words[0] in ("demo", "sandbox", "init") and not numeric:
        return  # they would begin
    for wrong in ("x", "\u0661", *(("-1", "1.5", "") if words[0] not in ("demo", "sandbox") else ())):
        option = [*param.opts[-1:], wrong] if param.opts[0].startswith("-") else ["--", wrong]
        ran = mailer(*words, *option, code=None)
        assert not re.search(LIBRARY, ran.err), ran.err
        assert "internal error" not in ran.err, ran.err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("clients list --limit x", "error: --limit is 'x', allowed is a whole number from 1"),
        ("clients show abc", "error: ID is 'abc', allowed is a whole number from 1"),
        ("clients block stop.csv", "error: ID is 'stop.csv', allowed is a whole number from 1"),
        (
            "dispatch --max-seconds soon",
            "error: --max-seconds is 'soon', allowed is a number from 1 to 86,400",
        ),
        ("messages resolve 5 --as lost", "error: --as is 'lost', allowed is sent, failed"),
        ("clients list --status off", "error: --status is 'off', allowed is active, blocked, removed"),
        ("clients list --tag", "error: --tag needs a value"),
        ("clients list --tga vip", "error: there is no option --tga; did you mean --status, --tag?"),
        ("clients show 5 6", "error: too many arguments: 6"),
        ("clients show", "error: ID is missing"),
        ("mailings create", "error: --end is missing"),
    ],
)
def test_an_error_speaks_of_what_was_typed(typed: str, said: str, mailer: Mailer) -> None:
    lines = mailer(*typed.split(), code=2).err.splitlines()
    assert lines[0] == said
    assert lines[1] == f"hint: mailer {' '.join(typed.split()[: 1 if 'dispatch' in typed else 2])} --help"
    words = typed.split()
    at = 1 if "dispatch" in typed else 2
    assert json.loads(mailer(*words[:at], "--json", *words[at:], code=2).err)["error"]["code"] == "invalid"
