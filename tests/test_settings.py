"""Every setting, from each place, good and bad."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mailer_cli import settings
from mailer_cli.errors import Misconfigured
from mailer_cli.settings import NAMES, Settings, load
from tests.conftest import TOKEN, Mailer

GOOD = [
    ("MAILER_TOKEN", "a.b.c", "token", "a.b.c"),
    ("MAILER_URL", "https://h/v1", "url", "https://h/v1"),
    ("MAILER_DATABASE", "sqlite:///x.db", "database", "sqlite:///x.db"),
    ("MAILER_TIMEZONE", "europe/moscow", "timezone", "Europe/Moscow"),
    ("MAILER_TIMEZONE", "+03:00", "timezone", "+03:00"),
    ("MAILER_CONCURRENCY", "1", "concurrency", 1),
    ("MAILER_CONCURRENCY", "1024", "concurrency", 1024),
    ("MAILER_RATE", "5/s", "rate", 5),
    ("MAILER_RATE", "90/m", "rate", 1.5),
    ("MAILER_RATE", "7", "rate", 7),
    ("MAILER_TIMEOUT", "0.5", "timeout", 0.5),
    ("MAILER_MAX_SECONDS", "86400", "max_seconds", 86400),
    ("MAILER_ON_UNKNOWN", "HOLD", "on_unknown", "hold"),
    ("MAILER_MAX_FAILURES", "1", "max_failures", 1),
    ("MAILER_MAX_UNKNOWN", "100", "max_unknown", 100),
    ("MAILER_MAX_TEXT", "70", "max_text", 70),
    ("MAILER_JOURNAL", "wal", "journal", "wal"),
    ("MAILER_PROXY", "http://p:3128", "proxy", "http://p:3128"),
    ("MAILER_LOG", "mailer.log", "log", "mailer.log"),
]
BAD = [
    ("MAILER_TIMEZONE", "Mars/Base", "an IANA name"),
    ("MAILER_CONCURRENCY", "0", "a number from 1 to 1024"),
    ("MAILER_CONCURRENCY", "1.5", "a whole number from 1 to 1024"),
    ("MAILER_CONCURRENCY", "many", "a number from 1 to 1024"),
    ("MAILER_RATE", "fast", "messages per second"),
    ("MAILER_RATE", "5/day", "messages per second"),
    ("MAILER_RATE", "0", "messages per second"),
    ("MAILER_TIMEOUT", "nan", "a number from 0.1 to 600"),
    ("MAILER_TIMEOUT", "inf", "a number from 0.1 to 600"),
    ("MAILER_MAX_SECONDS", "0", "a number from 1 to 86400"),
    ("MAILER_ON_UNKNOWN", "ask", "retry or hold"),
    ("MAILER_MAX_FAILURES", "-1", "a number from 1 to 100"),
    ("MAILER_MAX_UNKNOWN", "0", "a number from 1 to 100"),
    ("MAILER_MAX_TEXT", "100001", "a number from 1 to 100000"),
    ("MAILER_JOURNAL", "delete", "wal or truncate"),
]
SECRET = [
    ("MAILER_PROXY", "socks://u:secret@h"),
    ("MAILER_PROXY", "http://u:secret@"),
    ("MAILER_PROXY", "http://u:secret@h:99999"),
    ("MAILER_PROXY", "http://u:secret@h/\x1b"),
    ("MAILER_RATE", "eyJh.secret.part"),
]


def loaded(env_file: str = "", environment: Mapping[str, str] | None = None) -> Settings:
    Path(".env").write_text(env_file)
    return load(None, environment or {})


@pytest.mark.parametrize(("name", "value", "attribute", "expected"), GOOD)
def test_a_setting_may_come_from_the_file_or_from_the_environment(
    folder: Path, name: str, value: str, attribute: str, expected: Any
) -> None:
    assert getattr(loaded(environment={name: value}), attribute) == expected
    assert getattr(loaded(f"{name}={value}\n"), attribute) == expected


def test_every_setting_has_a_test() -> None:
    assert {name for name, *_ in GOOD} == NAMES


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_a_bad_value_names_the_setting_the_value_and_what_is_allowed(
    mailer: Mailer, monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    error, _ = mailer("init", code=78).err.splitlines()
    assert error.startswith(f"error: {name} is ")
    assert repr(value).strip("'") in error.replace("\\\\", "\\")
    assert allowed in error


@pytest.mark.parametrize(("name", "value"), SECRET)
def test_a_bad_value_that_may_hold_a_password_is_not_shown(folder: Path, name: str, value: str) -> None:
    with pytest.raises(Misconfigured, match=name) as caught:
        loaded(environment={name: value})
    assert "secret" not in str(caught.value)


def test_the_environment_wins_over_the_file_and_empty_is_not_set(folder: Path) -> None:
    file = "TOKEN=file.b.c\nURL=https://file/\n"
    assert loaded(file).token == "file.b.c"
    assert loaded(file, {"MAILER_TOKEN": "environment.b.c"}).token == "environment.b.c"
    assert loaded(file, {"MAILER_TOKEN": " "}).token == "file.b.c"
    assert loaded("TOKEN=\n").token is None
    assert loaded(file, {"TOKEN": "other.program", "URL": "https://other/"}).url == "https://file/"


def test_a_credential_of_systemd_stands_between_the_environment_and_the_file(folder: Path) -> None:
    there = {"CREDENTIALS_DIRECTORY": str(folder)}
    assert loaded("TOKEN=file.b.c\n", there).token == "file.b.c"
    Path("mailer_token").write_text("credential.b.c\n")
    assert loaded("TOKEN=file.b.c\n", there).token == "credential.b.c"
    assert loaded("TOKEN=file.b.c\n", there | {"MAILER_TOKEN": "e.b.c"}).token == "e.b.c"
    assert loaded("TOKEN=file.b.c\n").token == "file.b.c"


def test_a_credential_that_cannot_be_read_is_named(folder: Path) -> None:
    Path("mailer_token").mkdir()
    with pytest.raises(Misconfigured, match="mailer_token"):
        loaded(environment={"CREDENTIALS_DIRECTORY": str(folder)})


@pytest.mark.parametrize("content", ["TOKEN=a.b.c\nthis is no setting\n", "TOKEN='a.b.c\n"])
def test_a_line_that_is_no_setting_is_named_by_its_number_and_not_shown(folder: Path, content: str) -> None:
    with pytest.raises(Misconfigured, match=r"\.env, line \d is not NAME=value") as caught:
        loaded(content)
    assert "setting\n" not in str(caught.value) and "a.b.c" not in str(caught.value)


def test_a_settings_file_may_come_from_windows(folder: Path) -> None:
    Path(".env").write_bytes(b"\xef\xbb\xbfTOKEN=a.b.c\r\nMAILER_RATE=5\r\n")
    assert (load(None, {}).token, load(None, {}).rate) == ("a.b.c", 5)


def test_nothing_is_put_into_a_value(folder: Path) -> None:
    assert loaded("MAILER_LOG='a$HOME${HOME}'\n", {"HOME": "/root"}).log == "a$HOME${HOME}"


def test_a_settings_file_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(Misconfigured, match=r"no settings file other\.env"):
        load(Path("other.env"), {})
    Path(".env").write_bytes(b"TOKEN=\xff")
    with pytest.raises(Misconfigured, match="not UTF-8: byte 6"):
        load(None, {})
    Path(".env").unlink()
    assert load(None, {}).token is None
    Path(".env").mkdir()
    with pytest.raises(Misconfigured, match=r"cannot read settings file \.env"):
        load(None, {})


def test_names_that_mean_nothing_are_kept_for_the_doctor(folder: Path) -> None:
    assert loaded("MAILER_CONCURENCY=5\nPATH=/x\n", {"MAILER_X": "1"}).unknown == (
        "MAILER_CONCURENCY",
        "MAILER_X",
    )


@pytest.mark.parametrize(
    "url",
    [
        "probe.fbrq.cloud",
        "ftp://h/",
        "https://",
        "https://h:99999/",
        "https://u:p@h/",
        "https://h/?a=b",
        "https://h/ x",
        "https://h/\x1b",
    ],
)
def test_a_url_that_is_no_gateway_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured, match="URL is"):
        Settings(url=url).require_url()


@pytest.mark.parametrize("token", ["a.b", "a.b.c.d", "Bearer a.b.c", "a.b.c\x00", "ä.b.c", 'a."b".c'])
def test_a_malformed_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        Settings(token=token).require_token()
    assert token not in str(caught.value)


WORD = "correct-horse"
HIDDEN = (
    f"https://u:{WORD}@h/v1",
    f"https://:{WORD}@h/v1",
    f"https://{WORD}@h/v1",
    f"https://u:c@{WORD}@h/v1",
    f"https://u:{WORD}%40h/v1",
    f"https://u%3A{WORD}%40h/v1",
    f"https://u%3a{WORD}%2540h/v1",
    f"https:/u:{WORD}@h/v1",
    f"https:u:{WORD}@h/v1",
    f"https:///u:{WORD}@h/v1",
    f"https:\\\\u:{WORD}@h/v1",
    f"https://h\\@{WORD}/v1",
    f"u:{WORD}@h",
    f"u:{WORD}@h/v1",
    f"https://u:{WORD}/v1",
    f"//u:{WORD}@h",
    f"ftp://u:{WORD}@h/",
    f"https://h/?key={WORD}",
    f"https://h/#{WORD}",
    f"https://h/%3Fkey={WORD}",
    f"https://h/u:{WORD}@x",
    f"https://h/ Bearer {WORD}",
    f"eyJh.{WORD}.part",
    f"https://eyJh.{WORD}.part",
    f"https://h/eyJh.{WORD}.part",
)


@pytest.mark.parametrize("value", HIDDEN)
def test_nothing_that_may_be_secret_in_an_address_is_ever_shown(value: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        Settings(url=value).require_url()
    assert WORD not in f"{caught.value.message} {caught.value.hint}".lower()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("gateway", "'gateway'"),
        ("https://h/?key=secret", "'https://h/...'"),
        ("https://h:8443/v1/#x", "'https://h:8443/...'"),
        ("https://u:secret@h/v1", "hidden, as it may hold a password"),
    ],
)
def test_of_an_address_that_is_refused_what_is_certain_is_shown(url: str, shown: str) -> None:
    with pytest.raises(Misconfigured, match="URL is") as caught:
        Settings(url=url).require_url()
    assert f"URL is {shown}, allowed is" in caught.value.message


def test_a_missing_token_or_url_is_named() -> None:
    with pytest.raises(Misconfigured, match="URL"):
        Settings(token=TOKEN).require_gateway()
    with pytest.raises(Misconfigured, match="TOKEN"):
        Settings(url="https://h/").require_gateway()


def test_secrets_are_not_in_the_representation() -> None:
    secretive = Settings(token="secret.b.c", proxy="http://u:secret@h")
    assert "secret" not in repr(secretive)


def test_the_template_explains_every_setting_and_shows_its_default(folder: Path) -> None:
    Path(".env").unlink()
    old = os.umask(0)
    try:
        assert settings.write_template(Path(".env"))
    finally:
        os.umask(old)
    assert Path(".env").stat().st_mode & 0o777 == 0o600
    assert not settings.write_template(Path(".env"))
    text = Path(".env").read_text()
    shown = {
        line.lstrip("#").partition("=")[0] for line in text.splitlines() if "=" in line.partition(" ")[0]
    }
    assert shown == (NAMES - {"MAILER_TOKEN", "MAILER_URL"}) | {"TOKEN", "URL"}
    all_set = "\n".join(line[1:] if line.startswith("#MAILER") else line for line in text.splitlines())
    expected = replace(load(None, {}), url="https://probe.fbrq.cloud/v1/send/")
    assert loaded(all_set) == expected == loaded("URL=https://probe.fbrq.cloud/v1/send/\n")
