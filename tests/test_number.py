"""One number, one message of a mailing; what somebody may have got is fixed, and nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlmodel import col

from mailer_cli import audience, clients, mailings, messages, outbox
from mailer_cli.audience import Added, Filter
from mailer_cli.clients import Given
from mailer_cli.database import Database
from mailer_cli.gateway import Answer
from mailer_cli.mailings.plan import new_wording
from mailer_cli.models import Client, Message, MessageStatus, Outcome
from mailer_cli.outbox import Claimed, Retried
from tests.lab import Lab, add_clients, add_mailing, new_database
from tests.test_outbox import AWAY, DOWN, HOUR, LOST, MINUTE, NOW, OK, Queue, _steps, plans

__all__ = ["plans"]  # the fixture

REFUSED = Answer(Outcome.NOT_SENT, "refused")
REJECTED = Answer(Outcome.REJECTED, "http 400", 400)
CERTAIN = [REFUSED, AWAY, Answer(Outcome.BUSY, "http 429", 429), Answer(Outcome.RELEASED, "not started")]
NEW = 79_261_111_111
TAKEN = ("cancelled", outbox.ALREADY_SENT)


class Town(Queue):
    """The queue, and people with numbers."""

    def __init__(self, database: Database) -> None:
        self._open = database.write()
        super().__init__(self._open.__enter__())

    def close(self) -> None:
        self._open.__exit__(None, None, None)

    def phone(self, client: int) -> int:
        found = select(col(Client.phone)).where(col(Client.id) == client)
        return self.connection.execute(found).scalar_one() or 0

    def everybody(self, people: int = 2) -> int:
        """A mailing to all, whoever joins later; its id. The clients are 1, 2, ..."""
        add_clients(self.connection, people)
        plan = mailings.Plan("News", NOW, NOW + HOUR, Filter())
        return mailings.create(self.connection, plan, paused=False, now=NOW, max_text=100)

    def edit(self, client: int, **given: Any) -> None:
        clients.edit(self.connection, client, Given(**given), NOW)

    def swap(self, one: int, other: int) -> None:
        theirs, his = self.phone(one), self.phone(other)
        self.edit(one, phone=NEW + 7)
        self.edit(other, phone=theirs)
        self.edit(one, phone=his)

    def join_again(self, client: int) -> int:
        """He is removed, and added with the phone that he had; his new id."""
        phone = self.phone(client)
        clients.remove(self.connection, client, NOW)
        return clients.add(self.connection, phone, Given(), "Europe/Moscow", NOW).id

    def fates(self) -> dict[int, tuple[str, str | None]]:
        """By client."""
        its = select(col(Message.client_id), col(Message.status), col(Message.reason))
        return {client: (status, reason) for client, status, reason in self.connection.execute(its)}

    def id_of(self, client: int) -> int:
        its = select(col(Message.id)).where(col(Message.client_id) == client)
        return self.connection.execute(its).scalar_one()

    def mend(self, mailing: int) -> int:
        """The first client gets another phone and zone, and the mailing another text; his message."""
        self.edit(1, phone=NEW, timezone="UTC")
        self.change(mailing, wording_id=new_wording(self.connection, "mended"))
        return self.id_of(1)

    def send(self, run: int, *answers: Answer, at: Any = NOW) -> list[Claimed]:
        """Claim as many as there are answers, and let each come to its own."""
        claimed = self.claim(run, len(answers), at=at)
        for each, answer in zip(claimed, answers, strict=False):
            self.record(run, each, answer, at=at)
        return claimed


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return new_database(tmp_path)


@pytest.fixture
def queue(database: Database) -> Iterator[Town]:
    town = Town(database)
    yield town
    town.close()


# One number, one message


@pytest.mark.parametrize("answer", [OK, LOST, DOWN])
def test_a_client_who_was_removed_and_joined_again_gets_no_second_message(
    queue: Town, answer: Answer
) -> None:
    mailing = queue.everybody(1)
    queue.send(queue.run(), answer)
    again = queue.join_again(1)
    assert audience.top_up(queue.connection, mailing, NOW) == Added(0, already_sent=1)
    assert audience.top_up(queue.connection, mailing, NOW) == Added(0)
    assert queue.fates()[again] == TAKEN
    assert [each.client_id for each in queue.claim(queue.run(), at=NOW + HOUR / 2)] == []


@pytest.mark.parametrize("answer", [*CERTAIN, REJECTED])
def test_he_gets_one_when_the_first_was_certainly_not_taken(queue: Town, answer: Answer) -> None:
    mailing = queue.everybody(1)
    queue.send(queue.run(), answer)
    again = queue.join_again(1)
    assert audience.top_up(queue.connection, mailing, NOW) == Added(1)
    assert [each.client_id for each in queue.claim(queue.run(), at=NOW + HOUR / 2)] == [again]


@pytest.mark.parametrize("answer", [OK, LOST])
def test_a_message_that_waits_does_not_go_to_a_number_that_has_the_mailing(
    queue: Town, answer: Answer
) -> None:
    queue.everybody()
    run = queue.run()
    queue.send(run, answer)
    queue.swap(1, 2)
    assert [each.client_id for each in queue.claim(run)] == []
    assert queue.fates()[2] == TAKEN


def test_a_message_waits_until_the_other_to_its_number_has_landed(queue: Town) -> None:
    """Nobody knows yet what becomes of that one: neither may it be cancelled, nor may it go."""
    queue.everybody()
    run = queue.run()
    (flying,) = queue.claim(run, 1)
    queue.swap(1, 2)
    assert queue.claim(run) == []
    assert queue.fates()[2] == ("pending", None)
    queue.record(run, flying, REFUSED)
    assert {(each.client_id, each.phone) for each in queue.claim(run, at=NOW + MINUTE)} == {
        (1, queue.phone(1)),
        (2, queue.phone(2)),
    }


def test_what_waits_for_its_repeat_keeps_others_from_its_number(queue: Town) -> None:
    mailing = queue.everybody(1)
    run, old = queue.run(), queue.phone(1)
    queue.send(run, LOST)
    queue.edit(1, phone=NEW)
    clients.add(queue.connection, old, Given(), "Europe/Moscow", NOW)
    assert audience.top_up(queue.connection, mailing, NOW) == Added(0, already_sent=1)
    assert [each.phone for each in queue.claim(run, at=NOW + MINUTE)] == [old]


def test_a_number_is_free_again_when_the_operator_says_that_nothing_arrived(queue: Town) -> None:
    mailing = queue.everybody(1)
    run = queue.run()
    queue.claim(run)
    queue.bury(run, max_unknown=0)
    again = queue.join_again(1)
    assert audience.top_up(queue.connection, mailing, NOW).already_sent == 1
    outbox.resolve(queue.connection, queue.id_of(1), MessageStatus.FAILED, NOW)
    assert audience.top_up(queue.connection, mailing, NOW) == Added(1)
    assert [each.client_id for each in queue.claim(run)] == [again]


def test_a_late_ok_for_the_first_cancels_nothing_that_has_gone(queue: Town) -> None:
    """The operator's word had freed the number, and was wrong: both are told as they are."""
    queue.everybody(1)
    dead, run = queue.run(), queue.run()
    (first,) = queue.claim(dead)
    queue.bury(dead, max_unknown=0)
    outbox.resolve(queue.connection, first.message_id, MessageStatus.FAILED, NOW)
    queue.join_again(1)
    audience.top_up(queue.connection, 1, NOW)
    (second,) = queue.send(run, OK)
    queue.record(dead, first, OK)
    assert {each: status for each, (status, _) in queue.fates().items()} == {1: "sent", 2: "sent"}
    assert second.phone == first.phone


