"""Being wary after faults: which mailings and operators a claim passes over, and whom it asks first.

A message belongs to three scopes: its mailing, its operator, and its operator within the mailing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, Select, bindparam, func, select, tuple_
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli.database.rows import numbers, packed_numbers
from mailer_cli.models import Client, Message
from mailer_cli.outbox.close import PENDING

SUSPECT = 5  # faults in a row: from then on one request a run, until an OK
PAGE = 500  # messages that are looked at in one go
MOST = 5000  # of a mailing in one claim; the next one goes on from there
HEAD, PLACES = 100, 50  # messages that a probe chooses from: at the head of the queue, and spread over it
BEGINNING = (datetime(1, 1, 1, tzinfo=UTC), 0)

Scope = tuple[int, str]
"""A mailing and an operator code; 0 is any mailing, and an empty code any operator."""


def scopes(mailing_id: int, operator_code: str) -> tuple[Scope, ...]:
    if not operator_code:  # nobody knows it any more
        return ((mailing_id, ""),)
    return (mailing_id, ""), (0, operator_code), (mailing_id, operator_code)


@dataclass(frozen=True)
class Blame:
    """Faults of a scope in a row, with no OK of it between."""

    faults: int
    since_at: datetime
    failed_at: datetime  # the last one


@dataclass
class Wary:
    """What one claim knows of faults. `probed` and `passed` are kept for the next one of the run."""

    blamed: Mapping[Scope, Blame] = field(default_factory=dict)
    is_probe: bool = False  # it is for one message, that of the scopes which failed longest ago
    unheard_only: bool = False  # only mailings in which nothing has failed
    newest_first: bool = False  # of mailings that have failed alike the newest, else the one whose turn it is
    probed: set[Scope] = field(default_factory=set)  # suspects that had their request of this run
    passed: dict[tuple[int, str | None], "Passed"] = field(default_factory=dict)
    is_cut: bool = False  # there may be more behind what it has looked at
    _operators: dict[int, str] = field(default_factory=dict)  # of the messages that it has offered

    def __post_init__(self) -> None:
        self.suspects = {scope for scope, blame in self.blamed.items() if blame.faults >= SUSPECT}
        self.probed &= self.suspects

    def room(self, mailing_id: int, chosen: int) -> int:
        """How many of the mailing may be chosen; one as long as it is suspect."""
        if (mailing_id, "") not in self.suspects:
            return MOST
        return 0 if (mailing_id, "") in self.probed else 1 - chosen

    def order(self, mailing_id: int) -> tuple[list[datetime], int]:
        """By which a probe goes through the mailings, so far in the order of their turns."""
        return self.blame_of(mailing_id), -mailing_id if self.newest_first else 0

    def knows_of(self, mailing_id: int) -> bool:
        """Whether some operator is to be passed over in this mailing."""
        return any(operator for mailing, operator in self.suspects if mailing in (0, mailing_id))

    def took(self, mailing_id: int, message_id: int) -> None:
        """The message was chosen: it is the request of this run for all suspects that it belongs to."""
        operator = self._operators.get(message_id, "")
        self.probed |= self.suspects & set(scopes(mailing_id, operator))

    def due(self, connection: Connection, mailing_id: int, zone: str | None, now: datetime) -> Iterator[int]:
        """Due messages in their order, without those of suspect operators that had their request."""
        shunned = self._shunned(mailing_id)
        place = self._place(mailing_id, zone, shunned)
        is_head, looked = True, 0
        while looked < MOST:
            rows = page(connection, mailing_id, zone, place, now)
            for message_id, due_at, operator in rows:
                place = due_at, message_id
                if operator in shunned and operator in self._shunned(mailing_id):
                    if is_head:
                        self.passed[mailing_id, zone] = Passed(frozenset(shunned), place)
                    continue
                is_head = False
                self._operators[message_id] = operator
                yield message_id
            looked += PAGE
            if len(rows) < PAGE:
                return
        self.is_cut = True

    def _shunned(self, mailing_id: int) -> set[str]:
        return {operator for mailing, operator in self.probed if operator and mailing in (0, mailing_id)}

    def _place(self, mailing_id: int, zone: str | None, shunned: set[str]) -> tuple[datetime, int]:
        """Where to begin: behind what was passed over for the same reasons."""
        passed = self.passed.get((mailing_id, zone))
        return passed.place if passed and passed.shunned <= shunned else BEGINNING

    def blame_of(self, mailing_id: int, operator: str | None = None) -> list[datetime]:
        """When the mailing, or the operator in it, has failed; empty when it has not."""
        ours = [(mailing_id, "")] if operator is None else [(0, operator), (mailing_id, operator)]
        return (
            [max(self.blamed[scope].failed_at for scope in ours if scope in self.blamed)]
            if (any(scope in self.blamed for scope in ours))
            else []
        )

    def least_blamed(
        self, connection: Connection, mailing_id: int, zones: Sequence[str | None], now: datetime
    ) -> "Candidate | None":
        """The message of a mailing to be asked about: of what has failed least, or longest ago."""
        mine, best = self.blame_of(mailing_id), None
        for zone in zones:
            for message_id, operator in sample(connection, mailing_id, zone, now):
                if self.probed & set(scopes(mailing_id, operator)):
                    continue
                self._operators[message_id] = operator
                failed = sorted(mine + self.blame_of(mailing_id, operator), reverse=True)
                found = Candidate((len(failed), failed), mailing_id, message_id)
                if best is None or found.blame < best.blame:
                    best = found
                if len(failed) == len(mine):
                    return best  # nothing of this mailing can be better
        return best


@dataclass(frozen=True)
class Passed:
    """The place in a mailing's queue up to which all belongs to these operators."""

    shunned: frozenset[str]
    place: tuple[datetime, int]


