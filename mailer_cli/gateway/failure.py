"""An exchange that broke off -> its outcome class."""

import socket
import ssl
from collections.abc import Iterator

import aiohttp
import httpx

from mailer_cli.gateway.answer import Answer
from mailer_cli.models import Outcome

# The first word with a type anywhere in the chain of causes names the failure. They are aiohttp's errors, and
# what is below: mapped to httpx's, a refused, a reset and a closed connection would all be the same.
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


def failure(error: Exception, is_begun: bool, status: int | None) -> Answer:
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
