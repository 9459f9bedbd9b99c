"""Words as people type and paste them: what looks the same is the same."""

import re
import unicodedata

# What is drawn as nothing (Unicode's Default_Ignorable_Code_Point, and the marks of an annotation); the
# joiner of an emoji and the letters of a flag have rules of their own.
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200c\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e0080-\U000e0fff"
)
PICTURE = "\u2190-\u2bff\U0001f000-\U0001faff"
FLAG = r"\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"  # England's, Scotland's: told apart by them alone
UNSEEN = re.compile(rf"({FLAG})|[{INVISIBLE}\U000e0020-\U000e007f]")
JOINER = re.compile(rf"(?<![{PICTURE}])\u200d|\u200d(?![{PICTURE}])")  # between pictures it makes another one
BLANK = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000]")
HYPHEN = re.compile(r"[\u2010\u2011]")  # the second is Word's, which keeps a line together
AS_TEXT = re.compile(r'="([^"]*)"')


def plain(text: str) -> str:
    """The word as it is compared and stored: no invisible characters, every blank a space and none at the
    ends, NFC. Doing it again changes nothing."""
    if text.isascii():
        return text.strip()
    text = UNSEEN.sub(lambda found: found[1] or "", text)
    text = HYPHEN.sub("-", BLANK.sub(" ", JOINER.sub("", text)))
    return unicodedata.normalize("NFC", text).strip()


def plain_cell(text: str) -> str:
    """A plain word out of `="..."`, which is how a spreadsheet is told to leave digits alone."""
    word = plain(text)
    found = AS_TEXT.fullmatch(word)
    return plain(found[1]) if found else word


def plain_number(text: str) -> str:
    """A plain cell without the apostrophe that marks digits as a text; for what never begins with one."""
    word = plain_cell(text)
    return plain(word[1:]) if word.startswith(("'", "\u2019")) else word
