"""The score is held against itself: frozen images are scored by the whole chain, at every start and every day.

A drift beyond the bound withholds results until a person has acknowledged it: a physicist who follows a
scanner over years must know that it was the scanner that changed. Harvesting goes on, and so does what is
not scored at all.

The reference set lies in the package, `reference/manifest.json`, and is frozen: a file that has changed is
an error of its own, never taken for a drift.
"""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog
import yaml

from mediqa_node.dicom.prompts_from_header import PromptRules
from mediqa_node.domain.constancy import Check, Identity, compare, not_scored
from mediqa_node.domain.errors import NotScorable, ReferenceDamaged
from mediqa_node.pipeline.assessing import Judge, assess, harvest_series, read_headers
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import steadiness
from mediqa_node.storage.database import Database

log = structlog.get_logger("constancy")

PACKAGE = Path(__file__).parents[1]
MANIFEST = PACKAGE / "reference" / "manifest.json"
EVERY_S = 86400.0
AGAIN_AFTER_S = 3600.0
"""When a reference set that could not be scored is tried again."""
LIBRARIES = (
    "torch", "timm", "numpy", "pillow", "pydicom", "pylibjpeg-openjpeg", "python-gdcm", "pyjpegls",
)  # fmt: skip
"""What computes a score: network, preprocessing, decoders."""


# ── the reference set ────────────────────────────────────────────────────────


def reference_series(manifest: Path = MANIFEST) -> dict[str, tuple[Path, ...]]:
    """Return the files of each reference series by name, after each was held against its digest.

    Args:
        manifest: JSON, by name: `folder`, relative to the manifest's parent's parent, and `sha256` by file.

    Raises:
        ReferenceDamaged: a file is missing, or not as it was packed.
    """
    pinned = json.loads(_content(manifest))
    found: dict[str, tuple[Path, ...]] = {}
    for name, entry in pinned.items():
        folder = manifest.parents[1] / entry["folder"]
        for file, digest in entry["sha256"].items():
            if hashlib.sha256(_content(folder / file)).hexdigest() != digest:
                raise ReferenceDamaged(f"{folder / file} has changed since it was packed; install mediqa-node again")
        found[name] = tuple(folder / file for file in entry["sha256"])
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReferenceDamaged(f"{path} cannot be read: {error.strerror}; install mediqa-node again") from error


def reference_scores(judge: Judge, manifest: Path = MANIFEST) -> dict[str, float]:
    """Return the raw score of every reference series that this checkpoint scores: what a card pins.

    Whoever makes a checkpoint fills `Card.constancy` with them. A series is left out if the checkpoint has
    no intensity rule for its modality, or refuses it. Prompts come from the rules of the package, whatever
    the site has made of them: a site that teaches the node its protocol names has not changed the score.

    Raises:
        ReferenceDamaged: see `reference_series`.
    """
    judge = dataclasses.replace(judge, prompts=_shipped_rules())
    scores: dict[str, float] = {}
    for name, paths in reference_series(manifest).items():
        files = read_headers(paths)
        try:
            found = assess(files, harvest_series(files), judge, revision=1, assessed_at=datetime.now(UTC))
        except (NotScorable, KeyError) as reason:
            log.debug("reference series not scored", name=name, reason=str(reason))
            continue
        scores[name] = found.primary.raw_score
    return scores


def _shipped_rules() -> PromptRules:
    texts = (_content(PACKAGE / "defaults" / name) for name in ("prompts.yaml", "kernels.yaml"))
    return PromptRules.from_mappings(*map(yaml.safe_load, texts))


# ── one check ────────────────────────────────────────────────────────────────


def identity_of(judge: Judge, software_version: str) -> Identity:
    """Return what the scores of this process rest on."""
    checkpoint = judge.scorer.checkpoint
    return Identity(
        software_version=software_version,
        weights_sha256=checkpoint.sha256,
        execution=checkpoint.execution,
        libraries=libraries(),
    )


@cache
def libraries() -> str:
    """Return the versions that a score rests on, and the processor: kernels are chosen by it."""
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} –")
    return ", ".join([*found, processor()])


