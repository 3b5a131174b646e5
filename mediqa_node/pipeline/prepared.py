"""What is known of one series before it is complete: verified files, headers, results of single slices.

Every result is kept by a key that names all that it depends on, so that what is recalled is what would be computed. A
file counts as the one that was verified only while its inode, size and times are the same: spooled files are never
written again.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from pydicom import Dataset

from mediqa_node.dicom.part10 import dataset_sha256
from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.pipeline.arrived import NOT_ARRIVED
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.score import SeriesFiles, header_of

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_ELEMENT_BYTES = 500
"""Of an element of a header in memory, besides its value."""
_SMALL_BYTES = 2000
"""Of a result that holds no array, such as the size of a patient, and of its key."""


class Interrupted(BaseException):
    """Ends a preparation that has to give way; no handler of errors on the way takes it for one."""


class TooLarge(Interrupted):
    """A series needs more memory than is left for it."""


class Prepared:
    """Results of one series. One thread prepares it until another seals it, and recalls.

    Attributes:
        n_bytes: of all results, about.
        n_files: of the whole series, once its headers were asked for.

    Args:
        must_stop: asked before each result that is made.
        at_most_bytes: of all results.
        one_by_one: make results singly, so that an interruption loses no more than one.
    """

    def __init__(
        self, must_stop: Callable[[], bool] = lambda: False, *, at_most_bytes: int = 0, one_by_one: bool = True
    ) -> None:
        self.n_bytes = self.n_files = 0
        self._must_stop, self._at_most_bytes, self._one_by_one = must_stop, at_most_bytes, one_by_one
        self._lock = threading.Lock()
        self._is_sealed = False
        self._kept: dict[Hashable, Any] = {}
        self._headers: dict[Path, Dataset] = {}
        self._verified: dict[Path, tuple[tuple[int, ...], str]] = {}
        self._files: SeriesFiles | None = None

    # ── while the series arrives ─────────────────────────────────────────────

    def add(self, path: Path) -> str:
        """Verify a file, read its header, and return the digest of its dataset.

        Raises:
            OSError, InvalidInstance: as `dataset_sha256`.
            NotScorable: as `header_of`.
            Interrupted: the preparation has to give way.
        """
        if path not in self._verified:
            self._go_on()
            verified = _signature(path), dataset_sha256(path)
            header = header_of(path)
            with self._open():
                self._headers[path], self._verified[path] = header, verified
                self.n_bytes += _size_bytes(header)
        return self._verified[path][1]

    def files(self, paths: Sequence[Path]) -> SeriesFiles:
        """Return files that were added, with their headers; what is found of them is kept."""
        if self._files is None or self._files.paths != tuple(paths):
            with self._open():
                self._files = SeriesFiles(tuple(paths), tuple(self._headers[path] for path in paths), self.keep)
        return self._files

    def keep(
        self,
        items: Sequence[_Item],
        key: Callable[[_Item], Hashable],
        make: Callable[[Sequence[_Item]], Sequence[_Result]],
    ) -> list[_Result]:
        """Recall results, and keep those that have to be made: a `Recall`.

        Raises:
            UndecodablePixels: a key names a slice that has not arrived.
            Interrupted: the preparation has to give way.
        """
        names = [key(item) for item in items]
        if any(map(_has_not_arrived, names)):
            raise UndecodablePixels("has not arrived")
        missing = [(name, item) for name, item in zip(names, items, strict=True) if name not in self._kept]
        for some in [[one] for one in missing] if self._one_by_one else [missing] * bool(missing):
            self._go_on()
            made = make([item for _, item in some])
            with self._open():
                self._kept.update(zip((name for name, _ in some), made, strict=True))
                self.n_bytes += sum(_SMALL_BYTES + _size_bytes(one) for one in made)
        return [self._kept[name] for name in names]

    def _go_on(self) -> None:
        if self._must_stop():
            raise Interrupted
        if self.n_bytes > self._at_most_bytes:
            raise TooLarge

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Nothing is added to a series that is sealed: its files have been looked at for the last time."""
        with self._lock:
            if self._is_sealed:
                raise Interrupted
            yield

    # ── when it is complete ──────────────────────────────────────────────────

    def seal(self) -> None:
        """End the preparation, whatever its thread is at."""
        with self._lock:
            self._is_sealed = True

    def digest(self, path: Path) -> str:
        """Return the digest of a file's dataset, verified before if the file has not been touched since.

        If one has been touched, it is read again, and nothing of the series is recalled any more.

        Raises:
            OSError, InvalidInstance: as `dataset_sha256`.
        """
        signature, digest = self._verified.get(path, (None, ""))
        if signature is not None and signature == _signature(path):
            return digest
        if signature is not None:
            self._kept, self._headers, self._verified, self._files = {}, {}, {}, None
        return dataset_sha256(path)

    def read_headers(self, paths: Sequence[Path]) -> SeriesFiles:
        """Return the files of the whole series, whose headers are read unless they are known.

        Raises:
            NotScorable, OSError: as `pipeline.score.read_headers`.
        """
        self.n_files = len(paths)
        if self._files is not None and self._files.paths == tuple(paths):
            return self._files.recalling(self.recall)
        headers = tuple(self._headers[path] if path in self._headers else header_of(path) for path in paths)
        return SeriesFiles(tuple(paths), headers, self.recall)

    def recall(
        self,
        items: Sequence[_Item],
        key: Callable[[_Item], Hashable],
        make: Callable[[Sequence[_Item]], Sequence[_Result]],
    ) -> list[_Result]:
        """Recall results, and make all others together: a `Recall`."""
        if not self._kept:
            return list(make(items))
        names = [key(item) for item in items]
        missing = [item for item, name in zip(items, names, strict=True) if name not in self._kept]
        made = iter(make(missing) if missing else ())
        return [self._kept[name] if name in self._kept else next(made) for name in names]


def prepared_of(node: NodeContext, series_instance_uid: str) -> AbstractContextManager[Prepared]:
    """Return what is prepared of a series for the block that follows: nothing, if this process prepares none."""
    if node.preparation is None:
        return nullcontext(Prepared())
    return node.preparation.taken(series_instance_uid)


def _has_not_arrived(key: Hashable) -> bool:
    """Whether a key names a slice, second, whose file is not there."""
    return isinstance(key, tuple) and isinstance(key[1], tuple) and key[1][:1] == (NOT_ARRIVED,)


def _signature(path: Path) -> tuple[int, ...]:
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _size_bytes(result: Any) -> int:
    """Return about how much memory a result takes."""
    if isinstance(size := getattr(result, "nbytes", None), int):  # an array, or a tensor
        return size
    if isinstance(result, Dataset):
        raw = (result.get_item(tag, keep_deferred=True).value for tag in result.keys())  # noqa: SIM118
        return sum(_ELEMENT_BYTES + (len(value) if isinstance(value, bytes) else 0) for value in raw)
    if isinstance(result, tuple | list):
        return sum(map(_size_bytes, result))
    image = getattr(result, "image", None)
    return _size_bytes(image) if image is not None else 0
