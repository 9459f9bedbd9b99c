"""The tables and the closed sets of words in them; no queries.

Times are aware UTC. A phone is an integer of eleven digits that begins with 7. A client is always a person.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Dialect,
    Index,
    Integer,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

SQLModel.metadata.naming_convention = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_unique",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_name)s_fk",
        "pk": "%(table_name)s_pk",
    }
).naming_convention


class MessageStatus(StrEnum):
    """A message's state; the last five are final until an operator says otherwise."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class MailingStatus(StrEnum):
    """A mailing's state; never stored, derived by `mailings.status_of` alone."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class MailingTurn(StrEnum):
    """When a mailing of which something waits is to be looked at. Only a claim that has looked says anything
    but `now`, in its own transaction; whatever may let something go earlier says `now` again."""

    NOW = "now"
    HELD = "held"  # something is due, and its own rate holds it back until `next_due_at`
    LATER = "later"  # nothing goes before `next_due_at`


class Outcome(StrEnum):
    """How one attempt ended; an attempt without one is in flight, or its run is dead."""

    OK = "ok"
    LATE_OK = "late_ok"  # OK, but after the attempt had been given up as unknown
    NOT_SENT = "not_sent"
    BUSY = "busy"
    TEMPORARY = "temporary"
    REJECTED = "rejected"
    CONFIG = "config"
    SERVER = "server"  # a 5xx in the rows of old versions; it is UNKNOWN now
    UNKNOWN = "unknown"
    RELEASED = "released"  # claimed, never started, given back

    @property
    def is_ok(self) -> bool:
        return self in (Outcome.OK, Outcome.LATE_OK)


FAILURES = (Outcome.TEMPORARY, Outcome.REJECTED, Outcome.SERVER)
"""Outcomes that move a message's `failures`."""

UNKNOWNS = (Outcome.UNKNOWN, Outcome.LATE_OK)
"""Outcomes that moved a message's `unknowns`."""

MAYBE_TAKEN = (Outcome.SERVER, Outcome.UNKNOWN)
"""Outcomes after which the gateway may have taken the message although no OK was seen."""


class Words(TypeDecorator[tuple[str, ...]]):
    """A tuple of strings kept as a JSON array, in the order given; `[]` when there is none."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:
        import json

        return None if value is None else json.dumps(list(value), ensure_ascii=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...] | None:
        import json

        words = None if value is None else json.loads(value)
        if words is not None and not (
            isinstance(words, list) and all(isinstance(each, str) for each in words)
        ):
            raise ValueError("not an array of words")
        return None if words is None else tuple(words)


BigId = BigInteger().with_variant(Integer(), "sqlite")  # only INTEGER may be AUTOINCREMENT in SQLite


def _one_of(column: str, words: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _partly(name: str, *columns: str, where: str) -> Index:
    """An index of the rows that meet a condition; a query has to say it in the same words to use it."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


GOING = "paused_at IS NULL AND cancelled_at IS NULL AND removed_at IS NULL"
STOPPED = "(cancelled_at IS NOT NULL OR removed_at IS NOT NULL)"


class Client(SQLModel, table=True):
    """A person. A removed one keeps its row, without the phone, so that statistics remain true."""

    __table_args__ = (
        CheckConstraint("phone BETWEEN 70000000000 AND 79999999999", name="phone_shape"),
        CheckConstraint("(phone IS NULL) = (removed_at IS NOT NULL)", name="removed_has_no_phone"),
        CheckConstraint("length(operator_code) = 3", name="operator_code_shape"),
        {"sqlite_autoincrement": True},
    )
    id: int = Field(primary_key=True, sa_type=BigId)
    phone: int | None = Field(sa_type=BigInteger, unique=True)
    operator_code: str = Field(sa_type=Text)
    tag: str = Field(default="", sa_type=Text)
    timezone: str = Field(sa_type=Text)
    created_at: datetime
    updated_at: datetime
    removed_at: datetime | None = None


class Block(SQLModel, table=True):
    """The stop list. Kept by phone, so that removing and importing a client again does not lift it."""

    __table_args__ = (CheckConstraint("phone BETWEEN 70000000000 AND 79999999999", name="phone_shape"),)
    phone: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    blocked_at: datetime


class Wording(SQLModel, table=True):
    """A text as it is sent, never changed: a mailing points at its present one, a message at the one
    of its latest attempt."""

    __table_args__ = (CheckConstraint("text <> ''", name="text_not_empty"), {"sqlite_autoincrement": True})
    id: int = Field(primary_key=True, sa_type=BigId)
    text: str = Field(sa_type=Text)


