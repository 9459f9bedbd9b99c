"""The printed entries, read as cron, the shell and systemd read them."""

import configparser
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mailer_cli import schedule
from mailer_cli.errors import Invalid
from mailer_cli.schedule import Installation
from tests.conftest import Mailer

EXAMPLE = Path(__file__).parents[1] / "crontab.example"
USUAL = Installation(
    ["/opt/mailer/bin/mailer", "-C", "/srv/mailer"], Path("/srv/mailer"), [Path("/srv/mailer")], "mailer"
)
ODD_NAMES = [
    "plain",
    "my mailer",
    "100%",
    "it's",
    'a "quote"',
    "$HOME",
    "back\\slash",
    "semi;colon",
    "%h",
    "#1",
]


def entries(crontab: str) -> list[str]:
    """The command lines of a crontab, switched off or not."""
    return [
        line.lstrip("#") for line in crontab.splitlines() if re.match(r"#?[\d*/]+ [\d*]+ \S+ \S+ \S+ ", line)
    ]


def as_cron_runs(entry: str) -> str:
    """What cron hands to the shell: up to the first bare `%`, and a `%` for each `\\%`."""
    command = entry.split(maxsplit=5)[5]
    return re.split(r"(?<!\\)%", command)[0].replace(r"\%", "%")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_cron_and_the_shell_start_the_right_program_in_the_right_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    program = folder / "mailer"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o700)
    here = Installation([str(program), "-C", str(folder)], folder, [folder], "mailer")
    dispatch, _, backup, *_ = entries(schedule.crontab(here))
    expected = ["-C", str(folder), "dispatch", "--quiet"]
    assert shell(as_cron_runs(dispatch)) == expected
    day = subprocess.run(["date", "+%u"], capture_output=True, text=True).stdout.strip()
    assert shell(as_cron_runs(backup))[-1] == f"{folder}/backups/mailer-{day}.db"


def shell(command: str) -> list[str]:
    found = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, cwd="/", env={"PATH": "/bin:/usr/bin"}
    )
    assert found.stderr == ""
    return found.stdout.splitlines()


def test_the_example_is_what_the_command_prints() -> None:
    assert EXAMPLE.read_text() == schedule.crontab(USUAL)


def test_the_example_sets_what_cron_lacks_and_uses_absolute_paths() -> None:
    lines = EXAMPLE.read_text().splitlines()
    assert "MAILTO=root" in lines
    assert any(line.startswith("PATH=/") for line in lines)
    active = [line for line in lines if line.startswith("*")]
    assert active == ["* * * * * /opt/mailer/bin/mailer -C /srv/mailer dispatch --quiet"]
    assert all(each.split()[5].startswith("/") for each in entries(EXAMPLE.read_text()))


