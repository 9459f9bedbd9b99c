"""The rate: when the next requests may start, so that no second sees more than the rate allows."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mailer_cli.errors import DamagedRow

LEAD = timedelta(milliseconds=50)  # claimed ahead of its moment; what a stall makes late comes as one crowd
MARGIN = 1.04  # requests of several runs start a little late, and must not crowd the next second
MOST_AHEAD = timedelta(seconds=10)  # no run claims for a moment further ahead


@dataclass(frozen=True)
class Lead:
    """How far ahead of their moments requests are claimed: as long as it takes until they can start, by the
    commit and the connection of those before, and somewhat more."""

    ahead: timedelta = timedelta(0)  # no moment is sooner
    reach: timedelta = LEAD  # nor later than that and so much


AT_ONCE = Lead()


@dataclass
class Pace:
    """Evenly spaced moments after `next_free_at`; `rate` None is no limit.

    What lies further ahead than one request can have put it was written by a clock that was ahead, or for a
    lower rate, and holds nothing back.
    """

    rate: float | None
    next_free_at: datetime | None
    now: datetime
    lead: Lead = AT_ONCE
    moment: datetime = field(init=False)  # when the next request may start
    taken: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.rate is not None and not self.rate > 0:
            raise DamagedRow("a rate is not above 0", "mailer db check")
        self.moment = self.now
        if self.rate is not None:
            self.moment += self.lead.ahead
            farthest = self.now + MOST_AHEAD + self._spacing(self.rate)
            if self.next_free_at is not None and self.moment < self.next_free_at <= farthest:
                self.moment = self.next_free_at

    @property
    def is_free(self) -> bool:
        """Whether a request may be claimed now, to start as soon as it can or a little later."""
        return self.rate is None or self.moment <= self.now + self.lead.ahead + self.lead.reach

    @property
    def free_at(self) -> datetime:
        """When a third of the reach is free again: worth a claim, and early enough for it."""
        return self.moment - self.lead.ahead - self.lead.reach * 2 / 3

    @property
    def next_free(self) -> datetime | None:
        """What is to be stored as `next_free_at`."""
        return self.moment if self.rate is not None and self.taken else self.next_free_at

    def take(self, moment: datetime) -> None:
        """Use up one request that starts at `moment`."""
        self.taken += 1
        if self.rate is not None:
            self.moment = moment + self._spacing(self.rate)

    @staticmethod
    def _spacing(rate: float) -> timedelta:
        return timedelta(seconds=MARGIN / rate)
