"""Files that the operator names: nothing of ours and nothing of his is lost by one."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mailer_cli import backup
from mailer_cli.database import SCHEMA, Database
from mailer_cli.idle import lock_of
from tests.campaign import a_campaign, statuses
from tests.conftest import TOKEN, Mailer

HEADER = "phone,operator_code,tag,timezone,status\n"
GOOD, BAD = "phone\n79161234501\n", "phone\n79161234501\nx\n"


def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[bytes]":
    """A process of its own, whose standard streams a test may choose."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "mailer_cli", *arguments]
    return subprocess.run(command, env=environment, **{"capture_output": True, **options})  # type: ignore[call-overload,no-any-return]


# Never in the place of our own

WRITERS = {
    "export": ("clients", "export"),
    "rejects": ("clients", "import", "list.csv", "--skip-invalid", "--rejects"),
    "backup": ("db", "backup"),
}
writers = pytest.mark.parametrize("writer", WRITERS)
OWN = [
    *("mailer.db", "mailer.db-journal", "mailer.db-wal", "mailer.db-shm", "mailer.db.lock"),
    *("log", ".env", "other.env"),
]


@pytest.fixture
def own(mailer: Mailer, database: Database) -> dict[str, bytes]:
    """What the program lives on here."""
    Path("list.csv").write_text(BAD)
    Path("other.env").write_text(f"TOKEN={TOKEN}\nURL=http://127.0.0.1:9/\nMAILER_LOG=log\n")
    Path("other.env").chmod(0o600)
    mailer("--env-file", "other.env", "dispatch")  # makes the lock
    mailer("--env-file", "other.env", "clients", "add", "--phone", "79161234509")  # makes the log
    return contents()


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def by_its_name(name: str) -> str:
    return name


def by_a_longer_name(name: str) -> str:
    return str(Path("..") / Path.cwd().name / name)


def by_a_symbolic_link(name: str) -> str:
    Path("link").symlink_to(name)
    return "link"


def by_a_linked_folder(name: str) -> str:
    Path("here").symlink_to(".")
    return f"here/{name}"


def by_a_hard_link(name: str) -> str:
    os.link(name, "link")
    return "link"


@writers
@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("way", [by_its_name, by_a_longer_name, by_a_symbolic_link, by_a_linked_folder])
def test_nothing_takes_the_place_of_what_the_program_lives_on(
    mailer: Mailer, own: dict[str, bytes], writer: str, name: str, way: Callable[[str], str]
) -> None:
    ran = mailer("--env-file", "other.env", *WRITERS[writer], way(name), "--force", code=2)
    assert ran.err.startswith("error: ") and ran.err.count("\n") <= 2
    assert {each: content for each, content in contents().items() if each != "link"} == own


@writers
@pytest.mark.parametrize("name", ["log", ".env", "other.env", "list.csv"])
def test_a_hard_link_to_one_is_one(mailer: Mailer, own: dict[str, bytes], writer: str, name: str) -> None:
    if name == "list.csv" and writer != "rejects":
        return
    mailer("--env-file", "other.env", *WRITERS[writer], by_a_hard_link(name), "--force", code=2)
    assert {each: content for each, content in contents().items() if each != "link"} == own


def test_a_database_elsewhere_is_kept_too(mailer: Mailer, own: dict[str, bytes]) -> None:
    Path("data").mkdir()
    mailer("--database", "data/m.db", "init")
    Path("near.db").symlink_to("data/m.db")
    before = Path("data/m.db").read_bytes()
    for name in ("data/m.db", "near.db", "data/m.db-journal", str(lock_of(Path("near.db")))):
        assert "is " in mailer("--database", "near.db", "clients", "export", name, "--force", code=2).err
    assert Path("data/m.db").read_bytes() == before


def test_a_list_that_is_read_from_stdin_is_not_written_over(own: dict[str, bytes]) -> None:
    with Path("list.csv").open() as given:
        ran = run("clients", "import", "-", "--rejects", "list.csv", "--force", stdin=given)
    assert ran.returncode == 2 and b"is the list itself" in ran.stderr
    assert contents() == own


@pytest.mark.parametrize("command", [("clients", "export"), ("db", "backup", "-")])
@pytest.mark.parametrize("name", ["mailer.db", ".env"])
def test_output_that_the_shell_sends_there_is_not_written(
    own: dict[str, bytes], command: tuple[str, ...], name: str
) -> None:
    with Path(name).open("ab") as there:
        ran = run(*command, capture_output=False, stdout=there, stderr=subprocess.PIPE)
    assert ran.returncode == 2 and b"error: " in ran.stderr
    assert contents() == own


