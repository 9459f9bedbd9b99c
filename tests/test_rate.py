"""No second sees more than the rate, whatever is late, repeated or shared."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailer_cli import outbox
from mailer_cli.outbox import Demand, Lead
from mailer_cli.outbox.pace import MARGIN
from tests.judge import as_utc, sent_everything
from tests.lab import Lab, wait_for, wait_for_seconds

SECOND = timedelta(seconds=1)
ON_ITS_WAY = 0.05  # seconds by which requests draw together between our clock and the gateway's

pytestmark = pytest.mark.timeout(90)


def most_in_a_second(lab: Lab) -> int:
    """The most requests in any second, less what they may have drawn together on their way."""
    times, second = [each.at for each in lab.ledger], (1 - ON_ITS_WAY) * SECOND
    return max(sum(start <= each < start + second for each in times) for start in times)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


@pytest.mark.parametrize("rate", [5, 20])
def test_several_runs_together_keep_a_small_rate(lab: Lab, rate: int) -> None:
    lab.settings["rate"] = rate
    lab.add_mailing(6 * rate)
    lab.open_gateway("--latency", "0.02")
    assert [each.wait().code for each in [lab.start() for _ in range(3)]] == [0, 0, 0]
    assert sent_everything(lab)
    assert most_in_a_second(lab) <= rate
    lab.check_invariants()


@pytest.mark.parametrize("is_mailings", [False, True])
def test_what_an_outage_has_held_back_does_not_come_as_one_crowd(lab: Lab, is_mailings: bool) -> None:
    if not is_mailings:
        lab.settings["rate"] = 10
    lab.open_gateway()
    lab.add_mailing(60, rate=10 if is_mailings else None)
    lab.close_gateway()
    process = lab.start()
    wait_for(lambda: lab.statuses().get("sending", 0) > 8)  # the slow start is over
    wait_for_seconds(1.5)
    lab.open_gateway()
    assert process.wait().code == 0
    assert sent_everything(lab)
    assert most_in_a_second(lab) <= 10
    lab.check_invariants()


def test_a_raised_rate_reaches_what_is_claimed_and_holds_nothing_past_the_end_of_the_run(lab: Lab) -> None:
    lab.settings["max_seconds"] = 6
    lab.open_gateway()
    mailing = lab.add_mailing(100, rate=1.0)
    process = lab.start()
    lab.wait_for_requests(3)
    lab.command("mailings", "edit", str(mailing), "--rate", "100/s")
    assert process.wait().code == 0
    assert sent_everything(lab)
    lab.check_invariants()


# New moments


NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)


def moments(lab: Lab, *late: tuple[int, int], rate: float | None = None, **lead: timedelta) -> list[float]:
    """Seconds from now of the moments that these get."""
    with lab.database.write() as connection:
        found = outbox.renew(connection, late, rate, NOW, Lead(**lead))
    return [(found[message] - NOW).total_seconds() for message, _ in late if message in found]


def test_what_is_late_gets_the_next_free_moments_and_uses_them_up(lab: Lab) -> None:
    slow, free = lab.add_mailing(rate=100.0), lab.add_mailing()
    late = [(1, slow), (2, free), (3, slow)]
    assert moments(lab, *late) == [0, 0, pytest.approx(0.0104)]
    assert as_utc(lab.number("SELECT next_free_at FROM mailing WHERE id = ?", slow)) == NOW + 0.0208 * SECOND
    assert moments(lab, (4, slow)) == [pytest.approx(0.0208)]
    assert moments(lab, *late, rate=50.0) == [pytest.approx(0.0312)]  # the next is too far ahead


def test_no_moment_is_sooner_than_a_request_can_start_or_much_later(lab: Lab) -> None:
    mailing = lab.add_mailing(rate=10.0)
    late = [(each, mailing) for each in range(9)]
    assert moments(lab, *late, ahead=SECOND, reach=0.25 * SECOND) == [
        pytest.approx(1 + each * MARGIN / 10) for each in range(3)
    ]


def test_claims_come_after_what_is_late(lab: Lab) -> None:
    mailing = lab.add_mailing(2, rate=10.0, now=NOW)
    with lab.database.write() as connection:
        from mailer_cli import audience

        audience.fix(connection, mailing, NOW)
        run = outbox.begin_run(connection, "here", 1, NOW)
        lead = Lead(reach=0.15 * SECOND)
        outbox.renew(connection, [(1, mailing)], None, NOW, lead)
        batch = outbox.claim(connection, Demand(run, 8, lead=lead), {}, NOW)
        assert [each.start_at for each in batch.claimed] == [NOW + MARGIN / 10 * SECOND]
        outbox.record(connection, run, [])
