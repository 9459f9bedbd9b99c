"""The whole road with the commands an operator types: from a CSV file to true figures."""

import csv
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mailer_cli.database import Database
from tests.conftest import Mailer
from tests.lab import Lab, wait_for

ROOT = Path(__file__).parent.parent
CLIENTS = ROOT / "mailer_cli" / "data" / "clients.csv"


@pytest.mark.timeout(120)
def test_two_overlapping_runs_of_which_one_is_killed_deliver_three_mailings(tmp_path: Path) -> None:
    """1,000 clients from the bundled list; the ledger of the gateway is the judge."""
    rows = list(csv.DictReader(CLIENTS.read_text("utf-8").splitlines()))
    tags = Counter(row["tag"] for row in rows)
    codes = Counter(row["operator_code"] for row in rows)
    code, _ = codes.most_common(1)[0]
    with Lab(tmp_path, concurrency=16) as lab:
        lab.open_gateway("--latency", "0.01-0.03")
        report = lab.command("clients", "import", str(CLIENTS)).json
        assert (report["new"], report["rejected"]) == (len(rows), 0)
        for options in (["--all"], ["--tag", "vip", "--tag", "retail"], ["--operator-code", code]):
            made = lab.command("mailings", "create", "--text", "Привет!", "--end", "+1h", *options)
            assert made.json["status"] == "running"
        wanted = [len(rows), tags["vip"] + tags["retail"], codes[code]]

        runs = [lab.start(), lab.start()]
        wait_for(lambda: len(lab.ledger) > sum(wanted) // 3)
        runs[0].kill()
        runs[1].wait()
        lab.run_until_final()

        lab.check_invariants()
        stats = lab.command("stats").json
        assert [each["messages"]["total"] for each in reversed(stats["by_mailing"])] == wanted
        assert stats["messages"]["by_status"]["sent"] == sum(wanted) == len(lab.accepted())
        assert {each["status"] for each in stats["by_mailing"]} == {"completed"}
        repeated = {message for message, times in lab.accepted().items() if times > 1}
        doubtful = lab.query("SELECT message_id FROM attempt WHERE outcome IN ('unknown', 'late_ok')")
        assert repeated <= {message for (message,) in doubtful}
        assert len(repeated) <= 16


@pytest.mark.timeout(120)
def test_a_created_mailing_can_go_at_once_in_the_same_process(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.open_gateway()
        lab.command("clients", "add", "--phone", "79161234567", "--tag", "vip")
        made = lab.command(
            "mailings", "create", "--text", "now", "--end", "+1h", "--tag", "vip", "--dispatch"
        )
        assert made.json["status"] == "completed"
        assert made.json["messages"]["sent"] == 1
        assert [(each.phone, each.text) for each in lab.ledger] == [(79161234567, "now")]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("options", [[], ["--faults"]], ids=["well", "faults"])
def test_the_demo_accounts_for_every_message(tmp_path: Path, options: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mailer_cli", "demo", "--messages", "80", *options],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Every message is accounted for." in ran.stdout
    for step in ("init", "clients import", "mailings create", "dispatch", "stats"):
        assert f"$ mailer {step}" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr


def schema(path: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as raw:
        return raw.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
        ).fetchall()


def test_the_example_database_has_todays_schema_and_a_believable_content(
    mailer: Mailer, database: Database, folder: Path
) -> None:
    example = folder / "example.db"
    example.write_bytes((ROOT / "mailer.db.example").read_bytes())
    assert schema(example) == schema(database.path)
    mailer("--database", "example.db", "db", "check")
    stats = mailer("--database", "example.db", "stats", "--json").json
    assert stats["mailings"]["total"] == 3
    assert stats["messages"]["by_status"]["sent"] > 0