def test_the_ledger_of_a_sandbox_is_none_of_them(mailer: Mailer, own: dict[str, bytes]) -> None:
    for name in ("mailer.db", "mailer.db-wal", ".env", "mailer.db.lock"):
        mailer("sandbox", "--ledger", name, "--stop-after", "0", code=2)
    Path(".env").write_text("MAILER_RATE=many\n")
    mailer("sandbox", "--ledger", "mailer.db", "--stop-after", "0", code=2)
    assert contents() == own | {".env": b"MAILER_RATE=many\n"}


@pytest.mark.parametrize("name", ["mailer.db", "mailer.db-journal", "mailer.db.lock", ".env"])
def test_a_log_that_is_one_of_them_is_not_kept(mailer: Mailer, own: dict[str, bytes], name: str) -> None:
    Path("log.env").write_text(f"TOKEN={TOKEN}\nURL=http://127.0.0.1:9/\nMAILER_LOG={name}\n")
    Path("log.env").chmod(0o600)
    ran = mailer("--env-file", "log.env", "clients", "add", "--phone", "79161234508")
    assert ran.err.startswith("warning: MAILER_LOG names ") and ran.err.count("\n") == 1
    assert "no log is kept" in mailer("--env-file", "log.env", "doctor").out
    assert b"event" not in contents().get(name, b"")
    mailer("db", "check")


def test_settings_are_not_made_where_a_database_would_find_them(mailer: Mailer) -> None:
    for name in ("mailer.db", "mailer.db-journal", "mailer.db.lock"):
        assert "cannot be the settings" in mailer("--env-file", name, "init", code=2).err
        assert not Path(name).exists()


# Nor of what the operator has


@writers
def test_a_file_that_is_there_is_replaced_only_when_that_is_said(
    mailer: Mailer, own: dict[str, bytes], writer: str
) -> None:
    Path("there").write_text("precious")
    before = mailer("clients", "list", "--json").json
    ran = mailer(*WRITERS[writer], "there", code=1)
    assert "there is there already" in ran.err and "--force" in ran.err
    assert contents() == own | {"there": b"precious"}
    assert mailer("clients", "list", "--json").json == before
    mailer(*WRITERS[writer], "there", "--force")
    assert Path("there").read_bytes() != b"precious"


def test_a_file_that_comes_meanwhile_is_not_replaced(
    mailer: Mailer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def somebody_is_quicker(*given: object) -> None:
        Path("there").write_text("precious")

    monkeypatch.setattr("mailer_cli.backup._require_sound", somebody_is_quicker)
    mailer("db", "backup", "there", code=1)
    assert Path("there").read_text() == "precious"
    assert [path.name for path in Path().glob("*there*")] == ["there"]


def test_the_rejects_of_an_earlier_day_are_left_when_there_are_none_today(
    mailer: Mailer, database: Database
) -> None:
    Path("list.csv").write_text(GOOD)
    for option in ((), ("--force",), ("--dry-run",)):
        ran = mailer("clients", "import", "list.csv", "--rejects", "bad.csv", *option)
        assert not Path("bad.csv").exists() and "bad.csv" not in ran.out
    Path("bad.csv").write_text("of yesterday")
    for option in ((), ("--force",), ("--dry-run",)):
        ran = mailer("clients", "import", "list.csv", "--rejects", "bad.csv", *option)
        assert "bad.csv is of an import before, and was left as it is" in ran.out
    assert Path("bad.csv").read_text() == "of yesterday"


def test_rejects_that_would_replace_those_of_an_earlier_day_stop_the_import_before_anything_is_written(
    mailer: Mailer, database: Database
) -> None:
    Path("list.csv").write_text(BAD)
    Path("bad.csv").write_text("of yesterday")
    command = ("clients", "import", "list.csv", "--skip-invalid", "--rejects", "bad.csv")
    assert "nothing was imported" in mailer(*command, code=1).err
    assert mailer("clients", "list", "--json").json == []
    assert Path("bad.csv").read_text() == "of yesterday"
    assert mailer(*command, "--force", "--json").json["new"] == 1
    assert Path("bad.csv").read_text().startswith("phone,line,reason\nx,3,")


def test_an_import_that_fails_leaves_the_rejects_of_an_earlier_day(
    mailer: Mailer, database: Database
) -> None:
    Path("list.csv").write_bytes(BAD.encode() + b"\xff\n")
    Path("bad.csv").write_text("of yesterday")
    mailer("clients", "import", "list.csv", "--rejects", "bad.csv", "--force", code=2)
    assert Path("bad.csv").read_text() == "of yesterday"
    assert [path.name for path in Path().glob("*bad.csv*")] == ["bad.csv"]


# Pipes and what is open already


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_backup_is_a_stream_on_standard_output(database: Database, name: str) -> None:
    ids = a_campaign(database)
    ran = run("db", "backup", name)
    assert (ran.returncode, ran.stderr) == (0, b"")
    Path("copy.db").write_bytes(ran.stdout)
    assert backup.look_at(Path("copy.db")) == SCHEMA
    assert statuses(Database(Path("copy.db"))).keys() == set(ids.values())
    assert not Path("-").exists()


def test_a_stream_is_begun_only_when_the_copy_is_whole(database: Database) -> None:
    with database.path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 12)
    ran = run("db", "backup", "-")
    assert (ran.returncode, ran.stdout) == (74, b"") and b"damaged" in ran.stderr


