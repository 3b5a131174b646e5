"""What the receiver serves of Storage Commitment: answers of archives to us, and requests of callers.

Both are committed to the database before they are acknowledged; the courier does the rest. Only configured peers are
heard, each under its own AE title.
"""

from collections.abc import Callable, Mapping, Sequence

import structlog
from pydicom import Dataset

from mediqa_node.dicom.values import has_value, integer, items, text
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.uid import is_uid
from mediqa_node.network import dimse
from mediqa_node.network.contexts import COMMITMENT_INSTANCE, STORAGE_COMMITMENT
from mediqa_node.network.services import Answer, Service, ServiceRefused, ServiceRequest, Services
from mediqa_node.storage import commitment_requests, commitments
from mediqa_node.storage.commitment_requests import Kept
from mediqa_node.storage.commitments import COMMITTED, Pair
from mediqa_node.storage.database import Database

log = structlog.get_logger("receiver")

_ACTION_TYPE, _EVENT_TYPE = 0x1008, 0x1002
_ALL_KEPT, _SOME_FAILED = 1, 2
"""Event Type ID (0000,1002), PS3.4 table J.3-4."""
_OPEN_AT_MOST = 1000
_INSTANCES_AT_MOST = 100_000
"""Requests of one caller that are not decided yet, and instances of them."""


def commitment_services(
    database: Database,
    peers: Sequence[Peer],
    *,
    commit_with: str | None,
    deadline_s: float,
    clock: Callable[[], float],
) -> Services:
    """Return the services, as far as the configuration wants any.

    Args:
        commit_with: name of the archive that has to commit before we do; None: no request of callers is served.
        deadline_s: how long that archive may take.
    """
    served: dict[tuple[str, int], Service] = {}
    if commit_with is not None:
        served[STORAGE_COMMITMENT, dimse.N_ACTION_RQ] = _Requested(database, peers, commit_with, deadline_s, clock)
    if commit_with is not None or any(peer.commitment for peer in peers):
        served[STORAGE_COMMITMENT, dimse.N_EVENT_REPORT_RQ] = _Answered(database, peers, clock)
    return served


