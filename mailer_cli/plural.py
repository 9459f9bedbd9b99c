"""Numbers in sentences: with separators, and with the noun and the verb that agree."""


def counted(number: int, thing: str) -> str:
    """`1 message`, `2,000 messages`."""
    return f"{number:,} {agree(number, thing, f'{thing}s')}"


def agree(number: int, one: str, many: str) -> str:
    """The word for one, or for any other number."""
    return one if number == 1 else many
