"""What the operator has set: `.env` and the environment, read once into a frozen value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mailer_cli.errors import Misconfigured
from mailer_cli.times import BadTime, find_zone, system_zone

HINT = "set it in .env or in the environment"


@dataclass(frozen=True)
class Settings:
    """Checked settings; the token is left out of `repr`, so that no log or traceback shows it."""

    token: str | None = field(default=None, repr=False)
    url: str | None = None
    database: str = "mailer.db"
    timezone: str = "UTC"
    concurrency: int = 64
    rate: float | None = None
    timeout: float = 30.0
    max_seconds: float = 55.0
    on_unknown: str = "retry"
    max_failures: int = 8
    max_unknown: int = 3
    max_text: int = 1000
    journal: str | None = None
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    log: str | None = None
    smtp_url: str | None = field(default=None, repr=False)
    report_to: tuple[str, ...] = ()
    env_file: Path | None = None

    def require_gateway(self) -> tuple[str, str]:
        """The gateway's address and the token.

        Raises: Misconfigured when one is missing or malformed.
        """
        return _gateway_url(self.url), _token(self.token)


def load(env_file: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings of this folder: defaults, then the `.env` file, then the environment.

    Raises: Misconfigured, naming the setting, the value and what is allowed.
    """
    given = _dotenv(env_file)
    values = {name: value for name, value in given.items() if name.startswith("MAILER_")}
    values |= {f"MAILER_{name}": given[name] for name in ("TOKEN", "URL") if name in given}
    values |= {name: value for name, value in environment.items() if name.startswith("MAILER_")}
    taken = {name: value.strip() for name, value in values.items() if value.strip()}
    return _checked(taken, env_file)


def _dotenv(env_file: Path | None) -> dict[str, str]:
    from dotenv import dotenv_values

    path = env_file or Path(".env")
    if not path.is_file():
        if env_file is not None:
            raise Misconfigured(f"there is no settings file {env_file}")
        return {}
    try:
        # no interpolation: a `$` in a token is a `$`; no search in parent folders either
        found = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read settings file {path}: {error}") from error
    return {name: value for name, value in found.items() if value is not None}


def _checked(taken: Mapping[str, str], env_file: Path | None) -> Settings:
    def number(name: str, default: float, least: float, most: float) -> float:
        value = taken.get(name)
        if value is None:
            return default
        try:
            found = float(value)
        except ValueError:
            found = float("nan")
        if not least <= found <= most:
            raise _bad(name, value, f"a number from {least:g} to {most:g}")
        return found

    def whole(name: str, default: int, least: int, most: int) -> int:
        found = number(name, default, least, most)
        if found != int(found):
            raise _bad(name, taken[name], f"a whole number from {least} to {most}")
        return int(found)

    def word(name: str, allowed: tuple[str, ...]) -> str | None:
        value = taken.get(name)
        if value is not None and value.lower() not in allowed:
            raise _bad(name, value, " or ".join(allowed))
        return value.lower() if value else None

    return Settings(
        token=taken.get("MAILER_TOKEN"),
        url=taken.get("MAILER_URL"),
        database=taken.get("MAILER_DATABASE", "mailer.db"),
        timezone=_zone(taken.get("MAILER_TIMEZONE")),
        concurrency=whole("MAILER_CONCURRENCY", 64, 1, 1024),
        rate=_rate(taken.get("MAILER_RATE")),
        timeout=number("MAILER_TIMEOUT", 30, 0.1, 600),
        max_seconds=number("MAILER_MAX_SECONDS", 55, 1, 86_400),
        on_unknown=word("MAILER_ON_UNKNOWN", ("retry", "hold")) or "retry",
        max_failures=whole("MAILER_MAX_FAILURES", 8, 1, 100),
        max_unknown=whole("MAILER_MAX_UNKNOWN", 3, 1, 100),
        max_text=whole("MAILER_MAX_TEXT", 1000, 1, 100_000),
        journal=word("MAILER_JOURNAL", ("wal", "truncate")),
        proxy=_proxy(taken.get("MAILER_PROXY")),
        log=taken.get("MAILER_LOG"),
        smtp_url=taken.get("MAILER_SMTP_URL"),
        report_to=tuple(
            part.strip() for part in taken.get("MAILER_REPORT_TO", "").split(",") if part.strip()
        ),
        env_file=env_file,
    )


def parse_rate(value: str) -> float:
    """Messages per second: `5`, `5/s`, `0.5/s`, `90/m`, `1000/h`.

    Raises: ValueError with what is allowed.
    """
    amount, _, unit = value.strip().lower().partition("/")
    seconds = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}.get(unit.strip())
    try:
        rate = float(amount) / (seconds or 0)
    except (ValueError, ZeroDivisionError):
        rate = 0.0
    if not 0.0001 <= rate <= 100_000:
        raise ValueError("messages per second, as 5/s, 90/m or 1000/h, up to 100000/s")
    return rate


def _rate(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_rate(value)
    except ValueError as error:
        raise _bad("MAILER_RATE", value, str(error)) from error


def _zone(value: str | None) -> str:
    if value is None:
        return system_zone()
    try:
        return find_zone(value).name
    except BadTime as error:
        raise _bad(
            "MAILER_TIMEZONE", value, "an IANA name as Europe/Moscow, or an offset as +03:00"
        ) from error


def _gateway_url(value: str | None) -> str:
    from urllib.parse import urlsplit

    if value is None:
        raise Misconfigured("the gateway's address is missing: URL", f"URL=https://... : {HINT} (MAILER_URL)")
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        good = good and not (parts.username or parts.query or parts.fragment)
    except ValueError:
        good = False
    if not good or not value.isprintable() or " " in value:
        raise _bad("URL", value, "an http or https address as https://probe.fbrq.cloud/v1/send/")
    return value.rstrip("/")


def _token(value: str | None) -> str:
    if value is None:
        raise Misconfigured("the gateway's token is missing: TOKEN", f"TOKEN=eyJ... : {HINT} (MAILER_TOKEN)")
    if (
        value.count(".") != 2
        or not value.isascii()
        or not value.isprintable()
        or " " in value
        or '"' in value
    ):
        raise Misconfigured(
            "TOKEN is not a JWT: three parts between dots, without spaces", "copy the token again"
        )
    return value


def _proxy(value: str | None) -> str | None:
    if value is not None and not value.startswith(("http://", "https://")):
        raise Misconfigured("MAILER_PROXY is not an http:// address", HINT)
    return value


def _bad(name: str, value: str, allowed: str) -> Misconfigured:
    return Misconfigured(f"{name} is {value!r}, allowed is {allowed}", HINT)
