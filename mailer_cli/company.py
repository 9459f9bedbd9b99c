"""When the next turn begins: what is finished waits for company in its commit."""

import asyncio
import contextlib

LONGEST = 0.02  # seconds that anything waits for company
CROWD = 6  # a crowd is one in so many of the requests: more would leave too many slots free meanwhile


class Company:
    """What is finished, while it waits for a turn; a crowd does not wait."""

    def __init__(self) -> None:
        self._crowd = asyncio.Event()
        self._waits_until = 0.0

    def changed(self, finished: int, in_flight: int) -> None:
        """So many are finished, and so many are not."""
        if finished * CROWD >= finished + in_flight:
            self._crowd.set()
        else:
            self._crowd.clear()

    def turned(self) -> None:
        """A turn is over."""
        self._waits_until = asyncio.get_running_loop().time() + LONGEST

    async def gather(self, has_hurry: bool) -> None:
        """Until there is a crowd, or LONGEST after the last turn; without hurry as long as may be."""
        rest = self._waits_until - asyncio.get_running_loop().time()
        if not has_hurry:
            await asyncio.sleep(LONGEST)
        elif rest > 0 and not self._crowd.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._crowd.wait()
        else:
            await asyncio.sleep(0)
