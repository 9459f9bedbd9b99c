"""Whose turn is next, and which mailings and operators the gateway's faults belong to."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("gateway", sa.Column("served", sa.BigInteger(), nullable=True))
    op.add_column("gateway", sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("gateway", sa.Column("ok_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "fault",
        sa.Column("mailing_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("operator_code", sa.Text(), nullable=False),
        sa.Column("faults", sa.Integer(), nullable=False),
        sa.Column("since_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("faults > 0", name=op.f("fault_faults_counted")),
        sa.PrimaryKeyConstraint("mailing_id", "operator_code", name=op.f("fault_pk")),
        sqlite_with_rowid=False,
    )
