"""Arrays as a NumPy NPZ: compressed, without pickle, the same bytes for the same arrays."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays of numbers as NPZ; the ZIP's dates are NumPy's constant, its order that of `arrays`.

    Raises:
        ValueError: an array holds Python objects.
    """
    if objects := [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]:
        raise ValueError(f"arrays of objects would be pickled: {', '.join(objects)}")
    file = BytesIO()
    np.savez_compressed(file, **dict[str, Any](arrays))  # NumPy 2.0 takes allow_pickle for one more array
    return file.getvalue()


def unpacked(npz: bytes | Path) -> dict[str, np.ndarray]:
    """Return the arrays of an NPZ.

    Raises:
        ValueError: an array holds Python objects, or it is not an NPZ.
        OSError: the file cannot be read.
    """
    with np.load(BytesIO(npz) if isinstance(npz, bytes) else npz, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}