def test_a_retry_passes_over_a_number_that_has_the_mailing_and_says_so(queue: Town) -> None:
    mailing = queue.everybody()
    queue.send(queue.run(), REJECTED, OK)
    queue.swap(1, 2)
    failed = [MessageStatus.FAILED]
    assert outbox.retry(queue.connection, mailing, failed, None, NOW) == Retried(0, already_sent=1)
    queue.edit(1, phone=NEW)
    assert outbox.retry(queue.connection, mailing, failed, None, NOW) == Retried(1, already_sent=0)
    assert [each.phone for each in queue.claim(queue.run())] == [NEW]


def test_of_two_that_an_operator_gives_back_to_one_number_one_goes(queue: Town) -> None:
    """He had said of both that they had not arrived; who knows."""
    mailing = queue.everybody(1)
    first = give_up(queue, 1)
    second = give_up(queue, queue.join_again(1))
    queue.connection.execute(update(Client).where(col(Client.id) == 1).values(phone=NEW, removed_at=None))
    retried = outbox.retry(queue.connection, mailing, [MessageStatus.FAILED], None, NOW)
    assert retried == Retried(2, already_sent=0)
    assert [each.message_id for each in queue.claim(queue.run())] == [first]
    assert queue.claim(queue.run()) == []
    assert (queue.message(second).status, queue.message(second).reason) == ("unknown", outbox.ALREADY_SENT)


def give_up(queue: Town, client: int) -> int:
    """A run dies with the client's message, and the operator says that it failed; its id."""
    run = queue.run()
    audience.top_up(queue.connection, 1, NOW)
    assert [each.client_id for each in queue.claim(run)] == [client]
    queue.bury(run, max_unknown=0)
    outbox.resolve(queue.connection, queue.id_of(client), MessageStatus.FAILED, NOW)
    return queue.id_of(client)


