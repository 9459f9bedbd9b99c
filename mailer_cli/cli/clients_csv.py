"""`mailer clients import` and `export`: lists of clients as CSV."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mailer_cli import output
from mailer_cli.cli.clients import Codes, Phone, Tags, app, wanted_clients
from mailer_cli.cli.common import DryRun, Force, Invocation, command
from mailer_cli.errors import Invalid, Refused
from mailer_cli.plural import counted

if TYPE_CHECKING:
    from mailer_cli.csv_import import Imported, Kind, Options

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t"}

ListFile = Annotated[Path, typer.Argument(metavar="FILE|-", help="A CSV file, or - for standard input.")]


@command(
    app,
    "import",
    example="mailer clients import list.csv --rejects rejects.csv --skip-invalid",
    changes="client_id",
)
def import_(
    at: Invocation,
    file: ListFile,
    encoding: Annotated[
        Literal["utf-8", "cp1251"], typer.Option(help="UTF-8 with or without BOM, or cp1251.")
    ] = "utf-8",
    on_conflict: Annotated[
        Literal["update", "skip", "error"], typer.Option(help="A phone that is a client's already.")
    ] = "update",
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Take the good rows although some are bad.")
    ] = False,
    rejects: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the bad rows there, if any, with line and reason."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --rejects.")] = False,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OURS=THEIRS", help="As phone=Mobile: a column's name in the list."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="It is none of ours, though it looks so.")
    ] = None,
    dry_run: DryRun = False,
) -> output.Result:
    """Add the clients of a CSV list, and change those who are known by their phone. Repeating is safe.

    The first line names the columns, in any order: phone, operator_code, tag, timezone, status, or what --map
    says. Others are ignored, but one that is nearly ours, as Time zone, must be named by --map or --ignore.
    The status blocked puts the phone on the stop list, active takes none from it.
    Commas, semicolons or tabs. A column that is absent, or an empty cell, leaves a known client's value; a
    new one gets the phone's code and the configured zone. Nothing is written if a row is bad, unless
    --skip-invalid. The file of --rejects is made when there are bad rows; one that is there already is left
    alone, and with bad rows the import refused, unless --force.
    """
    from mailer_cli import csv_import

    columns = csv_import.chosen(map_ or (), ignore or ())
    options = csv_import.Options(encoding, csv_import.OnConflict(on_conflict), skip_invalid, dry_run, columns)
    return _imported(at, file, rejects, options, force=force)


def _imported(
    at: Invocation, file: Path, rejects: Path | None, options: "Options", *, force: bool
) -> output.Result:
    from contextlib import nullcontext

    from mailer_cli import csv_import, files

    name = "standard input" if str(file) == "-" else str(file)
    size = file.stat().st_size if file.is_file() else None
    if rejects and at.printer.as_json and files.to_stdout(rejects):
        raise Invalid("standard output has the JSON", "name a file for --rejects")
    target = rejects and at.target(rejects, force=force, besides=[files.Own(file, "the list itself")])
    refusal = f"some rows are bad, and {rejects} is there already: nothing was imported"
    with (
        files.open_input(file) as opened,
        files.written_late(target, refusal, options.encoding) if target else nullcontext() as kept,
        at.printer.progress(f"importing {file.name}", size) as progress,
    ):
        source = csv_import.Source(opened, name)
        zone = at.settings.timezone
        found = csv_import.import_clients(at.database, source, options, kept, zone, at.now(), progress)
    report = _report(found, name, options, at.settings.timezone, rejects)
    doubts = at.zone_warnings if found.report.default_timezone else ()
    return replace(report, warnings=(*report.warnings, *doubts))


def _report(found: "Imported", name: str, options: "Options", zone: str, rejects: Path | None) -> output.Note:
    report = found.report
    lines = _told_rejects(found, rejects)
    refusal = _refusal(found, name, rejects) if found.refused else None
    if refusal is not None:
        lines += [f"refused: {refusal.message}", *([f"hint: {refusal.hint}"] if refusal.hint else [])]
    else:
        lines += _told_counts(found, name, dry_run=options.dry_run)
    if report.default_timezone:
        lines.append(f"{report.default_timezone:,} without a zone got {zone}")
    if report.blocked:
        lines.append(f"{'would be' if options.dry_run else 'were'} put on the stop list: {report.blocked:,}")
    ignored = (f"columns ignored: {', '.join(found.ignored_columns)}",) if found.ignored_columns else ()
    return output.Note(
        _json(found),
        lines,
        exit_code=1 if found.refused else 0,
        warnings=(*found.warnings, *ignored),
        error=refusal,
    )


def _json(found: "Imported") -> output.Json:
    """The counts, and as many of the rejected rows as are kept; `more_rejects` says how many are not."""
    faults = found.faults
    rejects = [
        {"line": each.line, "reason": each.fault.reason, "hint": each.fault.hint} for each in faults.first
    ]
    reasons = [
        {
            "reason": each.fault.kind,
            "rows": each.rows,
            "line": each.line,
            "example": each.fault.reason,
            "hint": each.fault.hint,
        }
        for each in faults.by_kind()
    ]
    return {
        **vars(found.report),
        "refused": found.refused,
        "reasons": reasons,
        "rejects": rejects,
        "more_rejects": faults.total - len(rejects),
        "ignored_columns": list(found.ignored_columns),
    }


def _told_counts(found: "Imported", name: str, *, dry_run: bool) -> list[str]:
    report = found.report
    counts = ", ".join(f"{getattr(report, each):,} {each}" for each in ("new", "changed", "same", "rejected"))
    lines = [f"{'would be: ' if dry_run else ''}{counts}; {counted(report.total, 'row')} in {name}"]
    if report.repeated:
        repeat = "repeats" if report.repeated == 1 else "repeat"
        lines.append(f"{report.repeated:,} of the same only {repeat} an earlier line of the list")
    return lines


def _told_rejects(found: "Imported", rejects: Path | None) -> list[str]:
    """Of many first how many there are of each kind: one misprint in a column is a thousand bad rows."""
    from mailer_cli import csv_import

    faults = found.faults
    shown = faults.first[: csv_import.SHOWN]
    many = faults.total > len(shown)
    lines = [_told_kind(each) for each in faults.by_kind()[: csv_import.SHOWN]] if many else []
    lines += [f"line {each.line}: {each.fault.reason}" for each in shown]
    if many:
        lines.append(f"... and {faults.total - len(shown):,} more")
    if faults.total and rejects is not None:
        lines.append(f"rejected rows are in {rejects}, to be mended and imported")
    elif rejects is not None and rejects.is_file():
        lines.append(f"{rejects} is of an import before, and was left as it is")
    return lines


def _told_kind(kind: "Kind") -> str:
    reason, hint = kind.fault.reason, kind.fault.hint
    told = reason if hint is None or hint in reason else f"{reason}; {hint}"
    return f"{counted(kind.rows, 'row')} like line {kind.line}: {told}"


def _refusal(found: "Imported", name: str, rejects: Path | None) -> Refused:
    bad, total = found.report.rejected, found.report.total
    hints = [f"--skip-invalid takes the other {total - bad:,}"] if bad < total else []
    hints += ["--rejects FILE keeps the bad rows"] if rejects is None else []
    what = f"{bad:,} of {counted(total, 'row')} of {name} {'is' if bad == 1 else 'are'} bad"
    return Refused(f"{what}, nothing was written", "; ".join(hints) or None)


@command(app, "export", example="mailer clients export vip.csv --tag vip")
def export(
    at: Invocation,
    file: Annotated[Path, typer.Argument(metavar="[FILE|-]", help="Standard output when left out.")] = Path(
        "-"
    ),
    operator_code: Codes = None,
    tag: Tags = None,
    phone: Phone = None,
    status: Annotated[
        Literal["active", "blocked"] | None, typer.Option(help="Only these; both when left out.")
    ] = None,
    delimiter: Annotated[
        Literal["comma", "semicolon", "tab"], typer.Option(help="Between the columns.")
    ] = "comma",
    spreadsheet_safe: Annotated[
        bool,
        typer.Option(
            "--spreadsheet-safe", help="--bom, and an apostrophe before formulas; not to be imported again."
        ),
    ] = False,
    bom: Annotated[
        bool, typer.Option("--bom", help="Begin with the mark by which a spreadsheet knows UTF-8.")
    ] = False,
    force: Force = False,
) -> output.Result:
    """Write clients as CSV with the columns of an import, newest first.

    The column status says who is blocked; after the clients come the blocked numbers that are no client's.
    A file is written whole or not at all, and only its owner may read it.
    """
    from mailer_cli import csv_export, files

    wanted = wanted_clients(operator_code, tag, phone, status)
    export = csv_export.Export(
        at.database, wanted, DELIMITERS[delimiter], spreadsheet_safe, bom or spreadsheet_safe
    )
    target = at.target(file, force=force)
    if files.to_stdout(file):
        return output.Text("csv", export.pieces())
    with target.text() as opened:
        opened.writelines(export.pieces())
    data = {"file": str(file), "clients": export.written, "stopped": export.stopped}
    others = f", and {counted(export.stopped, 'blocked number')} of nobody" if export.stopped else ""
    return output.Note(data, [f"{counted(export.written, 'client')}{others} written to {file}"])
