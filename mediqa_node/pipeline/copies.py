"""Further copies of known instances: compare each with the current one, and replace what was corrected.

It has a thread of its own, since comparing may decode a whole series in another coding, and nothing else waits for it.
A corrected copy is used only once all images of its series carry the new identity, and only if its sender may correct
them; until then nothing of the series is delivered.
"""

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from mediqa_node.decode.reader import FrameReader
from mediqa_node.domain.identity import differences, disagreements
from mediqa_node.domain.series import CopyDecision, InstanceStatus
from mediqa_node.pipeline import retraction
from mediqa_node.pipeline.identity import Relation, compare, content_digest
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.sources import is_authority, is_source
from mediqa_node.storage import copies, outbox, rejections
from mediqa_node.storage.copies import Decision
from mediqa_node.storage.database import Connection
from mediqa_node.storage.index import InstanceRow

log = structlog.get_logger("courier")

_TURN_S = 5.0
"""How long the copies of one series are compared before those of another have their turn."""
_WRONG_PATIENT = "113038"


class Copies:
    """Compares the copies that wait, series by series; one decoder process serves all of them."""

    def __init__(self, node: NodeContext, stopping: Callable[[], bool] = lambda: False) -> None:
        self.node = node
        self._stopping = stopping

    def compare_all(self) -> None:
        """Compare until nothing waits."""
        while not self._stopping() and self.compare_waiting():
            pass

    def compare_waiting(self) -> int:
        """Compare the copies of one series after the other, each for its turn; return how many were compared."""
        with self.node.database.read() as connection:
            waiting = copies.candidates(connection)
        if not waiting:
            return 0
        by_series: dict[str, list[InstanceRow]] = {}
        for candidate in waiting:
            by_series.setdefault(candidate.series_instance_uid, []).append(candidate)
        with FrameReader() as reader:
            return sum(self._turn(rows, reader) for rows in by_series.values())

    def _turn(self, waiting: list[InstanceRow], reader: FrameReader) -> int:
        until = time.monotonic() + _TURN_S
        done = 0
        for candidate in waiting:
            if self._stopping() or time.monotonic() > until:
                break
            resolve(self.node, candidate, reader)
            done += 1
        return done


def resolve(node: NodeContext, candidate: InstanceRow, reader: FrameReader) -> None:
    """Compare one copy, record what it is, and settle its series if that completes a correction."""
    with node.database.read() as connection:
        current = copies.copy_in(connection, candidate.sop_instance_uid, InstanceStatus.CURRENT)
        known = current or copies.copy_in(connection, candidate.sop_instance_uid, InstanceStatus.REJECTED)
    relation = _relation(node, known, candidate, reader)
    now = node.clock()
    with node.database.write() as connection:
        if not copies.is_candidate(connection, candidate.id):
            return  # settled meanwhile
        if known is None:
            copies.apply(connection, _replacing(CopyDecision.SOURCE, [], [candidate]), by=_by(candidate), at=now)
        elif known.status == InstanceStatus.REJECTED:
            _of_a_rejected_image(connection, known, candidate, relation, now)
        elif relation is Relation.DESCRIPTION:
            _redescribe(node, connection, known, candidate, now)
        else:
            copies.set_status(connection, candidate.id, _STATUS[relation])
            settle(node, connection, candidate.series_instance_uid)
    level = log.info if relation in (Relation.SAME, Relation.DESCRIPTION) else log.warning
    level("further copy of an instance", instance=candidate.sop_instance_uid, relation=relation.value)


_STATUS = {
    Relation.SAME: InstanceStatus.SAME,
    Relation.CORRECTION: InstanceStatus.DISPUTED,
    Relation.CONFLICT: InstanceStatus.CONFLICT,
}


def _relation(node: NodeContext, known: InstanceRow | None, candidate: InstanceRow, reader: FrameReader) -> Relation:
    """Return how a copy relates to the known one; copies that cannot be compared are in conflict."""
    if known is None:
        return Relation.CORRECTION
    if known.sha256 == candidate.sha256:
        return Relation.SAME  # the first copy was deleted after retention and sent again
    try:
        return compare(known, candidate, node.spool, reader)
    except Exception as error:  # no header may stop the comparison of other copies
        log.error("further copy not compared", instance=candidate.sop_instance_uid, reason=type(error).__name__)
        return Relation.CONFLICT


