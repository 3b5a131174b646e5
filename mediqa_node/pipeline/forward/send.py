"""Send the forwards of one destination, over one association that stays open while there is work.

A peer that is not reachable delays its own destination only; an instance that it refuses for now, or at which it breaks
off, delays only what follows it in its series; what it refuses for good is parked, and the next one is sent.
"""

import contextlib
import errno
import hashlib
import os
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import structlog

from mediqa_node.dicom.part10 import read_head
from mediqa_node.domain.errors import InvalidInstance, MediqaError, PeerRefused, PeerUnavailable, UndecodablePixels
from mediqa_node.domain.forward import ForwardReason, ForwardState, Priority
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.series import DeliveryReason
from mediqa_node.network.associate_pdu import MAX_CONTEXTS
from mediqa_node.network.dimse import DUPLICATE_INSTANCE
from mediqa_node.network.statuses import STORED
from mediqa_node.network.store_link import Pair, StoredFile, StoreLink, connect_to_store
from mediqa_node.pipeline.forward.context import ForwardContext
from mediqa_node.pipeline.forward.decompress import EXPLICIT_LITTLE, LOSSLESS, decompressed
from mediqa_node.storage import forwards, health, peer_contexts
from mediqa_node.storage.forwards import ForwardRow
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("forwarder")

BATCH = 32
COMMIT_EVERY_S = 0.25
LOOK_EVERY_S = 0.3
"""Pause between two looks for work, unless there is a whole batch of it. What was sent meanwhile is one commit: each
takes the lock of the database, which the receiver waits for while a scanner waits for it."""
_RELEASE_AFTER_S = 5.0
_AFTER_A_FAULT_S = 5.0
_AT_MOST_S = 60.0
"""Images wait at most so long after the archive is back; a report may take longer."""
_NO_CLASS = 0x0122
_HEAD_BYTES = 4096
_PIECE_BYTES = 1024**2
_BREAKS_IN_A_ROW = 2
"""So many instances in a row at which the association broke show that the peer is at fault, not they."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an attempt.

    Attributes:
        again_at: when to try again; None: it ended.
        message: for people.
    """

    state: ForwardState
    code: ForwardReason | None = None
    status: int | None = None
    message: str = ""
    again_at: float | None = None


@dataclass(slots=True)
class _Batch:
    """Outcomes that are not committed yet."""

    began_at: float = 0.0
    outcomes: list[tuple[ForwardRow, Outcome]] = field(default_factory=list)


class _NotAdmitted(Exception):
    """The peer does not admit the AE title of this sender; it may admit those of others."""


