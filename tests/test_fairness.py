"""Good mailings beside bad ones: each is served within three runs, whatever becomes of the others."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from mailer_cli import breaker
from tests import judge
from tests.judge import stored
from tests.lab import Lab, add_clients
from tests.scripted import Minutes, Rule, Says, add, scripted, sent

OpenLab = Callable[..., Lab]
OK = Says(after=0.01)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def open_lab(tmp_path: Path) -> Iterator[OpenLab]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Lab(tmp_path, **settings))


BAD = {
    "500": Says(500),
    "503": Says(503),
    "429-for-a-minute": Says(429, {"Retry-After": "60"}),
    "429-for-an-hour": Says(429, {"Retry-After": "3600"}),
    "503-for-an-hour": Says(503, {"Retry-After": "3600"}),
    "time-out": Says(after=4.0),
}


@pytest.fixture(autouse=True)
def a_short_wait_for_a_second_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "SECOND_OPINION", timedelta(seconds=0.5))


def three_runs(lab: Lab, rule: Rule) -> Minutes:
    runs = Minutes(lab)
    with scripted(lab, rule):
        for _ in range(3):
            runs.run()
    return runs


def test_the_judge_sees_a_good_mailing_that_gets_no_turn(open_lab: OpenLab) -> None:
    lab = open_lab()
    add(lab, 100, "bad", priority=1)
    good = add(lab, 5, "good")
    three_runs(lab, lambda asked: Says(500) if asked.text == "bad" else OK)
    judge.check_good_mailings_are_served(lab)
    lab.execute(f"UPDATE attempt SET started_at = '9000-01-01' WHERE {OF_IT}", good)  # after the third run
    with pytest.raises(AssertionError, match=f"{good}, 900"):
        judge.check_good_mailings_are_served(lab)


OF_IT = "message_id IN (SELECT id FROM message WHERE mailing_id = ?)"


def test_the_judge_sees_a_mailing_without_a_turn_while_all_others_are_served(open_lab: OpenLab) -> None:
    lab = open_lab()
    good = lab.add_mailing(5)
    lab.open_gateway()
    for _ in range(3):
        lab.add_mailing(1)
        lab.run()
    judge.check_good_mailings_are_served(lab)
    lab.execute(f"UPDATE attempt SET started_at = '9000-01-01' WHERE {OF_IT}", good)
    with pytest.raises(AssertionError, match=f"{good}, 0"):
        judge.check_good_mailings_are_served(lab)


def requests(lab: Lab, text: str) -> int:
    return sum(each.text == text for each in lab.ledger)


@pytest.mark.parametrize("says", BAD.values(), ids=BAD.keys())
def test_a_hundred_bad_messages_do_not_stop_the_mailing_behind_them(open_lab: OpenLab, says: Says) -> None:
    lab = open_lab(timeout=1.5)
    add(lab, 100, "bad", priority=1)
    good = add(lab, 100, "good")
    three_runs(lab, lambda asked: says if asked.text == "bad" else OK)
    assert sent(lab, good) == 100
    assert requests(lab, "bad") < 30
    lab.check_invariants()


@pytest.mark.timeout(300)  # a hundred mailings and up to five runs: 47 s of it on two busy cores
@pytest.mark.parametrize("name", ["500", "503", "429-for-an-hour"])
@pytest.mark.parametrize("skipped", [0, 1])
def test_a_new_mailing_does_not_wait_until_a_hundred_bad_ones_were_tried(
    open_lab: OpenLab, name: str, skipped: int
) -> None:
    lab = open_lab()
    for _ in range(100):
        add(lab, 1, "bad")
    runs = Minutes(lab)
    with scripted(lab, lambda asked: BAD[name] if asked.text == "bad" else OK):
        for _ in range(1 + skipped):
            runs.run()
        good = add(lab, 5, "good")
        for _ in range(3):
            runs.run()
    assert sent(lab, good) > 0
    lab.check_invariants()


@pytest.mark.parametrize("says", BAD.values(), ids=BAD.keys())
def test_an_operator_whose_route_is_down_does_not_stop_the_others(open_lab: OpenLab, says: Says) -> None:
    lab = open_lab(timeout=1.5)
    mailing = add(lab, 300, "hello", "916")
    more_clients(lab, 300, mailing, "903")
    three_runs(lab, lambda asked: says if asked.operator == "916" else OK)
    assert sent(lab, mailing) == 300
    assert sum(str(each.phone)[1:4] == "916" for each in lab.ledger) < 40
    lab.check_invariants()


def more_clients(lab: Lab, count: int, mailing: int, operator: str) -> None:
    """The same audience has clients of another operator, behind the others."""
    (tag,) = lab.query("SELECT json_extract(tags, '$[0]') FROM mailing WHERE id = ?", mailing)[0]
    first = lab.number("SELECT max(id) FROM client")
    with lab.database.write() as connection:
        add_clients(connection, count, tag=tag)
    lab.execute(
        "UPDATE client SET operator_code = ?, phone = ? + id WHERE id > ?",
        *(operator, int(f"7{operator}1000000"), first),
    )


@pytest.mark.parametrize("name", ["429-for-a-minute", "429-for-an-hour", "503", "500"])
def test_one_clients_trouble_is_his_own(open_lab: OpenLab, name: str) -> None:
    lab = open_lab()
    mailing = add(lab, 100, "hello")
    bad = lab.number("SELECT min(phone) FROM client")
    runs = Minutes(lab)
    with scripted(lab, lambda asked: BAD[name] if asked.phone == bad else OK):
        for _ in range(3):
            runs.run()
        assert sent(lab, mailing) == 99
        lab.forget_backoffs()  # he hears it again, beside others
        later = add(lab, 100, "later")
        runs.run()
        assert sent(lab, later) == 100
        lab.forget_backoffs()
        assert lab.number("SELECT coalesce(max(busy_until), '') FROM gateway") < stored(
            runs.clock() + timedelta(seconds=2)
        )
    lab.check_invariants()


def test_those_who_are_known_to_fail_do_not_shut_the_gateway(open_lab: OpenLab) -> None:
    lab = open_lab()
    for _ in range(breaker.FAULTS):
        add(lab, 1, "bad")
    runs = Minutes(lab)
    with scripted(lab, lambda asked: Says(500) if asked.text == "bad" else OK):
        assert runs.run().stopped == "gateway_down"
        good = add(lab, 10, "good")
        runs.run()
        assert sent(lab, good) == 10
        lab.forget_backoffs()
        before = len(lab.ledger)
        assert runs.run().stopped is None
    assert len(lab.ledger) - before >= breaker.FAULTS
    lab.check_invariants()


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_gateway_that_is_down_costs_one_request_a_run_and_is_soon_forgiven(
    open_lab: OpenLab, status: int
) -> None:
    lab = open_lab()
    mailings = [add(lab, 30, f"text {operator}", operator) for operator in ("916", "903", "926", "905")]
    more_clients(lab, 30, mailings[0], "917")
    runs, asked_in = Minutes(lab), []
    with scripted(lab, lambda asked: Says(status)):
        for _ in range(8):
            before = len(lab.ledger)
            assert runs.run().stopped == "gateway_down"
            asked_in.append(len(lab.ledger) - before)
    assert asked_in[0] == breaker.FAULTS
    assert asked_in[1:] == [1] * 7
    assert len({each.phone for each in lab.ledger}) == len(lab.ledger)  # nobody twice
    texts = Counter(each.text for each in lab.ledger)
    assert max(texts.values()) - min(texts.values()) <= 1
    lab.forget_backoffs()
    with scripted(lab, lambda asked: OK):
        for _ in range(2):
            runs.run()
    assert lab.statuses() == {"sent": 150}
    lab.check_invariants()


def test_turns_go_on_across_runs_although_no_run_gets_through(open_lab: OpenLab) -> None:
    lab = open_lab()
    mailings = [add(lab, 10, "hello") for _ in range(3)]
    runs = Minutes(lab)
    for _ in range(4):
        runs.run()  # nobody listens
    asked = lab.query("SELECT mailing_id FROM message JOIN attempt ON message_id = id ORDER BY started_at")
    last = [row[0] for row in asked][-3:]
    assert sorted(last) == mailings


def test_an_overloaded_gateway_is_left_alone_as_long_as_it_wishes(open_lab: OpenLab) -> None:
    lab = open_lab()
    add(lab, 100, "one")
    add(lab, 100, "two")
    runs = Minutes(lab)
    with scripted(lab, lambda asked: BAD["429-for-an-hour"]):
        assert {runs.run().stopped for _ in range(10)} == {"gateway_down"}
        assert len(lab.ledger) == 2  # the second opinion
        new = add(lab, 100, "three")
        for _ in range(5):
            runs.run()
        assert [each.text for each in lab.ledger] == ["one", "two", "three"]
    with scripted(lab, lambda asked: OK):
        add(lab, 10, "four")
        runs.run()
        runs.run()
    assert sent(lab, new) == 99  # all but the one that was told to wait
    lab.check_invariants()


def test_while_all_is_well_nothing_is_written_about_faults(open_lab: OpenLab) -> None:
    lab = open_lab()
    add(lab, 100, "hello")
    three_runs(lab, lambda asked: OK)
    assert lab.query("SELECT * FROM fault") == []
    assert lab.query("SELECT failed_at, ok_at FROM gateway") == [(None, None)]
