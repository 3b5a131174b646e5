"""Group commit: whoever finds nobody committing records all queued instances in one transaction.

A single scanner commits in the thread of its association: there is nobody to wake, and nobody to wait for. Of four at
once one commits; the others queue meanwhile, and the first of them commits for all who have queued: they share one
folder sync and one commit. An answer waits for at most the commit that is running and its own.

Who is about to commit waits for files that others are just making durable, at most as long as its own took: each that
comes in time saves a folder sync and a commit, and would have waited for both.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

import structlog

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.series import ReceivedInstance
from mediqa_node.storage.database import Database, NotWritten
from mediqa_node.storage.ingest import Recorded, close_association, record
from mediqa_node.storage.spool import Incoming, Spool
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("receiver")

_BATCH_AT_MOST = 64


class CommitUncertain(StorageFailed):
    """The commit itself failed: the row may exist, so its file has to stay."""


def _held() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True)
class _Entry:
    """An instance to be recorded.

    Attributes:
        patience_s: how long its commit may wait for others.
        turn: released when it is recorded, or when its thread has to commit for all.
        is_done: it was recorded, or has failed.
    """

    instance: ReceivedInstance
    modality: str
    patience_s: float
    turn: threading.Lock = field(default_factory=_held)
    is_done: bool = False
    outcome: Recorded | None = None
    failure: StorageFailed | None = None


@dataclass(slots=True)
class _Closing:
    association_id: str
    released: bool


class IndexWriter:
    """The only writer of instance rows in the receiver process."""

    def __init__(self, database: Database, spool: Spool) -> None:
        self.database = database
        self.spool = spool
        self._connection = database.keep()
        self._queue: deque[_Entry | _Closing] = deque()
        self._gate = threading.Lock()
        self._idle, self._all_came = threading.Condition(self._gate), threading.Condition(self._gate)
        self._n_coming = 0
        self._placed: dict[str, float] = {}
        self._is_led = self._stopped = self._committing = False
        self._with_rows: set[str] = set()

    def place(self, incoming: Incoming) -> str:
        """Make a received file durable under its final name, to be entered at once; return its path.

        Raises:
            StorageFailed: see `Spool.place`.
        """
        with self._gate:
            self._n_coming += 1
        began = time.monotonic()
        try:
            path = self.spool.place(incoming)
        except BaseException:
            with self._gate:
                self._came()
            raise
        self._placed[path] = time.monotonic() - began
        return path

    def enter(self, instance: ReceivedInstance, modality: str) -> Recorded:
        """Return once the instance is in the committed index.

        Raises:
            CommitUncertain: the commit was begun and failed.
            StorageFailed: folder sync or database failed before that, or had no room; the row was not written.
        """
        entry = _Entry(instance, modality, self._placed.get(instance.path, 0.0))
        with self._gate:
            if self._placed.pop(instance.path, None) is not None:
                self._came()
            if self._stopped:
                raise StorageFailed("the node is stopping; the sender keeps its copy")
            self._with_rows.add(instance.association_id)
            leads = self._queued(entry)
        if not leads:
            entry.turn.acquire()
        if not entry.is_done:
            self._lead(entry)
        if entry.failure is not None:
            raise entry.failure
        if entry.outcome is None:
            raise StorageFailed("the index writer ended before the instance was entered")
        return entry.outcome

    def close_association(self, association_id: str, *, released: bool) -> None:
        """Record the end of an association, after all its instances; one that stored nothing has no row."""
        with self._gate:
            if association_id not in self._with_rows:
                return
            self._with_rows.discard(association_id)
            leads = self._queued(_Closing(association_id, released))
        if leads:
            self._lead(None)

    def stop(self) -> None:
        """Wait until what is queued is recorded; later instances are refused."""
        with self._gate:
            self._stopped = True
            self._idle.wait_for(lambda: not self._is_led, timeout=30)
        self._connection.close()

    def _came(self) -> None:
        """Note that a file which was being placed is no longer waited for. Called with the gate held."""
        self._n_coming -= 1
        if not self._n_coming:
            self._all_came.notify()

    def _queued(self, item: _Entry | _Closing) -> bool:
        """Queue an item; return whether its thread has to commit, because no other does. Called with the gate held."""
        self._queue.append(item)
        leads, self._is_led = not self._is_led, True
        return leads

    def _lead(self, mine: _Entry | None) -> None:
        """Commit what has queued, with the own instance; then leave the rest to another thread if one waits."""
        leads = True
        while leads:
            with self._gate:
                if mine is not None and self._n_coming:
                    self._all_came.wait(mine.patience_s)
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH_AT_MOST))]
            try:
                self._commit(batch)
            finally:
                for item in batch:
                    if isinstance(item, _Entry):
                        item.is_done = True
                        if item is not mine:
                            item.turn.release()
                leads = self._leads_on()

    def _leads_on(self) -> bool:
        """Have the first who waits commit from here on; return whether there is nobody, and something to commit."""
        with self._gate:
            following = next((item for item in self._queue if isinstance(item, _Entry)), None)
            if following is None:
                self._is_led = bool(self._queue)
                if not self._is_led:
                    self._idle.notify_all()
                return self._is_led
        following.turn.release()
        return False

    def _commit(self, batch: list[_Entry | _Closing]) -> None:
        entries = [item for item in batch if isinstance(item, _Entry)]
        self._committing = False
        try:
            self.spool.sync_folders(entry.instance.path for entry in entries)
            reach("after-folder-fsync")
            self._transaction(batch)
            reach("after-commit")
        except StorageFailed as error:
            is_certain = isinstance(error, NotWritten) or not self._committing
            failure = error if is_certain else CommitUncertain(str(error))
            for entry in entries:
                entry.failure = failure
        except Exception as error:
            if len(batch) > 1:
                for item in batch:  # one bad row must not fail its neighbours
                    self._commit([item])
                return
            log.exception("index entry failed: unforeseen", hourly_for=type(error))
            kind = CommitUncertain if self._committing else StorageFailed
            for entry in entries:
                entry.failure = kind(f"index: {type(error).__name__}")

    def _transaction(self, batch: list[_Entry | _Closing]) -> None:
        with self.database.write(self._connection) as connection:
            for item in batch:
                if isinstance(item, _Entry):
                    item.outcome = record(self.database, connection, item.instance, item.modality, self.spool.has)
                else:
                    close_association(connection, item.association_id, released=item.released, at=time.time())
            reach("before-commit")
            self._committing = True
