"""A whole answer -> its outcome class, by the README's table."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from mailer_cli.models import Outcome

RETRY_AFTER_LIMIT = 3600.0  # seconds
DELAY = re.compile(r"[0-9]{1,9}")

# The first row that holds a status decides; a 2xx is decided by its body, and what is left is no answer.
# A 5xx says what a time-out says: a proxy speaks so of a request that it has passed on, and a gateway of one
# that it has half done. 503 alone means, as the 408, 425 and 429 do, that it was not processed (RFC 9110).
BY_STATUS: tuple[tuple[Outcome, Collection[int]], ...] = (
    (Outcome.CONFIG, range(300, 400)),
    (Outcome.CONFIG, (401, 403, 404, 405, 407)),  # 407 is a proxy's: no message is to blame for it
    (Outcome.BUSY, (408, 425, 429, 503)),
    (Outcome.REJECTED, range(400, 500)),
    (Outcome.UNKNOWN, range(500, 600)),
)
SAID_BY_PROXIES = (408, 503)  # also of a request that they have passed on
NONSENSE = ("broken body", "foreign body", "oversized body")
NOT_THE_GATEWAYS = ("aborted", "too late", "overslept")


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one message handed to the gateway. `error` is a short stable word for an operator."""

    outcome: Outcome
    error: str | None = None
    http_status: int | None = None
    code: int | None = None  # the gateway's own, whenever its answer had an integer one
    retry_after: float | None = None  # seconds, 0 to 3600, only with BUSY
    tries: int = 1

    @property
    def is_gateway_wide(self) -> bool:
        """Whether it says more about the gateway than about the message: the breaker counts it."""
        wide = self.outcome in (Outcome.NOT_SENT, Outcome.UNKNOWN)
        return wide and self.error not in NOT_THE_GATEWAYS

    @property
    def strictly(self) -> "Answer":
        """The same for whoever repeats nothing that may have been taken. Only a 503 that names its time is
        certainly the gateway's own word."""
        if self.http_status not in SAID_BY_PROXIES or self.outcome is not Outcome.BUSY:
            return self
        if self.http_status == 503 and self.retry_after is not None:
            return self
        return replace(self, outcome=Outcome.UNKNOWN, retry_after=None)

    @property
    def is_nonsense(self) -> bool:
        """A 2xx whose body cannot be believed."""
        return self.outcome is Outcome.UNKNOWN and self.error in NONSENSE


def judge(
    status: int, headers: Mapping[str, str], body: bytes | None, clock: Callable[[], datetime]
) -> Answer:
    """The class of a whole answer; a body of None was too long. Raises nothing."""
    if 200 <= status < 300:
        return _judge_success(status, headers, body)
    outcome = next((outcome for outcome, statuses in BY_STATUS if status in statuses), None)
    error = "redirect" if 300 <= status < 400 else f"http {status}"
    if outcome is None:
        outcome, error = Outcome.UNKNOWN, "broken answer"
    retry_after = _retry_after(headers.get("Retry-After"), clock) if outcome is Outcome.BUSY else None
    return Answer(outcome, error, status, _code(_parsed(body)), retry_after)


def _judge_success(status: int, headers: Mapping[str, str], body: bytes | None) -> Answer:
    if body is None:
        return Answer(Outcome.UNKNOWN, "oversized body", status)
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        return Answer(Outcome.UNKNOWN, "foreign body", status)  # never unpacked: it may be a bomb
    said = _parsed(body)
    code = _code(said)
    if code == 0:
        return Answer(Outcome.OK, None, status, code)
    if code is not None:
        return Answer(Outcome.TEMPORARY, f"code {code}", status, code)
    return Answer(Outcome.UNKNOWN, "broken body" if said is BROKEN else "foreign body", status)


BROKEN = object()  # no JSON; None would be the JSON null


def _parsed(body: bytes | None) -> object:
    try:
        return _DECODER.decode((body or b"").decode())
    except (ValueError, RecursionError):  # not UTF-8, not JSON, an endless number; nested without end
        return BROKEN


def _code(said: object) -> int | None:
    """The gateway's own code. True is no integer here, and what no database can hold is no code."""
    code = said.get("code") if isinstance(said, dict) else None
    return code if type(code) is int and abs(code) < 2**63 else None


def _retry_after(value: str | None, clock: Callable[[], datetime]) -> float | None:
    """Seconds from a number of seconds or an HTTP date; None for what makes no sense."""
    if value is None:
        return None
    if DELAY.fullmatch(value):
        return min(float(value), RETRY_AFTER_LIMIT)
    try:
        at = parsedate_to_datetime(value)
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)) - clock()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(seconds.total_seconds(), RETRY_AFTER_LIMIT) if seconds.total_seconds() >= 0 else None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_no_twins, parse_constant=_no_constant)
