"""Read reject notes as soon as their row is committed, so that one on the association of its images stops their report.

A note counts only for images of the same patient and study, and only from the images' own source or an authority of
the site: otherwise any caller could silence any patient. A note that does not count is kept and logged.
"""

import structlog

from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.part10 import read_header
from mediqa_node.dicom.reject_note import Named, rejected_by
from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.retraction import VoidReason
from mediqa_node.domain.series import InstanceStatus, Reason, ReasonCode
from mediqa_node.domain.uid import is_uid
from mediqa_node.pipeline import copies, retraction
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.sources import Sources
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


def read_unread(node: NodeContext) -> int:
    """Read the documents that nobody has read yet; return how many."""
    with node.database.read() as connection:
        documents = rejections.unread(connection)
    for document in documents:
        _read(node, document)
    return len(documents)


def _read(node: NodeContext, document: InstanceRow) -> None:
    try:
        header = read_header(node.spool.path(document.path))
        code, named = rejected_by(header)
        rows = [_rejection(document, code, one, identity_of(header)) for one in named if _is_named(one)]
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            raise StorageFailed(f"a document cannot be read: {error.strerror}") from error
        code, rows = "", []
        log.error("document not read: its file is missing", instance=document.sop_instance_uid)
    except Exception as error:  # one document must not stop the reading of the others
        code, rows = "", []
        log.error("document not read", instance=document.sop_instance_uid, reason=type(error).__name__)
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


def _is_named(named: Named) -> bool:
    return is_uid(named.sop_instance_uid) and is_uid(named.study_instance_uid)


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
    """Reject the images of a series that a note rejects which counts, and have the rest assessed.

    If none is left, the reports that stand at destinations are taken back; else a revised one replaces them. A note
    that only ends the retention of images takes nothing back, and does not revise a report.

    Returns:
        whether any note counts for images of the series.
    """
    uid, now = series_instance_uid, node.clock()
    index.lock_series(connection, uid)
    counts = Sources(node, connection).counts
    fresh = rejections.apply(connection, uid, counts)
    known = rejections.titles(connection, uid, counts)
    any_left = has_status(connection, uid, InstanceStatus.CURRENT)
    only_ended = not set(VOIDS) & fresh and any_left and outbox.may_have_left(connection, uid)
    if fresh and not only_ended:
        code = min(fresh)
        index.reopen(connection, uid, reason=Reason(ReasonCode.REJECT_NOTE, code), at=now)
        outbox.supersede_deliveries(connection, uid, reason=f"reject note {code}", now=now)
    if not any_left:
        take_back(node, connection, uid)
    if fresh:
        copies.settle(node, connection, uid)
    return bool(known)


def take_back(node: NodeContext, connection: Connection, series_instance_uid: str) -> None:
    """Take back the reports of a series with rejected images that no further report replaces."""
    if not outbox.may_have_left(connection, series_instance_uid):
        return
    titles = rejections.titles(connection, series_instance_uid, Sources(node, connection).counts)
    reasons = [VOIDS[title] for title in sorted(titles) if title in VOIDS]
    if reasons:
        retraction.retract(node, connection, series_instance_uid, reasons[-1])
