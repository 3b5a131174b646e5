"""Refuse header elements whose values cannot be true, so that none of them is read as a default.

What is refused and what is only doubted (`doubts`) is listed in docs/physics.md.
"""

from pydicom import Dataset

from mediqa_node.dicom.header import MAX_FRAMES, FrameHeader, exact, has_value, integer, items, text, unexpected_frames
from mediqa_node.dicom.stored_frames import contradiction, stored_frames
from mediqa_node.dicom.values import element_name
from mediqa_node.domain.errors import ImplausibleElement

SMALLEST_EDGE_PX = 16
LONGEST_STRIP = 16
"""Largest aspect ratio of an image: padded to a square, a longer one would fill the memory."""

_BITS_ALLOCATED = (1, 8, 16, 32, 64)
# Largest slope and intercept: of CT in HU, of other images in any unit.
_SLOPES = {"CT": (1e-6, 1e3), "": (1e-12, 1e9)}
_INTERCEPTS = {"CT": 1e5, "": 1e12}
_SAMPLES = {
    "MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3,
    "YBR_PARTIAL_420": 3, "YBR_PARTIAL_422": 3, "YBR_ICT": 3, "YBR_RCT": 3,
}  # fmt: skip
_PALETTE = tuple(
    f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")
)


def rescale(frame: FrameHeader, modality: str) -> tuple[float, float]:
    """Return Rescale Slope (0028,1053) and Rescale Intercept (0028,1052) of a frame; absent, they are 1 and 0.

    Raises:
        UnreadableElement: one of them holds no number, or several.
        ImplausibleElement: a slope of 0 or beyond all bounds, in CT a negative one, or an intercept beyond all bounds.
    """
    [slope] = frame.exact("RescaleSlope") or (1.0,)
    [intercept] = frame.exact("RescaleIntercept") or (0.0,)
    low, high = _SLOPES.get(modality, _SLOPES[""])
    if not low <= (slope if modality == "CT" else abs(slope)) <= high:
        raise ImplausibleElement(f"Rescale Slope (0028,1053) {slope:g} is not possible in {modality or 'this image'}")
    if abs(intercept) > _INTERCEPTS.get(modality, _INTERCEPTS[""]):
        raise ImplausibleElement(f"Rescale Intercept (0028,1052) {intercept:g} is not possible in {modality}")
    return slope, intercept


def check_matrix(ds: Dataset) -> None:
    """Raise ImplausibleElement for an image without rows or columns, or with so few that it shows nothing.

    A strip has too few as well; its proportions are refused elsewhere.
    """
    rows, columns = (int((exact(ds, key) or (0.0,))[0]) for key in ("Rows", "Columns"))
    short, long = sorted((rows, columns))
    if short < 1 or (short < SMALLEST_EDGE_PX and long <= LONGEST_STRIP * short):
        raise ImplausibleElement(
            f"Rows, Columns (0028,0010), (0028,0011) are {rows}, {columns}; at least {SMALLEST_EDGE_PX} are needed"
        )


def check_bits(ds: Dataset) -> None:
    """Raise ImplausibleElement where Bits Allocated, Bits Stored or Pixel Representation contradict PS3.3 C.7.6.3."""
    allocated, stored, sign = (exact(ds, key) for key in ("BitsAllocated", "BitsStored", "PixelRepresentation"))
    if allocated is not None and allocated[0] not in _BITS_ALLOCATED:
        raise ImplausibleElement(f"Bits Allocated (0028,0100) {allocated[0]:g} is none of 1, 8, 16, 32, 64")
    if stored is not None and not 1 <= stored[0] <= (allocated or (64.0,))[0]:
        limit = f"{allocated[0]:g} allocated" if allocated else "any"
        raise ImplausibleElement(f"Bits Stored (0028,0101) {stored[0]:g} of {limit}")
    if sign is not None and sign[0] not in (0, 1):
        raise ImplausibleElement(f"Pixel Representation (0028,0103) {sign[0]:g} is neither 0 nor 1")


def check_frames(ds: Dataset) -> None:
    """Raise ImplausibleElement where frames, functional groups and pixels of a multi-frame object are not as many.

    A Number of Frames above `MAX_FRAMES` is only doubted, and pixels that are cut short are left to the decoder.
    """
    groups = len(items(ds, "PerFrameFunctionalGroupsSequence"))
    claimed = integer(ds, "NumberOfFrames")
    stored, expected = stored_frames(ds) or 0, max(1, 1 if claimed is None else claimed)
    if expected > MAX_FRAMES or unexpected_frames(ds):
        return
    number = f"Number of Frames (0028,0008) is {'missing' if claimed is None else claimed}"
    if groups not in (0, expected):
        raise ImplausibleElement(f"{number}, Per-frame Functional Groups (5200,9230) has {groups} items")
    if stored > expected:
        raise ImplausibleElement(f"{number}, Pixel Data (7FE0,0010) holds {stored} frames")


def check_pixels(ds: Dataset) -> None:
    """Raise ImplausibleElement where the header does not tell how to read its pixels, or they contradict it."""
    if contrary := contradiction(ds):
        raise ImplausibleElement(f"the header does not fit Pixel Data (7FE0,0010): {contrary}")


def check_photometric(ds: Dataset) -> None:
    """Raise ImplausibleElement for an unknown Photometric Interpretation, or one that contradicts the samples.

    PALETTE COLOR needs its three tables (PS3.3 C.7.6.3.1.5 and C.7.9).
    """
    kind = text(ds, "PhotometricInterpretation").upper()
    [samples] = exact(ds, "SamplesPerPixel") or (_SAMPLES.get(kind, 1),)
    if kind and samples != _SAMPLES.get(kind):
        raise ImplausibleElement(
            f"Photometric Interpretation (0028,0004) {kind[:16]!a} with {samples:g} Samples per Pixel (0028,0002)"
        )
    if kind == "PALETTE COLOR" and (missing := missing_palette(ds)):
        raise ImplausibleElement(f"Photometric Interpretation (0028,0004) PALETTE COLOR without {missing}")


def missing_palette(ds: Dataset) -> str | None:
    """Return the first element of the palette color lookup tables that is missing, with its tag."""
    for key in _PALETTE:
        if not has_value(ds, key) and not (key.endswith("Data") and has_value(ds, f"Segmented{key}")):
            return element_name(key)
    return None


def rescales(ds: Dataset) -> bool:
    """Whether stored values are rescaled by slope and intercept, not by a Modality LUT Sequence (0028,3000)."""
    return not items(ds, "ModalityLUTSequence")
