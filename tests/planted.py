"""The planted bugs: the eight of the design, each where its mechanism has a place, and some more."""

from dataclasses import dataclass
from pathlib import Path

SMALL = "tests/test_small_model.py"
TIME_OUTS = f"{SMALL}::test_no_interleaving_breaks_a_promise[time-outs]"
MACHINE = "tests/test_model.py"
EDITS = "tests/test_mailings.py"
LATE = "tests/test_late_requests.py"
GATEWAY, HELL = "tests/test_gateway.py", "tests/test_hell.py"
COMMITTED = "".join(f'    connection.exec_driver_sql("{each}")\n' for each in ("COMMIT", "BEGIN IMMEDIATE"))
STEPS, RESTORE, BACKUP = "tests/test_steps.py", "tests/test_restore.py", "tests/test_backup.py"
DOUBT, TRUST = "tests/test_doubt.py", "tests/test_trust.py"
NUMBERS, NUMBER = "tests/test_number.py", "outbox/number.py"
PURGE, CLOCK, BREAKER = "tests/test_purge.py", "tests/test_clock.py", "tests/test_breaker.py"
LIVING = "tests/test_faults.py::test_a_living_run_keeps_what_it_owns"


@dataclass(frozen=True)
class Change:
    """One exact text of one file, and what stands there instead."""

    path: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Raises: SystemExit when the text is not there exactly once."""
        file = root / "mailer_cli" / self.path
        text = file.read_text() if file.exists() else ""
        if text.count(self.old) != 1:
            raise SystemExit(
                f"mutant no longer applies: {text.count(self.old)} x {self.old!r} in {self.path}"
            )
        file.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Mutant:
    """A planted bug; `by` are the tests that can see it, the quickest first."""

    name: str
    changes: tuple[Change, ...]
    by: tuple[str, ...] = (SMALL, MACHINE)
    short: str = ""  # the one that CI runs against it


def changes(path: str, *pairs: tuple[str, str]) -> tuple[Change, ...]:
    return tuple(Change(path, old, new) for old, new in pairs)


CLAIM, RECORD, CLOSE = "outbox/claim.py", "outbox/record.py", "outbox/close.py"
RUNS, CHOOSE, TURNS, REST = "outbox/runs.py", "outbox/choose.py", "outbox/turns.py", "outbox/rest.py"
LOCKS, SENDER, FAILURE = "database/locks.py", "sender.py", "gateway/failure.py"
CONNECTION, CLIENT, GATE = "gateway/connection.py", "gateway/client.py", "gate.py"
UNASKED = "tests/test_quiet.py"
LEAVE, LOOK = "outbox/leave.py", "tests/test_last_look.py"
HEARD = f"{LOOK}::test_what_is_said_before_the_first_byte_is_heard"

# Binds stay in a weakened condition, or SQLAlchemy would complain instead of the tests.
STILL_OPEN = "if (each.message_id, each.attempt) in still_open:"
NO_STATUS = (
    """        col(Message.status) == MessageStatus.SENDING.value,
        col(Message.run_id) == bindparam("run"),
""",
    """        col(Message.id) + bindparam("run") > 0,
""",
)
ANY_ATTEMPT = (
    'col(Message.attempts) == _GIVEN["attempt"],',
    'col(Message.id) + _GIVEN["attempt"] > 0,',
)
CLOSED_AS = '.values(ended_at=now, outcome=Outcome.UNKNOWN.value, error="run died")'
RELEASED = (CLOSED_AS, CLOSED_AS.replace("UNKNOWN", "RELEASED"))
COUNTED = "mine.values(unknowns=col(Message.unknowns) + 1)"
UNCOUNTED = (COUNTED, COUNTED.replace(" + 1", ""))
LOST = 'return Answer(Outcome.UNKNOWN, word or "lost", status)'
MAYBE_TAKEN = "MAYBE_TAKEN = (Outcome.SERVER, Outcome.UNKNOWN)"
END = 'self.row["end_at"] > now + GUARD)'
GOING = "col(Mailing.paused_at).is_(None), col(Mailing.cancelled_at).is_(None), col(M"

THE_EIGHT = (
    Mutant(
        "no fence",
        changes(RECORD, (STILL_OPEN, "if True:"), NO_STATUS, ANY_ATTEMPT),
        short=TIME_OUTS,
    ),
    Mutant("no fence: around open attempts", changes(RECORD, NO_STATUS, ANY_ATTEMPT)),
    Mutant(
        "fence by owner only",
        changes(
            RECORD,
            (STILL_OPEN, "if each.message_id in {one for one, _ in still_open}:"),
            ANY_ATTEMPT,
        ),
        short=TIME_OUTS,
    ),
    Mutant("recovery without unknown", changes(RUNS, RELEASED, UNCOUNTED), short=TIME_OUTS),
    Mutant("recovery without unknown: the counter", changes(RUNS, UNCOUNTED)),
    Mutant("recovery without unknown: the attempt", changes(RUNS, RELEASED)),
    Mutant(
        "recovery without unknown: left open",
        changes(RUNS, (CLOSED_AS, ".values(run_id=col(Attempt.run_id))")),
    ),
    Mutant(
        "time-out taken as temporary",
        changes(
            "decide.py",
            ("from dataclasses import dataclass\n", "from dataclasses import dataclass, replace\n"),
            (
                "    match answer.outcome:\n",
                """    if answer.outcome is Outcome.UNKNOWN:
        answer = replace(answer, outcome=Outcome.TEMPORARY)
    match answer.outcome:
