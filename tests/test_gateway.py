"""The gateway against real sockets that behave in every way they should not, and against its own table."""

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import aiohttp
import certifi
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer_cli.errors import Misconfigured
from mailer_cli.gateway import Answer, client, judge
from mailer_cli.gateway.client import Gateway
from mailer_cli.models import Outcome

TOKEN = "head.body.seal"
OK = b'{"code":0,"message":"OK"}'
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)

# for localhost and 127.0.0.1, its own authority, valid until 2126
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgAiZNo8WXzC939BMw
shK8vb7mNCfU5Fq820gav97KT5KhRANCAATVnaZzDu8GC9KP/EjXqV2u4ztCEeAZ
/EUv/Ez6PPn4AOMoyMx9AEwtBmCD+5GUjHTv+A1c3fveVAvrG3HTkY8O
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUDaE3R5gr+x8eQAw+ncW888tZpR8wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzIyNTIwOVoYDzIxMjYxMDMw
MjI1MjA5WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATVnaZzDu8GC9KP/EjXqV2u4ztCEeAZ/EUv/Ez6PPn4AOMoyMx9AEwt
BmCD+5GUjHTv+A1c3fveVAvrG3HTkY8Oo28wbTAdBgNVHQ4EFgQUOsO0p0iQ+wzv
cep1tAgM3kCXllYwHwYDVR0jBBgwFoAUOsO0p0iQ+wzvcep1tAgM3kCXllYwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgIrOwjQwxfrE7P2ItScjSFDwscUdEeO6ONKzXPzfHqxcCIQDx
cwVRJ9HlAaDsMwuyajZ35KZR8X+Yqbi8uZKxhKBDQw==
-----END CERTIFICATE-----
"""


def run(test: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(test, 2))


def opened(url: str, **options: Any) -> Gateway:
    defaults: dict[str, Any] = {
        "timeout": 30,
        "concurrency": 4,
        "clock": lambda: NOW,
        "random": lambda: 0.5,
        "sleep": lambda _: asyncio.sleep(0),
    }
    return Gateway(url, TOKEN, **(defaults | options))


async def send(url: str, limit: float = 1.0, text: str = "привет", **options: Any) -> Answer:
    async with opened(url, **options) as gate:
        return await gate.send(7, 79161234567, text, limit=limit)


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server whose every connection is one `talk`; its address."""
    talks: set[asyncio.Task[Any] | None] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        talks.add(task)
        try:
            await talk(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(guarded, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/v1/send"
    finally:
        listener.close()
        for task in filter(None, talks):
            task.cancel()
        await asyncio.sleep(0.01)


async def request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The head and the body of the next request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length:"))
    return head, await reader.readexactly(int(length.split(":")[1]))


def says(
    *parts: bytes, pause: float = 0.0, then: Callable[[asyncio.StreamWriter], None] | None = None
) -> Talk:
    """Reads each request and says the parts, with a pause before each but the first."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request(reader)
            for part in parts:
                writer.write(part)
                await asyncio.sleep(pause)
            if then is not None:
                then(writer)
                return

    return talk


def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def both_ways(writer: asyncio.StreamWriter) -> asyncio.Transport:
    return cast(asyncio.Transport, writer.transport)


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    both_ways(writer).pause_reading()
    await asyncio.Event().wait()


def against(talk: Talk, limit: float = 1.0, **options: Any) -> Answer:
    async def test() -> Answer:
        async with server(talk) as url:
            return await send(url, limit, **options)

    return cast(Answer, run(test()))


# --- what goes out


def test_a_message_goes_out_as_the_interface_has_it() -> None:
    heard: list[tuple[str, bytes]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await request(reader))
        writer.write(answer(OK))

    found = against(talk, text="Привет 👋")
    assert found == Answer(Outcome.OK, http_status=200, code=0)
    head, body = heard[0]
    assert head.startswith("POST /v1/send/7 HTTP/1.1\r\n")
    lines = head.lower().split("\r\n")
    assert f"authorization: bearer {TOKEN}" in lines
    assert "accept-encoding: identity" in lines
    assert "content-type: application/json" in lines
    assert "user-agent: mailer/0.1.0" in lines
    assert not any(line.startswith("transfer-encoding") for line in lines)
    assert json.loads(body) == {"id": 7, "phone": 79161234567, "text": "Привет 👋"}
    assert "Привет 👋".encode() in body


@pytest.mark.parametrize("path", ["", "/", "/v1/send", "/v1/send/", "/a%2Fb//send"])
def test_a_messages_id_is_the_end_of_the_gateways_path(path: str) -> None:
    heard: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await request(reader))[0])
        writer.write(answer(OK))

    async def test() -> Answer:
        async with server(talk) as url:
            return await send(url.removesuffix("/v1/send") + path)

    assert run(test()).outcome is Outcome.OK
    assert heard[0].startswith(f"POST {path.rstrip('/')}/7 HTTP/1.1\r\n")


def test_connections_are_kept_and_cookies_are_not() -> None:
    heads: list[str] = []
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            heads.append((await request(reader))[0])
            writer.write(answer(OK, "200 OK", "Set-Cookie: who=you"))

    async def test() -> None:
        async with server(talk) as url, opened(url.replace("127.0.0.1", "localhost")) as gate:
            for number in range(3):
                assert (await gate.send(number, 79161234567, "x", limit=1)).outcome is Outcome.OK

    run(test())
    assert connections == 1
    assert len(heads) == 3
    assert not any("cookie" in head.lower() for head in heads)


def test_a_renewed_token_is_used_from_the_next_request_on() -> None:
    seen: list[str] = []

    def handle(asked: httpx.Request) -> httpx.Response:
        seen.append(asked.headers["Authorization"])
        return httpx.Response(200, content=OK)

    async def test() -> None:
        async with opened("http://gate/send", transport=httpx.MockTransport(handle)) as gate:
            await gate.send(1, 79161234567, "x", limit=1)
            gate.renew("a.new.one")
            await gate.send(1, 79161234567, "x", limit=1)

    run(test())
    assert seen == [f"Bearer {TOKEN}", "Bearer a.new.one"]


@pytest.mark.parametrize("token", ["line\nbreak", "кириллица", "a\x00b"])
def test_a_token_that_no_header_can_carry_is_refused_at_once(token: str) -> None:
    gate = opened("http://gate/send", transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    with pytest.raises(Misconfigured):
        gate.renew(token)


@pytest.mark.parametrize("url", ["ftp://gate/send", "http://", "http://[::1", "nonsense"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(Misconfigured):
        opened(url, transport=httpx.MockTransport(lambda _: httpx.Response(200)))


def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    assert against(says(answer(OK))).outcome is Outcome.OK


def test_a_proxy_with_a_password_is_used_when_it_is_given() -> None:
    heads: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await request(reader))[0])
        writer.write(answer(OK))

    async def test() -> Answer:
        async with server(talk) as url:
            proxy = url.replace("http://", "http://user:word@").removesuffix("/v1/send")
            return await send("http://gate.invalid/send", proxy=proxy)

    assert run(test()).outcome is Outcome.OK
    assert heads[0].startswith("POST http://gate.invalid/send/7 HTTP/1.1")
    assert "proxy-authorization: basic dxnlcjp3b3jk" in heads[0].lower()


def test_a_proxy_that_is_away_means_not_sent() -> None:
    found = run(send("http://gate.invalid/send", proxy="http://127.0.0.1:1"))
    assert (found.outcome, found.error) == (Outcome.NOT_SENT, "proxy")


def test_a_redirect_is_never_followed() -> None:
    asked: list[str] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await request(reader))[0])

    async def test() -> Answer:
        async with (
            server(elsewhere) as there,
            server(says(answer(b"", "307 Temporary Redirect", f"Location: {there}"))) as url,
        ):
            return await send(url)

    found = run(test())
    assert (found.outcome, found.error, asked) == (Outcome.CONFIG, "redirect", [])


# --- certainly not sent


def test_a_refused_connection_means_not_sent() -> None:
    found = run(send("http://127.0.0.1:1/send"))
    assert found == Answer(Outcome.NOT_SENT, "refused")
    assert found.is_gateway_wide


def test_an_unknown_host_means_not_sent() -> None:
    found = run(send("http://gate.invalid/send"))
    assert found.outcome is Outcome.NOT_SENT
    assert found.error in ("dns", "connect timeout")  # the latter where nobody answers questions of names


def test_a_listener_that_never_accepts_means_not_sent() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        found = run(send(f"http://127.0.0.1:{listener.getsockname()[1]}/send", 0.3))
        for filler in fillers:
            filler.close()
    assert found == Answer(Outcome.NOT_SENT, "connect timeout")


def test_waiting_for_a_free_connection_means_not_sent() -> None:
    async def test() -> list[Answer]:
        async with server(never) as url, opened(url, concurrency=1) as gate:
            sends = (gate.send(1, 79161234567, "x", limit=limit) for limit in (0.2, 0.3))
            return await asyncio.gather(*sends)

    first, second = run(test())
    assert (first.outcome, first.error) == (Outcome.UNKNOWN, "read timeout")
    assert second.outcome is Outcome.UNKNOWN  # it had its turn when the first gave up

    async def short() -> list[Answer]:
        async with server(never) as url, opened(url, concurrency=1) as gate:
            return await asyncio.gather(
                *(gate.send(1, 79161234567, "x", limit=limit) for limit in (0.4, 0.2))
            )

    assert run(short())[1] == Answer(Outcome.NOT_SENT, "connect timeout")


def test_a_tls_handshake_that_hangs_means_not_sent() -> None:
    async def test() -> Answer:
        async with server(never) as url:
            return await send(url.replace("http:", "https:"), 0.3)

    assert run(test()) == Answer(Outcome.NOT_SENT, "connect timeout")


def test_a_tls_handshake_that_fails_means_not_sent() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 this is no TLS\r\n\r\n")

    async def test() -> Answer:
        async with server(talk) as url:
            return await send(url.replace("http:", "https:"))

    assert run(test()) == Answer(Outcome.NOT_SENT, "tls")


@pytest.mark.parametrize("end", [close, reset])
def test_a_connection_lost_within_the_tls_handshake_means_not_sent(end: Callable[..., None]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        end(writer)

    async def test() -> Answer:
        async with server(talk) as url:
            return await send(url.replace("http:", "https:"))

    found = run(test())
    assert found.outcome is Outcome.NOT_SENT
    assert found.error in ("tls", "reset")


def tls(tmp_path: Path) -> ssl.SSLContext:
    file = tmp_path / "gate.pem"
    file.write_text(CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_a_bad_certificate_is_the_operators_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gate.pem"))  # the environment is not asked

    async def test() -> Answer:
        async with server(says(answer(OK)), tls(tmp_path)) as url:
            return await send(url)

    assert run(test()) == Answer(Outcome.CONFIG, "certificate")


def test_a_message_goes_out_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> Answer:
        async with server(says(answer(OK)), tls(tmp_path)) as url:
            monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "gate.pem"))
            return await send(url)

    assert run(test()).outcome is Outcome.OK


def test_nothing_starts_when_no_time_is_left() -> None:
    def handle(asked: httpx.Request) -> httpx.Response:
        raise AssertionError("a request went out")

    found = run(send("http://gate/send", 0, transport=httpx.MockTransport(handle)))
    assert found == Answer(Outcome.NOT_SENT, "too late")
    assert not found.is_gateway_wide


def test_connecting_has_a_limit_of_its_own_and_answering_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_LIMIT", 0.2)
    assert against(says(b"", answer(OK), pause=0.4), limit=1.5).outcome is Outcome.OK

    async def test() -> Answer:
        async with server(never) as url:
            return await send(url.replace("http:", "https:"), 1.5)

    began = time.monotonic()
    assert run(test()) == Answer(Outcome.NOT_SENT, "connect timeout")
    assert time.monotonic() - began < 1


# --- nobody can know


HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n"

UNKNOWN: dict[str, tuple[Talk, str]] = {
    "an answer that never comes": (says(b"", pause=9), "read timeout"),
    "a request that is never read": (never, "read timeout"),
    "a body that never comes": (says(HEADERS, pause=9), "read timeout"),
    "a slow drip": (says(HEADERS, *(bytes([byte]) for byte in OK), pause=0.1), "read timeout"),
    "headers that drip": (says(*(bytes([byte]) for byte in HEADERS), pause=0.1), "read timeout"),
    "no answer and an end": (says(then=close), "disconnected"),
    "half a status line and an end": (says(b"HTTP/1.1 2", then=close), "disconnected"),
    "a reset": (says(then=reset), "reset"),
    "a body that is cut": (says(HEADERS + OK[:9], then=close), "broken body"),
    "a chunk that is none": (
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n" + OK, pause=0.05),
        "broken body",
    ),
    "a body without a length and a reset": (
        says(b"HTTP/1.1 200 OK\r\n\r\n" + OK, pause=0.02, then=reset),
        "reset",
    ),
    "another protocol": (says(b"220 mail.example.com ESMTP\r\n", then=close), "broken answer"),
    "a status that is none": (says(b"HTTP/1.1 abc OK\r\n\r\n"), "broken answer"),
    "a status beyond all": (says(answer(OK, "999 Very Much")), "broken answer"),
    "a header that is too long": (says(answer(OK, "200 OK", "X: " + "x" * 100_000)), "broken answer"),
    "headers without end": (says(*[b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 5000]), "broken answer"),
    "a switch of protocols": (
        says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
        "broken answer",
    ),
    "a body without end": (
        says(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            *[b"3e8\r\n" + b" " * 1000 + b"\r\n"] * 99,
        ),
        "oversized body",
    ),
    "a body as long as a film": (says(answer(b" " * 10_000_000 + OK)), "oversized body"),
    "a body that is packed": (says(answer(OK, "200 OK", "Content-Encoding: gzip")), "foreign body"),
    "an empty body": (says(answer(b"")), "broken body"),
    "204": (says(b"HTTP/1.1 204 No Content\r\n\r\n"), "broken body"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_after_the_first_byte_it_is_unknown(case: str) -> None:
    talk, word = UNKNOWN[case]
    began = time.monotonic()
    found = against(talk, limit=0.5)
    assert (found.outcome, found.error) == (Outcome.UNKNOWN, word)
    assert time.monotonic() - began < 1.5
    assert found.is_gateway_wide
    assert found.is_nonsense == (word.endswith("body"))


def test_a_connection_that_the_server_gave_up_is_unknown_and_nothing_is_sent_twice() -> None:
    """The request was read in full on a reused connection, so aiohttp must not try another one by itself."""
    bodies: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append((await request(reader))[1])
        writer.write(answer(OK))
        bodies.append((await request(reader))[1])

    async def test() -> list[Answer]:
        async with server(talk) as url, opened(url) as gate:
            return [
                await gate.send(number, 79161234567, "x", limit=1, may_repeat=lambda: True)
                for number in (1, 2)
            ]

    first, second = run(test())
    assert first.outcome is Outcome.OK
    assert (second.outcome, second.error, second.tries) == (Outcome.UNKNOWN, "disconnected", 1)
    assert [json.loads(body)["id"] for body in bodies] == [1, 2]


def test_a_second_answer_is_not_taken_for_the_next_message() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await request(reader)
        writer.write(answer(OK))
        await asyncio.sleep(0.05)
        writer.write(answer(OK))  # nobody asked
        await request(reader)
        writer.write(answer(b'{"code":17}'))

    async def test() -> list[Answer]:
        async with server(talk) as url, opened(url) as gate:
            found = []
            for number in range(3):
                found.append(await gate.send(number, 79161234567, "x", limit=1))
                await asyncio.sleep(0.1)
            return found

    answers = run(test())
    assert [found.outcome for found in answers] == [Outcome.OK, Outcome.OK, Outcome.OK]
    assert connections == 3


def test_what_could_not_be_written_is_not_written_after_its_time() -> None:
    read = bytearray()

    async def test() -> Answer:
        go = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            both_ways(writer).pause_reading()
            await go.wait()
            both_ways(writer).resume_reading()
            while chunk := await reader.read(1 << 20):
                read.extend(chunk)

        async with server(talk) as url:
            found = await send(url, 0.3, text="x" * 20_000_000)
            go.set()
            await asyncio.sleep(0.3)
            return found

    found = run(test())
    assert (found.outcome, found.error) == (Outcome.UNKNOWN, "read timeout")
    assert len(read) < 20_000_000


def test_an_abort_goes_through_after_the_connection_is_closed() -> None:
    async def test() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request(reader)
            asked.set()
            await reader.read()
            gone.set()

        async with server(talk) as url, opened(url) as gate:
            sending = asyncio.create_task(gate.send(1, 79161234567, "x", limit=1, may_repeat=lambda: True))
            await asked.wait()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await asyncio.wait_for(gone.wait(), 0.5)

    run(test())


class Suspended(httpx.AsyncBaseTransport):
    """Stops the whole process for so many seconds, before or after it has asked for the body."""

    def __init__(self, seconds: float, *, is_late: bool) -> None:
        self.seconds, self.is_late = seconds, is_late

    async def handle_async_request(self, asked: httpx.Request) -> httpx.Response:
        if self.is_late:
            await asked.aread()
        time.sleep(self.seconds)
        await asked.aread()
        await asyncio.sleep(1)
        return httpx.Response(200, content=OK)


@pytest.mark.parametrize(
    ("seconds", "is_late", "expected"),
    [
        (0.1, False, Answer(Outcome.NOT_SENT, "connect timeout")),
        (1.3, False, Answer(Outcome.NOT_SENT, "overslept")),
        (0.1, True, Answer(Outcome.UNKNOWN, "read timeout")),
        (1.3, True, Answer(Outcome.UNKNOWN, "overslept")),
    ],
)
def test_nothing_is_begun_after_a_sleep_beyond_the_deadline_and_no_gateway_is_blamed_for_it(
    seconds: float, is_late: bool, expected: Answer
) -> None:
    assert run(send("http://gate/send", 0.05, transport=Suspended(seconds, is_late=is_late))) == expected


class Failing(httpx.AsyncBaseTransport):
    """Fails with these one after the other, before or after it has asked for the body; then answers OK."""

    def __init__(self, *errors: BaseException, is_late: bool = False) -> None:
        self.errors = list(errors)
        self.is_late = is_late
        self.tries = 0

    async def handle_async_request(self, asked: httpx.Request) -> httpx.Response:
        self.tries += 1
        if self.is_late or not self.errors:
            await asked.aread()
        if self.errors:
            raise self.errors.pop(0)
        return httpx.Response(200, content=OK)


EXCEPTIONS = [
    httpx.ConnectError("x"),
    httpx.ConnectTimeout("x"),
    httpx.ReadTimeout("x"),
    httpx.WriteError("x"),
    httpx.PoolTimeout("x"),
    httpx.RemoteProtocolError("x"),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientOSError(104, "reset"),
    aiohttp.ClientConnectionResetError("closing"),
    TimeoutError(),
    OSError(113, "no route"),
    ConnectionRefusedError(111, "refused"),
    ssl.SSLError("x"),
    RuntimeError("anything"),
    RecursionError(),
    MemoryError(),
    KeyError("x"),
]


@pytest.mark.parametrize("error", EXCEPTIONS, ids=repr)
def test_whatever_fails_it_counts_whether_the_body_was_asked_for(error: Exception) -> None:
    before = run(send("http://gate/send", transport=Failing(error)))
    after = run(send("http://gate/send", transport=Failing(error, is_late=True)))
    assert before.outcome is Outcome.NOT_SENT
    assert after.outcome is Outcome.UNKNOWN
    assert before.error and after.error
    assert before.is_gateway_wide and after.is_gateway_wide


# --- the table


JUDGED: list[tuple[int, bytes, Outcome, str | None, int | None]] = [
    (200, OK, Outcome.OK, None, 0),
    (201, b' {"code": 0} ', Outcome.OK, None, 0),
    (202, b'{"message": {"code": 5}, "code": 0}', Outcome.OK, None, 0),
    (200, b'{"code":-0}', Outcome.OK, None, 0),  # an integer by the grammar of JSON
    (200, b'{"code":17}', Outcome.TEMPORARY, "code 17", 17),
    (200, b'{"code":-1}', Outcome.TEMPORARY, "code -1", -1),
    *((200, body, Outcome.UNKNOWN, "foreign body", None) for body in (
        b"[]", b"0", b"null", b'"OK"', b"{}", b'[{"code":0}]', b'{"code":false}', b'{"code":true}',
        b'{"code":"0"}',
        b'{"code":0.0}', b'{"code":null}', b'{"Code":0}', b'{"code":1' + b"0" * 30 + b"}",
    )),
    *((200, body, Outcome.UNKNOWN, "broken body", None) for body in (
        b"", b" ", b"OK", b"<html>", OK + b"x", OK + OK, OK[:-1], b"\xef\xbb\xbf" + OK,
        OK.decode().encode("utf-16"),
        b'{"code":0,"message":"\xff"}', b'{"code":0,"rest":NaN}', b'{"code":0,"rest":-Infinity}',
        b"{'code':0}",
        b'{"code":5,"code":0}', b'{"code":0,}', b'{"code":00}', b'{"code":0,"m":"\n"}', b"[" * 60_000,
        b'{"code":' * 6_000, b'{"code":1' + b"0" * 9_000 + b"}",
    )),
    *((status, b"", Outcome.CONFIG, "redirect", None) for status in (300, 301, 302, 303, 304, 307, 308)),
    *((status, b"", Outcome.CONFIG, f"http {status}", None) for status in (401, 403, 404, 405, 407)),
    *((status, b"", Outcome.BUSY, f"http {status}", None) for status in (408, 425, 429, 503)),
    *((status, b"", Outcome.REJECTED, f"http {status}", None) for status in (400, 402, 406, 410, 413, 422)),
    *((status, OK, Outcome.UNKNOWN, f"http {status}", 0) for status in (500, 501, 502, 504, 520, 599)),
    (400, b'{"code":4,"message":"no"}', Outcome.REJECTED, "http 400", 4),
    (101, b"", Outcome.UNKNOWN, "broken answer", None),
    (600, OK, Outcome.UNKNOWN, "broken answer", 0),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "outcome", "error", "code"), JUDGED)
def test_each_answer_has_its_class(
    status: int, body: bytes, outcome: Outcome, error: str | None, code: int | None
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))
    found = run(send("http://gate/send", transport=transport))
    assert found == Answer(outcome, error, status, code)


@pytest.mark.parametrize("status", [408, 425, 429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("3600", 3600),
        ("86400", 3600),
        ("9" * 30, None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("5, 6", None),
        ("Thu, 01 Jan 2026 12:01:30 GMT", 90),
        ("Thu, 01 Jan 2026 12:01:30 -0000", 90),
        ("Thu, 01 Jan 2026 15:01:30 +0300", 90),
        ("Fri, 02 Jan 2026 12:00:00 GMT", 3600),
        ("Thu, 01 Jan 2026 11:59:59 GMT", None),
        ("Thu, 01 Jan 2026 99:99:99 GMT", None),
        ("Thu, 01 Jan 99999 12:00:00 GMT", None),
    ],
)
def test_busy_says_how_long_when_it_makes_sense(status: int, value: str, seconds: float | None) -> None:
    found = judge(status, httpx.Headers({b"Retry-After": value.encode()}), b"", lambda: NOW)
    assert (found.outcome, found.retry_after) == (Outcome.BUSY, seconds)


WORDS = {
    "a 504 of a proxy": (504, {}, Outcome.UNKNOWN),
    "a 408, whatever it names": (408, {"Retry-After": "7"}, Outcome.UNKNOWN),
    "a 503 without a time": (503, {}, Outcome.UNKNOWN),
    "a 503 with a time that is none": (503, {"Retry-After": "soon"}, Outcome.UNKNOWN),
    "a 503 with its time": (503, {"Retry-After": "7"}, Outcome.BUSY),
    "a 425, a refusal": (425, {}, Outcome.BUSY),
    "a 429, a refusal": (429, {}, Outcome.BUSY),
    "a 400": (400, {}, Outcome.REJECTED),
}


@pytest.mark.parametrize(("status", "headers", "outcome"), WORDS.values(), ids=WORDS.keys())
def test_what_a_proxy_says_of_what_it_has_passed_on_is_strictly_unknown(
    status: int, headers: dict[str, str], outcome: Outcome
) -> None:
    found = judge(status, httpx.Headers(headers), b"", lambda: NOW).strictly
    assert (found.outcome, found.error, found.http_status) == (outcome, f"http {status}", status)
    assert (found.retry_after is not None) == (outcome is Outcome.BUSY and bool(headers))


def test_only_busy_says_how_long() -> None:
    assert judge(500, httpx.Headers({"Retry-After": "7"}), b"", lambda: NOW).retry_after is None


def test_a_status_counts_even_if_its_body_never_ends() -> None:
    head = b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 99\r\n\r\n"
    found = against(says(head, b"x", pause=9), limit=0.2)
    assert (found.outcome, found.http_status, found.retry_after) == (Outcome.BUSY, 503, 9)
    assert against(says(head, then=close)).outcome is Outcome.BUSY


def test_a_refusal_before_the_body_was_read_is_a_refusal() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"", "413 Too Large"))
        await asyncio.sleep(1)

    assert against(talk, text="x" * 3_000_000).outcome is Outcome.REJECTED


def test_a_hundred_continue_is_passed_over() -> None:
    found = against(says(b"HTTP/1.1 100 Continue\r\n\r\n", answer(OK), pause=0.01))
    assert found.outcome is Outcome.OK


def test_a_text_that_is_no_unicode_is_the_messages_fault() -> None:
    found = run(send("http://127.0.0.1:1/send", text="half \ud83d"))
    assert found.outcome is Outcome.REJECTED


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["code", "x"]), inner, max_size=2)
    ),
    max_leaves=6,
)
bodies = (
    st.none() | st.binary(max_size=99) | json_like.map(lambda value: json.dumps(value).encode()) | st.just(OK)
)
headers = st.dictionaries(
    st.sampled_from([b"Retry-After", b"Content-Encoding", b"Content-Type"]),
    st.binary(max_size=30),
    max_size=3,
)


@settings(deadline=None)
@given(st.integers(0, 999), headers, bodies)
def test_no_answer_breaks_the_judge_and_only_one_shape_is_ok(
    status: int, given_headers: dict[bytes, bytes], body: bytes | None
) -> None:
    found = judge(status, httpx.Headers(given_headers), body, lambda: NOW)
    assert found.retry_after is None or 0 <= found.retry_after <= 3600
    if found.outcome is Outcome.OK:
        assert 200 <= status < 300
        said = json.loads((body or b"").decode())
        assert type(said) is dict and type(said["code"]) is int and said["code"] == 0


# --- repeats


def repeating(
    transport: httpx.AsyncBaseTransport, limit: float = 60, **options: Any
) -> tuple[Answer, list[float]]:
    naps: list[float] = []
    may_repeat = options.pop("may_repeat", lambda: True)

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    async def test() -> Answer:
        options.setdefault("sleep", nap)
        async with opened("http://gate/send", transport=transport, timeout=60, **options) as gate:
            return await gate.send(1, 79161234567, "x", limit=limit, may_repeat=may_repeat)

    return run(test()), naps


def test_what_was_not_sent_is_sent_again_with_growing_pauses() -> None:
    transport = Failing(*(httpx.ConnectError("x") for _ in range(3)))
    found, naps = repeating(transport)
    assert found == Answer(Outcome.OK, http_status=200, code=0, tries=4)
    assert naps == [0.5, 1, 2]


def test_repeats_end_after_a_few_tries_within_ten_seconds() -> None:
    transport = Failing(*(httpx.ConnectError("x") for _ in range(99)))
    found, naps = repeating(transport)
    assert (found.outcome, found.tries, transport.tries) == (Outcome.NOT_SENT, 5, 5)
    assert sum(naps) < 10


def test_pauses_differ_by_chance_at_every_length() -> None:
    def pauses(chance: float) -> list[float]:
        transport = Failing(*(httpx.ConnectError("x") for _ in range(99)))
        return repeating(transport, random=lambda: chance)[1]

    assert all(short < long for short, long in zip(pauses(0.1), pauses(0.2), strict=True))


def test_nothing_is_repeated_without_leave() -> None:
    transport = Failing(httpx.ConnectError("x"))
    found, naps = repeating(transport, may_repeat=lambda: False)
    assert (found.outcome, found.tries, transport.tries, naps) == (Outcome.NOT_SENT, 1, 1, [])


def test_leave_is_asked_again_after_the_pause() -> None:
    transport = Failing(httpx.ConnectError("x"), httpx.ConnectError("x"))
    leave = [True]

    async def nap(_: float) -> None:
        leave[0] = False

    found, _ = repeating(transport, may_repeat=lambda: leave[0], sleep=nap)
    assert (found.outcome, transport.tries) == (Outcome.NOT_SENT, 1)


def test_nothing_is_repeated_after_the_limit() -> None:
    transport = Failing(httpx.ConnectError("x"))
    found, _ = repeating(transport, limit=0.4)
    assert (found.outcome, transport.tries) == (Outcome.NOT_SENT, 1)


@pytest.mark.parametrize("error", [httpx.ConnectError("x"), httpx.ReadError("x"), TimeoutError()])
def test_what_may_have_been_sent_is_never_repeated(error: Exception) -> None:
    transport = Failing(error, is_late=True)
    found, _ = repeating(transport)
    assert (found.outcome, transport.tries) == (Outcome.UNKNOWN, 1)


def test_a_pause_ends_at_once_when_the_run_is_told_to_stop() -> None:
    async def test() -> Answer:
        stop = asyncio.Event()
        options = {"sleep": asyncio.sleep, "stop": stop, "transport": Failing(httpx.ConnectError("x"))}
        async with opened("http://gate/send", random=lambda: 9.0, **options) as gate:
            may_repeat = lambda: not stop.is_set()  # noqa: E731
            sending = asyncio.create_task(gate.send(1, 79161234567, "x", limit=30, may_repeat=may_repeat))
            await asyncio.sleep(0.05)
            assert not sending.done()
            stop.set()
            return await asyncio.wait_for(sending, 0.1)

    assert run(test()) == Answer(Outcome.NOT_SENT, "unreachable")


def test_a_refused_connection_is_tried_until_somebody_listens() -> None:
    async def test() -> Answer:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        listener = None

        async def nap(_: float) -> None:
            nonlocal listener
            listener = await asyncio.start_server(says(answer(OK)), "127.0.0.1", port)

        async with opened(f"http://127.0.0.1:{port}/send", sleep=nap) as gate:
            found = await gate.send(1, 79161234567, "x", limit=9, may_repeat=lambda: True)
        assert listener is not None
        listener.close()
        await asyncio.sleep(0.01)
        return found

    assert run(test()).tries == 2


def test_the_date_of_a_retry_is_read_against_the_given_clock() -> None:
    value = {"Retry-After": "Thu, 01 Jan 2026 12:01:30 GMT"}
    late = judge(503, httpx.Headers(value), b"", lambda: NOW + timedelta(seconds=60))
    assert late.retry_after == 30
