"""Between the socket and the index: what 0x0000 promises to a C-STORE SCU.

The order is fixed: stream to a temporary file, check the header, make the file durable, rename
it, make the folder durable, commit its row, answer.
"""

from datetime import UTC, datetime

import structlog

from mediqa_node.dicom.part10 import file_head
from mediqa_node.dicom.scan import ScannedHeader, scan
from mediqa_node.domain.errors import InvalidInstance, StorageFailed
from mediqa_node.domain.policy import plain_address
from mediqa_node.domain.series import ReceivedInstance
from mediqa_node.domain.uid import is_uid
from mediqa_node.network.caller import Caller
from mediqa_node.network.dimse import DOES_NOT_MATCH, Command
from mediqa_node.pipeline.forward.plan import ForwardPlan
from mediqa_node.storage.ingest import Recorded
from mediqa_node.storage.spool import Incoming, Spool
from mediqa_node.storage.writer import CommitUncertain, IndexWriter

log = structlog.get_logger("receiver")

_MOVE_ORIGINATOR = 0x1030
"""Move Originator Application Entity Title (0000,1030), PS3.7 section 9.3.1.1."""


class SpoolingIntake:
    """The intake of the running node: spool and index.

    Args:
        ae_title: of this node: what was moved for it is `pulled`.
        plan: the forward rules of the site; None without any.
    """

    def __init__(self, spool: Spool, writer: IndexWriter, ae_title: str, plan: ForwardPlan | None = None) -> None:
        self.spool = spool
        self.writer = writer
        self.ae_title = ae_title
        self.plan = plan or ForwardPlan((), ())

    def begin(self, caller: Caller, command: Command, transfer_syntax_uid: str) -> Incoming:
        """Open a temporary file for the dataset that follows."""
        head = file_head(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            source_ae_title=caller.calling_ae_title,
            receiving_ae_title=caller.called_ae_title,
        )
        return self.spool.begin(head)

    def finish(self, incoming: Incoming, caller: Caller, command: Command, transfer_syntax_uid: str) -> None:
        """Keep the instance durably, or raise and keep at most a quarantine copy.

        Raises:
            InvalidInstance: the sender has to act.
            StorageFailed: the sender should try again later.
        """
        try:
            header = scan(incoming.dataset(), transfer_syntax_uid, further=self.plan.further)
            _check_against_command(command, header.sop_class_uid, header.sop_instance_uid)
            originator = command.text(_MOVE_ORIGINATOR)[:16].strip()
            forward_to = () if originator else self._destinations(header, caller, transfer_syntax_uid)
            path = self.writer.place(incoming)
        except InvalidInstance:
            self.spool.discard(incoming, keep_copy=True)
            raise
        except BaseException:
            self.spool.discard(incoming)
            raise
        instance = ReceivedInstance(
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            series_instance_uid=header.series_instance_uid,
            series_number=header.series_number,
            identity=header.identity,
            study_instance_uid=header.study_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            calling_ae_title=caller.calling_ae_title,
            called_ae_title=caller.called_ae_title,
            peer_address=plain_address(caller.address),
            association_id=caller.association_id,
            received_at=datetime.now(UTC),
            path=path,
            sha256=incoming.digest.hexdigest(),
            size_bytes=incoming.size_bytes,
            move_originator=originator or None,
            pulled=originator == self.ae_title,
            forward_to=forward_to,
        )
        try:
            outcome = self.writer.enter(instance, header.modality)
        except CommitUncertain:
            raise  # the row may exist: the file stays, and the next start enters it if it has none
        except StorageFailed:
            self.spool.remove(path)
            raise
        if outcome is Recorded.DUPLICATE:
            self.spool.remove(path)

    def _destinations(self, header: ScannedHeader, caller: Caller, transfer_syntax_uid: str) -> tuple[str, ...]:
        return self.plan.destinations(
            header,
            transfer_syntax_uid,
            calling_ae_title=caller.calling_ae_title,
            called_ae_title=caller.called_ae_title,
        )

    def discard(self, incoming: Incoming) -> None:
        """Discard a dataset that did not arrive whole."""
        self.spool.discard(incoming)

    def closed(self, caller: Caller, *, released: bool) -> None:
        """Record the end of an association: `released`, with nothing refused that is sent again."""
        self.writer.close_association(caller.association_id, released=released)


def _check_against_command(command: Command, sop_class_uid: str, sop_instance_uid: str) -> None:
    if not is_uid(command.sop_instance_uid):
        raise InvalidInstance("malformed Affected SOP Instance UID", offending=0x00001000)
    if sop_class_uid != command.sop_class_uid:
        raise InvalidInstance("SOP Class of dataset and command differ", offending=0x00080016, status=DOES_NOT_MATCH)
    if sop_instance_uid != command.sop_instance_uid:
        raise InvalidInstance("SOP Instance of dataset and command differ", offending=0x00080018, status=DOES_NOT_MATCH)
