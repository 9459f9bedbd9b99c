"""What the operator has set: `.env` and the environment, read once into a frozen value."""

import io
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from mailer_cli import system_zone
from mailer_cli.errors import DatabaseFailed, Misconfigured
from mailer_cli.owners import hand_over, name_of
from mailer_cli.system_zone import SystemZone
from mailer_cli.times import BadTime, find_zone
from mailer_cli.words import plain

if TYPE_CHECKING:
    from urllib.parse import SplitResult

HINT = "set it in .env or in the environment"


@dataclass(frozen=True)
class Settings:
    """Checked settings; the token is left out of `repr`, so that no log or traceback shows it."""

    token: str | None = field(default=None, repr=False)
    url: str | None = None
    database: str = "mailer.db"
    timezone: str = "UTC"
    timezone_source: str = "MAILER_TIMEZONE"
    timezone_doubt: str | None = None  # why the system's may not be what the machine goes by
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
    env_file: Path | None = None
    unknown: tuple[str, ...] = ()  # MAILER_ names that mean nothing: misspelled, or of another version

    def require_gateway(self) -> tuple[str, str]:
        """The gateway's address and the token.

        Raises: Misconfigured when one is missing or malformed.
        """
        return self.require_url(), self.require_token()

    def require_url(self) -> str:
        """The gateway's address. Raises: Misconfigured."""
        return _gateway_url(self.url)

    def require_token(self) -> str:
        """The token, with the shape of a JWT. Raises: Misconfigured, without showing it."""
        return _token(self.token)


