"""Answers from hell: the real gateway's client over real sockets, against every sequence of bytes that
Hypothesis thinks of. `MAILER_EXAMPLES=2000` looks longer."""

import asyncio
import gzip
import json
import os
import re
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mailer_cli.gateway import Answer, judge
from mailer_cli.gateway.client import Gateway
from mailer_cli.models import Outcome
from tests.hell import BODY_LIMIT, HELL, Hell, Script, allowed, answer, row, verdict

EXAMPLES = 4 * int(os.environ.get("MAILER_EXAMPLES", "60"))
SHRINKS = os.environ.get("MAILER_SHRINK") != "no"
LIMIT = 0.15  # seconds for an exchange
SLACK = 2.0  # seconds that a machine may be busy otherwise
TIMED_OUT = ("read timeout", "connect timeout", "pool timeout")
OK = b'{"code":0,"message":"OK"}'
BATCH = 25  # after so many new answers Hypothesis would vary old ones
looking = settings(
    max_examples=BATCH,
    database=None,
    deadline=None,
    phases=[Phase.generate, *([Phase.shrink] if SHRINKS else [])],
    suppress_health_check=list(HealthCheck),
)


def look(test: Callable[..., None], *drawn: st.SearchStrategy[Any], examples: int = EXAMPLES) -> None:
    """Draw examples, the same every time."""
    for batch in range(-(-examples // BATCH)):
        seed(batch)(looking(given(*drawn)(test)))()


pytestmark = [
    pytest.mark.timeout(0 if EXAMPLES > 500 else 120),
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),  # some examples are
]


# --- what the server says

NEAR_MISSES = (
    *(b'{"code":%b}' % code for code in (
        b'"0"', b"0.0", b"-0", b"0e0", b"-0.0", b"true", b"false", b"null", b"1e400", b"[0]",
        b"{}", b"00",
        b"1", b"-1", b"9" * 18, b"9" * 30, b"1" + b"0" * 5000, b"NaN", b"0x0", b"0,\"code\":1",
        b"1,\"code\":0",
    )),
    b"", b" ", b"0", b"null", b"[]", b"{}", b'[{"code":0}]', b'{"Code":0}', b'{"\\u0063ode":0}',
    b'{"code":0,"rest":NaN}', b'{"code":0,"rest":{"a":1,"a":2}}', b'{"code":0,}', b"{'code':0}",
    b'{"rest":{"code":0}}', b'{"code":0,"m":"\xff"}', b'{"code":0,"m":"\\ud800"}', b'{"code":0}\x00',
    b"\xef\xbb\xbf" + OK, OK.decode().encode("utf-16"), OK.decode().encode("utf-32"), OK + b"x", OK + OK,
    OK[:-1], OK[:9], b" " + OK + b"\r\n", b"<html>" + OK, b"[" * 50_000, b'{"code":' * 8_000,
    b'{"code":0,"m":"' + b"x" * 70_000 + b'"}', b'{"code":0,"m":"' + b"x" * 60_000 + b'"}',
)  # fmt: skip
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["code", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
bodies = (
    st.just(OK)
    | st.just(OK)
    | st.sampled_from(NEAR_MISSES)
    | st.binary(max_size=60)
    | json_like.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
)

STATUSES = (
    200,
    201,
    204,
    299,
    300,
    302,
    304,
    307,
    400,
    401,
    403,
    404,
    405,
    407,
    408,
    410,
    413,
    418,
    422,
    425,
)
PLAIN_LINES = tuple(b"HTTP/1.1 %d Word" % status for status in (*STATUSES, 429, 500, 501, 502, 503, 504, 599))
WEIRD_LINES = (
    b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.0 200 OK",
    b"HTTP/0.9 200 OK", b"HTTP/2 200 OK", b"HTTP/2.0 200 OK", b"HTTP/9.9 200 OK", b"http/1.1 200 OK",
    b"ICY 200 OK", b"HTTP/1.1 0 OK", b"HTTP/1.1 -200 OK", b"HTTP/1.1 2e2 OK", b"HTTP/1.1 20",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 99999999999999999999 OK", b"HTTP/1.1 abc OK", b"HTTP/1.1 600 OK", b"HTTP/1.1 999 OK",
    b"HTTP/1.1 099 OK", b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 199 Early",
    b"HTTP/1.1 200 O\x00K",
    b"HTTP/1.1 200 \xff\xfe", "HTTP/1.1 200 Готово".encode(), "HTTP/1.1 ２００ OK".encode(),
    b"HTTP/1.1 200 " + b"O" * 20_000, b"", b"\x00", b" HTTP/1.1 200 OK",
    b"\r\n\r\nHTTP/1.1 200 OK", b"{}",
    b"<html>", b"SSH-2.0-OpenSSH_9.2", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0",
)  # fmt: skip
numbers = st.integers(-10, 1100).map(lambda status: b"HTTP/1.1 %d Word" % status)
weird_lines = st.sampled_from(WEIRD_LINES) | numbers | st.binary(max_size=30)
FIELDS = (
    b"Content-Type: application/json", b"Content-Type: text/html", b"Server: nginx", b"X-Request-Id: 7",
    b"Connection: close", b"Connection: keep-alive", b"Connection: Close, Keep-Alive",
    b"Connection: upgrade",
    b"Connection:", b"Keep-Alive: timeout=0, max=0", b"Upgrade: h2c", b"Upgrade: websocket",
    b"Trailer: X",
    b"Set-Cookie: who=you; Path=/", b"Set-Cookie: \xff=\x01", b"Location: http://127.0.0.1:1/",
    b"Location: \x00",
    b"Content-Encoding: identity", b"Content-Encoding: gzip", b"Content-Encoding: br",
    b"Content-Encoding: zstd",
    b"Content-Encoding: deflate", b"Content-Encoding: gzip, gzip", b"Content-Encoding: IDENTITY",
    b"Content-Encoding:", b"Retry-After: 5", b"Retry-After: 0", b"Retry-After: -5", b"Retry-After: NaN",
    b"Retry-After: 1e9", b"Retry-After: " + b"9" * 400, b"Retry-After: Thu, 01 Jan 2026 12:01:30 GMT",
    b"Retry-After: Thu, 99 Jan 2026 12:01:30 GMT", b"Retry-After: \xff", b"Retry-After: 5, 6",
    b"Content-Length: 7", b"Content-Length: 0", b"Content-Length: -1", b"Content-Length: +5",
    b"Content-Length: 0x10", b"Content-Length: 5, 5", b"Content-Length: 5, 6", b"Content-Length: ",
    b"Content-Length: 99999999999999999999999", b"Content-Length : 5", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked",
    b" folded: yes", b"\tfolded", b"no colon", b": no name", b"X\x00: y", b"X: \x00", b"X: a\rb",
    b"X: a\nb",
    b"\xd1\x84: \xd1\x8f", b"X: " + b"x" * 9_000, b"\r\n".join([b"X: y"] * 120),
    b"\r\n".join([b"Y: z"] * 3_000),
)  # fmt: skip
HARMLESS = FIELDS[:6]
INTERIMS = (
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n" * 300,
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 100\r\n\r\n",
    b"\r\n",
)
AFTERWARDS = (
    answer(OK),
    answer(b'{"code":17}'),
    answer(b"", b"503 Busy"),
    b"HTTP/1.1 200 OK\r\nX: ",
    b"\r\n",
    b"\x00",
    OK,
    b"0\r\n\r\n",
)


def rarely(some: st.SearchStrategy[Any], otherwise: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from("nnnnnnny").flatmap(lambda word: some if word == "y" else st.just(otherwise))


def lines() -> st.SearchStrategy[bytes]:
    likely = st.just(PLAIN_LINES[0]) | st.sampled_from(PLAIN_LINES)
    return likely.flatmap(lambda line: rarely(weird_lines, line))


def fields() -> st.SearchStrategy[list[bytes]]:
    weird = st.sampled_from(FIELDS) | st.binary(max_size=20)
    likely = st.lists(st.sampled_from(HARMLESS), max_size=2, unique=True)
    return likely.flatmap(lambda found: rarely(weird.map(lambda one: [*found, one]), found))


def chunked(body: bytes, size: int = 7, line: bytes = b"%x\r\n", last: bytes = b"0\r\n\r\n") -> bytes:
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(line % len(part) + part + b"\r\n" for part in parts[:2000]) + last


CHUNKED = b"Transfer-Encoding: chunked"


def framings(body: bytes) -> st.SearchStrategy[tuple[list[bytes], bytes]]:
    """Ways to say where a body ends, right and wrong ones: headers, and the bytes."""
    length = b"Content-Length: %d"
    true = length % len(body)
    ways = [
        ([], body),
        ([length % (len(body) + 5)], body),
        ([length % max(0, len(body) - 1)], body),
        ([b"content-length: 000%d" % len(body)], body),
        ([true, true], body),
        ([true, length % (len(body) + 1)], body),
        ([length % (len(body) + 1), true], body),
        ([b"Content-Length: -%d" % len(body)], body),
        ([CHUNKED], chunked(body)),
        ([CHUNKED], chunked(body, 60_000)),
        ([CHUNKED], chunked(body, line=b"%X;name=value\r\n")),
        ([CHUNKED], chunked(body, line=b"%x\n")),
        ([CHUNKED], chunked(body, line=b"0x%x\r\n")),
        ([CHUNKED], chunked(body, line=b"-%x\r\n")),
        ([CHUNKED], chunked(body, line=b"fffffffff%x\r\n")),
        ([CHUNKED], chunked(body, last=b"")),
        ([CHUNKED], chunked(body, last=b"0\r\nCode: 0\r\nContent-Length: 5\r\n\r\n")),
        ([CHUNKED], chunked(body, last=b"0\r\nbroken trailer\r\n\r\n")),
        ([CHUNKED], chunked(body, last=b"zz\r\n\r\n")),
        ([CHUNKED], chunked(body, last=b"0")),
        ([CHUNKED], body),
        ([CHUNKED, true], chunked(body)),
        ([true, CHUNKED], body),
        ([b"Transfer-Encoding: chunked, identity"], chunked(body)),
        ([true, b"Content-Encoding: gzip"], body),
        ([length % len(gzip.compress(body)), b"Content-Encoding: gzip"], gzip.compress(body)),
        ([length % len(zlib.compress(body)), b"Content-Encoding: deflate"], zlib.compress(body)),
    ]
    cut = [ways[0], ways[1], ([CHUNKED], chunked(body, last=b""))]
    whole = [([true], body), ([true], body), ([CHUNKED], chunked(body))]
    return st.sampled_from(whole) | st.sampled_from(whole) | st.sampled_from(cut) | st.sampled_from(ways)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """One answer, more or less; mostly less in one place only."""
    headers, body = draw(bodies.flatmap(framings))
    eol = draw(rarely(st.sampled_from([b"\n", b"\r", b"\r\r\n", b"\x00\r\n"]), b"\r\n"))
    before = b"".join(draw(rarely(st.lists(st.sampled_from(INTERIMS), max_size=3), [])))
    head = eol.join([draw(lines()), *draw(st.permutations([*headers, *draw(fields())])), b"", b""])
    raw = before + head + body
    if place := draw(rarely(st.integers(1, max(1, len(raw))), 0)):
        raw = raw[:place] + draw(st.just(b"") | st.binary(max_size=3)) + raw[place + 1 :]
    return raw[: draw(rarely(st.integers(0, len(raw)), len(raw)))]


PAUSES = (0, 0, 0, 0.001, 0.01)
DRIP = 0.03  # seconds; eight pieces of it are beyond the limit


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    raw = draw(answers().flatmap(lambda found: rarely(st.binary(max_size=200), found)))
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=3)))
    pauses = [draw(st.sampled_from(PAUSES)) for _ in range(len(cuts) + 1)]
    if draw(rarely(st.just(True), False)):
        cuts = list(range(1, min(len(raw), 8)))
        pauses = [0, *[DRIP] * len(cuts)]
    parts = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    parts.append(draw(rarely(st.sampled_from(AFTERWARDS) | st.binary(max_size=9), b"")))
    pauses.append(draw(st.sampled_from(PAUSES)))
    return Script(
        draw(st.sampled_from(["body", "body", "body", "body", "head", "connect"])),
        tuple(zip(pauses, parts, strict=True)),
        draw(st.sampled_from(["keep", "keep", "keep", "close", "half", "reset"])),
    )


