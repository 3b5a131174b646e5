"""Group commit: one thread enters whatever has queued, in one transaction, then releases all who wait.

With four scanners sending at once, four instances share one folder sync and one commit; with one
scanner nothing waits for anybody.
"""

import queue
import threading
import time
from dataclasses import dataclass, field

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.exchange import ReceivedInstance
from mediqa_node.domain.failpoint import reach
from mediqa_node.storage.database import Database
from mediqa_node.storage.ingest import Recorded, close_association, record
from mediqa_node.storage.spool import Spool

_BATCH_AT_MOST = 64


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
        self._thread = threading.Thread(target=self._run, name="index-writer", daemon=True)
        self._thread.start()

    def enter(self, instance: ReceivedInstance, modality: str) -> Recorded:
        """Return once the instance is in the committed index.

        Raises:
            StorageFailed: folder sync or database failed; the row is not there.
        """
        entry = _Entry(instance, modality)
        self._queue.put(entry)
        entry.done.wait()
        if entry.failure is not None:
            raise entry.failure
        if entry.outcome is None:
            raise StorageFailed("the index writer ended before the instance was entered")
        return entry.outcome

    def close_association(self, association_id: str, *, released: bool) -> None:
        """Note the end of an association, after all its instances."""
        self._queue.put(_Closing(association_id, released))

    def stop(self) -> None:
        """Finish what has queued, then end."""
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
        try:
            self.spool.sync_folders(entry.instance.path for entry in entries)
            reach("after-folder-fsync")
            self._transaction(batch)
            reach("after-commit")
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, StorageFailed):
                for item in batch:  # one bad row must not fail its neighbours
                    self._commit([item])
                return
            for entry in entries:
                entry.failure = error if isinstance(error, StorageFailed) else StorageFailed(f"index: {error}")
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