def test_a_wider_filter_brings_back_nobody_whose_number_has_the_mailing(queue: Town) -> None:
    mailing = queue.everybody()
    queue.edit(1, tag="gone"), queue.edit(2, tag="kept")
    assert narrow(queue, mailing, "kept") == (1, 0, 0)
    queue.send(queue.run(), OK)
    queue.swap(1, 2)
    assert narrow(queue, mailing) == (0, 0, 0)
    assert queue.fates()[1] == ("cancelled", audience.FILTER_CHANGED)


def test_a_wider_filter_tells_those_apart_whose_number_has_the_mailing(queue: Town) -> None:
    mailing = queue.everybody(1)
    queue.edit(1, tag="kept")
    narrow(queue, mailing, "kept")
    queue.send(queue.run(), OK)
    queue.join_again(1)
    assert narrow(queue, mailing) == (0, 0, 1)


def narrow(queue: Town, mailing: int, *tags: str) -> tuple[int, int, int]:
    """Give the mailing these tags, or all clients."""
    queue.change(mailing, paused_at=NOW)
    wanted: mailings.Edit = {"tags": tags, "everyone": not tags}
    done = mailings.edit(queue.connection, mailing, wanted, NOW, 100)
    queue.change(mailing, paused_at=None)
    return done.cancelled, done.added, done.already_sent


def test_another_mailing_to_the_number_is_none_of_its_business(queue: Town) -> None:
    queue.everybody(1)
    queue.send(queue.run(), OK)
    plan = mailings.Plan("More news", NOW, NOW + HOUR, Filter())
    mailings.create(queue.connection, plan, paused=False, now=NOW, max_text=100)
    assert [each.mailing_id for each in queue.claim(queue.run())] == [2]


def test_whether_a_number_has_the_mailing_is_asked_of_an_index(queue: Town, plans: list[str]) -> None:
    mailing = queue.everybody(50)
    plans.clear()
    queue.send(queue.run(), *[OK] * 25)
    audience.top_up(queue.connection, mailing, NOW)
    outbox.retry(queue.connection, mailing, [MessageStatus.FAILED], None, NOW)
    assert len(_steps(plans, "SEARCH other USING INDEX message_number (mailing_id=? AND phone=?)")) >= 4
    assert _steps(plans, "SCAN other") == []
    assert _steps(plans, "SCAN message") == []
    assert _steps(plans, "SCAN attempt") == []


# Fixed is what somebody may have got


@pytest.mark.parametrize("answer", CERTAIN)
def test_what_nobody_can_have_got_takes_the_new_phone_text_and_zone(queue: Town, answer: Answer) -> None:
    mailing = queue.everybody(1)
    run = queue.run()
    queue.send(run, answer)
    message = queue.mend(mailing)
    found = messages.find(queue.connection, message)
    assert (found.phone, messages.text_of(queue.connection, message)) == (NEW, "mended")
    (claimed,) = queue.claim(run, at=NOW + HOUR / 2)
    assert (claimed.phone, claimed.text, queue.message(message).timezone) == (NEW, "mended", "UTC")


@pytest.mark.parametrize("answer", [LOST, DOWN])
def test_what_somebody_may_have_got_is_repeated_as_it_was(queue: Town, answer: Answer) -> None:
    mailing = queue.everybody(1)
    run, old = queue.run(), queue.phone(1)
    queue.send(run, answer)
    message = queue.mend(mailing)
    queue.send(run, REFUSED, at=NOW + MINUTE)  # which takes nothing back
    found = messages.find(queue.connection, message)
    assert (found.phone, messages.text_of(queue.connection, message)) == (old, "News")
    (claimed,) = queue.claim(run, at=NOW + HOUR / 2)
    assert (claimed.phone, claimed.text) == (old, "News")
    assert queue.message(message).timezone == "Europe/Moscow"


def test_a_zone_that_changes_in_flight_is_followed_when_nothing_arrived(queue: Town) -> None:
    queue.everybody(1)
    run = queue.run()
    (claimed,) = queue.claim(run)
    queue.edit(1, timezone="UTC")
    queue.record(run, claimed, REFUSED)
    assert queue.message(claimed.message_id).timezone == "UTC"


def test_a_wrong_phone_that_was_rejected_is_mended_and_tried_again(queue: Town) -> None:
    mailing = queue.everybody(1)
    run, old = queue.run(), queue.phone(1)
    (claimed,) = queue.send(run, REJECTED)
    queue.mend(mailing)
    assert messages.find(queue.connection, claimed.message_id).phone == old  # where it was tried
    outbox.retry(queue.connection, mailing, [MessageStatus.FAILED], None, NOW)
    (again,) = queue.claim(run)
    assert (again.message_id, again.phone, again.text) == (claimed.message_id, NEW, "mended")


