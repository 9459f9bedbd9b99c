"""The decision table: what an answer means for its message."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer_cli.decide import COUNTED, LONGEST_BACKOFF, Limits, decide
from mailer_cli.gateway import Answer
from mailer_cli.models import MessageStatus, Outcome
from mailer_cli.outbox import Claimed

NOW = datetime(2026, 6, 15, 9, 0, tzinfo=UTC)
LIMITS = Limits(failures=8, unknowns=3)
FRESH = Claimed(
    message_id=1,
    mailing_id=1,
    client_id=1,
    phone=79_000_000_000,
    text="text",
    attempt=1,
    failures=0,
    unknowns=0,
    doubtful=False,
    start_at=NOW,
    deadline=NOW + timedelta(days=1),
    end_at=NOW + timedelta(days=1),
)
LAST_FAILURE = replace(FRESH, attempt=8, failures=7)
LAST_UNKNOWN = replace(FRESH, attempt=3, unknowns=2, doubtful=True)
DOUBTFUL = replace(FRESH, attempt=2, unknowns=1, doubtful=True)
DOUBTFUL_LAST = replace(FRESH, attempt=9, failures=7, unknowns=1, doubtful=True)
HANDED_OUT = [each for each in Outcome if each not in (Outcome.LATE_OK, Outcome.SERVER)]

claims = st.builds(
    replace,
    st.just(FRESH),
    failures=st.integers(0, 7),
    unknowns=st.integers(0, 2),
    doubtful=st.booleans(),
    end_at=st.integers(1, 10**6).map(lambda seconds: NOW + timedelta(seconds=seconds)),
)
answers = st.builds(Answer, st.sampled_from(HANDED_OUT), st.just("some word"))
chances = st.floats(0, 1)


@pytest.mark.parametrize(
    ("outcome", "claimed", "status"),
    [
        (Outcome.OK, FRESH, "sent"),
        (Outcome.OK, DOUBTFUL_LAST, "sent"),
        (Outcome.LATE_OK, FRESH, "sent"),
        (Outcome.NOT_SENT, DOUBTFUL_LAST, "pending"),
        (Outcome.BUSY, DOUBTFUL_LAST, "pending"),
        (Outcome.CONFIG, DOUBTFUL_LAST, "pending"),
        (Outcome.RELEASED, DOUBTFUL_LAST, "pending"),
        (Outcome.TEMPORARY, FRESH, "pending"),
        (Outcome.TEMPORARY, LAST_FAILURE, "failed"),
        (Outcome.TEMPORARY, DOUBTFUL_LAST, "unknown"),
        (Outcome.REJECTED, FRESH, "failed"),
        (Outcome.REJECTED, DOUBTFUL, "unknown"),
        (Outcome.UNKNOWN, FRESH, "pending"),
        (Outcome.UNKNOWN, DOUBTFUL, "pending"),
        (Outcome.UNKNOWN, LAST_UNKNOWN, "unknown"),
    ],
)
def test_the_table(outcome: Outcome, claimed: Claimed, status: str) -> None:
    assert decide(claimed, Answer(outcome, "word"), LIMITS, NOW, 0.5).status == status


def test_hold_never_repeats_an_unknown_fate() -> None:
    hold = Limits(failures=8, unknowns=1)
    assert decide(FRESH, Answer(Outcome.UNKNOWN, "lost"), hold, NOW, 0.5).status == "unknown"


@given(claims, answers, chances)
def test_only_an_ok_is_sent_and_what_may_be_taken_is_never_failed(
    claimed: Claimed, answer: Answer, chance: float
) -> None:
    verdict = decide(claimed, answer, LIMITS, NOW, chance)
    assert (verdict.status == MessageStatus.SENT) == answer.outcome.is_ok
    if claimed.doubtful or answer.outcome is Outcome.UNKNOWN:
        assert verdict.status != MessageStatus.FAILED


@given(claims, answers, chances)
def test_a_message_goes_again_between_now_and_its_end(
    claimed: Claimed, answer: Answer, chance: float
) -> None:
    verdict = decide(claimed, answer, LIMITS, NOW, chance)
    assert NOW <= verdict.due_at <= claimed.end_at
    wait = (verdict.due_at - NOW).total_seconds()
    assert wait <= 1.5 * LONGEST_BACKOFF
    if verdict.status == MessageStatus.PENDING and answer.outcome not in COUNTED:
        assert wait == 0
    if answer.outcome is Outcome.UNKNOWN and verdict.status == MessageStatus.PENDING:
        assert wait >= 1 or verdict.due_at == claimed.end_at


@given(chances)
def test_backoff_doubles_with_real_jitter_up_to_its_limit(chance: float) -> None:
    waits = []
    for tried in range(20):
        claimed = replace(FRESH, failures=tried)
        verdict = decide(claimed, Answer(Outcome.TEMPORARY, "code 1"), Limits(99, 99), NOW, chance)
        waits.append((verdict.due_at - NOW).total_seconds())
    expected = [min(2 * 2**tried, LONGEST_BACKOFF) * (0.5 + chance) for tried in range(20)]
    assert waits == pytest.approx(expected, abs=1e-5)


@given(chances)
def test_a_message_that_is_told_to_wait_again_and_again_is_asked_ever_more_rarely(chance: float) -> None:
    waits = []
    for told in range(13):
        verdict = decide(
            replace(FRESH, busy=told), Answer(Outcome.BUSY, "http 503", 503), LIMITS, NOW, chance
        )
        assert verdict.status == MessageStatus.PENDING
        waits.append((verdict.due_at - NOW).total_seconds())
    doubled = [min(2 * 2**told, LONGEST_BACKOFF) * (0.5 + chance) for told in range(12)]
    assert waits == pytest.approx([0, *doubled], abs=1e-5)


def test_a_message_that_is_told_to_wait_keeps_to_the_named_time() -> None:
    named = Answer(Outcome.BUSY, "http 429", 429, retry_after=300.0)
    for told in (FRESH, replace(FRESH, busy=1)):
        assert decide(told, named, LIMITS, NOW, 0.5).due_at == NOW + timedelta(seconds=300)
    for_ever = replace(named, retry_after=3600.0)
    latest = NOW + timedelta(seconds=LONGEST_BACKOFF)
    assert decide(replace(FRESH, busy=1), for_ever, LIMITS, NOW, 0.5).due_at == latest


@given(claims, answers, chances)
def test_what_is_given_up_says_why(claimed: Claimed, answer: Answer, chance: float) -> None:
    verdict = decide(claimed, answer, LIMITS, NOW, chance)
    given_up = verdict.status in (MessageStatus.FAILED, MessageStatus.UNKNOWN)
    assert verdict.reason == ("some word" if given_up else None)
