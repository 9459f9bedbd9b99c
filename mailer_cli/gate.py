"""One request after the other, at its moment and as the rate allows, inside one run."""

import asyncio
from collections import deque

JITTER = 0.01  # seconds by which requests may draw together on their way


class Gate:
    """Lets requests start at their moments, and in no second more of them than the rate allows: what is
    late does not crowd what follows."""

    def __init__(self, rate: float) -> None:
        self._room = max(1, int(rate))
        self._span = self._room / rate + JITTER
        self._starts: deque[float] = deque(maxlen=self._room)
        self._turn = asyncio.Lock()

    async def pass_through(self, wait: float) -> None:
        """Wait so many seconds, and until the rate has room."""
        loop = asyncio.get_running_loop()
        moment = loop.time() + wait
        async with self._turn:
            if len(self._starts) == self._room:
                moment = max(moment, self._starts[0] + self._span)
            if (delay := moment - loop.time()) > 0:
                await asyncio.sleep(delay)
            self._starts.append(loop.time())