""",
            ),
        ),
        short=TIME_OUTS,
    ),
    Mutant(
        "time-out taken as temporary: in the gateway",
        changes(FAILURE, (LOST, LOST.replace("UNKNOWN", "TEMPORARY"))),
    ),
    Mutant("time-out taken as not sent", changes(FAILURE, (LOST, LOST.replace("UNKNOWN", "NOT_SENT")))),
    Mutant(
        "expired hides unknown",
        changes(CLOSE, ("in_doubt = connection.execute(unknown).rowcount", "in_doubt = 0 * hash(unknown)")),
        short=TIME_OUTS,
    ),
    Mutant(
        "expired hides unknown: a time-out",
        changes("models.py", (MAYBE_TAKEN, "MAYBE_TAKEN = (Outcome.SERVER,)")),
    ),
    Mutant(
        "a late OK is fenced",
        changes(RECORD, ("            late.append(each)\n", "            pass\n")),
        short=TIME_OUTS,
    ),
    Mutant(
        "a late OK is fenced: by status",
        changes(
            RECORD,
            (
                "col(Message.status) != MessageStatus.SENT.value)",
                'col(Message.status).in_(["pending", "sending"]))',
            ),
        ),
    ),
    Mutant("no end guard", changes(CHOOSE, (END, END.replace(" + GUARD", ""))), (MACHINE,), short=MACHINE),
    Mutant("no end guard: no end", changes(CHOOSE, (END, END.replace(" + ", " - 9999 * ")))),
    Mutant(
        "no end guard: the window's",
        changes(CHOOSE, ("if closes_at > now + GUARD]", "if closes_at > now]")),
        (MACHINE,),
    ),
    Mutant(
        "no end guard: the request's time limit",
        changes(GATE, ("        return seconds\n", "        return 1e9\n")),
        (LATE,),
    ),
    Mutant(
        "no end guard: before the request",
        changes(GATE, ("        if seconds <= 0:\n            return None\n", "")),
        (LATE,),
    ),
    Mutant(
        "recovery of a living owner's row",
        changes(RUNS, ("return [run_id for run_id in found if is_free(run_id)]", "return list(found)")),
        short=TIME_OUTS,
    ),
    Mutant(
        "recovery of a living owner's row: locks that say free",
        changes(LOCKS, ("self._holder(run_id, 1) is None", "self._holder(run_id, 1) != -1")),
        (MACHINE,),
    ),
    Mutant(
        "recovery of a living owner's row: locks not taken",
        changes(
            LOCKS,
            (
                "self._take(fcntl.F_WRLCK, run_id, 1)",
                "self._take(fcntl.F_UNLCK, run_id, 1)",
            ),
        ),
        (MACHINE,),
    ),
    Mutant(
        "recovery of a living owner's row: every open attempt",
        changes(
            RUNS,
            (
                """    orphans = select(col(Attempt.message_id)).where(
        col(Attempt.run_id).in_(dead), col(Attempt.outcome).is_(None)
    )""",
                "    orphans = select(col(Attempt.message_id)).where(col(Attempt.outcome).is_(None))",
            ),
        ),
    ),
    Mutant(
        "recovery of a living owner's row: a run without its lock",
        changes(
            "dispatch.py",
            ("            self.locks.take(self.run_id)  # before anyone can see the run\n", ""),
        ),
        (LIVING,),
    ),
)

FILES, ITS_TESTS = "files.py", "tests/test_files.py"
DONE_ONCE, READERS = "tests/test_turns_done_once.py", "tests/test_readers.py"
IDENTITY, OWNERS = "tests/test_identity.py", "tests/test_owners.py"
NAMES_AND_THINGS = (
    Mutant(
        "who is alive is asked of the lock file alone",
        changes(LOCKS, ("*([] if self._itself is None else [(self._itself, BEHIND)])", "*[]")),
        (f"{IDENTITY}::test_who_is_alive_is_seen_when_the_lock_file_is_another",),
    ),
    Mutant(
        "a database is whatever has its name",
        changes("database/engine.py", ("if found != self._identity:", "if found is None:")),
        (f"{IDENTITY}::test_answers_go_into_no_other_database",),
    ),
    Mutant(
        "a turn whose commit failed is done anew",
        changes(
            "database/turns.py",
            ("if turn is not None and found == self._done + 1:", "if found == -1:"),
            ("if found != self._done:", "if found == -1:"),
        ),
        (f"{DONE_ONCE}::test_a_turn_is_done_once_whatever_its_commit_says",),
    ),
    Mutant(
        "a turn whose commit failed was done",
        changes(
            "database/turns.py",
            ("and found == self._done + 1:", "and found is not None:"),
            ("if found != self._done:", "if found == -1:"),
        ),
        (f"{DONE_ONCE}::test_what_is_in_doubt_is_found_out_before_the_next_is_done",),
    ),
    Mutant(
        "a check reads the database itself",
        changes("database/files.py", ("yield Database(copy, called=database.path)", "yield database")),
        (f"{READERS}::test_a_long_look_reads_nothing_of_the_database_itself",),
    ),
    Mutant(
        "a copy has what was read without a lock",
        changes("database/files.py", ("        _write(copy, late)\n", "")),
        (f"{READERS}::test_a_copy_has_what_was_committed_while_it_was_made",),
    ),
    Mutant(
        "what root makes is root's",
        changes("owners.py", ("        os.fchown(file, there.st_uid, there.st_gid)\n", "        pass\n")),
        (f"{OWNERS}::test_what_root_makes_beside_a_database_is_its_owners",),
    ),
    Mutant(
        "an output is known by its name alone",
        changes(FILES, ("        found.add((file.st_dev, file.st_ino))\n", "")),
        (f"{ITS_TESTS}::test_a_hard_link_to_one_is_one",),
    ),
    Mutant(
        "an output may be what is not there yet",
        changes(
            FILES,
            ("            found.add((folder.st_dev, folder.st_ino, real.name))\n", "            pass\n"),
        ),
        (f"{ITS_TESTS}::test_nothing_takes_the_place_of_what_the_program_lives_on",),
    ),
    Mutant(
        "rejects begin before there are any",
        changes(
            FILES,
            (
                "stack.enter_context(target.text(encoding)) if target.is_stream else None",
                "stack.enter_context(target.text(encoding))",
            ),
        ),
        (f"{ITS_TESTS}::test_the_rejects_of_an_earlier_day_are_left_when_there_are_none_today",),
    ),
)

MORE = (
    *NAMES_AND_THINGS,
    Mutant(
        "the attempt is not counted",
        changes(CLAIM, ("attempts=col(Message.attempts) + 1,", "attempts=col(Message.attempts),")),
    ),
    Mutant(
        "no attempt is opened",
        changes(CLAIM, ('    connection.execute(_OPEN, {"rows": opened, "run": run_id, "now": now})\n', "")),
    ),
    Mutant(
        "a failure is not counted",
        changes(RECORD, ('failures) + bindparam("failed"),', 'failures) + 0 * bindparam("failed"),')),
    ),
    Mutant(
        "an unknown fate is not counted",
        changes(RECORD, ('unknowns) + bindparam("in_doubt"),', 'unknowns) + 0 * bindparam("in_doubt"),')),
    ),
    Mutant(
        "one unknown fate too many",
        changes(RUNS, ("unknowns_forgiven) >= max_unknown", "unknowns_forgiven) > max_unknown")),
    ),
    Mutant(
        "one failure too many",
        changes("decide.py", ("failures + 1 >= limits.failures", "failures >= limits.failures")),
        (MACHINE,),
    ),
    Mutant(
        "what may be taken is called failed",
        changes(
            "decide.py",
            ("MessageStatus.UNKNOWN if claimed.doubtful else MessageStatus.FAILED", "MessageStatus.FAILED"),
        ),
        (MACHINE,),
    ),
    Mutant(
        "nothing is in doubt",
        changes(CLAIM, ("    if not repeated:\n", "    if True:\n")),
        (MACHINE,),
    ),
    Mutant(
        "backoff is not kept",
        changes(
            CHOOSE, ('col(Message.due_at) <= bindparam("now"', 'col(Message.created_at) <= bindparam("now"')
        ),
        (MACHINE,),
    ),
    Mutant(
        "a paused mailing is claimed",
        changes(TURNS, (GOING, GOING.partition(" ")[2])),
        (MACHINE,),
    ),
    Mutant(
        "a cancelled mailing is claimed",
        changes(TURNS, (GOING, GOING.replace("cancelled", "paused"))),
    ),
    Mutant(
        "a closed window is no obstacle",
        changes(CHOOSE, ("if window.is_open(zone, now) else now", "if zone else now")),
        (MACHINE,),
    ),
    Mutant(
        "the stop list is not asked",
        changes(CLAIM, ("unwanted() | taken(or_in_flight=True)", "taken(or_in_flight=True)")),
        (MACHINE,),
    ),
    Mutant(
        "a repeat goes to the new phone",
        changes(CLAIM, ("phone=case((doubtful(), col(Message.phone)), else_=_PHONE),", "phone=_PHONE,")),
        (NUMBERS, MACHINE),
    ),
    Mutant(
        "a repeat says the new text",
        changes(
            CLAIM,
            (
                'case((doubtful(), col(Message.wording_id)), else_=bindparam("wording")),',
                'bindparam("wording"),',
            ),
        ),
        (MACHINE,),
    ),
    Mutant(
        "a retry does not forgive",
        changes(CLOSE, ("            unknowns_forgiven=col(Message.unknowns),\n", "")),
    ),
    Mutant(
        "an operator's word has no row",
        changes(
            CLOSE, ("        connection.execute(insert(Resolution).values(row))\n", "        row.clear()\n")
        ),
    ),
    Mutant(
        "what comes back to a cancelled mailing waits for ever",
        changes(CLOSE, ("_waits_where(IS_STOPPED), M", "_waits_where(IS_STOPPED) & ~true(), M")),
    ),
    Mutant(
        "waiting messages keep the old zone",
        changes(
            CLOSE, ("        .values(timezone=ZONE)\n", "        .values(timezone=col(Message.timezone))\n")
        ),
        (MACHINE,),
    ),
    Mutant(
        "the zone of what may have been taken changes",
        changes(
            CLOSE,
            (
                "            ~doubtful(),\n            col(Message.timezone) != ZONE,\n",
                "            col(Message.timezone) != ZONE,\n",
            ),
        ),
        (MACHINE,),
    ),
    Mutant(
        "a filter brings back what was cancelled otherwise",
        changes(
            CLOSE,
            (" col(Message.reason) == reason, _may_go()\n", " true() if reason else true(), _may_go()\n"),
        ),
        (EDITS,),
    ),
    Mutant(
        "a body that a reset has ended is whole",
        changes(CONNECTION, ("        if exc is not None:\n            _cut(body, exc)\n", "")),
        (f"{GATEWAY}::test_after_the_first_byte_it_is_unknown", HELL),
    ),
    Mutant(
        "a restore forgets what was in flight",
        changes(
            "outbox/restore.py",
            (
                "orphans.values(unknowns=col(Message.unknowns) + 1)",
                "orphans.values(unknowns=col(Message.unknowns))",
            ),
        ),
        (MACHINE,),
    ),
    Mutant(
        "a restore lets what waited wait",
        changes("outbox/restore.py", ("    if not keep_pending:\n", "    if False:\n")),
        (RESTORE,),
    ),
    Mutant(
        "a restore gives ids again",
        changes(
            "database/files.py", ("            raise_ids(connection, last_ids(raw))\n", "            pass\n")
        ),
        (BACKUP,),
    ),
    Mutant(
        "a purge takes what is unfinished",
        changes(
            "outbox/purge.py",
            (
                "        return bool(self.pending or self.sending or self.open_attempts)\n",
                "        return False\n",
            ),
        ),
        (PURGE,),
    ),
    Mutant(
        "a purged mailing is not marked",
        changes("outbox/purge.py", ("        _mark(connection, each.mailing_id, now)\n", "")),
        (PURGE,),
    ),
    Mutant(
        "a clock that was ahead holds the rate back",
        changes(
            "outbox/pace.py",
            ("self.moment < self.next_free_at <= farthest:", "self.moment < self.next_free_at:"),
        ),
        (CLOCK,),
    ),
    Mutant(
        "our own sleep is the gateway's fault",
        changes("gateway/answer.py", ('("aborted", "too late", "overslept")', '("aborted", "too late")')),
        (BREAKER,),
    ),
    Mutant(
        "a new token goes to the old address",
        changes(
            "cli/dispatch.py", ("return token if url == at.settings.require_url() else None", "return token")
        ),
        ("tests/test_faults.py::test_a_renewed_token_for_another_gateway_is_not_shown_to_this_one",),
    ),
    Mutant(
        "a cancel is two transactions",
        changes(
            CLOSE,
            (
                "    in_doubt = connection.execute(unknown).rowcount\n",
                f"    in_doubt = connection.execute(unknown).rowcount\n{COMMITTED}",
            ),
        ),
        (STEPS,),
    ),
    Mutant(
        "a claim is two transactions",
        changes(
            CLAIM,
            (
                '    connection.execute(_OPEN, {"rows": opened, "run": run_id, "now": now})\n',
                COMMITTED + '    connection.execute(_OPEN, {"rows": opened, "run": run_id, "now": now})\n',
            ),
        ),
        (STEPS,),
    ),
)

ONE_NUMBER = (
    Mutant(
        "a number gets a mailing twice",
        changes(CLAIM, ("unwanted() | taken(or_in_flight=True)", "unwanted()")),
        (NUMBERS, MACHINE),
    ),
    Mutant(
        "a number gets a mailing twice: by what may have been taken",
        changes(NUMBER, ("MAY_HAVE_IT = HAS_IT | and_(", "MAY_HAVE_IT = HAS_IT & and_(")),
        (NUMBERS, MACHINE),
    ),
    Mutant(
        "a number gets a mailing twice: by what is in flight",
        changes(CLAIM, ("taken(or_in_flight=True)", "taken()")),
        (NUMBERS, MACHINE),
    ),
    Mutant(
        "what waits for another to land is cancelled",
        changes(
            NUMBER, ("    (taken(), ALREADY_SENT),\n", "    (taken(or_in_flight=True), ALREADY_SENT),\n")
        ),
        (NUMBERS,),
    ),
    Mutant(
        "a top-up promises a second message",
        changes("audience.py", ("and_(chosen, outbox.served(mailing_id))", "and_(chosen, ~true())")),
        (NUMBERS,),
    ),
    Mutant(
        "a retry promises a second message",
        changes(CLOSE, ("return _its_client(~unwanted(), ~taken())", "return _its_client(~unwanted())")),
        (NUMBERS,),
    ),
    Mutant(
        "what nobody can have got is fixed",
        changes(
            NUMBER,
            (
                "    return and_(col(message.attempts) > 0, taken",
                "    return or_(col(message.attempts) > 0, taken",
            ),
        ),
        (NUMBERS, MACHINE),
    ),
    Mutant(
        "a zone that changes in flight is forgotten",
        changes(
            CLOSE,
            (
                "in_((MessageStatus.PENDING.value, MessageStatus.SENDING.value))",
                "in_((MessageStatus.PENDING.value,))",
            ),
        ),
        (NUMBERS, MACHINE),
    ),
    Mutant(
        "the stop list is asked for one number alone",
        changes(NUMBER, ("col(Block.phone).in_((col(Client.phone), NUMBER))", "col(Block.phone) == NUMBER")),
        (NUMBERS, MACHINE),
    ),
    Mutant(
        "an import forgets who is blocked",
        changes("csv_import/staging.py", ("    if counts.blocked:\n", "    if False:\n")),
        ("tests/test_stop_list.py",),
    ),
    Mutant(
        "a block by a list lets wait what waits",
        changes("clients/change.py", ("    _end_messages_to(connection, phones)\n", "")),
        ("tests/test_stop_list.py",),
    ),
    Mutant(
        "a blocked number becomes a client",
        changes("csv_import/staging.py", ("        .where(~only_stopped)\n", "")),
        ("tests/test_stop_list.py",),
    ),
    Mutant(
        "a resume sends again what has begun since the backup",
        changes("mailings/steering.py", ("    if doubted and not sure:\n", "    if False:\n")),
        (RESTORE,),
    ),
    Mutant(
        "a top-up after a restore adds whoever was added since",
        changes("mailings/steering.py", ("if found.restored_at is not None and not sure:", "if False:")),
        (RESTORE,),
    ),
    Mutant(
        "what waited in the backup is free",
        changes(
            "outbox/restore.py",
            ('"outcome": literal(Outcome.UNKNOWN.value),', '"outcome": literal("released"),'),
        ),
        (RESTORE,),
    ),
    Mutant(
        "a block forgets the number that a repeat is bound to",
        changes("clients/change.py", ("& outbox.doubtful()", "& (col(Message.id) < 0)")),
        (NUMBERS,),
    ),
)

DOUBTS = (
    Mutant(
        "a server error is a failure",
        changes(
            "gateway/answer.py",
            ("(Outcome.UNKNOWN, range(500, 600))", "(Outcome.TEMPORARY, range(500, 600))"),
        ),
        (DOUBT,),
    ),
    Mutant(
        "hold believes a proxy",
        changes(SENDER, ("return answer.strictly if self._limits.holds else answer", "return answer")),
        (DOUBT,),
    ),
    Mutant(
        "a busy gateway is asked about one message for ever",
        changes(
            "decide.py",
            (
                "(claimed.busy - 1, chance)) if claimed.busy else named",
                "(0, chance)) if not claimed else named",
            ),
        ),
        (DOUBT,),
    ),
    Mutant(
        "an old server error is a failure",
        changes("models.py", (MAYBE_TAKEN, "MAYBE_TAKEN = (Outcome.UNKNOWN,)")),
        (DOUBT,),
    ),
)

ZONES = "tests/test_unknown_zones.py"
ROWS = "tests/test_bad_rows.py"
SYSTEM = "tests/test_system_zone.py"
BELIEF = "tests/test_belief.py"
ONE_BAD_ROW = (
    Mutant(
        "a clock that jumps ahead is believed",
        changes("belief.py", ("FORWARD = 120.0", "FORWARD = 1e9")),
        (f"{BELIEF}::test_a_day_ahead_once_ends_nothing_and_begins_nothing_of_tomorrow",),
    ),
    Mutant(
        "a jump of the clock in a run is not seen",
        changes(SENDER, ("        elif self._is_doubted():\n", "        elif False:\n")),
        (f"{BELIEF}::test_a_jump_in_the_middle_of_a_run_ends_the_run_and_nothing_else",),
    ),
    Mutant(
        "what a wrong clock has ended stays so",
        changes("dispatch.py", ("self._recover, self._give_back,", "self._recover,")),
        (
            f"{BELIEF}::test_a_clock_that_stays_ahead_is_believed_and_what_it_ended_is_given_back_when_it_was_wrong",
        ),
    ),
    Mutant(
        "what is cancelled is given back",
        changes("outbox/ahead.py", ("    col(Mailing.cancelled_at).is_(None),\n", "")),
        (
            f"{BELIEF}::test_a_clock_that_stays_ahead_is_believed_and_what_it_ended_is_given_back_when_it_was_wrong",
        ),
    ),
    Mutant(
        "an idle run believes every clock",
        changes(
            "idle.py", ("        if belief.ahead(lock, now, boot) is not None:\n", "        if False:\n")
        ),
        (f"{BELIEF}::test_an_idle_run_beats_by_no_clock_that_is_doubted",),
    ),
    Mutant(
        "a stale note of the zone is not said",
        changes(
            "system_zone.py",
            ("stale = noted is not None and not _agree", "stale = noted is None and not _agree"),
        ),
        (f"{SYSTEM}::test_a_stale_note_is_said",),
    ),
    Mutant(
        "a copied file has no name",
        changes(
            "system_zone.py",
            ("        return _by_content(path.read_bytes(), likely)\n", "        return None\n"),
        ),
        (f"{SYSTEM}::test_a_copied_file_is_known_by_its_content",),
    ),
    Mutant(
        "a damaged row ends the run",
        changes("dispatch.py", ("                if not self._set_aside():\n", "                if True:\n")),
        (f"{ROWS}::test_a_bad_row_of_a_message_costs_that_message",),
    ),
    Mutant(
        "a filter that is lost reaches everyone",
        changes("audience.py", ("if found.everyone is not row.everyone:", "if not row:")),
        (f"{ROWS}::test_a_filter_that_cannot_be_read_reaches_nobody",),
    ),
    Mutant(
        "a zone that is not known here ends the run",
        changes(CHOOSE, (" <= now and is_known(zone)]", " <= now]")),
        (f"{ZONES}::test_it_waits_and_all_others_are_served",),
    ),
    Mutant(
        "a zone that is not known here is open at any hour",
        changes(
            CHOOSE,
            (
                "return [zone for closes_at, zone in sorted(closing) if closes_at > now + GUARD]",
                "return [each for each, _ in zones(connection, turn.row['id']) if not is_known(each)]",
            ),
        ),
        (f"{ZONES}::test_it_waits_and_all_others_are_served",),
    ),
    Mutant(
        "what waits for a zone is said every minute",
        changes("news.py", ("abs(now - said.said_at) < SAY_AGAIN", "False")),
        (f"{ZONES}::test_cron_hears_of_it_once_an_hour_and_again_when_it_comes_back",),
    ),
)

TURNS = "tests/test_broken_turns.py"
A_TURN = f"{TURNS}::test_a_turn_that_fails_takes_no_answer_with_it"

BROKEN_TURNS = (
    Mutant(
        "an answer leaves before it is recorded",
        changes(
            SENDER,
            (
                "        done, asked = list(self._known), self._gate.asks()\n",
                "        done, asked, self._known = self._known, self._gate.asks(), []\n",
            ),
        ),
        (f"{A_TURN}[recording]",),
    ),
    Mutant(
        "an error drops what is in flight",
        changes(SENDER, ("                await self._rescue()\n", "                pass\n")),
        (f"{A_TURN}[telling]",),
    ),
    Mutant(
        "a claim that an error has cut off is forgotten",
        changes(
            SENDER,
            ("NOT_STARTED, self._token) for each in self._unstarted]", 'NOT_STARTED, "") for each in ()]'),
        ),
        (f"{A_TURN}[after-the-commit]",),
    ),
    Mutant(
        "a heart that does not beat ends the run",
        changes(
            "dispatch.py",
            ("        except OSError as error:\n", "        except BlockingIOError as error:\n"),
        ),
        (f"{TURNS}::test_a_heart_that_does_not_beat_is_a_warning",),
    ),
)

QUIET = (
    Mutant(
        "a connection is used on which somebody speaks",
        changes(CONNECTION, ("if data and (self.is_idle or self._is_writing):", "if False:")),
        (UNASKED,),
    ),
    Mutant(
        "an answer before the last byte is the message's",
        changes(CONNECTION, ("if data and (self.is_idle or self._is_writing):", "if data and self.is_idle:")),
        (UNASKED,),
    ),
    Mutant(
        "what waits in the kernel is taken for the answer",
        changes(CONNECTION, ("            if not _has_bytes(self.transport):\n", "            if True:\n")),
        (UNASKED,),
    ),
    Mutant(
        "a gateway that speaks twice is trusted with the next connection",
        changes(CONNECTION, ("        self._force_close = True\n", "")),
        (UNASKED,),
    ),
    Mutant(
        "a second answer in the packet of the first is not seen",
        changes(
            CONNECTION,
            ("        if protocol.has_more:\n", "        if False:\n"),
            ("        if self.is_idle and self.has_more:", "        if False:"),
        ),
        (UNASKED,),
    ),
    Mutant(
        "what may not begin is sent",
        changes(
            CLIENT,
            ("        if seconds is None:\n", "        if seconds is None and (seconds := 9.0) < 0:\n"),
        ),
        (UNASKED,),
    ),
)

TURNS = tuple(
    Mutant(name, changes(path, change), (f"tests/test_fairness.py::{by}",))
    for name, path, change, by in (
        (
            "each run begins its round anew",
            SENDER,
            ("served = state.served or 0 if", "served = 0 if"),
            "test_turns_go_on_across_runs_although_no_run_gets_through",
        ),
        (
            "a probe takes the head of the queue",
            SENDER,
            ("is_probe=is_busy or (", "is_probe=is_busy or 0 * ("),
            "test_an_operator_whose_route_is_down_does_not_stop_the_others[500]",
        ),
        (
            "every fault is the gateway's",
            "breaker.py",
            ("or not self._is_own(claimed, its):", "or True:"),
            "test_those_who_are_known_to_fail_do_not_shut_the_gateway",
        ),
        (
            "a suspect is asked like all others",
            "outbox/wary.py",
            ("SUSPECT = 5 ", "SUSPECT = 10**9 "),
            "test_an_operator_whose_route_is_down_does_not_stop_the_others[500]",
        ),
        (
            "one message speaks for all",
            "breaker.py",
            ("wish = min(wish, SECOND_OPINION)", "wish = min(wish, wish)"),
            "test_one_clients_trouble_is_his_own[429-for-an-hour]",
        ),
        (
            "whose wish it is, is never known",
            "breaker.py",
            ("wish = min(wish, OWN_WISH)", "wish = min(wish, wish)"),
            "test_one_clients_trouble_is_his_own[429-for-an-hour]",
        ),
        (
            "a probe asks whoever was asked before",
            "outbox/choose.py",
            ('wary.order(turn.row["id"]))[:PROBED]', "0)[:1]"),
            "test_the_judge_sees_a_good_mailing_that_gets_no_turn",
        ),
    )
)

TRUSTS = (
    Mutant(
        "a text may lose all its slots",
        changes("trust.py", ("return IN_A_ROW - self.refused + self.taken", "return 64 + 0 * self.taken")),
        (TRUST,),
    ),
    Mutant(
        "a run forgets which text was refused",
        changes("trust.py", ("        if is_doubted and not self.taken:\n", "        if False:\n")),
        (TRUST,),
    ),
    Mutant(
        "a mailing never pauses itself",
        changes(
            "mailings/steering.py", ("refused_runs) >= REFUSED_RUNS", "refused_runs) < 0 * REFUSED_RUNS")
        ),
        (TRUST,),
    ),
    Mutant(
        "an OK does not make good",
        changes("mailings/steering.py", ("doubted.values(refused_runs=0)", "doubted.values(refused_runs=2)")),
        (TRUST,),
    ),
    Mutant(
        "what was put aside stops the run",
        changes(
            SENDER,
            (
                "        slots = self.caution.slots(len(self._in_flight), loop.time())\n",
                "        if self._learnt.refused:\n            self.caution.stop_for('too_many_rejected')\n"
                "        slots = self.caution.slots(len(self._in_flight), loop.time())\n",
            ),
        ),
        (TRUST,),
    ),
)

LAST_LOOK = (
    Mutant(
        "what is known does not age",
        changes(GATE, ("- waiting.seen_at >= FRESH:", "- waiting.seen_at >= 1e9:")),
        (f"{LOOK}::test_a_run_that_was_suspended_hears_what_was_said_meanwhile[pause]",),
    ),
    Mutant(
        "a pause is not heard before the first byte",
        changes(LEAVE, ("        col(Mailing.paused_at).is_(None),\n", "")),
        (f"{HEARD}[pause]",),
    ),
    Mutant(
        "an earlier end is not heard before the first byte",
        changes(
            LEAVE,
            ("col(Mailing.end_at) > bindparam", "col(Mailing.start_at) <= bindparam"),
            ("    end_at: datetime = row.end_at\n", "    end_at = max(row.end_at, now.replace(year=2999))\n"),
        ),
        (f"{HEARD}[an_earlier_end]",),
    ),
    Mutant(
        "a window is not heard before the first byte",
        changes(LEAVE, ("    if row.window_from is None:\n", "    if True:\n")),
        (f"{HEARD}[a_window]",),
    ),
    Mutant(
        "the stop list is not asked before the first byte",
        changes(LEAVE, ("        ~unwanted(),\n", "")),
        (f"{HEARD}[clients_blocked]",),
    ),
    Mutant(
        "a new phone does not reach what is claimed",
        changes(LEAVE, ("(col(Message.phone) == col(Client.phone))", "(col(Message.id) > 0)")),
        (f"{LOOK}::test_a_new_phone_reaches_what_is_claimed",),
    ),
    Mutant(
        "a stop waits for connections",
        changes(
            SENDER,
            (
                "                waiting.leave = None\n                task.cancel()\n",
                "                pass\n",
            ),
        ),
        (f"{LOOK}::test_a_run_that_is_told_to_stop_waits_for_no_connection",),
    ),
    Mutant(
        "a repeat passes no pace",
        changes(GATE, (" and wait >= -LATE else None", " else None")),
        ("tests/test_gate.py",),
    ),
    Mutant(
        "a moment by another rate is one",
        changes(GATE, ("if rates == waiting.rates and wait", "if wait")),
        ("tests/test_gate.py",),
    ),
    Mutant(
        "who gets no new moment goes all the same",
        changes(
            GATE,
            (
                "                each.leave = None  # its turn comes with another claim\n",
                "                each.moment = _now()\n",
            ),
        ),
        ("tests/test_gate.py",),
    ),
    Mutant(
        "new moments use nothing up",
        changes("outbox/moments.py", ("    _advance(connection, paces, shared)\n", "")),
        ("tests/test_rate.py",),
    ),
)

SIGNALS = "tests/test_signals.py"
STOP = "stop.py"

WISHES = (
    Mutant(
        "a closed terminal kills a run",
        changes(STOP, ("IMPERSONAL = (signal.SIGHUP, ", "IMPERSONAL = (")),
        (f"{SIGNALS}::test_a_closed_terminal_ends_create_and_dispatch_in_order",),
    ),
    Mutant(
        "one wish that is said twice is two",
        changes(STOP, ("TOGETHER = 1.0", "TOGETHER = 0.0")),
        (f"{SIGNALS}::test_two_words_within_moments_are_one_wish",),
    ),
    Mutant(
        "a limit insists",
        changes(STOP, ("        if number in PERSONAL:\n", "        if number:\n")),
        (f"{SIGNALS}::test_nobody_insists_by_a_closed_terminal_or_a_limit",),
    ),
    Mutant(
        "nohup is not obeyed",
        changes(STOP, ("signal.getsignal(each) is not signal.SIG_IGN:", "each:")),
        (f"{SIGNALS}::test_what_is_ignored_since_the_start_stays_ignored",),
    ),
    Mutant(
        "an interruption is lost where garbage is collected",
        changes(STOP, ("        sys.unraisablehook = self._rescue\n", "")),
        (f"{SIGNALS}::test_an_interruption_that_garbage_has_swallowed_comes_again",),
    ),
    Mutant(
        "an interruption that a library has changed is a bug",
        changes("cli/__init__.py", ("if stop.interrupted_by is not None:", "if stop.interrupted_by == 0:")),
        (f"{SIGNALS}::test_an_interruption_that_a_library_has_changed_is_one_still",),
    ),
    Mutant(
        "a mailing that is created is not told",
        changes("cli/mailings.py", ("        at.stop.drain()  #", "        pass  #")),
        (f"{SIGNALS}::test_a_mailing_that_is_created_is_told_whatever_comes_meanwhile",),
    ),
)

T = "tests/test_turns.py"
WHOSE = "outbox/turns.py"
TURNS_IN_TIME = (
    Mutant(
        "a mailing sleeps on when a message waits again",
        changes(
            "migrations/versions/0007_turns.py", ("WHEN NEW.status = 'pending'", "WHEN NEW.status = 'x'")
        ),
        (f"{T}::test_a_repeat_that_comes_back_to_a_mailing_asleep_wakes_it",),
    ),
    Mutant(
        "a mailing sleeps on when its zone changes",
        changes(
            "migrations/versions/0007_turns.py", ("OF status, due_at, timezone ON", "OF status, due_at ON")
        ),
        (f"{T}::test_what_opens_its_window_wakes_it",),
    ),
    Mutant(
        "a mailing sleeps on when its plan changes",
        changes("migrations/versions/0007_turns.py", ("WHEN NEW.turn IS NOT NULL", "WHEN NEW.turn = 'x'")),
        (f"{T}::test_a_later_end_wakes_what_was_too_near_its_end",),
    ),
    Mutant(
        "a mailing sleeps on when it is topped up",
        changes(
            "audience.py",
            (
                """already)
    outbox.fixed(connection, mailing_id, now)
