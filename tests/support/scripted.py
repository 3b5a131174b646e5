"""A PACS that answers what a test tells it to: DIMSE statuses, rejections, aborts, other patients."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, evt

SR_CLASSES = {
    "comprehensive3d": "1.2.840.10008.5.1.4.1.1.88.34",
    "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
}
_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
ABORT = -1
"""In `statuses`: end the association instead of answering."""


class ScriptedPacs:
    """A Storage SCP whose next answers are a list.

    Attributes:
        statuses: of the next C-STOREs; when empty, 0x0000.
        find_status: what C-FIND ends with.
        holds: what C-FIND finds, by keyword; an empty list: the study is absent.
        holds_series: what C-FIND finds at the level of series.
        on_find: called while a C-FIND waits for its answer.
        received: the encoded dataset of every C-STORE, also of those that were refused.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str] = tuple(SR_CLASSES.values()),
        finds: bool = True,
        statuses: Sequence[int] = (),
        ae_title: str = "SCRIPTED",
        only_called: bool = False,
        syntaxes: Sequence[str] = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"),
    ) -> None:
        self.statuses = list(statuses)
        self.find_status = 0x0000
        self.holds: list[dict[str, str]] = []
        self.holds_series: list[dict[str, str]] = []
        self.received: list[bytes] = []
        self.asked = 0
        self.aborts_find = False
        self.on_find: Callable[[], None] = lambda: None
        self.entity = AE(ae_title=ae_title)
        self.entity.require_called_aet = only_called
        for uid in classes:
            self.entity.add_supported_context(uid, list(syntaxes))
        if finds:
            self.entity.add_supported_context(_FIND)
        self.entity.add_supported_context("1.2.840.10008.1.1")
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)]
        handlers += self._supported(self.entity)
        self._server = self.entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])

    def _supported(self, entity: AE) -> list[Any]:
        """Add further contexts; return their handlers."""
        return []

    def stop(self) -> None:
        """Stop listening and end every association."""
        ending = threading.Thread(target=self._server.shutdown)
        ending.start()
        with contextlib.suppress(OSError):  # a caller wakes it: of itself, it looks twice a second whether to end
            socket.create_connection(("127.0.0.1", self.port)).close()
        ending.join()

    def _store(self, event: evt.Event) -> int:
        self.received.append(event.request.DataSet.getvalue())
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == ABORT:
            event.assoc.abort()
            return 0xC000
        return status

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.asked += 1
        self.on_find()
        if self.aborts_find:
            event.assoc.abort()
            return
        level = event.identifier.QueryRetrieveLevel
        for values in self.holds_series if level == "SERIES" else self.holds:
            found = Dataset()
            found.QueryRetrieveLevel, found.StudyInstanceUID = level, event.identifier.StudyInstanceUID
            for keyword, value in values.items():
                setattr(found, keyword, value)
            yield 0xFF00, found
        if self.find_status:
            yield self.find_status, None


@contextlib.contextmanager
def scripted(**how: Any) -> Iterator[ScriptedPacs]:
    """Run a scripted PACS for the block."""
    pacs = ScriptedPacs(**how)
    try:
        yield pacs
    finally:
        pacs.stop()


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Give a port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield int(listener.getsockname()[1])
