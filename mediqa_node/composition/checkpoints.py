"""Which checkpoint scores: the promoted one, else the configured one; and loading it.

Importing this module loads no torch; the `open_…` functions do.
"""

import re
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from mediqa_node.config import Settings
from mediqa_node.domain.errors import CheckpointRefused, ConfigurationError, PromotionRefused
from mediqa_node.domain.promotion import Action, Standing, Weights
from mediqa_node.model.lock import DEFAULT_LOCK, LOCK_FILE, only_entry, read_lock
from mediqa_node.model.store import ModelStore
from mediqa_node.storage import calibrations, promotions
from mediqa_node.storage.database import Database

if TYPE_CHECKING:
    from mediqa_node.dicom.prompts import PromptRules
    from mediqa_node.domain.assessment import Calibration
    from mediqa_node.domain.preprocessing import PreprocessSpec
    from mediqa_node.model.store import Stored
    from mediqa_node.pipeline.score import Assessor

log = structlog.get_logger("serve")

Place = tuple[Path, str]
"""A lock and the name of a checkpoint in it."""


def model_store(settings: Settings) -> ModelStore:
    """Return the model store of this node."""
    return ModelStore(settings.data_dir / "models")


def standing(settings: Settings) -> Standing:
    """Return what the recorded promotions add up to; an empty result without a database."""
    if settings.missing_database is not None:
        return Standing()
    database = Database(settings.database_url)
    try:
        with database.read() as connection:
            return promotions.standing(connection)
    finally:
        database.close()


def active(settings: Settings) -> Place:
    """Return the location of the active checkpoint: the promoted one, else the configured one (`domain.promotion`).

    Raises:
        CheckpointRefused: see `place_of`.
    """
    return place_of(settings, standing(settings).current)


def place_of(settings: Settings, current: Weights | None) -> Place:
    """Return the location of a promoted checkpoint in the model store; for None, of the configured one.

    Raises:
        CheckpointRefused: it is gone from the model store or has changed since it was promoted.
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


def active_weights(settings: Settings, known: Standing) -> Weights:
    """Return the active checkpoint: the promoted one, else the configured one.

    Raises:
        CheckpointRefused, ConfigurationError: the configured one is not pinned.
    """
    return known.current or configured(settings)


def find_checkpoint(settings: Settings, source: str) -> Place:
    """Find a checkpoint by folder with a lock, else by name in the model store or the lock, else by digest.

    Args:
        source: folder, name, or at least six digits of the digest of weights or card.

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
        raise CheckpointRefused(f"{source!r} is neither a folder nor a known checkpoint; known: {names}")
    if not all(one.same_as(found[0][0]) for one, _ in found):
        several = "; ".join(f"{one.label} with card {one.card_sha256[:12]}, by {place}" for one, place in found)
        raise CheckpointRefused(f"{source!r} may be {several}: give a folder, or the beginning of a digest")
    one, place = found[-1]  # prefer the model store, which is never edited by hand
    return place, one.name


