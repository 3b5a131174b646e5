"""One decoder for many series: tests that score the same images again and again decode each of them once."""

from pathlib import Path
from types import TracebackType

import numpy as np

from mediqa_node.decode.reader import FrameReader


class KeptReader(FrameReader):
    """A reader whose process and frames live on after each `with` block, until `close`."""

    def __init__(self) -> None:
        super().__init__()
        self._frames: dict[tuple[object, ...], np.ndarray] = {}

    def raw(self, path: Path, frame_number: int | None) -> np.ndarray:
        """Return the stored values of one frame; see `FrameReader.raw`."""
        status = path.stat()
        key = (path, status.st_ino, status.st_mtime_ns, status.st_size, frame_number)
        if key not in self._frames:
            self._frames[key] = super().raw(path, frame_number)
        return self._frames[key].copy()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep the process for the next series."""
