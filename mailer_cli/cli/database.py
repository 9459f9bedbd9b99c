"""`mailer init` and `mailer db`: the database as a file."""

import typer

from mailer_cli import output
from mailer_cli.cli.common import Invocation, command

db = typer.Typer(no_args_is_help=True, help="The database: upgrade, check, backup, restore.")


def register(app: typer.Typer) -> None:
    """Hang these commands on the program."""
    app.add_typer(db, name="db")

    @command(app, "init", example="mailer init", exits=(0, 2, 74, 75, 78))
    def init(at: Invocation) -> output.Result:
        """Make the database and a .env to fill in. Nothing is overwritten; repeating is safe."""
        from mailer_cli import database

        opened, made = database.create_database(at.settings)
        return output.Note({"database": str(opened.path), "made": made}, [f"made {opened.path}"])


@command(db, "upgrade", example="mailer db upgrade", exits=(0, 2, 74, 75, 78))
def upgrade(at: Invocation) -> output.Result:
    """Bring the database's schema up to date, all or nothing. Repeating is safe."""
    from mailer_cli import database

    opened, _ = database.create_database(at.settings)
    return output.Note({"schema": database.SCHEMA}, [f"{opened.path} has schema {database.SCHEMA}"])
