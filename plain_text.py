"""Text of users, models and files -> text that a terminal, a figure or a page can show and that commands nothing."""

from __future__ import annotations

import re

# control characters but the end of a line, those that reverse text, and halves of characters
_COMMANDS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Text in which control characters and halves of characters are shown as escapes, as \\x1b.

    Args:
        text: Any text. Ends of lines stay, tabs become spaces.
    """
    return _COMMANDS.sub(lambda found: _escape(found[0]), text.expandtabs(4) if "\t" in text else text)


def shortened(text: str, most: int) -> str:
    """Text of at most so many characters, with an ellipsis in its middle if it is longer.

    Args:
        text: Any text.
        most: Characters, at least 3.
    """
    end = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - end]}…{text[-end:]}"


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of the command line or of a file's name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
