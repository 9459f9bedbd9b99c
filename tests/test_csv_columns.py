"""Lists as people have them: names of columns, cells that are dropped or too many, quotes, endless lines."""

import csv
import io
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from mailer_cli import clients, csv_import
from mailer_cli.csv_import import Options, Source
from mailer_cli.csv_import.columns import COLUMNS, near
from mailer_cli.csv_import.lines import BUFFER, LONGEST
from mailer_cli.database import Database
from mailer_cli.errors import Invalid
from tests.conftest import Mailer
from tests.test_csv_import import HEADER, NOW, counts, stored, write

PHONE = "79161234501"

FOREIGN = [
    *(
        "name",
        "Имя",
        "city",
        "Город",
        "comment",
        "e-mail",
        "age",
        "stage",
        "postal code",
        "promo code",
        "time",
    ),
    *("birthday", "created at", "id", "type", "page", "sum", "Дата", "order number", "tax", "", "  ", "line"),
]

# names


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *((each, "timezone") for each in ("Time zone", "time_zone", "time-zone", "timeZone", "tz", "TZ")),
        *(
            (each, "timezone")
            for each in ("Zone", "Часовой пояс", "часовой_пояс", "user_timezone", "timezome")
        ),
        *((each, "timezone") for each in ("UTC offset", "Timezone (IANA)", "t\u200bz", "Time\u00a0Zone")),
        *((each, "operator_code") for each in ("operator", "operator code", "Operator-Code", "code", "Код")),
        *((each, "operator_code") for each in ("Оператор", "Код оператора", "mobile operator", "DEF")),
        *((each, "tag") for each in ("tags", "Tags", "Тег", "Теги", "тэг", "Tag 1", "Метка", "label")),
        *(
            (each, "phone")
            for each in ("Phone Number", "phone_number", "mobile", "Телефон", "Номер телефона")
        ),
        *((each, "phone") for each in ("Phone (mobile)", "phone1", "phones", "MSISDN", "Тел.", "phonne")),
    ],
)
def test_a_name_that_is_nearly_ours_is_known(name: str, ours: str) -> None:
    assert near(name) == ours


@pytest.mark.parametrize("name", FOREIGN)
def test_a_name_that_means_something_else_is_not(name: str) -> None:
    assert near(name) is None


@pytest.mark.parametrize("name", [*COLUMNS, " TAG ", "ti\u200bmezone", "Phone\ufeff"])
def test_our_own_names_are_near_themselves(name: str) -> None:
    assert near(name) is not None


