"""What carries a request: httpx over aiohttp's connections."""

import asyncio
import select
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, cast

import aiohttp
import certifi
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.payload import AsyncIterablePayload
from aiohttp.tracing import Trace
from yarl import URL

from mailer_cli.errors import Misconfigured
from mailer_cli.gateway.resolver import Resolver

KEEPALIVE = 4.0  # seconds; servers close idle ones from 5 s on, and a request that meets that is unknown
ROUNDS = 4  # of the event loop, in which it reads whatever has come


def checked_address(url: str) -> str:
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):  # the latter from a host's name; neither is shown, nor kept
        raise Misconfigured("the gateway's address cannot be used: URL") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise Misconfigured("the gateway's address is not an http or https one: URL")
    return str(address).rstrip("/")


def open_transport(url: str, concurrency: int, proxy: str | None) -> httpx.AsyncBaseTransport:
    """httpx over aiohttp: its own pool is quadratic in the requests in flight."""
    # its own, since the usual one would write session keys where SSLKEYLOGFILE in the environment says
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if url.startswith("https:") or (proxy or "").startswith("https:"):
        trust.load_verify_locations(certifi.where())  # else it trusts nobody: reading them takes 20 ms

    def session() -> aiohttp.ClientSession:
        connector = _Connector(limit=concurrency, ssl=trust, keepalive_timeout=KEEPALIVE, resolver=Resolver())
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # none: the gateway's client keeps its own deadline
            auto_decompress=False,
            proxy=proxy,
            trust_env=False,
        )

    return _Carrier(session)


class Body(httpx.AsyncByteStream):
    """A request's body that is told on which connection it goes out, and says when all of it has."""

    connection: "_Protocol | None" = None
    is_out = False


class _Payload(AsyncIterablePayload):
    """A body as aiohttp takes it, still to be found by the connection that carries it."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        super().__init__(stream)
        self.stream = stream


class _Carrier(httpx.AsyncBaseTransport):
    """httpx's requests on a session of aiohttp's, whose errors come as they are."""

    def __init__(self, open_session: Callable[[], aiohttp.ClientSession]) -> None:
        self._open_session = open_session
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._session is None:
            self._session = self._open_session()  # only now, since it belongs to the running loop
        response = await self._session.request(
            request.method,
            _address(request),
            headers=[(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw],
            data=_Payload(cast(httpx.AsyncByteStream, request.stream)),
            allow_redirects=False,
        )
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=_Body(response), request=request
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


def _address(request: httpx.Request) -> URL:
    """Where it goes: its URL with its `target`, if it has one (httpx's extension of that name)."""
    url, target = URL(str(request.url), encoded=True), request.extensions.get("target")
    return url if target is None else url.with_path(target.decode("ascii"), encoded=True)


class _Body(httpx.AsyncByteStream):
    """An answer's body; a connection on which not all of it was read, or sent, is closed."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self._response.content.readany():
            yield chunk

    async def aclose(self) -> None:
        self._response.close()


class _Protocol(ResponseHandler):
    """A connection whose end is the end of the body on it, and on which nobody speaks before he is asked.

    aiohttp closes a connection with a broken chunk on it, and lets the reader of the body wait; it takes
    a body that only the end of the connection delimits for whole, even if that end was a failure; and it
    takes whatever is said for the answer to the request at hand.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stray: Callable[[], None]) -> None:
        super().__init__(loop)
        self._stray = stray  # told of an answer to no request
        self.body: Body | None = None  # what it carries
        self.is_idle = False

    async def is_quiet(self) -> bool:
        """Whether it is there, and nothing has come on it that was not asked for. Bytes that wait in the
        kernel are read first: those of TLS itself are nothing."""
        for _ in range(ROUNDS):
            if self.has_more:
                self._refuse()
            if self.transport is None or self.transport.is_closing() or self.should_close:
                return False
            if not _has_bytes(self.transport):
                return True
            await asyncio.sleep(0)
        return False

    def data_received(self, data: bytes) -> None:
        if data and (self.is_idle or self._is_writing):
            self._refuse()
            return
        super().data_received(data)
        if self.is_idle and self.has_more:  # behind the answer that has just ended
            self._refuse()

    @property
    def _is_writing(self) -> bool:
        """Whether the last byte of its request has not been handed to the kernel yet."""
        if self.body is None:
            return False
        return not self.body.is_out or (self.transport is not None and _is_unwritten(self.transport))

    @property
    def has_more(self) -> bool:
        """Whether something has come that nobody has taken for an answer."""
        return bool(self._buffer or self._tail)

    def _refuse(self) -> None:
        self._stray()
        if self.transport is not None:
            self.transport.abort()
        self.set_exception(HttpProcessingError(message="an answer to no request"))

    def connection_lost(self, exc: BaseException | None) -> None:
        body = self._payload
        if exc is not None:
            _cut(body, exc)
        super().connection_lost(exc)
        _cut(body, exc)


class _Connector(aiohttp.TCPConnector):
    """Connections that carry neither an old answer into a new request nor an old request past its end.

    Once something was said on one of them that was not asked for, each carries one request only: an answer
    has no name on it, so one that is said twice may meet the next request on its connection.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        protocol: Callable[..., ResponseHandler] = _Protocol
        self._factory = partial(protocol, loop=self._loop, stray=self._reuse_none)

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  the overridden signature
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        protocol = cast(_Protocol, connection.protocol)
        _take(protocol, req.body)
        connection.add_callback(partial(self._give_back, protocol))
        if protocol.transport is not None:
            connection.add_callback(partial(_drop_unwritten, protocol.transport))
        return connection

    def _give_back(self, protocol: _Protocol) -> None:
        protocol.is_idle, protocol.body = True, None
        if protocol.has_more:
            self._reuse_none()

    def _reuse_none(self) -> None:
        self._force_close = True
        for protocol, _ in [each for idle in self._conns.values() for each in idle]:
            protocol.close()


def _take(protocol: _Protocol, payload: object) -> None:
    """Let a connection carry a request."""
    protocol.is_idle = False
    if isinstance(payload, _Payload) and isinstance(payload.stream, Body):
        protocol.body, payload.stream.connection = payload.stream, protocol


def _has_bytes(transport: asyncio.Transport) -> bool:
    """Whether there is something to read in the kernel, be it the end."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _is_unwritten(transport: asyncio.Transport) -> bool:
    return transport.get_write_buffer_size() > 0


def _cut(body: aiohttp.StreamReader | None, exc: BaseException | None) -> None:
    if body is not None and not body.is_eof() and body.exception() is None:
        cut = aiohttp.ClientPayloadError("the connection ended within the body")
        cut.__cause__ = exc
        body.set_exception(cut)


def _drop_unwritten(transport: asyncio.Transport) -> None:
    # closed the usual way it would stay open until a peer that does not read has read everything
    if _is_unwritten(transport):
        transport.abort()
