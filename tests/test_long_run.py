"""The long run in short: each scenario that has no test of its own, and what the table makes of a loss."""

import random

import pytest

from tests import long_run
from tests.lab import Lab

SHORT = ["--kills", "3", "--messages", "100", "--ends", "20", "--seconds", "20"]


def rows(out: str) -> dict[str, list[str]]:
    """The figures of each scenario, without the line of headings."""
    lines = [line.split() for line in out.splitlines()[2:]]
    return {line[0]: line[1:] for line in lines}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "scenario",
    ["kills", "steps", "importers", "ends", "gateway_down", "token_refused", "locked_database"],
)
def test_a_scenario_prints_its_line_and_loses_nothing(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert long_run.main([scenario, *SHORT]) == 0
    messages, faults, lost, _, _, unexplained, locked, _ = rows(capsys.readouterr().out)[scenario]
    assert int(messages) > 0
    assert int(faults) > 0
    assert (lost, unexplained, locked) == ("0", "0", "0")


def a_loss(lab: Lab, wanted: object, chance: random.Random) -> int:
    """A message that is called sent although the gateway never saw it."""
    lab.add_mailing(3)
    lab.open_gateway()
    lab.run()
    lab.execute("UPDATE message SET status = 'sent', sent_at = created_at WHERE status <> 'sent' OR id % 2")
    lab.ledger_path.write_text("")
    return 1


def test_a_loss_is_an_exit_code_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(long_run.SCENARIOS, "kills", a_loss)
    assert long_run.main(["kills", *SHORT]) == 1
    _, _, lost, *_, seconds, broken = rows(capsys.readouterr().out)["kills"][:9]
    assert lost == "3"
    assert seconds
    assert broken == "AssertionError:"


def test_the_full_run_takes_the_figures_of_the_design_and_a_word_of_the_operator_goes_before() -> None:
    full = long_run.options(["--full", "--messages", "7"])
    assert long_run.figures("kills", full).kills == 1000
    assert long_run.figures("ends", full).ends == 10_000
    assert long_run.figures("signals", full).signals == 100
    assert long_run.figures("hell", full).messages == 7
    assert long_run.figures("hell", long_run.options(["--full"])).messages == 20_000
    assert long_run.figures("overlap", long_run.options(["--full"])).messages == 10_000
    assert long_run.figures("kills", long_run.options([])).kills == 60


def test_a_scenario_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        long_run.main(["earthquake"])
    assert caught.value.code == 2
    assert "earthquake" in capsys.readouterr().err