class Mailing(SQLModel, table=True):
    """What is sent, to whom and when. Window bounds are minutes of the client's local day, 0 to 1439."""

    __table_args__ = (
        CheckConstraint("end_at > start_at", name="end_after_start"),
        CheckConstraint("everyone = (operator_codes = '[]' AND tags = '[]')", name="filter_or_everyone"),
        CheckConstraint("(window_from IS NULL) = (window_to IS NULL)", name="window_whole"),
        CheckConstraint(
            "window_from BETWEEN 0 AND 1439 AND window_to BETWEEN 0 AND 1439", name="window_range"
        ),
        CheckConstraint("window_from <> window_to", name="window_not_empty"),
        CheckConstraint("rate > 0", name="rate_positive"),
        _partly("mailing_starts", "start_at", "end_at", where=f"fixed_at IS NULL AND {GOING}"),
        _partly("mailing_ring", "priority", "id", where=f"turn = 'now' AND {GOING}"),
        _partly("mailing_sleepers", "turn", "next_due_at", where=f"turn <> 'now' AND {GOING}"),
        _partly("mailing_ends", "end_at", where="turn IS NOT NULL"),
        _partly("mailing_stopped", "id", where=f"turn IS NOT NULL AND {STOPPED}"),
        {"sqlite_autoincrement": True},
    )
    id: int = Field(primary_key=True, sa_type=BigId)
    wording_id: int = Field(foreign_key="wording.id", sa_type=BigInteger)
    start_at: datetime
    end_at: datetime
    operator_codes: tuple[str, ...] = Field(default=(), sa_type=Words)
    tags: tuple[str, ...] = Field(default=(), sa_type=Words)
    everyone: bool = False
    window_from: int | None = None
    window_to: int | None = None
    rate: float | None = None
    next_free_at: datetime | None = None  # its own rate: no request of it starts before
    priority: int = 0
    fixed_at: datetime | None = None  # when its audience was fixed
    paused_at: datetime | None = None
    cancelled_at: datetime | None = None
    removed_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    purged_at: datetime | None = None  # since then its messages are deleted, and only its tally is kept
    # runs in a row that were refused ten of its messages in a row
    refused_runs: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    turn: MailingTurn | None = Field(default=None, sa_type=Text)  # None: nothing of it waits
    next_due_at: datetime | None = None  # unless it is its turn now, nothing of it goes before
    restored_at: datetime | None = None  # out of a backup, and nobody has said yet what was sent since that


class Run(SQLModel, table=True):
    """One dispatch that had something to do. Alive as long as it holds the lock on its id; without
    `ended_at` and without the lock it is dead, and the next run recovers what it owned."""

    __table_args__ = {"sqlite_autoincrement": True}
    id: int = Field(primary_key=True, sa_type=BigId)
    host: str = Field(sa_type=Text)
    pid: int
    started_at: datetime
    ended_at: datetime | None = None
    stopped: str | None = Field(default=None, sa_type=Text)
    claimed: int = 0
    sent: int = 0
    failed: int = 0
    deferred: int = 0
    unknown: int = 0
    expired: int = 0
    repeats: int = 0
    turns: int = Field(default=0, sa_column_kwargs={"server_default": "0"})  # that it has committed


class Message(SQLModel, table=True):
    """One message to one client. Phone and wording are what the latest attempt carried, empty before the
    first. Once an attempt may have been taken they and the zone are fixed for all repeats; until then each
    attempt takes the client's phone and the mailing's wording, and the zone follows the client."""

    __table_args__ = (
        UniqueConstraint("mailing_id", "client_id"),
        _one_of("status", MessageStatus),
        CheckConstraint("(status = 'sending') = (run_id IS NOT NULL)", name="owned_while_sending"),
        CheckConstraint("(status = 'sent') = (sent_at IS NOT NULL)", name="sent_has_time"),
        CheckConstraint(
            "attempts = 0 OR (phone IS NOT NULL AND wording_id IS NOT NULL)", name="tried_is_fixed"
        ),
        CheckConstraint(
            "failures >= 0 AND unknowns >= 0 AND failures + unknowns <= attempts", name="counters"
        ),
        _partly("message_due", "mailing_id", "timezone", "due_at", "id", where="status = 'pending'"),
        _partly("message_turn", "mailing_id", "due_at", "id", where="status = 'pending'"),
        _partly("message_number", "mailing_id", "phone", where="phone IS NOT NULL"),
        {"sqlite_autoincrement": True},
    )
    id: int = Field(primary_key=True, sa_type=BigId)
    mailing_id: int = Field(foreign_key="mailing.id", sa_type=BigInteger)
    client_id: int = Field(foreign_key="client.id", sa_type=BigInteger)
    status: MessageStatus = Field(default=MessageStatus.PENDING, sa_type=Text)
    reason: str | None = Field(default=None, sa_type=Text)
    timezone: str = Field(sa_type=Text)
    phone: int | None = Field(default=None, sa_type=BigInteger)
    wording_id: int | None = Field(default=None, foreign_key="wording.id", sa_type=BigInteger)
    run_id: int | None = Field(default=None, foreign_key="run.id", sa_type=BigInteger)
    attempts: int = 0
    failures: int = 0
    unknowns: int = 0
    failures_forgiven: int = 0  # what an operator's retry took off the limits
    unknowns_forgiven: int = 0
    created_at: datetime
    due_at: datetime
    sent_at: datetime | None = None


