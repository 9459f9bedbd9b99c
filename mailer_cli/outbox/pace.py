"""The rate: when the next requests may start, so that no second sees more than the rate allows."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

LEAD = timedelta(milliseconds=50)  # claimed ahead of its moment; what a stall makes late comes as one crowd
MARGIN = 1.04  # requests of several runs start a little late, and must not crowd the next second


@dataclass
class Pace:
    """Evenly spaced moments after `next_free_at`; `rate` None is no limit."""

    rate: float | None
    next_free_at: datetime | None
    now: datetime
    taken: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._next = max(self.now, self.next_free_at or self.now)

    @property
    def is_free(self) -> bool:
        """Whether a request may be claimed now, to start at once or within LEAD."""
        return self.rate is None or self._next <= self.now + LEAD

    @property
    def free_at(self) -> datetime:
        """When `is_free` turns true again."""
        return self._next - LEAD

    @property
    def moment(self) -> datetime:
        """When the next request may start."""
        return self._next

    def take(self, moment: datetime) -> None:
        """Use up one request that starts at `moment`."""
        self.taken += 1
        if self.rate is not None:
            self._next = moment + timedelta(seconds=MARGIN / self.rate)