@dataclass(frozen=True)
class Candidate:
    """A message that may be asked about; how often its scopes have failed, and when."""

    blame: tuple[int, list[datetime]]
    mailing_id: int
    message_id: int


_WAITING: Select[int, datetime, str] = (
    select(col(Message.id), col(Message.due_at), col(Client.operator_code))
    .join(Client, col(Client.id) == col(Message.client_id))
    .where(
        col(Message.mailing_id) == bindparam("mailing"),
        PENDING,
        col(Message.due_at) <= bindparam("now", type_=UTCDateTime()),
        tuple_(col(Message.due_at), col(Message.id))
        > tuple_(bindparam("due", type_=UTCDateTime()), bindparam("after", type_=BigInteger())),
    )
    .order_by(col(Message.due_at), col(Message.id))
    .limit(bindparam("count"))
)
_ZONE = col(Message.timezone) == bindparam("zone")


def page(
    connection: Connection,
    mailing_id: int,
    zone: str | None,
    after: tuple[datetime, int],
    now: datetime,
    count: int = PAGE,
) -> Sequence[Row[int, datetime, str]]:
    """Due messages behind this place, each with when it is due and its operator."""
    due, last = after
    given = {"mailing": mailing_id, "now": now, "due": due, "after": last, "count": count, "zone": zone}
    return connection.execute(_WAITING if zone is None else _WAITING.where(_ZONE), given).all()


def sample(
    connection: Connection, mailing_id: int, zone: str | None, now: datetime
) -> Iterator[tuple[int, str]]:
    """Due messages from the head of the queue, then some spread evenly over what is due at the same moment:
    a list is often in the order of its operators."""
    head = page(connection, mailing_id, zone, BEGINNING, now, HEAD)
    yield from ((message_id, operator) for message_id, _, operator in head)
    if len(head) < HEAD:
        return
    given: dict[str, Any] = {"mailing": mailing_id, "due": head[-1].due_at, "zone": zone}
    alike = _ALIKE if zone is None else (*_ALIKE, _ZONE)
    first = head[-1].id
    last = connection.execute(select(func.max(col(Message.id))).where(*alike), given).scalar() or first
    nearest = (
        _OPERATOR.where(*alike, col(Message.id) >= bindparam("place")).order_by(col(Message.id)).limit(1)
    )
    for place in range(first + 1, last + 1, max(1, (last - first) // PLACES)):
        if found := connection.execute(nearest, given | {"place": place}).first():
            yield found.id, found.operator_code


_ALIKE = (
    col(Message.mailing_id) == bindparam("mailing"),
    PENDING,
    col(Message.due_at) == bindparam("due", type_=UTCDateTime()),
)
_OPERATOR = select(col(Message.id), col(Client.operator_code)).join(
    Client, col(Client.id) == col(Message.client_id)
)
_OPERATORS = _OPERATOR.where(col(Message.id).in_(numbers("ids")))


def operators(connection: Connection, message_ids: Sequence[int]) -> dict[int, str]:
    """The operator of the client of each message."""
    found = connection.execute(_OPERATORS, {"ids": packed_numbers(message_ids)})
    return {row.id: row.operator_code for row in found}
