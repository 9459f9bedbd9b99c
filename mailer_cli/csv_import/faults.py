"""What is wrong with rows: each by its line, and all of them summed up by their kind."""

from collections.abc import Sequence
from dataclasses import dataclass, field

SHOWN = 10  # rejects shown to people
KEPT = 1_000  # and to programs; the rejects file has all
OTHERS = "other reasons"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a row: the whole reason; what it has in common with others; what to write."""

    reason: str
    kind: str
    hint: str | None = None


@dataclass(frozen=True)
class Reject:
    line: int
    fault: Fault


@dataclass
class Kind:
    """All rows with the same fault; the first of them is the example."""

    fault: Fault
    line: int
    rows: int = 0


@dataclass
class Faults:
    """How many rows were rejected, why, and the first of them."""

    total: int = 0
    first: list[Reject] = field(default_factory=list)
    kinds: dict[str, Kind] = field(default_factory=dict)

    def add(self, rejects: Sequence[Reject]) -> None:
        self.total += len(rejects)
        self.first += rejects[: KEPT - len(self.first)]
        for each in rejects:
            name = each.fault.kind
            if name not in self.kinds and len(self.kinds) >= KEPT:
                name = OTHERS
            self.kinds.setdefault(name, Kind(each.fault, each.line)).rows += 1

    def by_kind(self) -> list[Kind]:
        """The most frequent first."""
        return sorted(self.kinds.values(), key=lambda each: (-each.rows, each.line))
