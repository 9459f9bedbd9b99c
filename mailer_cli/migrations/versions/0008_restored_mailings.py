"""Mailings that came out of a backup and may have been sent since."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mailing", sa.Column("restored_at", sa.DateTime(timezone=True), nullable=True))
