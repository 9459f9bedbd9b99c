"""Lists of clients: what an import takes, what it refuses, and that an export is its mirror."""

import csv
import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event

from mailer_cli import clients, csv_export, csv_import
from mailer_cli.csv_import import Options, Source
from mailer_cli.database import Database
from mailer_cli.errors import Refused
from mailer_cli.times import ZONE_HINT
from tests.conftest import Mailer, Ran
from tests.rows import add_client
from tests.test_clients import mail_everybody, messages

DATA = Path(__file__).with_name("data")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HEADER = "phone,operator_code,tag,timezone"


def write(text: str, encoding: str = "utf-8") -> str:
    Path("list.csv").write_bytes(text.encode(encoding))
    return "list.csv"


def stored(mailer: Mailer) -> dict[str, tuple[str, str, str]]:
    """The clients: phone -> code, tag, zone."""
    listed = mailer("clients", "list", "--json").json
    return {each["phone"]: (each["operator_code"], each["tag"], each["timezone"]) for each in listed}


def counts(ran: Ran) -> tuple[int, ...]:
    """New, changed, same, rejected, total."""
    return tuple(ran.json[name] for name in ("new", "changed", "same", "rejected", "total"))


def without_rejects(ran: Ran) -> dict[str, object]:
    return {
        name: value for name, value in ran.json.items() if name not in ("rejects", "more_rejects", "reasons")
    }


@pytest.fixture
def imported(mailer: Mailer, database: Database) -> Mailer:
    """Two clients from a list."""
    mailer("clients", "import", write(f"{HEADER}\n79161234501,916,vip,Asia/Omsk\n79161234502,917,,UTC\n"))
    return mailer


# the spreadsheet

EXCEL = {
    "79161234501": ("916", "vip", "Europe/Moscow"),
    "79161234502": ("916", "vip", "Europe/Moscow"),
    "79161234503": ("916", "новые", "Asia/Omsk"),
    "79161234506": ("916", 'с "кавычками"; и точкой с запятой', "Europe/Samara"),
    "79161234508": ("916", "trim", "+03:00"),
    "79161234509": ("916", "[red]markup[/red]", "Europe/Moscow"),
    "79161234510": ("916", '=HYPERLINK(""x"")', "Europe/Moscow"),
    "79161234511": ("916", "", "Europe/Moscow"),
    "79161234513": ("916", "vip", "Europe/Moscow"),
}
EXCEL_REJECTS = {
    "5": "phone '7916123450' has 10 digits instead of 11",
    "6": f"time zone 'Mars/Base' is not a time zone: {ZONE_HINT}",
    "8": "phone of line 2, other values",
    "14": "operator code '9161' is not three digits",
}


def test_a_spreadsheet_is_refused_whole_when_rows_are_bad(mailer: Mailer, database: Database) -> None:
    ran = mailer("clients", "import", DATA / "clients_excel.csv", "--json", code=1)
    assert without_rejects(ran) == {
        "new": 0, "changed": 0, "same": 0, "rejected": 4, "default_timezone": 0, "total": 13,
        "repeated": 0, "blocked": 0, "refused": True, "ignored_columns": ["comment"],
    }  # fmt: skip
    warning, error = ran.err.splitlines()
    assert warning == "warning: columns ignored: comment"
    assert json.loads(error)["error"]["code"] == "refused"
    assert stored(mailer) == {}


def test_a_refusal_names_the_lines_and_what_helps(mailer: Mailer, database: Database) -> None:
    lines = mailer("clients", "import", DATA / "clients_excel.csv", code=1).out.splitlines()
    assert lines[:4] == [f"line {line}: {reason}" for line, reason in EXCEL_REJECTS.items()]
    assert lines[4].startswith("refused: 4 of 13 rows of ") and lines[4].endswith("nothing was written")
    assert lines[5] == "hint: --skip-invalid takes the other 9; --rejects FILE keeps the bad rows"


