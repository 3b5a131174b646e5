"""Read reject notes as soon as their row is committed, so that one on the association of its images stops their report.

A note counts only for images of the same patient and study, and only from the images' own source or an authority of
the site: otherwise any caller could silence any patient. A note that does not count is kept and logged.
"""

from functools import partial

import structlog

from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.part10 import read_header
from mediqa_node.dicom.reject_note import Named, rejected_by
from mediqa_node.domain.identity import Identity, differences
from mediqa_node.domain.retraction import VoidReason
from mediqa_node.domain.series import InstanceStatus, Reason, ReasonCode
from mediqa_node.pipeline import copies, retraction
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.sources import is_authority, is_source
from mediqa_node.storage import index, outbox, rejections
from mediqa_node.storage.copies import has_status
from mediqa_node.storage.database import Connection
from mediqa_node.storage.index import InstanceRow
from mediqa_node.storage.rejections import Rejection

log = structlog.get_logger("courier")

VOIDS = {
    "113001": VoidReason.REJECTED,
    "113037": VoidReason.UNSAFE,
    "113038": VoidReason.WRONG_PATIENT,
}
"""Titles of notes that take back a report. 113039, retention expired, ends exports and new reports only."""
_VISIT = {"accession number"}


def read_unread(node: NodeContext) -> int:
    """Read the documents that nobody has read yet; return how many."""
    with node.database.read() as connection:
        documents = rejections.unread(connection)
    for document in documents:
        _read(node, document)
    return len(documents)


def _read(node: NodeContext, document: InstanceRow) -> None:
    identity: Identity | None
    try:
        header = read_header(node.spool.path(document.path))
        code, named = rejected_by(header)
        identity = identity_of(header)
    except Exception as error:  # one document must not stop the reading of the others
        log.error("document not read", instance=document.sop_instance_uid, reason=type(error).__name__)
        code, named, identity = "", (), None
    rows = [_rejection(document, code, one, identity) for one in named]
    with node.database.write() as connection:
        rejections.save(node.database, connection, rows)
        rejections.mark_read(connection, document.id)
        touched = rejections.series_named(connection, [row.sop_instance_uid for row in rows])
        n_rejected = sum(reject(node, connection, uid) for uid in sorted(touched))
    if rows and touched and not n_rejected:
        log.warning(
            "reject note does not count: neither from the source of its images nor from an authority, or for another "
            "patient or study",
            instance=document.sop_instance_uid,
            calling_ae=document.calling_ae_title,
            code=code,
        )


def _rejection(document: InstanceRow, code: str, named: Named, identity: Identity | None) -> Rejection:
    return Rejection(
        sop_instance_uid=named.sop_instance_uid,
        note_sop_instance_uid=document.sop_instance_uid,
        study_instance_uid=named.study_instance_uid,
        code=code,
        calling_ae_title=document.calling_ae_title,
        peer_address=document.peer_address,
        identity=identity,
    )


def reject(node: NodeContext, connection: Connection, series_instance_uid: str) -> bool:
    """Reject the images of a series that a note rejects which counts, and have the rest assessed; return whether any.

    If none is left, the reports that stand at destinations are taken back; else a revised one replaces them.
    """
    titles = rejections.apply(connection, series_instance_uid, partial(counts, node, connection))
    if not titles:
        return False
    uid, now, code = series_instance_uid, node.clock(), min(titles)
    index.reopen(connection, uid, reason=Reason(ReasonCode.REJECT_NOTE, code), at=now)
    outbox.supersede_deliveries(connection, uid, reason=f"reject note {code}", now=now)
    reasons = [VOIDS[title] for title in sorted(titles) if title in VOIDS]
    if reasons and not has_status(connection, uid, InstanceStatus.CURRENT):
        retraction.retract(node, connection, uid, reasons[-1])
    copies.settle(node, connection, uid)
    return True


def counts(node: NodeContext, connection: Connection, note: Rejection, image: InstanceRow) -> bool:
    """Whether a note rejects an image that it names: see the top of this module."""
    if note.study_instance_uid != image.study_instance_uid:
        return False
    if note.identity and image.identity and set(differences(note.identity, image.identity)) - _VISIT:
        return False
    if is_authority(node, note.calling_ae_title):
        return True
    same = (note.calling_ae_title, note.peer_address) == (image.calling_ae_title, image.peer_address)
    return same and is_source(node, connection, note.calling_ae_title, note.peer_address)
