"""Root in somebody's folder: what it makes there is his, and what he cannot use is said."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer_cli import owners
from mailer_cli.database import Database
from tests.conftest import TOKEN, Mailer
from tests.rows import add_client, add_mailing, add_message
from tests.test_doctor import finding

SOMEBODY, HIS_GROUP = 54321, 54322

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter, which those of the tests are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name).resolve()


@pytest.fixture
def his(database: Database, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of somebody's, with his database and settings."""
    folder = place / "his"
    folder.mkdir(0o700)
    shutil.copy("mailer.db", folder)
    monkeypatch.chdir(folder)
    Path(".env").write_text(f"TOKEN={TOKEN}\nURL=http://127.0.0.1:9/\nMAILER_LOG=log\nMAILER_TIMEOUT=0.2\n")
    for each in (Path(".env"), Path("mailer.db")):
        each.chmod(0o600)
    for each in (folder, *folder.iterdir()):
        os.chown(each, SOMEBODY, HIS_GROUP)
    return folder


def owners_of(folder: Path) -> set[tuple[int, int]]:
    return {(each.stat().st_uid, each.stat().st_gid) for each in folder.iterdir()}


@as_root
@pytest.mark.parametrize("journal", ["truncate", "wal"])
def test_what_root_makes_beside_a_database_is_its_owners(mailer: Mailer, his: Path, journal: str) -> None:
    database = Database(Path("mailer.db"))
    with Path(".env").open("a") as file:
        file.write(f"MAILER_JOURNAL={journal}\n")
    add_message(database, add_mailing(database), add_client(database, 79161234567))
    mailer("db", "upgrade")
    mailer("clients", "add", "--phone", "79161234501")
    mailer("dispatch", code=69)
    mailer("db", "purge", "--older-than", "1d", "--yes")
    mailer("db", "backup", "/dev/null")
    mailer("db", "backup", str(his.parent / "copy.db"))
    mailer("db", "restore", str(his.parent / "copy.db"), "--yes")
    assert {"log", "mailer.db.lock"} <= {each.name for each in his.iterdir()}
    assert any("before-restore" in each.name for each in his.iterdir())
    assert owners_of(his) == {(SOMEBODY, HIS_GROUP)}


@as_root
def test_a_database_that_a_restore_brings_is_its_owners(mailer: Mailer, his: Path) -> None:
    copy = str(his.parent / "copy.db")
    mailer("db", "backup", copy)
    Path("mailer.db").write_bytes(b"garbage" * 999)
    mailer("db", "restore", copy, "--yes")
    assert owners_of(his) == {(SOMEBODY, HIS_GROUP)}
    Path("mailer.db").unlink()
    mailer("db", "restore", copy, "--yes")
    assert owners_of(his) == {(SOMEBODY, HIS_GROUP)}


@as_root
def test_what_root_makes_in_somebodys_folder_is_his_and_root_is_told(mailer: Mailer, folder: Path) -> None:
    Path(".env").unlink()
    os.chown(folder, SOMEBODY, HIS_GROUP)
    assert f"they are {SOMEBODY}'s, whose folder this is" in mailer("init").out
    assert {each.name for each in folder.iterdir()} >= {".env", "mailer.db"}
    assert owners_of(folder) == {(SOMEBODY, HIS_GROUP)}
    assert "whose folder" not in mailer("init").out


@as_root
def test_a_file_that_root_replaces_keeps_its_owner_and_a_new_one_is_roots(mailer: Mailer, his: Path) -> None:
    Path("list.csv").touch()
    os.chown("list.csv", SOMEBODY, HIS_GROUP)
    mailer("clients", "export", "list.csv", "--force")
    assert owners_of(his) == {(SOMEBODY, HIS_GROUP)}
    mailer("clients", "export", "new.csv")
    assert Path("new.csv").stat().st_uid == 0