def test_the_commands_of_the_crontab_are_known_to_the_program(mailer: Mailer) -> None:
    for entry in entries(EXAMPLE.read_text()):
        words = as_cron_runs(entry).split()[3:]
        noun = [each for each in words[:2] if each.isalpha()]
        shown = mailer(*noun, "--help").out
        assert all(option in shown for option in words if option.startswith("--"))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_systemd_starts_the_right_program_with_the_right_words(tmp_path: Path, name: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    folder = tmp_path / name
    folder.mkdir()
    program = tmp_path / ("mailer %h $x" if set(name) & set("'\"\\") else f"{name} mailer")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    here = Installation([str(program), "-C", str(folder)], folder, [folder], "daemon")
    (tmp_path / "mailer.service").write_text(schedule.service(here))
    (tmp_path / "mailer.timer").write_text(schedule.timer())
    verified = subprocess.run(
        ["systemd-analyze", "verify", "./mailer.service", "./mailer.timer"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    program.unlink()  # verify names the program that it does not find: the one that we mean
    missing = subprocess.run(
        ["systemd-analyze", "verify", "./mailer.service"], cwd=tmp_path, capture_output=True, text=True
    )
    assert f"Command {program} is not executable" in missing.stderr


def test_the_service_is_well_locked_up(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    (tmp_path / "mailer.service").write_text(schedule.service(USUAL))
    security = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "./mailer.service"]
    judged = subprocess.run(security, cwd=tmp_path, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout[-300:]


def unit(text: str) -> configparser.RawConfigParser:
    found = configparser.RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(text)
    return found


def test_the_service_has_time_to_finish_and_only_its_folders_to_write() -> None:
    here = Installation(
        ["/opt/mailer"], Path("/srv"), [Path("/srv/a b"), Path("/var/log/m")], "mailer", 120, 60
    )
    service = unit(schedule.service(here))["Service"]
    assert (service["TimeoutStartSec"], service["TimeoutStopSec"]) == ("210", "90")
    assert (service["Type"], service["KillMode"], service["User"]) == ("oneshot", "mixed", "mailer")
    assert service["ReadWritePaths"] == '"/srv/a b" /var/log/m'
    assert unit(schedule.timer())["Timer"]["OnCalendar"] == "minutely"


@pytest.mark.parametrize(
    ("path", "home", "tmp"),
    [
        ("/srv/m", "yes", "yes"),
        ("/home/ann/m", "read-only", "yes"),
        ("/root/m", "read-only", "yes"),
        ("/tmp/m", "yes", "no"),
    ],
)
def test_what_is_hidden_from_the_service_is_nothing_that_it_needs(path: str, home: str, tmp: str) -> None:
    for here in (
        Installation([f"{path}/mailer"], Path("/srv"), [Path("/srv")], "mailer"),
        Installation(["/opt/mailer"], Path("/srv"), [Path(path)], "mailer"),
        Installation(["/opt/mailer", "-C", path], Path(path), [Path("/srv")], "mailer"),
    ):
        service = unit(schedule.service(here))["Service"]
        assert (service["ProtectHome"], service["PrivateTmp"]) == (home, tmp)


def test_a_path_that_no_line_can_hold_is_refused() -> None:
    bad = Installation(["/opt/a\nb"], Path("/srv"), [Path("/srv")], "mailer")
    for write in (schedule.crontab, schedule.service):
        with pytest.raises(Invalid, match="cannot be written"):
            write(bad)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_words_of_a_unit_are_quoted_and_nothing_in_them_is_expanded(name: str) -> None:
    folder = f"/srv/{name}"
    here = Installation(["/opt/mailer", "-C", folder], Path(folder), [Path(folder)], "mailer")
    service = unit(schedule.service(here))["Service"]
    assert service["ExecStart"].startswith(":/opt/mailer ")  # the colon: no variables
    words = shlex.split(service["ExecStart"].replace("%%", "%"))  # its quoting is that of the shell here
    assert words == [":/opt/mailer", "-C", folder, "dispatch", "--quiet"]
    assert shlex.split(service["ReadWritePaths"].replace("%%", "%")) == [folder]


@pytest.mark.parametrize("path", ["/opt/it's", '/opt/"m"', "/opt/a\\b"])
def test_a_program_that_systemd_does_not_start_is_refused(path: str) -> None:
    with pytest.raises(Invalid, match="systemd starts no program"):
        schedule.service(Installation([path], Path("/srv"), [Path("/srv")], "mailer"))


def test_the_entries_are_for_this_folder_and_its_options(
    mailer: Mailer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("prod.env").write_text("MAILER_DATABASE=data/mailer.db\nMAILER_LOG=log/mailer.log\n")
    shown = mailer("--env-file", "prod.env", "schedule", "cron").out
    assert (
        f"* * * * * {sys.executable} -m mailer_cli -C {folder} --env-file {folder}/prod.env dispatch" in shown
    )
    printed = mailer("--env-file", "prod.env", "schedule", "systemd").out
    service = unit(printed.split("# /etc/systemd/system/mailer.timer")[0])["Service"]
    assert service["ReadWritePaths"] == f"{folder}/data {folder}/log"
    assert (
        mailer("--database", "x.db", "schedule", "cron", "--json").json["crontab"].count("--database x.db")
        == 3
    )


def test_the_entries_name_the_installed_program(
    mailer: Mailer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder / "mailer"
    program.touch()
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "argv", ["./mailer"])
    assert f"* * * * * {folder}/mailer -C {folder} dispatch" in mailer("schedule", "cron").out
    assert os.access(program, os.X_OK)
