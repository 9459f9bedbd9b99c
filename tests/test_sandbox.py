"""The sandbox gateway, asked over real sockets: its contract, each of its faults, and its ledger."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mailer_cli import sandbox
from mailer_cli.gateway import Answer
from mailer_cli.gateway.client import Gateway
from mailer_cli.models import Outcome
from mailer_cli.sandbox import KINDS, Faults, parse_faults
from tests.faults import EVERY_ANSWER

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TOKEN = "head.body.seal"
MESSAGE = {"id": 7, "phone": 79161234567, "text": "привет"}


def run(test: Coroutine[Any, Any, Any], within: float = 2) -> Any:
    return asyncio.run(asyncio.wait_for(test, within))


@asynccontextmanager
async def listening(faults: Faults | None = None, **options: Any) -> AsyncIterator[int]:
    """A sandbox for a while; its port."""
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    settings: dict[str, Any] = {"random": Random(1), "clock": lambda: NOW} | options
    serving: asyncio.Future[Any] = asyncio.create_task(
        sandbox.serve(faults or Faults(), started=ready.set_result, stop=stop, **settings)
    )
    await asyncio.wait([ready, serving], return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        await serving
    try:
        yield ready.result()
    finally:
        stop.set()
        await asyncio.wait_for(serving, 1)


async def say(port: int, raw: bytes) -> bytes:
    """What the sandbox answers, to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        return await reader.read()
    finally:
        writer.close()


def post(
    message: Any,
    path: str = "/v1/send/7",
    token: str | None = TOKEN,
    method: str = "POST",
) -> bytes:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answered(raw: bytes, faults: Faults | None = None, **options: Any) -> tuple[int, bytes]:
    """The status and the body of one answer."""

    async def test() -> bytes:
        async with listening(faults, **options) as port:
            return await say(port, raw)

    head, _, body = run(test()).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def lines_of(ledger: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ledger.read_text().splitlines()]


def only(kind: str) -> Faults:
    return Faults(rates={kind: 1.0})


# --- the contract


@pytest.mark.parametrize("path", ["/v1/send/7", "/send/7", "/v1/send/7/"])
def test_a_message_is_accepted_as_the_interface_has_it(path: str) -> None:
    assert answered(post(MESSAGE, path)) == (200, b'{"code":0,"message":"OK"}')


@pytest.mark.parametrize(
    "message",
    [
        MESSAGE | {"id": 8},
        MESSAGE | {"id": True},
        MESSAGE | {"id": "7"},
        MESSAGE | {"phone": "79161234567"},
        MESSAGE | {"phone": True},
        MESSAGE | {"phone": 7916123456},
        MESSAGE | {"phone": 89161234567},
        MESSAGE | {"phone": 79161234567.0},
        MESSAGE | {"text": ""},
        MESSAGE | {"text": None},
        {"id": 7, "phone": 79161234567},
        {},
        [MESSAGE],
        None,
        b"",
        b"{",
        b"\xff",
        b"[" * 50_000,
        b"1" * 9000,
    ],
)
def test_a_message_of_another_shape_is_refused(message: Any) -> None:
    assert answered(post(message))[0] == 400


def test_true_is_not_the_id_one() -> None:
    assert answered(post(MESSAGE | {"id": 1}, "/v1/send/1"))[0] == 200
    assert answered(post(MESSAGE | {"id": True}, "/v1/send/1"))[0] == 400


@pytest.mark.parametrize(
    "path", ["/", "/v1/send/", "/v1/send/x", "/v2/send/7", "/v1/send/7/8", "/v1/status/7"]
)
def test_an_unknown_path_is_not_found(path: str) -> None:
    assert answered(post(MESSAGE, path))[0] == 404


def test_another_method_is_not_allowed() -> None:
    assert answered(post(MESSAGE, method="PUT"))[0] == 405
    assert answered(post(b"", method="GET"))[0] == 405


def test_the_token_must_be_the_one_that_was_given() -> None:
    assert answered(post(MESSAGE), token=TOKEN)[0] == 200
    assert answered(post(MESSAGE, token="an.other.one"), token=TOKEN)[0] == 401
    assert answered(post(MESSAGE, token=None), token=TOKEN)[0] == 401


def test_without_a_token_of_its_own_it_takes_what_looks_like_one() -> None:
    assert answered(post(MESSAGE, token="any.such.thing"))[0] == 200
    assert answered(post(MESSAGE, token="nothing"))[0] == 401
    assert answered(post(MESSAGE, token=None))[0] == 401


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"EHLO x\r\n\r\n",
        b"POST /v1/send/7 HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01\x00\xff" * 9,
        b"G" * 70_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_and_the_next_request_is_served(
    raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> bytes:
        async with listening() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw)
            writer.write_eof()
            await reader.read()
            writer.close()
            return await say(port, post(MESSAGE))

    assert run(test()).startswith(b"HTTP/1.1 200")
    assert caplog.records == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_it_serves_this_computer_alone(host: str) -> None:
    async def test() -> None:
        async with listening(host=host):
            pass

    with pytest.raises(ValueError, match=r"127\.0\.0\.1"):
        run(test())


