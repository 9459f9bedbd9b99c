"""A backup is put back although the gateway has seen more since: nothing goes again by it."""

import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mailer_cli.database import Database
from mailer_cli.models import MessageStatus
from mailer_cli.sender import Sender
from tests.campaign import NOW, a_campaign, mailing
from tests.conftest import Mailer
from tests.lab import Lab
from tests.steps import Step

EVERY_STATUS = {each.value for each in MessageStatus}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A laboratory with messages that have come to each status by their own life."""
    with Lab(tmp_path, concurrency=4, on_unknown="hold") as lab:
        ended, cancelled = lab.add_mailing(2), lab.add_mailing(2)
        lab.open_gateway("--fault", "503=1", "--retry-after", "0")
        lab.run("--max-seconds", "1", code=69)
        lab.execute("UPDATE mailing SET end_at = fixed_at WHERE id = ?", ended)
        lab.command("mailings", "cancel", str(cancelled), "--yes")
        for fault in ("400=1", "taken-reset=1", "503=0"):
            lab.close_gateway()
            lab.open_gateway("--fault", fault)
            lab.add_mailing(2)
            lab.run()
        lab.add_mailing(2)
        with lab.each_child(Step("a claim is committed", Sender, "_in_database").arm):
            assert lab.start().wait().code == -signal.SIGKILL
        assert lab.statuses().keys() == EVERY_STATUS
        yield lab


def go_on(lab: Lab) -> None:
    """The life after the backup: all else is sent, what was given up is tried again, more is created."""
    for its, status in lab.query("SELECT DISTINCT mailing_id, status FROM message"):
        if status in ("failed", "unknown"):
            lab.command("mailings", "retry", str(its), "--status", status)
    lab.run()
    lab.add_mailing(3)
    lab.run()


@pytest.mark.parametrize("is_resumed", [False, True], ids=["as it is", "resumed"])
def test_after_a_restore_nothing_goes_whatever_its_status_was(lab: Lab, is_resumed: bool) -> None:
    lab.command("db", "backup", "backup.db")
    go_on(lab)
    taken, final = lab.accepted(), {"sent", "failed", "expired", "cancelled", "unknown"}
    lab.command("db", "restore", "backup.db", "--yes")
    assert lab.statuses().keys() == final
    if is_resumed:
        lab.command("mailings", "resume", "--all")
    for _ in range(2):
        lab.run()
    assert lab.accepted() == taken
    assert lab.statuses().keys() == final


def test_what_the_operator_gives_back_after_a_restore_goes_under_its_old_id(lab: Lab) -> None:
    lab.command("db", "backup", "backup.db")
    go_on(lab)
    taken = lab.accepted()
    lab.command("db", "restore", "backup.db", "--yes")
    doubted = dict(lab.query("SELECT id, mailing_id FROM message WHERE status = 'unknown'"))
    lab.command("mailings", "resume", "--all")
    for its in set(doubted.values()):
        lab.command("mailings", "retry", str(its), "--status", "unknown")
    lab.run()
    again = lab.accepted() - taken
    assert again
    assert again.keys() <= doubted.keys()


def test_ids_of_messages_made_after_a_restore_are_above_all_that_the_gateway_has_seen(lab: Lab) -> None:
    lab.command("db", "backup", "backup.db")
    go_on(lab)
    seen = {each.id or 0 for each in lab.ledger}
    lab.command("db", "restore", "backup.db", "--yes")
    mailing = lab.add_mailing(3)
    lab.run()
    new = {row[0] for row in lab.query("SELECT id FROM message WHERE mailing_id = ?", mailing)}
    assert len(new) == 3
    assert min(new) > max(seen)


# What was only scheduled in the backup


def test_a_mailing_that_began_after_the_backup_is_not_sent_again_by_a_resume(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.open_gateway()
        late = lab.add_mailing(3)
        lab.command("db", "backup", "backup.db")
        lab.run()
        assert len(lab.accepted()) == 3
        lab.command("db", "restore", "backup.db", "--yes")
        for which in (str(late), "--all"):
            said = lab.command("mailings", "resume", which, code=1).err
            assert f"mailing {late} had not begun in the backup" in said
            assert f"mailer mailings resume {late} --yes" in said
        lab.run()
        assert sum(lab.accepted().values()) == 3
        lab.command("mailings", "resume", str(late), "--yes")
        lab.run()
        assert sum(lab.accepted().values()) == 6


@pytest.fixture
def three(mailer: Mailer, database: Database) -> Mailer:
    """Mailing 1 had begun in the backup; 2 was to begin, and its start has passed; 3 begins tomorrow."""
    a_campaign(database)
    with database.write() as connection:
        mailing(connection, 2, fixed=False)
        tomorrow = NOW + timedelta(days=1)
        mailing(connection, 3, fixed=False, start_at=tomorrow, end_at=tomorrow + timedelta(hours=1))
    mailer("db", "backup", "copy.db")
    return mailer


def test_a_restore_names_what_may_have_been_sent_since(three: Mailer) -> None:
    ran = three("db", "restore", "copy.db", "--yes")
    (line,) = [each for each in ran.out.splitlines() if "since the backup" in each]
    assert line.startswith("mailing 2 was to start ")
    assert three("db", "restore", "copy.db", "--yes", "--json").json["may_be_sent"] == [2]
    assert "it may have been sent since the backup" in three("mailings", "show", 2).out
    assert "since the backup" not in three("mailings", "show", 3).out


def test_only_what_may_have_been_sent_is_asked_about_and_only_once(three: Mailer) -> None:
    three("db", "restore", "copy.db", "--yes")
    assert "mailing 2 " in three("mailings", "resume", 3, 2, code=1).err
    assert three("mailings", "show", 3, "--json").json["status"] == "paused"  # all or none
    three("mailings", "resume", 3)
    three("mailings", "resume", "--all", "--yes")
    three("mailings", "pause", 2)
    three("mailings", "resume", 2)


def test_nothing_is_asked_when_nothing_was_sent_since(three: Mailer) -> None:
    ran = three("db", "restore", "copy.db", "--yes", "--keep-pending", "--json")
    assert ran.json["may_be_sent"] == []
    three("mailings", "resume", "--all")
    assert three("mailings", "top-up", 1, "--json").json["added"] == 0


def test_a_top_up_after_a_restore_is_asked_about(three: Mailer) -> None:
    three("db", "restore", "copy.db", "--yes")
    three("clients", "add", "--phone", "79161112233")
    said = three("mailings", "top-up", 1, code=1).err
    assert "mailing 1 came out of a backup" in said and "mailer mailings top-up 1 --yes" in said
    assert three("mailings", "top-up", 1, "--yes", "--json").json["added"] == 1
    three("mailings", "top-up", 1)


def test_a_retry_after_a_restore_warns_that_it_may_deliver_again(three: Mailer, database: Database) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE message SET status = 'failed' WHERE status = 'unknown'")
    three("db", "backup", "copy.db", "--force")
    assert three("mailings", "retry", 1, "--json").err == ""
    three("db", "restore", "copy.db", "--yes")
    assert "may be delivered again" in three("mailings", "retry", 1).err


def test_what_waited_in_the_backup_is_repeated_as_the_backup_has_it(tmp_path: Path) -> None:
    """It may have been taken since: phone and text are fixed, and a refusal of the repeat is no proof."""
    with Lab(tmp_path) as lab:
        lab.open_gateway("--fault", "503=1", "--retry-after", "0")
        its = lab.add_mailing(1)
        lab.run("--max-seconds", "1", code=None)
        lab.command("db", "backup", "backup.db")
        client, phone = lab.query("SELECT id, phone FROM client")[0]
        lab.command("db", "restore", "backup.db", "--yes")
        lab.command("clients", "edit", str(client), "--phone", "79161112233")
        lab.command("mailings", "edit", str(its), "--text", "mended")
        lab.command("mailings", "retry", str(its), "--status", "unknown")
        lab.close_gateway()
        lab.open_gateway("--fault", "400=1")
        seen = len(lab.ledger)
        lab.command("mailings", "resume", str(its))
        lab.run()
        (again,) = lab.ledger[seen:]
        assert (again.phone, again.text) == (phone, "Привет! 50 % off")
        assert lab.statuses() == {"unknown": 1}
        lab.command("db", "check")


def test_a_number_that_waited_in_the_backup_gets_no_second_message(
    mailer: Mailer, database: Database
) -> None:
    ids = a_campaign(database)
    mailer("db", "backup", "copy.db")
    mailer("db", "restore", "copy.db", "--yes")
    phone = mailer("messages", "show", ids["waits"], "--json").json["phone"]
    mailer("clients", "remove", 4, "--yes")
    mailer("clients", "add", "--phone", phone)
    ran = mailer("mailings", "top-up", 1, "--yes", "--json").json
    assert (ran["added"], ran["already_sent"]) == (0, 1)
    mailer("db", "check")
