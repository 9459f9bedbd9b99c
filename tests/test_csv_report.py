"""What an import tells, to people and to scripts: kinds of bad rows, repeats; and files for a spreadsheet."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from mailer_cli.database import Database
from tests.conftest import Mailer
from tests.test_csv_import import HEADER, counts, stored, write

PHONE_HINT = "write 79161234567, +7 916 123-45-67 or 8 (916) 123-45-67"


def many_bad_rows() -> str:
    zones = "".join(f"7916{number:07},,UTC+3\n" for number in range(1_500))
    short = "".join(f"916{number:07},,\n" for number in range(20))
    return write(f"phone,tag,timezone\n{zones}{short}79161234501,a\x07,\n79161234502,,\n79161234502,b,\n")


def test_of_many_bad_rows_the_kinds_come_first(mailer: Mailer, database: Database) -> None:
    lines = mailer("clients", "import", many_bad_rows(), code=1).out.splitlines()
    assert lines[:4] == [
        "1,500 rows like line 2: time zone 'UTC+3' is not a time zone: write +03:00",
        f"20 rows like line 1502: phone '9160000000' has 10 digits instead of 11; {PHONE_HINT}",
        "1 row like line 1522: tag 'a\\x07' has control characters",
        "1 row like line 1524: phone of line 1523, other values; leave one of the lines",
    ]
    assert lines[4].startswith("line 2: ") and lines[14] == "... and 1,512 more"
    assert lines[15:] == [
        "refused: 1,522 of 1,523 rows of list.csv are bad, nothing was written",
        "hint: --skip-invalid takes the other 1; --rejects FILE keeps the bad rows",
    ]


def test_a_few_bad_rows_are_told_by_their_lines_alone(mailer: Mailer, database: Database) -> None:
    lines = mailer("clients", "import", write("phone\n1\n79161234501\n"), code=1).out.splitlines()
    assert lines[0] == "line 2: phone '1' has 1 digit instead of 11"
    assert lines[1] == "refused: 1 of 2 rows of list.csv is bad, nothing was written"


def test_scripts_get_the_bad_rows_their_kinds_and_an_error(mailer: Mailer, database: Database) -> None:
    ran = mailer("clients", "import", many_bad_rows(), "--json", code=1)
    assert json.loads(ran.err) == {
        "error": {
            "code": "refused",
            "message": "1,522 of 1,523 rows of list.csv are bad, nothing was written",
            "hint": "--skip-invalid takes the other 1; --rejects FILE keeps the bad rows",
        }
    }
    found = ran.json
    assert (found["refused"], found["rejected"], len(found["rejects"]), found["more_rejects"]) == (
        *(True, 1_522, 1_000, 522),
    )
    zone = "time zone 'UTC+3' is not a time zone: write +03:00"
    assert found["rejects"][0] == {"line": 2, "reason": zone, "hint": "write +03:00"}
    assert [each["rows"] for each in found["reasons"]] == [1_500, 20, 1, 1]
    assert found["reasons"][1] == {
        "reason": "phone has 10 digits instead of 11",
        "rows": 20,
        "line": 1502,
        "example": "phone '9160000000' has 10 digits instead of 11",
        "hint": PHONE_HINT,
    }


def test_a_list_that_was_taken_is_no_error_to_scripts(mailer: Mailer, database: Database) -> None:
    ran = mailer("clients", "import", many_bad_rows(), "--json", "--skip-invalid")
    assert (ran.err, ran.json["refused"], ran.json["new"]) == ("", False, 1)


def test_a_quiet_refusal_tells_scripts_all_the_same(mailer: Mailer, database: Database) -> None:
    ran = mailer("clients", "import", write("phone\n1\n"), "--json", "--quiet", code=1)
    assert json.loads(ran.err)["error"]["code"] == "refused"


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [(["health"], 1, "refused"), (["doctor"], 78, "misconfigured"), (["db", "check"], 1, "refused")],
)
def test_whatever_fails_with_a_result_is_an_error_to_scripts(
    arguments: list[str], code: int, kind: str, mailer: Mailer, database: Database
) -> None:
    Path(".env").write_text("")
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO wording (text) VALUES ('x')")
        connection.exec_driver_sql(
            "INSERT INTO mailing (wording_id, start_at, end_at, operator_codes, tags, everyone, priority,"
            " created_at, updated_at, fixed_at) VALUES (1, '2026-01-01 00:00:00.000000',"
            " '2026-01-02 00:00:00.000000', '[]', '[]', 1, 0, '2026-01-01', '2026-01-01', '2026-01-01')"
        )
        connection.exec_driver_sql("UPDATE tally SET messages = 5 WHERE status = 'sent'")
    ran = mailer(*arguments, "--json", code=code)
    error = json.loads(ran.err.splitlines()[-1])["error"]
    assert (error["code"], bool(error["message"])) == (kind, True)
    assert isinstance(ran.json, dict)


def test_repeats_of_the_list_are_told_apart_from_known_clients(mailer: Mailer, database: Database) -> None:
    mailer("clients", "add", "--phone", "79161234501")
    write("phone\n79161234501\n79161234502\n8 916 1234502\n79161234502\n")
    ran = mailer("clients", "import", "list.csv", "--dry-run", "--json")
    assert counts(ran) == (1, 0, 3, 0, 4) and ran.json["repeated"] == 2
    assert mailer("clients", "import", "list.csv").out.splitlines()[:2] == [
        "1 new, 0 changed, 3 same, 0 rejected; 4 rows in list.csv",
        "2 of the same only repeat an earlier line of the list",
    ]


def test_numbers_and_plurals_of_one_row(mailer: Mailer, database: Database) -> None:
    assert "; 1 row in list.csv\n" in mailer("clients", "import", write("phone\n79161234501\n")).out
    assert mailer("clients", "export", "out.csv").out == "1 client written to out.csv\n"


# files for a spreadsheet


@pytest.mark.parametrize(
    "options", [["--bom"], ["--spreadsheet-safe"], ["--bom", "--delimiter", "semicolon"]]
)
def test_an_export_for_a_spreadsheet_has_a_mark_and_can_be_imported(
    options: list[str], mailer: Mailer, database: Database
) -> None:
    mailer("clients", "import", write(f"{HEADER}\n79161234501,916,новые,UTC\n"))
    mailer("clients", "export", "out.csv", *options)
    assert Path("out.csv").read_bytes().startswith("\ufeffphone".encode())
    assert counts(mailer("clients", "import", "out.csv", "--json")) == (0, 0, 1, 0, 1)
    assert mailer("clients", "export", *options).out == Path("out.csv").read_text(encoding="utf-8")
    assert not mailer("clients", "export").out.startswith("\ufeff")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1251"])
def test_rejects_are_written_as_the_list_is(encoding: str, mailer: Mailer, database: Database) -> None:
    option = ["--encoding", "cp1251"] if encoding == "cp1251" else []
    write("phone;имя\n1;Анна\n", encoding)
    mailer("clients", "import", "list.csv", "--rejects", "bad.csv", *option, code=1)
    assert Path("bad.csv").read_bytes() == (
        "phone;имя;line;reason\n1;Анна;2;phone '1' has 1 digit instead of 11\n".encode(encoding)
    )
    mended = Path("bad.csv").read_text(encoding).replace("\n1;", "\n79161234501;")
    Path("mended.csv").write_text(mended, encoding)
    mailer("clients", "import", "mended.csv", *option)
    assert list(stored(mailer)) == ["79161234501"]


# a temporary folder that is full


@contextmanager
def small_temporary_space() -> Iterator[None]:
    def limit(connection: Connection, cursor: Any, statement: str, *_: object) -> None:
        if "INTO staged" in statement:
            cursor.execute("PRAGMA temp.max_page_count = 5")

    event.listen(Engine, "before_cursor_execute", limit)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", limit)


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_full_temporary_folder_is_named(
    options: list[str], mailer: Mailer, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "small").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder / "small"))
    write("phone\n" + "".join(f"7916{number:07}\n" for number in range(3_000)))
    with small_temporary_space():
        ran = mailer("clients", "import", "list.csv", *options, code=74)
    assert ran.err.splitlines() == [
        f"error: no space left in the temporary folder {folder / 'small'}",
        "hint: free some space there, or name another one: TMPDIR=FOLDER mailer ...",
    ]
    assert stored(mailer) == {}
