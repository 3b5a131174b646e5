"""The checkpoints that a node can load: those of its lock file, and those of its model store."""

from dataclasses import dataclass

from mediqa_node.composition import checkpoints
from mediqa_node.config import Settings
from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.promotion import Standing, Weights
from mediqa_node.model.card import Card, read_card
from mediqa_node.model.lock import (
    DEFAULT_LOCK,
    LOCK_FILE,
    WEIGHTS_FILE,
    LockEntry,
    card_bytes,
    only_entry,
    read_lock,
)


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
    """Return the checkpoints of the lock, then those of the model store, from which promoted ones are loaded."""
    lock, configured = settings.model_lock or DEFAULT_LOCK, settings.model.checkpoint
    back = known.can_roll_back and known.previous is None
    by_name = {"current": known.current is None, "previous": back, "configured": known.current is not None}
    rows = []
    for name, entry in read_lock(lock).items():
        file = entry.directory / WEIGHTS_FILE if entry.directory else None
        card = _card(name, entry)
        other = "prompt classifier" if name == settings.model.classifier else "no checkpoint"
        roles = [] if card is not None else [other]
        row = Listed(
            weights=Weights(name=name, sha256=entry.sha256, card_sha256=entry.card_sha256),
            place=str(settings.model.lock or "package"),
            size_bytes=file.stat().st_size if file and file.is_file() else None,
            trained=card.trained if card is not None else None,
            fingerprint=card.preprocess.fingerprint() if card is not None else None,
            roles=roles + [role for role, holds in by_name.items() if holds and name == configured],
        )
        rows.append(row)
    decided = {"current": known.current, "previous": known.previous, "shadow": known.shadow}
    for stored in checkpoints.model_store(settings).all():
        card = _card(*only_entry(stored.directory / LOCK_FILE))
        row = Listed(
            weights=stored.weights,
            place="model store",
            size_bytes=stored.size_bytes,
            trained=stored.trained,
            fingerprint=card.preprocess.fingerprint() if card is not None else None,
            roles=[role for role, one in decided.items() if one == stored.weights],
        )
        rows.append(row)
    return rows


def _card(name: str, entry: LockEntry) -> Card | None:
    """Return the card of an entry, or None if it is not a checkpoint that this version supports."""
    try:
        return read_card(card_bytes(name, entry))
    except CheckpointRefused:
        return None
