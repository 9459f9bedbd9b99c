"""The benchmark cannot rot, and does not believe a figure whose messages cannot be found again."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import measure, rate, sink, speed, table
from benchmarks.given import Given, or_void
from benchmarks.measure import Prepared, Recorded, Void
from benchmarks.peers import PEERS, Peer
from benchmarks.table import Row

ROOT = Path(__file__).parents[1]
HONEST = """
import sys, urllib.request
for number in map(int, sys.argv[2:]):
    body = b'{"id": %d, "phone": 79000000000, "text": "x"}' % number
    headers = {"Authorization": "Bearer a.b.c", "Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(sys.argv[1] + str(number), body, headers)).read()
"""


class Sends:
    """A contender that posts these ids, and says that it has recorded so many messages."""

    name = "sends"

    def __init__(self, *ids: int, recorded: int, code: str = HONEST) -> None:
        self.ids, self.claims, self.code = ids, recorded, code

    def missing(self) -> None:
        return None

    @contextmanager
    def prepared(self, folder: Path, messages: int, url: str) -> Iterator[Prepared]:
        command = [sys.executable, "-c", self.code, url, *map(str, self.ids)]
        yield Prepared([command], lambda: Recorded(self.claims))


def round_of(contender: Sends, wanted: int, limit: float = 60, kind: str = "sandbox") -> measure.Measured:
    return measure.once(contender, wanted, sink=kind, limit=limit)


@pytest.mark.timeout(300)
def test_the_command_prints_dispatch_beside_a_loop(tmp_path: Path) -> None:
    written = tmp_path / "rows.json"
    tiny = ["--messages", "50", "--rounds", "1", "--sink", "sandbox", "--json", str(written)]
    command = [sys.executable, "-m", "benchmarks", "--only", "loop", "database", "crowd", *tiny]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = json.loads(written.read_text())["rows"]
    assert [each["what"] for each in rows if each["what"] not in ran.stdout] == []
    loop, *shares, beside_client, beside_client_at_50_ms, one, hundred, thousands = rows
    assert min(each["ratio"] for each in (one, hundred, thousands)) > 0
    assert min(each["ratio"] for each in (loop, beside_client, beside_client_at_50_ms)) > 0
    assert [0 < each["ratio"] < 1 for each in shares] == [True, True]


NGINX = pytest.param("nginx", marks=pytest.mark.skipif(sink.why_no_nginx() is not None, reason="no nginx"))


@pytest.fixture
def private_files() -> Iterator[None]:
    """What is made now is the maker's alone: a sink that has fewer rights must get its own files."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("private_files")
@pytest.mark.parametrize("kind", ["sandbox", NGINX])
def test_a_round_counts_time_cpu_and_memory(kind: str) -> None:
    found = round_of(Sends(1, 2, 3, recorded=3), 3, kind=kind)
    assert (found.messages, sorted(number for _, number in found.entries)) == (3, [1, 2, 3])
    assert 0 < found.cpu < 30
    assert 0 <= found.span < found.seconds < 60
    assert found.memory > 1_000_000


@pytest.mark.parametrize(
    ("accepted", "recorded", "said"),
    [
        ([1, 2], Recorded(3), "accepted 2"),  # recorded as sent, and lost
        ([1, 2, 3], Recorded(2), "recorded 2"),  # sent, and not recorded
        ([1, 2, 3, 3], Recorded(3), "requests 4"),  # sent twice
        ([1, 2, 2], Recorded(3), "accepted 2"),  # as many requests as wanted, and one lost
        ([1, 2], Recorded(2), "wanted 3"),  # not all of the work
        ([1, 2, 3], Recorded(3, said=4), "said 4"),
    ],
)
def test_a_figure_is_void_when_a_message_is_missing_or_too_much(
    accepted: list[int], recorded: Recorded, said: str
) -> None:
    with pytest.raises(Void, match=said):
        measure.require_whole(3, recorded, [(0, number) for number in accepted])


def test_nothing_done_is_no_figure_either() -> None:
    with pytest.raises(Void):
        measure.require_whole(0, Recorded(0), [])


@pytest.mark.parametrize(
    ("contender", "said"),
    [
        (Sends(1, 2, recorded=3), "accepted 2"),
        (Sends(recorded=3, code="raise SystemExit(7)"), "exit 7"),
    ],
)
def test_a_round_that_loses_a_message_or_fails_is_void(contender: Sends, said: str) -> None:
    with pytest.raises(Void, match=said):
        round_of(contender, 3)


def given(folder: Path) -> Given:
    return Given(messages=3, rounds=1, rows=1, pending=1, full=False, sink="sandbox", folder=folder)


@pytest.mark.parametrize(("recorded", "code", "printed"), [(2, 1, "VOID: wanted 3"), (3, 0, "2 x")])
def test_a_void_figure_is_printed_as_void_and_is_no_success(
    recorded: int,
    code: int,
    printed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measured(row: Row) -> Row:
        measure.require_whole(3, Recorded(recorded), [(0, 1), (0, 2), (0, 3)])
        return replace(row, ratio=2.0, note="2 x")

    def section(asked: Given) -> Iterator[Row]:
        yield or_void(Row("this against that", None, ">= 1 x"), measured)

    monkeypatch.setitem(program.SECTIONS, "this", section)
    assert program.measure(given(tmp_path), ["this"], None, None) == code
    assert printed in capsys.readouterr().out


def test_a_peer_whose_library_is_missing_is_a_row_that_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PEERS, "other", Peer("another queue", "huey_sqlite", needs=("no_such_library",)))
    (row,) = speed.beside_peer("other", given(tmp_path))
    assert (row.ratio, row.is_void) == (None, False)
    assert "pip install" in row.note


def test_a_round_that_hangs_is_ended_and_void() -> None:
    with pytest.raises(Void, match="not done in time"):
        round_of(Sends(recorded=3, code="import time; time.sleep(50)"), 3, limit=0.2)


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (b"1700000000.123 200 POST 70 /v1/send/7", (1_700_000_000_123, 7)),
        (b"1700000000.123 401 POST 70 /v1/send/7", None),  # no token
        (b"1700000000.123 200 POST - /v1/send/7", None),  # no body
        (b"1700000000.123 200 GET 70 /v1/send/7", None),
    ],
)
def test_nginx_has_accepted_what_it_answered_with_200(line: bytes, entry: sink.Entry | None) -> None:
    assert sink.in_access_log(line) == entry