def _of_a_rejected_image(
    connection: Connection, rejected: InstanceRow, candidate: InstanceRow, relation: Relation, now: float
) -> None:
    """A rejected image stays rejected in any form, unless it was withdrawn as another patient's and names a new one."""
    moved = relation is Relation.CORRECTION and _WRONG_PATIENT in rejections.codes_of(
        connection, candidate.sop_instance_uid
    )
    if moved:
        copies.apply(connection, _replacing(CopyDecision.SOURCE, [], [candidate]), by=_by(candidate), at=now)
    else:
        status = InstanceStatus.CONFLICT if relation is Relation.CONFLICT else InstanceStatus.REJECTED
        copies.set_status(connection, candidate.id, status)


def _redescribe(
    node: NodeContext, connection: Connection, current: InstanceRow, candidate: InstanceRow, now: float
) -> None:
    """Use a copy of the same patient with other descriptions if its sender may correct; else the first ones stand."""
    if (action := _right(node, connection, [(current, candidate)])) is None:
        copies.set_status(connection, candidate.id, InstanceStatus.SAME)
    else:
        copies.apply(connection, _replacing(action, [current], [candidate]), by=_by(candidate), at=now)


def settle(node: NodeContext, connection: Connection, series_instance_uid: str) -> None:
    """Replace the copies of a series if all its images carry one new identity, from a sender who may correct them.

    Otherwise the series is withheld while any copy names another patient, study or accession.
    """
    rows = copies.copies_of(connection, series_instance_uid, InstanceStatus.CURRENT, InstanceStatus.DISPUTED)
    disputed = {row.sop_instance_uid: row for row in rows if row.status == InstanceStatus.DISPUTED}
    if not disputed:
        return
    now = node.clock()
    current = {row.sop_instance_uid: row for row in rows if row.status == InstanceStatus.CURRENT}
    pairs = [(row, disputed[uid]) for uid, row in current.items() if uid in disputed]
    carried = [(disputed.get(uid) or row).identity for uid, row in current.items()]
    complete = None not in carried and not disagreements(one for one in carried if one is not None)
    action = _right(node, connection, pairs) if complete and len(pairs) == len(disputed) else None
    if action is None:
        copies.withhold(connection, series_instance_uid, _differing(pairs), at=now)
        return
    fresh = [copy for _, copy in pairs]
    aside = [row for row in rows if row not in fresh and row.sop_instance_uid in disputed]
    retraction.retract(node, connection, series_instance_uid, retraction.WRONG_PATIENT)
    copies.apply(connection, _replacing(action, aside, fresh), by=_by(fresh[0]), at=now)
    log.warning("copies corrected", series=series_instance_uid, images=len(fresh), by=action.value)


def _right(
    node: NodeContext, connection: Connection, pairs: list[tuple[InstanceRow, InstanceRow]]
) -> CopyDecision | None:
    """Return on what grounds all these copies may replace the current ones; None if a person has to decide."""
    if any(copies.returns(connection, copy) for _, copy in pairs):
        return None
    if all(is_authority(node, copy.calling_ae_title) for _, copy in pairs):
        return CopyDecision.AUTHORITY
    for uid in {row.series_instance_uid for row, _ in pairs}:
        if outbox.may_have_left(connection, uid):
            return None
    own = all(
        is_authority(node, copy.calling_ae_title)
        or (
            (row.calling_ae_title, row.peer_address) == (copy.calling_ae_title, copy.peer_address)
            and is_source(node, connection, copy.calling_ae_title, copy.peer_address)
        )
        for row, copy in pairs
    )
    return CopyDecision.SOURCE if own else None


def _differing(pairs: list[tuple[InstanceRow, InstanceRow]]) -> str:
    """Return in words how many images have a copy with another identity, and in what they differ."""
    words = [
        word
        for row, copy in pairs
        if row.identity is not None and copy.identity is not None
        for word in differences(row.identity, copy.identity)
    ]
    what = ", ".join(dict.fromkeys(words)) or "identity"
    n = len(pairs)
    return f"{n} {'image has a copy' if n == 1 else 'images have copies'} with another {what}"


def _replacing(action: CopyDecision, aside: list[InstanceRow], fresh: list[InstanceRow]) -> Decision:
    return Decision(action=action, kept=tuple(fresh), set_aside=tuple(aside))


def _by(copy: InstanceRow) -> str:
    return copy.calling_ae_title


def digest_for_retention(path: Path, reader: FrameReader) -> str | None:
    """Return what is kept of an instance whose file is about to be deleted; None if it cannot be read."""
    try:
        return content_digest(path, reader)
    except Exception as error:  # an unreadable file must not stay for ever
        log.warning("no digest of a file to be deleted", reason=type(error).__name__)
        return None
