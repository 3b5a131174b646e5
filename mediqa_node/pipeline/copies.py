"""Further copies of known instances: compare each with the current one, and replace what was corrected.

It has a thread of its own, since comparing may decode a whole series in another coding, and nothing else waits for it.
A corrected copy is used only once all images of its series carry the new identity, and only if its sender may correct
them; until then nothing of the series is delivered.
"""

import math
import time
from collections.abc import Callable
from errno import EAGAIN, EBUSY, EINTR, EMFILE, ENFILE, ENOMEM, ESTALE, ETIMEDOUT
from functools import reduce
from pathlib import Path

import structlog

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.part10 import read_header
from mediqa_node.domain.errors import StorageFailed, UndecodablePixels
from mediqa_node.domain.identity import differences, disagreements, merged
from mediqa_node.domain.series import CopyDecision, InstanceStatus
from mediqa_node.pipeline import policy, retraction
from mediqa_node.pipeline.content import Contents, Interrupted, content_digest
from mediqa_node.pipeline.heartbeat import goes_on
from mediqa_node.pipeline.identity import Relation, compare, names_nobody
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.sources import Sources, rules_of
from mediqa_node.storage import assessments, copies, index, outbox, rejections, retractions
from mediqa_node.storage.copies import Decision
from mediqa_node.storage.database import Connection
from mediqa_node.storage.index import InstanceRow

log = structlog.get_logger("courier")

_WRONG_PATIENT = "113038"
_PASSING = frozenset((EAGAIN, EBUSY, EINTR, EMFILE, ENFILE, ENOMEM, ESTALE, ETIMEDOUT))
"""Errors of a machine short of something, or of a share that is away; others stay."""
_TURN_S = 5.0
"""How long the copies of one series are compared before those of another have their turn, and a frame more."""


class Copies:
    """Compares the copies that wait, series by series; one decoder process serves all of them."""

    def __init__(self, node: NodeContext, stopping: Callable[[], bool] = lambda: False) -> None:
        self.node = node
        self._stopping = stopping
        self._has_settled = False
        self._until = math.inf
        self._was_cut = False

    def compare_waiting(self) -> int:
        """Compare the copies of one series after the other, each for its turn; return how many were compared."""
        with self.node.database.read() as connection:
            unsettled = [] if self._has_settled else copies.disputed_series(connection)
        for series_instance_uid in unsettled:  # the process ended between a comparison and what follows from it
            self._settle(series_instance_uid)
        self._has_settled = True
        done = 0
        with FrameReader() as reader:
            contents = Contents(reader, self._is_over)
            while waiting := self._waiting():
                self._was_cut = False
                for series_instance_uid, rows in waiting.items():
                    done += self._turn(series_instance_uid, rows, contents)
                    goes_on()
                if self._stopping() or not self._was_cut:
                    break
        return done

    def _waiting(self) -> dict[str, list[InstanceRow]]:
        by_series: dict[str, list[InstanceRow]] = {}
        with self.node.database.read() as connection:
            for candidate in copies.candidates(connection):
                by_series.setdefault(candidate.series_instance_uid, []).append(candidate)
        return by_series

    def _is_over(self) -> bool:
        return self._stopping() or time.monotonic() > self._until

    def _turn(self, series_instance_uid: str, waiting: list[InstanceRow], contents: Contents) -> int:
        fill_identities(self.node, series_instance_uid)
        self._until = time.monotonic() + _TURN_S
        done = 0
        for candidate in waiting:
            try:
                resolve(self.node, candidate, contents)
            except Interrupted:
                self._was_cut = True
                break
            except StorageFailed as error:
                log.warning("further copy not compared yet", reason=str(error), hourly_for=("not compared", str(error)))
                break
            done += 1
            if self._is_over():
                self._was_cut = True
                break
        self._settle(series_instance_uid)
        return done

    def _settle(self, series_instance_uid: str) -> None:
        with self.node.database.write() as connection:
            settle(self.node, connection, series_instance_uid)


def fill_identities(node: NodeContext, series_instance_uid: str) -> None:
    """Read whom the current images of a series name, where they were received before that was kept."""
    with node.database.read() as connection:
        unknown = copies.without_identity(connection, series_instance_uid)
    found = []
    for row in unknown:
        try:
            found.append((row.id, identity_of(read_header(node.spool.path(row.path)))))
        except (UndecodablePixels, OSError) as error:
            log.warning("identity not read", instance=row.sop_instance_uid, reason=type(error).__name__)
    if found:
        with node.database.write() as connection:
            for instance_id, identity in found:
                copies.keep_identity(connection, instance_id, identity)


