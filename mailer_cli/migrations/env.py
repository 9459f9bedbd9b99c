"""Runs the migrations on the connection that `database.upgrade` hands over, inside its transaction."""

from alembic import context
from sqlmodel import SQLModel

from mailer_cli import models

__all__ = ["models"]  # imported so that the tables are in the metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
)
context.run_migrations()