def test_the_good_rows_of_a_spreadsheet_are_taken(mailer: Mailer, database: Database) -> None:
    ran = mailer("clients", "import", DATA / "clients_excel.csv", "--skip-invalid", "--json")
    assert without_rejects(ran) == {
        "new": 9, "changed": 0, "same": 0, "rejected": 4, "default_timezone": 1, "total": 13,
        "repeated": 0, "blocked": 0, "refused": False, "ignored_columns": ["comment"],
    }  # fmt: skip
    assert stored(mailer) == EXCEL


def test_rejects_keep_the_values_and_say_line_and_reason(mailer: Mailer, database: Database) -> None:
    mailer("clients", "import", DATA / "clients_excel.csv", "--rejects", "bad.csv", code=1)
    with Path("bad.csv").open(encoding="utf-8-sig", newline="") as file:  # as the list, which has the mark
        rows = list(csv.DictReader(file, delimiter=";"))
    assert list(rows[0]) == ["tag", "Phone", "timezone", "OPERATOR_CODE", "comment", "line", "reason"]
    assert {row["line"]: row["reason"] for row in rows} == EXCEL_REJECTS
    assert [row["Phone"] for row in rows][:2] == ["7916123450", "79161234505"]
    assert Path("bad.csv").stat().st_mode & 0o777 == 0o600


def test_mended_rejects_can_be_imported(mailer: Mailer, database: Database) -> None:
    mailer("clients", "import", DATA / "clients_excel.csv", "--skip-invalid", "--rejects", "bad.csv")
    mended = Path("bad.csv").read_text().replace("7916123450;", "79161234504;").replace("Mars/Base", "UTC")
    Path("bad.csv").write_text(mended.replace(";9161;", ";916;"))
    ran = mailer("clients", "import", "bad.csv", "--json")
    assert counts(ran) == (3, 1, 0, 0, 4)
    assert ran.err == "warning: columns ignored: comment\n"
    assert stored(mailer)["79161234501"] == ("916", "vip", "Asia/Omsk")


def test_rejects_of_a_rejects_file_have_line_and_reason_once(mailer: Mailer, database: Database) -> None:
    write("phone,tag\n1,a,b\n2,c\n3\n4,,\n")
    mailer("clients", "import", "list.csv", "--rejects", "bad.csv", code=1)
    first = Path("bad.csv").read_text()
    assert first.splitlines() == [
        "phone,tag,line,reason",
        "1,a,2,3 fields instead of 2,b",
        "2,c,3,phone '2' has 1 digit instead of 11",
        "3,,4,phone '3' has 1 digit instead of 11",
        "4,,5,phone '4' has 1 digit instead of 11",
    ]
    mailer("clients", "import", "bad.csv", "--rejects", "worse.csv", code=1)
    assert Path("worse.csv").read_text().splitlines()[:3] == [
        "phone,tag,line,reason",
        "1,a,2,5 fields instead of 4,b",
        "2,c,3,phone '2' has 1 digit instead of 11",
    ]


# upsert


def test_importing_again_changes_nothing(imported: Mailer) -> None:
    before = imported("clients", "list", "--json").out
    assert counts(imported("clients", "import", "list.csv", "--json")) == (0, 0, 2, 0, 2)
    assert imported("clients", "list", "--json").out == before


def test_a_known_phone_changes_its_client_and_ids_have_no_gaps(imported: Mailer) -> None:
    write(f"{HEADER}\n79161234501,901,new,UTC\n79161234502,917,,UTC\n79161234503,,,\n")
    assert counts(imported("clients", "import", "list.csv", "--json")) == (1, 1, 1, 0, 3)
    listed = imported("clients", "list", "--json").json
    assert [(each["id"], each["phone"][-2:]) for each in listed] == [(3, "03"), (2, "02"), (1, "01")]
    assert listed[2]["updated_at"] > listed[2]["created_at"]
    assert listed[1]["updated_at"] == listed[1]["created_at"]


@pytest.mark.parametrize("text", ["phone\n79161234501\n79161234502\n", f"{HEADER}\n79161234501,, ,\n"])
def test_what_is_absent_or_empty_leaves_the_value_of_a_known_client(text: str, imported: Mailer) -> None:
    before = stored(imported)
    write(text)
    assert imported("clients", "import", "list.csv", "--json").json["changed"] == 0
    assert stored(imported) == before


