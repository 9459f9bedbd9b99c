"""What may happen to one request on its way to the gateway and back, and what the program makes of it.

The program's own `judge` and `failure` classify it; whether the gateway took the message, and whether the
run can know, is said here.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from mailer_cli.gateway import Answer, judge
from mailer_cli.gateway.failure import failure
from mailer_cli.models import Outcome


@dataclass(frozen=True)
class Fate:
    """One request: whether the gateway took it, whether that can be known, and what the run sees."""

    is_taken: bool
    is_sure: bool
    answer: Answer


def _said(status: int, body: bytes = b"") -> Answer:
    return judge(status, {}, body, lambda: datetime.now(UTC))


FATES = {
    "ok": Fate(True, True, _said(200, b'{"code": 0}')),
    "wrong code": Fate(False, True, _said(200, b'{"code": 1}')),
    "rejected": Fate(False, True, _said(400)),
    "busy": Fate(False, True, _said(429)),
    "bad token": Fate(False, True, _said(401)),
    "refused": Fate(False, True, failure(ConnectionRefusedError(), False, None)),
    "not started": Fate(False, True, Answer(Outcome.RELEASED, "not started")),
    "server error": Fate(False, False, _said(500)),
    "server error, taken": Fate(True, False, _said(500)),
    "time-out": Fate(False, False, failure(TimeoutError(), True, None)),
    "time-out, taken": Fate(True, False, failure(TimeoutError(), True, None)),
    "reset, taken": Fate(True, False, failure(ConnectionResetError(), True, None)),
    "broken body, taken": Fate(True, False, _said(200, b"<html>")),
}
