"""One decoder for many series: starting its process costs more than what most tests decode with it."""

from types import TracebackType

from mediqa_node.decode.reader import FrameReader


class KeptReader(FrameReader):
    """A reader whose process lives on after each `with` block, until `close`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep the process for the next series."""
