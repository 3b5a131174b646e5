"""Read reject notes as soon as their row is committed, so that one on the association of its images stops their report.

A note counts only for images of the same patient and study, and only from the images' own source or an authority of
the site: otherwise any caller could silence any patient. A note that does not count is kept and logged.
"""

from io import BytesIO

import pydicom
import structlog

from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.part10 import read_header
from mediqa_node.dicom.reject_note import Named, referenced, rejected_by
from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.identity import Identity, differences
from mediqa_node.domain.retraction import VoidReason
from mediqa_node.domain.series import InstanceStatus, Reason, ReasonCode
from mediqa_node.domain.uid import is_uid
from mediqa_node.pipeline import copies, retraction
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.sources import Sources
from mediqa_node.storage import index, outbox, rejections
from mediqa_node.storage.copies import copies_of, has_status
from mediqa_node.storage.database import Connection
from mediqa_node.storage.index import InstanceRow
from mediqa_node.storage.outbox import ReportRow
from mediqa_node.storage.rejections import Rejection

log = structlog.get_logger("courier")

VOIDS = {
    "113001": VoidReason.REJECTED,
    "113037": VoidReason.UNSAFE,
    "113038": VoidReason.WRONG_PATIENT,
}
"""Titles of notes that take back a report. 113039, retention expired, ends exports and new reports only."""
_OF_THIS_IMAGE_ALONE = {"113001", "113037"}
"""Titles that say nothing against another reconstruction: its patient is the right one, and its report is wanted."""
_WRONG_PATIENT = "113038"


def read_unread(node: NodeContext) -> int:
    """Read documents that nobody has read yet; return how many.

    Raises:
        StorageFailed: some cannot be read for now; those after them were.
    """
    n_read, after = 0, 0
    failed: StorageFailed | None = None
    while True:
        with node.database.read() as connection:
            documents = rejections.unread(connection, after=after)
        before = failed
        for document in documents:
            try:
                _read(node, document)
                n_read += 1
            except StorageFailed as error:
                failed, after = error, document.id
        if failed is before:
            break
    if failed is not None:
        raise failed
    return n_read


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

    If none is left, the reports that stand at destinations and cite a rejected image are taken back; else a revised one
    replaces them. A note that only ends the retention of images takes nothing back, and does not revise a report.

    Returns:
        whether any note counts for images of the series.
    """
    uid, now = series_instance_uid, node.clock()
    index.lock_series(connection, uid)
    counts = Sources(node, connection).counts
    fresh = rejections.apply(connection, uid, counts)
    known = rejections.rejected(connection, uid, counts)
    any_left = has_status(connection, uid, InstanceStatus.CURRENT)
    only_ended = not set(VOIDS) & fresh and any_left and outbox.may_have_left(connection, uid)
    if fresh and not only_ended:
        code = min(fresh)
        index.reopen(connection, uid, reason=Reason(ReasonCode.REJECT_NOTE, code), at=now)
        outbox.supersede_deliveries(connection, uid, reason=f"reject note {code}", now=now)
    if not any_left:
        take_back(node, connection, uid)
        if may_be_replaced(node, connection, uid):
            index.release_acquisition(connection, uid, at=now)
    if fresh:
        copies.settle(node, connection, uid)
    return bool(known)


def take_back(node: NodeContext, connection: Connection, series_instance_uid: str) -> None:
    """Take back the reports of a series that cite rejected images, where no further report replaces them."""
    found = rejections.rejected(connection, series_instance_uid, Sources(node, connection).counts)
    for destination, report in outbox.standing(connection, series_instance_uid).items() if found else ():
        reasons = [VOIDS[title] for title in sorted(_against(report, found)) if title in VOIDS]
        if reasons:
            retraction.retract(node, connection, series_instance_uid, reasons[-1], at_destinations={destination})


def _against(report: ReportRow, rejected: list[tuple[InstanceRow, set[str]]]) -> set[str]:
    """Return the titles of the notes that reject an image which a report cites, of the same patient and visit."""
    document = pydicom.dcmread(BytesIO(report.part10))
    cited, whose = {named.sop_instance_uid for named in referenced(document)}, identity_of(document)
    return {
        title
        for image, titles in rejected
        if image.sop_instance_uid in cited and (image.identity is None or not differences(whose, image.identity))
        for title in titles
    }


def may_be_replaced(node: NodeContext, connection: Connection, series_instance_uid: str) -> bool:
    """Whether another reconstruction of the acquisition may be scored instead, as far as reject notes are concerned.

    Not if images were withdrawn as another patient's, since they all are; and not if the retention of the images has
    ended, since their report stands.
    """
    found = rejections.rejected(connection, series_instance_uid, Sources(node, connection).counts)
    left = copies_of(connection, series_instance_uid, InstanceStatus.CURRENT)
    replaced = {row.sop_instance_uid for row in left}
    titles = [of_image for image, of_image in found if image.sop_instance_uid not in replaced]
    if any(_WRONG_PATIENT in of_image for of_image in titles):
        return False
    if left or not titles:
        return bool(left) or not has_status(connection, series_instance_uid, InstanceStatus.REJECTED)
    return all(of_image & _OF_THIS_IMAGE_ALONE for of_image in titles)
