"""A host's addresses, asked for by a thread that nobody waits for."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class Resolver(AbstractResolver):
    """As aiohttp's own, which leaves the threads to the event loop: that, and the interpreter, would wait at
    their end for a name server that does not answer."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises: OSError."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def look_up() -> None:
            try:
                answer = _addresses(host, port, family)
            except Exception as error:
                tell(found.set_exception, error)
            else:
                tell(found.set_result, answer)

        def tell(take: Callable[[Any], object], news: object) -> None:
            with suppress(RuntimeError):  # the loop is closed, nobody wants to know
                loop.call_soon_threadsafe(lambda: found.done() or take(news))

        Thread(target=look_up, daemon=True).start()
        return await found

    async def close(self) -> None:
        pass


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [_address(host, family, proto, address) for family, _, proto, _, address in infos]


def _address(host: str, family: int, proto: int, address: tuple[Any, ...]) -> ResolveResult:
    name, port = socket.getnameinfo(address, NUMERIC)  # with the scope of one that is local to a link
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=name, port=int(port), family=family, proto=proto, flags=flags)
