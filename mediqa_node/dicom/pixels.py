"""Convert stored values to Hounsfield units, rescaled MR signal, or RGB.

PS3.3 C.7.6.3.1 (pixel data), C.7.5.1.1.2 (padding), C.11.1 (modality LUT), C.7.6.16.2.9 (rescaling per
frame). Window Center and Width are display hints and are never applied.
"""

from collections.abc import Callable

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut

from mediqa_node.dicom.header import FrameHeader, exact, frame_header, items, text
from mediqa_node.dicom.modality import modality_of
from mediqa_node.dicom.plausible import rescale
from mediqa_node.dicom.stored_frames import above_stored, overlays_reach
from mediqa_node.domain.errors import UndecodablePixels

AIR_FLOOR_HU = -1024.0
FULL_SCALE = 255.0


def to_image(raw: np.ndarray, header: Dataset, frame_number: int | None) -> np.ndarray:
    """Return one frame in the units used for scoring.

    Args:
        raw: stored values, shape (rows, columns), or (rows, columns, 3) already converted to RGB, from
            `FrameReader.raw` or pydicom's `pixel_array`.
        header: the instance's header; its SOP class decides the modality, Modality (0008,0060) only without one.
        frame_number: from 1; None for a single-frame object.

    Returns:
        float32, finite. CT: (rows, columns) in HU, never below -1024: padding (-3024, -2000, -1500 in
        real files) would widen any range. MR: (rows, columns), rescaled signal, padding set to the lowest
        other value. Colour: (rows, columns, 3), RGB 0..255. Other gray images: (rows, columns), 0..255.

    Raises:
        UndecodablePixels: neither gray nor three-sample colour, or a lookup table that cannot be applied.
        UnreadableElement: an element that defines the meaning of stored values is not a number, or cannot be true.
    """
    photometric = text(header, "PhotometricInterpretation").upper() or "MONOCHROME2"
    modality = modality_of(header) or text(header, "Modality")
    if photometric == "PALETTE COLOR":
        return _scaled_rgb(_coloured(raw, header), bits=_palette_bits(header))
    if raw.ndim == 3 and raw.shape[2] == 3:
        return _scaled_rgb(raw, bits=_whole(header, "BitsStored"))
    if raw.ndim != 2:
        raise UndecodablePixels(f"cannot read pixels of shape {raw.shape}, {photometric}, as gray or RGB")
    padding = _padding(raw, header)
    stored = stored_values(raw, header)
    if photometric == "MONOCHROME1" and modality != "CT":
        stored = _inverted(stored, header)
    if modality not in ("CT", "MR", "PT"):
        return _finite(stored.astype(np.float32) * (FULL_SCALE / _largest(stored, header)))
    image = _rescaled(stored, frame_header(header, frame_number), modality)
    if modality == "CT":
        return np.maximum(np.where(padding, AIR_FLOOR_HU, image), AIR_FLOOR_HU).astype(np.float32)
    if padding.any() and not padding.all():
        image = np.where(padding, image[~padding].min(), image)
    return image.astype(np.float32)


def without_unused_bits(raw: np.ndarray, header: Dataset) -> np.ndarray:
    """Return stored values with the unused bits cleared, which may hide overlays or other data.

    Args:
        raw, header: as `to_image` takes them.

    Returns:
        the same shape and type, so that `to_image` gives the same image with High Bit (0028,0102) at Bits Stored - 1;
        padding outside of Bits Stored is unchanged.
    """
    if raw.ndim != 2:
        return raw
    return np.where(_padding(raw, header), raw, stored_values(raw, header).astype(raw.dtype, copy=False))


def stored_values(raw: np.ndarray, header: Dataset) -> np.ndarray:
    """Return Bits Stored (0028,0101) below High Bit (0028,0102), with the sign of Pixel Representation (0028,0103).

    Old overlays are stored in the unused bits. Values that a decoder has already corrected do not change.

    Raises:
        UnreadableElement: one of these elements is not a number.
    """
    allocated = raw.dtype.itemsize * 8
    stored = _whole(header, "BitsStored") or allocated
    if raw.dtype.kind not in "iu" or not 0 < stored < allocated:
        return raw
    high = _whole(header, "HighBit")
    above = allocated - 1 - (stored - 1 if high is None or not stored - 1 <= high < allocated else high)
    signed = _whole(header, "PixelRepresentation") == 1
    bits = raw.view(np.dtype(f"{'i' if signed else 'u'}{raw.dtype.itemsize}"))
    return np.asarray(np.right_shift(np.left_shift(bits, above), allocated - stored))


