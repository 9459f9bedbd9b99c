"""The tests of the queue are worth what they kill: the short form of `python -m tests.mutants`."""

from pathlib import Path

import pytest

from tests import mutants
from tests.mutants import Trial
from tests.planted import MUTANTS, THE_EIGHT, Change, Mutant


@pytest.mark.timeout(300)
def test_each_of_the_eight_planted_bugs_is_caught(capfd: pytest.CaptureFixture[str]) -> None:
    assert mutants.main(["--short"]) == 0, capfd.readouterr().out
    assert "8 of 8 mutants killed" in capfd.readouterr().out


def test_each_of_the_eight_has_a_short_form() -> None:
    families = {
        each.name.partition(":")[0] for each in THE_EIGHT if each.name != "time-out taken as not sent"
    }
    assert families == {each.name for each in THE_EIGHT if each.short}
    assert len(families) == 8


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_still_applies(name: str, tmp_path: Path) -> None:
    mutants.copy_of_the_tree(tmp_path)
    for change in MUTANTS[name].changes:
        change.apply(tmp_path)


def test_a_text_that_is_gone_or_there_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mailer_cli").mkdir()
    (tmp_path / "mailer_cli" / "decide.py").write_text("again and again")
    for old in ("never", "again"):
        with pytest.raises(SystemExit, match="no longer applies"):
            Change("decide.py", old, "").apply(tmp_path)


def test_a_mutant_that_survives_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    harmless = Mutant("harmless", (Change("decide.py", "FIRST_BACKOFF = 2.0", "FIRST_BACKOFF = 4.0 / 2"),))
    assert mutants.judge([harmless], {"harmless": ("tests/test_decide.py",)}, examples=1, jobs=2) == 1
    assert "SURVIVED (exit 0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "out", "killer"),
    [
        (1, "FAILED tests/test_x.py::test_y - AssertionError: I5", "tests/test_x.py::test_y"),
        (1, "FAILED tests/test_x.py::test_y - assert 1 == 2", "tests/test_x.py::test_y"),
        (1, "FAILED tests/test_x.py::test_y[as it is] - assert 1 == 2", "tests/test_x.py::test_y[as it is]"),
        (1, "FAILED tests/test_x.py::test_y - sqlite3.IntegrityError: CHECK", "tests/test_x.py::test_y"),
        (1, "FAILED tests/test_x.py::test_y - NameError: name 'x' is not defined", None),
        (1, "FAILED tests/test_x.py::test_y - Failed: Timeout (>120.0s) from pytest-timeout.", None),
        (1, "ERROR tests/test_x.py::test_y - AssertionError", None),
        (2, "ERROR tests/test_x.py - ImportError\nFAILED tests/test_x.py::test_y - assert 1 == 2", None),
        (0, "3 passed", None),
    ],
)
def test_only_a_failed_assertion_is_a_kill(code: int, out: str, killer: str | None) -> None:
    assert Trial(code, out, 0.0).killer == killer
