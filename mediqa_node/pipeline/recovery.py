"""Recovery before a receiver listens: reconcile spool and index, however the last run ended.

Each receiver recovers what is its own. The courier takes over what a receiver of another host has left behind that
does not come back (`pipeline.take_over`).
"""

import os
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import structlog

from mediqa_node.dicom.part10 import read_head
from mediqa_node.dicom.scan import scan
from mediqa_node.domain.errors import InvalidInstance
from mediqa_node.domain.series import ReceivedInstance
from mediqa_node.pipeline.forward.plan import ForwardPlan
from mediqa_node.storage.audit import last_received_at, path_is_known, paths_since
from mediqa_node.storage.database import Connection, Database
from mediqa_node.storage.ingest import Recorded, close_abandoned_associations, close_association, record
from mediqa_node.storage.spool import Spool, SpooledDataset, owner_of

log = structlog.get_logger("receiver")

_NAMED_AT_MOST = 20
_HEAD_AT_MOST = 4096
_PIECE_BYTES = 1024**2
_ASSOCIATION = "recovered"


def recover(
    database: Database,
    spool: Spool,
    *,
    now: float,
    plan: ForwardPlan | None = None,
    owner: str | None = None,
    alive_at: float | None = None,
) -> dict[str, int]:
    """Delete half-written files, adopt spooled files without a row, log rows without a file.

    Only the hours since the last committed instance are scanned, so that a full spool does not slow
    the start; `mediqa-node verify` checks everything.

    Args:
        owner: id of the host whose receiver has ended; None: of a node on one host.
        alive_at: when that receiver still ran, if that is known and others have received since.
    """
    dropped = spool.drop_temporary(owner)
    with database.write() as connection:
        close_abandoned_associations(connection, owner, at=now)
        since = _since(connection, alive_at)
        known = paths_since(connection, since)
    recent = {path for path in spool.files(since) if owner_of(path) == owner}
    adopted = sum(adopt(database, spool, path, plan) for path in sorted(recent - known))
    missing = sorted(path for path in known - recent if owner_of(path) == owner)
    for path in missing[:_NAMED_AT_MOST]:
        log.error("spooled file is missing", file=path, advice="mediqa-node verify names its instance")
    if dropped or adopted or missing:
        log.warning("recovered after an unclean end", dropped=dropped, adopted=adopted, missing=len(missing))
    return {"dropped": dropped, "adopted": adopted, "missing": len(missing)}


def _since(connection: Connection, alive_at: float | None) -> str:
    """Return the name of the oldest spool folder that may hold files without a row."""
    last = last_received_at(connection)
    if last is None:
        return ""
    last = last if alive_at is None else min(last, alive_at)
    return (datetime.fromtimestamp(last, UTC) - timedelta(hours=1)).strftime("%Y%m%d-%H")


def adopt(database: Database, spool: Spool, path: str, plan: ForwardPlan | None = None) -> bool:
    """Enter a spooled file that has no row: it was durable, and may have been acknowledged."""
    file = spool.path(path)
    try:
        instance, modality = _describe(file, path, plan or ForwardPlan((), ()))
    except (InvalidInstance, ValueError, OSError, struct.error) as error:
        log.error("spooled file is unreadable and was left alone", file=path, reason=type(error).__name__)
        return False
    if owner_of(path) == spool.owner:
        spool.sync_folders([path])  # the receiver may have died between rename and sync
    else:
        instance = replace(instance, path=spool.claim(path))
    with database.write() as connection:
        outcome = record(database, connection, instance, modality, spool.has)
        close_association(connection, _ASSOCIATION, released=False, at=instance.received_at.timestamp())
        is_entered = path_is_known(connection, path)  # its receiver has come back, and was faster
    needless = {path, instance.path} if outcome is Recorded.DUPLICATE else {path} - {instance.path}
    for name in needless - ({path} if is_entered else set()):
        spool.remove(name)
    return outcome is not Recorded.DUPLICATE


def _describe(file: Path, path: str, plan: ForwardPlan) -> tuple[ReceivedInstance, str]:
    """Recover from the file what the receiver knew when it wrote it."""
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)  # never follow a planted link
    try:
        facts = os.fstat(fd)
        head = read_head(memoryview(os.pread(fd, _HEAD_AT_MOST, 0)))
        dataset = SpooledDataset(fd, head.size_bytes, facts.st_size - head.size_bytes)
        header = scan(dataset, head.transfer_syntax_uid, further=plan.further)
        digest = sha256()
        for position in range(0, len(dataset), _PIECE_BYTES):
            digest.update(dataset[position : position + _PIECE_BYTES])
    finally:
        os.close(fd)
    instance = ReceivedInstance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        series_instance_uid=header.series_instance_uid,
        series_number=header.series_number,
        identity=header.identity,
        study_instance_uid=header.study_instance_uid,
        transfer_syntax_uid=head.transfer_syntax_uid,
        calling_ae_title=head.source_ae_title,
        called_ae_title=head.receiving_ae_title,
        peer_address="",
        association_id=_ASSOCIATION,
        received_at=datetime.fromtimestamp(facts.st_mtime, UTC),
        path=path,
        sha256=digest.hexdigest(),
        size_bytes=len(dataset),
        forward_to=plan.destinations(
            header,
            head.transfer_syntax_uid,
            calling_ae_title=head.source_ae_title,
            called_ae_title=head.receiving_ae_title,
        ),
    )
    return instance, header.modality
