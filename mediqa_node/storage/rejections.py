"""Which images a reject note names, and which of the notes count.

A note is kept as it came, for the images that follow it. Whether it counts is decided for each image: only for the
same patient and study, and only from the images' own source or an authority.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from mediqa_node.domain.identity import Identity
from mediqa_node.domain.series import CopyDecision, InstanceStatus
from mediqa_node.storage.copies import OPEN
from mediqa_node.storage.correction_tables import corrections
from mediqa_node.storage.database import Database
from mediqa_node.storage.index import INSTANCE, InstanceRow, instance_row
from mediqa_node.storage.tables import instances, rejected_instances

_DOCUMENTS_AT_ONCE = 100
_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """One image that a reject note names.

    Attributes:
        sop_instance_uid, study_instance_uid: of the image, as the note states them.
        code: title of the note, such as 113001.
        calling_ae_title, peer_address, identity: of the note.
    """

    sop_instance_uid: str
    note_sop_instance_uid: str
    study_instance_uid: str
    code: str
    calling_ae_title: str
    peer_address: str
    identity: Identity | None


Counts = Callable[[Rejection, InstanceRow], bool]


def unread(connection: sa.Connection, *, after: int = 0) -> list[InstanceRow]:
    """Return documents that nobody has read yet, in order of arrival: some, of those with a higher id than `after`."""
    here = (instances.c.unread, instances.c.id > after)
    query = sa.select(*INSTANCE).where(*here).order_by(instances.c.id).limit(_DOCUMENTS_AT_ONCE)
    return [instance_row(row) for row in connection.execute(query)]


def studies_with_unread(connection: sa.Connection) -> set[str]:
    """Return the studies of which a document was not read yet: it may reject their images."""
    query = sa.select(instances.c.study_instance_uid).where(instances.c.unread).distinct()
    return set(connection.execute(query).scalars())


def mark_read(connection: sa.Connection, instance_id: int) -> None:
    """Record that a document was read."""
    connection.execute(sa.update(instances).where(instances.c.id == instance_id).values(unread=False))


def save(database: Database, connection: sa.Connection, rows: Sequence[Rejection]) -> None:
    """Keep what a note names; a note that its sender has corrected under its UID replaces what it said before."""
    key = rejected_instances.primary_key.columns
    for row in rows:
        before = [column == getattr(row, column.name) for column in key]
        connection.execute(sa.delete(rejected_instances).where(*before))
        values = {name: getattr(row, name) for name in row.__dataclass_fields__}
        values["identity"] = asdict(row.identity) if row.identity is not None else None
        connection.execute(database.insert_or_ignore(rejected_instances, **values))


def apply(connection: sa.Connection, series_instance_uid: str, counts: Counts) -> set[str]:
    """Reject the current instances of a series that a note rejects which counts; return the titles of these notes.

    Copies of them that somebody had to decide on are compared again, as if they had come after the note.
    """
    titles: set[str] = set()
    for image, found in _named(connection, series_instance_uid, InstanceStatus.CURRENT, counts):
        same = instances.c.sop_instance_uid == image.sop_instance_uid
        for statuses, status in (
            ((InstanceStatus.CURRENT,), InstanceStatus.REJECTED),
            (OPEN, InstanceStatus.CANDIDATE),
        ):
            where = (same, instances.c.status.in_(statuses))
            connection.execute(sa.update(instances).where(*where).values(status=status))
        titles |= found
    return titles


def rejected(connection: sa.Connection, series_instance_uid: str, counts: Counts) -> list[tuple[InstanceRow, set[str]]]:
    """Return the rejected images of a series, and the titles of the notes that count for each."""
    return _named(connection, series_instance_uid, InstanceStatus.REJECTED, counts)


def titles_of(connection: sa.Connection, image: InstanceRow, counts: Counts) -> set[str]:
    """Return the titles of the notes that count for an image."""
    query = sa.select(rejected_instances).where(rejected_instances.c.sop_instance_uid == image.sop_instance_uid)
    notes = [_rejection(row) for row in connection.execute(query)]
    return {note.code for note in notes if counts(note, image)}


def sent_at(connection: sa.Connection, note: Rejection) -> float:
    """Return when the sender of a note last sent it; 0 where that is not known."""
    query = sa.select(sa.func.max(instances.c.received_at)).where(
        instances.c.sop_instance_uid == note.note_sop_instance_uid,
        instances.c.calling_ae_title == note.calling_ae_title,
        instances.c.peer_address == note.peer_address,
    )
    return connection.execute(query).scalar_one_or_none() or 0.0


def kept_by_persons(connection: sa.Connection, series_instance_uid: str) -> dict[int, float]:
    """Return when a person last decided for each copy, by its id in the index."""
    query = sa.select(corrections).where(
        corrections.c.series_instance_uid == series_instance_uid,
        corrections.c.action.in_((CopyDecision.KEEP_FIRST, CopyDecision.KEEP_LAST)),
    )
    rows = connection.execute(query.order_by(corrections.c.id)).all()
    return {instance_id: row.at for row in rows for instance_id in row.copies["kept"]}


def _named(
    connection: sa.Connection, series_instance_uid: str, status: InstanceStatus, counts: Counts
) -> list[tuple[InstanceRow, set[str]]]:
    """Return the images of a series in a state that notes which count name, and the titles of these."""
    here = (instances.c.series_instance_uid == series_instance_uid, instances.c.status == status)
    uids = sa.select(instances.c.sop_instance_uid).where(*here)
    notes: dict[str, list[Rejection]] = {}
    for row in connection.execute(sa.select(rejected_instances).where(rejected_instances.c.sop_instance_uid.in_(uids))):
        note = _rejection(row)
        notes.setdefault(note.sop_instance_uid, []).append(note)
    if not notes:
        return []
    images = [instance_row(row) for row in connection.execute(sa.select(*INSTANCE).where(*here))]
    found = [
        (image, {note.code for note in notes.get(image.sop_instance_uid, ()) if counts(note, image)})
        for image in images
    ]
    return [(image, codes) for image, codes in found if codes]


def series_named(connection: sa.Connection, sop_instance_uids: Sequence[str]) -> set[str]:
    """Return the series that hold these instances, current or rejected before."""
    found: set[str] = set()
    for some in (sop_instance_uids[i : i + _AT_ONCE] for i in range(0, len(sop_instance_uids), _AT_ONCE)):
        query = sa.select(instances.c.series_instance_uid).where(
            instances.c.sop_instance_uid.in_(list(some)),
            instances.c.status.in_((InstanceStatus.CURRENT, InstanceStatus.REJECTED)),
        )
        found.update(connection.execute(query.distinct()).scalars())
    return found


def _rejection(row: sa.Row[*tuple[object, ...]]) -> Rejection:
    values = dict(row._mapping)
    known = values.pop("identity")
    return Rejection(**values, identity=Identity(**known) if known is not None else None)