""",
                "already)\n",
            ),
        ),
        (f"{T}::test_a_top_up_wakes_what_slept_for_others",),
    ),
    Mutant(
        "a mailing sleeps by the word of a clock that was ahead",
        changes(CLAIM, ("        turns.wake_all(connection, now)\n", "        pass\n")),
        (f"{T}::test_a_clock_that_was_ahead_lets_nothing_sleep",),
    ),
    Mutant(
        "a mailing sleeps past the opening of its window",
        changes(REST, ("    return opens_at if closes_at > opens_at + GUARD else", "    return")),
        (f"{T}::test_it_sleeps_to_the_opening_of_its_window_and_not_longer",),
    ),
    Mutant(
        "sleepers are not woken",
        changes(CLAIM, ("seen.has_ripe and turns.wake(connection, now)", "False")),
        (f"{T}::test_it_sleeps_to_the_opening_of_its_window_and_not_longer",),
    ),
    Mutant(
        "whoever is awake in vain ends the run",
        changes(CLAIM, (" or found.is_cut", "")),
        (f"{T}::test_thousands_that_are_awake_in_vain_keep_nobody_from_his_turn",),
    ),
    Mutant(
        "a turn asks those that sleep",
        changes(WHOSE, ("_IS_AWAKE = and_(_is(MailingTurn.NOW), ", "_IS_AWAKE = and_(IS_WAITING, ")),
        (f"{T}::test_a_turn_costs_the_same_whoever_else_is_open",),
    ),
    Mutant(
        "a rate holds nothing back for long",
        changes(
            REST,
            (
                '        return Rest(turn.row["id"], MailingTurn.HELD,',
                '        return Rest(turn.row["id"], MailingTurn.NOW,',
            ),
        ),
        (f"{T}::test_what_a_rate_holds_back_is_waited_for_and_no_longer_than_it_is_due",),
    ),
)

SHOWN = "tests/test_settings.py::test_nothing_that_may_be_secret_in_an_address_is_ever_shown"

ADDRESSES = (
    Mutant(
        "a password in an address is shown",
        changes("settings.py", ("    if not SUSPECT.search(value):\n", "    if SUSPECT:\n")),
        (SHOWN,),
    ),
    Mutant(
        "an address without a user may have a password",
        changes(
            "settings.py",
            ("if parts is None or HIDING.search(value):", "if parts is None or parts.username:"),
        ),
        ("tests/test_security.py::test_no_command_shows_a_password_in_an_address",),
    ),
)

DOCTOR = "tests/test_doctor.py"

SICK = (
    Mutant(
        "health is green while runs end in trouble",
        changes("cli/operations.py", ("<= limit and bad is None", "<= limit")),
        (f"{DOCTOR}::test_a_run_that_ends_in_trouble_is_neither_healthy_nor_ok",),
    ),
    Mutant(
        "doctor does not try to write",
        changes("doctor.py", ("            beside.write(bytes(PROBE))\n", "            pass\n")),
        (f"{DOCTOR}::test_a_disk_that_takes_nothing_is_an_error",),
    ),
)

MUTANTS = {
    each.name: each
    for some in list(globals().values())
    if isinstance(some, tuple)
    for each in some
    if isinstance(each, Mutant)
}
"""Those of all tuples above."""
