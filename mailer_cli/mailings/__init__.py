"""What an operator plans, how far it is, and how it is steered; who gets it is decided in `audience`.

plan.py      what is sent, to whom and when: its rules; create
overview.py  a mailing as it is seen: its status, its counts; find, list
edits.py     a plan revised, also while it runs
prospects.py how much of it can go now, later and never; tags that look like those that nobody has
waiting.py   what of all open ones waits, and for what
steering.py  pause, resume, cancel, remove; more clients, another try
"""

from mailer_cli.mailings.edits import Edit, Edited, edit
from mailer_cli.mailings.overview import Overview, as_json, find, listed, status_of
from mailer_cli.mailings.plan import Plan, check, create
from mailer_cli.mailings.steering import (
    cancel,
    maybe_sent,
    pause,
    remember,
    remove,
    resumable,
    resume,
    retry,
    stoppable,
    top_up,
)

__all__ = [
    "Edit",
    "Edited",
    "Overview",
    "Plan",
    "as_json",
    "cancel",
    "check",
    "create",
    "edit",
    "find",
    "listed",
    "maybe_sent",
    "pause",
    "remember",
    "remove",
    "resumable",
    "resume",
    "retry",
    "status_of",
    "stoppable",
    "top_up",
]
