"""Lists read in chunks: clean ones column by column, and nobody can tell the difference."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailer_cli import clients
from mailer_cli.csv_import import OnConflict, Source
from mailer_cli.csv_import.reading import Reading
from mailer_cli.csv_import.records import Chunk, open_records
from mailer_cli.database import Database, insert_new
from mailer_cli.database.engine import ROWS_AT_ONCE
from tests.conftest import Mailer

PHONES = st.one_of(
    st.integers(69_999_999_990, 80_000_000_010).map(str),
    st.sampled_from(["79161234501", "79161234502", "+79161234503", "8 916 123 45 04", " 79161234505"]),
    st.sampled_from(
        ["", "7916123450", "٧٩١٦١٢٣٤٥٠٦", "7916123450x", "7_916_12345", "79161234501,79161234502"]
    ),
)
RECORDS = st.lists(
    st.one_of(
        st.tuples(
            PHONES, st.sampled_from(["", "vip", " vip", "a\nb", "\x07"]), st.sampled_from(["", "UTC", "X/Y"])
        ),
        st.tuples(st.sampled_from(["79161234507", "79161234508"]), st.just("vip"), st.just("UTC")),
    ),
    max_size=6,
)


@pytest.fixture
def reading(database: Database) -> Iterator[Reading]:
    header, _ = open_records(Source(io.BytesIO(b"phone,tag,timezone\n"), "list"), "utf-8")
    with database.bulk():
        yield Reading(database, header, OnConflict.UPDATE, None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(records=RECORDS, width=st.sampled_from([3, 3, 3, 2, 4]))
def test_what_is_checked_at_once_is_what_is_checked_one_by_one(
    records: list[tuple[str, str, str]], width: int, reading: Reading
) -> None:
    cells = [[*each, "more"][:width] for each in records]
    chunk = Chunk(range(2, 2 + len(cells)), cells)
    at_once, (one_by_one, faults) = reading._check_at_once(chunk), reading._check(chunk)
    assert at_once is None or (at_once == one_by_one and not faults)


def test_a_clean_list_is_checked_at_once(reading: Reading) -> None:
    chunk = Chunk([2, 4], [["79161234501", "vip", "UTC"], ["79161234502", "", ""]])
    assert reading._check_at_once(chunk) == [(79161234501, 2, 1), (79161234502, 4, 2)]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_each_record_knows_its_first_line_however_many_lines_it_has(
    size: int, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailer_cli.csv_import.lines.BUFFER", size)
    lines = ["phone,tag", "1,a", '2,"b', "", 'c"', "", '3,"d"', '4,"e', 'f"', "5,g"]
    _, chunks = open_records(Source(io.BytesIO(end.join(lines).encode()), "list"), "utf-8")
    found = [pair for each in chunks for pair in zip(each.lines, each.records, strict=True)]
    assert [(line, cells[:1]) for line, cells in found] == [
        (2, ["1"]),
        (3, ["2"]),
        (6, []),
        (7, ["3"]),
        (8, ["4"]),
        (10, ["5"]),
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_broken_list_names_the_line_on_which_the_record_begins(
    size: int, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailer_cli.csv_import.lines.BUFFER", size)
    mailer("init")
    Path("list.csv").write_text('phone,tag\n79161234501,"a\nb"\n79161234502,"never\nclosed\n')
    assert "\nline 4: a quote has no partner\n" in mailer("clients", "import", "list.csv", code=1).out


def test_a_zone_that_is_wrong_in_every_row_is_looked_for_once(
    mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    parse_zone = clients.parse_zone

    def counted(value: str) -> object:
        asked.append(value)
        return parse_zone(value)

    monkeypatch.setattr("mailer_cli.clients.parse_zone", counted)
    mailer("init")
    with Path("list.csv").open("w") as file:
        rows = [[79_160_000_000 + number, "Europe/Moskow"] for number in range(50)]
        csv.writer(file).writerows([["phone", "timezone"], *rows])
    assert mailer("clients", "import", "list.csv", "--json", code=1).json["rejected"] == 50
    assert asked == ["Europe/Moskow"]


@pytest.mark.parametrize("rows", [0, 1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 1])
def test_rows_go_in_by_many_in_their_order_and_the_first_of_two_wins(rows: int, database: Database) -> None:
    from mailer_cli.csv_import import staging

    given = [(70_000_000_000 + number // 2, number, 0) for number in range(rows)]
    with database.bulk(), database.read() as connection:
        staging.prepare(connection)
        assert insert_new(connection, staging.staged, given) == -(-rows // 2)
        assert list(connection.execute(staging.staged.select())) == given[::2]