def test_defaults_are_for_new_clients_only_and_counted(imported: Mailer) -> None:
    write("phone,timezone\n79161234501,\n79261234503,\n79261234504,+03:00\n")
    ran = imported("clients", "import", "list.csv", "--json")
    assert (ran.json["new"], ran.json["default_timezone"]) == (2, 1)
    assert stored(imported)["79261234503"] == ("926", "", "Europe/Moscow")
    assert stored(imported)["79161234501"] == ("916", "vip", "Asia/Omsk")


@pytest.mark.parametrize(
    ("choice", "code", "expected", "tag"),
    [
        ("update", 0, (1, 1, 0, 0, 2), "new"),
        ("skip", 0, (1, 0, 1, 0, 2), "vip"),
        ("error", 1, (0, 0, 0, 1, 2), "vip"),
    ],
)
def test_a_conflict_is_what_the_operator_says(
    choice: str, code: int, expected: tuple[int, ...], tag: str, imported: Mailer
) -> None:
    write("phone,tag\n79161234501,new\n79161234509,x\n")
    ran = imported("clients", "import", "list.csv", "--on-conflict", choice, "--json", code=code)
    assert counts(ran) == expected
    assert stored(imported)["79161234501"][1] == tag


def test_a_conflict_may_be_one_bad_row_among_good_ones(imported: Mailer) -> None:
    write("phone,tag\n79161234501,vip\n79161234509,x\n")
    options = ["--on-conflict", "error", "--skip-invalid", "--rejects", "bad.csv", "--json"]
    assert counts(imported("clients", "import", "list.csv", *options)) == (1, 0, 0, 1, 2)
    assert Path("bad.csv").read_text().splitlines()[1] == "79161234501,vip,2,phone of client 1"


def test_a_dry_run_says_what_the_import_says_and_writes_nothing(imported: Mailer) -> None:
    write("phone,tag\n79161234501,new\n79161234502,\n79161234509,x\n")
    before = imported("clients", "list", "--json").out
    dry = imported("clients", "import", "list.csv", "--dry-run", "--json")
    assert imported("clients", "list", "--json").out == before
    assert dry.json == imported("clients", "import", "list.csv", "--json").json
    assert counts(dry) == (1, 1, 1, 0, 3)


