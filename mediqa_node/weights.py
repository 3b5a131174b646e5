"""Which weights this node scores with: what was promoted, else what the configuration names. No torch here."""

import re
from datetime import UTC, datetime
from pathlib import Path

from mediqa_node.config import Settings
from mediqa_node.domain.errors import CheckpointRefused, ConfigurationError
from mediqa_node.domain.promotion import PROMOTE, Standing, Weights
from mediqa_node.model.lock import DEFAULT_LOCK, LOCK_FILE, only_entry, read_lock
from mediqa_node.model.store import ModelStore
from mediqa_node.storage import promotions
from mediqa_node.storage.database import Database

Place = tuple[Path, str]
"""A lock and the name of a checkpoint in it."""


def model_store(settings: Settings) -> ModelStore:
    """Return the checkpoints that this node keeps for itself."""
    return ModelStore(settings.data_dir / "models")


def decided(settings: Settings) -> Standing:
    """Return what has been promoted at this node; without a database, nothing."""
    if settings.missing_database is not None:
        return Standing()
    database = Database(settings.database_url)
    try:
        with database.read() as connection:
            return promotions.in_force(connection)
    finally:
        database.close()


def in_force(settings: Settings) -> Place:
    """Return where the checkpoint lies that was promoted, if one was, else the configured one: `domain.promotion`.

    Raises:
        CheckpointRefused: see `place_of`.
    """
    return place_of(settings, decided(settings).current)


def place_of(settings: Settings, current: Weights | None) -> Place:
    """Return where the checkpoint in force lies: a promoted one in the model store; None: the configured one.

    Raises:
        CheckpointRefused: it is not in the model store any more as it was promoted.
    """
    if current is None:
        return settings.model_lock or DEFAULT_LOCK, settings.model.checkpoint
    try:
        return model_store(settings).find(current).directory / LOCK_FILE, current.name
    except CheckpointRefused as error:
        raise CheckpointRefused(f"{error}; or `mediqa-node model rollback`") from error


def configured(settings: Settings) -> Weights:
    """Return the checkpoint that the configuration names."""
    check_checkpoint(settings)
    entry = read_lock(settings.model_lock or DEFAULT_LOCK)[settings.model.checkpoint]
    return Weights(name=settings.model.checkpoint, sha256=entry.sha256, card_sha256=entry.card_sha256)


def find_checkpoint(settings: Settings, source: str) -> Place:
    """Return where a checkpoint lies: a folder with a lock, else a name in the model store or the lock, else a digest.

    Args:
        source: of a digest, of weights or card, the first six digits or more.

    Raises:
        CheckpointRefused: there is none, or several that differ.
    """
    if Path(source).is_dir():
        lock = (Path(source) / LOCK_FILE).resolve()
        return lock, only_entry(lock)[0]
    lock = settings.model_lock or DEFAULT_LOCK
    pinned = [
        (Weights(name=name, sha256=entry.sha256, card_sha256=entry.card_sha256), lock)
        for name, entry in read_lock(lock).items()
    ]
    known = pinned + [(one.weights, one.directory / LOCK_FILE) for one in model_store(settings).all()]
    found = [(one, place) for one, place in known if one.name == source]
    if not found and re.fullmatch("[0-9a-f]{6,64}", source):
        digests = [((one.sha256, one.card_sha256), (one, place)) for one, place in known]
        found = [which for both, which in digests if any(digest.startswith(source) for digest in both)]
    if not found:
        names = ", ".join(sorted({one.name for one, _ in known}))
        raise CheckpointRefused(f"{source!r} is no folder and no checkpoint here; known: {names}")
    if not all(one.same_as(found[0][0]) for one, _ in found):
        several = "; ".join(f"{one.label} with card {one.card_sha256[:12]}, by {place}" for one, place in found)
        raise CheckpointRefused(f"{source!r} may be {several}: give a folder, or the beginning of a digest")
    one, place = found[-1]  # the store's, where both have it: nobody edits that
    return place, one.name


def sentence(settings: Settings, known: Standing) -> str:
    """Say which weights are in force, and why."""
    if known.current is None or known.since is None:
        try:
            return f"{configured(settings).label}, by `model.checkpoint`"
        except (CheckpointRefused, ConfigurationError) as error:
            return str(error)
    at = datetime.fromtimestamp(known.since.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    how = "promoted" if known.since.action == PROMOTE else "rolled back to"
    text = f"{known.current.label}, {how} {at} by {known.since.by}"
    return f"{text}; `model.checkpoint` names {settings.model.checkpoint}, which counts when nothing is promoted"


def check_checkpoint(settings: Settings) -> None:
    """Raise ConfigurationError unless `model.checkpoint` is pinned in models.lock."""
    known = read_lock(settings.model_lock or DEFAULT_LOCK)
    if settings.model.checkpoint not in known:
        raise ConfigurationError(
            f"model.checkpoint: {settings.model.checkpoint!r} is not pinned; known: {', '.join(known)}"
        )
