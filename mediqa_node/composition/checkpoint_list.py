"""The checkpoints that a node can load: those of its lock file, and those of its model store."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from mediqa_node.composition import checkpoints
from mediqa_node.config import Settings
from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.promotion import Standing, Weights
from mediqa_node.model.lock import (
    DEFAULT_LOCK,
    LOCK_FILE,
    WEIGHTS_FILE,
    LockEntry,
    card_bytes,
    only_entry,
    read_lock,
)

_Card = tuple[bool, str | None]
"""Whether it was trained, and the fingerprint of its preprocessing."""
_CardOf = Callable[[str, LockEntry], _Card | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One checkpoint that this node can load, and what it is at present.

    Attributes:
        place: where it is: the package, a lock file, or the model store.
        trained: None for what is no checkpoint.
        fingerprint: of the preprocessing; a calibration names it together with both digests.
        roles: such as current, previous, shadow, configured.
    """

    weights: Weights
    place: str
    size_bytes: int | None
    trained: bool | None
    fingerprint: str | None
    roles: list[str]


def listed(settings: Settings, known: Standing) -> list[Listed]:
    """Return the checkpoints of the lock, then those of the model store, from which promoted ones are loaded.

    This reads their cards whole, which takes scipy.
    """
    return _listed(settings, known, _read)


def listed_briefly(settings: Settings, known: Standing) -> list[Listed]:
    """Return the same without fingerprints, and without checking the cards: for a process that has to stay small."""
    return _listed(settings, known, _glance)


def _listed(settings: Settings, known: Standing, card_of: _CardOf) -> list[Listed]:
    lock, configured = settings.model_lock or DEFAULT_LOCK, settings.model.checkpoint
    back = known.can_roll_back and known.previous is None
    by_name = {"current": known.current is None, "previous": back, "configured": known.current is not None}
    rows = []
    for name, entry in read_lock(lock).items():
        file = entry.directory / WEIGHTS_FILE if entry.directory else None
        card = card_of(name, entry)
        other = "prompt classifier" if name == settings.model.classifier else "no checkpoint"
        roles = [] if card is not None else [other]
        row = Listed(
            weights=Weights(name=name, sha256=entry.sha256, card_sha256=entry.card_sha256),
            place=str(settings.model.lock or "package"),
            size_bytes=file.stat().st_size if file and file.is_file() else None,
            trained=card[0] if card is not None else None,
            fingerprint=card[1] if card is not None else None,
            roles=roles + [role for role, holds in by_name.items() if holds and name == configured],
        )
        rows.append(row)
    decided = {"current": known.current, "previous": known.previous, "shadow": known.shadow}
    for stored in checkpoints.model_store(settings).all():
        card = card_of(*only_entry(stored.directory / LOCK_FILE))
        row = Listed(
            weights=stored.weights,
            place="model store",
            size_bytes=stored.size_bytes,
            trained=stored.trained,
            fingerprint=card[1] if card is not None else None,
            roles=[role for role, one in decided.items() if one == stored.weights],
        )
        rows.append(row)
    return rows


def _read(name: str, entry: LockEntry) -> _Card | None:
    """Return what the card of an entry states; None if it is not a checkpoint that this version supports."""
    from mediqa_node.model.card import read_card

    try:
        card = read_card(card_bytes(name, entry))
    except CheckpointRefused:
        return None
    return card.trained, card.preprocess.fingerprint()


def _glance(name: str, entry: LockEntry) -> _Card | None:
    """Return whether the card of an entry says that it was trained; None if it is not that of a checkpoint."""
    try:
        card = json.loads(card_bytes(name, entry))
    except (CheckpointRefused, ValueError):
        return None
    return (bool(card.get("trained")), None) if isinstance(card, dict) and "preprocess" in card else None
