"""Who gets a mailing: a filter becomes a SELECT, and the audience is fixed by one statement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    exists,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.orm import Mapped
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from mailer_cli import attributes, database, outbox
from mailer_cli.errors import DamagedRow, Invalid
from mailer_cli.models import Block, Client, Mailing, Message, MessageStatus, Tally

ID_EPOCH_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
FILTER_CHANGED = "filter changed"
"""The reason of messages that a narrowed filter cancelled; a widened one brings them back by it."""


@dataclass(frozen=True)
class Filter:
    """OR among the codes, OR among the tags, AND between the two; what is empty does not restrict."""

    operator_codes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def everyone(self) -> bool:
        return not (self.operator_codes or self.tags)

    def covers(self, other: "Filter") -> bool:
        """Whether everybody who matches the other filter matches this one, whoever the clients are."""
        return _covers(self.operator_codes, other.operator_codes) and _covers(self.tags, other.tags)

    def describes(self) -> ColumnElement[bool]:
        """The condition on `client` that its code and tag are in the filter."""
        found: ColumnElement[bool] = true()
        if self.operator_codes:
            found &= col(Client.operator_code).in_(self.operator_codes)
        if self.tags:
            found &= col(Client.tag).in_(self.tags)
        return found

    def matches(self) -> ColumnElement[bool]:
        """The condition on `client`: neither removed nor on the stop list, and in the filter."""
        blocked = col(Client.phone).in_(select(col(Block.phone)))  # looked for in the stop list's own tree
        return col(Client.removed_at).is_(None) & ~blocked & self.describes()


def _covers(wider: tuple[str, ...], narrower: tuple[str, ...]) -> bool:
    return not wider or (bool(narrower) and set(narrower) <= set(wider))


def choose(operator_codes: Sequence[str], tags: Sequence[str], *, everyone: bool) -> Filter:
    """The filter that an operator wrote, in his order and without repetitions.

    Raises: Invalid, also when it names nobody and not everybody: a forgotten option must not reach all.
    """
    wanted = Filter(
        tuple(dict.fromkeys(map(attributes.parse_code, operator_codes))),
        tuple(dict.fromkeys(map(checked_tag, tags))),
    )
    if wanted.everyone and not everyone:
        raise Invalid("no operator code and no tag is given", "add --all if every client is meant")
    if everyone and not wanted.everyone:
        raise Invalid("--all and a filter contradict each other", "leave one of them out")
    return wanted


def checked_tag(value: str) -> str:
    """A tag that somebody may have. Raises: Invalid."""
    tag = attributes.parse_tag(value)
    if not tag:
        raise Invalid("an empty tag matches nobody", "leave --tag out to take clients of any tag")
    return tag


def filter_of(connection: Connection, mailing_id: int) -> Filter:
    """Raises: DamagedRow for what may reach everyone and was not said to."""
    named = (col(Mailing.operator_codes), col(Mailing.tags), col(Mailing.everyone))
    row = connection.execute(select(*named).where(col(Mailing.id) == mailing_id)).one()
    found = Filter(row.operator_codes, row.tags)
    if found.everyone is not row.everyone:
        raise DamagedRow(f"mailing {mailing_id} has no filter, or two", "mailer db check")
    return found


def size(connection: Connection, wanted: Filter) -> int:
    """How many clients the filter matches now."""
    return connection.execute(select(func.count()).select_from(Client).where(wanted.matches())).scalar_one()


@dataclass(frozen=True)
class Breakdown:
    """Who would get a mailing now: pairs of a key and how many, the most first."""

    by_operator: tuple[tuple[str, int], ...]
    by_timezone: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        return sum(total for _, total in self.by_operator)


def break_down(connection: Connection, wanted: Filter) -> Breakdown:
    return Breakdown(
        _count_by(connection, wanted, col(Client.operator_code)),
        _count_by(connection, wanted, col(Client.timezone)),
    )


def _count_by(connection: Connection, wanted: Filter, key: Mapped[str]) -> tuple[tuple[str, int], ...]:
    statement = select(key, func.count()).where(wanted.matches()).group_by(key)
    return tuple(
        (name, total) for name, total in connection.execute(statement.order_by(func.count().desc(), key))
    )


def due(now: datetime, only: int | None = None) -> Select[int]:
    """Mailings whose time has come and whose audience is not fixed yet; `only` looks at one."""
    statement = select(col(Mailing.id)).where(_is_due(now))
    return statement if only is None else statement.where(col(Mailing.id) == only)


def _is_due(now: datetime) -> ColumnElement[bool]:
    return and_(
        col(Mailing.fixed_at).is_(None),
        col(Mailing.cancelled_at).is_(None),
        col(Mailing.removed_at).is_(None),
        col(Mailing.paused_at).is_(None),
        col(Mailing.start_at) <= now,
        col(Mailing.end_at) > now,
    )


@dataclass(frozen=True)
class Added:
    """How many messages were made, or brought back, that wait; and how many clients get none because the
    mailing was sent to their number already, or may have been."""

    waiting: int
    already_sent: int = 0


def fix(connection: Connection, mailing_id: int, now: datetime) -> int:
    """Fix the audience of a mailing whose time has come; how many messages were made.

    None are made when it is not due. Repeating makes none: a fixed audience grows only by `top_up`.
    """
    statement = update(Mailing).where(col(Mailing.id) == mailing_id, _is_due(now)).values(fixed_at=now)
    if connection.execute(statement).rowcount == 0:
        return 0
    return top_up(connection, mailing_id, now).waiting


def top_up(connection: Connection, mailing_id: int, now: datetime) -> Added:
    """Make a message for every client who matches and has none yet. Repeating is safe.

    Where the number has got the mailing under another client, or may have, the message is cancelled from the
    first; it comes back when the number is another, or the operator has said that nothing arrived there.

    Ids are never used again, not even after an old backup is restored: they begin at the clock's place,
    4,096 ids a millisecond, which no run can overtake, and stay below 2^53 until the year 2093.
    """
    wanted = filter_of(connection, mailing_id)
    database.reserve_message_ids(connection, _id_floor(now))
    its = col(Message.mailing_id) == mailing_id
    if connection.execute(select(col(Message.id)).where(its).limit(1)).first() is None:
        made = Added(_make(connection, mailing_id, wanted.matches(), now))
        outbox.fixed(connection, mailing_id, now)
        return made
    chosen = and_(wanted.matches(), ~exists().where(its, col(Message.client_id) == col(Client.id)))
    back = outbox.revive(connection, _its_clients(mailing_id, wanted.matches()), outbox.ALREADY_SENT, now)
    served = and_(chosen, outbox.served(mailing_id))
    already = _make(connection, mailing_id, served, now, outbox.ALREADY_SENT)
    made = Added(back + _make(connection, mailing_id, chosen, now), already)
    outbox.fixed(connection, mailing_id, now)
    return made


def _make(
    connection: Connection,
    mailing_id: int,
    clients: ColumnElement[bool],
    now: datetime,
    cancelled_for: str | None = None,
) -> int:
    """A message for each of these clients, waiting or cancelled for a reason; how many."""
    status = (MessageStatus.PENDING if cancelled_for is None else MessageStatus.CANCELLED).value
    values = {
        "mailing_id": literal(mailing_id),
        "client_id": col(Client.id),
        "status": literal(status),
        "reason": literal(cancelled_for),
        "timezone": col(Client.timezone),
        **dict.fromkeys(COUNTERS, literal(0)),
        **dict.fromkeys(("created_at", "due_at"), literal(now, UTCDateTime())),
    }
    chosen = select(*values.values()).where(clients).order_by(col(Client.id))
    statement = insert(Message).from_select(list(values), chosen, include_defaults=False)
    made = connection.execute(statement).rowcount
    _count(connection, mailing_id, status, made)
    return made


COUNTERS = ("attempts", "failures", "unknowns", "failures_forgiven", "unknowns_forgiven")


def refit(connection: Connection, mailing_id: int, old: Filter, now: datetime) -> tuple[int, Added]:
    """Let what waits and nobody can have got follow the mailing's filter; how many were cancelled and added.

    Tag and code changes of clients remove nobody, so a filter that only widens cancels nobody, also not
    him who has left it meanwhile; any other cancels whoever is not in it now. Whom an earlier filter
    had cancelled comes back under his old id.
    """
    new = filter_of(connection, mailing_id)
    cancelled = 0
    if not new.covers(old):
        free = and_(_its_clients(mailing_id, ~new.describes()), ~outbox.doubtful())
        cancelled = outbox.cancel(connection, free, FILTER_CHANGED)
    revived = outbox.revive(connection, _its_clients(mailing_id, new.matches()), FILTER_CHANGED, now)
    added = top_up(connection, mailing_id, now)
    return cancelled, replace(added, waiting=revived + added.waiting)


def _its_clients(mailing_id: int, clients: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition on `message` that it is of this mailing, to a client of whom that is so."""
    return and_(
        col(Message.mailing_id) == mailing_id,
        exists().where(col(Client.id) == col(Message.client_id), clients),
    )


def _id_floor(now: datetime) -> int:
    return (int(now.timestamp() * 1000) - ID_EPOCH_MS) << 12


def _count(connection: Connection, mailing_id: int, status: str, made: int) -> None:
    connection.execute(
        update(Tally)
        .where(col(Tally.mailing_id) == mailing_id, col(Tally.status) == status)
        .values(messages=col(Tally.messages) + made)
    )
