"""The gateway's client as shipped, with so many requests in flight, and nothing recorded: what the queue and
its database take from a dispatch is what this has more.

`python -m benchmarks.bare_client URL MESSAGES IN_FLIGHT` prints how many were taken.
"""

import asyncio
import random
import sys
from datetime import UTC, datetime

from benchmarks.ours import TEXT
from benchmarks.sink import JWT
from mailer_cli.gateway.client import Gateway
from mailer_cli.models import Outcome

LIMIT = 30.0  # seconds for each, as in a dispatch


async def send_all(url: str, messages: int, in_flight: int) -> int:
    gateway = Gateway(
        url,
        JWT,
        timeout=LIMIT,
        concurrency=in_flight,
        clock=lambda: datetime.now(UTC),
        random=random.random,
    )
    numbers, taken = iter(range(1, messages + 1)), 0

    async def one_by_one() -> None:
        nonlocal taken
        for number in numbers:
            answer = await gateway.send(number, 79_000_000_000 + number, TEXT, limit=LIMIT)
            taken += answer.outcome is Outcome.OK

    async with gateway:
        await asyncio.gather(*(one_by_one() for _ in range(in_flight)))
    return taken


if __name__ == "__main__":
    address, messages, in_flight = sys.argv[1:]
    print(asyncio.run(send_all(address, int(messages), int(in_flight))))
