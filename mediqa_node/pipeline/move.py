"""The courier's part of a C-MOVE: send reports and companions, as built, to a configured peer."""

from collections.abc import Callable

import structlog

from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.query import MoveState
from mediqa_node.network.peer_link import Link
from mediqa_node.network.sender import contexts_for, open_link
from mediqa_node.pipeline.heartbeat import goes_on
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import own_objects
from mediqa_node.storage.own_objects import MoveRow

log = structlog.get_logger("courier")

_WAITED_AT_MOST_S = 3600.0
"""Behind other requests. Who asked for one that is older has gone, and the receiver died before it could say so."""


def send_due_moves(node: NodeContext, stopping: Callable[[], bool] = lambda: False) -> int:
    """Send what others have asked for; return the number of requests."""
    with node.database.read() as connection:
        if not own_objects.is_move_waiting(connection):
            return 0
    count = 0
    while not stopping():  # one at a time: who waits may give up meanwhile
        with node.database.write() as connection:
            row = own_objects.take_move(connection, since=node.clock() - _WAITED_AT_MOST_S)
        if row is None:
            break
        _send_all(node, row, stopping)
        count += 1
        goes_on()
    return count


def _send_all(node: NodeContext, row: MoveRow, stopping: Callable[[], bool]) -> None:
    progress, peer = _Progress(node, row), node.peer(row.destination)
    with node.database.read() as connection:
        classes = own_objects.classes_of(connection, row.sop_instance_uids)
    try:
        if peer is not None and classes:
            contexts, timeout_s = contexts_for(sorted(set(classes.values()))), node.delivery.timeout_s
            with open_link(peer, contexts, ae_title=node.device.ae_title, timeout_s=timeout_s) as link:
                for uid in row.sop_instance_uids:
                    if stopping() or not progress.note(uid, _sent(node, link, row, uid, classes.get(uid, ""))):
                        break
    except MediqaError as error:
        log.warning("move broken off", destination=row.destination, reason=str(error))
    progress.end()
    log.info(
        "objects moved",
        destination=row.destination,
        asked_by=row.calling_ae_title,
        sent=len(progress.completed),
        failed=len(progress.failed),
    )


class _Progress:
    """Counts sub-operations and writes them down."""

    def __init__(self, node: NodeContext, row: MoveRow) -> None:
        self._node, self._row = node, row
        self.completed: list[str] = []
        self.failed: list[str] = []
        self.warning = 0

    def note(self, uid: str, status: int | None) -> bool:
        """Note one sub-operation with its status, None: failed; return whether to go on."""
        if status is None:
            self.failed.append(uid)
        else:
            self.completed.append(uid)
            self.warning += status != 0x0000
        goes_on()
        return self._write()

    def end(self) -> None:
        """Note the end: what was not tried has failed."""
        tried = {*self.completed, *self.failed}
        self.failed += [uid for uid in self._row.sop_instance_uids if uid not in tried]
        self._write(state=MoveState.DONE)

    def _write(self, **values: object) -> bool:
        n_completed = len(self.completed) - self.warning
        with self._node.database.write() as connection:
            counts = {"completed": n_completed, "warning": self.warning, "failed": self.failed}
            return own_objects.update_move(connection, self._row.id, **counts, **values)


def _sent(node: NodeContext, link: Link, row: MoveRow, uid: str, sop_class_uid: str) -> int | None:
    """Send one object; return its status, or None if it was not stored, or does not stand any more."""
    if not link.accepts(sop_class_uid):
        return None
    with node.database.write() as connection:
        part10 = own_objects.take_out(node.database, connection, uid, row.destination, at=node.clock())
    if part10 is None:
        return None
    try:
        return link.store(part10, was_sent=True, moved_for=(row.calling_ae_title, row.message_id))
    except MediqaError as error:
        log.warning("object not moved", destination=row.destination, reason=str(error))
        return None
