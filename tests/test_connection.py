"""What the wire shows: to whom the token goes, through a proxy too, and what nothing around us can change."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import certifi
import pytest

from mailer_cli.gateway import Answer
from mailer_cli.models import Outcome
from tests.child import finish, start
from tests.test_gateway import OK, TOKEN, Talk, answer, request, run, says, send, server

TLS = Path(__file__).parent / "data" / "tls"
OTHERS = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority of the tests is trusted as the public ones are."""
    monkeypatch.setattr(certifi, "where", lambda: str(TLS / "authority.pem"))


def certified(name: str) -> ssl.SSLContext:
    """A server's side of TLS with one of the certificates, all for 127.0.0.1 but `other_host`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / f"{name}.pem")
    return context


def listening(heard: list[str], reply: bytes = OK, *headers: str, status: str = "200 OK") -> Talk:
    """Notes the head of each request before it answers."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heard.append((await request(reader))[0])
            writer.write(answer(reply, status, *headers))

    return talk


def over_tls(certificate: str) -> tuple[Answer, list[str]]:
    """The answer of a gateway with this certificate, and what it heard."""
    heard: list[str] = []

    async def test() -> Answer:
        async with server(listening(heard), certified(certificate)) as url:
            return await send(url)

    return run(test()), heard


def over_http(talk: Talk) -> Answer:
    async def test() -> Answer:
        async with server(talk) as url:
            return await send(url)

    found: Answer = run(test())
    return found


# Certificates


def test_a_certificate_of_a_known_authority_for_this_host_is_taken(trusted: None) -> None:
    found, heard = over_tls("good")
    assert (found.outcome, len(heard)) == (Outcome.OK, 1)


@pytest.mark.parametrize("certificate", ["other_host", "expired", "self_signed"])
def test_behind_a_bad_certificate_nothing_is_heard(trusted: None, certificate: str) -> None:
    assert over_tls(certificate) == (Answer(Outcome.CONFIG, "certificate"), [])


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environment_cannot_make_an_authority_known(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, str(TLS if name.endswith("DIR") else TLS / "self_signed.pem"))
    assert over_tls("self_signed") == (Answer(Outcome.CONFIG, "certificate"), [])


@pytest.mark.parametrize("place", ["keys", "nowhere/keys"])
def test_no_session_key_is_written_down(
    trusted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / place))
    assert over_tls("good")[0].outcome is Outcome.OK
    assert list(tmp_path.iterdir()) == []


# The token, and where it goes


def test_no_netrc_takes_the_place_of_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert over_http(listening(heard)).outcome is Outcome.OK
    assert [line for line in heard[0].lower().split("\r\n") if line.startswith("authorization")] == [
        f"authorization: bearer {TOKEN}"
    ]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("to", ["/v1/elsewhere", "//localhost:{port}/", "http://127.0.0.1:{port}/v1/send/7"])
def test_no_redirect_is_followed_not_even_to_the_same_host(status: int, to: str) -> None:
    heard: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        location = f"Location: {to.format(port=port)}"
        await listening(heard, b"", location, status=f"{status} Elsewhere")(reader, writer)

    assert over_http(talk) == Answer(Outcome.CONFIG, "redirect", status)
    assert len(heard) == 1


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted"])
def test_an_answer_that_points_elsewhere_is_an_answer(status: str) -> None:
    heard: list[str] = []
    pointers = ("Location: /elsewhere", "Refresh: 0; url=/elsewhere", "Content-Location: /elsewhere")
    assert over_http(listening(heard, OK, *pointers, status=status)).outcome is Outcome.OK
    assert len(heard) == 1


def test_a_challenge_is_not_answered() -> None:
    heard: list[str] = []
    challenges = ('WWW-Authenticate: Basic realm="x"', 'WWW-Authenticate: Digest realm="x", nonce="y"')
    assert over_http(listening(heard, b"", *challenges, status="401 No")).outcome is Outcome.CONFIG
    assert len(heard) == 1


# Through a proxy