def test_a_dry_run_waits_for_no_writer(
    imported: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailer_cli.database.BUSY_TIMEOUT", 0)
    with database.write():
        imported("clients", "import", "list.csv", "--dry-run")


def test_a_removed_clients_phone_makes_a_new_client(imported: Mailer) -> None:
    imported("clients", "remove", 1, "--yes")
    assert counts(imported("clients", "import", "list.csv", "--json")) == (1, 0, 1, 0, 2)


def test_a_blocked_phone_stays_blocked(imported: Mailer) -> None:
    imported("clients", "block", 1)
    imported("clients", "remove", 1, "--yes")
    imported("clients", "import", "list.csv")
    blocked = imported("clients", "list", "--status", "blocked", "--json").json
    assert [each["phone"] for each in blocked] == ["79161234501"]


def test_messages_that_wait_follow_an_imported_zone(imported: Mailer, database: Database) -> None:
    mail_everybody(database)
    imported("clients", "import", write("phone,timezone\n79161234501,+05:00\n79161234502,\n"))
    assert [message[3] for message in messages(database)] == ["+05:00", "UTC"]


def test_a_short_list_looks_up_its_clients_and_does_not_walk_through_all(imported: Mailer) -> None:
    plans: list[str] = []

    def explain(connection: Connection, cursor: object, statement: str, values: Any, *_: object) -> None:
        if "FROM staged" in statement or "FROM changing" in statement:
            raw = connection.connection.cursor()
            plans.extend(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall())

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        imported("clients", "import", write("phone,timezone\n79161234501,UTC\n79161234509,UTC\n"))
    finally:
        event.remove(Engine, "before_cursor_execute", explain)
    assert any("SEARCH client" in plan for plan in plans)
    assert not any("SCAN client" in plan for plan in plans)


# one phone twice in a list


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_a_phone_twice_with_the_same_values_is_no_fault(
    batch: int, mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailer_cli.csv_import.lines.BUFFER", batch)
    write("phone,tag\n79161234501,vip\n79161234502,\n+7 916 1234501, vip\n8(916)1234501,vip\n")
    assert counts(mailer("clients", "import", "list.csv", "--json")) == (2, 0, 2, 0, 4)


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_a_phone_twice_with_other_values_is_rejected_and_the_first_wins(
    batch: int, mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailer_cli.csv_import.lines.BUFFER", batch)
    write("phone,tag\n79161234509,b\n79161234501,vip\n89161234501,other\n79161234509,\n")
    ran = mailer("clients", "import", "list.csv", "--skip-invalid")
    assert ran.out.splitlines() == [
        "line 4: phone of line 3, other values",
        "line 5: phone of line 2, other values",
        "2 new, 0 changed, 0 same, 2 rejected; 4 rows in list.csv",
        "2 without a zone got Europe/Moscow",
    ]
    assert {phone[-1]: tag for phone, (_, tag, _) in stored(mailer).items()} == {"1": "vip", "9": "b"}


def test_combinations_that_were_forgotten_are_checked_again(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailer_cli.csv_import.reading.KEPT", 2)
    rows = [f"7916{number:07},{number % 5}" for number in range(20)]
    write("\n".join(["phone,tag", *rows, *rows]))
    assert counts(mailer("clients", "import", "list.csv", "--json")) == (20, 0, 20, 0, 40)


# the form of a list


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiter_line_end_and_mark_are_found_out(
    delimiter: str, newline: str, mark: str, mailer: Mailer, database: Database
) -> None:
    rows = [["TimeZone", " Phone ", "tag"], ["UTC", "79161234501", "a, b; c"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=newline).writerows(rows)
    write(mark + text.getvalue())
    mailer("clients", "import", "list.csv")
    assert stored(mailer) == {"79161234501": ("916", "a, b; c", "UTC")}


def test_a_list_may_have_one_column_and_no_line_end_at_its_end(mailer: Mailer, database: Database) -> None:
    assert counts(mailer("clients", "import", write("phone\n79161234501"), "--json")) == (1, 0, 0, 0, 1)


def test_empty_lines_are_skipped_and_lines_are_counted_as_an_editor_counts(
    mailer: Mailer, database: Database
) -> None:
    write('\n"phone";tag;"a\nnote"\n\n;;\n ; ;\n79161234501;vip;"two\nlines"\n7916;x;\n')
    ran = mailer("clients", "import", "list.csv", code=1)
    assert ran.out.startswith("line 9: phone '7916' has 4 digits")
    assert "1 of 2 rows" in ran.out


def test_cp1251_is_read_when_it_is_said_and_never_guessed(mailer: Mailer, database: Database) -> None:
    write("phone,tag\n79161234501,новые\n", "cp1251")
    ran = mailer("clients", "import", "list.csv", code=2)
    assert ran.err.splitlines() == [
        "error: list.csv is not utf-8 from about line 2 on",
        "hint: --encoding cp1251",
    ]
    mailer("clients", "import", "list.csv", "--encoding", "cp1251")
    assert stored(mailer)["79161234501"][1] == "новые"


def test_the_line_of_a_bad_byte_is_found_in_a_long_list_too(mailer: Mailer, database: Database) -> None:
    rows = "".join(f"7916{number:07},x\n" for number in range(5_000))
    write(f"phone,tag\n{rows}79171234501,новые\n", "cp1251")
    assert "from about line 5002 on" in mailer("clients", "import", "list.csv", code=2).err
    assert stored(mailer) == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n\n  \n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a,b\n1,2\n", "has no column phone"),
        (b"79161234501,vip\n", "has no column phone"),
        (b"phone,tag,Phone\n79161234501,a,79161234502\n", "has the column phone twice"),
        (b"phone,tag\n79161234501,a\0b\n", "has NUL bytes"),
        ("phone\n79161234501\n".encode("utf-16"), "has NUL bytes"),
        (b'phone,"tag\n79161234501,vip\n', "is no CSV from line 1 on"),
        (b'\nphone,"tag"x\n79161234501,vip\n', "is no CSV from line 2 on"),
        (b"sep=;\nphone,tag\n79161234501,vip\n", "has columns that may be ours: 'phone,tag'"),
        (b"sep=;\n\n", "is empty"),
        (b'phone,tag,"' + b"x" * 200_000, "is no CSV from line 1 on"),
    ],
)
def test_what_is_no_list_is_one_clear_line_and_the_database_is_untouched(
    content: bytes, said: str, mailer: Mailer, database: Database
) -> None:
    Path("list.csv").write_bytes(content)
    ran = mailer("clients", "import", "list.csv", "--rejects", "bad.csv", code=2)
    assert ran.err.startswith(f"error: list.csv {said}") and ran.err.count("error") == 1
    assert ran.out == "" and stored(mailer) == {}
    assert sorted(path.name for path in Path().iterdir() if "bad" in path.name) == []


def test_utf8_that_is_said_to_be_cp1251_is_noticed_by_its_mark(mailer: Mailer, database: Database) -> None:
    write("phone,tag\n79161234501,новые\n", "utf-8-sig")
    assert "is UTF-8" in mailer("clients", "import", "list.csv", "--encoding", "cp1251", code=2).err


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("79161234501,916,vip,UTC,x", "5 fields instead of 4"),
        ("79161234501,916,vip,UTC,,,x,", "8 fields instead of 4"),
        ('79161234501,916,"vip"x,UTC', "a quote inside quotes"),
        ('79161234501,916,"vip,UTC', "a quote has no partner"),
        (f"79161234501,916,{'x' * 140_000},UTC", "a cell is longer than 131,072 characters"),
        (f"79161234501,916,vip,UTC{',' * 300_000}", "the line is longer than 262,144 characters"),
        ("7916123450,916,vip,UTC", "has 10 digits"),
        (",916,vip,UTC", "phone '' is empty"),
        ("79161234501,16,vip,UTC", "is not three digits"),
        ("79161234501,916,a\x1b[31mb,UTC", "has control characters"),
        ('79161234501,916,"a\nb",UTC', "has control characters"),
        ("79161234501,916,vip,Europe/Moskow", "is not a time zone"),
        ("79161234501,916,vip,+99:00", "is not an offset"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason(
    row: str, reason: str, mailer: Mailer, database: Database
) -> None:
    write(f"{HEADER}\n79161234509,916,vip,UTC\n{row}\n")
    ran = mailer("clients", "import", "list.csv", "--skip-invalid")
    assert ran.out.startswith("line 3: ") and reason in ran.out and "\x1b" not in ran.out
    assert list(stored(mailer)) == ["79161234509"]


def test_only_the_first_bad_rows_are_shown(mailer: Mailer, database: Database) -> None:
    write("phone\n" + "x\n" * 25)
    lines = mailer("clients", "import", "list.csv", code=1).out.splitlines()
    assert lines[1].startswith("line 2: ") and lines[10].startswith("line 11: ")
    assert lines[11] == "... and 15 more"


def test_an_inverted_zone_is_warned_of_once(mailer: Mailer, database: Database) -> None:
    rows = "".join(f"7916123450{number},tag{number},Etc/GMT+3\n" for number in range(5))
    ran = mailer("clients", "import", write(f"phone,tag,timezone\n{rows}"))
    assert ran.err.count("warning: ") == 1 and "Etc/GMT+3 is -03:00" in ran.err


def test_a_quiet_import_says_nothing_unless_it_is_refused(mailer: Mailer, database: Database) -> None:
    ran = mailer("clients", "import", write("phone\n79161234501\n"), "--quiet")
    assert (ran.out, ran.err) == ("", "")
    assert "refused" in mailer("clients", "import", write("phone\nx\n"), "--quiet", code=1).out


# files


@pytest.mark.parametrize("name", ["nowhere.csv", "."])
def test_a_file_that_cannot_be_read_is_wrong_input(name: str, mailer: Mailer, database: Database) -> None:
    assert mailer("clients", "import", name, code=2).err.startswith(f"error: cannot read {name}")


def test_a_list_comes_from_standard_input_too(mailer: Mailer, database: Database, folder: Path) -> None:
    command = [sys.executable, "-m", "mailer_cli", "clients", "import", "-", "--json"]
    root = Path(__file__).parent.parent
    ran = subprocess.run(
        command, input=b"phone\n79161234501\n", capture_output=True, env={"PYTHONPATH": str(root)}
    )
    assert (ran.returncode, json.loads(ran.stdout)["new"], ran.stderr) == (0, 1, b"")


def test_rejects_never_overwrite_the_list(mailer: Mailer, database: Database) -> None:
    name = write("phone\nx\n")
    Path("link.csv").symlink_to(name)
    mailer("clients", "import", name, "--rejects", "link.csv", code=2)
    assert Path(name).read_text() == "phone\nx\n"


def test_rejects_go_where_there_is_a_place(mailer: Mailer, database: Database) -> None:
    name = write("phone\nx\n")
    assert "no folder" in mailer("clients", "import", name, "--rejects", "no/bad.csv", code=2).err
    assert "No space left" in mailer("clients", "import", name, "--rejects", "/dev/full", code=74).err


def test_an_import_that_is_interrupted_leaves_nothing(database: Database) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    source = Source(io.BytesIO(b"phone\n79161234501\n"), "list")
    with pytest.raises(KeyboardInterrupt):
        csv_import.import_clients(database, source, Options(), None, "UTC", NOW, interrupt)
    assert list(clients.listed(database, clients.Wanted())) == []
    with database.write():
        pass  # nothing holds the lock


def test_reading_a_list_takes_no_lock(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailer_cli.database.BUSY_TIMEOUT", 0)
    monkeypatch.setattr("mailer_cli.csv_import.lines.BUFFER", 1)
    written = []

    def write_meanwhile(done: int) -> None:
        with database.write() as connection:
            phone = 79_260_000_000 + len(written)
            written.append(clients.add(connection, phone, clients.Given(), "UTC", NOW))

    source = Source(io.BytesIO(b"phone\n79161234501\n79161234502\n79160000001\n"), "list")
    csv_import.import_clients(database, source, Options(), None, "UTC", NOW, write_meanwhile)
    assert len(written) == 3
    assert len(list(clients.listed(database, clients.Wanted()))) == 6


def test_a_client_who_came_meanwhile_refuses_an_import_that_wants_only_new_ones(database: Database) -> None:
    def add_meanwhile(done: int) -> None:
        with database.write() as connection:
            clients.add(connection, 79_161_234_501, clients.Given(), "UTC", NOW)

    source = Source(io.BytesIO(b"phone\n79161234501\n79161234502\n"), "list")
    options = Options(on_conflict=csv_import.OnConflict.ERROR)
    with pytest.raises(Refused, match="added while it was read"):
        csv_import.import_clients(database, source, options, None, "UTC", NOW, add_meanwhile)
    assert len(list(clients.listed(database, clients.Wanted()))) == 1


# memory


def test_memory_does_not_grow_with_the_list(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailer_cli.csv_import.lines.BUFFER", 1 << 16)

    def peak(rows: int) -> int:
        """Bytes that Python held at once while it read so many rows, each tag new, each row twice."""
        import tracemalloc

        text = b"phone,tag\n" + b"".join(2 * (b"7%010d,%d\n" % (row, row)) for row in range(rows))
        tracemalloc.start()
        csv_import.import_clients(
            database, Source(io.BytesIO(text), "list"), Options(dry_run=True), None, "UTC", NOW
        )
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    monkeypatch.setattr("mailer_cli.csv_import.reading.KEPT", 1_000)
    assert peak(60_000) < 1.2 * peak(20_000)


# export


def test_an_export_imported_again_changes_nothing(imported: Mailer) -> None:
    imported("clients", "import", DATA / "clients_excel.csv", "--skip-invalid")
    for delimiter in ("comma", "semicolon", "tab"):
        imported("clients", "export", "--force", "out.csv", "--delimiter", delimiter)
        assert counts(imported("clients", "import", "out.csv", "--json"))[:4] == (0, 0, 9, 0)
    assert Path("out.csv").stat().st_mode & 0o777 == 0o600


TAGS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), codec="utf-8"), max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    rows=st.dictionaries(
        st.integers(70_000_000_000, 79_999_999_999),
        st.tuples(st.from_regex(r"[0-9]{3}", fullmatch=True), TAGS, st.sampled_from(["UTC", "+03:00"])),
        max_size=20,
    ),
    delimiter=st.sampled_from([",", ";", "\t"]),
)
def test_any_clients_make_the_round_trip(
    rows: dict[int, tuple[str, str, str]], delimiter: str, database: Database
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(HEADER.split(","))
    writer.writerows([phone, *others] for phone, others in rows.items())
    options = Options(skip_invalid=False)
    for _ in range(2):
        source = Source(io.BytesIO(text.getvalue().encode()), "list")
        found = csv_import.import_clients(database, source, options, None, "UTC", NOW)
        assert not found.refused and found.report.total == len(rows)
        text = io.StringIO("".join(csv_export.Export(database, clients.Wanted(), delimiter).pieces()))
        by_phone = {each.phone: each for each in clients.listed(database, clients.Wanted())}
        for phone, (_, tag, _) in rows.items():
            kept = clients.parse_tag(tag)
            assert not kept or by_phone[phone].tag == kept
        rows = {each: ("", "", "") for each in by_phone if each is not None}
    assert found.report.same == found.report.total


def test_an_export_takes_the_filters_of_a_list(imported: Mailer) -> None:
    assert imported("clients", "export", "--tag", "vip").out.splitlines() == [
        f"{HEADER},status",
        "79161234501,916,vip,Asia/Omsk,active",
    ]
    imported("clients", "block", 1)
    assert "79161234501" not in imported("clients", "export", "-", "--status", "active").out


def test_formulas_are_disarmed_on_request_only(mailer: Mailer, database: Database) -> None:
    mailer("clients", "add", "--phone", "79161234501", "--tag", "=1+1", "--timezone", "UTC")
    assert mailer("clients", "export").out.endswith("79161234501,916,=1+1,UTC,active\n")
    assert mailer("clients", "export", "--spreadsheet-safe").out.endswith(
        "79161234501,916,'=1+1,UTC,active\n"
    )


@pytest.mark.parametrize(
    ("tag", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("+7", "'+7"),
        ("-5%", "'-5%"),
        ("@sum", "'@sum"),
        ("＝1", "'＝1"),
        ("\t=1", "'\t'=1"),
        ("\n=1", "'\n'=1"),
        ('"=1"', '\'"=1"'),
        ("a;=1", "a;'=1"),
        ("a, =1", "a,' =1"),
        ("a\n=1", "a\n'=1"),
        ("2-for-1 = good", "2-for-1 = good"),
    ],
)
def test_no_cell_is_a_formula_wherever_a_spreadsheet_cuts_it(database: Database, tag: str, safe: str) -> None:
    add_client(database, 79161234501, tag=tag)
    text = "".join(csv_export.Export(database, clients.Wanted(), spreadsheet_safe=True).pieces())
    assert list(csv.reader(io.StringIO(text, newline="")))[1][2] == safe


def test_whoever_reads_the_old_file_reads_it_to_its_end(imported: Mailer) -> None:
    Path("out.csv").write_text("old")
    with Path("out.csv").open() as reader:
        imported("clients", "export", "out.csv", "--force")
        assert reader.read() == "old"
    assert Path("out.csv").read_text().startswith(HEADER)


def test_an_export_takes_the_place_of_a_file_only_when_it_is_whole(
    imported: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("out.csv").write_text("old")

    def broken(self: csv_export.Export) -> object:
        yield HEADER
        raise KeyboardInterrupt

    monkeypatch.setattr(csv_export.Export, "pieces", broken)
    imported("clients", "export", "out.csv", "--force", code=130)
    assert Path("out.csv").read_text() == "old"
    assert [path.name for path in Path().glob("*out.csv*")] == ["out.csv"]


@pytest.mark.parametrize(
    "command", ["add", "list", "show", "edit", "remove", "block", "unblock", "import", "export"]
)
def test_every_help_has_an_example_and_exit_codes(command: str, mailer: Mailer) -> None:
    shown = mailer("clients", command, "--help").out
    assert f"mailer clients {command}" in shown.split("Example:")[1] and "Exit codes:" in shown
