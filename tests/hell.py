"""A server that says whatever it is told, when it is told, and what may be made of that.

`Hell` plays one script for the message HELL and answers every other truly: its `code` is the id that it saw.
`allowed` is the oracle. It knows nothing of the program: what is plain HTTP has one meaning, and where HTTP
itself is ambiguous the message's fate is unknown or what one of the readings says.
"""

import asyncio
import json
import re
import socket
import struct
from dataclasses import dataclass, field

from mailer_cli.models import Outcome

HELL = 666
BODY_LIMIT = 64 * 1024

# --- the server


@dataclass(frozen=True)
class Script:
    """Pieces of bytes with seconds before each, said at once, after the head, or after all."""

    when: str  # connect, head, body
    pieces: tuple[tuple[float, bytes], ...]
    end: str  # keep, close, half, reset

    @property
    def raw(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)


@dataclass
class Hell:
    """The server's side of one script; `seen` are the bytes of HELL's body that arrived."""

    script: Script
    seen: int = 0
    is_played: bool = False
    played: asyncio.Event = field(default_factory=asyncio.Event)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.script.when == "connect":
            await self._play(writer)
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            is_hell = f"/{HELL} ".encode() in head
            if is_hell and self.script.when != "body":
                await self._play(writer)
            body = await self._body(reader, head, is_hell)
            if is_hell:
                await self._play(writer)
            else:
                writer.write(answer(b'{"code":%d}' % json.loads(body)["id"]))

    async def _body(self, reader: asyncio.StreamReader, head: bytes, is_hell: bool) -> bytes:
        left = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])  # type: ignore[index]  # it is there
        body = b""
        while left > len(body):
            piece = await reader.read(left - len(body))
            if not piece:
                raise EOFError
            body += piece
            self.seen += len(piece) * is_hell
        return body

    async def _play(self, writer: asyncio.StreamWriter) -> None:
        if self.is_played:
            return
        self.is_played = True
        try:
            for pause, piece in self.script.pieces:
                await asyncio.sleep(pause)
                writer.write(piece)
                await writer.drain()
            self._end(writer)
        finally:
            self.played.set()

    def _end(self, writer: asyncio.StreamWriter) -> None:
        if self.script.end == "half":
            writer.write_eof()
        elif self.script.end == "close":
            writer.close()
        elif self.script.end == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


# --- the oracle

FIELDS = rb"((?:[A-Za-z-]+: [ -~]{0,200}\r\n){0,90})\r\n"
INTERIM = re.compile(rb"HTTP/1\.1 1(?:0[02-9]|[1-9][0-9]) [ -~]{0,200}\r\n" + FIELDS)
PLAIN = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) [ -~]{0,200}\r\n" + FIELDS)
CHUNKS = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
RARE = {b"content-length", b"transfer-encoding", b"content-encoding", b"connection"}


def row(status: int) -> Outcome | None:
    """The table of dispatch by status; None where the body decides."""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400 or status in (401, 403, 404, 405, 407):
        return Outcome.CONFIG
    if status in (408, 425, 429, 503):
        return Outcome.BUSY
    if 400 <= status < 500:
        return Outcome.REJECTED
    return Outcome.UNKNOWN


class Integer(str):
    """An integer as it is written."""


def verdict(body: bytes) -> Outcome:
    """What the body of a 2xx says."""

    def refuse(word: str) -> object:
        raise ValueError(word)

    def pairs(found: list[tuple[str, object]]) -> object:
        if len({key for key, _ in found}) < len(found):
            raise ValueError("twins")
        return tuple(found)

    if len(body) > BODY_LIMIT or body.startswith(b"\xef\xbb\xbf"):
        return Outcome.UNKNOWN
    try:
        said = json.loads(
            body.decode("utf-8", "strict"),
            object_pairs_hook=pairs,
            parse_int=Integer,
            parse_float=str,
            parse_constant=refuse,
        )
    except (ValueError, RecursionError):
        return Outcome.UNKNOWN
    code = next((value for key, value in said if key == "code"), None) if isinstance(said, tuple) else None
    if not isinstance(code, Integer) or len(code) > 20 or abs(int(code)) >= 2**63:
        return Outcome.UNKNOWN
    return Outcome.OK if code in ("0", "-0") else Outcome.TEMPORARY


