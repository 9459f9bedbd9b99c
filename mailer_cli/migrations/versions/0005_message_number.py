"""Which messages of a mailing went to a number."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "message_number",
        "message",
        ["mailing_id", "phone"],
        unique=False,
        sqlite_where=sa.text("phone IS NOT NULL"),
        postgresql_where=sa.text("phone IS NOT NULL"),
    )
    # what was tried and not taken follows its client's zone; until now the first attempt had fixed it
    op.execute("""
        UPDATE message SET timezone = (SELECT timezone FROM client WHERE id = client_id)
        WHERE status = 'pending' AND attempts > 0 AND NOT EXISTS (
            SELECT 1 FROM attempt WHERE message_id = message.id AND outcome IN ('server', 'unknown')
        )
    """)
