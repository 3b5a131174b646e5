"""Two copies of one SOP Instance UID: the same image, a corrected header, or another image?

Never a report under the wrong patient, never a second score for the same pixels.
"""

from collections.abc import Iterable
from enum import StrEnum

from pydicom import Dataset

from mediqa_node.dicom.header import items, text
from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.part10 import read_header
from mediqa_node.domain.identity import EXACT, Identity, IdentityRules, differences, disagreements
from mediqa_node.pipeline.content import Contents
from mediqa_node.storage.index import InstanceRow
from mediqa_node.storage.spool import Spool

_DESCRIPTIONS = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber",
    "StudyInstanceUID", "StudyID", "StudyDate", "StudyDescription", "SeriesDescription",
)  # fmt: skip


class Relation(StrEnum):
    """How a further copy of an instance relates to the current one."""

    SAME = "same"
    DESCRIPTION = "description"
    CORRECTION = "correction"
    CONFLICT = "conflict"
    NAMELESS = "nameless"


def compare(
    current: InstanceRow,
    candidate: InstanceRow,
    spool: Spool,
    contents: Contents,
    rules: IdentityRules = EXACT,
) -> Relation:
    """Compare two copies of an instance by content and identity.

    Only a transfer syntax or what an archive fills in differs: SAME. Patient, study or accession differ: CORRECTION;
    only how they are described: DESCRIPTION. Pixels, geometry or the content of a document differ, or cannot be
    compared: CONFLICT. The further copy names no patient, or one that was removed: NAMELESS. A current copy whose file
    was deleted after retention is compared by what was kept of it.

    Args:
        rules: how the sender of the further copy writes identifiers. In another writing its descriptions are not used
            either, or the images of one series would name their patient in two.

    Raises:
        UndecodablePixels: a header cannot be read.
        Interrupted: the process stops, or the turn is over.
        OSError: a file cannot be opened.
    """
    other = read_header(spool.path(candidate.path))
    gone = current.purged_at is not None
    one = None if gone else read_header(spool.path(current.path))
    ours = current.identity or (identity_of(one) if one is not None else Identity())
    theirs = candidate.identity or identity_of(other)
    differing = differences(ours, theirs, rules)
    if differing and names_nobody(other):
        return Relation.NAMELESS
    if current.series_instance_uid != candidate.series_instance_uid:
        return Relation.CONFLICT
    if not _same_content(current, candidate, spool, contents):
        return Relation.CONFLICT
    if differing:
        return Relation.CORRECTION
    in_another_writing = differences(ours, theirs) != ()
    if in_another_writing or one is None or _values(one, _DESCRIPTIONS) == _values(other, _DESCRIPTIONS):
        return Relation.SAME
    return Relation.DESCRIPTION


def names_nobody(header: Dataset) -> bool:
    """Whether a header says nothing about the patient: Patient ID is empty, or Patient Identity Removed is YES."""
    return not text(header, "PatientID") or text(header, "PatientIdentityRemoved").upper() == "YES"


def identities(headers: Iterable[Dataset]) -> tuple[str, ...]:
    """Return in words what tells the patients, studies or visits of a series' images apart; () if nothing does."""
    return disagreements(map(identity_of, headers))


def _same_content(current: InstanceRow, candidate: InstanceRow, spool: Spool, contents: Contents) -> bool:
    known = current.content_digest
    if known is None and current.purged_at is None:
        known = contents.digest(spool.path(current.path))
    return known is not None and known == contents.digest(spool.path(candidate.path))


def _values(header: Dataset, keywords: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_value(header, keyword).rstrip("^=") for keyword in keywords)


def _value(header: Dataset, keyword: str) -> str:
    return "\n".join(map(str, items(header, keyword))) or text(header, keyword)
