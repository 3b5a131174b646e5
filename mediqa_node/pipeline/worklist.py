"""The courier's sweep that keeps the worklist: it makes the entry of each series that has changed.

An entry is made from what is stored, and from the header of one image for scanner, protocol and description. Making it
twice is harmless.
"""

import time
from collections.abc import Iterable
from typing import Any

import structlog

from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.series import ARRIVED, HELD, DeliveryState, ReasonCode, SeriesState
from mediqa_node.domain.worklist import (
    Entry,
    Fact,
    Range,
    category_of,
    facts,
    looks_like,
    provisional_until,
    recorded_value,
)
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.origin import Origin, read_origin
from mediqa_node.storage import answers, findings, index, lookup, outbox, series_changes, worklist
from mediqa_node.storage.database import Connection
from mediqa_node.storage.index import SeriesRow
from mediqa_node.storage.outbox import DeliveryRow

log = structlog.get_logger("courier")

_AT_ONCE = 200
_A_ROUND_S = 0.15
"""After so long the sweeps of the same thread have their turn; a backlog, as after an upgrade, goes on next time."""
_COUNTED_EVERY_S = 1.0
_UNDER_WAY = (*HELD, DeliveryState.WAITING)


class WorklistSweep:
    """Makes the entries of changed series."""

    def __init__(self, node: NodeContext) -> None:
        self.node = node
        self._counted_at = float("-inf")

    def run(self) -> int:
        """Make the entries of noted series until there is none left or the round is over; return how many were made."""
        with self.node.database.read() as connection:
            changed = series_changes.oldest(connection, at_most=_AT_ONCE)
        count = self._make_all((one.series_instance_uid, one.notes) for one in changed)
        if time.monotonic() - self._counted_at >= _COUNTED_EVERY_S:
            self._counted_at = time.monotonic()
            count += self.count_images()
        return count

    def count_images(self) -> int:
        """Bring the number of images of series under way up to date; return how many entries were made.

        The receiver notes a series with its first image only, and `run` looks for more once a second: while images
        come in, nobody else writes more than they have to.
        """
        with self.node.database.read() as connection:
            growing = series_changes.growing(connection)
        return self._make_all((uid, ()) for uid in growing)

    def _make_all(self, work: Iterable[tuple[str, tuple[int, ...]]]) -> int:
        until, count = time.monotonic() + _A_ROUND_S, 0
        for uid, notes in work:
            self._make(uid, notes)
            count += 1
            if time.monotonic() > until:
                break
        return count

    def _make(self, uid: str, notes: tuple[int, ...]) -> None:
        """Make the entry of a series; it stays as it is where the series cannot be understood.

        One such series must not keep all others out of the list.
        """
        try:
            self._renew(uid, notes)
        except MediqaError:
            raise
        except Exception:
            log.exception("series not listed", series=uid, hourly_for=uid)
            with self.node.database.write() as connection:
                series_changes.forget(connection, notes)

    def _renew(self, uid: str, notes: tuple[int, ...]) -> None:
        with self.node.database.read() as connection:
            row = index.find_series(connection, uid)
            values = self._values(connection, row, worklist.find_by_uid(connection, uid)) if row is not None else {}
        with self.node.database.write() as connection:
            series_changes.forget(connection, notes)
            if values:
                worklist.save(connection, uid, worklist.values_of(values))

    def _values(self, connection: Connection, row: SeriesRow, known: Entry | None) -> dict[str, Any]:
        uid = row.series_instance_uid
        known_facts = findings.of_series(connection, row)
        assessment, technique = known_facts.assessment, known_facts.technique
        described = self._description(connection, row, known)
        usual = _usual_score(connection, uid, described, assessment)
        reasons = facts(assessment, technique, known_facts.stands_out, usual, row.reason)
        predicted = looks_like(assessment.primary.prediction) if assessment else None
        unit = (
            predicted[2] if predicted else {"mas": "mAs", "tesla": "T"}.get((technique and technique.label_name) or "")
        )
        answer = answers.current(connection, uid)
        return {
            **described,
            **_of_assessment(assessment),
            **_delivery(row, outbox.deliveries_of(connection, uid)),
            "study_instance_uid": row.study_instance_uid,
            "generation": row.generation,
            "revision": row.revision,
            "received_at": known.received_at
            if known
            else series_changes.first_image_at(connection, uid) or row.opened_at,
            "last_image_at": row.last_instance_at,
            "n_images": row.n_instances,
            "state": row.state,
            "category": category_of(row.state, assessment.verdict if assessment else None, is_live=_is_live(row)),
            "reason_code": str(row.reason.code) if row.reason else None,
            "modality": row.modality,
            "series_number": row.series_number,
            "sender": row.calling_ae_title,
            "provisional_until": provisional_until(
                row.completion, row.last_instance_at, self.node.completion.deliver_after_s
            ),
            "usual": usual,
            "why": reasons[0].short if reasons else "",
            "why_more": _second_line(assessment, reasons, row),
            "predicted": predicted[:2] if predicted else None,
            "recorded": recorded_value(technique),
            "unit": unit or "",
            "eligible": technique is not None and technique.eligible,
            "exclusions": " ".join(dict.fromkeys(one.code for one in technique.exclusions)) if technique else "",
            "answer": answer.kind if answer else None,
            "answered_at": answer.at if answer else None,
        }

    def _description(self, connection: Connection, row: SeriesRow, known: Entry | None) -> dict[str, str]:
        """Return what one header states; read again only when the content has changed and is complete."""
        names = ("scanner", "model", "protocol", "description", "accession_end", "laterality", "acquired")
        current = known is not None and known.generation == row.generation
        if known is not None and (current or row.state == SeriesState.RECEIVING):
            return {name: getattr(known, name) for name in names}
        files = lookup.first_files(connection, [row.series_instance_uid])
        path = files.get(row.series_instance_uid)
        origin = read_origin(self.node.spool.path(path)) if path else Origin()
        if origin == Origin() and known is not None:  # the images were deleted after retention
            return {name: getattr(known, name) for name in names}
        found = {name: getattr(origin, name) for name in names}
        return found | {"scanner": origin.scanner or row.calling_ae_title}


