"""What is body and what is air or noise: in Hounsfield units, or by the histogram of an MR image."""

from collections.abc import Sequence

import numpy as np

BODY_HU = -300.0
BLOCK_PX = 8
SCALE = 1000.0


def body_fraction(image_hu: np.ndarray) -> float:
    """Return the share of a CT slice that is body: blocks of 8 x 8 pixels whose mean exceeds -300 HU.

    Means are taken of values clipped to -1024..200 HU, so that a thin bright thing stays thin: the table
    of a scanner is no body.
    """
    edge = min(BLOCK_PX, *image_hu.shape)
    rows, columns = (size - size % edge for size in image_hu.shape)
    clipped = np.clip(image_hu[:rows, :columns], -1024.0, 200.0)
    blocks = clipped.reshape(rows // edge, edge, columns // edge, edge).mean(axis=(1, 3))
    return float((blocks > BODY_HU).mean())


def otsu_threshold(pixels: np.ndarray, *, bins: int = 256) -> float:
    """Return the value that best parts pixels of any shape into dark and bright (Otsu 1979).

    The histogram reaches to the 99.5th percentile: a few very bright pixels would take all its bins.
    Nothing exceeds the threshold of constant pixels.
    """
    values = np.ravel(pixels).astype(np.float64)
    low, high = float(values.min()), float(np.percentile(values, 99.5))
    if high <= low:
        return low
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[int(np.nanargmax(between[:-1])) + 1])


def body_pixels(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the MR signal of all pixels inside the body, over all images, shape (n,); never empty.

    Inside is what exceeds Otsu's threshold of the logarithm of the signal, which falls between the noise
    floor and the darkest tissue. That of the signal itself falls between gray matter and fat.
    """
    signal = np.concatenate([np.ravel(image) for image in images]).astype(np.float64)
    lowest, bright = float(signal.min()), float(np.percentile(signal, 99.5))
    if bright <= lowest:
        return signal
    logarithm = np.log1p(SCALE * (signal - lowest) / (bright - lowest))
    return np.asarray(signal[logarithm > otsu_threshold(logarithm)])
