"""How findings are shown, by `doctor` and `db check`."""

from collections.abc import Iterator, Sequence
from textwrap import wrap

from mailer_cli import findings, output
from mailer_cli.errors import failure
from mailer_cli.findings import Finding


def shown(found: Sequence[Finding]) -> output.Result:
    code = findings.exit_code(found)
    bad = next((each for each in found if code and each.exit_code == code), None)
    error = failure(code, f"{bad.name}: {bad.text}", bad.hint) if bad else None
    return output.Note(findings.as_json(found), list(_lines(found)), exit_code=code, error=error)


def _lines(found: Sequence[Finding]) -> Iterator[str]:
    width = max((len(each.name) for each in found), default=0)
    for each in found:
        lead = f"{each.level:<7}  {each.name:<{width}}  "
        sentences = [each.text, f"hint: {each.hint}"] if each.hint else [each.text]
        room = output.PIPE_WIDTH - len(lead)
        for line in (line for each in sentences for line in wrap(each, room, break_on_hyphens=False)):
            yield lead + line
            lead = " " * len(lead)