def test_a_list_by_phone_finds_what_waits_by_where_it_would_go(database: Database, queue: Town) -> None:
    queue.everybody(1)
    old = queue.phone(1)
    (claimed,) = queue.send(queue.run(), REFUSED)
    queue.edit(1, phone=NEW)
    queue.connection.commit()
    its = messages.Wanted(mailing_id=1, phone=NEW)
    assert [each.id for each in messages.listed(database, its, NOW)] == [claimed.message_id]
    assert list(messages.listed(database, messages.Wanted(mailing_id=1, phone=old), NOW)) == []


# A block covers every number that a client's waiting message would use


def test_a_client_who_is_blocked_under_his_new_phone_gets_no_repeat_at_the_old(queue: Town) -> None:
    queue.everybody(1)
    run = queue.run()
    (claimed,) = queue.claim(run)
    queue.edit(1, phone=NEW)
    assert clients.block(queue.connection, {NEW}, NOW) == ([NEW], 0)  # it is in flight
    queue.record(run, claimed, LOST)
    assert queue.claim(run, at=NOW + HOUR / 2) == []
    assert queue.fates()[1] == ("unknown", "client blocked")


def test_a_block_of_the_old_phone_ends_the_repeat_that_waits_for_it(queue: Town) -> None:
    queue.everybody(1)
    run, old = queue.run(), queue.phone(1)
    queue.send(run, LOST)
    queue.edit(1, phone=NEW)
    assert clients.block(queue.connection, {old}, NOW) == ([old], 1)
    assert queue.fates()[1] == ("unknown", "client blocked")


def test_a_block_of_a_phone_that_binds_nobody_any_more_stops_nothing(queue: Town) -> None:
    queue.everybody(1)
    run, old = queue.run(), queue.phone(1)
    queue.send(run, REFUSED)
    queue.edit(1, phone=NEW)
    assert clients.block(queue.connection, {old}, NOW) == ([old], 0)
    assert [each.phone for each in queue.claim(run)] == [NEW]


@pytest.mark.parametrize("which", ["old", "new"])
def test_a_retry_passes_over_whoever_is_blocked_by_either_number(queue: Town, which: str) -> None:
    mailing = queue.everybody(1)
    run, old = queue.run(), queue.phone(1)
    queue.claim(run)
    queue.bury(run, max_unknown=0)
    queue.edit(1, phone=NEW)
    clients.block(queue.connection, {old if which == "old" else NEW}, NOW)
    unknown = [MessageStatus.UNKNOWN]
    assert outbox.retry(queue.connection, mailing, unknown, None, NOW) == Retried(0, already_sent=0)


def test_a_retry_of_what_nobody_has_got_asks_for_the_new_number_alone(queue: Town) -> None:
    mailing = queue.everybody(1)
    run, old = queue.run(), queue.phone(1)
    queue.send(run, REJECTED)
    queue.edit(1, phone=NEW)
    clients.block(queue.connection, {old}, NOW)
    assert outbox.retry(queue.connection, mailing, [MessageStatus.FAILED], None, NOW).again == 1


def test_the_old_number_of_a_block_is_found_by_an_index(queue: Town, plans: list[str]) -> None:
    queue.everybody(50)
    plans.clear()
    clients.block(queue.connection, {NEW}, NOW)
    assert _steps(plans, "SEARCH message USING INDEX message_number (mailing_id=? AND phone=?)")
    assert _steps(plans, "SCAN message") == []


# Real runs


def test_whoever_comes_and_goes_while_two_runs_send_no_number_gets_it_twice(tmp_path: Path) -> None:
    """Clients are removed and added again, and change phones, while the gateway keeps silent about some."""
    with Lab(tmp_path, concurrency=8, rate="40/s") as lab:
        lab.open_gateway("--fault", "taken-500=0.15", "--fault", "400=0.1", "--fault", "taken-reset=0.1")
        with lab.database.write() as connection:
            people = add_clients(connection, 60)
            mailing = add_mailing(connection, now=datetime.now(UTC))
        runs = [lab.start(), lab.start()]
        lab.wait_for_requests(5)
        phones = dict(lab.query("SELECT id, phone FROM client"))
        for one, other in zip(people[20:23], people[50:53], strict=True):
            for client, phone in ((one, NEW), (other, phones[one]), (one, phones[other])):
                lab.command("clients", "edit", str(client), "--phone", str(phone))
        for client in people[:4]:
            lab.command("clients", "remove", str(client), "--yes")
            lab.command("clients", "add", "--phone", str(phones[client]))
        lab.command("mailings", "top-up", str(mailing))
        for each in runs:
            each.wait()
        lab.command("mailings", "retry", str(mailing))
        lab.run_until_final(code=None)
        assert lab.query("SELECT 1 FROM message WHERE reason = ?", outbox.ALREADY_SENT)
        lab.check_invariants()
