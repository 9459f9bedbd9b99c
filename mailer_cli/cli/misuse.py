"""What was typed wrongly, in our words: the command or value that was meant, never one that sends more."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from typer.exceptions import TyperException

from mailer_cli.cli.common import LARGEST_ID
from mailer_cli.errors import Invalid

# A slip of the fingers must not lead to one of these: each lets more be sent, or overwrites.
NEVER_GUESSED = {"top-up", "resume", "retry", "reopen", "dispatch", "create", "unblock", "restore", "test"}

# Other words for our commands, by group; `{}` is what stood behind the word.
PAUSE = "mailer mailings pause {} lets it sleep, mailer mailings cancel {} ends it for good"
ITSELF = "a mailing starts by itself at its --start; mailer mailings show {} says when"
SYNONYMS: Mapping[str, Mapping[str, str]] = {
    "mailer": {
        "stop pause halt": f"{PAUSE}; --all stops everything",
        "delete rm remove": "mailer mailings remove {}, or mailer clients remove {}",
        "list ls status show": "mailer stats, mailer mailings list, mailer clients list",
        "version": "mailer --version",
        "start run send": "cron does it every minute: mailer schedule cron",
    },
    "mailer mailings": {
        "stop halt suspend sleep hold freeze": PAUSE,
        "kill abort end finish": "mailer mailings cancel {}",
        "delete rm del erase destroy drop": "mailer mailings remove {}",
        "start run send go launch": ITSELF,
        "ls all": "mailer mailings list",
        "view get info cat describe status": "mailer mailings show {}",
        "new add make": "mailer mailings create",
        "update change set modify": "mailer mailings edit {}",
    },
    "mailer clients": {
        "delete rm del erase destroy drop": "mailer clients remove {}",
        "stop halt ban mute blacklist unsubscribe": "mailer clients block {}",
        "ls all": "mailer clients list",
        "view get info cat describe status": "mailer clients show {}",
        "new create make": "mailer clients add",
        "update change set modify": "mailer clients edit {}",
        "load upload": "mailer clients import FILE",
        "save download dump": "mailer clients export FILE",
    },
    "mailer messages": {
        "stop halt delete rm cancel remove pause": "messages go with their mailing: " + PAUSE,
        "ls all": "mailer messages list",
        "view get info cat describe status history": "mailer messages show {}",
    },
    "mailer db": {"migrate update": "mailer db upgrade", "save dump copy": "mailer db backup FILE"},
}
MEANT = {
    group: {word: hint for words, hint in hints.items() for word in words.split()}
    for group, hints in SYNONYMS.items()
}


def helped(root: Any, arguments: Sequence[str]) -> list[str]:
    """`help clients import` and `clients help import` as `clients import --help`."""
    words = list(_words(root, arguments))
    for at, _ in words:
        if arguments[at] == "help":
            rest = [each for each in arguments[at + 1 :] if not each.startswith("-")]
            return [*arguments[:at], *rest, "--help"]
    return list(arguments)


def _words(root: Any, arguments: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Where a command may stand among the arguments, and the group that it is looked for in."""
    group, at = root, 0
    takes_value = {option for each in root.params if not each.is_flag for option in each.opts}
    while at < len(arguments) and hasattr(group, "commands"):
        word = arguments[at]
        if word.startswith("-"):
            at += 2 if word in takes_value else 1
            continue
        yield at, group
        group, at = group.commands.get(word), at + 1


def explained(error: TyperException, root: Any, arguments: Sequence[str]) -> Invalid:
    """The error in our words, with the help of the command that was meant."""
    words = [arguments[at] for at, group in _words(root, arguments) if arguments[at] in group.commands]
    path = " ".join(["mailer", *words])
    message = " ".join(error.format_message().split())
    if found := re.match(r"No such command (['\"])(.*?)\1\.", message):
        context = getattr(error, "ctx", None)
        return _no_command(path, found[2], context.command if context else root, arguments)
    param = getattr(error, "param", None)
    if param is None:
        return Invalid(_plain(message), f"{path} --help")
    if type(error).__name__ == "MissingParameter":
        return Invalid(f"{_name(param)} is missing", f"{path} --help")
    faults: list[Mapping[str, Any]] = getattr(error.__cause__, "errors", list)()
    if not faults:
        return Invalid(f"{_name(param)}: {error.message}", f"{path} --help")
    typed = faults[0]["input"]
    written = repr(typed) if isinstance(typed, str) else str(typed)
    return Invalid(f"{_name(param)} is {written}, allowed is {_allowed(faults[0], param)}", f"{path} --help")


def _no_command(path: str, word: str, group: Any, arguments: Sequence[str]) -> Invalid:
    behind = arguments[arguments.index(word) + 1 :] if word in arguments else []
    given = " ".join(each for each in behind if each.isalnum()) or "ID"
    meant = MEANT.get(path, {}).get(word.lower())
    hint = meant.replace("{}", given) if meant else _alike(path, word, group)
    return Invalid(f"there is no command {word!r} of {path}", hint)


def _alike(path: str, word: str, group: Any) -> str:
    """The hint for a word that is nobody's synonym: a command that is written alike, or elsewhere."""
    elsewhere = [name for name, each in group.commands.items() if word in getattr(each, "commands", {})]
    if elsewhere:
        return " or ".join(f"{path} {name} {word}" for name in elsewhere)
    close = get_close_matches(word.lower(), group.commands, n=1)
    if not close or close[0] in NEVER_GUESSED:
        return f"{path} --help lists the commands"
    return f"did you mean {path} {close[0]}?"


def _name(param: Any) -> str:
    """An option as it is typed, an argument as its help calls it."""
    longest = max(param.opts, key=len)
    return longest if longest.startswith("-") else str(param.metavar or longest).strip("[].")


def _allowed(fault: Mapping[str, Any], param: Any) -> str:
    """What would have been right, by the option's own bounds."""
    message = str(fault["msg"]).removeprefix("Value error, ")
    if found := re.search(r" is not one of (.+?)\.?$", message):
        return found[1].replace("'", "")
    if not fault["type"].startswith(("int_", "float_", "greater_", "less_", "finite_")):
        return message
    number = "a number" if "float" in str(param.type_descriptor.annotation) else "a whole number"
    least = f" from {param.min:,}" if param.min is not None else ""
    is_number = str(fault["input"]).lstrip("-").isdecimal()  # who typed a word need not hear of 2^63
    is_told = param.max is not None and (param.max < LARGEST_ID or is_number)
    return number + least + (f" to {param.max:,}" if is_told else "")


def _plain(message: str) -> str:
    """A sentence of the library without its capital letter and full stop."""
    if found := re.match(r"Option '(.+?)' requires an argument", message):
        return f"{found[1]} needs a value"
    if found := re.match(r"No such option: (\S+?)\.?(?: .*)?$", message):
        alike = re.search(r"(?:Did you mean|Possible options:) (.+?)\??\)?$", message)
        return f"there is no option {found[1]}" + (f"; did you mean {alike[1]}?" if alike else "")
    if found := re.match(r"Got unexpected extra argument(?:s|\(s\))? \((.+)\)", message):
        return f"too many arguments: {found[1]}"
    return message
