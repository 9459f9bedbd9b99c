"""The sink: a gateway on loopback that says OK at once, or after a while, and whose log counts what it took.

nginx when it is there, with its echo module for the latency: one worker, keep-alive, unprivileged. Otherwise
the project's own sandbox, which is much slower and needs a core of its own: it holds the fast ones back.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.c2FuZGJveA"  # expires in 2100, signed by nobody
HOW_TO_GET = "apt-get install nginx-light libnginx-mod-http-echo"
NOBODY = 65534
PATIENCE = 10.0  # seconds until it listens
STOP_AFTER = 3600  # seconds; a sandbox that was forgotten ends by itself

NGINX = """
load_module {module};
daemon off;
worker_processes 1;
pid {folder}/pid;
events {{ worker_connections 8192; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    log_format taken '$msec $status $request_method $content_length $uri';
    access_log {folder}/taken.log taken;
    keepalive_requests 100000000;
    keepalive_timeout 600s;
    client_body_buffer_size 64k;
    default_type application/json;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location /v1/send/ {{
            if ($http_authorization !~ "^Bearer [^.]+[.][^.]+[.]") {{ return 401; }}
            echo_read_request_body;
            {wait}
            echo_exec @ok;
        }}
        location @ok {{ return 200 '{{"code":0,"message":"OK"}}'; }}
    }}
}}
"""

Entry = tuple[int, int]
"""When a message was accepted, in ms of the clock, and its id."""


@dataclass(frozen=True)
class Sink:
    """A sink that listens. `url` ends with a slash, as the gateway's does."""

    url: str
    log: Path
    read: Callable[[bytes], Entry | None]

    def accepted(self) -> list[Entry]:
        """Every accepted request in the order of the log; a message that came twice is there twice."""
        with self.log.open("rb") as lines:
            return [entry for line in lines if (entry := self.read(line))]


def why_no_nginx() -> str | None:
    """What is missing for nginx as a sink; None when nothing is."""
    if find_nginx() is None:
        return f"no nginx: {HOW_TO_GET}"
    return None if find_echo() else f"nginx has no echo module: {HOW_TO_GET}"


def find_nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def nginx_version() -> str:
    said = subprocess.run([find_nginx() or "nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return said.strip().rpartition(" ")[2]


def find_echo() -> Path | None:
    """The echo module where this nginx was built to look for modules."""
    said = subprocess.run([find_nginx() or "nginx", "-V"], capture_output=True, text=True, check=True).stderr
    folder = re.search(r"--modules-path=(\S+)", said)
    path = Path(folder[1] if folder else "/usr/lib/nginx/modules") / "ngx_http_echo_module.so"
    return path if path.exists() else None


@contextmanager
def open_sink(kind: str, latency: float = 0.0) -> Iterator[Sink]:
    """`nginx` or `sandbox`, answering after so many seconds; gone with its log at the end in any case."""
    opened = _nginx if kind == "nginx" else _sandbox
    with tempfile.TemporaryDirectory(prefix="mailer-sink-") as name, opened(Path(name), latency) as sink:
        yield sink


@contextmanager
def _nginx(folder: Path, latency: float) -> Iterator[Sink]:
    port = _free_port()
    wait = f"echo_sleep {latency:g};" if latency else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(module=find_echo(), folder=folder, port=port, wait=wait))
    errors = folder / "error.log"
    command = [find_nginx() or "nginx", "-e", str(errors), "-c", str(config)]
    with running([*unprivileged(folder), *command], folder) as process:
        _wait_for_port(port, process, errors)
        yield Sink(f"http://127.0.0.1:{port}/v1/send/", folder / "taken.log", in_access_log)


def unprivileged(folder: Path) -> list[str]:
    """What to put before a server's command: it has no rights beyond its folder, and what the folder holds by
    now, when root measures, and ends with the process that started it. Empty where there is no `setpriv`."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    command = [setpriv, "--no-new-privs", "--pdeathsig", "TERM"]
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        command += [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return command


def in_access_log(line: bytes) -> Entry | None:
    """What a line of nginx's log says was accepted; None when it was refused."""
    moment, status, method, length, address = line.split()
    if (status, method) != (b"200", b"POST") or length in (b"-", b"0"):
        return None
    return round(float(moment) * 1000), int(address.rsplit(b"/", 1)[1])


@contextmanager
def _sandbox(folder: Path, latency: float) -> Iterator[Sink]:
    ledger, out = folder / "ledger.jsonl", folder / "out"
    options = [
        "--latency",
        f"{latency:g}",
        "--ledger",
        str(ledger),
        "--stop-after",
        str(STOP_AFTER),
        "--json",
    ]
    command = [sys.executable, "-m", "mailer_cli", "sandbox", *options]
    with out.open("wb") as said, running(command, folder, stdout=said.fileno()) as process:
        until = time.monotonic() + PATIENCE
        while not out.read_text().endswith("\n"):
            require_alive(process, until, "")
        yield Sink(json.loads(out.read_text())["url"], ledger, in_ledger)


def in_ledger(line: bytes) -> Entry | None:
    """The same for a line of the sandbox's ledger."""
    said = json.loads(line)
    if not said["accepted"]:
        return None
    return round(datetime.fromisoformat(said["at"]).timestamp() * 1000), said["id"]


@contextmanager
def running(
    command: list[str], folder: Path, stdout: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """A server of ours, ended when the block ends: asked first, killed if it does not obey."""
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=stdout)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        if process.returncode is None:
            process.kill()
            process.wait()


def environment(**more: str) -> dict[str, str]:
    """The environment of what is measured: this source tree, and no settings of the one who measures."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAILER_", "PYTHON"))}
    return kept | {"PYTHONPATH": str(ROOT)} | more


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[bytes], errors: Path) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        require_alive(process, until, errors.read_text() if errors.exists() else "")


def require_alive(process: subprocess.Popen[bytes], until: float, errors: str) -> None:
    """Wait a moment for it. Raises: RuntimeError when it has ended, or takes too long."""
    if process.poll() is not None or time.monotonic() > until:
        raise RuntimeError(f"a server does not listen: {errors.strip()[-500:]}")
    time.sleep(0.01)
