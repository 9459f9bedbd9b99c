"""A gateway that a test scripts: what it says is a rule of the message, not of chance."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mailer_cli.dispatch import Summary
from tests.judge import Spoken
from tests.lab import Clock, Lab

MINUTE = timedelta(minutes=1)
OK = b'{"code":0,"message":"OK"}'


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    id: int
    phone: int
    text: str

    @property
    def operator(self) -> str:
        return str(self.phone)[1:4]


@dataclass(frozen=True)
class Says:
    """An answer; nothing but OK is accepted."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0  # seconds


Rule = Callable[[Asked], Says]


@contextmanager
def scripted(lab: Lab, rule: Rule) -> Iterator[None]:
    """The gateway of the laboratory for this time; it writes the ledger as the sandbox does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(rule, lab.ledger_path))
    server.daemon_threads = True
    before, lab.url = lab.url, f"http://127.0.0.1:{server.server_address[1]}/v1/send/"
    lab.write_env()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    first, limit = _last_run(lab) + 1, float(str(lab.settings.get("timeout", 10)))

    def takes(id: int, phone: int, text: str) -> bool:
        says = rule(Asked(id, phone, text))
        return says.status == 200 and says.after < limit

    try:
        yield
    finally:
        lab.spoken.append(Spoken(first, _last_run(lab), takes))
        server.shutdown()
        thread.join()
        server.server_close()
        lab.url = before
        lab.write_env()


def _last_run(lab: Lab) -> int:
    return int(lab.number("SELECT coalesce(max(id), 0) FROM run"))


def _handler(rule: Rule, ledger: Path) -> type[BaseHTTPRequestHandler]:
    writing = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            asked = Asked(**json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            says = rule(asked)
            line = {
                "at": datetime.now(UTC).isoformat(),
                **vars(asked),
                "accepted": says.status == 200,
                "answer": says.status,
                "connection": self.client_address[1],
            }
            with writing, ledger.open("a") as out:
                out.write(json.dumps(line) + "\n")
            time.sleep(says.after)
            body = OK if says.status == 200 else b""
            head = [f"HTTP/1.1 {says.status} Said", f"Content-Length: {len(body)}"]
            head += [f"{name}: {value}" for name, value in says.headers.items()]
            self.wfile.write("\r\n".join([*head, "", ""]).encode() + body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nobody listens."""

    return Handler


def add(lab: Lab, messages: int, text: str, operator: str = "900", **columns: object) -> int:
    """A running mailing of this text to so many clients of this operator; its id."""
    first = lab.number("SELECT coalesce(max(id), 0) FROM client")
    mailing = lab.add_mailing(messages, **columns)
    lab.execute(
        "UPDATE client SET operator_code = ?, phone = ? + id WHERE id > ?",
        *(operator, int(f"7{operator}1000000"), first),
    )
    lab.execute("UPDATE wording SET text = ? WHERE id = (SELECT max(id) FROM wording)", text)
    return mailing


@dataclass
class Minutes:
    """Runs as cron starts them, one a minute, inside this process; `settings` are those of each run."""

    lab: Lab
    settings: Mapping[str, object] = field(default_factory=dict)
    clock: Clock = field(default_factory=lambda: Clock(datetime.now(UTC)))
    minute: int = 0

    def __post_init__(self) -> None:
        self.began = self.clock()

    def run(self) -> Summary:
        """The next one. Its minute begins when the one before is over, but it needs no minute."""
        self.clock.jump(max(self.clock(), self.began + self.minute * MINUTE))
        self.minute += 1
        return self.lab.run_here(self.clock, **self.settings)


def sent(lab: Lab, mailing: int) -> int:
    return int(lab.number("SELECT count(*) FROM message WHERE mailing_id = ? AND status = 'sent'", mailing))