# --- the faults


def opened(port: int) -> Gateway:
    return Gateway(
        f"http://127.0.0.1:{port}/v1/send",
        TOKEN,
        timeout=9,
        concurrency=1,
        clock=lambda: NOW,
        random=lambda: 0.5,
    )


async def sent(port: int, limit: float = 0.4) -> Answer:
    async with opened(port) as gate:
        return await gate.send(7, 79161234567, "привет", limit=limit)


SEEN = {
    "hang": (Outcome.UNKNOWN, "read timeout", False),
    "slow": (Outcome.UNKNOWN, "read timeout", True),
    "reset": (Outcome.UNKNOWN, "reset", False),
    "disconnect": (Outcome.UNKNOWN, "disconnected", False),
    "bad-chunks": (Outcome.UNKNOWN, "broken answer", False),
    "garbage": (Outcome.UNKNOWN, "broken body", False),
    "foreign": (Outcome.UNKNOWN, "foreign body", False),
    "huge": (Outcome.UNKNOWN, "oversized body", False),
    "wrong-code": (Outcome.TEMPORARY, "code 1", False),
    "400": (Outcome.REJECTED, "http 400", False),
    "401": (Outcome.CONFIG, "http 401", False),
    "403": (Outcome.CONFIG, "http 403", False),
    "404": (Outcome.CONFIG, "http 404", False),
    "405": (Outcome.CONFIG, "http 405", False),
    "408": (Outcome.BUSY, "http 408", False),
    "413": (Outcome.REJECTED, "http 413", False),
    "422": (Outcome.REJECTED, "http 422", False),
    "425": (Outcome.BUSY, "http 425", False),
    "429": (Outcome.BUSY, "http 429", False),
    "redirect": (Outcome.CONFIG, "redirect", False),
    "500": (Outcome.UNKNOWN, "http 500", False),
    "502": (Outcome.UNKNOWN, "http 502", False),
    "503": (Outcome.BUSY, "http 503", False),
    "504": (Outcome.UNKNOWN, "http 504", False),
    "taken-500": (Outcome.UNKNOWN, "http 500", True),
    "taken-hang": (Outcome.UNKNOWN, "read timeout", True),
    "taken-reset": (Outcome.UNKNOWN, "reset", True),
    "taken-204": (Outcome.UNKNOWN, "broken body", True),
    "taken-gzip": (Outcome.UNKNOWN, "foreign body", True),
    "taken-twice": (Outcome.OK, None, True),
}


@pytest.mark.parametrize("kind", SEEN)
def test_each_fault_is_seen_for_what_it_is(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "ledger"

    async def test() -> Answer:
        async with listening(only(kind), ledger=ledger) as port:
            return await sent(port)

    outcome, error, accepted = SEEN[kind]
    found = run(test())
    assert (found.outcome, found.error) == (outcome, error)
    assert found.retry_after == (1 if kind == "429" else None)
    assert [(line["answer"], line["accepted"]) for line in lines_of(ledger)] == [(kind, accepted)]
    assert capfd.readouterr() == ("", "")


def test_every_kind_has_its_test() -> None:
    assert set(SEEN) == set(KINDS)


def test_the_laboratory_has_every_kind_in_its_row() -> None:
    rows = {kind: outcome for outcome, kinds in EVERY_ANSWER.items() for kind in kinds}
    assert rows == {kind: outcome for kind, (outcome, _, _) in SEEN.items()}
    unseen = {Outcome.NOT_SENT, Outcome.LATE_OK, Outcome.RELEASED, Outcome.SERVER}
    assert set(Outcome) - set(EVERY_ANSWER) == unseen


def test_a_slow_body_comes_whole_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "DRIP", 0.001)
    assert answered(post(MESSAGE), only("slow")) == (200, b'{"code":0,"message":"OK"}')


@pytest.mark.parametrize("kind", sandbox.BUSY)
def test_a_busy_one_asks_for_as_many_seconds_as_it_is_told(kind: str) -> None:
    async def test() -> Answer:
        async with listening(parse_faults([f"{kind}=1"], retry_after=0)) as port:
            return await sent(port)

    assert run(test()).retry_after == 0


