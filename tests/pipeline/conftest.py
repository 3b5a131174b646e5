"""Fixtures that several files of this folder use; a file with a PACS of its own overrides it."""

from support.corrections import make, pacs
from support.queried import asked, changing, template

__all__ = ["asked", "changing", "make", "pacs", "template"]