def _is_live(row: SeriesRow) -> bool:
    """Whether a series can still be repeated: not what was pulled, nor what was first scored long after it was made."""
    return not row.pulled and not (row.reason is not None and row.reason.code is ReasonCode.BACK_SCORED)


def _second_line(assessment: Assessment | None, reasons: tuple[Fact, ...], row: SeriesRow) -> str:
    """Return the second fact about a scored series; for any other, the detail of its reason."""
    if assessment is None:
        return row.reason.detail if row.reason else ""
    return reasons[1].short if len(reasons) > 1 else ""


def _of_assessment(assessment: Assessment | None) -> dict[str, Any]:
    if assessment is None:
        return {"score": None, "trained": True, "weights_sha256": "", "region": "", "type": "", "thresholds": None}
    prompt, calibration = assessment.primary.prompt, assessment.calibration
    return {
        "score": assessment.quality,
        "trained": assessment.checkpoint.trained,
        "weights_sha256": assessment.checkpoint.sha256,
        "region": prompt.region.value,
        "type": prompt.type.value,
        "thresholds": calibration.thresholds if calibration else None,
    }


def _usual_score(
    connection: Connection, uid: str, described: dict[str, str], assessment: Assessment | None
) -> Range | None:
    if assessment is None:
        return None
    return worklist.usual_scores(
        connection,
        scanner=described["scanner"],
        protocol=described["protocol"],
        modality=assessment.modality,
        weights_sha256=assessment.checkpoint.sha256,
        uid=uid,
    )


def _delivery(row: SeriesRow, deliveries: list[DeliveryRow]) -> dict[str, Any]:
    """Return the state of the report of the last revision: of the delivery that needs most, else the first one sent."""
    found = [one for one in deliveries if one.revision == row.revision and one.state != DeliveryState.SUPERSEDED]
    if not found:
        return {"delivery": None, "destination": "", "delivered_in_s": None}
    chosen = next((one for state in _UNDER_WAY for one in found if one.state == state), found[0])
    sent = chosen.state in ARRIVED and chosen.done_at is not None
    took_s = chosen.done_at - row.last_instance_at if sent and chosen.done_at is not None else None
    return {"delivery": chosen.state, "destination": chosen.destination, "delivered_in_s": took_s}
