"""Group commit: one thread records all queued instances in one transaction, then releases their senders.

Four scanners sending at once share one folder sync and one commit; a single scanner never waits.
"""

import queue
import threading
import time
from dataclasses import dataclass, field

import structlog

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.series import ReceivedInstance
from mediqa_node.storage.database import Database, NotWritten
from mediqa_node.storage.ingest import Recorded, close_association, record
from mediqa_node.storage.spool import Spool
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("receiver")

_BATCH_AT_MOST = 64


class CommitUncertain(StorageFailed):
    """The commit itself failed: the row may exist, so its file has to stay."""


@dataclass(slots=True)
class _Entry:
    instance: ReceivedInstance
    modality: str
    done: threading.Event = field(default_factory=threading.Event)
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
        self._queue: queue.SimpleQueue[_Entry | _Closing | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._stopped = self._committing = False
        self._thread = threading.Thread(target=self._run, name="index-writer", daemon=True)
        self._thread.start()

    def enter(self, instance: ReceivedInstance, modality: str) -> Recorded:
        """Return once the instance is in the committed index.

        Raises:
            CommitUncertain: the commit was begun and failed.
            StorageFailed: folder sync or database failed before that, or had no room; the row was not written.
        """
        entry = _Entry(instance, modality)
        with self._gate:
            if self._stopped:
                raise StorageFailed("the node is stopping; the sender keeps its copy")
            self._queue.put(entry)
        entry.done.wait()
        if entry.failure is not None:
            raise entry.failure
        if entry.outcome is None:
            raise StorageFailed("the index writer ended before the instance was entered")
        return entry.outcome

    def close_association(self, association_id: str, *, released: bool) -> None:
        """Record the end of an association, after all its instances."""
        self._queue.put(_Closing(association_id, released))

    def stop(self) -> None:
        """Record what is queued, then end; later instances are refused."""
        with self._gate:
            self._stopped = True
            self._queue.put(None)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        running = True
        while running:
            batch = [self._queue.get()]
            while len(batch) < _BATCH_AT_MOST and not self._queue.empty():
                batch.append(self._queue.get())
            running = None not in batch
            self._commit([item for item in batch if item is not None])

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
        for entry in entries:
            entry.done.set()

    def _transaction(self, batch: list[_Entry | _Closing]) -> None:
        with self.database.write() as connection:
            for item in batch:
                if isinstance(item, _Entry):
                    item.outcome = record(self.database, connection, item.instance, item.modality, self.spool.has)
                else:
                    close_association(connection, item.association_id, released=item.released, at=time.time())
            reach("before-commit")
            self._committing = True
