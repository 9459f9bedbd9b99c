"""Huey with its queue in SQLite: one consumer, eight worker threads, its own defaults otherwise."""

import threading
from pathlib import Path

from huey import SqliteHuey

from benchmarks.peers import records

huey = SqliteHuey(filename="huey.db")


@huey.task()
def deliver(message_id: int, phone: int) -> None:
    records.deliver(message_id, phone)


def prepare(folder: Path, messages: int) -> None:
    records.create(folder, messages)
    for number, phone in records.phones(messages):
        deliver(number, phone)


def work() -> None:
    consumer = huey.create_consumer(workers=8, worker_type="thread", periodic=False)

    def stop_when_done() -> None:
        records.wait_for_all(Path.cwd())
        consumer.stop(graceful=True)

    threading.Thread(target=stop_when_done).start()
    consumer.run()


if __name__ == "__main__":
    records.main(prepare, work)