def resolve(node: NodeContext, candidate: InstanceRow, contents: Contents) -> None:
    """Compare one copy with the current one, or with the rejected one, and record what it is.

    Raises:
        Interrupted: it goes on in the next turn.
        StorageFailed: a file cannot be read now, but perhaps later.
    """
    with node.database.read() as connection:
        current = copies.copy_in(connection, candidate.sop_instance_uid, InstanceStatus.CURRENT)
        known = current or _rejected(Sources(node, connection), connection, candidate.sop_instance_uid)
    relation = _relation(node, known, candidate, contents)
    now = node.clock()
    with node.database.write() as connection:
        index.lock_series(connection, candidate.series_instance_uid)
        if not copies.is_candidate(connection, candidate.id):
            return  # settled meanwhile
        if known is None:
            _of_no_current_image(node, connection, candidate, relation, now)
        elif known.status == InstanceStatus.REJECTED:
            _of_a_rejected_image(node, connection, known, candidate, relation, now)
        elif relation is Relation.DESCRIPTION:
            _redescribe(node, connection, known, candidate, now)
        else:
            copies.set_status(connection, candidate.id, _STATUS[relation])
    level = log.info if relation in (Relation.SAME, Relation.DESCRIPTION) else log.warning
    level(
        "further copies of instances",
        hourly_for=(candidate.series_instance_uid, relation),
        series=candidate.series_instance_uid,
        instance=candidate.sop_instance_uid,
        relation=relation.value,
    )


def _rejected(sources: Sources, connection: Connection, sop_instance_uid: str) -> InstanceRow | None:
    """Return the last copy of an image that a note rejects which counts, and not one that was refused after it."""
    rejected = copies.copies_in(connection, sop_instance_uid, InstanceStatus.REJECTED)
    named = [row for row in rejected if rejections.titles_of(connection, row, sources.counts)]
    return next(reversed(named or rejected), None)


_STATUS = {
    Relation.SAME: InstanceStatus.SAME,
    Relation.CORRECTION: InstanceStatus.DISPUTED,
    Relation.CONFLICT: InstanceStatus.CONFLICT,
    Relation.NAMELESS: InstanceStatus.SUPERSEDED,
}


def _relation(node: NodeContext, known: InstanceRow | None, candidate: InstanceRow, contents: Contents) -> Relation:
    """Return how a copy relates to the known one; copies that can never be compared are in conflict."""
    if known is not None and known.sha256 == candidate.sha256:
        return Relation.SAME  # the first copy was deleted after retention and sent again
    try:
        if known is None:
            nobody = names_nobody(read_header(node.spool.path(candidate.path)))
            return Relation.NAMELESS if nobody else Relation.CORRECTION
        return compare(known, candidate, node.spool, contents, rules_of(node, candidate.calling_ae_title))
    except Interrupted:
        raise
    except Exception as error:  # no header may stop the comparison of other copies
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise StorageFailed(f"a copy cannot be read: {error.strerror}") from error
        log.error("further copy not compared", instance=candidate.sop_instance_uid, reason=type(error).__name__)
        return Relation.CONFLICT


def _of_no_current_image(
    node: NodeContext, connection: Connection, candidate: InstanceRow, relation: Relation, now: float
) -> None:
    """Use a copy of an image that has none in use, unless somebody has left it out under this identity."""
    left_out = copies.was_set_aside(connection, candidate.sop_instance_uid)
    rest = copies.copies_of(connection, candidate.series_instance_uid, InstanceStatus.CURRENT)
    rules = rules_of(node, candidate.calling_ae_title)
    theirs = candidate.identity
    differing = theirs is None or any(row.identity and differences(row.identity, theirs, rules) for row in rest)
    if differing and relation is Relation.NAMELESS:
        copies.set_status(connection, candidate.id, InstanceStatus.SUPERSEDED)
    elif differing and left_out:
        copies.set_status(connection, candidate.id, InstanceStatus.DISPUTED)
    else:
        copies.apply(
            connection, _replacing(CopyDecision.SOURCE, [], [candidate]), by=candidate.calling_ae_title, at=now
        )


def _of_a_rejected_image(
    node: NodeContext,
    connection: Connection,
    rejected: InstanceRow,
    candidate: InstanceRow,
    relation: Relation,
    now: float,
) -> None:
    """A rejected image stays rejected in any form.

    Except one that was withdrawn as another patient's, in a copy that names a new one, from who may correct it.
    """
    sources = Sources(node, connection)
    withdrawn = _WRONG_PATIENT in rejections.titles_of(connection, rejected, sources.counts)
    may = sources.may_change(rejected, candidate.calling_ae_title, candidate.peer_address)
    rules = rules_of(node, candidate.calling_ae_title)
    if not (withdrawn and may and relation is Relation.CORRECTION):
        copies.set_status(connection, candidate.id, InstanceStatus.REJECTED)
    elif copies.returns(connection, candidate, rejected, rules, (InstanceStatus.SUPERSEDED,)):
        copies.set_status(connection, candidate.id, InstanceStatus.DISPUTED)
    else:
        copies.apply(
            connection, _replacing(CopyDecision.SOURCE, [], [candidate]), by=candidate.calling_ae_title, at=now
        )