def uses_unstored_bits(raw: np.ndarray, header: Dataset) -> bool:
    """Whether gray values use bits above Bits Stored (0028,0101) for more than a sign, padding or a declared overlay.

    `stored_frames` samples native pixels for it when their header is read.
    """
    allocated, stored, high = raw.dtype.itemsize * 8, _whole(header, "BitsStored"), _whole(header, "HighBit")
    if raw.ndim != 2 or raw.dtype.kind not in "iu" or stored is None or not 0 < stored < allocated:
        return False
    if high not in (None, stored - 1) or overlays_reach(header, stored):
        return False
    words = raw.view(f"u{raw.dtype.itemsize}")
    above = above_stored(words, stored, signed=_whole(header, "PixelRepresentation") == 1)
    return bool(above.any() and (above & ~_padding(raw, header)).any())


def _padding(raw: np.ndarray, header: Dataset) -> np.ndarray:
    """Return the mask of pixels from Pixel Padding Value (0028,0120) to Pixel Padding Range Limit (0028,0121).

    Compared before unused bits are cut: padding may lie outside of Bits Stored.
    """
    value = _whole(header, "PixelPaddingValue")
    if value is None:
        return np.zeros(raw.shape, dtype=bool)
    limit = _whole(header, "PixelPaddingRangeLimit")
    bounds = [value, value if limit is None else limit]
    if raw.dtype.kind == "u":
        bounds = [bound % (1 << raw.dtype.itemsize * 8) for bound in bounds]
    elif raw.dtype.kind == "i":
        half = 1 << (raw.dtype.itemsize * 8 - 1)
        bounds = [(bound + half) % (2 * half) - half for bound in bounds]
    return np.asarray((raw >= min(bounds)) & (raw <= max(bounds)))


def _inverted(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Return MONOCHROME1 values as MONOCHROME2: the largest storable value becomes the smallest.

    Not for CT, where Hounsfield units do not depend on the display.
    """
    if stored.dtype.kind not in "iu":
        return np.asarray(np.nanmax(stored) + np.nanmin(stored) - stored)
    signed = stored.dtype.kind == "i"
    return np.asarray(-1 - stored.astype(np.int64) if signed else _largest(stored, header) - stored.astype(np.int64))


def _largest(stored: np.ndarray, header: Dataset) -> float:
    bits = _whole(header, "BitsStored") or stored.dtype.itemsize * 8
    return float((1 << min(bits, 32)) - 1)


def _whole(header: Dataset, key: str) -> int | None:
    found = exact(header, key)
    return None if found is None else int(found[0])


def _rescaled(stored: np.ndarray, frame: FrameHeader, modality: str) -> np.ndarray:
    """Apply Modality LUT Sequence (0028,3000), else rescale slope and intercept; absent, they are 1 and 0.

    A slope of 0, which would make every image constant, is refused.
    """
    if items(frame.dataset, "ModalityLUTSequence"):
        return _finite(_looked_up(apply_modality_lut, stored, frame.dataset, "Modality LUT Sequence (0028,3000)"))
    slope, intercept = rescale(frame, modality)
    return _finite(stored.astype(np.float64) * slope + intercept)


def _coloured(stored: np.ndarray, header: Dataset) -> np.ndarray:
    return _looked_up(apply_color_lut, stored, header, "Palette Color Lookup Table (0028,1201)")


def _palette_bits(header: Dataset) -> int | None:
    """Return 8 for tables without an entry above 255, which some devices write in words (PS3.3 C.7.6.3.1.5)."""
    if (descriptor := exact(header, "RedPaletteColorLookupTableDescriptor", 3)) is None:
        return None
    first, count = int(descriptor[1]), int(descriptor[0]) % (1 << 16) or 1 << 16
    entries = _coloured(np.arange(first, first + count), header)
    return 8 if entries.max(initial=0) <= FULL_SCALE else None


def _looked_up(
    apply: Callable[[np.ndarray, Dataset], np.ndarray], stored: np.ndarray, header: Dataset, name: str
) -> np.ndarray:
    try:
        return apply(stored, header)
    except Exception as error:  # pydicom may raise anything on broken tables
        raise UndecodablePixels(f"{name} cannot be applied: {type(error).__name__}: {error}"[:300]) from error


def _finite(image: np.ndarray) -> np.ndarray:
    largest = float(np.finfo(np.float32).max)
    finite = np.asarray(image, dtype=np.float64)
    if not np.isfinite(finite).all():
        finite = np.nan_to_num(finite, posinf=largest, neginf=-largest)
    return np.asarray(finite.clip(-largest, largest), dtype=np.float32)


def _scaled_rgb(colours: np.ndarray, *, bits: int | None = None) -> np.ndarray:
    """Scale RGB of any bit depth to 0..255."""
    depth = bits if bits and bits <= colours.dtype.itemsize * 8 else colours.dtype.itemsize * 8
    return _finite(colours.astype(np.float32) * (FULL_SCALE / ((1 << depth) - 1)))
