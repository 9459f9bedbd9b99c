"""The log as a file: one object a line, nothing secret, never in the way of the work."""

import itertools
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mailer_cli.logs import Log, mask, open_log
from mailer_cli.settings import Settings

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)
FIELDS = {"run_id": 7, "mailing_id": 1, "message_id": 375809638400, "client_id": 79, "attempt": 1}


class Opened:
    """A log and what was warned of."""

    def __init__(self, log: str | None) -> None:
        self.warnings: list[str] = []
        settings = Settings(token="eyJ0.secret.part", log=log)
        ticks = (NOW + timedelta(seconds=number) for number in itertools.count())
        self.log: Log = open_log(settings, lambda: next(ticks), self.warnings.append)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    monkeypatch.chdir(tmp_path)
    found = Opened("mailer.log")
    yield found
    found.log.close()


def lines(name: str = "mailer.log") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def test_a_line_has_the_time_the_event_and_the_ids(opened: Opened) -> None:
    opened.log.write("request", **FIELDS)
    assert lines() == [{"at": "2026-01-02T03:04:05.678Z", "event": "request", **FIELDS}]


def test_a_line_break_in_a_value_breaks_no_line(opened: Opened) -> None:
    opened.log.write("answer", error="two\nlines \u2028 \x1b \ud800")
    opened.log.write("answer", error=None)
    assert [each["error"] for each in lines()] == ["two\nlines \u2028 \x1b \ud800", None]


def test_phones_are_masked_wherever_they_are_and_ids_are_kept(opened: Opened) -> None:
    opened.log.write("request", phone=79161234567, error="no route to 79161234567", message_id=79161234567)
    opened.log.write("request", phone=mask(79161234567))
    first, second = lines()
    assert first["phone"] == second["phone"] == "7916***4567"
    assert first["error"] == "no route to 7916***4567"
    assert first["message_id"] == 79161234567


def test_the_token_is_never_written(opened: Opened) -> None:
    opened.log.write(
        "answer", error="bad token eyJ0.secret.part", headers={"Authorization": "eyJ0.secret.part"}
    )
    assert "secret" not in Path("mailer.log").read_text()


def test_moments_and_foreign_values_are_written_readably(opened: Opened) -> None:
    opened.log.write("run", due_at=NOW, path=Path("/x"))
    assert (lines()[0]["due_at"], lines()[0]["path"]) == ("2026-01-02T03:04:05.678Z", "/x")


def test_lines_are_appended_and_the_file_is_the_operators_alone(opened: Opened) -> None:
    Path("mailer.log").write_text('{"old": 1}\n')
    Path("mailer.log").unlink()
    old = os.umask(0)
    try:
        opened.log.write("one")
    finally:
        os.umask(old)
    other = Opened("mailer.log")
    other.log.write("two")
    other.log.close()
    opened.log.write("three")
    assert [each["event"] for each in lines()] == ["one", "two", "three"]
    assert Path("mailer.log").stat().st_mode & 0o777 == 0o600


def test_the_log_follows_its_name_when_logrotate_renames_it(opened: Opened) -> None:
    opened.log.write("before")
    Path("mailer.log").rename("mailer.log.1")
    opened.log.write("after")
    Path("mailer.log").unlink()
    opened.log.write("again")
    assert [each["event"] for each in lines("mailer.log.1")] == ["before"]
    assert [each["event"] for each in lines()] == ["again"]


def test_without_a_setting_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Opened(None).log.write("request", **FIELDS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [".", "nowhere/mailer.log", "/proc/mailer.log", "/dev/full"])
def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = Opened(path)
    for _ in range(3):
        broken.log.write("request", **FIELDS)
    broken.log.close()
    (warning,) = broken.warnings
    assert f"cannot write the log {path}" in warning


def test_a_pipe_that_nobody_reads_is_no_reason_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("mailer.log")
    stuck = Opened("mailer.log")
    stuck.log.write("request")
    assert len(stuck.warnings) == 1


def test_a_log_that_can_be_written_again_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    late = Opened("logs/mailer.log")
    late.log.write("lost")
    Path("logs").mkdir()
    late.log.write("kept")
    late.log.close()
    assert [each["event"] for each in lines("logs/mailer.log")] == ["kept"]


def test_a_line_that_a_full_disk_has_cut_does_not_spoil_the_next(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, line: whole(file, line[:20]))
    opened.log.write("cut")
    monkeypatch.setattr(os, "write", whole)
    opened.log.write("whole")
    assert json.loads(Path("mailer.log").read_text().splitlines()[1])["event"] == "whole"
    assert opened.warnings == [
        "cannot write the log mailer.log: the disk is full; the work goes on without it"
    ]


def test_lines_of_several_processes_do_not_mix(opened: Opened) -> None:
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            mine = Opened("mailer.log")
            for _ in range(500):
                mine.log.write("request", number=number, filler="x" * 300)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    assert len(lines()) == 2000


def test_a_line_is_cheap(opened: Opened) -> None:
    opened.log.write("request", **FIELDS)
    begun = time.process_time()
    for _ in range(2000):
        opened.log.write("answer", **FIELDS, outcome="ok", http_status=200, code=0, error=None)
    each = (time.process_time() - begun) / 2000
    assert each < 100e-6  # about 14 us here; the bound is for busy machines
