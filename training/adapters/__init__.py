"""Adapters that turn public data sets into manifests. Nothing is bundled or downloaded: the user supplies the data."""

from pathlib import Path

from mediqa_node.domain.errors import ConfigurationError
from training.adapters import adni, eyeq, fastmri, ispy1, ldctiqac, mr_art, plain
from training.adapters.contract import Adapter, Match

ADAPTERS: tuple[Adapter, ...] = (ldctiqac, eyeq, adni, fastmri, ispy1, mr_art, plain)


def recognise(root: Path, name: str | None = None) -> tuple[Adapter, Match]:
    """Return the adapter that recognises a folder, with its match.

    Args:
        name: use only this adapter.

    Raises:
        ConfigurationError: no adapter or several recognise it, or the matching one refuses it.
    """
    if not root.is_dir():
        raise ConfigurationError(f"{root}: no such folder")
    asked = [one for one in ADAPTERS if name in (None, one.NAME)]
    if not asked:
        raise ConfigurationError(f"no adapter {name!r}; known: {', '.join(one.NAME for one in ADAPTERS)}")
    known = [(one, match) for one in asked if (match := one.probe(root)) is not None]
    if not known:
        layouts = "\n  ".join(f"{one.NAME:10}{one.EXPECTS}" for one in asked)
        raise ConfigurationError(f"{root} does not have the layout of a known data set:\n  {layouts}")
    if len(known) > 1:
        names = ", ".join(f"{one.NAME} ({match.found})" for one, match in known)
        raise ConfigurationError(f"{root} looks like several data sets: {names}; name one with --as")
    adapter, match = known[0]
    if match.refusal is not None:
        raise ConfigurationError(f"{adapter.NAME}: {match.found} under {root} cannot be used: {match.refusal}")
    return adapter, match
