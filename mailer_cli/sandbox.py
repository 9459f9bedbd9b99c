"""The sandbox gateway: keeps to the interface of the real one, misbehaves on request, and keeps a ledger.

It listens on loopback alone. The ledger has one JSON line for each request, written before the answer goes
out; a message was accepted by the gateway when a line with its id says so.
"""

import asyncio
import gzip
import ipaddress
import json
import logging
import re
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import BinaryIO
from weakref import WeakKeyDictionary

from aiohttp import web

STATUSES = (400, 401, 403, 404, 405, 408, 413, 422, 425, 429, 500, 502, 503, 504)
BUSY = ("408", "425", "429", "503")
BODIES = {
    "garbage": b"<html>It works!</html>",
    "foreign": b'[{"code": 0}]',
    "huge": b'{"code": 0, "message": "' + b"O" * 1_000_000 + b'"}',
    "wrong-code": b'{"code": 1, "message": "the subscriber is away"}',
}
OK = b'{"code":0,"message":"OK"}'
PACKED = gzip.compress(OK)
TWICE = (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(OK) + OK) * 2
TAKEN = ("slow", "taken-500", "taken-hang", "taken-reset", "taken-204", "taken-gzip", "taken-twice")
BAD_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsomething\r\n" + OK
KINDS = (
    *("hang", "slow", "reset", "disconnect", "bad-chunks", *BODIES),
    *(*map(str, STATUSES), "redirect", *TAKEN[1:]),
)

PATH = re.compile(r"(?:/v1)?/send/(-?[0-9]{1,19})/?")
JWT = re.compile(r"Bearer [^.\s]+\.[^.\s]+\.[^.\s]*")
DRIP = 1.0  # seconds between the bytes of a slow body
GRACE = 0.2  # seconds for what is in flight when it stops


@dataclass(frozen=True, slots=True)
class Faults:
    """How the sandbox misbehaves: seconds of latency from..to, the rate of each kind, times of refusal.

    Rates add up to 1 at most. An outage is (start, seconds), counted from the moment it listens.
    """

    latency: tuple[float, float] = (0.0, 0.0)
    rates: Mapping[str, float] = field(default_factory=dict)
    outages: tuple[tuple[float, float], ...] = ()
    retry_after: int | None = None  # seconds that busy answers ask for; None: 429 alone asks, for 1

    def __post_init__(self) -> None:
        unknown = sorted(self.rates.keys() - set(KINDS))
        if unknown:
            raise ValueError(f"no such fault: {', '.join(unknown)}; there are {' '.join(KINDS)}")
        if not all(0 <= rate <= 1 for rate in self.rates.values()) or sum(self.rates.values()) > 1 + 1e-9:
            raise ValueError("rates of faults are from 0 to 1, and together not above 1")
        if not 0 <= self.latency[0] <= self.latency[1]:
            raise ValueError("latency is in seconds, as 0.05 or 0.01-0.2")

    def drawn(self, chance: float) -> str | None:
        """The kind of fault for a number drawn from 0 to 1."""
        for kind, rate in self.rates.items():
            chance -= rate
            if chance < 0:
                return kind
        return None


def parse_faults(
    faults: Iterable[str] = (),
    latency: str = "0",
    outages: Iterable[str] = (),
    retry_after: int | None = None,
) -> Faults:
    """Faults as they are written: `KIND=RATE`, `A` or `A-B` seconds, `START+SECONDS`.

    Raises: ValueError with what is allowed.
    """
    rates: dict[str, float] = {}
    for fault in faults:
        kind, _, rate = fault.partition("=")
        rates[kind] = _number(rate, f"a fault is KIND=RATE, not {fault!r}")
    least, _, most = latency.partition("-")
    wait = _number(least, f"latency is in seconds, not {latency!r}")
    times = []
    for outage in outages:
        start, _, seconds = outage.partition("+")
        wrong = f"an outage is START+SECONDS, not {outage!r}"
        times.append((_number(start, wrong), _number(seconds, wrong)))
    span = (wait, _number(most or least, f"latency is in seconds, not {latency!r}"))
    return Faults(span, rates, tuple(times), retry_after)


def _number(text: str, wrong: str) -> float:
    with suppress(ValueError):
        if 0 <= (number := float(text)) < float("inf"):
            return number
    raise ValueError(wrong)


async def serve(
    faults: Faults,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    ledger: Path | None = None,
    random: Random,
    clock: Callable[[], datetime],
    started: Callable[[int], None],
    stop: asyncio.Event,
    stop_after: float | None = None,
) -> None:
    """Serve until `stop`, or for `stop_after` seconds. Port 0 takes a free one; `started` is told which.

    Raises: ValueError for a host that is not this computer's own, OSError when it cannot listen or write.
    """
    address = _loopback(host)
    with suppress(TimeoutError):
        async with asyncio.timeout(stop_after):
            if ledger is None:
                await _Sandbox(faults, token, None, random, clock).run(address, port, started, stop)
                return
            with ledger.open("ab", buffering=0) as lines:  # unbuffered: a line is one write, and is there
                await _Sandbox(faults, token, lines, random, clock).run(address, port, started, stop)


