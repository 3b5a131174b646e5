"""The invariant, checked from outside: what senders were told, what lies in the spool, what the PACS holds.

Imports nothing of the node. Every difference is a sentence; no sentence means that the promise was kept.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pydicom
from pydicom import Dataset

from support.orthanc import dataset_digest, evidence_instances, evidence_series, predecessors


class Sent:
    """What was sent, and what its senders were told."""

    def __init__(self) -> None:
        self.attempted: dict[str, str] = {}
        self.acknowledged: dict[str, str] = {}
        self.digests: dict[str, str] = {}

    def note(self, paths: Sequence[Path], statuses: Mapping[Path, int]) -> None:
        """Note one transmission: every file that was tried, and the status that its sender saw."""
        for path in paths:
            ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID", "SeriesInstanceUID"])
            uid, series = str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID)
            self.attempted[uid] = series
            self.digests[uid] = dataset_digest(path.read_bytes())
            if statuses.get(path) == 0x0000:
                self.acknowledged[uid] = series

    @property
    def series(self) -> set[str]:
        """Series of which all instances were acknowledged, so that a report is due."""
        missing = {series for uid, series in self.attempted.items() if uid not in self.acknowledged}
        return set(self.attempted.values()) - missing


def spooled(spool: Path) -> dict[str, list[str]]:
    """Return the digest of every spooled dataset, by SOP Instance UID of its file meta."""
    found: dict[str, list[str]] = {}
    for path in spool.rglob("*.dcm"):
        if path.parent.name == "quarantine":
            continue
        content = path.read_bytes()
        uid = str(pydicom.filereader.read_file_meta_info(path).MediaStorageSOPInstanceUID)
        found.setdefault(uid, []).append(dataset_digest(content))
    return found


def differences(sent: Sent, spool: Path, reports: Sequence[Dataset]) -> list[str]:
    """Return every broken promise as a sentence."""
    return [
        *_lost(sent, spooled(spool)),
        *_wrong_number_of_reports(sent, reports),
        *_never_sent(sent, reports),
        *(f"temporary file left: {path.name}" for path in (spool / "tmp").iterdir()),
    ]


def _lost(sent: Sent, kept: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for uid in sent.acknowledged:
        if uid not in kept:
            yield f"{uid} was acknowledged and is not in the spool"
        elif sent.digests[uid] not in kept[uid]:
            yield f"{uid} was acknowledged and its spooled copy differs"
    for uid, digests in kept.items():
        if uid in sent.attempted and (len(digests) > 1 or digests[0] != sent.digests[uid]):
            yield f"{uid} lies in the spool {len(digests)} times, or not as it was sent"


def _wrong_number_of_reports(sent: Sent, reports: Sequence[Dataset]) -> Iterator[str]:
    replaced = {uid for report in reports for uid in predecessors(report)}
    current = [report for report in reports if str(report.SOPInstanceUID) not in replaced]
    for series in sorted(sent.series):
        about = [report for report in current if series in evidence_series(report)]
        if len(about) != 1:
            yield f"series {series} has {len(about)} current reports"
        elif (missing := {uid for uid, s in sent.attempted.items() if s == series} - evidence_instances(about[0])) and (
            missing
        ):
            yield f"series {series}: its report leaves out {len(missing)} instances"


def _never_sent(sent: Sent, reports: Sequence[Dataset]) -> Iterator[str]:
    for report in reports:
        unknown = evidence_instances(report) - set(sent.attempted)
        if unknown:
            yield f"report {report.SOPInstanceUID} names {len(unknown)} instances that nobody sent"


def same_bytes(one: Sequence[bytes]) -> bool:
    """Whether all of these are the same bytes."""
    return len({hashlib.sha256(content).hexdigest() for content in one}) <= 1
