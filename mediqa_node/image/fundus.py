"""Detect whether a picture file without a DICOM header can be a colour fundus photograph."""

import numpy as np

DARK = 40.0
NO_FIELD = "no bright round field on dark ground"
"""What a refusal of anything else says."""
_CORNER = 0.04


def looks_like_fundus(rgb: np.ndarray) -> bool:
    """Whether a picture has a bright, reddish field inside a dark mask.

    Args:
        rgb: (rows, columns, 3), 0..255.
    """
    rows, columns = rgb.shape[:2]
    height, width = max(1, int(rows * _CORNER)), max(1, int(columns * _CORNER))
    corners = [rgb[:height, :width], rgb[:height, -width:], rgb[-height:, :width], rgb[-height:, -width:]]
    centre = rgb[rows // 4 : -rows // 4, columns // 4 : -columns // 4].reshape(-1, 3).astype(float)
    red, green, blue = np.median(centre, axis=0)
    is_dark = sum(float(np.median(corner)) < DARK for corner in corners) >= 3
    return bool(is_dark and red > DARK and red > 1.2 * blue and red >= green)