def test_a_stream_that_nobody_takes_is_no_backup(database: Database) -> None:
    for shell in ("mailer db backup - | true; exit ${PIPESTATUS[0]}", "mailer db backup - >&-"):
        command = shell.replace("mailer", f"{sys.executable} -m mailer_cli")
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        ran = subprocess.run(["bash", "-c", command], env=environment, capture_output=True)
        assert ran.returncode == 74 and ran.stderr.startswith(b"error: cannot write standard output"), ran


def test_a_backup_is_not_shown_to_a_terminal_nor_as_json(mailer: Mailer, database: Database) -> None:
    leader, follower = os.openpty()
    ran = run("db", "backup", "-", capture_output=False, stdout=follower, stderr=subprocess.PIPE)
    assert ran.returncode == 2 and b"it is a terminal" in ran.stderr
    os.close(follower)
    os.close(leader)
    assert "no JSON" in mailer("db", "backup", "-", "--json", code=2).err


def test_a_list_on_standard_output_by_its_name_is_nothing_but_the_list(imported: None) -> None:
    assert run("clients", "export", "/dev/stdout").stdout == run("clients", "export").stdout
    with Path("out").open("ab") as out:
        out.write(b"before\n")
        out.flush()
        assert run("clients", "export", "/dev/stdout", capture_output=False, stdout=out).returncode == 0
    assert Path("out").read_text() == f"before\n{HEADER}79161234501,916,,UTC,active\n"


@pytest.fixture
def imported(mailer: Mailer, database: Database) -> None:
    mailer("clients", "add", "--phone", "79161234501", "--timezone", "UTC")


def test_what_is_open_already_goes_on_where_it_is(imported: None) -> None:
    with Path("out").open("wb") as out:
        out.write(b"before\n")
        out.flush()
        name = f"/dev/fd/{out.fileno()}"
        assert run("clients", "export", name, pass_fds=[out.fileno()]).returncode == 0
    assert Path("out").read_text() == f"before\n{HEADER}79161234501,916,,UTC,active\n"


@pytest.mark.parametrize(
    ("command", "begins"),
    [
        (("clients", "export"), b"phone,operator_code,"),
        (("db", "backup"), b"SQLite format 3"),
        (("clients", "import", "list.csv", "--skip-invalid", "--rejects"), b"phone,line,reason"),
        (("clients", "import", "good.csv", "--rejects"), b""),
    ],
)
def test_a_pipe_with_a_name_is_written_as_it_goes(
    mailer: Mailer, database: Database, command: tuple[str, ...], begins: bytes
) -> None:
    Path("list.csv").write_text(BAD)
    Path("good.csv").write_text(GOOD)
    os.mkfifo("pipe")
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(Path("pipe").read_bytes()))
    reader.start()
    mailer(*command, "pipe")
    reader.join(30)
    assert heard and heard[0].startswith(begins) and bool(heard[0]) == bool(begins)
    assert Path("pipe").is_fifo()


def test_rejects_on_standard_output_are_not_mixed_with_json(mailer: Mailer, database: Database) -> None:
    Path("list.csv").write_text(BAD)
    command = ("clients", "import", "list.csv", "--skip-invalid", "--rejects", "-")
    assert "has the JSON" in mailer(*command, "--json", code=2).err
    assert run(*command).stdout.startswith(b"phone,line,reason\nx,3,")
    assert not Path("-").exists()