@dataclass
class Proxy:
    """A proxy for tunnels: what it was asked for, and all bytes that it saw pass."""

    refusal: str | None = None
    tls: ssl.SSLContext | None = None
    heads: list[str] = field(default_factory=list)
    passed: bytes = b""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async with server(self._talk, self.tls) as url:
            yield url.removesuffix("/v1/send")

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if self.refusal is not None:
            writer.write(answer(b"no", self.refusal, "Location: /login"))
            return
        host, port = self.heads[-1].split()[1].split(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer), return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                self.passed += piece
                writer.write(piece)
        finally:
            writer.close()


def through(proxy: Proxy, certificate: str = "good", user: str = "") -> tuple[Answer, list[str]]:
    """The answer of a gateway with this certificate behind the proxy, and what it heard."""
    heard: list[str] = []

    async def test() -> Answer:
        async with server(listening(heard), certified(certificate)) as url, proxy.listening() as address:
            return await send(url, proxy=address.replace("://", f"://{user}"))

    return run(test()), heard


def test_a_proxy_sees_where_a_tunnel_goes_and_nothing_else(trusted: None) -> None:
    proxy = Proxy()
    found, heard = through(proxy, user="us:er@")
    assert (found.outcome, len(heard)) == (Outcome.OK, 1)
    (head,) = proxy.heads
    assert head.startswith("CONNECT 127.0.0.1:")
    assert "proxy-authorization: basic" in head.lower() and "proxy-authorization" not in heard[0].lower()
    assert f"Bearer {TOKEN}" in heard[0] and TOKEN not in head
    assert proxy.passed and TOKEN.encode() not in proxy.passed and b"79161234567" not in proxy.passed


def test_a_proxy_that_looks_into_the_tunnel_hears_nothing(trusted: None) -> None:
    proxy = Proxy()
    assert through(proxy, "self_signed") == (Answer(Outcome.CONFIG, "certificate"), [])
    assert TOKEN.encode() not in proxy.passed


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [("good", Answer(Outcome.OK, None, 200, 0)), ("self_signed", Answer(Outcome.CONFIG, "certificate"))],
)
def test_a_proxy_that_is_reached_over_tls_shows_its_certificate(
    trusted: None, certificate: str, expected: Answer
) -> None:
    proxy = Proxy(tls=certified(certificate))
    found, heard = through(proxy)
    assert found == expected
    assert len(proxy.heads) == len(heard) == (certificate == "good")


@pytest.mark.parametrize(("certificate", "hears"), [("good", 1), ("self_signed", 0)])
def test_so_does_one_that_takes_the_message_itself(trusted: None, certificate: str, hears: int) -> None:
    heard: list[str] = []

    async def test() -> Answer:
        async with server(listening(heard), certified(certificate)) as proxy:
            return await send("http://gate.invalid/send", proxy=proxy.removesuffix("/v1/send"))

    assert run(test()).outcome is (Outcome.OK if hears else Outcome.CONFIG)
    assert len(heard) == hears


@pytest.mark.parametrize(
    "refusal", ["302 Found", "401 No", "403 No", "407 Who", "429 Slow", "502 Bad", "503 No"]
)
def test_a_proxy_that_refuses_a_tunnel_does_not_speak_for_the_gateway(trusted: None, refusal: str) -> None:
    proxy = Proxy(refusal)
    assert through(proxy) == (Answer(Outcome.NOT_SENT, "proxy"), [])
    assert len(proxy.heads) == 1 and TOKEN not in proxy.heads[0]


@pytest.mark.parametrize("name", OTHERS)
def test_no_proxy_of_the_environment_is_used(
    trusted: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert over_tls("good")[0].outcome is Outcome.OK
    assert over_http(says(answer(OK))).outcome is Outcome.OK


# Names


HANGS = """
    import asyncio, socket, time
    socket.getaddrinfo = lambda *given, **named: time.sleep(HANG)
    from tests.test_gateway import send
    print(asyncio.run(send("http://gate.example/send", 0.2)).error)
"""


def test_nobody_waits_for_a_name_server_that_hangs() -> None:
    """Neither the event loop at its end nor the interpreter."""
    began = time.monotonic()
    assert finish(start(HANGS.replace("HANG", "45"))) == "connect timeout\n"
    assert time.monotonic() - began < 40
