"""dramatiq with Redis over a local socket: two processes of eight threads, its own defaults otherwise."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import records

PROCESSES, THREADS = 2, 8
PATIENCE = 20.0  # seconds for the workers to end

broker = RedisBroker(url=f"unix://{Path.cwd() / 'redis.sock'}")
dramatiq.set_broker(broker)


@dramatiq.actor
def deliver(message_id: int, phone: int) -> None:
    records.deliver(message_id, phone)


def prepare(folder: Path, messages: int) -> None:
    records.create(folder, messages)
    for number, phone in records.phones(messages):
        deliver.send(number, phone)


def work() -> None:
    options = ["--processes", str(PROCESSES), "--threads", str(THREADS)]
    command = [sys.executable, "-m", "dramatiq", *options, "benchmarks.peers.dramatiq_redis"]
    with subprocess.Popen(command, process_group=0) as workers:
        records.wait_for_all(Path.cwd())
        workers.terminate()
        try:
            workers.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # Redis has gone with the one who measures
            os.killpg(workers.pid, signal.SIGKILL)


if __name__ == "__main__":
    records.main(prepare, work)