class _Requested:
    """N-ACTION: a caller wants this node to commit (PS3.4 section J.3.2)."""

    def __init__(
        self,
        database: Database,
        peers: Sequence[Peer],
        archive: str,
        deadline_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._callers = {peer.ae_title for peer in peers}
        self._archive = archive
        self._deadline_s = deadline_s
        self._clock = clock

    def __call__(self, request: ServiceRequest) -> list[Answer]:
        caller = request.caller.calling_ae_title
        if caller not in self._callers:  # its answer would have nowhere to go
            raise ServiceRefused(dimse.NOT_AUTHORIZED, "this AE title is no configured peer of the node")
        _check_instance(request)
        action = request.command.number(_ACTION_TYPE)
        if action != 1:
            raise ServiceRefused(dimse.NO_SUCH_ACTION, f"no action type {action}")
        with request.dataset() as ds:
            transaction_uid, pairs = _transaction_of(ds), _pairs(ds)
        now = self._clock()
        with self._database.write() as connection:
            n_requests, n_instances = commitment_requests.n_open(connection, caller)
            if n_requests >= _OPEN_AT_MOST or n_instances + len(pairs) > _INSTANCES_AT_MOST:
                raise ServiceRefused(dimse.RESOURCE_LIMITATION, "too many requests of this AE title are open")
            kept = commitment_requests.keep(
                self._database,
                connection,
                calling_ae_title=caller,
                transaction_uid=transaction_uid,
                peer=self._archive,
                pairs=pairs,
                at=now,
                deadline_at=now + self._deadline_s,
            )
        if kept is Kept.DUPLICATE:
            raise ServiceRefused(dimse.DUPLICATE_TRANSACTION, "this Transaction UID was used for other instances")
        log.info("commitment requested", calling_ae=caller, instances=len(pairs), repeated=kept is Kept.AGAIN)
        return [Answer(more={_ACTION_TYPE: dimse.number_value(action)})]


class _Answered:
    """N-EVENT-REPORT: an archive answers our request (PS3.4 section J.3.3)."""

    def __init__(self, database: Database, peers: Sequence[Peer], clock: Callable[[], float]) -> None:
        self._database = database
        self._peers = peers
        self._clock = clock

    def __call__(self, request: ServiceRequest) -> list[Answer]:
        names = [peer.name for peer in self._peers if peer.ae_title == request.caller.calling_ae_title]
        if not names:
            raise ServiceRefused(dimse.NOT_AUTHORIZED, "this AE title is no configured peer of the node")
        _check_instance(request)
        event = request.command.number(_EVENT_TYPE)
        if event not in (_ALL_KEPT, _SOME_FAILED):
            raise ServiceRefused(dimse.NO_SUCH_EVENT_TYPE, f"no event type {event}")
        with request.dataset() as ds:
            transaction_uid, results = _transaction_of(ds), _results(ds, event)
        with self._database.write() as connection:
            known = commitments.take_answer(connection, transaction_uid, names, results, at=self._clock())
        if not known:
            raise ServiceRefused(dimse.INVALID_ARGUMENT, "no such transaction was begun with this AE title")
        return [Answer(more={_EVENT_TYPE: dimse.number_value(event)})]


def _check_instance(request: ServiceRequest) -> None:
    if request.command.sop_instance_uid != COMMITMENT_INSTANCE:
        raise ServiceRefused(dimse.NO_SUCH_INSTANCE, "not the well-known instance of Storage Commitment")


def _transaction_of(ds: Dataset) -> str:
    transaction_uid = text(ds, "TransactionUID")
    if not transaction_uid:
        raise ServiceRefused(dimse.MISSING_ATTRIBUTE, "no Transaction UID (0008,1195)", offending=0x00081195)
    if not is_uid(transaction_uid):
        raise ServiceRefused(dimse.INVALID_ARGUMENT, "malformed Transaction UID (0008,1195)", offending=0x00081195)
    return transaction_uid


def _pairs(ds: Dataset) -> dict[str, str]:
    """Return the SOP Class UIDs by SOP Instance UID of a request."""
    found: dict[str, str] = {}
    for (sop_class, uid), _ in _listed(ds, "ReferencedSOPSequence", 0x00081199):
        if found.setdefault(uid, sop_class) != sop_class:
            raise ServiceRefused(dimse.INVALID_ARGUMENT, "one instance with two classes", offending=0x00081199)
    if not found:
        raise ServiceRefused(dimse.MISSING_ATTRIBUTE, "no Referenced SOP Sequence (0008,1199)", offending=0x00081199)
    return found


def _results(ds: Dataset, event: int) -> Mapping[Pair, int]:
    """Return the results of an answer; what is named as both kept and failed has failed.

    Raises:
        ServiceRefused: the event type and what failed contradict each other, or an item is not readable: no part of
            such an answer can be believed.
    """
    found = dict.fromkeys((pair for pair, _ in _listed(ds, "ReferencedSOPSequence", 0x00081199)), COMMITTED)
    failed = _listed(ds, "FailedSOPSequence", 0x00081198)
    if bool(failed) is not (event == _SOME_FAILED):
        raise ServiceRefused(
            dimse.INVALID_ARGUMENT, f"event type {event}, and {len(failed)} instances failed", offending=0x00081198
        )
    for pair, one in failed:
        reason = integer(one, "FailureReason")
        known = reason is not None and 0 < reason <= 0xFFFF
        found[pair] = reason if reason and known else dimse.PROCESSING_FAILURE
    return found


def _listed(ds: Dataset, keyword: str, tag: int) -> list[tuple[Pair, Dataset]]:
    """Return the instances of a sequence with their items; none without it."""
    found = items(ds, keyword)
    if not found and has_value(ds, keyword):
        raise ServiceRefused(dimse.INVALID_ARGUMENT, f"{keyword} is no sequence", offending=tag)
    pairs = [(text(one, "ReferencedSOPClassUID"), text(one, "ReferencedSOPInstanceUID")) for one in found]
    if not all(is_uid(sop_class) and is_uid(uid) for sop_class, uid in pairs):
        raise ServiceRefused(dimse.INVALID_ARGUMENT, f"malformed UID in {keyword}", offending=tag)
    return list(zip(pairs, found, strict=True))