class Sender(Thread):
    """Sends to one destination until the process stops."""

    def __init__(self, context: ForwardContext, destination: str, stop: Event) -> None:
        super().__init__(name=f"forward {destination}", daemon=True)
        self._context, self._destination = context, destination
        self._stop_event = stop
        self._link: StoreLink | None = None
        self._calling = ""
        self._used_at = float("-inf")
        self._not_before = float("-inf")
        self._failures = self._breaks = 0
        self._answers: bool | None = None
        self._news: tuple[DeliveryReason | None, str] | None = None
        self._batch = _Batch()

    def run(self) -> None:
        """Look for work and send it."""
        a_round = self._context.pulse.timed(self.name, 60.0, self._guarded_round)
        while not self._stop_event.is_set():
            if a_round() < BATCH:
                self._stop_event.wait(LOOK_EVERY_S)
        self._end_link()

    def _guarded_round(self) -> int:
        try:
            return self.round()
        except MediqaError as error:
            log.warning(
                "forwarding postponed", destination=self._destination, reason=str(error), hourly_for="postponed"
            )
        except Exception as error:
            log.exception("forwarding failed", destination=self._destination, hourly_for=(self.name, type(error)))
            self._not_before = time.monotonic() + _AFTER_A_FAULT_S
            self._end_link(abort=True)
        return 0

    def round(self) -> int:
        """Send what is due, at most a batch; return how many instances left."""
        if time.monotonic() < self._not_before:
            return 0
        self._commit()  # what a database that did not answer has left
        latest_s = 2 * self._context.delivery.retry_at_most_s
        with self._context.database.read() as connection:
            rows = forwards.due(connection, self._destination, self._context.clock(), at_most=BATCH, latest_s=latest_s)
        if not rows:
            if self._link is not None and time.monotonic() - self._used_at > _RELEASE_AFTER_S:
                self._end_link()
            return 0
        peer = self._context.peer(self._destination)
        if peer is None:
            gone = Outcome(state=ForwardState.PARKED, code=ForwardReason.NOT_CONFIGURED, message="no such peer")
            self._batch.outcomes += [(row, gone) for row in rows]
            self._commit()
            return 0
        try:
            return self._send_all(peer, rows)
        finally:
            self._commit()

    def _send_all(self, peer: Peer, rows: list[ForwardRow]) -> int:
        delayed: set[str] = set()
        not_admitted: set[str] = set()
        sent = 0
        for row in sorted(rows, key=lambda row: (row.priority, self._calling_of(peer, row) != self._calling)):
            if self._stop_event.is_set() or time.monotonic() < self._not_before:
                break
            if row.series_instance_uid in delayed or self._calling_of(peer, row) in not_admitted:
                continue
            try:
                outcome = self._attempt(peer, row)
            except _NotAdmitted as error:
                not_admitted.add(self._calling_of(peer, row))
                outcome = self._again(row, ForwardReason.NO_ANSWER, str(error))
            if outcome is None:  # not reachable
                break
            if outcome.again_at is not None:
                delayed.add(row.series_instance_uid)
            sent += outcome.state is ForwardState.SENT
            self._note(row, outcome)
        return sent

    def _note(self, row: ForwardRow, outcome: Outcome) -> None:
        now = time.monotonic()
        if not self._batch.outcomes:
            self._batch.began_at = now
        self._batch.outcomes.append((row, outcome))
        if now - self._batch.began_at >= COMMIT_EVERY_S:
            self._commit()

    def _commit(self) -> None:
        """Record what was sent. Killed before that, the next start sends it again: the same bytes."""
        outcomes = self._batch.outcomes
        if not outcomes:
            return
        now, peer = self._context.clock(), self._context.peer(self._destination)
        asks = peer is not None and peer.commitment
        reach("before-forward-commit")
        recorded = {}
        for row, outcome in outcomes:
            ended, sent = outcome.again_at is None, outcome.state is ForwardState.SENT
            recorded[row.id] = {
                "state": outcome.state,
                "reason_code": outcome.code,
                "message": outcome.message or None,
                "status": outcome.status,
                "not_before": row.not_before if ended else outcome.again_at,
                "done_at": now if ended else None,
                "ask_at": now if asks and sent else None,
            }
        with self._context.database.write() as connection:
            forwards.finish(connection, recorded)
            if any(outcome.code is ForwardReason.CLASS_NOT_ACCEPTED for _, outcome in outcomes):
                peer_contexts.doubt(connection, self._destination)
            if self._news is not None:
                code, why = self._news
                health.note_attempt(self._context.database, connection, self._destination, code, why, at=now)
        self._batch.outcomes, self._news = [], None
        for row, outcome in outcomes:
            if outcome.state is not ForwardState.SENT:
                self._log(row, outcome)

    def _log(self, row: ForwardRow, outcome: Outcome) -> None:
        log.warning(
            "instance not forwarded",
            destination=self._destination,
            forward=row.id,
            state=outcome.state,
            why=outcome.code,
            status=None if outcome.status is None else f"{outcome.status:#06x}",
            hourly_for=(self._destination, outcome.code),
        )

    # ── one instance ─────────────────────────────────────────────────────────

    def _attempt(self, peer: Peer, row: ForwardRow) -> Outcome | None:
        """Send one instance; None if the peer is not reachable."""
        try:
            link = self._link_for(peer, row)
        except PeerRefused as error:
            if peer.forward.calling_ae == "original":
                raise _NotAdmitted(str(error)) from error
            self._back_off(str(error))
            return None
        except PeerUnavailable as error:
            self._back_off(str(error))
            return None
        pair = next((one for one in _pairs(peer, row) if link.accepts(one)), None)
        if pair is None:
            words = f"{peer.name} does not accept class {row.sop_class_uid} in syntax {row.transfer_syntax_uid}"
            return Outcome(state=ForwardState.PARKED, code=ForwardReason.CLASS_NOT_ACCEPTED, message=words)
        try:
            status, comment = self._store(link, row, pair)
        except (UndecodablePixels, InvalidInstance, OSError) as error:
            self._end_link(abort=True)  # the message may have begun
            return self._without_file(row, error)
        except PeerUnavailable as error:
            self._end_link(abort=True)
            self._breaks += 1
            if self._breaks >= _BREAKS_IN_A_ROW:
                self._back_off(str(error))
            return self._again(row, ForwardReason.NO_ANSWER, str(error))
        self._breaks = 0
        self._answered()
        reach("after-forward-answer")
        return self._judged(row, status, comment)

    def _without_file(self, row: ForwardRow, error: Exception) -> Outcome:
        """Return what becomes of an instance whose file cannot be sent; it keeps no other back."""
        if isinstance(error, UndecodablePixels):
            return Outcome(state=ForwardState.PARKED, code=ForwardReason.NOT_DECOMPRESSED, message=str(error))
        if isinstance(error, FileNotFoundError | InvalidInstance):
            words = f"spooled file: {type(error).__name__}; `mediqa-node verify` names it"
            return Outcome(state=ForwardState.PARKED, code=ForwardReason.FILE_MISSING, message=words)
        words = f"spooled file cannot be read: {type(error).__name__}"  # a disk of ours, for now
        return self._again(row, ForwardReason.FILE_MISSING, words)

    def _store(self, link: StoreLink, row: ForwardRow, pair: Pair) -> tuple[int, str]:
        path = self._context.spool.path(row.path)
        file = _as_received(path, row.sha256)
        if pair[1] != row.transfer_syntax_uid:
            os.close(file.fd)
            file = decompressed(path)
        try:
            reach("mid-forward")
            return link.store(file, pair, row.sop_instance_uid, within_s=self._context.delivery.timeout_s)
        finally:
            os.close(file.fd)
            self._used_at = time.monotonic()

    def _judged(self, row: ForwardRow, status: int, comment: str) -> Outcome:
        words = f"status {status:#06x}" + (f": {comment}" if comment else "")
        if status == 0x0000:
            return Outcome(state=ForwardState.SENT, status=status)
        if status in STORED:
            return Outcome(state=ForwardState.SENT, code=ForwardReason.WITH_WARNING, status=status, message=words)
        if status == DUPLICATE_INSTANCE and row.priority != Priority.CORRECTION:
            return Outcome(state=ForwardState.SENT, code=ForwardReason.ALREADY_THERE, status=status, message=words)
        if 0xA700 <= status <= 0xA7FF:
            return self._again(row, ForwardReason.OUT_OF_RESOURCES, words, status)
        code = ForwardReason.REFUSED
        if status == _NO_CLASS:
            code = ForwardReason.CLASS_NOT_ACCEPTED
        elif row.priority == Priority.CORRECTION:
            code = ForwardReason.CORRECTION_REFUSED
        return Outcome(state=ForwardState.PARKED, code=code, status=status, message=words)

    def _again(self, row: ForwardRow, code: ForwardReason, words: str, status: int | None = None) -> Outcome:
        pause_s = min(self._context.delivery.backoff_s(row.attempts + 1), _AT_MOST_S)
        again_at = self._context.clock() + pause_s
        return Outcome(state=ForwardState.WAITING, code=code, status=status, message=words, again_at=again_at)

    # ── the association ──────────────────────────────────────────────────────

    def _link_for(self, peer: Peer, row: ForwardRow) -> StoreLink:
        """Return an association in which this instance was proposed, under the AE title that the site wants."""
        calling = self._calling_of(peer, row)
        wanted = _pairs(peer, row)
        if self._link is not None and self._calling == calling and self._link.pairs.issuperset(wanted):
            return self._link
        self._end_link()
        with self._context.database.read() as connection:
            waiting = forwards.waiting_pairs(connection, self._destination, at_most=MAX_CONTEXTS)
        pairs = list(dict.fromkeys((*wanted, *waiting)))[:MAX_CONTEXTS]
        self._link = connect_to_store(peer, pairs, ae_title=calling, timeout_s=self._context.delivery.timeout_s)
        self._calling = calling
        self._failures = 0
        return self._link

    def _calling_of(self, peer: Peer, row: ForwardRow) -> str:
        return row.calling_ae_title if peer.forward.calling_ae == "original" else self._context.ae_title

    def _end_link(self, *, abort: bool = False) -> None:
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(OSError):
                (link.abort if abort else link.release)()

    def _back_off(self, why: str) -> None:
        """Leave the destination alone for a while, and have `status` say so."""
        self._failures += 1
        pause_s = min(self._context.delivery.backoff_s(self._failures), _AT_MOST_S)
        self._not_before = time.monotonic() + pause_s
        log.warning("destination does not answer", destination=self._destination, reason=why, hourly_for=self.name)
        if self._answers is not False:
            self._answers = False
            now = self._context.clock()
            with self._context.database.write() as connection:
                code = DeliveryReason.NO_ANSWER
                health.note_attempt(self._context.database, connection, self._destination, code, why, at=now)

    def _answered(self) -> None:
        if not self._answers:
            self._answers = True
            self._news = None, ""  # committed with the outcome