KNOWN = (  # what every run of the tests plays
    Script("body", ((0, answer(OK)), (0.01, answer(OK))), "keep"),
    Script("body", ((0, answer(OK) + answer(OK)),), "keep"),
    Script("body", ((0, answer(OK)), (0.01, b"HTTP/1.1 503 Busy\r\nX: ")), "keep"),
    Script("connect", ((0, answer(OK)),), "keep"),
    Script("head", ((0, answer(OK)),), "close"),
    *(
        Script("body", ((0, head + OK),), end)
        for head in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n19\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
        )
        for end in ("keep", "close", "half", "reset")
    ),
)


# --- what the program makes of it


def opened(url: str) -> Gateway:
    return Gateway(
        url,
        "head.body.seal",
        timeout=30,
        concurrency=1,
        clock=lambda: datetime(2026, 1, 1, 12, tzinfo=UTC),
        random=lambda: 0.5,
        sleep=lambda _: asyncio.sleep(0),
    )


@asynccontextmanager
async def listening(talk: Callable[..., Any]) -> AsyncIterator[str]:
    """A server whose every connection is one `talk`, for a while; its address."""
    talks: set[asyncio.Task[Any] | None] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        with suppress(OSError, EOFError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, limit=1 << 20)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/send"
    finally:
        server.close()
        for each in filter(None, talks):
            each.cancel()
        await asyncio.gather(*filter(None, talks), return_exceptions=True)


