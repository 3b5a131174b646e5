"""Constancy: score a frozen reference set at every start and every day, and compare.

A drift beyond the bound withholds results until a person acknowledges it: a physicist who follows a scanner
over years must know that it was the scanner that changed. Harvesting continues.

The reference set is part of the package (`reference/manifest.json`) and frozen: a changed file is an error of
its own, never mistaken for a drift.
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
from threading import Lock

import structlog

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.prompts import default_rules
from mediqa_node.domain.constancy import Check, CheckedBy, Identity, compare, not_scored
from mediqa_node.domain.errors import NotScorable, ReferenceDamaged, UndecodablePixels
from mediqa_node.domain.images import FrameRef
from mediqa_node.domain.policy import Refuse
from mediqa_node.domain.series import Reason, ReasonCode
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.score import Assessor, SeriesFiles, assess, harvest_series, read_headers
from mediqa_node.storage import constancy_checks, overview
from mediqa_node.storage.database import Database

log = structlog.get_logger("constancy")

PACKAGE = Path(__file__).parents[2]
MANIFEST = PACKAGE / "reference" / "manifest.json"
EVERY_S = 86400.0
LIBRARIES = (
    "torch", "timm", "numpy", "pillow", "pydicom", "pylibjpeg-openjpeg", "python-gdcm", "pyjpegls",
)  # fmt: skip
"""Packages that a score depends on: network, preprocessing, decoders."""
_FAULTS = (ReasonCode.UNDECODABLE, ReasonCode.UNREADABLE, ReasonCode.IMPLAUSIBLE)
"""Reasons of NotScorable that are faults of the installation, not properties of the image."""
_ONE_AT_A_TIME = Lock()


# ── the reference set ────────────────────────────────────────────────────────


def reference_series(manifest: Path = MANIFEST) -> dict[str, tuple[Path, ...]]:
    """Return the files of each reference series by name, each verified against its digest.

    Args:
        manifest: JSON, by name: `folder`, relative to the manifest's parent's parent, and `sha256` by file.

    Raises:
        ReferenceDamaged: a file is missing or has changed since it was packed.
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


def reference_scores(assessor: Assessor, manifest: Path = MANIFEST) -> dict[str, float]:
    """Return the raw score of every reference series that this checkpoint scores: the values that a card pins.

    A series is left out if the checkpoint has no intensity rule for its modality, or refuses it. Prompts follow
    the rules of the package, and what is outside the training range is refused: site rules do not change the network.

    Raises:
        ReferenceDamaged: see `reference_series`.
        UndecodablePixels: a file cannot be decoded here.
    """
    return _scores_and_refusals(assessor, manifest)[0]


def _scores_and_refusals(assessor: Assessor, manifest: Path) -> tuple[dict[str, float], dict[str, str]]:
    """Return the raw score of each reference series, and why others have none, by name."""
    assessor = dataclasses.replace(assessor, prompts=default_rules(), refuse=Refuse.STRICT)
    scores: dict[str, float] = {}
    refusals: dict[str, str] = {}
    for name, paths in reference_series(manifest).items():
        try:
            files = read_headers(paths)
            found = assess(files, harvest_series(files), assessor, revision=1, assessed_at=datetime.now(UTC))
        except NotScorable as reason:
            if reason.code in _FAULTS:
                raise UndecodablePixels(f"{name}: {reason}") from reason
            refusals[name] = str(reason)
        else:
            if found.failed_slices:
                raise UndecodablePixels(f"{name}: {_why_failed(files, found.failed_slices[0])}")
            scores[name] = found.primary.raw_score
    return scores, refusals


def _why_failed(files: SeriesFiles, frame: FrameRef) -> str:
    """Decode a slice again to get the decoder's message."""
    path, said = files.paths[frame.instance_index], "not decoded, though it was when tried again"
    with FrameReader() as reader:
        try:
            reader.raw(path, frame.frame_number)
        except UndecodablePixels as error:
            said = str(error)
    return f"{path.name}: {said}"


# ── one check ────────────────────────────────────────────────────────────────


def identity_of(assessor: Assessor, software_version: str, host_id: str | None = None) -> Identity:
    """Return everything except the image that the scores of this process depend on."""
    checkpoint = assessor.scorer.checkpoint
    return Identity(
        software_version=software_version,
        weights_sha256=checkpoint.sha256,
        execution=checkpoint.execution,
        libraries=", ".join(filter(None, (libraries(), assessor.scorer.hardware))),
        host_id=host_id,
    )


@cache
def libraries() -> str:
    """Return the versions that a score depends on, and the processor, which selects the kernels."""
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
    assessor: Assessor,
    database: Database | None,
    *,
    software_version: str,
    at: float,
    made_by: CheckedBy = CheckedBy.WORKER,
    manifest: Path = MANIFEST,
    host_id: str | None = None,
) -> Check:
    """Score the reference set, compare with the card, and record the check.

    Args:
        database: None: nothing is recorded, and without a card's scores nothing is compared.
        at: seconds since 1970.
        made_by: see `Check`.
        host_id: see `Identity`.
    """
    found = tried(
        assessor,
        database,
        software_version=software_version,
        at=at,
        made_by=made_by,
        manifest=manifest,
        host_id=host_id,
    )
    if database is not None:
        with database.write() as connection:
            found = dataclasses.replace(found, id=constancy_checks.save_check(connection, found))
    _log(found)
    return found


