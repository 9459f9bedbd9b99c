"""The stop list is seen, and goes with the list of clients: out, and in elsewhere."""

from pathlib import Path

import pytest
from sqlalchemy import event

from mailer_cli import clients
from mailer_cli.database import Database
from tests.conftest import Mailer
from tests.test_clients import OTHER, PHONE, mail_everybody, messages, two

__all__ = ["two"]  # the fixture

NOBODY = "79990001234"  # on the stop list, and no client's
HEADER = "phone,operator_code,tag,timezone,status"


@pytest.fixture
def stopped(two: Mailer) -> Mailer:
    """Client 1, PHONE, is blocked, and so is the number of nobody."""
    two("clients", "block", 1, "--phone", NOBODY)
    return two


def elsewhere(mailer: Mailer, *arguments: str) -> Mailer:
    """Another database in the same folder."""
    mailer("--database", "other.db", "init")
    return lambda *given, **more: mailer("--database", "other.db", *given, **more)


def phones_of(mailer: Mailer, status: str) -> list[str]:
    return [each["phone"] for each in mailer("clients", "list", "--status", status, "--json").json]


def test_json_tells_who_is_blocked(stopped: Mailer) -> None:
    assert stopped("clients", "show", 1, "--json").json["status"] == "blocked"
    assert [each["status"] for each in stopped("clients", "list", "--json").json] == ["active", "blocked"]
    stopped("clients", "remove", 2, "--yes")
    assert stopped("clients", "list", "--status", "removed", "--json").json[0]["status"] == "removed"


def test_a_blocked_number_that_is_no_client_is_seen(stopped: Mailer) -> None:
    found = stopped("clients", "list", "--status", "blocked", "--json").json
    assert [each["phone"] for each in found] == [PHONE, NOBODY]
    del found[1]["created_at"], found[1]["updated_at"]
    nothing = {"id": None, "operator_code": "", "tag": "", "timezone": ""}
    assert found[1] == nothing | {"phone": NOBODY, "status": "blocked"}
    assert NOBODY in stopped("clients", "list", "--status", "blocked").out
    assert phones_of(stopped, "active") == [OTHER]
    asked = ("clients", "list", "--status", "blocked", "--json")
    assert [each["phone"] for each in stopped(*asked, "--phone", NOBODY).json] == [NOBODY]
    assert [each["phone"] for each in stopped(*asked, "--tag", "vip").json] == [PHONE]
    assert [each["phone"] for each in stopped(*asked, "--limit", 1).json] == [PHONE]
    stopped("clients", "remove", 1, "--yes")
    assert phones_of(stopped, "blocked") == sorted([PHONE, NOBODY])


def test_the_stop_list_is_read_in_pages_by_its_key(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailer_cli.clients.listing.PAGE", 2)
    numbers = [str(79990000000 + each) for each in range(5)]
    mailer("clients", "block", *(word for each in numbers for word in ("--phone", each)))
    asked: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    pages = [[row.phone for row in page] for page in clients.stopped(database, clients.Wanted(), 4)]
    assert pages == [[int(each) for each in numbers[:2]], [int(each) for each in numbers[2:4]]]
    assert len(asked) == 2 and all("block.phone > ?" in each for each in asked)


def test_an_export_marks_who_is_blocked_and_brings_the_numbers_of_nobody(
    stopped: Mailer, folder: Path
) -> None:
    said = stopped("clients", "export", "list.csv").out
    assert "2 clients, and 1 blocked number of nobody" in said
    assert (folder / "list.csv").read_text().splitlines() == [
        HEADER,
        f"{OTHER},903,,Asia/Omsk,active",
        f"{PHONE},916,vip,Europe/Moscow,blocked",
        f"{NOBODY},,,,blocked",
    ]
    assert stopped("clients", "export", "--status", "active").out.splitlines()[1:] == [
        f"{OTHER},903,,Asia/Omsk,active"
    ]
    assert NOBODY not in stopped("clients", "export", "--tag", "vip").out
    assert len(stopped("clients", "export", "--status", "blocked").out.splitlines()) == 3


def test_whoever_was_blocked_is_blocked_after_an_import_elsewhere(stopped: Mailer) -> None:
    stopped("clients", "export", "list.csv")
    other = elsewhere(stopped)
    ran = other("clients", "import", "list.csv", "--json").json
    assert (ran["new"], ran["same"], ran["blocked"], ran["default_timezone"]) == (2, 1, 2, 0)
    assert phones_of(other, "blocked") == [PHONE, NOBODY]
    assert phones_of(other, "active") == [OTHER]
    assert len(other("clients", "list", "--json").json) == 2  # nobody became a client
    again = other("clients", "import", "list.csv", "--json").json
    assert (again["new"], again["changed"], again["same"], again["blocked"]) == (0, 0, 3, 0)


@pytest.mark.parametrize("status", ["active", ""])
def test_an_import_unblocks_nobody(stopped: Mailer, folder: Path, status: str) -> None:
    (folder / "list.csv").write_text(f"phone,status\n{PHONE},{status}\n{NOBODY},{status}\n")
    assert stopped("clients", "import", "list.csv", "--json").json["new"] == 1
    assert sorted(phones_of(stopped, "blocked")) == sorted([PHONE, NOBODY])


@pytest.mark.parametrize("conflict", ["update", "skip"])
def test_a_block_by_a_list_ends_what_waits(
    two: Mailer, database: Database, folder: Path, conflict: str
) -> None:
    mail_everybody(database)
    (folder / "list.csv").write_text(f"status;phone\n\u00a0Blocked ;{PHONE}\n")
    dry = two("clients", "import", "list.csv", "--dry-run")
    assert "would be put on the stop list: 1" in dry.out
    assert messages(database)[0][1] == "pending"
    said = two("clients", "import", "list.csv", "--on-conflict", conflict).out
    assert "were put on the stop list: 1" in said
    assert [each[1:3] for each in messages(database)] == [("cancelled", "client blocked"), ("pending", None)]


def test_a_status_that_says_neither_is_refused(two: Mailer, folder: Path) -> None:
    (folder / "list.csv").write_text(f"phone,status\n{NOBODY},blockd\n{PHONE},blocked\n")
    said = two("clients", "import", "list.csv", code=1).out
    assert "line 2: status 'blockd' is neither active nor blocked" in said
    assert phones_of(two, "blocked") == []


def test_two_rows_that_contradict_each_other_are_told(two: Mailer, folder: Path) -> None:
    (folder / "list.csv").write_text(f"phone,status\n{PHONE},active\n{PHONE},blocked\n")
    assert "line 3: phone of line 2, other values" in two("clients", "import", "list.csv", code=1).out
