"""Databases as earlier versions left them, with data in them."""

from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config

from mailer_cli.database import Database
from mailer_cli.database.schema import MIGRATIONS

ROWS_OF_0001 = """
    INSERT INTO client VALUES
        (1, 79160000001, '916', 'vip', 'Europe/Moscow', '2026-01-01', '2026-01-01', NULL),
        (2, NULL, '916', '', 'Asia/Omsk', '2026-01-01', '2026-01-02', '2026-01-02');
    INSERT INTO wording VALUES (1, 'Hello');
    INSERT INTO mailing VALUES (1, 1, '2026-01-01 09:00:00.000000', '2026-01-01 18:00:00.000000', '[]', '[]',
        1, NULL, NULL, NULL, NULL, 0, '2026-01-01 09:00:00.000000', NULL, NULL, NULL,
        '2026-01-01 08:00:00.000000', '2026-01-01 08:00:00.000000');
    INSERT INTO run VALUES (1, 'here', 1, '2026-01-01 09:00:00.000000', '2026-01-01 09:00:55.000000', NULL,
        1, 1, 0, 0, 0, 0, 0);
    INSERT INTO message VALUES
        (11, 1, 1, 'sent', NULL, 'Europe/Moscow', 79160000001, 1, NULL, 1, 0, 0, 0, 0,
         '2026-01-01 09:00:00.000000', '2026-01-01 09:00:00.000000', '2026-01-01 09:00:01.000000'),
        (12, 1, 2, 'cancelled', 'client removed', 'Asia/Omsk', NULL, NULL, NULL, 0, 0, 0, 0, 0,
         '2026-01-01 09:00:00.000000', '2026-01-01 09:00:00.000000', NULL);
    INSERT INTO attempt VALUES
        (11, 1, 1, '2026-01-01 09:00:00.500000', '2026-01-01 09:00:01.000000', 'ok', 200, 0, NULL);
    UPDATE tally SET messages = 1 WHERE status IN ('sent', 'cancelled');
"""
"""A mailing that has ended, with a message that was sent and one to a client who was removed."""


ROWS_OF_0002 = """
    INSERT INTO client VALUES
        (1, 79160000001, '916', 'vip', 'Europe/Moscow', '2026-01-01', '2026-01-01', NULL),
        (2, 79160000002, '916', 'но' || char(8203) || 'вые', 'Asia/Omsk', '2026-01-01', '2026-01-02', NULL),
        (3, 79160000003, '916', char(65279), 'Asia/Omsk', '2026-01-01', '2026-01-02', NULL),
        (4, 79160000004, '916', 'vip' || char(160), 'Asia/Omsk', '2026-01-01', '2026-01-02', NULL);
    INSERT INTO wording VALUES (1, 'Hello');
    INSERT INTO mailing VALUES (1, 1, '2026-01-01 09:00:00.000000', '2026-01-01 18:00:00.000000', '[]',
        '["vip", "vi' || char(173) || 'p", "=x"]', 0, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL,
        '2026-01-01 08:00:00.000000', '2026-01-01 08:00:00.000000', NULL);
"""
"""Tags with characters that nobody sees, of clients and in a filter."""


def make_0001(path: Path) -> None:
    """A database of the first schema, with `ROWS_OF_0001`."""
    _make(path, "0001", ROWS_OF_0001)


def make_0002(path: Path) -> None:
    """A database of the second schema, with `ROWS_OF_0002`."""
    _make(path, "0002", ROWS_OF_0002)


def _make(path: Path, version: str, rows: str) -> None:
    made = Database(path, create=True)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with made.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    with made.outside_transactions() as raw, closing(raw.executescript(rows)):
        pass