def load(env_file: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings of this folder: the environment, else the `.env` file, else the defaults. Empty is not set.

    The token may also be systemd's credential `mailer_token`, which goes before `.env`.
    Raises: Misconfigured, naming the setting, the value and what is allowed.
    """
    given = _dotenv(env_file)
    layers = (
        given,
        {f"MAILER_{name}": given[name] for name in ("TOKEN", "URL") if name in given},
        _credential(environment),
        environment,
    )
    taken = {
        name: value.strip()
        for layer in layers
        for name, value in layer.items()
        if name.startswith("MAILER_") and value.strip()
    }
    return _checked(taken, env_file)


def write_template(path: Path) -> bool:
    """Make a `.env` to fill in, 0600; False when there is one already. Raises: DatabaseFailed."""
    template = Path(__file__).with_name("templates") / "env"
    try:
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as made:
            hand_over(made.fileno(), like=path.parent)
            made.write(template.read_text())
    except FileExistsError:
        return False
    except OSError as error:
        raise DatabaseFailed(f"cannot write {path}: {error.strerror}") from error
    return True


def others_can_read(path: Path) -> bool:
    """Whether somebody beside its owner may read the file, which holds the token."""
    return bool(path.stat().st_mode & 0o077)


def _dotenv(env_file: Path | None) -> dict[str, str]:
    from dotenv.parser import parse_stream

    path = env_file or Path(".env")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if env_file is not None:
            raise Misconfigured(f"there is no settings file {env_file}") from None
        return {}
    except OSError as error:
        hint = f"sudo chown {name_of(os.geteuid())} {path}" if isinstance(error, PermissionError) else None
        raise Misconfigured(f"cannot read settings file {path}: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"settings file {path} is not UTF-8: byte {error.start}") from error
    # the parser alone: a `$` in a token is a `$`, and no other folder is searched
    lines = list(parse_stream(io.StringIO(text)))
    for line in lines:
        if line.error:
            raise Misconfigured(f"{path}, line {line.original.line} is not NAME=value", "mend the line")
    return {line.key: line.value for line in lines if line.key is not None and line.value is not None}


def _credential(environment: Mapping[str, str]) -> dict[str, str]:
    """What systemd's `LoadCredential=mailer_token:...` has put where only this service can read it."""
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return {}
    path = Path(folder) / "mailer_token"
    try:
        return {"MAILER_TOKEN": path.read_text(encoding="ascii")}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read the credential {path}: {type(error).__name__}") from error


def _checked(taken: Mapping[str, str], env_file: Path | None) -> Settings:
    given = _Given(taken)
    zone = _zone(given.text("MAILER_TIMEZONE"))
    return Settings(
        token=given.text("MAILER_TOKEN"),
        url=given.text("MAILER_URL"),
        database=given.text("MAILER_DATABASE") or "mailer.db",
        timezone=zone.name,
        timezone_source=zone.source,
        timezone_doubt=zone.doubt,
        concurrency=given.whole("MAILER_CONCURRENCY", 64, 1, 1024),
        rate=_rate(given.text("MAILER_RATE")),
        timeout=given.number("MAILER_TIMEOUT", 30, 0.1, 600),
        max_seconds=given.number("MAILER_MAX_SECONDS", 55, 1, 86_400),
        on_unknown=given.word("MAILER_ON_UNKNOWN", "retry", "hold") or "retry",
        max_failures=given.whole("MAILER_MAX_FAILURES", 8, 1, 100),
        max_unknown=given.whole("MAILER_MAX_UNKNOWN", 3, 1, 100),
        max_text=given.whole("MAILER_MAX_TEXT", 1000, 1, 100_000),
        journal=given.word("MAILER_JOURNAL", "wal", "truncate"),
        proxy=_proxy(given.text("MAILER_PROXY")),
        log=given.text("MAILER_LOG"),
        env_file=env_file,
        unknown=tuple(sorted(taken.keys() - NAMES)),
    )


OURS = ("env_file", "unknown", "timezone_source", "timezone_doubt")
NAMES = {f"MAILER_{each.name.upper()}" for each in fields(Settings) if each.name not in OURS}


@dataclass(frozen=True)
class _Given:
    """Settings as they were written, none of them empty; each method raises Misconfigured."""

    values: Mapping[str, str]

    def text(self, name: str) -> str | None:
        return self.values.get(name)

    def number(self, name: str, default: float, least: float, most: float) -> float:
        value = self.values.get(name)
        if value is None:
            return default
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if not least <= found <= most:
            raise _bad(name, value, f"a number from {least:g} to {most:g}")
        return found

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        found = self.number(name, default, least, most)
        if found != int(found):
            raise _bad(name, self.values[name], f"a whole number from {least} to {most}")
        return int(found)

    def word(self, name: str, *allowed: str) -> str | None:
        value = self.values.get(name)
        if value is not None and value.lower() not in allowed:
            raise _bad(name, value, " or ".join(allowed))
        return value.lower() if value else None


def parse_rate(value: str) -> float:
    """Messages per second: `5`, `5/s`, `0.5/s`, `90/m`, `1000/h`.

    Raises: ValueError with what is allowed.
    """
    amount, _, unit = plain(value).lower().partition("/")
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


def _zone(value: str | None) -> SystemZone:
    if value is None:
        return system_zone.find()
    try:
        return SystemZone(find_zone(value).name, "MAILER_TIMEZONE")
    except BadTime as error:
        allowed = "an IANA name as Europe/Moscow, or an offset as +03:00"
        raise Misconfigured(_bad("MAILER_TIMEZONE", value, allowed).message, error.hint) from error


def _gateway_url(value: str | None) -> str:
    if value is None:
        raise Misconfigured("the gateway's address is missing: URL", f"URL=https://... : {HINT} (MAILER_URL)")
    parts = _address(value)
    if parts is None or HIDING.search(value):
        raise _bad("URL", value, "an http or https address as https://probe.fbrq.cloud/v1/send/")
    return value.rstrip("/")


def _address(value: str) -> "SplitResult | None":
    """The parts of an http or https address; None when it is none."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and _is_host(parts.hostname or "") and (parts.port or 1) > 0
    except ValueError:
        return None
    return parts if good and value.isprintable() and not set(value) & set(" \\") else None


def _is_host(name: str) -> bool:
    """Whether it can be a host's name or number. Raises: ValueError for `xn--` before what is no name."""
    if "xn--" in name or not name.isascii():
        name = name.encode("idna").decode("ascii")
        name.encode("ascii").decode("idna")
    return HOST.fullmatch(name) is not None


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
    if value is not None and _address(value) is None:
        raise Misconfigured("MAILER_PROXY is not an http:// address", HINT)
    return value


HOST = re.compile(r"[0-9A-Za-z._-]+|[0-9A-Fa-f:.]+")
# a user, a query or a fragment, however they are written, and a JWT
HIDING = re.compile(r"[@?#]|%(?:40|3f|23)|eyJ", re.IGNORECASE)


SUSPECT = re.compile(HIDING.pattern + r"|%|//|\\|:\D", re.IGNORECASE)
LOGIN = re.compile(r"(?::|%3a).*(?:@|%40)|eyJ", re.IGNORECASE | re.DOTALL)


def may_hold_a_login(path: str) -> bool:
    """Whether what should be a file's name may be an address with a password, or a token."""
    return LOGIN.search(path) is not None


def _shown(value: str) -> str:
    """A value that is refused, as it may be shown. What may hold a password or a token never is, in whatever
    form; of an address its scheme and host are, when they are certain."""
    if not SUSPECT.search(value):
        return repr(value)
    parts = _address(value)
    if parts is None or HIDING.search(parts.netloc):
        return "hidden, as it may hold a password"
    return repr(f"{parts.scheme}://{parts.netloc}/...")


def _bad(name: str, value: str, allowed: str) -> Misconfigured:
    return Misconfigured(f"{name} is {_shown(value)}, allowed is {allowed}", HINT)
