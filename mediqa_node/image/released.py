"""The slice selection and intensities of the public MedIQA code, for users who have its weights.

It is kept for comparison: released weights reproduce the scores of their authors' code only on the same input. Stored
values are divided by the largest value of their type, whatever they mean, so that 12-bit CT in 16 bits reaches 0.06;
slices are stretched to a square; the first and the last slice are always among the seven.
"""

import numpy as np

SLICES = 7


def released_indices(count: int) -> tuple[int, ...]:
    """Return first, last and five slices around the middle of `count`; fewer than seven are repeated cyclically.

    >>> released_indices(100)
    (0, 18, 34, 50, 66, 82, 99)
    >>> released_indices(3)
    (0, 1, 2, 0, 1, 2, 0)
    """
    if count < SLICES:
        return tuple(index % count for index in range(SLICES))
    middle, step = count // 2, count // 6
    return (0, *(middle + offset * step for offset in (-2, -1, 0, 1, 2)), count - 1)


def released_resize(stored: np.ndarray, size_px: int) -> np.ndarray:
    """Return stored values (rows, columns[, 3]) stretched to a square and divided by the largest value of their type.

    Integers become 0..1 (signed ones -1..1), floats are kept: float32, (size, size[, 3]).
    """
    from skimage.transform import resize  # heavy, and needed by released weights only

    shape = (size_px, size_px, *stored.shape[2:])
    return np.asarray(resize(stored, shape, order=2, anti_aliasing=True), dtype=np.float32)
