"""Weights from a seed: the same bytes on every machine, so that their digest can be pinned.

Counter-based integer hash (murmur3 finaliser) on 32-bit words: 24 bits of each make a number
in [-1, 1) that float32 holds exactly. No library random generator is used, because none guarantees its stream across
versions.
"""

from collections.abc import Mapping

import numpy as np

_GOLDEN = np.uint32(0x9E3779B9)


def mix(h: np.ndarray) -> np.ndarray:
    """Apply the murmur3 finaliser to 32-bit words: uint32, any shape."""
    h = h ^ (h >> np.uint32(16))
    h = h * np.uint32(0x85EBCA6B)
    h = h ^ (h >> np.uint32(13))
    h = h * np.uint32(0xC2B2AE35)
    return np.asarray(h ^ (h >> np.uint32(16)))


def uniform(key: int, count: int) -> np.ndarray:
    """Return `count` numbers in [-1, 1), white, exact in float32."""
    start = mix(np.array([key % 2**32], dtype=np.uint32))
    words = mix(np.arange(count, dtype=np.uint32) * _GOLDEN + start)
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def seeded_state(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Return untrained float32 parameters by name, scaled so that scores vary.

    Scales keep activations of order one and scores away from zero: matrices have variance
    of about 1 / fan-in (patch embedding more, because its input is an image in 0..1), gains lie around 1.
    Whatever the names and shapes, the same seed gives the same bytes.
    """
    return {
        name: _fill(name, shapes[name], index * 65537 + seed * 7919 + 1) for index, name in enumerate(sorted(shapes))
    }


def _fill(name: str, shape: tuple[int, ...], key: int) -> np.ndarray:
    unit = uniform(key, int(np.prod(shape))).reshape(shape)
    if name.startswith("slice_weight."):
        return np.zeros(shape, dtype=np.float32)
    if len(shape) == 1:
        return np.float32(1) + unit / np.float32(4) if name.endswith(".weight") else unit / np.float32(8)
    if name.endswith(("relative_position_bias_table", "cls_token", "pos_embed")):
        return unit / np.float32(4)
    return unit * np.float32(_gain(name) * np.sqrt(3 / np.prod(shape[1:])))


def _gain(name: str) -> float:
    """Return the standard deviation of a matrix times the root of its fan-in."""
    if name.endswith(("c_q.weight", "c_k.weight")):
        return 0.375  # keeps channel attention from picking a single channel
    if name in ("conv1.weight", "conv2.weight"):
        return 0.25
    return 4.0 if name == "vit.patch_embed.proj.weight" else 1.0
