"""The machine's own zone: what `date` shows and `timedatectl` changes goes before what is noted beside it."""

import re
from pathlib import Path
from zoneinfo import TZPATH

import pytest

from mailer_cli import system_zone
from mailer_cli.system_zone import SystemZone, find
from tests.conftest import Mailer

LINK = "/usr/share/zoneinfo/Asia/Kolkata"


def content(name: str) -> bytes:
    return next(Path(root, name).read_bytes() for root in TZPATH if Path(root, name).exists())


def machine(
    etc: Path, noted: str | None = None, link: str | None = None, copied: bytes | None = None
) -> Path:
    if noted is not None:
        (etc / "timezone").write_text(noted, encoding="utf-8")
    if link is not None:
        (etc / "localtime").symlink_to(link)
    if copied is not None:
        (etc / "localtime").write_bytes(copied)
    return etc


@pytest.mark.parametrize(
    ("tz", "name"),
    [
        ("Asia/Tokyo", "Asia/Tokyo"),
        (":Asia/Tokyo", "Asia/Tokyo"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        (":/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("/usr/share/zoneinfo/posix/Asia/Tokyo", "Asia/Tokyo"),
        ("MSK-3", "+03:00"),
        ("<+0330>-3:30", "+03:30"),
        ("XYZ+05", "-05:00"),
        ("XYZ5", "-05:00"),
        ("UTC0", "UTC"),
        ("UTC", "UTC"),
        ("", "UTC"),
        (":", "UTC"),
        ("GMT0", "GMT0"),
        ("EST5EDT", "EST5EDT"),
        ("W-SU", "W-SU"),
    ],
)
def test_the_environment_goes_first_in_all_forms_that_date_obeys(tmp_path: Path, tz: str, name: str) -> None:
    etc = machine(tmp_path, "Europe/Berlin\n", LINK)
    assert find({"TZ": tz}, etc) == SystemZone(name, "TZ")


@pytest.mark.parametrize(
    "tz", ["Nowhere/At_All", "CET-1CEST,M3.5.0,M10.5.0/3", "+03:00", "MSK-25", "/etc/passwd", "/no/such", "Ж"]
)
def test_an_environment_that_names_no_zone_is_said_and_left_out(tmp_path: Path, tz: str) -> None:
    found = find({"TZ": tz}, machine(tmp_path, None, LINK))
    assert (found.name, found.source) == ("Asia/Kolkata", "/etc/localtime")
    assert tz in (found.doubt or "")


@pytest.mark.parametrize("tz", [None, ":/etc/localtime", "/etc/localtime"])
@pytest.mark.parametrize("noted", [None, "", "\n", "nonsense", "москва", "Asia/Kolkata", "Asia/Colombo"])
@pytest.mark.parametrize("link", [LINK, "../var/db/timezone/zoneinfo/Asia/Kolkata"])
def test_the_link_goes_before_the_note(tmp_path: Path, noted: str | None, link: str, tz: str | None) -> None:
    environment = {} if tz is None else {"TZ": tz}
    found = find(environment, machine(tmp_path, noted, link))
    assert found == SystemZone("Asia/Kolkata", "/etc/localtime")


def test_a_stale_note_is_said(tmp_path: Path) -> None:
    found = find({}, machine(tmp_path, "Europe/Moscow\n", LINK))
    assert found == SystemZone("Asia/Kolkata", "/etc/localtime", "/etc/timezone says Europe/Moscow")


def test_a_link_to_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "alternative").symlink_to(LINK)
    assert find({}, machine(tmp_path, None, str(tmp_path / "alternative"))).name == "Asia/Kolkata"


@pytest.mark.parametrize(
    ("noted", "name"),
    [(None, "Europe/Moscow"), ("W-SU", "W-SU"), ("Europe/Moscow", "Europe/Moscow"), ("", "Europe/Moscow")],
)
def test_a_copied_file_is_known_by_its_content(tmp_path: Path, noted: str | None, name: str) -> None:
    found = find({}, machine(tmp_path, noted, copied=content("Europe/Moscow")))
    assert found == SystemZone(name, "/etc/localtime")


def test_a_copied_file_goes_before_a_stale_note(tmp_path: Path) -> None:
    found = find({}, machine(tmp_path, "Etc/UTC\n", copied=content("Europe/Moscow")))
    assert found == SystemZone("Europe/Moscow", "/etc/localtime", "/etc/timezone says Etc/UTC")
    assert find({}, machine(tmp_path, copied=content("Etc/UTC"))).name in ("UTC", "Etc/UTC")


def test_a_file_of_older_zone_data_is_the_note_s_if_their_clocks_agree(tmp_path: Path) -> None:
    other = content("Europe/Moscow").replace(b"\nMSK-3\n", b"\nXYZ-3\n")
    found = find({}, machine(tmp_path, "Europe/Moscow\n", copied=other))
    assert found == SystemZone("Europe/Moscow", "/etc/timezone")
    (tmp_path / "timezone").unlink()
    assert find({}, tmp_path) == SystemZone("+03:00", "/etc/localtime")


@pytest.mark.parametrize("noted", [None, "Europe/Moscow"])
def test_a_file_that_no_zone_has_is_said(tmp_path: Path, noted: str | None) -> None:
    rules = re.sub(rb"\nCET.*\n\Z", b"\nCET-1CEST,M4.5.0,M10.5.0/3\n", content("Europe/Berlin"))
    assert rules != content("Europe/Berlin")
    found = find({}, machine(tmp_path, noted, copied=rules))
    assert found.name == (noted or "UTC")
    assert found.doubt == "/etc/localtime is the file of no zone that is known here"


def test_a_note_alone_is_taken_and_said(tmp_path: Path) -> None:
    found = find({}, machine(tmp_path, "Europe/Moscow\n"))
    assert (found.name, found.source) == ("Europe/Moscow", "/etc/timezone")
    assert found.doubt == "there is no /etc/localtime, so other programs take UTC"
    assert find({}, machine(tmp_path, "Etc/UTC\n")) == SystemZone("Etc/UTC", "/etc/timezone")


def test_a_machine_that_names_no_zone_is_in_utc(tmp_path: Path) -> None:
    assert find({}, tmp_path) == SystemZone("UTC", "no file of /etc")


def test_init_says_which_zone_it_took_and_how_to_change_it(mailer: Mailer) -> None:
    told = mailer("init").out
    assert "time zone Europe/Moscow, from TZ: times are in it, and clients without one get it" in told
    assert "MAILER_TIMEZONE" in told
    assert mailer("init", "--json").json["timezone"] == "Europe/Moscow"


def test_init_doctor_and_import_say_what_is_in_doubt(mailer: Mailer, monkeypatch: pytest.MonkeyPatch) -> None:
    doubted = SystemZone("Asia/Omsk", "/etc/localtime", "/etc/timezone says Europe/Moscow")
    monkeypatch.setattr(system_zone, "find", lambda: doubted)
    said = "/etc/timezone says Europe/Moscow; Asia/Omsk is taken for the time zone here, from /etc/localtime"
    assert said in mailer("init").err
    assert "warning" in next(line for line in mailer("doctor").out.splitlines() if "time zones" in line)
    Path("list.csv").write_text("phone,timezone\n79160000001,\n")
    assert said in mailer("clients", "import", "list.csv").err
    Path("list.csv").write_text("phone,timezone\n79160000001,UTC\n")
    assert mailer("clients", "import", "list.csv").err == ""
    assert mailer("clients", "list").err == ""
    monkeypatch.setenv("MAILER_TIMEZONE", "Asia/Omsk")
    assert "from MAILER_TIMEZONE" in mailer("init").out
    assert mailer("init").err == ""
