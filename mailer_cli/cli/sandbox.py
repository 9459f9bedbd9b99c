"""`mailer sandbox`: a gateway on loopback to try things on."""

from pathlib import Path
from typing import Annotated

import typer

from mailer_cli import output
from mailer_cli.cli.common import Invocation, command, utc_now
from mailer_cli.errors import Invalid, MailerError, Refused


def register(app: typer.Typer) -> None:
    """Hang the command on the program."""

    @command(
        app,
        "sandbox",
        example="mailer sandbox --port 8025 --fault 500=0.05 --ledger sent.jsonl",
        exits=(0, 1, 2),
        drains=True,
    )
    def sandbox(
        at: Invocation,
        port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
        latency: Annotated[str, typer.Option(metavar="S|A-B", help="Seconds before each answer.")] = "0",
        fault: Annotated[
            list[str] | None, typer.Option(metavar="KIND=RATE", help="A fault and its share, 0 to 1.")
        ] = None,
        outage: Annotated[
            list[str] | None, typer.Option(metavar="START+SECONDS", help="When connections are refused.")
        ] = None,
        retry_after: Annotated[
            int | None, typer.Option(min=0, metavar="S", help="What busy ones ask for; else 1, and only 429.")
        ] = None,
        token: Annotated[str | None, typer.Option(help="The only token it takes; else any JWT.")] = None,
        ledger: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Append a JSON line for each request.")
        ] = None,
        seed: Annotated[int | None, typer.Option(help="Make the faults repeatable.")] = None,
        stop_after: Annotated[
            float | None, typer.Option(metavar="S", min=0, max=31_536_000, help="Stop by itself.")
        ] = None,
    ) -> None:
        """A gateway to try things on: loopback only, true to the real one's interface, faulty on request.

        Faults: hang slow reset disconnect bad-chunks garbage foreign huge wrong-code redirect, taken-500
        taken-hang taken-reset taken-204 taken-gzip taken-twice, and the statuses 400 401 403 404 405 408 413
        422 425 429 500 502 503 504. Ends with Ctrl-C.
        """
        import asyncio
        import random

        from mailer_cli import sandbox as server

        try:
            faults = server.parse_faults(fault or (), latency, outage or (), retry_after)
        except ValueError as error:
            raise Invalid(str(error), "mailer sandbox --help") from error
        if ledger is not None:
            _require_usable(at, ledger)

        def started(found: int) -> None:
            address = f"http://127.0.0.1:{found}/v1/send/"
            at.printer.announce(output.Note({"url": address, "port": found}, [address]))

        async def serve() -> None:
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            at.stop.on_change = lambda: loop.call_soon_threadsafe(stop.set)
            if at.stop.is_asked:
                stop.set()
            await server.serve(
                faults,
                port=port,
                token=token,
                ledger=ledger,
                random=random.Random(seed),
                clock=utc_now,
                started=started,
                stop=stop,
                stop_after=stop_after,
            )

        try:
            asyncio.run(serve())
        except OSError as error:
            raise Refused(f"the sandbox cannot start: {error.strerror or error}") from error
        finally:
            at.stop.on_change = lambda: None  # a signal may come when the loop is closed
        return


def _require_usable(at: Invocation, ledger: Path) -> None:
    """Raises: Invalid, also where settings that nobody needs here cannot be read."""
    from mailer_cli import files
    from mailer_cli.settings import Settings

    try:
        own = files.own_files(at.settings)
    except MailerError:
        own = files.own_files(Settings(database=at.database_setting or Settings().database))
    files.target(ledger, own, force=True)  # appended to, never replaced