def _loopback(host: str) -> str:
    with suppress(ValueError):
        if ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback:
            return "127.0.0.1" if host == "localhost" else host
    raise ValueError(f"the sandbox serves this computer alone, on 127.0.0.1 or ::1, not on {host}")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A request as the gateway understands it: `status` is the refusal that the contract demands."""

    status: int
    id: int | None = None
    phone: int | None = None
    text: str | None = None


class _Sandbox:
    def __init__(
        self,
        faults: Faults,
        token: str | None,
        ledger: BinaryIO | None,
        random: Random,
        clock: Callable[[], datetime],
    ) -> None:
        self._faults, self._token, self._ledger, self._random, self._clock = (
            faults,
            token,
            ledger,
            random,
            clock,
        )
        self._numbers: WeakKeyDictionary[asyncio.Transport, int] = WeakKeyDictionary()
        self._connections = count(1)

    async def run(self, host: str, port: int, started: Callable[[int], None], stop: asyncio.Event) -> None:
        silent = logging.Logger("sandbox", logging.CRITICAL + 1)  # hostile input is its daily bread
        server = web.Server(
            self._handle, handler_cancellation=True, access_log=None, logger=silent, lingering_time=0
        )
        loop = asyncio.get_running_loop()
        began = loop.time()
        listener = await loop.create_server(server, host, port, backlog=1024)
        port = listener.sockets[0].getsockname()[1]
        started(port)
        try:
            for start, seconds in sorted(self._faults.outages):
                if await _stopped(stop, began + start - loop.time()):
                    return
                listener.close()
                for connection in server.connections:
                    connection.force_close()
                if await _stopped(stop, began + start + seconds - loop.time()):
                    return
                listener = await loop.create_server(server, host, port, backlog=1024)
            await stop.wait()
        finally:
            listener.close()
            server.pre_shutdown()
            await server.shutdown(GRACE)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = _understood(request.method, request.path, await _body(request))
        if seen.status in (200, 400) and not self._knows(request.headers.get("Authorization", "")):
            seen = replace(seen, status=401)
        kind = self._faults.drawn(self._random.random())
        answer = (kind or "ok") if seen.status == 200 else seen.status
        self._write(seen, answer, request)
        least, most = self._faults.latency
        if most:
            await asyncio.sleep(least if least == most else self._random.uniform(least, most))
        if seen.status != 200:
            return _refusal(seen.status)
        if kind in BUSY:
            seconds = self._faults.retry_after
            if kind == "429" and seconds is None:
                seconds = 1
            return _refusal(int(kind), {} if seconds is None else {"Retry-After": str(seconds)})
        return _json(OK) if kind is None else await _misbehave(request, kind.removeprefix("taken-"))

    def _knows(self, authorization: str) -> bool:
        if self._token is None:
            return JWT.fullmatch(authorization) is not None
        return authorization == f"Bearer {self._token}"

    def _write(self, seen: _Seen, answer: str | int, request: web.BaseRequest) -> None:
        if self._ledger is None:
            return
        line = {
            "at": self._clock().astimezone(UTC).isoformat(timespec="microseconds"),
            "id": seen.id,
            "phone": seen.phone,
            "text": seen.text,
            "accepted": answer == "ok" or answer in TAKEN,
            "answer": answer,
            "connection": self._number(request.transport),
        }
        self._ledger.write(json.dumps(line).encode() + b"\n")

    def _number(self, transport: asyncio.Transport | None) -> int | None:
        if transport is None:  # the client has gone already
            return None
        if transport not in self._numbers:
            self._numbers[transport] = next(self._connections)
        return self._numbers[transport]


def _understood(method: str, path: str, body: bytes) -> _Seen:
    found = PATH.fullmatch(path)
    if found is None:
        return _Seen(404)
    if method != "POST":
        return _Seen(405)
    try:
        said = json.loads(body.decode())
    except (ValueError, RecursionError):
        return _Seen(400)
    if not isinstance(said, dict):
        return _Seen(400)
    number, phone, text = said.get("id"), said.get("phone"), said.get("text")
    is_right = (
        type(number) is int  # isinstance would take True
        and number == int(found[1])
        and type(phone) is int
        and 70_000_000_000 <= phone <= 79_999_999_999
        and isinstance(text, str)
        and text != ""
    )
    return _Seen(
        200 if is_right else 400,
        number if type(number) is int else None,
        phone if type(phone) is int else None,
        text if isinstance(text, str) else None,
    )


async def _body(request: web.BaseRequest) -> bytes:
    try:
        return await request.read()
    except (web.HTTPException, web.PayloadAccessError, ValueError, OSError):
        return b""  # too long, or cut, or wrongly encoded: no message


async def _misbehave(request: web.BaseRequest, kind: str) -> web.StreamResponse:
    match kind:
        case "hang":
            await asyncio.Event().wait()  # until the client goes or the sandbox stops
        case "slow":
            return await _drip(request, OK)
        case "reset":
            _reset(request.transport)
        case "disconnect":
            request.protocol.force_close()
        case "redirect":
            return web.Response(status=302, headers={"Location": "/v1/elsewhere"})
        case _ if kind in BODIES:
            return _json(BODIES[kind])
        case "204":
            return web.Response(status=204)
        case "gzip":
            return web.Response(
                body=PACKED, headers={"Content-Encoding": "gzip"}, content_type="application/json"
            )
        case "twice":
            await _say(request, TWICE)
        case "bad-chunks":
            await _say(request, BAD_CHUNKS)
        case _:
            return _refusal(int(kind))
    return web.Response()  # nobody is there to get it


async def _say(request: web.BaseRequest, raw: bytes) -> None:
    """Bytes that no server of sense would send, in one piece; the client is left to end it."""
    if request.transport is not None:
        request.transport.write(raw)
        await asyncio.Event().wait()


async def _drip(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    answer = web.StreamResponse(
        headers={"Content-Type": "application/json", "Content-Length": str(len(body))}
    )
    await answer.prepare(request)
    for byte in body:
        await answer.write(bytes([byte]))
        await asyncio.sleep(DRIP)
    return answer


def _reset(transport: asyncio.Transport | None) -> None:
    if transport is not None:
        linger = struct.pack("ii", 1, 0)  # on, for no time: RST instead of FIN
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _refusal(status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    body = b'{"code":%d,"message":"refused"}' % status
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Wait that long, or until told to stop; say which."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()
