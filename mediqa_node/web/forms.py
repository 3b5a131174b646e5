"""Fields of forms: bounded, on one line, and without characters that a database or a reader trips over."""

from typing import Annotated
from unicodedata import category

from fastapi import Form
from pydantic import AfterValidator, StringConstraints


def one_line(text: str) -> str:
    """Return a text with plain spaces; ValueError if it has control characters or marks that reverse its direction.

    >>> one_line("Raum\\u30001")
    'Raum 1'
    """
    text = "".join(" " if category(letter).startswith("Z") else letter for letter in text)
    if not text.isprintable():
        raise ValueError("has characters that cannot be shown")
    return text.strip()


Text = Annotated[str, AfterValidator(one_line), Form(max_length=200)]
"""What a person wrote."""
Secret = Annotated[str, Form(max_length=200)]
"""A password: any characters, since it is kept as a hash only."""
Word = Annotated[str, AfterValidator(one_line), Form(max_length=64)]
"""A name or number."""
Words = Annotated[
    list[Annotated[str, AfterValidator(one_line), StringConstraints(max_length=64)]], Form(max_length=100)
]
"""Names, each in a field of its own."""