def test_a_second_answer_is_in_the_way_of_no_other_message(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"

    async def test() -> list[Answer]:
        async with listening(only("taken-twice"), ledger=ledger) as port, opened(port) as gate:
            return [await gate.send(number, 79161234567, "x", limit=0.4) for number in (1, 2)]

    assert [found.outcome for found in run(test())] == [Outcome.OK, Outcome.OK]
    assert [(line["id"], line["connection"]) for line in lines_of(ledger)] == [(1, 1), (2, 2)]


def test_what_is_no_message_is_refused_whatever_the_faults() -> None:
    assert answered(post({}), only("taken-500"))[0] == 400


def test_the_same_seed_gives_the_same_faults(tmp_path: Path) -> None:
    async def kinds(name: str, seed: int) -> list[str]:
        faults = parse_faults(["500=0.3", "429=0.3"])
        async with listening(faults, ledger=tmp_path / name, random=Random(seed)) as port:
            for _ in range(40):
                await say(port, post(MESSAGE))
        return [line["answer"] for line in lines_of(tmp_path / name)]

    first = run(kinds("a", 1))
    assert first == run(kinds("b", 1))
    assert first != run(kinds("c", 2))
    assert set(first) == {"ok", "500", "429"}


def test_an_answer_waits_for_the_latency() -> None:
    began = time.monotonic()
    assert answered(post(MESSAGE), parse_faults(latency="0.2-0.3"))[0] == 200
    assert 0.2 <= time.monotonic() - began < 1


def test_connections_are_refused_during_an_outage_and_then_served_again() -> None:
    async def test() -> list[Outcome]:
        async with listening(parse_faults(outages=["0.2+0.5"])) as port:
            kept, other = await asyncio.open_connection("127.0.0.1", port)
            found = [(await sent(port)).outcome]
            await asyncio.sleep(0.35)
            assert await kept.read() == b""  # what was open is closed
            other.close()
            found.append((await sent(port)).outcome)
            await asyncio.sleep(0.5)
            found.append((await sent(port)).outcome)
            return found

    assert run(test()) == [Outcome.OK, Outcome.NOT_SENT, Outcome.OK]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: parse_faults(["fire=0.1"]), "hang slow reset"),
        (lambda: parse_faults(["500"]), "KIND=RATE"),
        (lambda: parse_faults(["500=much"]), "KIND=RATE"),
        (lambda: parse_faults(["500=nan"]), "KIND=RATE"),
        (lambda: parse_faults(["500=1.1"]), "from 0 to 1"),
        (lambda: parse_faults(["500=0.6", "502=0.6"]), "together"),
        (lambda: parse_faults(latency="slow"), "latency"),
        (lambda: parse_faults(latency="2-1"), "latency"),
        (lambda: parse_faults(latency="-1"), "latency"),
        (lambda: parse_faults(outages=["5"]), r"START\+SECONDS"),
        (lambda: Faults(rates={"fire": 0.1}), "fire"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_with_what_is_allowed(
    make: Callable[[], Faults], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_faults_are_read_as_they_are_written() -> None:
    found = parse_faults(["500=0.05", "taken-hang=0.1"], "0.01-0.2", ["5+10", "60+1.5"])
    assert found == Faults((0.01, 0.2), {"500": 0.05, "taken-hang": 0.1}, ((5, 10), (60, 1.5)))


# --- the ledger and the end


def test_the_ledger_has_each_request_before_its_answer(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"

    async def test() -> None:
        async with listening(ledger=ledger) as port:
            await say(port, post(MESSAGE))
            assert lines_of(ledger) == [
                {
                    "at": "2026-01-01T12:00:00.000000+00:00",
                    "id": 7,
                    "phone": 79161234567,
                    "text": "привет",
                    "accepted": True,
                    "answer": "ok",
                    "connection": 1,
                }
            ]
            await say(port, post(b"rubbish"))
            await say(port, post(MESSAGE, token=None))
            await say(port, post(MESSAGE, "/elsewhere"))

    run(test())
    rest = [
        (line["id"], line["accepted"], line["answer"], line["connection"]) for line in lines_of(ledger)[1:]
    ]
    assert rest == [(None, False, 400, 2), (7, False, 401, 3), (None, False, 404, 4)]


def test_a_ledger_is_continued(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    answered(post(MESSAGE), ledger=ledger)
    answered(post(MESSAGE), ledger=ledger)
    assert len(lines_of(ledger)) == 2


def test_a_long_text_is_one_line(tmp_path: Path) -> None:
    text = "ж" * 100_000
    assert answered(post(MESSAGE | {"text": text}), ledger=tmp_path / "ledger")[0] == 200
    assert lines_of(tmp_path / "ledger")[0]["text"] == text


def test_requests_that_hang_do_not_hold_up_its_end() -> None:
    async def test() -> float:
        loop = asyncio.get_running_loop()
        async with listening(only("hang")) as port:
            hanging = [asyncio.create_task(say(port, post(MESSAGE))) for _ in range(20)]
            await asyncio.sleep(0.1)
            began = loop.time()
        took = loop.time() - began
        await asyncio.gather(*hanging)
        return took

    assert run(test()) < 1


def test_a_forgotten_one_ends_by_itself() -> None:
    async def test() -> None:
        await sandbox.serve(
            Faults(),
            random=Random(1),
            clock=lambda: NOW,
            started=lambda _: None,
            stop=asyncio.Event(),
            stop_after=0.1,
        )

    run(test(), within=1)
