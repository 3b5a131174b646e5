"""The calling side of an association, as stations and services see it."""

import uuid
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The calling side of an association."""

    association_id: str
    calling_ae_title: str
    called_ae_title: str
    address: str


def new_association_id() -> str:
    """Return an identifier for logs and rows."""
    return uuid.uuid4().hex
