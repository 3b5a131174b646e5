"""From settings to open resources: what the processes and the commands are made of.

Heavy rooms are imported late, so that the receiver and the command line stay small.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import tzinfo
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import structlog

from mediqa_node import __version__, weights
from mediqa_node.config import Settings
from mediqa_node.domain.errors import CheckpointRefused, ConfigurationError, PromotionRefused
from mediqa_node.storage.database import Database
from mediqa_node.storage.spool import Spool

if TYPE_CHECKING:
    from mediqa_node.dicom.prompts_from_header import PromptRules
    from mediqa_node.dicom.report_request import ReportDevice
    from mediqa_node.domain.preprocessing import PreprocessSpec
    from mediqa_node.domain.promotion import Weights
    from mediqa_node.model.card import Card
    from mediqa_node.model.doctor import TorchFacts
    from mediqa_node.model.parity import Outcome
    from mediqa_node.model.store import Stored
    from mediqa_node.pipeline.assessing import Judge
    from mediqa_node.pipeline.gathering import ExportSource
    from mediqa_node.pipeline.nightly import NightlyExport
    from mediqa_node.pipeline.node import NodeContext

log = structlog.get_logger("serve")


def open_database(settings: Settings) -> Database:
    """Open the database of this node."""
    return Database(settings.database_url)


def open_spool(settings: Settings) -> Spool:
    """Open the spool of this node."""
    return Spool(
        settings.data_dir / "spool",
        durable=settings.receiver.durability == "power-loss",
        low_water_bytes=settings.retention.low_water_bytes,
    )


def prepare(settings: Settings) -> None:
    """Create the data folder and bring both sets of tables up to date; once, before any process starts."""
    from mediqa_node.pipeline.durable import migrate
    from mediqa_node.storage.migrate import upgrade

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = open_database(settings)
    upgrade(database)
    migrate(database)
    database.close()
    identity(settings)


def identity(settings: Settings) -> dict[str, str]:
    """Return device UID and serial number of this installation, made once and kept in the data folder."""
    path = settings.data_dir / "identity.json"
    if not path.exists():
        from uuid import uuid4

        made = {"device_uid": f"2.25.{uuid4().int}", "serial_number": uuid4().hex[:12].upper()}
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with (half := path.with_suffix(".new")).open("w", encoding="utf-8") as file:
            file.write(json.dumps(made))
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)  # a name that is half written would stop every later start
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {**kept, **({"device_uid": settings.node.device_uid} if settings.node.device_uid else {})}


def report_device(settings: Settings) -> "ReportDevice":
    """Return how this node names itself in reports."""
    from mediqa_node.dicom.report_request import ReportDevice

    return ReportDevice(ae_title=settings.node.ae_title, software_version=__version__, **identity(settings))


def time_zone(settings: Settings) -> tzinfo:
    """Return the site's time zone: configured, else the machine's."""
    if settings.node.time_zone:
        try:
            return ZoneInfo(settings.node.time_zone)
        except (KeyError, ValueError, OSError) as error:
            raise ConfigurationError(f"node.time_zone: {settings.node.time_zone!r} is no IANA time zone") from error
    from tzlocal import get_localzone

    return get_localzone()


def prompt_rules(settings: Settings) -> "PromptRules":
    """Read the prompt and kernel rules: the site's files, else those of the package."""
    import yaml

    from mediqa_node.dicom.prompts_from_header import PromptRules

    defaults = files("mediqa_node") / "defaults"
    texts = []
    for name, own in (("prompts.yaml", settings.prompts), ("kernels.yaml", settings.kernels)):
        source: Any = settings.folder / own if own else defaults / name
        try:
            texts.append(yaml.safe_load(source.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigurationError(f"{source}: not readable as YAML: {error}") from error
    return PromptRules.from_mappings(*texts)


def open_judge(settings: Settings, *, reporting: bool = False) -> "Judge":
    """Load the checkpoint that is in force, promoted or configured; this imports torch.

    Args:
        reporting: the scores go into reports, so that raw scores alone will not do.

    Raises:
        CheckpointRefused: missing, wrong digest, or not to be honoured.
    """
    return open_at(settings, weights.in_force(settings), reporting=reporting)


def open_at(settings: Settings, place: weights.Place, *, reporting: bool = False) -> "Judge":
    """Load a checkpoint by lock and name, whatever is in force; see `open_judge`."""
    from mediqa_node.model.predict import load_scorer
    from mediqa_node.model.prompt_classifier import load_classifier
    from mediqa_node.pipeline.assessing import Judge

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
    return Judge(
        scorer=scorer, prompts=prompt_rules(settings), calibrations=settings.calibrations, classifier=classifier
    )


def open_folder(settings: Settings, folder: Path, *, reporting: bool = False) -> "Judge":
    """Load the only checkpoint of a folder that `mediqa-node model import` made, whatever is configured.

    Raises:
        CheckpointRefused: no lock file there, more than one checkpoint, or see `open_judge`.
    """
    from mediqa_node.model.lock import LOCK_FILE, only_entry

    lock = (folder / LOCK_FILE).resolve()
    return open_at(settings, (lock, only_entry(lock)[0]), reporting=reporting)


def open_stored(settings: Settings, wanted: "Weights") -> "Judge":
    """Load a checkpoint of the model store for scores that could be reported; see `open_judge`."""
    return open_folder(settings, weights.model_store(settings).find(wanted).directory, reporting=True)


def open_pinned(settings: Settings, name: str, sha256: str) -> "Judge":
    """Load the checkpoint whose weights have this digest, from the model store or the lock; see `open_judge`.

    Args:
        name: of the entry to prefer, where several cards go with the same weights.
    """
    from mediqa_node.model.lock import DEFAULT_LOCK, LOCK_FILE, read_lock

    lock = settings.model_lock or DEFAULT_LOCK
    places = [(lock, known) for known, entry in read_lock(lock).items() if entry.sha256 == sha256]
    stored = [one for one in weights.model_store(settings).all() if one.weights.sha256 == sha256]
    places += [(one.directory / LOCK_FILE, one.weights.name) for one in stored]
    if not places:
        raise CheckpointRefused(
            f"the weights with SHA-256 {sha256} are not in the model lock any more, nor in the model store"
        )
    return open_at(settings, min(places, key=lambda place: place[1] != name))


def take_into_store(settings: Settings, source: str, name: str | None = None) -> tuple["Stored", "Judge"]:
    """Keep a copy of a checkpoint for the node, and load that copy as the worker will; this imports torch.

    Args:
        source: see `weights.find_checkpoint`.
        name: in the store; None: its name where it comes from.

    Raises:
        CheckpointRefused: this version cannot honour it, or the store cannot take it.
    """
    from mediqa_node.model.checkpoint import checkpoint_files
    from mediqa_node.model.lock import read_lock

    lock, known = weights.find_checkpoint(settings, source)
    files = checkpoint_files(known, read_lock(lock)[known])
    store = weights.model_store(settings)
    before = {one.weights for one in store.all()}
    stored = store.add(name or known, *files)
    try:
        return stored, open_stored(settings, stored.weights)
    except CheckpointRefused:
        if stored.weights not in before:
            store.remove(stored)  # or it would hold its name against the one that is mended
        raise


def open_previous(settings: Settings) -> tuple["Weights", int | None]:
    """Load what a rollback puts back, promoted before or configured; return it, and the decision that it replaces.

    Raises:
        CheckpointRefused: it cannot be loaded, so that no worker could start with it.
        PromotionRefused: there is nothing to roll back.
    """
    known = weights.decided(settings)
    if not known.can_roll_back or known.since is None:
        raise PromotionRefused("there is no promotion to roll back: the configuration's checkpoint is in force")
    if known.previous is not None:
        open_stored(settings, known.previous)
        return known.previous, known.since.id
    configured = weights.configured(settings)  # not before: the store does without the lock
    open_at(settings, weights.place_of(settings, None), reporting=True)
    return configured, known.since.id


def check_parity(file: Path, advance: Callable[[int, int], None]) -> "Iterator[Outcome]":
    """Yield the outcome of every case of a parity file in both arithmetics; see `model.parity`."""
    from mediqa_node.model.parity import read_cases, run_cases

    cases = read_cases(file)
    for done, outcome in enumerate(run_cases(cases), start=1):
        advance(done, 2 * len(cases))
        yield outcome


def import_checkpoint(
    weights: Path, out: Path, *, name: str, quality: tuple[str, float, float] | None, **known: Any
) -> "Card":
    """Convert a state dict; see `model.importing`. A map of raw scores is given as kind, a, b."""
    from mediqa_node.model.card import QualityMap
    from mediqa_node.model.importing import Provenance, import_weights

    mapped = QualityMap(kind=quality[0], a=quality[1], b=quality[2]) if quality else None
    return import_weights(weights, out, name, Provenance(quality=mapped, **known))


def pin_reference(folder: Path) -> dict[str, float]:
    """Score the reference set with the only checkpoint of a folder, and pin the scores in its card and lock."""
    from mediqa_node.domain.constancy import Constancy
    from mediqa_node.model.checkpoint import amend_card
    from mediqa_node.pipeline.constancy import reference_scores

    scores = {name: round(raw, 9) for name, raw in reference_scores(open_folder(Settings(), folder)).items()}
    amend_card(folder, lambda card: replace(card, constancy=Constancy(raw=scores)))
    return scores


def torch_facts() -> "TorchFacts":
    """Return what torch finds on this machine; this imports it."""
    from mediqa_node.model.doctor import torch_facts as ask

    return ask()


def preprocess_spec(settings: Settings) -> "PreprocessSpec":
    """Return how the checkpoint in force wants its images, from its card; CheckpointRefused: see `open_judge`."""
    from mediqa_node.model.card import read_card
    from mediqa_node.model.lock import card_bytes, read_lock

    lock, name = weights.in_force(settings)
    entries = read_lock(lock)
    if name not in entries:
        raise CheckpointRefused(f"no checkpoint {name!r} in the model lock; it has: {', '.join(entries) or 'none'}")
    return read_card(card_bytes(name, entries[name])).preprocess


_EXPORT_KEY = "export.key"


def series_keys(settings: Settings) -> "Callable[[Iterable[str]], dict[str, str]] | None":
    """Return how UIDs are found by the series keys of this node's exports; None where nothing was exported yet."""
    from mediqa_node.dicom.pseudonyms import KEY_BYTES, Pseudonyms
    from mediqa_node.exchange.folder import secret_of

    if not (file := settings.data_dir / _EXPORT_KEY).is_file():
        return None
    pseudonyms = Pseudonyms(secret_of(file, KEY_BYTES))
    return lambda uids: {pseudonyms.key("series", uid): uid for uid in uids}


def export_source(settings: Settings, database: Database) -> "ExportSource":
    """Return what an export draws on; the key of its pseudonyms is made once and kept in the data folder."""
    from mediqa_node.dicom.pseudonyms import KEY_BYTES, Pseudonyms
    from mediqa_node.exchange.folder import secret_of
    from mediqa_node.pipeline.gathering import ExportSource

    return ExportSource(
        database=database,
        spool=open_spool(settings),
        prompts=prompt_rules(settings),
        pseudonyms=Pseudonyms(secret_of(settings.data_dir / _EXPORT_KEY, KEY_BYTES)),
        spec=lambda: preprocess_spec(settings),
        software_version=__version__,
    )


def nightly_export(settings: Settings, database: Database) -> "NightlyExport | None":
    """Return what the courier exports every night, or None where the site wants none."""
    if settings.export.nightly is None:
        return None
    from mediqa_node.pipeline.nightly import NightlyExport

    return NightlyExport(
        source=lambda: export_source(settings, database),
        rules=settings.export,
        folder=settings.export_folder,
        time_zone=time_zone(settings),
        clock=time.time,
    )


def node_context(settings: Settings, database: Database, *, judge: "Judge | None" = None) -> "NodeContext":
    """Return what the stations share; `judge`: what a worker scores with."""
    from mediqa_node.pipeline.durable import DurableJobs
    from mediqa_node.pipeline.node import NodeContext

    return NodeContext(
        database=database,
        spool=open_spool(settings),
        jobs=DurableJobs(database),
        device=report_device(settings),
        time_zone=time_zone(settings),
        peers=settings.domain_peers(),
        returns=settings.return_rules(),
        completion=settings.completion,
        score=settings.score,
        delivery=settings.delivery,
        companions=settings.companions,
        retention=settings.retention,
        allow_untrained=settings.model.allow_untrained,
        judge=(lambda: judge) if judge is not None else None,
    )
