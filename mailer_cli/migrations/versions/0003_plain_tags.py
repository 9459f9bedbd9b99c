"""Tags as they are compared since then: without what nobody can see."""

import json

import sqlalchemy as sa
from alembic import op

from mailer_cli.words import plain_cell

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# what is ASCII and has no blank at an end, nor `="..."`, is plain already: most are, and need not be looked at
ODD = "tag GLOB '*[^ -~]*' OR tag GLOB '=\"*'"
CLIENTS = sa.text("UPDATE client SET tag = :plain WHERE tag = :tag")
MAILINGS = sa.text("UPDATE mailing SET tags = :tags WHERE id = :id")


def upgrade() -> None:
    """A tag that has nothing else in it becomes none; a mailing keeps such a one, which nobody has."""
    connection = op.get_bind()
    for (tag,) in connection.execute(sa.text(f"SELECT DISTINCT tag FROM client WHERE {ODD}")).all():
        if plain_cell(tag) != tag:
            connection.execute(CLIENTS, {"plain": plain_cell(tag), "tag": tag})
    for mailing_id, written in connection.execute(sa.text("SELECT id, tags FROM mailing")).all():
        tags = json.loads(written)
        plain = list(dict.fromkeys(plain_cell(tag) or tag for tag in tags))
        if plain != tags:
            connection.execute(MAILINGS, {"tags": json.dumps(plain, ensure_ascii=False), "id": mailing_id})
