"""Networks smaller than any row of the table, for tests in which the size does not matter."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mediqa_node.model.sizes import CHANNELS, SIZES, Size

TINY = Size(
    name="tiny", image_px=112, embed_dim=24, heads=2, mlp_dim=24, mlp_ratio=1.0, depth=3, taps=(0, 1, 2), stem="conv",
    channels=CHANNELS, tabs=1, swin_layers=1, swin_heads=2,
)  # fmt: skip
"""Every part of n16 at a quarter of its width and half of its edge."""


@contextmanager
def registered(size: Size) -> Iterator[None]:
    """Let presets and cards name this size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, size.name, size)
        yield
