"""A backup is put back although the gateway has seen more since: nothing goes again by it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer_cli.models import MessageStatus
from mailer_cli.sender import Sender
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
    for mailing, status in lab.query("SELECT DISTINCT mailing_id, status FROM message"):
        if status in ("failed", "unknown"):
            lab.command("mailings", "retry", str(mailing), "--status", status)
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
    for mailing in set(doubted.values()):
        lab.command("mailings", "retry", str(mailing), "--status", "unknown")
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
