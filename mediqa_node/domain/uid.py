"""What is a UID (PS3.5 section 9.1): one grammar for what is stored, referenced in a report and read from a table."""

import re

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_CANONICAL = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
MAX_LENGTH = 64


def is_uid(text: str) -> bool:
    """Return whether a text names something: numbers between single dots, 64 characters at most, not only zeros.

    Leading zeros break PS3.5 but occur in real files; a reference has to repeat them as they are.
    """
    return len(text) <= MAX_LENGTH and bool(text.strip("0")) and bool(_UID.fullmatch(text))


def is_canonical_uid(text: str) -> bool:
    """Return whether a text keeps every rule of PS3.5 section 9.1: also a known root and no leading zeros."""
    return len(text) <= MAX_LENGTH and bool(_CANONICAL.fullmatch(text))