def allowed(script: Script) -> set[Outcome]:
    """What may be made of a script, but for time-outs and for a message that did not get out."""
    found = _plain(script) or _loose(script.raw)
    if script.when != "body" or script.end == "reset":
        found = found | {Outcome.UNKNOWN}  # the connection may break before all is read
    return found


def _plain(script: Script) -> set[Outcome] | None:
    """The one meaning of plain HTTP; None when it is none."""
    raw = script.raw
    while interim := INTERIM.match(raw):
        raw = raw[interim.end() :]
    head = PLAIN.match(raw)
    if head is None:
        return None
    lines = [line.partition(b": ") for line in head[2].lower().split(b"\r\n")[:-1]]
    names = [name for name, _, _ in lines]
    values = {name: value for name, _, value in lines}
    if any(names.count(name) > 1 for name in RARE) or b"upgrade" in names:
        return None
    framed = _framed(values, raw[head.end() :], script.end in ("close", "half"))
    if framed is None or values.get(b"connection", b"close") not in (b"close", b"keep-alive"):
        return None
    status = int(head[1])
    body, rest = framed if status not in (204, 304) else (b"", raw[head.end() :])
    outcome = row(status)
    if outcome is None:
        is_identity = values.get(b"content-encoding", b"identity") == b"identity"
        outcome = verdict(body) if body is not None and is_identity else Outcome.UNKNOWN
    return {outcome, Outcome.UNKNOWN} if rest else {outcome}


def _framed(values: dict[bytes, bytes], rest: bytes, is_ended: bool) -> tuple[bytes | None, bytes] | None:
    """The body, None when it does not come whole, and what follows it; None when the framing is not plain."""
    length, coding = values.get(b"content-length"), values.get(b"transfer-encoding")
    if coding is not None:
        return _chunked(rest) if coding == b"chunked" and length is None else None
    if length is None:
        return (rest if is_ended else None), b""
    if not re.fullmatch(rb"[0-9]{1,9}", length):
        return None
    size = int(length)
    return (rest[:size] if len(rest) >= size else None), rest[size:]


def _chunked(rest: bytes) -> tuple[bytes | None, bytes] | None:
    body = b""
    while size := CHUNKS.match(rest):
        end = size.end() + int(size[1], 16)
        chunk, rest = rest[size.end() : end], rest[end:]
        if not rest.startswith(b"\r\n"):
            return None
        rest = rest[2:]
        if not int(size[1], 16):
            return body, rest
        body += chunk
    return None


def _loose(raw: bytes) -> set[Outcome]:
    """Every meaning that somebody could find in it."""
    found = {Outcome.UNKNOWN}
    for status in re.findall(rb"HTTP/[0-9.]+ *\t*([0-9]{3})(?![0-9])", raw):
        outcome = row(int(status))
        found |= {outcome} if outcome else {verdict(body) for body in _bodies(raw)}
    return found


def _bodies(raw: bytes) -> list[bytes]:
    """Everything after an empty line, as it is, by each length that is named, and out of chunks."""
    lengths = [int(each) for each in re.findall(rb"(?i)length\s*:\s*\+?([0-9]{1,9})(?![0-9])", raw)]
    tails = [raw[each.end() :] for each in re.finditer(rb"\r?\n\r?\n", raw)]
    tails += [_unchunked(tail) for tail in tails]
    return [tail[:length] for tail in tails for length in (*lengths, len(raw))]


def _unchunked(rest: bytes) -> bytes:
    """What somebody lenient would find in chunks; nothing is asked of what follows the last."""
    body = b""
    while (size := re.match(rb"\s*([0-9A-Fa-f]+)[^\n]*\n", rest)) and int(size[1], 16):
        end = size.end() + int(size[1], 16)
        body, rest = body + rest[size.end() : end], rest[end:]
    return body