def sentence(settings: Settings, known: Standing) -> str:
    """Return which checkpoint is active, and why, as a sentence."""
    if known.current is None or known.since is None:
        try:
            return f"{configured(settings).label}, by `model.checkpoint`"
        except (CheckpointRefused, ConfigurationError) as error:
            return str(error)
    at = datetime.fromtimestamp(known.since.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    how = "promoted" if known.since.action == Action.PROMOTE else "rolled back to"
    text = f"{known.current.label}, {how} {at} by {known.since.by}"
    return f"{text}; `model.checkpoint` names {settings.model.checkpoint}, which is used when none is promoted"


def check_checkpoint(settings: Settings) -> None:
    """Raise ConfigurationError unless `model.checkpoint` is pinned in models.lock."""
    known = read_lock(settings.model_lock or DEFAULT_LOCK)
    if settings.model.checkpoint not in known:
        raise ConfigurationError(
            f"model.checkpoint: {settings.model.checkpoint!r} is not pinned; known: {', '.join(known)}"
        )


def prompt_rules(settings: Settings) -> "PromptRules":
    """Read the prompt and kernel rules: the site's files, else the packaged ones."""
    import yaml

    from mediqa_node.dicom.prompts import PromptRules

    defaults = files("mediqa_config")
    texts = []
    for name, own in (("prompts.yaml", settings.prompts), ("kernels.yaml", settings.kernels)):
        source: Any = settings.folder / own if own else defaults / name
        try:
            texts.append(yaml.safe_load(source.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigurationError(f"{source}: not readable as YAML: {error}") from error
    return PromptRules.from_mappings(*texts)


def open_active(settings: Settings, *, reporting: bool = False) -> "Assessor":
    """Load the active checkpoint; this imports torch.

    Args:
        reporting: require a map of raw scores to 0..1, since the scores go into reports.

    Raises:
        CheckpointRefused: missing, wrong digest, or a card that this version cannot honour.
    """
    return open_at(settings, active(settings), reporting=reporting)


def open_at(settings: Settings, place: Place, *, reporting: bool = False) -> "Assessor":
    """Load a checkpoint by lock and name; see `open_active`."""
    try:
        from mediqa_node.model.predict import load_scorer
        from mediqa_node.model.prompt_classifier import load_classifier
        from mediqa_node.pipeline.score import Assessor
    except (ImportError, OSError, RuntimeError) as error:  # a torchvision of another build raises any of them
        text = f"PyTorch does not start: {error}; `mediqa-node doctor` names what to install"
        raise ConfigurationError(text) from error

    lock, name = place
    scorer = load_scorer(name, lock=lock, execution=settings.model)
    if reporting and scorer.card.quality is None:
        raise CheckpointRefused(
            f"checkpoint {scorer.checkpoint.name!r} maps no raw score to 0..1, so that nothing could be reported; "
            f"import it again with `--quality`"
        )
    if not scorer.checkpoint.trained:
        log.warning("UNTRAINED WEIGHTS: scores have no meaning", checkpoint=scorer.checkpoint.name)
    classifier = load_classifier(chosen, settings.model_lock) if (chosen := settings.model.classifier) else None
    return Assessor(
        scorer=scorer,
        prompts=prompt_rules(settings),
        calibrations=approved_calibrations(settings),
        classifier=classifier,
        refuse=settings.score.refuse,
    )


def approved_calibrations(settings: Settings) -> "tuple[Calibration, ...]":
    """Return the calibrations that verdicts may rest on: of the database, without one those of the configuration.

    A worker reads them again for each series.
    """
    if settings.missing_database is not None:
        return settings.calibrations
    database = Database(settings.database_url)
    try:
        with database.read() as connection:
            kept = calibrations.are_kept(connection)
            return calibrations.active(connection) if kept else settings.calibrations
    finally:
        database.close()


def open_folder(settings: Settings, folder: Path, *, reporting: bool = False) -> "Assessor":
    """Load the only checkpoint of a folder that `mediqa-node model import` made.

    Raises:
        CheckpointRefused: no lock file there, more than one checkpoint, or see `open_active`.
    """
    from mediqa_node.model.lock import LOCK_FILE, only_entry

    lock = (folder / LOCK_FILE).resolve()
    return open_at(settings, (lock, only_entry(lock)[0]), reporting=reporting)


def open_stored(settings: Settings, wanted: "Weights") -> "Assessor":
    """Load a checkpoint of the model store for reporting; see `open_active`."""
    return open_folder(settings, model_store(settings).find(wanted).directory, reporting=True)


def open_pinned(settings: Settings, name: str, sha256: str) -> "Assessor":
    """Load the checkpoint whose weights have this digest, from the model store or the lock; see `open_active`.

    Args:
        name: entry to prefer if several cards share these weights.
    """
    from mediqa_node.model.lock import DEFAULT_LOCK, LOCK_FILE, read_lock

    lock = settings.model_lock or DEFAULT_LOCK
    places = [(lock, known) for known, entry in read_lock(lock).items() if entry.sha256 == sha256]
    stored = [one for one in model_store(settings).all() if one.weights.sha256 == sha256]
    places += [(one.directory / LOCK_FILE, one.weights.name) for one in stored]
    if not places:
        raise CheckpointRefused(
            f"the weights with SHA-256 {sha256} are no longer in the model lock, nor in the model store"
        )
    return open_at(settings, min(places, key=lambda place: place[1] != name))


def take_into_store(settings: Settings, source: str, name: str | None = None) -> tuple["Stored", "Assessor"]:
    """Copy a checkpoint into the model store, and load that copy as the worker will; this imports torch.

    Args:
        source: see `find_checkpoint`.
        name: name in the store; None: keep its name.

    Raises:
        CheckpointRefused: this version cannot honour it, or the store cannot take it.
    """
    from mediqa_node.model.checkpoint import checkpoint_files
    from mediqa_node.model.lock import read_lock

    lock, known = find_checkpoint(settings, source)
    files = checkpoint_files(known, read_lock(lock)[known])
    store = model_store(settings)
    before = {one.weights for one in store.all()}
    stored = store.add(name or known, *files)
    try:
        return stored, open_stored(settings, stored.weights)
    except CheckpointRefused:
        if stored.weights not in before:
            store.remove(stored)  # else it would block its name for a corrected one
        raise


def refuse_unevaluated(settings: Settings, source: str) -> None:
    """Refuse a checkpoint whose card lacks evidence for its score, unless it is already active.

    Args:
        source: see `find_checkpoint`.

    Raises:
        PromotionRefused: with what is missing and the commands that provide it.
    """
    from mediqa_node.model.card import missing_evidence, read_card
    from mediqa_node.model.lock import card_bytes

    lock, name = find_checkpoint(settings, source)
    entry = read_lock(lock)[name]
    candidate = Weights(name=name, sha256=entry.sha256, card_sha256=entry.card_sha256)
    if candidate.same_as(standing(settings).current or configured(settings)):
        return
    if missing := missing_evidence(read_card(card_bytes(name, entry))):
        raise PromotionRefused(
            f"{candidate.label} was not promoted: its card lacks {', '.join(missing)}. With `--unevaluated` it is "
            f"promoted all the same, and every report says NOT EVALUATED"
        )


def open_previous(settings: Settings) -> tuple["Weights", int | None]:
    """Load the checkpoint that a rollback restores; return it, and the decision that it replaces.

    Raises:
        CheckpointRefused: it cannot be loaded, so that no worker could start with it.
        PromotionRefused: there is nothing to roll back.
    """
    known = standing(settings)
    if not known.can_roll_back or known.since is None:
        raise PromotionRefused(
            "there is no promotion to roll back: the checkpoint named by `model.checkpoint` is active"
        )
    if known.previous is not None:
        open_stored(settings, known.previous)
        return known.previous, known.since.id
    replaced_by = configured(settings)  # late: the model store does not need the lock
    open_at(settings, place_of(settings, None), reporting=True)
    return replaced_by, known.since.id


def preprocess_spec(settings: Settings) -> "PreprocessSpec":
    """Return the preprocessing of the active checkpoint, from its card.

    Raises:
        CheckpointRefused: see `open_active`.
    """
    from mediqa_node.model.card import read_card
    from mediqa_node.model.lock import card_bytes, read_lock

    lock, name = active(settings)
    entries = read_lock(lock)
    if name not in entries:
        raise CheckpointRefused(f"no checkpoint {name!r} in the model lock; it has: {', '.join(entries) or 'none'}")
    return read_card(card_bytes(name, entries[name])).preprocess


def pin_reference(folder: Path) -> dict[str, float]:
    """Score the reference set with the only checkpoint of a folder, and pin the scores in its card and lock."""
    from mediqa_node.domain.constancy import Constancy
    from mediqa_node.model.checkpoint import amend_card
    from mediqa_node.pipeline.checks.constancy import reference_scores

    scores = {name: round(raw, 9) for name, raw in reference_scores(open_folder(Settings(), folder)).items()}
    amend_card(folder, lambda card: replace(card, constancy=Constancy(raw=scores)))
    return scores