async def sent(gate: Gateway, text: str) -> tuple[Answer, float]:
    """What became of HELL, and after how many seconds; its limit is kept."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(LIMIT + SLACK):
        found = await gate.send(HELL, 79161234567, text, limit=LIMIT)
    return found, loop.time() - began


async def true_answer(gate: Gateway, number: int) -> None:
    """A message after all that gets the answer that is its own."""
    found = await gate.send(number, 79161234567, "x", limit=9, may_repeat=lambda: True)
    assert (found.outcome, found.code) == (Outcome.TEMPORARY, number), found


async def exchange(url: str, hell: Hell, is_reused: bool) -> None:
    async with opened(url) as gate:
        if is_reused and hell.script.when != "connect":
            await true_answer(gate, 1)
        found, took = await sent(gate, "x" * 3000)
        with suppress(TimeoutError):  # never begun, when the time was over before
            await asyncio.wait_for(hell.played.wait(), SLACK)
        await asyncio.sleep(0.002)  # what was said is there
        check(hell, found, took)
        await true_answer(gate, 2)
        await true_answer(gate, 3)
        assert found.outcome is not Outcome.NOT_SENT or hell.seen == 0


def check(hell: Hell, found: Answer, took: float) -> None:
    assert found.retry_after is None or found.outcome is Outcome.BUSY
    assert 0 <= (found.retry_after or 0) <= 3600
    if found.outcome is Outcome.NOT_SENT:
        assert hell.script.when == "connect" or took > LIMIT / 2
    elif found.error in TIMED_OUT:
        assert found.outcome is Outcome.UNKNOWN and took > LIMIT / 2
    else:
        assert found.outcome in allowed(hell.script), found
    assert found.is_gateway_wide == (found.outcome in (Outcome.NOT_SENT, Outcome.UNKNOWN))


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as found:
        yield found


def test_whatever_the_gateway_says_only_a_true_ok_is_one_and_the_next_message_gets_its_own(
    runner: asyncio.Runner,
) -> None:
    async def play(script: Script, is_reused: bool) -> None:
        hell = Hell(script)
        async with listening(hell.talk) as url:
            await exchange(url, hell, is_reused)

    for script in KNOWN:
        runner.run(play(script, True))
    look(lambda script, is_reused: runner.run(play(script, is_reused)), scripts(), st.booleans())


# --- what has no end

BLOCK = b"x" * 65_536
PACKED = gzip.compress(bytes(50_000_000), 9)  # 49 KB
ENDLESS: dict[str, tuple[bytes, bytes, Outcome]] = {
    "a status line": (b"HTTP/1.1 200 ", BLOCK, Outcome.UNKNOWN),
    "a header": (b"HTTP/1.1 200 OK\r\nX: ", BLOCK, Outcome.UNKNOWN),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10_000, Outcome.UNKNOWN),
    "interim answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 2000, Outcome.UNKNOWN),
    "a body of 100 MB": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", BLOCK, Outcome.UNKNOWN),
    "a body without a length": (b"HTTP/1.1 200 OK\r\n\r\n", BLOCK, Outcome.UNKNOWN),
    "spaces after an OK": (b"HTTP/1.1 200 OK\r\n\r\n" + OK, b" " * 65_536, Outcome.UNKNOWN),
    "the body of a refusal": (b"HTTP/1.1 404 Not Found\r\n\r\n", BLOCK, Outcome.CONFIG),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"10000\r\n" + BLOCK + b"\r\n",
        Outcome.UNKNOWN,
    ),
    "tiny chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n" * 5000,
        Outcome.UNKNOWN,
    ),
    "the length of a chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0" * 65_536,
        Outcome.UNKNOWN,
    ),
    "a word about a chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        BLOCK,
        Outcome.UNKNOWN,
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n0\r\n0\r\n",
        b"X: y\r\n" * 10_000,
        Outcome.UNKNOWN,
    ),
    "a packed body": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(PACKED),
        PACKED,
        Outcome.UNKNOWN,
    ),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_what_has_no_end_is_cut_and_takes_no_memory(case: str, runner: asyncio.Runner) -> None:
    start, block, outcome = ENDLESS[case]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(start)
        for _ in range(100_000_000 // len(block)):
            writer.write(block)
            await writer.drain()
        await reader.read()

    async def play() -> Answer:
        async with listening(talk) as url, opened(url) as gate:
            return (await sent(gate, "x"))[0]

    tracemalloc.start()
    try:
        found = runner.run(play())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.outcome is outcome
    assert peak < 8_000_000


# --- before there is a connection to speak over


def test_what_is_no_tls_means_not_sent(runner: asyncio.Runner) -> None:
    async def play(said: bytes, closes: bool) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(said)
            await (asyncio.sleep(0) if closes else reader.read())

        async with listening(talk) as url, opened(url.replace("http:", "https:")) as gate:
            found, _ = await sent(gate, "x")
            assert found.outcome is Outcome.NOT_SENT, found

    record = st.builds(
        lambda kind, version, body: bytes([kind, 3, version]) + len(body).to_bytes(2, "big") + body,
        st.integers(20, 24),
        st.integers(0, 4),
        st.binary(max_size=60),
    )
    plain = st.sampled_from([answer(OK), answer(b"", b"400 Bad Request"), b"", b"220 mail ESMTP\r\n"])
    look(
        lambda said, closes: runner.run(play(said, closes)),
        st.lists(record, max_size=3).map(b"".join) | plain | st.binary(max_size=60),
        st.booleans(),
        examples=EXAMPLES // 8,
    )


# --- the pieces by themselves

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
words = st.text(st.characters(max_codepoint=255), max_size=30)


def test_a_body_is_judged_by_what_it_is_and_nothing_else() -> None:
    def check(status: int, headers: dict[str, str], body: bytes) -> None:
        raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        found = judge(status, httpx.Headers(raw), body if len(body) <= BODY_LIMIT else None, lambda: NOW)
        is_packed = headers.get("Content-Encoding", "identity").lower() != "identity"
        expected = Outcome.UNKNOWN if is_packed else verdict(body)
        assert found.outcome is (row(status) or expected)
        assert found.http_status == status
        assert found.retry_after is None or found.outcome is Outcome.BUSY
        assert found.is_nonsense == (200 <= status < 300 and found.outcome is Outcome.UNKNOWN)

    headers = st.dictionaries(
        st.sampled_from(["Content-Encoding", "Content-Type", "Retry-After", "X"]),
        words | st.sampled_from(["identity", "gzip", "br", "deflate", "zstd", "IDENTITY", ""]),
        max_size=3,
    )
    look(check, st.just(200) | st.integers(-1, 1000), headers, bodies, examples=4 * EXAMPLES)


def test_a_wish_to_be_left_alone_is_a_sane_number_of_seconds_or_none() -> None:
    def check(value: str) -> None:
        found = judge(503, {"Retry-After": value}, b"", lambda: NOW).retry_after
        if value.isascii() and value.isdigit() and len(value) < 10:
            assert found == min(int(value), 3600)
        assert found is None or 0 <= found <= 3600
        assert found is None or re.search("[0-9]", value)

    date = st.builds(
        "{}, {} {} {} {}:{}:{} {}".format,
        st.sampled_from(["Thu", "Thursday", "", "Чт"]),
        st.integers(-1, 40),
        st.sampled_from(["Jan", "January", "13", ""]),
        st.integers(-1, 99_999),
        *[st.integers(-1, 61)] * 3,
        st.sampled_from(["GMT", "+0000", "-9999", "+99999999999999", "MSK", "", "z"]),
    )
    look(check, words | st.integers().map(str) | st.floats().map(str) | date, examples=4 * EXAMPLES)


@given(st.integers(-7200, 7200))
def test_a_date_is_as_many_seconds_away_as_it_is(seconds: int) -> None:
    value = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    found = judge(429, {"Retry-After": value}, None, lambda: NOW).retry_after
    assert found == (min(seconds, 3600) if seconds >= 0 else None)
