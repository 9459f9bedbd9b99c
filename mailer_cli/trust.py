"""How far one run trusts each text: as far as the gateway has taken it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import RowMapping

from mailer_cli.gateway import Answer
from mailer_cli.models import Outcome
from mailer_cli.outbox import Claimed

IN_A_ROW = 10  # refused, with none taken between: the text is put aside for this run


@dataclass
class _Text:
    taken: int = 0
    refused: int = 0  # in a row
    is_aside: bool = False

    def most(self, is_doubted: bool) -> int:
        """How many may be in flight: before any is taken what is left of ten, then one more for each, which
        doubles it with every round."""
        if self.is_aside:
            return 0
        if is_doubted and not self.taken:
            return 1
        return IN_A_ROW - self.refused + self.taken


@dataclass(frozen=True)
class Learnt:
    """What the answers of one turn say of mailings."""

    taken: list[int] = field(default_factory=list)  # the first of this run
    refused: list[int] = field(default_factory=list)  # ten in a row


class Trust:
    """What the answers of one run say of each text. Ten refused in a row are ten: nothing more of a text is
    in flight than may be lost."""

    def __init__(self) -> None:
        self._texts: dict[int, _Text] = defaultdict(_Text)

    def learn(self, ended: Iterable[tuple[Claimed, Answer]]) -> Learnt:
        learnt = Learnt()
        for claimed, answer in ended:
            text = self._texts[claimed.wording_id]
            if answer.outcome is Outcome.OK:
                text.taken, text.refused = text.taken + 1, 0
                if text.taken == 1:
                    learnt.taken.append(claimed.mailing_id)
            elif answer.outcome is Outcome.REJECTED:
                text.refused += 1
                if text.refused == IN_A_ROW and not text.is_aside:
                    text.is_aside = True
                    learnt.refused.append(claimed.mailing_id)
        return learnt

    def room(self, in_flight: Iterable[Claimed]) -> "Room":
        return Room(self._texts, Counter(each.wording_id for each in in_flight))


@dataclass(frozen=True)
class Room:
    """How many more of each mailing may be begun, beside what is in flight now."""

    texts: Mapping[int, _Text]
    in_flight: Mapping[int, int]

    def __call__(self, mailing: RowMapping) -> int:
        text = self.texts.get(mailing["wording_id"], UNHEARD)
        return text.most(mailing["refused_runs"] > 0) - self.in_flight.get(mailing["wording_id"], 0)


UNHEARD = _Text()