def test_the_sandbox_has_accepted_what_its_ledger_says() -> None:
    line = {"at": "2023-11-14T22:13:20.123000+00:00", "id": 7, "accepted": True}
    assert sink.in_ledger(json.dumps(line).encode()) == (1_700_000_000_123, 7)
    assert sink.in_ledger(json.dumps(line | {"accepted": False}).encode()) is None


def test_the_busiest_second_may_begin_anywhere() -> None:
    assert rate.busiest_second([0, 500, 999, 1000, 1400, 1999]) == 4  # 500 to 1400
    assert rate.busiest_second([5000, 0, 1000]) == 1  # a second is less than 1000 ms apart
    assert rate.busiest_second([]) == 0


@pytest.mark.parametrize(
    ("ratio", "bar", "goal", "verdict"),
    [
        (2.9, ">= 3 x", ">= 7 x", "MISSED"),
        (3.0, ">= 3 x", ">= 7 x", "ok"),
        (7.1, ">= 3 x", ">= 7 x", "goal"),
        (0.09, "<= 8 %", "<= 4 %", "MISSED"),
        (0.04, "<= 8 %", "<= 4 %", "goal"),
        (0.3, "< 0.3 s", "", "MISSED"),
        (5.0, "", "", ""),
        (None, ">= 3 x", "", ""),
    ],
)
def test_the_verdict_follows_from_the_bar(ratio: float | None, bar: str, goal: str, verdict: str) -> None:
    assert Row("x", ratio, bar, goal).verdict == verdict


def test_numbers_are_printed_with_three_digits() -> None:
    found = [table.number(each) for each in (1548.3, 99.96, 7.0, 0.0312, 0, 1_000_000)]
    assert found == ["1,548", "100", "7", "0.0312", "0", "1,000,000"]
