"""The end of a mailing between the claim and the answer: time passes while a run works, or does not."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.lab import Lab

NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)
END = NOW + timedelta(hours=1)


@dataclass
class Jump:
    """A clock that jumps once the first message is claimed, as if the machine had slept."""

    lab: Lab
    to: datetime

    def __call__(self) -> datetime:
        return self.to if self.lab.number("SELECT count(*) FROM attempt") else NOW


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path, timeout=20) as lab:
        lab.add_mailing(3, now=NOW, end_at=END)
        yield lab


@pytest.mark.parametrize("late", [0, 3600])
def test_no_request_begins_once_the_end_has_come(lab: Lab, late: int) -> None:
    clock = Jump(lab, END + timedelta(seconds=late))
    with lab.gateway_here(clock):
        lab.run_here(clock)
    assert lab.ledger == []
    assert lab.statuses() == {"expired": 3}


def test_a_request_is_given_up_at_the_end_however_long_the_gateway_takes(lab: Lab) -> None:
    clock = Jump(lab, END - timedelta(seconds=0.5))
    with lab.gateway_here(clock, latency="5"):
        summary = lab.run_here(clock)
    assert summary.seconds < 5
    assert {row[0] for row in lab.query("SELECT outcome FROM attempt")} == {"unknown"}
