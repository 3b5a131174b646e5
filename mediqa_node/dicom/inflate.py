"""A deflated dataset, inflated in passing: 200 KB on the wire may be 400 MB of zeros (PS3.5 A.5)."""

import zlib
from collections.abc import Iterator
from typing import Protocol

from mediqa_node.domain.errors import InvalidInstance

_PIECE_BYTES = 65_536


class Encoded(Protocol):
    """The bytes of a dataset wherever they lie: a memoryview, or a file that is read slice by slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes | memoryview: ...


class Inflated:
    """What a deflated dataset inflates to, readable forwards only; holds a piece of it, never the whole.

    Inflates twice: once to learn the size and that nothing is missing, once to be read.

    Raises:
        InvalidInstance: broken, truncated, or larger than the limit.
    """

    def __init__(self, deflated: Encoded, limit_bytes: int) -> None:
        self._size = sum(len(piece) for piece in _pieces(deflated, limit_bytes))
        self._rest = _pieces(deflated, limit_bytes)
        self._held, self._held_at = b"", 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop = part.start, min(part.stop, self._size)
        while self._held_at + len(self._held) < stop:
            unneeded = min(start - self._held_at, len(self._held))
            self._held = self._held[unneeded:] + next(self._rest)
            self._held_at += unneeded
        return self._held[start - self._held_at : stop - self._held_at]


def _pieces(deflated: Encoded, limit_bytes: int) -> Iterator[bytes]:
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for position in range(0, len(deflated), _PIECE_BYTES):
        pending, more = bytes(deflated[position : position + _PIECE_BYTES]), True
        while more and not inflater.eof:
            try:
                piece = inflater.decompress(pending, _PIECE_BYTES)
            except zlib.error:
                raise InvalidInstance("deflated dataset is broken") from None
            total += len(piece)
            if total > limit_bytes:
                raise InvalidInstance(f"deflated dataset inflates beyond {limit_bytes} bytes")
            pending = inflater.unconsumed_tail
            more = bool(pending) or len(piece) == _PIECE_BYTES
            if piece:
                yield piece
    if len(deflated) and not inflater.eof:
        raise InvalidInstance("deflated dataset is truncated")