def tried(
    assessor: Assessor,
    database: Database | None,
    *,
    software_version: str,
    at: float,
    made_by: CheckedBy,
    manifest: Path = MANIFEST,
    host_id: str | None = None,
) -> Check:
    """Score the reference set and compare with the card, without recording it. See `check`.

    A set that could not be scored is tried once more, since memory may have been short.
    """
    identity = identity_of(assessor, software_version, host_id)
    found = _measured(assessor, database, identity, at, manifest)
    if found.problem is not None:
        log.warning("constancy check repeated", problem=found.problem)
        found = _measured(assessor, database, identity, at, manifest)
    return dataclasses.replace(found, made_by=made_by)


def _measured(assessor: Assessor, database: Database | None, identity: Identity, at: float, manifest: Path) -> Check:
    first, accepted = _known(database, identity)
    try:
        scores, refusals = _scores_and_refusals(assessor, manifest)
        if not scores:
            raise NotScorable("no_images", f"the checkpoint scores none of the reference series: {refusals}")
    except Exception as error:  # any error: without scores, results must wait
        return not_scored(identity, str(error) or type(error).__name__, at=at)
    pinned = assessor.scorer.constancy
    return compare(identity, scores, pinned=pinned, first=first, accepted=accepted, at=at, refusals=refusals)


def _known(
    database: Database | None, identity: Identity
) -> tuple[Mapping[str, float] | None, Mapping[str, float] | None]:
    """Return the first scores of these weights at this site, and the last acknowledged ones of this identity."""
    if database is None:
        return None, None
    with database.read() as connection:
        return (
            constancy_checks.first_scores(connection, identity.weights_sha256),
            constancy_checks.accepted_scores(connection, identity),
        )


def _log(found: Check) -> None:
    if found.passed:
        log.info("constancy checked", drift=found.drift, bound=found.bound, compared_with=found.compared_with)
    else:
        log.error("constancy failed, results are withheld", finding=found.finding(), advice="mediqa-node constancy")


# ── in the running node ──────────────────────────────────────────────────────


def check_if_due(node: NodeContext, *, at_start: bool = False) -> Check | None:
    """Check at every start, and when the last check of this identity is a day old; else return None.

    A set that could not be scored is tried at every call. A failed check is repeated after a check by command,
    so that the worker is proven as well. After a good check, series that only waited for the reference set to
    be scored are assessed again.
    """
    if node.assessor is None:
        raise RuntimeError("this process has no model")
    assessor, software_version = node.assessor, node.device.software_version
    with _ONE_AT_A_TIME:
        due = at_start or _is_due(*_of_this_process(node), now=node.clock())
        found = None
        if due:
            found = check(
                assessor,
                node.database,
                software_version=software_version,
                at=node.clock(),
                host_id=node.host_id,
            )
        _send_on(node)
    return found


def _of_this_process(node: NodeContext) -> tuple[Check | None, Check | None]:
    """Return the check that decides for the identity of this process, and the newest one by any process."""
    assert node.assessor is not None
    identity = identity_of(node.assessor, node.device.software_version, node.host_id)
    with node.database.read() as connection:
        return constancy_checks.standing(connection, identity), constancy_checks.last_check(connection, identity)


def _is_due(standing: Check | None, newest: Check | None, *, now: float) -> bool:
    if standing is None or newest is None or standing.problem is not None:
        return True
    if standing.withholds and newest.made_by == CheckedBy.COMMAND:
        return True
    return not 0 <= now - standing.checked_at < EVERY_S


def _send_on(node: NodeContext) -> None:
    standing, _ = _of_this_process(node)
    if standing is None or not standing.passed:
        return
    with node.database.write() as connection:
        count = overview.assess_again(connection, ReasonCode.CONSTANCY_UNKNOWN, now=node.clock())
    if count:
        log.info("series sent on after a good check", series=count)


def reason_to_withhold(node: NodeContext) -> Reason | None:
    """Return why results of this process are withheld, with the next step, or None.

    After a good check by command the worker checks here, without waiting for its next sweep.
    """
    if node.assessor is None:
        return None
    standing, newest = _of_this_process(node)
    if standing is not None and standing.withholds and newest is not None and newest.passed:  # by command
        check_if_due(node)
        standing, _ = _of_this_process(node)
    if standing is None or not standing.withholds:
        return None
    code = ReasonCode.CONSTANCY_DRIFT if standing.problem is None else ReasonCode.CONSTANCY_UNKNOWN
    return Reason(code, f"{standing.finding()}; {standing.advice()}")


def acknowledge(database: Database, by: str, *, at: float) -> Check | None:
    """Accept the drift of the last failed check; return it, or None if there is none.

    Raises:
        StorageFailed: the database refused.
        ReferenceDamaged: nothing was measured, so that there is nothing to accept.
    """
    with database.write() as connection:
        failed = constancy_checks.failed(connection)
        if failed is None or failed.id is None:
            return None
        if failed.problem is not None:
            raise ReferenceDamaged(f"nothing was measured that could be accepted: {failed.problem}")
        constancy_checks.acknowledge(connection, failed.id, by=by, at=at)
    log.warning("drift acknowledged", by=by, check=failed.id, finding=failed.finding())
    return failed
