"""How far a run trusts a text: ten refused in a row are ten, and the mailing remembers it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from mailer_cli.database import Database
from mailer_cli.gateway import Answer
from mailer_cli.models import Mailing, Outcome
from mailer_cli.outbox import Claimed
from mailer_cli.trust import IN_A_ROW, Trust
from tests.conftest import Mailer
from tests.lab import Lab
from tests.scripted import Asked, Minutes, Says, add, scripted, sent
from tests.test_decide import FRESH

OK, REFUSED, LOST = Answer(Outcome.OK), Answer(Outcome.REJECTED, "http 400"), Answer(Outcome.UNKNOWN, "lost")
TEXT = replace(FRESH, wording_id=7, mailing_id=3)

pytestmark = pytest.mark.timeout(60)


def room(trust: Trust, *in_flight: Claimed, refused_runs: int = 0) -> int:
    row: Any = {"wording_id": 7, "refused_runs": refused_runs}
    return trust.room(in_flight)(row)


def test_a_text_that_nobody_has_taken_has_ten_in_flight_at_most() -> None:
    trust = Trust()
    assert room(trust) == IN_A_ROW
    assert room(trust, *[TEXT] * 4, replace(TEXT, wording_id=8)) == 6
    trust.learn([(TEXT, REFUSED)] * 3)
    assert room(trust, *[TEXT] * 4) == 3
    trust.learn([(TEXT, LOST)] * 9)
    assert room(trust, *[TEXT] * 4) == 3


def test_it_opens_with_what_was_taken() -> None:
    trust, in_flight = Trust(), IN_A_ROW
    for _ in range(3):
        trust.learn([(TEXT, OK)] * in_flight)
        assert room(trust) == 2 * in_flight or in_flight == IN_A_ROW
        in_flight = room(trust)
    assert in_flight == 8 * IN_A_ROW


def test_ten_in_a_row_put_it_aside_once_and_no_ok_brings_it_back() -> None:
    trust = Trust()
    assert trust.learn([(TEXT, REFUSED)] * 9).refused == []
    assert trust.learn([(TEXT, REFUSED)] * 9).refused == [3]
    assert trust.learn([(TEXT, OK), *[(TEXT, REFUSED)] * 20]).refused == []
    assert room(trust) <= 0


def test_an_ok_between_begins_the_count_anew() -> None:
    trust = Trust()
    assert trust.learn([*[(TEXT, REFUSED)] * 9, (TEXT, OK), *[(TEXT, REFUSED)] * 9]).refused == []


def test_a_doubted_text_goes_one_at_a_time_until_one_is_taken() -> None:
    trust = Trust()
    assert room(trust, refused_runs=2) == 1
    assert room(trust, TEXT, refused_runs=2) == 0
    assert trust.learn([(TEXT, OK)]).taken == [3]
    assert room(trust, refused_runs=2) == IN_A_ROW + 1
    assert trust.learn([(TEXT, OK)]).taken == []


# Whole runs, and the gateway's ledger


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


def refuses(asked: Asked) -> Says:
    return Says(400 if asked.text == "bad" else 200, after=0.01)


def test_ten_means_ten_and_after_three_runs_the_mailing_pauses_itself(lab: Lab) -> None:
    bad, good = add(lab, 200, "bad", priority=5), add(lab, 100, "good")
    runs = Minutes(lab)
    with scripted(lab, refuses):
        first = runs.run()
        assert (first.stopped, first.put_aside, first.paused) == ("too_many_rejected", [bad], [])
        assert sent(lab, good) == 100  # although its priority is lower
        assert first.counts.failed == IN_A_ROW
        for run, paused in ((runs.run(), []), (runs.run(), [bad])):
            assert (run.counts.failed, run.stopped, run.paused) == (IN_A_ROW, "too_many_rejected", paused)
        assert runs.run().run_id is None
    assert len([each for each in lab.ledger if each.text == "bad"]) == 3 * IN_A_ROW
    lab.check_invariants()


def test_a_doubted_mailing_goes_one_at_a_time_and_an_ok_makes_all_good(lab: Lab) -> None:
    mailing = add(lab, 60, "bad")
    runs, in_flight = Minutes(lab), []

    def takes(asked: Asked) -> Says:
        in_flight.append(lab.statuses()["sending"])
        return Says()

    with scripted(lab, refuses):
        runs.run()
    with scripted(lab, takes):
        assert runs.run().stopped is None
    assert in_flight[0] == 1 < max(in_flight)
    assert sent(lab, mailing) == 60 - IN_A_ROW
    assert lab.number("SELECT refused_runs FROM mailing") == 0
    lab.check_invariants()


def test_it_says_why_it_sleeps_until_it_is_resumed(lab: Lab) -> None:
    mailing = add(lab, 60, "bad")
    with scripted(lab, refuses):
        said = [lab.run("--quiet", as_json=False, code=76) for _ in range(3)]
        assert [each.err.count("refused ten messages in a row of mailing 1") for each in said] == [1, 0, 0]
        assert "mailing 1 has paused itself" in said[2].err
        assert lab.run("--quiet", as_json=False).err == ""
    shown = lab.command("mailings", "show", str(mailing)).json
    assert (shown["status"], shown["pause_reason"]) == ("paused", "too_many_rejected")
    assert lab.command("mailings", "resume", str(mailing)).json["pause_reason"] is None
    assert lab.number("SELECT refused_runs FROM mailing") == 0
    lab.command("mailings", "pause", str(mailing))
    assert lab.command("mailings", "show", str(mailing)).json["pause_reason"] is None


def test_another_text_is_trusted_anew(lab: Lab) -> None:
    mailing = add(lab, 60, "bad")
    with scripted(lab, refuses):
        assert lab.run(code=76).json["put_aside"] == [mailing]
        lab.command("mailings", "pause", str(mailing))
        lab.command("mailings", "edit", str(mailing), "--text", "good")
        assert lab.number("SELECT refused_runs FROM mailing") == 0
        lab.command("mailings", "resume", str(mailing))
        lab.run()
    assert sent(lab, mailing) == 60 - IN_A_ROW


def test_a_person_sees_why_a_mailing_sleeps(mailer: Mailer, database: Database) -> None:
    mailer("clients", "add", "--phone", "79161234567", "--timezone", "UTC")
    mailer("mailings", "create", "--all", "--text", "x", "--end", "+1h", "--paused")
    with database.write() as connection:
        connection.execute(update(Mailing).values(refused_runs=3))
    assert "by itself: in three runs in a row" in mailer("mailings", "show", "1").out
    assert "paused: refused" in mailer("mailings", "list").out