def _redescribe(
    node: NodeContext, connection: Connection, current: InstanceRow, candidate: InstanceRow, now: float
) -> None:
    """Use a copy of the same patient with other descriptions if its sender may correct; else the first ones stand."""
    action = _right(node, connection, [(current, candidate)])
    others = action is CopyDecision.SOURCE and candidate.calling_ae_title != current.calling_ae_title
    if action is None or others or copies.came_before(connection, candidate):
        copies.set_status(connection, candidate.id, InstanceStatus.SAME)
    else:
        copies.apply(connection, _replacing(action, [current], [candidate]), by=candidate.calling_ae_title, at=now)


def settle(node: NodeContext, connection: Connection, series_instance_uid: str) -> None:
    """Replace the copies of a series if all its images carry one new identity, from a sender who may correct them.

    Otherwise the series is withheld while any copy names another patient, study or accession.
    """
    index.lock_series(connection, series_instance_uid)
    rows = copies.copies_of(connection, series_instance_uid, InstanceStatus.CURRENT, InstanceStatus.DISPUTED)
    disputed = {row.sop_instance_uid: row for row in rows if row.status == InstanceStatus.DISPUTED}
    if not disputed:
        return
    now = node.clock()
    current = {row.sop_instance_uid: row for row in rows if row.status == InstanceStatus.CURRENT}
    pairs = [(row, disputed[uid]) for uid, row in current.items() if uid in disputed]
    carried = [(disputed.get(uid) or row).identity for uid, row in current.items()]
    complete = None not in carried and not disagreements(one for one in carried if one is not None)
    complete = complete and len(pairs) == len(disputed)
    rules = rules_of(node, next(iter(disputed.values())).calling_ae_title)
    complete = complete and not any(copies.returns(connection, copy, row, rules) for row, copy in pairs)
    action = _right(node, connection, pairs) if complete else None
    if action is None:
        words = _differing(pairs)
        images = "1 image has a copy" if len(disputed) == 1 else f"{len(disputed)} images have copies"
        what = f"{images} with another {', '.join(words) or 'patient'}"
        copies.withhold(connection, series_instance_uid, what, at=now)
        return
    fresh = [copy for _, copy in pairs]
    kept = {row.id for row in fresh}
    aside = [row for row in rows if row.id not in kept and row.sop_instance_uid in disputed]
    named = reduce(merged, (one for one in carried if one is not None))
    retraction.retract_naming_others(node, connection, series_instance_uid, named, rules)
    copies.apply(connection, _replacing(action, aside, fresh), by=fresh[0].calling_ae_title, at=now)
    log.warning("copies corrected", series=series_instance_uid, images=len(fresh), by=action.value)


def _right(
    node: NodeContext, connection: Connection, pairs: list[tuple[InstanceRow, InstanceRow]]
) -> CopyDecision | None:
    """Return on what grounds all these copies may replace the current ones; None if a person has to decide."""
    sources = Sources(node, connection)
    if all(sources.is_authority(copy.calling_ae_title) for _, copy in pairs):
        return CopyDecision.AUTHORITY
    if any(outbox.may_have_left(connection, uid) for uid in {row.series_instance_uid for row, _ in pairs}):
        return None
    if _stands_for_another(node, connection, *pairs[0]):
        return None
    own = all(sources.may_change(row, copy.calling_ae_title, copy.peer_address) for row, copy in pairs)
    return CopyDecision.SOURCE if own else None


def _stands_for_another(node: NodeContext, connection: Connection, row: InstanceRow, copy: InstanceRow) -> bool:
    """Whether a report of another reconstruction of the same acquisition names somebody else than a corrected copy."""
    if row.purged_at is not None or row.identity == copy.identity:
        return False
    try:
        key = policy.acquisition_key([read_header(node.spool.path(row.path))])
    except (UndecodablePixels, OSError):
        return False
    scored = assessments.scored_of_acquisition(connection, key) if key is not None else None
    rules = rules_of(node, copy.calling_ae_title)
    return scored is not None and retractions.stands_for_another(connection, scored, copy.identity, rules)


def _differing(pairs: list[tuple[InstanceRow, InstanceRow]]) -> tuple[str, ...]:
    """Return in words what the copies of images differ in from the current ones."""
    words = [
        word
        for row, copy in pairs
        if row.identity is not None and copy.identity is not None
        for word in differences(row.identity, copy.identity)
    ]
    return tuple(dict.fromkeys(words))


def _replacing(action: CopyDecision, aside: list[InstanceRow], fresh: list[InstanceRow]) -> Decision:
    return Decision(action=action, kept=tuple(fresh), set_aside=tuple(aside))


def digest_for_retention(path: Path, reader: FrameReader) -> str | None:
    """Return what is kept of an instance whose file is about to be deleted; None if it cannot be read."""
    try:
        return content_digest(path, reader)
    except Exception as error:  # an unreadable file must not stay for ever
        log.warning("no digest of a file to be deleted", reason=type(error).__name__)
        return None
