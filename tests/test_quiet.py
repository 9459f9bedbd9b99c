"""A connection on which somebody speaks, or hangs up, without being asked: it carries nothing more."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from mailer_cli.gateway import Answer
from mailer_cli.models import Outcome
from tests.test_connection import certified, trusted
from tests.test_gateway import OK, answer, opened, request, run, server

__all__ = ["trusted"]
NO = answer(b'{"code":17}')
PHONE = 79161234567


class Once:
    """A server that speaks a second time on its first connection, and answers truly on all others."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces  # of the two answers, with a pause between them
        self.heads: list[list[str]] = []  # of the requests of each connection

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads: list[str] = []
        self.heads.append(heads)
        is_first = len(self.heads) == 1
        while True:
            heads.append((await request(reader))[0].lower())
            if is_first and len(heads) == 1:
                await self._say_twice(writer)
            else:
                writer.write(NO)

    async def _say_twice(self, writer: asyncio.StreamWriter) -> None:
        for piece in self.pieces:
            writer.write(piece)
            await asyncio.sleep(0.03)


TWICE = {
    "in one packet": (answer(OK) * 2,),
    "behind the body": (answer(OK)[:-9], answer(OK)[-9:] + answer(OK)),
    "later": (answer(OK), answer(OK)),
}


@pytest.mark.parametrize("pieces", TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("is_tls", [False, True])
def test_after_an_answer_to_no_request_each_connection_carries_one(
    trusted: None, pieces: tuple[bytes, ...], is_tls: bool
) -> None:
    twice = Once(*pieces)

    async def test() -> list[Outcome]:
        async with server(twice.talk, certified("good") if is_tls else None) as url, opened(url) as gate:
            found = []
            for number in range(4):
                found.append((await gate.send(number, PHONE, "x", limit=1)).outcome)
                await asyncio.sleep(0.08)
            return found

    assert run(test()) == [Outcome.OK, *[Outcome.TEMPORARY] * 3]
    assert [len(each) for each in twice.heads] == [1, 1, 1, 1]
    assert ["connection: close" in each[0] for each in twice.heads] == [False, True, True, True]


def test_a_connection_is_reused_as_long_as_nobody_speaks_out_of_turn(trusted: None) -> None:
    heads: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append("")
        while True:
            heads[-1] += (await request(reader))[0]
            writer.write(answer(OK))

    async def test() -> None:
        for tls in (None, certified("good")):  # TLS says some things of its own, unasked
            heads.clear()
            async with server(talk, tls) as url, opened(url) as gate:
                for number in range(5):
                    assert (await gate.send(number, PHONE, "x", limit=1)).outcome is Outcome.OK
            assert [each.count("POST") for each in heads] == [5]

    run(test())


@contextmanager
def socket_server(*, first: bytes, then: Callable[[socket.socket], None]) -> Any:
    """A server in a thread, so that it goes on while the event loop does not. It reads a request, says
    `first`, does `then`, and notes what comes after that; later connections are answered OK."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                line.recv(65536)
                if not heard:
                    heard.append(b"")
                    line.sendall(first)
                    time.sleep(0.05)
                    then(line)
                    line.settimeout(0.5)
                    with suppress(OSError):
                        heard[0] += line.recv(65536)
                else:
                    line.sendall(NO)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/send", heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.mark.parametrize(
    "then",
    [lambda line: line.sendall(answer(OK)), lambda line: line.shutdown(socket.SHUT_WR)],
    ids=["speaks", "hangs up"],
)
def test_what_came_while_nobody_looked_is_seen_before_the_first_byte(
    then: Callable[[socket.socket], None],
) -> None:
    """The process was suspended, or busy; what came meanwhile waits in the kernel."""

    async def test() -> tuple[Answer, bytes]:
        with socket_server(first=answer(OK), then=then) as (url, heard):
            async with opened(url) as gate:
                assert (await gate.send(1, PHONE, "x", limit=1)).outcome is Outcome.OK
                time.sleep(0.2)
                found = await gate.send(2, PHONE, "x", limit=1)
                while not heard:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            return found, heard[0]

    found, heard = run(test())
    assert (found.outcome, heard) == (Outcome.NOT_SENT, b"")


@asynccontextmanager
async def held(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
    go: asyncio.Event,
) -> AsyncIterator["asyncio.Task[Answer]"]:
    """A message whose connection is there, and which may not begin yet."""

    async def may_begin() -> float | None:
        await go.wait()
        return 1.0

    async with server(talk) as url, opened(url) as gate:
        sending = asyncio.create_task(gate.send(1, PHONE, "x", limit=1, may_begin=may_begin))
        yield sending
        sending.cancel()


@pytest.mark.parametrize("ends", [False, True])
def test_who_speaks_or_hangs_up_before_the_first_byte_gets_none(ends: bool) -> None:
    heard: list[bytes] = []

    async def test() -> Answer:
        go, spoke = asyncio.Event(), asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if ends:
                writer.write_eof()
            else:
                writer.write(answer(OK))
            await writer.drain()
            spoke.set()
            heard.append(await reader.read(65536))

        async with held(talk, go) as sending:
            await spoke.wait()
            await asyncio.sleep(0.05)
            go.set()
            found = await sending
            await asyncio.sleep(0.05)
            return found

    assert run(test()).outcome is Outcome.NOT_SENT
    assert heard == [b""]


def test_an_answer_before_the_last_byte_is_nobodys() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(OK))
        await asyncio.sleep(1)

    async def test() -> Answer:
        async with server(talk) as url, opened(url) as gate:
            return await gate.send(1, PHONE, "x" * 30_000_000, limit=1)

    found = run(test())
    assert (found.outcome, found.error) == (Outcome.UNKNOWN, "broken answer")


# The last look


def test_what_may_not_begin_is_given_back_and_nothing_of_it_goes_out() -> None:
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(65536))

    async def never() -> float | None:
        return None

    async def test() -> Answer:
        async with server(talk) as url, opened(url) as gate:
            found = await gate.send(1, PHONE, "x", limit=1, may_begin=never, may_repeat=lambda: True)
            await asyncio.sleep(0.05)
            return found

    assert run(test()) == Answer(Outcome.RELEASED, "not started")
    assert heard == [b""]


def test_what_waits_too_long_for_leave_to_begin_is_given_back_and_no_gateway_is_blamed() -> None:
    async def test() -> Answer:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with held(talk, asyncio.Event()) as sending:
            return await sending

    assert run(test()) == Answer(Outcome.RELEASED, "not started")


def test_each_repeat_asks_anew_and_the_time_that_it_is_given_is_its_limit() -> None:
    asked: list[float] = []
    lines: list[object] = []

    async def test() -> tuple[Answer, float]:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            lines.append(reader)
            if len(lines) == 1:
                writer.write_eof()  # before the first byte of the first try
            await reader.read()

        async def may_begin() -> float | None:
            asked.append(time.monotonic())
            if len(asked) == 1:
                await asyncio.sleep(0.05)
            return 0.2

        async with server(talk) as url, opened(url) as gate:
            found = await gate.send(1, PHONE, "x", limit=1, may_begin=may_begin, may_repeat=lambda: True)
            return found, time.monotonic() - asked[-1]

    found, seconds = run(test())
    assert (found.outcome, found.tries, len(asked)) == (Outcome.UNKNOWN, 2, 2)
    assert 0.2 <= seconds < 0.9
