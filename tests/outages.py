"""A gateway that stays away, or refuses the token, for as long as it likes; minutes pass by our own clock."""

import random
from datetime import UTC, datetime, timedelta

from mailer_cli.dispatch import Summary
from tests.lab import Clock, Lab

MINUTE = timedelta(minutes=1)
BEGIN = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)
RENEWED = "a.new.token"


def gateway_down(lab: Lab, messages: int, chance: random.Random, minutes: int = 30) -> int:
    """A run each minute against a gateway that takes no connection; how many runs."""
    return _minute_by_minute(lab, messages, minutes, "gateway_down", "http://127.0.0.1:9/v1/send/")


def token_refused(lab: Lab, messages: int, chance: random.Random, minutes: int = 60) -> int:
    """A run each minute with a token that the gateway does not take; how many runs."""
    return _minute_by_minute(lab, messages, minutes, "token_refused")


def _minute_by_minute(lab: Lab, messages: int, minutes: int, stopped: str, url: str | None = None) -> int:
    """Each run costs one request and no message anything; two runs after the trouble all is sent."""
    clock = Clock(BEGIN)
    lab.add_mailing(messages, now=BEGIN, end_at=BEGIN + (minutes + 10) * MINUTE)
    with lab.gateway_here(clock, token=RENEWED):
        there, lab.url = lab.url, url or lab.url
        for minute in range(minutes):
            clock.jump(BEGIN + minute * MINUTE)
            _costs_one_request(lab, lab.run_here(clock), stopped, is_first=minute == 0)
        lab.url, lab.token = there, RENEWED
        for minute in (minutes, minutes + 1):
            clock.jump(BEGIN + minute * MINUTE)
            lab.run_here(clock)
        assert lab.statuses() == {"sent": messages}
    return minutes


def _costs_one_request(lab: Lab, summary: Summary, stopped: str, *, is_first: bool) -> None:
    """The first run may find out what the others are told by the breaker."""
    assert summary.stopped == stopped, summary
    assert is_first or summary.counts.claimed == 1, summary
    assert lab.query("SELECT DISTINCT status, failures, unknowns FROM message") == [("pending", 0, 0)]


OUTAGES = {each.__name__: each for each in (gateway_down, token_refused)}
