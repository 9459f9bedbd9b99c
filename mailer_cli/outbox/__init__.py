"""The message table as a queue; nothing else changes or deletes a message.

The life of a message, and where each step is:

    turns.py    which mailings are looked at now, and which sleep
    choose.py   which pending ones are next
    wary.py     whom that passes over, or asks first, after faults
    number.py   where each goes, and why it may not: removed, blocked, or that number has the mailing already
    rest.py     until when a mailing sleeps that was looked at
    claim.py    pending -> sending, with an open attempt, before the first byte goes out
    leave.py    whether what is claimed may still begin
    moments.py  when what is late, or repeated, may begin instead
    record.py   sending -> sent | failed | pending | unknown; also what was never started
    runs.py     sending -> pending | unknown, what a dead run owned
    zones.py    what waits for a zone that this machine does not know
    pace.py     when the rate lets the next ones start
    ahead.py    what a clock that was ahead has left behind; what it has ended: expired, unknown -> pending
    close.py    pending -> expired | cancelled (or unknown); failed, unknown, cancelled -> pending;
                an operator's word
    misfits.py  pending, sending -> failed | unknown, where a row is damaged
    restore.py  pending, sending -> unknown, when a backup is put back
    purge.py    deleted, long after its mailing's end and when nothing of that is unfinished
"""

from mailer_cli.outbox.ahead import bring_back, give_back, has_ahead, has_lost
from mailer_cli.outbox.choose import Demand
from mailer_cli.outbox.claim import Batch, Claimed, claim
from mailer_cli.outbox.close import Retried, cancel, expire, follow_zones, has_overdue, resolve, retry, revive
from mailer_cli.outbox.leave import Leave, leaves
from mailer_cli.outbox.misfits import SIGNS, Misfit, set_aside
from mailer_cli.outbox.moments import renew
from mailer_cli.outbox.number import ALREADY_SENT, doubtful, is_free, served, unwanted
from mailer_cli.outbox.pace import LEAD, MOST_AHEAD, Lead
from mailer_cli.outbox.record import Verdict, record
from mailer_cli.outbox.rest import fixed, has_due, may_be_due, settle
from mailer_cli.outbox.restore import AfterRestore, Started, after_restore
from mailer_cli.outbox.runs import Counts, begin_run, dead_runs, end_run, recover
from mailer_cli.outbox.turns import GUARD, forget, waiting
from mailer_cli.outbox.zones import unknown_zones

__all__ = [
    "ALREADY_SENT",
    "GUARD",
    "LEAD",
    "MOST_AHEAD",
    "SIGNS",
    "AfterRestore",
    "Batch",
    "Claimed",
    "Counts",
    "Demand",
    "Lead",
    "Leave",
    "Misfit",
    "Retried",
    "Started",
    "Verdict",
    "after_restore",
    "begin_run",
    "bring_back",
    "cancel",
    "claim",
    "dead_runs",
    "doubtful",
    "end_run",
    "expire",
    "fixed",
    "follow_zones",
    "forget",
    "give_back",
    "has_ahead",
    "has_due",
    "has_lost",
    "has_overdue",
    "is_free",
    "leaves",
    "may_be_due",
    "record",
    "recover",
    "renew",
    "resolve",
    "retry",
    "revive",
    "served",
    "set_aside",
    "settle",
    "unknown_zones",
    "unwanted",
    "waiting",
]
