"""Regions of homogeneous tissue drawn by hand on real CT slices, and the noise in them.

The regions are the truth that a measure of global noise is judged against; `noise_regions.md` says how they were
drawn. A region's noise is the sample standard deviation (SD) of its pixels about a fitted plane, so that a slow change
of attenuation (beam hardening, perfusion) does not count as noise. The SD about the mean is there for comparison.

Assumes tissue that is uniform apart from that plane. The fit also removes the noise of wavelengths much longer than
the region, so the noise of smooth kernels is slightly underestimated.
"""

import csv
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One region on one slice.

    Attributes:
        collection_set: folder of the image set in the collection.
        sop_instance_uid: of the slice; where the set's UIDs are blank, the one that `collection.with_uids` writes.
        frame_number: from 1; None for a single-frame object.
        shape: `circle` or `square`.
        row, column: of the centre, in pixels from 0 at the centre of the first pixel.
        size_mm: diameter of a circle, edge of a square.
    """

    collection_set: str
    series_instance_uid: str
    sop_instance_uid: str
    frame_number: int | None
    tissue: str
    shape: str
    row: float
    column: float
    size_mm: float


def read_regions(file: Path = FILE) -> tuple[Region, ...]:
    """Return all regions of a table, in its order."""
    with file.open(newline="", encoding="utf-8") as table:
        return tuple(_region(line) for line in csv.DictReader(table))


def slices(regions: tuple[Region, ...]) -> tuple[tuple[Region, ...], ...]:
    """Return the regions of each slice; those of one slice are neighbours in the table."""
    return tuple(tuple(group) for _, group in groupby(regions, lambda r: (r.sop_instance_uid, r.frame_number)))


def reference_noise(image_hu: np.ndarray, spacing_mm: tuple[float, float], region: Region) -> float:
    """Return the sample SD in HU of a region's pixels about a fitted plane.

    Args:
        image_hu: shape (rows, columns).
        spacing_mm: of rows and of columns, as in Pixel Spacing (0028,0030).
    """
    chosen = inside(image_hu.shape, spacing_mm, region)
    rows, columns = np.nonzero(chosen)
    values = image_hu[chosen].astype(np.float64)
    plane = np.column_stack([np.ones(rows.size), rows - region.row, columns - region.column])
    residuals = values - plane @ np.linalg.lstsq(plane, values, rcond=None)[0]
    return float(np.sqrt(residuals @ residuals / (rows.size - 3)))


def raw_noise(image_hu: np.ndarray, spacing_mm: tuple[float, float], region: Region) -> float:
    """Return the sample SD in HU of a region's pixels about their mean."""
    return float(np.std(image_hu[inside(image_hu.shape, spacing_mm, region)], ddof=1, dtype=np.float64))


def slice_noise(image_hu: np.ndarray, spacing_mm: tuple[float, float], regions: tuple[Region, ...]) -> float:
    """Return a slice's reference noise in HU: the mean over its regions."""
    return float(np.mean([reference_noise(image_hu, spacing_mm, region) for region in regions]))


def inside(shape: tuple[int, ...], spacing_mm: tuple[float, float], region: Region) -> np.ndarray:
    """Return a mask of the pixels whose centres lie in the region.

    Raises:
        ValueError: the shape is unknown, or part of the region lies outside the image.
    """
    half_mm = region.size_mm / 2
    for centre, spacing, count in zip((region.row, region.column), spacing_mm, shape, strict=True):
        if centre - half_mm / spacing < -0.5 or centre + half_mm / spacing > count - 0.5:
            raise ValueError(f"region at ({region.row:g}, {region.column:g}) reaches beyond an image of {shape}")
    rows_mm = (np.arange(shape[0])[:, None] - region.row) * spacing_mm[0]
    columns_mm = (np.arange(shape[1])[None, :] - region.column) * spacing_mm[1]
    if region.shape == "circle":
        return np.hypot(rows_mm, columns_mm) <= half_mm
    if region.shape == "square":
        return np.maximum(np.abs(rows_mm), np.abs(columns_mm)) <= half_mm
    raise ValueError(f"unknown shape {region.shape!r}")


def _region(line: dict[str, str]) -> Region:
    return Region(
        collection_set=line["set"],
        series_instance_uid=line["series_instance_uid"],
        sop_instance_uid=line["sop_instance_uid"],
        frame_number=int(line["frame_number"]) if line["frame_number"] else None,
        tissue=line["tissue"],
        shape=line["shape"],
        row=float(line["row"]),
        column=float(line["column"]),
        size_mm=float(line["size_mm"]),
    )
