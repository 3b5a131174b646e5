"""Public data sets as manifests. Nothing is bundled and nothing downloaded: the user brings the data."""

from pathlib import Path

from mediqa_node.domain.errors import ConfigurationError
from training.adapters import adni, eyeq, fastmri, ispy1, ldctiqac, mr_art, plain
from training.adapters.contract import Adapter, Match

ADAPTERS = tuple(module.ADAPTER for module in (ldctiqac, eyeq, adni, fastmri, ispy1, mr_art, plain))


def recognise(root: Path, name: str | None = None) -> tuple[Adapter, Match]:
    """Return the adapter that knows a folder, with what it found there.

    Args:
        name: the only adapter that is asked.

    Raises:
        ConfigurationError: none knows it, or several do, or the one that does refuses this use of it.
    """
    if not root.is_dir():
        raise ConfigurationError(f"{root} is no folder")
    asked = [one for one in ADAPTERS if name in (None, one.name)]
    if not asked:
        raise ConfigurationError(f"no adapter {name!r}; known: {', '.join(one.name for one in ADAPTERS)}")
    known = [(one, match) for one in asked if (match := one.probe(root)) is not None]
    if not known:
        layouts = "\n  ".join(f"{one.name:10}{one.expects}" for one in asked)
        raise ConfigurationError(f"{root} has the layout of no data set that is known:\n  {layouts}")
    if len(known) > 1:
        names = ", ".join(f"{one.name} ({match.found})" for one, match in known)
        raise ConfigurationError(f"{root} looks like several data sets: {names}; say which with --as")
    adapter, match = known[0]
    if match.refusal is not None:
        raise ConfigurationError(f"{adapter.name}: {match.found} under {root} cannot be used: {match.refusal}")
    return adapter, match
