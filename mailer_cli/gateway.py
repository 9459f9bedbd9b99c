"""One method, `send()`: HTTP, tenacity, answer -> outcome class.

The outcome classes are those of the README's table. Two rules carry the rest: a message was certainly not
sent only while nobody has asked for the first byte of its body, and it was certainly taken only when the
answer is exactly a 2xx with the JSON object that says code 0. What lies between is unknown.
"""

import asyncio
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Self, cast

import aiohttp
import httpx
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from httpx_aiohttp import AiohttpTransport
from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from mailer_cli import __version__
from mailer_cli.errors import Misconfigured
from mailer_cli.models import Outcome

CONNECT_LIMIT = 10.0  # seconds for pool, DNS, TCP and TLS together
BODY_LIMIT = 64 * 1024  # bytes of an answer; the real one has about thirty
RETRY_AFTER_LIMIT = 3600.0  # seconds
KEEPALIVE = (
    4.0  # seconds; servers close idle connections from 5 s on, and a request that meets that is unknown
)
TRIES = 5  # of what was certainly not sent, within
REPEAT_WITHIN = 10.0  # seconds
FIRST_PAUSE = 0.5  # seconds, doubling, each times a jitter of 0.5 to 1.5

# The first row that holds a status decides; a 2xx is decided by its body, and what is left is no answer.
BY_STATUS: tuple[tuple[Outcome, Collection[int]], ...] = (
    (Outcome.CONFIG, range(300, 400)),
    (Outcome.CONFIG, (401, 403, 404, 405, 407)),  # 407 is a proxy's: no message is to blame for it
    (Outcome.BUSY, (408, 425, 429, 503)),
    (Outcome.REJECTED, range(400, 500)),
    (Outcome.SERVER, range(500, 600)),
)
NONSENSE = ("broken body", "foreign body", "oversized body")
NOT_THE_GATEWAYS = ("aborted", "too late")