@as_root
def test_no_link_makes_root_give_somebody_a_file(mailer: Mailer, his: Path) -> None:
    for name in ("log", "mailer.db.lock"):
        Path(name).unlink(missing_ok=True)
        Path(name).symlink_to(his.parent / "roots")
    ran = mailer("dispatch", code=74)
    assert "cannot open lock file" in ran.err and "link to nothing" in ran.err
    Path("mailer.db.lock").unlink()
    assert "it is a link to nothing" in mailer("clients", "add", "--phone", "79161234501").err
    assert not (his.parent / "roots").exists()


def test_a_database_is_not_made_through_a_link_to_nothing(mailer: Mailer, folder: Path) -> None:
    Path("mailer.db").symlink_to(folder.parent / "elsewhere")
    assert "it is a link to nothing" in mailer("init", code=74).err
    assert not (folder.parent / "elsewhere").exists()


@as_root
@pytest.mark.parametrize("name", ["mailer.db.lock", "log", ".env", "mailer.db-journal", "mailer.db-wal"])
def test_doctor_names_what_the_owner_cannot_use(mailer: Mailer, his: Path, name: str) -> None:
    assert "can use all" in finding(mailer("doctor", "--json"), "owner")["text"]
    Path(name).touch(0o600)
    os.chown(name, 0, 0)
    found = finding(mailer("doctor", "--json", code=74), "owner")
    assert found["level"] == "error" and found["text"].endswith(f"cannot use {his / name}")
    assert found["hint"] == f"sudo chown --reference=mailer.db {his / name}"
    subprocess.run(found["hint"].removeprefix("sudo ").split(), check=True)
    assert "can use all" in finding(mailer("doctor", "--json"), "owner")["text"]


@as_root
def test_doctor_names_the_folder_that_the_owner_cannot_write(mailer: Mailer, his: Path) -> None:
    os.chown(his, 0, 0)
    assert finding(mailer("doctor", "--json", code=74), "owner")["text"].endswith(f"cannot use {his}")


@as_root
def test_somebody_else_goes_on_after_a_run_of_root(mailer: Mailer, his: Path) -> None:
    # the suite may stand where nobody else can read it, so the files alone are tried
    mailer("dispatch")
    tried = """
import os, sys, fcntl
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
os.chdir(sys.argv[3])
for name in ("mailer.db.lock", "mailer.db", ".env"):
    os.close(os.open(name, os.O_RDWR))
"""
    command = [sys.executable, "-c", tried, str(SOMEBODY), str(HIS_GROUP), str(his)]
    subprocess.run(command, check=True)


@as_root
def test_a_unit_for_a_user_who_cannot_read_what_it_needs_is_said(mailer: Mailer, his: Path) -> None:
    Path("mailer.db.lock").touch(0o600)
    os.chown(".env", 0, 0)
    ran = mailer("schedule", "systemd")
    assert f"User={SOMEBODY}" in ran.out
    for each in (his / ".env", his / "mailer.db.lock"):
        assert f"warning: the unit runs as {SOMEBODY}, who cannot use {each}\n" in ran.err


def test_what_keeps_somebody_out_is_named(place: Path) -> None:
    nobody = owners.Person(SOMEBODY, frozenset())
    file = place / "closed" / "file"
    file.parent.mkdir(mode=0o700)
    file.touch(0o600)
    assert owners.kept_from(nobody, file, owners.READ) == file.parent
    file.parent.chmod(0o711)
    assert owners.kept_from(nobody, file, owners.READ) == file
    group = owners.Person(SOMEBODY, frozenset({file.stat().st_gid}))
    file.chmod(0o640)
    assert owners.kept_from(nobody, file, owners.READ) == file
    assert owners.kept_from(group, file, owners.READ) is None
    assert owners.kept_from(group, file, owners.READ | owners.WRITE) == file
    assert owners.kept_from(owners.person(file.stat().st_uid), file, owners.READ) is None
    assert owners.kept_from(nobody, place / "not there", owners.READ) is None
