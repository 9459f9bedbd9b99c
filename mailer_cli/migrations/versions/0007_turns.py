"""When a mailing has its turn, so that nobody asks those of which nothing is due."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

GOING = "paused_at IS NULL AND cancelled_at IS NULL AND removed_at IS NULL"


def upgrade() -> None:
    op.add_column("mailing", sa.Column("turn", sa.Text(), nullable=True))
    op.add_column("mailing", sa.Column("next_due_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("gateway", sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True))
    _index("mailing_starts", ["start_at", "end_at"], f"fixed_at IS NULL AND {GOING}")
    _index("mailing_ring", ["priority", "id"], f"turn = 'now' AND {GOING}")
    _index("mailing_sleepers", ["turn", "next_due_at"], f"turn <> 'now' AND {GOING}")
    _index("mailing_ends", ["end_at"], "turn IS NOT NULL")
    _index(
        "mailing_stopped",
        ["id"],
        "turn IS NOT NULL AND (cancelled_at IS NOT NULL OR removed_at IS NOT NULL)",
    )
    op.execute("""
        UPDATE mailing SET turn = 'now', next_due_at = start_at
        WHERE id IN (SELECT mailing_id FROM tally WHERE status = 'pending' AND messages > 0)
    """)
    op.execute("""
        CREATE TRIGGER message_wakes AFTER UPDATE OF status, due_at, timezone ON message
        WHEN NEW.status = 'pending' BEGIN
            UPDATE mailing SET turn = 'now', next_due_at = NEW.due_at WHERE id = NEW.mailing_id
            AND turn IS NOT 'now' AND (next_due_at IS NULL OR next_due_at > NEW.due_at);
        END
    """)
    op.execute("""
        CREATE TRIGGER mailing_wakes AFTER UPDATE OF start_at, end_at, window_from, window_to, rate ON mailing
        WHEN NEW.turn IS NOT NULL BEGIN
            UPDATE mailing SET turn = 'now' WHERE id = NEW.id;
        END
    """)


def _index(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "mailing", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
