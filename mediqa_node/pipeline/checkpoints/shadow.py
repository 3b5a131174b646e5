"""Shadow scoring: a candidate scores what the active checkpoint has scored; nothing is sent.

It scores a series after the series' own result is committed, while no series waits for its score, on a thread
of the lowest priority. Its scores go to one table and nowhere else.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import structlog

from mediqa_node.dicom.header import text
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.errors import MediqaError, NotScorable, StorageFailed, fault_of
from mediqa_node.domain.policy import Refuse
from mediqa_node.domain.promotion import ShadowScore, Weights
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.score import Assessor, SeriesFiles, assess, read_headers
from mediqa_node.storage import assessments, calibrations, index, promotions
from mediqa_node.storage.promotions import Unshadowed

log = structlog.get_logger("shadow")

LOOK_EVERY_S = 2.0
TRY_AGAIN_S = 60.0
"""Pause after a failure: a candidate that cannot be loaded must not fill the log."""
_LOWEST_PRIORITY = 19

OpenCandidate = Callable[[Weights], Assessor]


@dataclass(slots=True)
class Shadow:
    """The candidate of one process, loaded when there is something to score and dropped with the decision.

    Attributes:
        is_its_turn: whether this worker scores the next series, of all that could.
    """

    node: NodeContext
    open_candidate: OpenCandidate
    is_its_turn: Callable[[], bool] = lambda: True
    _loaded: tuple[Weights, Assessor] | None = field(default=None, init=False)

    def score_next(self) -> str | None:
        """Score the series that has waited longest; return its UID, or None if there is nothing to do.

        Raises:
            CheckpointRefused: the candidate cannot be loaded.
            StorageFailed: disk or database refused; the same series is found again.
        """
        with self.node.database.read() as connection:
            known = promotions.standing(connection)
            if known.shadow is None:
                self._loaded = None
                return None
            waiting = promotions.next_to_shadow(connection, known.shadow, since=known.shadow_since)
        if waiting is None or not self.is_its_turn():
            return None
        self._keep(waiting, known.shadow)
        return waiting.series_instance_uid

    def _assessor(self, candidate: Weights) -> Assessor:
        if self._loaded is None or self._loaded[0] != candidate:
            self._loaded = None  # free the previous one first
            self._loaded = candidate, self.open_candidate(candidate)
            log.info("shadow loaded", candidate=candidate.label)
        return self._loaded[1]

    def _keep(self, waiting: Unshadowed, candidate: Weights) -> None:
        uid, assessor = waiting.series_instance_uid, self._assessor(candidate)
        station_name, found, reason = self._ask(waiting, assessor)
        score = ShadowScore(
            series_instance_uid=uid,
            revision=waiting.revision,
            station_name=station_name[:16],
            modality=waiting.modality,
            weights_sha256=waiting.weights_sha256,
            quality=waiting.quality,
            verdict=waiting.verdict,
            candidate=candidate,
            candidate_quality=found.quality if found else None,
            candidate_verdict=found.verdict if found else None,
            reason=reason,
            scored_at=self.node.clock(),
        )
        with self.node.database.write() as connection:
            now = index.find_series(connection, uid)
            if now is None or now.generation != waiting.generation:
                return  # the images have changed since the quality was assessed: the next revision is compared
            promotions.save_shadow(connection, score)
        log.info("series scored in shadow", series=uid, candidate=candidate.label, reason=reason)

    def _ask(self, waiting: Unshadowed, assessor: Assessor) -> tuple[str, Assessment | None, str | None]:
        """Return the station name, and the candidate's assessment or the reason why it is missing."""
        with self.node.database.read() as connection:
            instances = index.current_instances(connection, waiting.series_instance_uid)
            technique = assessments.load_technique(connection, waiting.series_instance_uid)
            approved = calibrations.active(connection)
        if not instances or technique is None:
            return "", None, "its images are not kept any more"
        files = SeriesFiles((), ())
        try:
            files = read_headers([self.node.spool.path(instance.path) for instance in instances])
            at = datetime.fromtimestamp(self.node.clock(), UTC)
            # a score outside the training range compares with nothing
            strict = replace(assessor, refuse=Refuse.STRICT, calibrations=approved)
            return _station(files), assess(files, technique, strict, revision=waiting.revision, assessed_at=at), None
        except NotScorable as refusal:
            return _station(files), None, str(refusal)
        except FileNotFoundError:
            return _station(files), None, "a spooled file is missing"
        except OSError as error:
            raise StorageFailed(
                f"files of series {waiting.series_instance_uid} cannot be read: {error.strerror}"
            ) from error
        except Exception as error:  # no failure on one series may block the next ones
            if isinstance(error, MediqaError) and error.retryable:
                raise
            log.warning("candidate failed", series=waiting.series_instance_uid, exc_info=True)
            return _station(files), None, fault_of(error)


def _station(files: SeriesFiles) -> str:
    return text(files.headers[0], "StationName") if files.headers else ""


def run(shadow: Shadow, stop: threading.Event) -> None:
    """Score in shadow until `stop` is set; threads that the candidate starts inherit the low priority (Linux)."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
    pause_s = 0.0
    while not stop.wait(pause_s):
        try:
            pause_s = 0.0 if shadow.score_next() else LOOK_EVERY_S
        except MediqaError as error:
            log.warning("shadow postponed", reason=str(error), hourly_for=type(error))
            pause_s = TRY_AGAIN_S
        except Exception as error:
            log.exception("shadow failed", hourly_for=type(error))
            pause_s = TRY_AGAIN_S
