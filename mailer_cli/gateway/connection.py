"""What carries a request: httpx over aiohttp's connections."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, cast

import aiohttp
import certifi
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.payload import AsyncIterablePayload
from aiohttp.tracing import Trace
from yarl import URL

from mailer_cli.errors import Misconfigured
from mailer_cli.gateway.resolver import Resolver

KEEPALIVE = 4.0  # seconds; servers close idle ones from 5 s on, and a request that meets that is unknown


def checked_address(url: str) -> str:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Misconfigured(f"the gateway's address cannot be used: {error}") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise Misconfigured(f"the gateway's address is {url!r}, allowed is http or https")
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
            data=AsyncIterablePayload(cast(httpx.AsyncByteStream, request.stream)),
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
    """A connection whose end is the end of the body on it.

    aiohttp closes a connection with a broken chunk on it, and lets the reader of the body wait; and it takes
    a body that only the end of the connection delimits for whole, even if that end was a failure.
    """

    def connection_lost(self, exc: BaseException | None) -> None:
        body = self._payload
        if exc is not None:
            _cut(body, exc)
        super().connection_lost(exc)
        _cut(body, exc)


class _Connector(aiohttp.TCPConnector):
    """Connections that carry neither an old answer into a new request nor an old request past its end."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        protocol: type[ResponseHandler] = _Protocol
        self._factory = partial(protocol, loop=self._loop)

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


def _cut(body: aiohttp.StreamReader | None, exc: BaseException | None) -> None:
    if body is not None and not body.is_eof() and body.exception() is None:
        cut = aiohttp.ClientPayloadError("the connection ended within the body")
        cut.__cause__ = exc
        body.set_exception(cut)


def _drop_unwritten(transport: asyncio.Transport) -> None:
    # closed the usual way it would stay open until a peer that does not read has read everything
    if transport.get_write_buffer_size():
        transport.abort()
