"""Fixtures that several files of this folder use; a file with a PACS of its own overrides it."""

from support.corrections import make, pacs

__all__ = ["make", "pacs"]