def _pairs(peer: Peer, row: ForwardRow) -> tuple[Pair, ...]:
    """Return the class and the syntaxes in which an instance may leave, the best first."""
    as_it_is = row.sop_class_uid, row.transfer_syntax_uid
    may_change = peer.forward.decompress and row.transfer_syntax_uid in LOSSLESS
    return (as_it_is, (row.sop_class_uid, EXPLICIT_LITTLE)) if may_change else (as_it_is,)


def _as_received(path: Path, sha256: str) -> StoredFile:
    """Open a spooled file; the caller closes its descriptor.

    Raises:
        InvalidInstance: it is a link, or holds other bytes than were received: an archive must never get these.
        OSError: it cannot be opened or read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidInstance("a link in the spool") from error
        raise
    try:
        head = read_head(memoryview(os.pread(fd, _HEAD_BYTES, 0)))
        file = StoredFile(fd, head.size_bytes, os.fstat(fd).st_size - head.size_bytes)
        if _digest(file) != sha256:
            raise InvalidInstance("its bytes have changed since it was received")
        return file
    except (ValueError, struct.error) as error:
        os.close(fd)
        raise InvalidInstance("no Part 10 file") from error
    except BaseException:
        os.close(fd)
        raise


def _digest(file: StoredFile) -> str:
    digest, at = hashlib.sha256(), file.begins_at
    while piece := os.pread(file.fd, _PIECE_BYTES, at):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()
