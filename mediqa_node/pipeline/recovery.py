"""What a receiver does before it listens: bring spool and index back into step after any kind of end."""

import hashlib
import mmap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import structlog

from mediqa_node.dicom.scan import scan
from mediqa_node.domain.errors import InvalidInstance
from mediqa_node.domain.exchange import ReceivedInstance
from mediqa_node.storage.database import Connection, Database
from mediqa_node.storage.ingest import Recorded, close_abandoned_associations, record
from mediqa_node.storage.spool import Spool
from mediqa_node.storage.audit import last_received_at, paths_since

log = structlog.get_logger("receiver")


def recover(database: Database, spool: Spool, *, now: float) -> dict[str, int]:
    """Delete half-written files, adopt spooled files without a row, report rows without a file.

    Only the hours since the last committed instance are looked at, so that starting takes the
    same time with a full spool; `mediqa-node verify` looks at everything.
    """
    dropped = spool.sweep_temporary(older_than_s=-1)
    with database.write() as connection:
        close_abandoned_associations(connection, at=now)
        since = _since(connection)
        known = paths_since(connection, since)
    recent = {path for path in spool.files() if path >= since}
    adopted = sum(adopt(database, spool, path) for path in sorted(recent - known))
    missing = sorted(known - recent)
    for path in missing:
        log.error("spooled file is missing", file=path, advice="mediqa-node verify names its instance")
    if dropped or adopted or missing:
        log.warning("recovered after an unclean end", dropped=dropped, adopted=adopted, missing=len(missing))
    return {"dropped": dropped, "adopted": adopted, "missing": len(missing)}


def _since(connection: Connection) -> str:
    """Return the name of the oldest spool folder that may hold files without a row."""
    last = last_received_at(connection)
    if last is None:
        return ""
    return (datetime.fromtimestamp(last, UTC) - timedelta(hours=1)).strftime("%Y%m%d-%H")


def adopt(database: Database, spool: Spool, path: str) -> bool:
    """Enter a spooled file that has no row: it was durable, and may have been acknowledged."""
    file = spool.path(path)
    try:
        instance, modality = _describe(file, path)
    except (InvalidInstance, ValueError, OSError, AttributeError, pydicom.errors.InvalidDicomError) as error:
        log.error("spooled file is unreadable and was left alone", file=path, reason=type(error).__name__)
        return False
    with database.write() as connection:
        outcome = record(database, connection, instance, modality, spool.has)
    if outcome is Recorded.DUPLICATE:
        spool.remove(path)
    return outcome is not Recorded.DUPLICATE


def _describe(file: Path, path: str) -> tuple[ReceivedInstance, str]:
    """Read back what the receiver knew when it wrote the file."""
    meta = pydicom.filereader.read_file_meta_info(file)
    with (
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as content,
        content[132 + 12 + int(meta.FileMetaInformationGroupLength) :] as dataset,
    ):
        header = scan(dataset, meta.TransferSyntaxUID)
        digest, size_bytes = hashlib.sha256(dataset).hexdigest(), len(dataset)
    sender = str(meta.get("SourceApplicationEntityTitle", "") or "")
    instance = ReceivedInstance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        series_instance_uid=header.series_instance_uid,
        study_instance_uid=header.study_instance_uid,
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        calling_ae_title=sender,
        called_ae_title="",
        peer_address="",
        association_id="recovered",
        received_at=datetime.fromtimestamp(file.stat().st_mtime, UTC),
        path=path,
        sha256=digest,
        size_bytes=size_bytes,
    )
    return instance, header.modality
