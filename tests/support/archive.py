"""Storage Commitment from the other side: an archive that answers as a test wants, and a receiver of the node for it.

pynetdicom speaks for the archive and for the scanner; the node's own receiver and sweeps are real.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, build_context, build_role, evt

from mediqa_node.domain.policy import ReceiverPolicy
from mediqa_node.network.contexts import COMMITMENT_INSTANCE, STORAGE_COMMITMENT, acceptor_contexts
from mediqa_node.network.listeners import Listener, listen
from mediqa_node.network.receiver import Receiver
from mediqa_node.network.services import Services
from mediqa_node.pipeline.commitment_services import commitment_services
from support.bench import Bench
from support.scripted import ScriptedPacs

EXPLICIT = "1.2.840.10008.1.2.1"


class Archive(ScriptedPacs):
    """A PACS that takes requests for commitment.

    Attributes:
        requests: what was asked of it by N-ACTION, in order.
        action_status: what it answers to N-ACTION.
        reports: what was reported to it by N-EVENT-REPORT, with the event type and the roles that were proposed.
        report_status: what it answers to N-EVENT-REPORT.
    """

    def __init__(self, **how: Any) -> None:
        self.requests: list[Dataset] = []
        self.action_status = self.report_status = 0x0000
        self.reports: list[tuple[Dataset, int, tuple[bool, bool] | None]] = []
        super().__init__(**how)

    def _supported(self, entity: AE) -> list[Any]:
        entity.add_supported_context(STORAGE_COMMITMENT, scu_role=True, scp_role=True)
        return [(evt.EVT_N_ACTION, self._asked), (evt.EVT_N_EVENT_REPORT, self._reported)]

    def _asked(self, event: evt.Event) -> tuple[int, None]:
        if self.action_status == 0x0000:
            self.requests.append(event.action_information)
        return self.action_status, None

    def _reported(self, event: evt.Event) -> tuple[int, None]:
        if self.report_status == 0x0000:
            roles = event.assoc.requestor.role_selection
            role = next(((bool(one.scu_role), bool(one.scp_role)) for one in roles.values()), None)
            self.reports.append((event.event_information, event.event_type, role))
        return self.report_status, None

    @property
    def asked_for(self) -> list[dict[str, str]]:
        """Class by instance of each request."""
        return [
            {one.ReferencedSOPInstanceUID: one.ReferencedSOPClassUID for one in request.ReferencedSOPSequence}
            for request in self.requests
        ]

    def answers(self, port: int, *, number: int = -1, failed: Mapping[str, int] = {}, **how: Any) -> int:
        """Answer a request at the node's receiver; return the status of the N-EVENT-REPORT.

        Args:
            failed: failure reasons by instance; an empty key fails all.
        """
        request = self.requests[number]
        pairs = [(one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID) for one in request.ReferencedSOPSequence]
        reasons = {uid: failed.get(uid, failed.get("")) for _, uid in pairs}
        return report(port, request.TransactionUID, {pair: reasons[pair[1]] for pair in pairs}, **how)


def references(pairs: Mapping[tuple[str, str], int | None]) -> list[Dataset]:
    """Return items of class and instance, with a failure reason where there is one."""
    found = []
    for (sop_class, uid), reason in pairs.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        if reason is not None:
            item.FailureReason = reason
        found.append(item)
    return found


def report(
    port: int,
    transaction: str,
    results: Mapping[tuple[str, str], int | None],
    *,
    calling: str = "SCRIPTED",
    event: int | None = None,
    more: Dataset | None = None,
) -> int:
    """Send an N-EVENT-REPORT as an archive does, with the SCP role proposed; return its status.

    Args:
        event: Event Type ID; None: as the results demand.
        more: elements in place of those that follow from the results.
    """
    ds = Dataset()
    ds.TransactionUID = transaction
    if kept := {pair: reason for pair, reason in results.items() if reason is None}:
        ds.ReferencedSOPSequence = references(kept)
    if failed := {pair: reason for pair, reason in results.items() if reason is not None}:
        ds.FailedSOPSequence = references(failed)
    ds.update(more or {})
    event = event if event is not None else 2 if failed else 1
    with _associated(port, calling, [build_role(STORAGE_COMMITMENT, scp_role=True)]) as association:
        status, _ = association.send_n_event_report(ds, event, STORAGE_COMMITMENT, COMMITMENT_INSTANCE)
    return int(status.Status)


def request(
    port: int,
    transaction: str | None,
    pairs: Mapping[str, str],
    *,
    calling: str = "SCANNER",
    action: int = 1,
    instance: str = COMMITMENT_INSTANCE,
) -> int:
    """Ask the node for commitment, as a scanner does; return the status of the N-ACTION."""
    ds = Dataset()
    if transaction is not None:
        ds.TransactionUID = transaction
    if pairs:
        ds.ReferencedSOPSequence = references({(kind, uid): None for uid, kind in pairs.items()})
    with _associated(port, calling, []) as association:
        status, _ = association.send_n_action(ds, action, STORAGE_COMMITMENT, instance)
    return int(status.Status)


@contextlib.contextmanager
def _associated(port: int, calling: str, roles: list[Any]) -> Iterator[Any]:
    entity = AE(ae_title=calling)
    association = entity.associate(
        "127.0.0.1", port, [build_context(STORAGE_COMMITMENT, [EXPLICIT])], ae_title="MEDIQA", ext_neg=roles
    )
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


class _NoIntake:
    """These associations store nothing."""

    def closed(self, *_: object, **__: object) -> None:
        """Do nothing."""


@contextlib.contextmanager
def receiving(bench: Bench, services: Services | None = None) -> Iterator[int]:
    """Run the node's receiver over the database of a bench; give its port."""
    node = bench.node
    served = (
        services
        if services is not None
        else commitment_services(
            bench.database,
            node.peers,
            commit_with=node.receiver.commit_with,
            deadline_s=node.receiver.commitment_deadline_s,
            clock=node.clock,
        )
    )
    receiver = Receiver(
        ae_title="MEDIQA",
        listeners=[Listener(listen("127.0.0.1", 0))],
        policy=ReceiverPolicy(),
        contexts=acceptor_contexts([EXPLICIT], (), (syntax for syntax, _ in served)),
        intake=_NoIntake(),  # type: ignore[arg-type]
        services=served,
    )
    thread = threading.Thread(target=receiver.serve, daemon=True)
    thread.start()
    try:
        yield receiver.port
    finally:
        receiver.stop(within_s=5)
        thread.join(timeout=60)
