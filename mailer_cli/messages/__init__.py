"""Messages as they are seen: who got one, who did not, why. Only `outbox` changes them.

overview.py  one message; find
listing.py   many, by what is asked for, in a stream
history.py   its text, its attempts, and an operator's word on it
"""

from mailer_cli.messages.history import Event, event_json, history, resolve, text_of
from mailer_cli.messages.listing import Wanted, listed
from mailer_cli.messages.overview import Overview, as_json, find

__all__ = [
    "Event",
    "Overview",
    "Wanted",
    "as_json",
    "event_json",
    "find",
    "history",
    "listed",
    "resolve",
    "text_of",
]
