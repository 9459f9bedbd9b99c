"""Mailings remember how many runs in a row were refused ten of their messages in a row."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mailing", sa.Column("refused_runs", sa.Integer(), nullable=False, server_default="0"))
