"""People: what is known of them, and the stop list.

listing.py   one by id, or all who are wanted, newest first
change.py    add, edit, rezone, remove, block, unblock
"""

from mailer_cli.attributes import (
    derived_code,
    parse_blocked,
    parse_code,
    parse_phone,
    parse_tag,
    parse_zone,
    plain_phones,
)
from mailer_cli.clients.change import (
    Given,
    add,
    block,
    block_all,
    edit,
    in_zone,
    phones_of,
    remove,
    rezone,
    unblock,
)
from mailer_cli.clients.listing import STATUS, ClientStatus, Entry, Wanted, find, listed, pages, stopped

__all__ = [
    "STATUS",
    "ClientStatus",
    "Entry",
    "Given",
    "Wanted",
    "add",
    "block",
    "block_all",
    "derived_code",
    "edit",
    "find",
    "in_zone",
    "listed",
    "pages",
    "parse_blocked",
    "parse_code",
    "parse_phone",
    "parse_tag",
    "parse_zone",
    "phones_of",
    "plain_phones",
    "remove",
    "rezone",
    "stopped",
    "unblock",
]
