"""Runs remember how many turns they have committed."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("turns", sa.Integer(), nullable=False, server_default="0"))