@pytest.mark.parametrize("name", ["Time zone", "tz", "tags", "operator", "Телефон клиента", "Часовой пояс"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_column_that_is_nearly_ours_is_never_lost_in_silence(
    name: str, delimiter: str, mailer: Mailer, database: Database
) -> None:
    ours = near(name)
    cells = {"phone": "79161234501", "operator_code": "999", "tag": "vip", "timezone": "Asia/Omsk"}
    write(f"phone{delimiter}{name}{delimiter}city\n{PHONE}{delimiter}{cells[str(ours)]}{delimiter}Omsk\n")
    if ours == "phone":
        write(f"{name}{delimiter}city\n{PHONE}{delimiter}Omsk\n")
    ran = mailer("clients", "import", "list.csv", code=2)
    assert f"has columns that may be ours: {name!r} for {ours}" in ran.err and stored(mailer) == {}
    hint = ran.err.splitlines()[1]
    option = hint.removeprefix("hint: add ").partition(";")[0]
    mailer("clients", "import", "list.csv", *shlex.split(option))
    found = dict(zip(COLUMNS[1:-1], stored(mailer)[PHONE], strict=True))
    assert ours == "phone" or found[str(ours)] == cells[str(ours)]


def test_the_hint_of_several_columns_can_be_pasted(mailer: Mailer, database: Database) -> None:
    write(f"Телефон;Имя;Тег;Метка;Time zone\n{PHONE};Ann;vip;gold;Asia/Omsk\n")
    hint = mailer("clients", "import", "list.csv", code=2).err.splitlines()[1]
    assert hint == (
        "hint: add --map phone='Телефон' --map tag='Тег' --ignore 'Метка' --map timezone='Time zone'"
    )
    ran = mailer("clients", "import", "list.csv", *shlex.split(hint)[2:])
    assert stored(mailer) == {PHONE: ("916", "vip", "Asia/Omsk")}
    assert ran.err == "warning: columns ignored: Имя\n"


def test_a_column_that_only_looks_like_ours_can_be_ignored(mailer: Mailer, database: Database) -> None:
    write(f"phone,operator,name\n{PHONE},Анна,x\n")
    ran = mailer("clients", "import", "list.csv", "--ignore", " OPERATOR\u200b")
    assert (stored(mailer)[PHONE][0], ran.err) == ("916", "warning: columns ignored: name\n")


def test_beside_a_column_of_ours_a_similar_one_is_only_reported(mailer: Mailer, database: Database) -> None:
    write(f"phone,mobile,tag,label\n{PHONE},1,vip,x\n")
    assert "columns ignored: mobile, label\n" in mailer("clients", "import", "list.csv").err
    assert stored(mailer)[PHONE][1] == "vip"


def test_a_mapped_column_goes_before_one_of_our_name(mailer: Mailer, database: Database) -> None:
    write(f"phone,tag,Группа=1\n{PHONE},vip,gold\n")
    ran = mailer("clients", "import", "list.csv", "--map", "tag=группа=1")
    assert (stored(mailer)[PHONE][1], ran.err) == ("gold", "warning: columns ignored: tag\n")


def test_a_column_of_ours_may_serve_as_another(mailer: Mailer, database: Database) -> None:
    write(f"phone,tag\n999,{PHONE}\n")
    mailer("clients", "import", "list.csv", "--map", "phone=tag", "--map", "operator_code=phone")
    assert stored(mailer) == {PHONE: ("999", "", "Europe/Moscow")}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--map", "fone=Mobile"],
            "--map is 'fone=Mobile', allowed is one of phone, operator_code, tag, timezone",
        ),
        (["--map", "phone"], "--map is 'phone', allowed is one of"),
        (["--map", "phone="], "--map is 'phone=', allowed is one of"),
        (["--map", "Mobile=phone"], "write --map phone=mobile"),
        (["--map", "tag=a", "--map", "tag=b"], "--map names 'tag' twice"),
        (["--map", "tag=a", "--map", "phone=a"], "--map names 'a' twice"),
        (["--map", "tag=a", "--ignore", "A"], "--map and --ignore both name 'a'"),
        (["--map", "tag=Group"], "list.csv has no column 'group' for --map\nhint: it has 'phone', 'name'"),
        (["--ignore", "phone"], "has no column phone in its first line"),
    ],
)
def test_a_wrong_map_says_what_is_right(
    options: list[str], said: str, mailer: Mailer, database: Database
) -> None:
    ran = mailer("clients", "import", write(f"phone,name\n{PHONE},x\n"), *options, code=2)
    assert said in ran.err and ran.err.count("error: ") == 1


# cells and lines


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n{PHONE},916,vip\n",
        f"{HEADER}\n{PHONE},916,vip,,,\n",
        f"{HEADER},\n{PHONE},916,vip,\n",
        f"{HEADER},\n{PHONE},916,vip,,\n",
        f"{HEADER},,,\n{PHONE},916,vip\n",
        f"{HEADER}\n{PHONE},916,vip,,\u00a0,\ufeff\n",
        f'{HEADER}\n="{PHONE}",="916",="vip",=""\n',
        f'{HEADER}\n"=""{PHONE}""",916,vip\n',
        f"{HEADER}\n'{PHONE},'916,vip,\n",
        f"{HEADER}\n{PHONE}.0,916,vip\n",
        f"\ufeff{HEADER}\n\u202a{PHONE}\u202c,916\u00a0,v\u00adip\u200b,\u200b\n",
        f"sep=,\n{HEADER}\n{PHONE},916,vip,\n",
        f'\ufeff"SEP=,"\r\n{HEADER}\r\n{PHONE},916,vip,\r\n',
        f"\nsep=|\n\n{HEADER}\n{PHONE},916,vip\n".replace(",", "|"),
        f"sep=\t\n{HEADER}\n{PHONE},916,vip\n".replace(",", "\t"),
        f"sep=;;;;\n{HEADER}\n{PHONE},916,vip\n".replace(",", ";"),
    ],
    ids=ascii,
)
def test_a_list_as_a_spreadsheet_writes_it_is_read(text: str, mailer: Mailer, database: Database) -> None:
    ran = mailer("clients", "import", write(text))
    assert (stored(mailer), ran.err) == ({PHONE: ("916", "vip", "Europe/Moscow")}, "")


