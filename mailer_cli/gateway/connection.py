"""What carries a request: httpx over aiohttp's connections."""

import asyncio
import ssl
from functools import partial
from typing import Any

import aiohttp
import certifi
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from httpx_aiohttp import AiohttpTransport

from mailer_cli.errors import Misconfigured

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
        connector = _Connector(limit=concurrency, ssl=trust, keepalive_timeout=KEEPALIVE)
        jar = aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(connector=connector, cookie_jar=jar, proxy=proxy, trust_env=False)

    return AiohttpTransport(verify=trust, trust_env=False, client=session)


class _Protocol(ResponseHandler):
    """A connection whose end is the end of the body on it.

    aiohttp closes a connection with a broken chunk on it, and lets the reader of the body wait.
    """

    def connection_lost(self, exc: BaseException | None) -> None:
        body = self._payload
        super().connection_lost(exc)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the connection was closed within the body"))


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


def _drop_unwritten(transport: asyncio.Transport) -> None:
    # closed the usual way it would stay open until a peer that does not read has read everything
    if transport.get_write_buffer_size():
        transport.abort()