def processor() -> str:
    """Return the processor as the kernel names it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def check(
    judge: Judge,
    database: Database | None,
    *,
    software_version: str,
    at: float,
    made_by: str = "worker",
    manifest: Path = MANIFEST,
) -> Check:
    """Score the reference set, hold it against the card, and record what was found.

    Args:
        database: None: nothing is recorded, and without a card's scores nothing is compared.
        at: seconds since 1970.
        made_by: `worker` or `command`; see `Check`.
    """
    identity = identity_of(judge, software_version)
    first, accepted = _known(database, identity.weights_sha256)
    try:
        scores = reference_scores(judge, manifest)
        if not scores:
            raise NotScorable("no series", "the checkpoint scores none of the reference series")
    except Exception as error:  # whatever it is: without scores nobody knows, and results must wait
        found = not_scored(identity, str(error) or type(error).__name__, at=at)
    else:
        found = compare(identity, scores, pinned=judge.scorer.constancy, first=first, accepted=accepted, at=at)
    found = dataclasses.replace(found, made_by=made_by)
    if database is not None:
        with database.write() as connection:
            found = dataclasses.replace(found, id=steadiness.save_check(connection, found))
    _log(found)
    return found


def _known(
    database: Database | None, weights_sha256: str
) -> tuple[Mapping[str, float] | None, Mapping[str, float] | None]:
    """Return the first and the last acknowledged scores of these weights at this site."""
    if database is None:
        return None, None
    with database.read() as connection:
        return (
            steadiness.first_scores(connection, weights_sha256),
            steadiness.accepted_scores(connection, weights_sha256),
        )


def _log(found: Check) -> None:
    if found.passed:
        log.info("constancy checked", drift=found.drift, bound=found.bound, compared_with=found.compared_with)
    else:
        log.error("constancy failed, results are withheld", finding=found.finding(), advice="mediqa-node constancy")


# ── in the running node ──────────────────────────────────────────────────────


def check_if_due(node: NodeContext, *, at_start: bool = False) -> Check | None:
    """Check if anything that scores rest on differs from the last check, or a day has passed; else None.

    Results that are withheld are a reason too: at the start of a process, which may be the cure, and after
    a person has checked by command, so that the worker proves itself as well.
    """
    if node.judge is None:
        raise RuntimeError("this process has no model")
    judge, software_version, now = node.judge(), node.device.software_version, node.clock()
    identity = identity_of(judge, software_version)
    with node.database.read() as connection:
        last, standing = steadiness.last_check(connection), steadiness.standing(connection, identity)
    if last is not None and standing is not None and last.identity == identity:
        pause_s = AGAIN_AFTER_S if standing.problem is not None else EVERY_S
        again = standing.withholds and (at_start or last.made_by == "command")
        if 0 <= now - standing.checked_at < pause_s and not again:
            return None
    return check(judge, node.database, software_version=software_version, at=now)


def reason_to_withhold(node: NodeContext) -> str | None:
    """Return why results of this process wait for a person, with the next step, or None."""
    if node.judge is None:
        return None
    with node.database.read() as connection:
        last = steadiness.standing(connection, identity_of(node.judge(), node.device.software_version))
    if last is None or not last.withholds:
        return None
    return f"constancy: {last.finding()}; {last.advice()}"


def acknowledge(database: Database, by: str, *, at: float) -> Check | None:
    """Accept the drift of the last failed check; return it, or None if there is none.

    Raises:
        StorageFailed: the database refused.
        ReferenceDamaged: nothing was measured, so that there is nothing to accept.
    """
    with database.write() as connection:
        failed = steadiness.failed(connection)
        if failed is None or failed.id is None:
            return None
        if failed.problem is not None:
            raise ReferenceDamaged(f"nothing was measured that could be accepted: {failed.problem}")
        steadiness.acknowledge(connection, failed.id, by=by, at=at)
    log.warning("drift acknowledged", by=by, check=failed.id, finding=failed.finding())
    return failed