def test_excel_drops_empty_cells_at_the_end_in_blocks(mailer: Mailer, database: Database) -> None:
    rows = [f"7916{number:07},916,vip" + (",,," if number < 16 else "") for number in range(40)]
    write("\n".join(["phone,operator_code,tag,timezone,name,city", *rows]))
    assert counts(mailer("clients", "import", "list.csv", "--json")) == (40, 0, 0, 0, 40)


def test_a_cell_too_many_with_something_in_it_costs_its_row(mailer: Mailer, database: Database) -> None:
    write(f"phone,tag,\n{PHONE},vip,,,new\n79161234502,vip,new\n79161234503,vip\n")
    ran = mailer("clients", "import", "list.csv", "--skip-invalid")
    assert ran.out.startswith("line 2: 5 fields instead of 2\nline 3: 3 fields instead of 2\n1 new")


@pytest.mark.parametrize("size", [1, 7, 64, BUFFER])
@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ('"Bob "the" Smith"', 'a quote inside quotes is not written ""'),
        ('"never closed', "a quote has no partner"),
        ("x" * 140_000, "a cell is longer than 131,072 characters"),
        ('"' + "x" * 140_000 + '"', "a cell is longer than 131,072 characters"),
        (",x" * 150_000, "the line is longer than 262,144 characters"),
    ],
    ids=["stray", "open", "big", "big-quoted", "many"],
)
def test_an_unreadable_cell_costs_its_row_and_not_the_list(
    size: int, cell: str, reason: str, mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if size < 64 and len(cell) > 1_000:
        pytest.skip("a step for each character")
    monkeypatch.setattr("mailer_cli.csv_import.lines.BUFFER", size)
    write(
        f'phone,name,tag\n79161234501,"two\nlines",a\n79161234502,{cell},b\n79161234503,"",c\n79161234504,x\n'
    )
    ran = mailer("clients", "import", "list.csv", "--skip-invalid", "--rejects", "bad.csv")
    assert ran.out.startswith(f"line 4: {reason}\n") and "3 new, 0 changed, 0 same, 1 rejected" in ran.out
    assert {phone[-1]: tag for phone, (_, tag, _) in stored(mailer).items()} == {"1": "a", "3": "c", "4": ""}
    kept = Path("bad.csv").read_text().splitlines()
    assert len(kept) == 2 and kept[1].startswith("79161234502,") and kept[0] == "phone,name,tag,line,reason"


def test_a_quote_without_a_partner_swallows_no_row_in_silence(mailer: Mailer, database: Database) -> None:
    rows = [f"7916000{number:04},note {number}" for number in range(2_000)]
    write("\n".join(["phone,note", f'{PHONE},"oops', *rows, '79170000001,5" pipe', ""]))
    ran = mailer("clients", "import", "list.csv", code=1)
    assert ran.out.startswith("line 2: a quote has no partner\n") and "refused: 1 of 2,002 rows" in ran.out


def test_two_stray_quotes_that_seem_to_be_partners_are_told_apart_from_a_cell_of_lines(
    mailer: Mailer, database: Database
) -> None:
    write(f'phone,note\n{PHONE},"oops\n79160000001,x\n79160000002,5"\n79160000003,"so,\nand so"\n')
    ran = mailer("clients", "import", "list.csv", code=1)
    assert ran.out.startswith("line 2: a quote has no partner, and swallows other rows\nrefused: 1 of 2 rows")


def test_every_line_with_an_open_quote_is_a_fault_of_its_own(mailer: Mailer, database: Database) -> None:
    rows = [f'7916{number:07},"x' for number in range(3_000)]
    write("\n".join(["phone,note", *rows, ""]))
    ran = mailer("clients", "import", "list.csv", "--json", code=1)
    assert ran.json["rejected"] == 3_000


def test_a_cell_of_lines_may_be_cut_anywhere(mailer: Mailer, database: Database) -> None:
    cell = "\r\n".join(f"line {number}" for number in range(500))
    rows = [f'79160000{number:03},"{cell}"' for number in range(200)]
    write("\r\n".join(["phone,note", *rows]))
    assert counts(mailer("clients", "import", "list.csv", "--json")) == (200, 0, 0, 0, 200)


# endless lines


class Endless:
    """A file of so many bytes, of which nobody holds all."""

    def __init__(self, begin: bytes, middle: bytes, size: int, end: bytes) -> None:
        self.pieces = self.all(begin, middle, size, end)
        self.held = b""

    def all(self, begin: bytes, middle: bytes, size: int, end: bytes) -> Iterator[bytes]:
        yield begin
        for _ in range(size // len(middle)):
            yield middle
        yield end

    def read(self, size: int = -1) -> bytes:
        while len(self.held) < size and (piece := next(self.pieces, b"")):
            self.held += piece
        piece, self.held = self.held[:size], self.held[size:]
        return piece


@pytest.mark.parametrize(
    ("begin", "middle"),
    [
        ("a", b"," * (1 << 14)),
        ("a", b"x" * (1 << 14)),
        ("", b'"",' * (1 << 14)),
        ('"', b'\n","' * (1 << 12)),
        ("a\n", b"," * 8_000 + b"\n"),
        ("a\n", b",\n" * (1 << 12)),
    ],
    ids=["commas", "word", "quotes", "quoted-lines", "wide-rows", "empty-rows"],
)
def test_memory_does_not_grow_with_what_is_no_row(
    begin: str, middle: bytes, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lines.BUFFER", "lines.LONGEST", "records.LONGEST"):
        monkeypatch.setattr(f"mailer_cli.csv_import.{name}", 1 << 14)

    def peak(size: int) -> int:
        import tracemalloc

        file = Endless(b"phone,tag\n79161234501," + begin.encode(), middle, size, b"\n79161234502,b\n")
        tracemalloc.start()
        options = Options(skip_invalid=True, dry_run=True)
        source = Source(cast(BinaryIO, file), "list")
        csv_import.import_clients(database, source, options, None, "UTC", NOW)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    assert peak(1 << 19) < peak(1 << 17) + (1 << 18)


def test_an_endless_line_is_named_and_the_others_are_taken(database: Database) -> None:
    file = Endless(b"phone,tag\n79161234501,a\n79161234503", b"," * (1 << 16), 8 << 20, b"\n79161234502,b\n")
    source = Source(cast(BinaryIO, file), "list")
    found = csv_import.import_clients(database, source, Options(skip_invalid=True), None, "UTC", NOW)
    assert [(each.line, each.fault.reason) for each in found.faults.first] == [
        (3, f"the line is longer than {LONGEST:,} characters")
    ]
    assert [each.phone for each in clients.listed(database, clients.Wanted())] == [79161234502, 79161234501]


@pytest.mark.parametrize("middle", [b"," * (1 << 14), b"\n" * (1 << 14)], ids=["commas", "nothing"])
def test_an_endless_header_is_refused(middle: bytes, database: Database) -> None:
    source = Source(cast(BinaryIO, Endless(b"", middle, 2 << 20, b"")), "list")
    with pytest.raises(Invalid, match=r"line 1 of list is longer than|list is empty"):
        csv_import.import_clients(database, source, Options(), None, "UTC", NOW)


def test_rejects_of_unreadable_rows_can_be_mended_and_imported(mailer: Mailer, database: Database) -> None:
    write('phone;tag\n79161234501;"a "b" c"\n79161234502;"x\n')
    mailer("clients", "import", "list.csv", "--rejects", "bad.csv", code=1)
    with Path("bad.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert [(row["phone"], row["line"]) for row in rows] == [("79161234501", "2"), ("79161234502", "3")]
    assert counts(mailer("clients", "import", "bad.csv", "--json")) == (2, 0, 0, 0, 2)


def test_an_export_with_a_mark_is_an_import(mailer: Mailer, database: Database) -> None:
    mailer("clients", "import", write(f"{HEADER}\n{PHONE},916,новые,UTC\n"))
    text = io.StringIO(mailer("clients", "export").out)
    Path("marked.csv").write_text(text.getvalue(), encoding="utf-8-sig")
    assert counts(mailer("clients", "import", "marked.csv", "--json")) == (0, 0, 1, 0, 1)
