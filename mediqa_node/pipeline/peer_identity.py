"""Before a report leaves: does the destination hold this study under the same patient?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.part10 import read_header
from mediqa_node.domain.errors import QueryUnanswered
from mediqa_node.domain.identity import Identity, differences, merged
from mediqa_node.domain.series import DeliveryReason, DeliveryState
from mediqa_node.network.peer_link import Link
from mediqa_node.pipeline.clock_watch import was_set_unnoticed
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import companions, health, index, outbox, retractions
from mediqa_node.storage.outbox import DeliveryRow

_STUDY_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of an attempt.

    Attributes:
        again_at: set while the delivery waits.
        was_refused: the peer has said that it did not store the report.
    """

    state: DeliveryState
    code: DeliveryReason | None = None
    message: str = ""
    status: int | None = None
    again_at: float | None = None
    was_refused: bool = False


def identity_check(
    node: NodeContext, delivery: DeliveryRow, link: Link
) -> tuple[Outcome | None, DeliveryReason | None]:
    """Compare the identity of a study with the destination's; never file a report under another patient.

    Returns:
        what keeps the report here, or None; and why the identity could not be compared, or None.

    Raises:
        QueryUnanswered: the peer offers C-FIND and fails to answer it, or does not say whose the study is.
        LookupError: the instances of the series were deleted.
    """
    ours = _our_identity(node, delivery)
    found = link.find_study(ours.study_instance_uid)
    if found is None:
        return None, DeliveryReason.IDENTITY_NOT_CHECKED
    n_agreeing, others = compare_found(node, link, ours, found)
    if others:
        return _withheld(link, others, n_agreeing), None
    if ours.patient_id and not all(theirs.patient_id for theirs in found):
        raise QueryUnanswered(f"{link.peer.name} answers queries without Patient ID (0010,0020)")
    if delivery.unanswered_since is not None:
        _note(node, delivery, None)
    if n_agreeing:
        return None, None
    if node.clock() < delivery.wait_for_study_until:
        return _waiting(node, delivery), None
    return None, DeliveryReason.STUDY_NOT_THERE


def unanswered_since(node: NodeContext, delivery: DeliveryRow) -> float:
    """Return since when the peer fails to answer C-FIND about a report: now, unless an earlier attempt noted it."""
    with node.database.write() as connection:
        health.outage_over(connection, delivery.destination, at=node.clock())
        current = outbox.find_delivery(connection, delivery.id)
    if current is None or current.unanswered_since is None:
        _note(node, delivery, now := node.clock())
        return now
    return current.unanswered_since


def compare_found(
    node: NodeContext, link: Link, ours: Identity, found: Sequence[Identity]
) -> tuple[int, list[tuple[str, ...]]]:
    """Return how many of the studies found at a destination are ours, and in what each of the others differs."""
    others: list[tuple[str, ...]] = []
    n_agreeing = 0
    for answered in found:
        theirs = replace(answered, patient_id=answered.patient_id or ours.patient_id)
        if not (differing := differences(ours, theirs, link.peer.identity)):
            n_agreeing += 1
        elif not _holds_only_ours(node, link, theirs):
            others.append(differing)
    return n_agreeing, others


def is_overdue(node: NodeContext, since: float) -> bool:
    """Whether a report has waited for the answer to C-FIND as long as the site allows."""
    return node.clock() - since >= node.delivery.identity_within_s and not was_set_unnoticed(node)


def _note(node: NodeContext, delivery: DeliveryRow, since: float | None) -> None:
    with node.database.write() as connection:
        outbox.update_delivery(connection, delivery.id, unanswered_since=since)


def _our_identity(node: NodeContext, delivery: DeliveryRow) -> Identity:
    """Return what any image of the series states: images that contradict each other were withheld before."""
    with node.database.read() as connection:
        instances = index.current_instances(connection, delivery.series_instance_uid)
    if not instances:
        raise LookupError("the instances of this series were deleted")
    return reduce(merged, (one.identity or identity_of(read_header(node.spool.path(one.path))) for one in instances))


def _holds_only_ours(node: NodeContext, link: Link, theirs: Identity) -> bool:
    """Whether a study at the peer holds nothing but what this node has sent: its own first report made that study."""
    uids = link.find_series(theirs.study_instance_uid, theirs.patient_id)
    if not uids:
        return False
    with node.database.read() as connection:
        return all(
            outbox.is_own_report(connection, uid)
            or companions.is_own(connection, uid)
            or retractions.is_own(connection, uid)
            for uid in uids
        )


def _withheld(link: Link, others: list[tuple[str, ...]], n_agreeing: int) -> Outcome:
    what = ", ".join(dict.fromkeys(word for differing in others for word in differing))
    message = f"identity: {link.peer.name} has this study with another {what}"
    if n_agreeing:
        message = f"identity: {link.peer.name} has this study twice, once as here and once with another {what}"
    return Outcome(state=DeliveryState.WITHHELD, code=DeliveryReason.OTHER_IDENTITY, message=message)


def _waiting(node: NodeContext, delivery: DeliveryRow) -> Outcome:
    return Outcome(
        state=DeliveryState.WAITING,
        code=DeliveryReason.STUDY_NOT_THERE_YET,
        message="waiting for the study at the destination",
        again_at=min(node.clock() + _STUDY_AGAIN_S, delivery.wait_for_study_until),
    )