class Attempt(SQLModel, table=True):
    """One handing of a message to the gateway; written, open, before the first byte goes out."""

    __table_args__ = (
        _one_of("outcome", Outcome),
        CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="ended_has_outcome"),
        CheckConstraint("number > 0", name="number_positive"),
        _partly("attempt_open", "run_id", where="outcome IS NULL"),
        {"sqlite_with_rowid": False},
    )
    message_id: int = Field(foreign_key="message.id", primary_key=True, sa_type=BigInteger)
    number: int = Field(primary_key=True)
    run_id: int = Field(foreign_key="run.id", sa_type=BigInteger)
    started_at: datetime
    ended_at: datetime | None = None
    outcome: Outcome | None = Field(default=None, sa_type=Text)
    http_status: int | None = None
    code: int | None = Field(default=None, sa_type=BigInteger)
    error: str | None = Field(default=None, sa_type=Text)


class Resolution(SQLModel, table=True):
    """What an operator found out about a message whose fate the program could not know."""

    __table_args__ = (
        CheckConstraint("status IN ('sent', 'failed')", name="status_known"),
        {"sqlite_autoincrement": True},
    )
    id: int = Field(primary_key=True, sa_type=BigId)
    message_id: int = Field(foreign_key="message.id", index=True, sa_type=BigInteger)
    status: MessageStatus = Field(sa_type=Text)
    resolved_at: datetime


class Tally(SQLModel, table=True):
    """How many messages of a mailing are in each status. Kept equal to the rows in the transaction that
    changes them: by a trigger when a status changes, by `audience` when messages are made. The messages
    of a purged mailing are counted for good."""

    __table_args__ = (CheckConstraint("messages >= 0", name="messages_counted"), {"sqlite_with_rowid": False})
    mailing_id: int = Field(foreign_key="mailing.id", primary_key=True, sa_type=BigInteger)
    status: MessageStatus = Field(primary_key=True, sa_type=Text)
    messages: int = Field(sa_type=BigInteger)


class GatewayState(SQLModel, table=True):
    """The one row that every run shares: the rate, the breaker, the gateway's wish to be left alone,
    and what was last said about it."""

    __tablename__ = "gateway"
    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        CheckConstraint("faults >= 0", name="faults_counted"),
    )
    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    next_free_at: datetime | None = None
    busy_until: datetime | None = None
    faults: int = 0  # gateway-wide faults in a row with no OK between
    opened_at: datetime | None = None  # the breaker is open since
    said: str | None = Field(default=None, sa_type=Text)  # what the last warning was about
    said_at: datetime | None = None
    looked_at: datetime | None = None  # the latest moment by which a claim has let a mailing sleep
    served: int | None = Field(default=None, sa_type=BigInteger)  # the mailing that was served last
    failed_at: datetime | None = None  # the last fault of any message
    ok_at: datetime | None = None  # when a request was begun that got its OK; not moved while all is well


class Fault(SQLModel, table=True):
    """A mailing (or 0, any) and an operator code (or '', any) of which messages have failed in a row, with no
    OK between. No row is here while all is well."""

    __table_args__ = (CheckConstraint("faults > 0", name="faults_counted"), {"sqlite_with_rowid": False})
    mailing_id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    operator_code: str = Field(primary_key=True, sa_type=Text)
    faults: int
    since_at: datetime
    failed_at: datetime


class Notice(SQLModel, table=True):
    """What was last said to the operator about a subject, and is so still."""

    subject: str = Field(primary_key=True, sa_type=Text)
    words: str = Field(sa_type=Text)
    said_at: datetime
