"""One message handed over: HTTP, one deadline for all of it, and repeats of what was certainly not sent."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from math import inf
from typing import Any, Self, cast

import aiohttp
import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from mailer_cli import __version__
from mailer_cli.errors import Misconfigured
from mailer_cli.gateway.answer import Answer, judge
from mailer_cli.gateway.connection import Body, checked_address, open_transport
from mailer_cli.gateway.failure import failure
from mailer_cli.models import Outcome

CONNECT_LIMIT = 10.0  # seconds for pool, DNS, TCP and TLS together
BODY_LIMIT = 64 * 1024  # bytes of an answer; the real one has about thirty
TRIES = 5  # of what was certainly not sent, within
REPEAT_WITHIN = 10.0  # seconds
OVERSLEPT = 1.0  # seconds behind a deadline: whoever sees it so late was suspended
FIRST_PAUSE = 0.5  # seconds, doubling, each times a jitter of 0.5 to 1.5
NOT_STARTED = Answer(Outcome.RELEASED, "not started")

MayBegin = Callable[[], Awaitable[float | None]]
"""Asked when a request's first byte could go out: the seconds that the request may take from then on, or
None when it must not begin. It may take its time to answer."""


async def _always() -> float:
    return inf


class Gateway:
    """The gateway at one address, with its connections; opened and held for a run.

    `stop` ends a pause before a repeat at once. Raises: Misconfigured for an address or a token that no
    request can carry.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout: float,
        concurrency: int,
        proxy: str | None = None,
        clock: Callable[[], datetime],
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        stop: asyncio.Event | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = httpx.URL(checked_address(url))
        self._timeout = timeout
        self._clock, self._random, self._sleep, self._stop = clock, random, sleep, stop
        self._http = transport or open_transport(str(self._url), concurrency, proxy)
        self.renew(token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    def renew(self, token: str) -> None:
        """Use this token from the next request on."""
        if not (token.isascii() and token.isprintable()):
            raise Misconfigured("the gateway's token cannot be put into a request", "copy TOKEN again")
        self._headers = httpx.Headers(
            {
                "Authorization": f"Bearer {token}",
                "Host": self._url.netloc.decode(),
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": f"mailer/{__version__}",
            }
        )

    async def send(
        self,
        message_id: int,
        phone: int,
        text: str,
        *,
        limit: float,
        may_begin: MayBegin = _always,
        may_repeat: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """Hand one message over; `limit` is seconds for everything, repeats included.

        No request begins without `may_begin`; one that may not is RELEASED. A message that was certainly not
        sent is handed over again while `may_repeat` says so. Raises nothing but CancelledError, and that with
        the connection closed.
        """
        try:
            content = b'{"id": %d, "phone": %d, "text": %s}' % (message_id, phone, _quoted(text))
        except UnicodeEncodeError:
            return Answer(Outcome.REJECTED, "text is not unicode")
        target = b"%s/%d" % (self._url.raw_path.rstrip(b"/"), message_id)
        ends_at = _now() + min(limit, self._timeout)

        def exchange() -> Awaitable[Answer]:
            return self._exchange(target, _Letter(content, ends_at, may_begin))

        answer = await exchange()
        if answer.outcome is Outcome.NOT_SENT:
            return await self._repeat(answer, exchange, may_repeat, ends_at)
        return answer

    async def _repeat(
        self,
        answer: Answer,
        exchange: Callable[[], Awaitable[Answer]],
        may_repeat: Callable[[], bool],
        ends_at: float,
    ) -> Answer:
        """tenacity, entered with the first failure in hand: a call that succeeds does not pay for it."""
        quits_at = min(ends_at, _now() + REPEAT_WITHIN)
        is_first = True

        async def try_again() -> Answer:
            nonlocal answer, is_first
            if not is_first and may_repeat():
                again = await exchange()
                answer = replace(again, tries=answer.tries + 1)
            is_first = False
            return answer

        def is_over(state: RetryCallState) -> bool:
            return (
                state.attempt_number >= TRIES or _now() + state.upcoming_sleep >= quits_at or not may_repeat()
            )

        retrying = AsyncRetrying(
            retry=retry_if_result(lambda found: found.outcome is Outcome.NOT_SENT),
            wait=self._pause,
            stop=is_over,
            sleep=self._nap,
            retry_error_callback=lambda _: answer,
        )
        return await retrying(try_again)

    def _pause(self, state: RetryCallState) -> float:
        # tenacity's own exponential jitter has none at its cap and reads chance by itself
        return FIRST_PAUSE * 2.0 ** (state.attempt_number - 1) * (0.5 + self._random())

    async def _nap(self, seconds: float) -> None:
        """Sleep, or less when the run is told to stop."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._sleep(seconds))]
        if self._stop is not None:
            waits.append(asyncio.ensure_future(self._stop.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _exchange(self, target: bytes, letter: "_Letter") -> Answer:
        limit = letter.ends_at - _now()
        if limit <= 0:
            return Answer(Outcome.NOT_SENT, "too late")
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout(min(limit, CONNECT_LIMIT)) as letter.deadline:
                # the one address and each message's target: to read an address costs a tenth of a request
                about = {"target": target}
                request = httpx.Request(
                    "POST", self._url, headers=self._headers, stream=letter, extensions=about
                )
                request.headers["Content-Length"] = str(len(letter.content))
                response = await self._http.handle_async_request(request)
                body = await _read(response)
        except Exception as error:
            if letter.is_held:
                return NOT_STARTED
            if response is None or response.is_success:
                found = failure(error, letter.is_begun, response.status_code if response else None)
                return replace(found, error="overslept") if letter.is_overslept else found
            body = b""  # the status has said enough
        return judge(response.status_code, response.headers, body, self._clock)


class _Letter(Body):
    """A request's body that notes when it is first asked for, and goes out only if it still may.

    Before that, no byte of the message has left, whatever the connection went through; from then on it may
    have been taken. Connecting is over by then, so the deadline moves to that of the whole exchange.
    """

    deadline: asyncio.Timeout

    def __init__(self, content: bytes, ends_at: float, may_begin: MayBegin) -> None:
        self.content = content
        self.ends_at = ends_at
        self._may_begin = may_begin
        self.is_begun = False
        self._is_refused = self._is_asking = False

    @property
    def is_held(self) -> bool:
        """Whether it was not let go although the gateway was there."""
        return self._is_refused or (self._is_asking and self.deadline.expired())

    @property
    def is_overslept(self) -> bool:
        """Whether the exchange went on for so long after its deadline that nobody was awake to end it."""
        return _now() > (self.deadline.when() or self.ends_at) + OVERSLEPT

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if _now() >= self.ends_at:  # suspended since the request was allowed
            raise TimeoutError
        await self._ask()
        if self.connection is not None and not await self.connection.is_quiet():
            raise aiohttp.ServerDisconnectedError
        self.is_begun = True
        yield self.content
        self.is_out = True

    async def _ask(self) -> None:
        self._reach_to(self.ends_at)
        self._is_asking = True
        seconds = await self._may_begin()
        self._is_asking = False
        if seconds is None:
            self._is_refused = True
            raise TimeoutError
        self.ends_at = min(self.ends_at, _now() + seconds)
        self._reach_to(self.ends_at)

    def _reach_to(self, moment: float) -> None:
        if not self.deadline.expired():
            self.deadline.reschedule(moment)


async def _read(response: httpx.Response) -> bytes | None:
    """The body as it came, or None when it is too long. The response is closed in any case."""
    body = b""
    try:
        async for chunk in cast(httpx.AsyncByteStream, response.stream):
            body += chunk
            if len(body) > BODY_LIMIT:
                return None
        return body
    finally:
        with suppress(Exception):  # what was read stays read
            await response.aclose()


@lru_cache(maxsize=64)
def _quoted(text: str) -> bytes:
    """A mailing's text as it goes out, in each of its messages. Raises: UnicodeEncodeError."""
    return json.dumps(text, ensure_ascii=False).encode()


def _now() -> float:
    return asyncio.get_running_loop().time()  # seconds of the loop's own clock, which nobody sets back
