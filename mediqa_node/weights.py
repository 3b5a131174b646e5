"""Which weights this node scores with: what was promoted, else what the configuration names. No torch here."""

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
    """Return where a checkpoint lies: a folder with a lock, else a name in the model store or the lock.

    Raises:
        CheckpointRefused: there is none.
    """
    if Path(source).is_dir():
        lock = (Path(source) / LOCK_FILE).resolve()
        return lock, only_entry(lock)[0]
    lock = settings.model_lock or DEFAULT_LOCK
    known = dict.fromkeys(read_lock(lock), lock)
    known |= {one.weights.name: one.directory / LOCK_FILE for one in model_store(settings).all()}
    if source not in known:
        raise CheckpointRefused(f"{source!r} is no folder and no checkpoint here; known: {', '.join(sorted(known))}")
    return known[source], source


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