# The first word with a type anywhere in the chain of causes names the failure. httpx_aiohttp's own mapping
# cannot be used: a refused, a reset and a closed connection all arrive as httpx.ConnectTimeout.
FAILURES: dict[str, tuple[type[Exception], ...]] = {
    "certificate": (ssl.SSLCertVerificationError,),
    "tls": (ssl.SSLError,),
    "proxy": (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError, httpx.ProxyError),
    "dns": (aiohttp.ClientConnectorDNSError, socket.gaierror),
    "bad url": (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    "refused": (ConnectionRefusedError,),
    "reset": (ConnectionError,),
    "disconnected": (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    "broken body": (aiohttp.ClientPayloadError,),
    "broken answer": (aiohttp.ClientResponseError,),
    "pool timeout": (httpx.PoolTimeout,),
}
TIMEOUTS = (TimeoutError, httpx.TimeoutException)
DELAY = re.compile(r"[0-9]{1,9}")


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
        wide = self.outcome in (Outcome.NOT_SENT, Outcome.SERVER, Outcome.UNKNOWN)
        return wide and self.error not in NOT_THE_GATEWAYS

    @property
    def is_nonsense(self) -> bool:
        """A 2xx whose body cannot be believed."""
        return self.outcome is Outcome.UNKNOWN and self.error in NONSENSE


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
        self._url = _address(url)
        self._timeout = timeout
        self._clock, self._random, self._sleep, self._stop = clock, random, sleep, stop
        self._host = httpx.URL(self._url).netloc.decode()
        self._http = transport or _transport(self._url, concurrency, proxy)
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
                "Host": self._host,
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
        may_repeat: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """Hand one message over; `limit` is seconds for everything, repeats included.

        A message that was certainly not sent is handed over again while `may_repeat` says so. Raises nothing
        but CancelledError, and that with the connection closed.
        """
        try:
            content = _ENCODER.encode({"id": message_id, "phone": phone, "text": text}).encode()
        except UnicodeEncodeError:
            return Answer(Outcome.REJECTED, "text is not unicode")
        ends_at = _now() + min(limit, self._timeout)

        async def once() -> Answer:
            return await self._exchange(f"{self._url}/{message_id}", content, ends_at - _now())

        answer = await once()
        if answer.outcome is Outcome.NOT_SENT:
            return await self._repeat(answer, once, may_repeat, ends_at)
        return answer

    async def _repeat(
        self,
        answer: Answer,
        once: Callable[[], Awaitable[Answer]],
        may_repeat: Callable[[], bool],
        ends_at: float,
    ) -> Answer:
        """tenacity, entered with the first failure in hand: a call that succeeds does not pay for it."""
        quits_at = min(ends_at, _now() + REPEAT_WITHIN)
        is_first = True

        async def again() -> Answer:
            nonlocal answer, is_first
            if not is_first and may_repeat():
                answer = replace(await once(), tries=answer.tries + 1)
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
        return await retrying(again)

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

    async def _exchange(self, url: str, content: bytes, limit: float) -> Answer:
        if limit <= 0:
            return Answer(Outcome.NOT_SENT, "too late")
        letter = _Letter(content, _now() + limit)
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout(min(limit, CONNECT_LIMIT)) as letter.deadline:
                request = httpx.Request("POST", url, headers=self._headers, stream=letter)
                request.headers["Content-Length"] = str(len(content))
                response = await self._http.handle_async_request(request)
                body = await _read(response)
        except Exception as error:
            if response is None or response.is_success:
                return _failure(error, letter.is_begun, response.status_code if response else None)
            body = b""  # the status has said enough
        return judge(response.status_code, response.headers, body, self._clock)


class _Letter(httpx.AsyncByteStream):
    """A request's body that notes when it is first asked for.

    Before that, no byte of the message has left, whatever the connection went through; from then on it may
    have been taken. Connecting is over by then, so the deadline moves to that of the whole exchange.
    """

    deadline: asyncio.Timeout

    def __init__(self, content: bytes, ends_at: float) -> None:
        self._content = content
        self._ends_at = ends_at
        self.is_begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.is_begun = True
        if not self.deadline.expired():
            self.deadline.reschedule(self._ends_at)
        yield self._content


class _Connector(aiohttp.TCPConnector):
    """Connections that carry neither an old answer into a new request nor an old request past its end."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  the overridden signature
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        if connection.protocol is None or connection.protocol.should_close:
            # a second answer came while the connection was idle, and aiohttp would take it for ours
            connection.close()
            raise aiohttp.ClientResponseError(req.request_info, (), message="an answer to no request")
        if connection.transport is not None:
            connection.add_callback(partial(_drop_unwritten, connection.transport))
        return connection


def _drop_unwritten(transport: asyncio.Transport) -> None:
    # closed the usual way it would stay open until a peer that does not read has read everything
    if transport.get_write_buffer_size():
        transport.abort()


def _address(url: str) -> str:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Misconfigured(f"the gateway's address cannot be used: {error}") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise Misconfigured(f"the gateway's address is {url!r}, allowed is http or https")
    return str(address).rstrip("/")


def _transport(url: str, concurrency: int, proxy: str | None) -> httpx.AsyncBaseTransport:
    """httpx over aiohttp: its own pool is quadratic in the requests in flight."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; reading the authorities takes 20 ms
    if url.startswith("https:") or (proxy or "").startswith("https:"):
        trust = httpx.create_ssl_context(trust_env=False)

    def session() -> aiohttp.ClientSession:
        connector = _Connector(limit=concurrency, ssl=trust, keepalive_timeout=KEEPALIVE)
        jar = aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(connector=connector, cookie_jar=jar, proxy=proxy, trust_env=False)

    return AiohttpTransport(verify=trust, trust_env=False, client=session)


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


def _failure(error: Exception, is_begun: bool, status: int | None) -> Answer:
    """The class of an exchange that broke off."""
    causes = list(_causes(error))
    word = next((word for word, kinds in FAILURES.items() if _any_is(causes, kinds)), None)
    if word is None and _any_is(causes, TIMEOUTS):
        word = "read timeout" if is_begun else "connect timeout"
    if is_begun:
        return Answer(Outcome.UNKNOWN, word or "lost", status)
    if word in ("certificate", "bad url"):
        return Answer(Outcome.CONFIG, word)
    return Answer(Outcome.NOT_SENT, word or "unreachable")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _any_is(causes: list[BaseException], kinds: tuple[type[Exception], ...]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)


def judge(status: int, headers: httpx.Headers, body: bytes | None, clock: Callable[[], datetime]) -> Answer:
    """The class of a whole answer; a body of None was too long. Raises nothing."""
    if 200 <= status < 300:
        return _judge_success(status, headers, body)
    outcome = next((outcome for outcome, statuses in BY_STATUS if status in statuses), Outcome.UNKNOWN)
    error = f"http {status}"
    if outcome is Outcome.UNKNOWN:
        error = "broken answer"
    elif 300 <= status < 400:
        error = "redirect"
    retry_after = _retry_after(headers.get("Retry-After"), clock) if outcome is Outcome.BUSY else None
    return Answer(outcome, error, status, _code(_parsed(body)), retry_after)


def _judge_success(status: int, headers: httpx.Headers, body: bytes | None) -> Answer:
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


_ENCODER = json.JSONEncoder(ensure_ascii=False)
_DECODER = json.JSONDecoder(object_pairs_hook=_no_twins, parse_constant=_no_constant)


def _now() -> float:
    return asyncio.get_running_loop().time()  # seconds of the loop's own clock, which nobody sets back
