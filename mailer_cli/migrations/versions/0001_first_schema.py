"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

STATUSES = ("pending", "sending", "sent", "failed", "unknown", "expired", "cancelled")


def upgrade() -> None:
    op.create_table(
        "block",
        sa.Column("phone", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("blocked_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("phone BETWEEN 70000000000 AND 79999999999", name=op.f("block_phone_shape")),
        sa.PrimaryKeyConstraint("phone", name=op.f("block_pk")),
    )
    op.create_table(
        "client",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("phone", sa.BigInteger(), nullable=True),
        sa.Column("operator_code", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(phone IS NULL) = (removed_at IS NOT NULL)", name=op.f("client_removed_has_no_phone")
        ),
        sa.CheckConstraint("length(operator_code) = 3", name=op.f("client_operator_code_shape")),
        sa.CheckConstraint("phone BETWEEN 70000000000 AND 79999999999", name=op.f("client_phone_shape")),
        sa.PrimaryKeyConstraint("id", name=op.f("client_pk")),
        sa.UniqueConstraint("phone", name=op.f("client_phone_unique")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "gateway",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_free_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("busy_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("faults", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("said", sa.Text(), nullable=True),
        sa.Column("said_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("faults >= 0", name=op.f("gateway_faults_counted")),
        sa.CheckConstraint("id = 1", name=op.f("gateway_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("gateway_pk")),
    )
    op.create_table(
        "run",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stopped", sa.Text(), nullable=True),
        sa.Column("claimed", sa.Integer(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("deferred", sa.Integer(), nullable=False),
        sa.Column("unknown", sa.Integer(), nullable=False),
        sa.Column("expired", sa.Integer(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("run_pk")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "wording",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.CheckConstraint("text <> ''", name=op.f("wording_text_not_empty")),
        sa.PrimaryKeyConstraint("id", name=op.f("wording_pk")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "mailing",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("wording_id", sa.BigInteger(), nullable=False),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("operator_codes", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("everyone", sa.Boolean(), nullable=False),
        sa.Column("window_from", sa.Integer(), nullable=True),
        sa.Column("window_to", sa.Integer(), nullable=True),
        sa.Column("rate", sa.Float(), nullable=True),
        sa.Column("next_free_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("fixed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "everyone = (operator_codes = '[]' AND tags = '[]')", name=op.f("mailing_filter_or_everyone")
        ),
        sa.CheckConstraint("(window_from IS NULL) = (window_to IS NULL)", name=op.f("mailing_window_whole")),
        sa.CheckConstraint("end_at > start_at", name=op.f("mailing_end_after_start")),
        sa.CheckConstraint("rate > 0", name=op.f("mailing_rate_positive")),
        sa.CheckConstraint("window_from <> window_to", name=op.f("mailing_window_not_empty")),
        sa.CheckConstraint(
            "window_from BETWEEN 0 AND 1439 AND window_to BETWEEN 0 AND 1439",
            name=op.f("mailing_window_range"),
        ),
        sa.ForeignKeyConstraint(["wording_id"], ["wording.id"], name=op.f("mailing_wording_id_fk")),
        sa.PrimaryKeyConstraint("id", name=op.f("mailing_pk")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "message",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("mailing_id", sa.BigInteger(), nullable=False),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("phone", sa.BigInteger(), nullable=True),
        sa.Column("wording_id", sa.BigInteger(), nullable=True),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("unknowns", sa.Integer(), nullable=False),
        sa.Column("failures_forgiven", sa.Integer(), nullable=False),
        sa.Column("unknowns_forgiven", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'sending') = (run_id IS NOT NULL)", name=op.f("message_owned_while_sending")
        ),
        sa.CheckConstraint("(status = 'sent') = (sent_at IS NOT NULL)", name=op.f("message_sent_has_time")),
        sa.CheckConstraint(
            "status IN ('pending', 'sending', 'sent', 'failed', 'unknown', 'expired', 'cancelled')",
            name=op.f("message_status_known"),
        ),
        sa.CheckConstraint(
            "attempts = 0 OR (phone IS NOT NULL AND wording_id IS NOT NULL)",
            name=op.f("message_tried_is_fixed"),
        ),
        sa.CheckConstraint(
            "failures >= 0 AND unknowns >= 0 AND failures + unknowns <= attempts",
            name=op.f("message_counters"),
        ),
        sa.ForeignKeyConstraint(["client_id"], ["client.id"], name=op.f("message_client_id_fk")),
        sa.ForeignKeyConstraint(["mailing_id"], ["mailing.id"], name=op.f("message_mailing_id_fk")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("message_run_id_fk")),
        sa.ForeignKeyConstraint(["wording_id"], ["wording.id"], name=op.f("message_wording_id_fk")),
        sa.PrimaryKeyConstraint("id", name=op.f("message_pk")),
        sa.UniqueConstraint("mailing_id", "client_id", name=op.f("message_mailing_id_client_id_unique")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "message_due",
        "message",
        ["mailing_id", "timezone", "due_at", "id"],
        unique=False,
        sqlite_where=sa.text("status = 'pending'"),
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "message_turn",
        "message",
        ["mailing_id", "due_at", "id"],
        unique=False,
        sqlite_where=sa.text("status = 'pending'"),
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "tally",
        sa.Column("mailing_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("messages >= 0", name=op.f("tally_messages_counted")),
        sa.ForeignKeyConstraint(["mailing_id"], ["mailing.id"], name=op.f("tally_mailing_id_fk")),
        sa.PrimaryKeyConstraint("mailing_id", "status", name=op.f("tally_pk")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "attempt",
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("code", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('ok', 'late_ok', 'not_sent', 'busy', 'temporary', 'rejected', 'config', 'server', 'unknown', 'released')",
            name=op.f("attempt_outcome_known"),
        ),
        sa.CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name=op.f("attempt_ended_has_outcome")),
        sa.CheckConstraint("number > 0", name=op.f("attempt_number_positive")),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name=op.f("attempt_message_id_fk")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("attempt_run_id_fk")),
        sa.PrimaryKeyConstraint("message_id", "number", name=op.f("attempt_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "attempt_open",
        "attempt",
        ["run_id"],
        unique=False,
        sqlite_where=sa.text("outcome IS NULL"),
        postgresql_where=sa.text("outcome IS NULL"),
    )
    op.create_table(
        "resolution",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status IN ('sent', 'failed')", name=op.f("resolution_status_known")),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name=op.f("resolution_message_id_fk")),
        sa.PrimaryKeyConstraint("id", name=op.f("resolution_pk")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("resolution_message_id"), "resolution", ["message_id"], unique=False)

    op.execute("INSERT INTO gateway (id, faults) VALUES (1, 0)")
    op.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('message', 0)")
    zeros = ", ".join(f"(NEW.id, '{status}', 0)" for status in STATUSES)
    op.execute(f"""
        CREATE TRIGGER mailing_tally AFTER INSERT ON mailing BEGIN
            INSERT INTO tally (mailing_id, status, messages) VALUES {zeros};
        END
    """)
    op.execute("""
        CREATE TRIGGER message_tally AFTER UPDATE OF status ON message WHEN OLD.status <> NEW.status BEGIN
            UPDATE tally SET messages = messages - 1 WHERE mailing_id = OLD.mailing_id AND status = OLD.status;
            UPDATE tally SET messages = messages + 1 WHERE mailing_id = NEW.mailing_id AND status = NEW.status;
        END
    """)
