"""The hand-drawn noise regions: the table is sound, and the noise in a region is what it is said to be."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from acceptance.collection import image_sets
from acceptance.noise_regions import Region, inside, raw_noise, read_regions, reference_noise, slice_noise, slices
from pydicom.uid import UID

from mediqa_node.dicom.pixels import to_image

REGION = Region(
    collection_set="made",
    series_instance_uid="2.25.1",
    sop_instance_uid="2.25.2",
    frame_number=None,
    tissue="liver",
    shape="circle",
    row=40,
    column=50,
    size_mm=15,
)
SPACING_MM = (0.8, 0.7)


def white_noise(sd_hu: float) -> np.ndarray:
    return np.random.default_rng(1).normal(60, sd_hu, (80, 100))


def test_the_table_has_one_or_two_regions_of_10_to_15_mm_on_at_least_28_slices() -> None:
    regions = read_regions()

    assert len({region.sop_instance_uid for region in regions}) == len(slices(regions)) >= 28
    assert all(len(group) in (1, 2) for group in slices(regions))
    assert all(10 <= region.size_mm <= 15 for region in regions)
    assert all(UID(region.sop_instance_uid).is_valid and UID(region.series_instance_uid).is_valid for region in regions)


def test_regions_of_one_slice_do_not_coincide() -> None:
    for first, *others in slices(read_regions()):
        for other in others:
            assert max(abs(first.row - other.row), abs(first.column - other.column)) >= 10


@pytest.mark.parametrize("shape", ["circle", "square"])
def test_noise_of_known_sd_is_measured(shape: str) -> None:
    region = replace(REGION, shape=shape, size_mm=40)

    assert reference_noise(white_noise(12), SPACING_MM, region) == pytest.approx(12, rel=0.05)


def test_a_plane_is_not_noise() -> None:
    rows, columns = np.mgrid[:80, :100]
    flat = white_noise(10)
    sloped = flat + 5 * rows - 4 * columns

    assert reference_noise(sloped, SPACING_MM, REGION) == pytest.approx(reference_noise(flat, SPACING_MM, REGION))
    assert raw_noise(sloped, SPACING_MM, REGION) > 2 * raw_noise(flat, SPACING_MM, REGION)


def test_only_pixels_of_the_region_count() -> None:
    image = np.full((80, 100), 1000.0)
    rows, columns = np.mgrid[:80, :100]
    distance_mm = np.hypot((rows - 40) * 0.8, (columns - 50) * 0.7)
    image[distance_mm <= 7.5] = 60

    assert raw_noise(image, SPACING_MM, REGION) == 0
    assert raw_noise(image, SPACING_MM, replace(REGION, size_mm=17)) > 100


def test_a_slice_has_the_mean_of_its_regions() -> None:
    image = white_noise(10)
    other = replace(REGION, column=25)

    expected = (reference_noise(image, SPACING_MM, REGION) + reference_noise(image, SPACING_MM, other)) / 2

    assert slice_noise(image, SPACING_MM, (REGION, other)) == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [replace(REGION, row=5), replace(REGION, column=96), replace(REGION, shape="star")])
def test_a_region_beyond_the_image_or_of_unknown_shape_is_an_error(wrong: Region) -> None:
    with pytest.raises(ValueError, match=r"reaches beyond|unknown shape"):
        reference_noise(white_noise(10), SPACING_MM, wrong)


@pytest.mark.acceptance
def test_every_region_lies_in_tissue_of_the_collection(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    named = request.config.getoption("--collection", None) or os.environ.get("MEDIQA_COLLECTION")
    if not named:
        pytest.skip("needs --collection DIR")
    wanted = {region.collection_set for region in read_regions()}
    paths = [path for found in image_sets(Path(named), tmp_path) if found.name in wanted for path in found.paths]
    files = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in paths}

    for regions in slices(read_regions()):
        header = pydicom.dcmread(files[regions[0].sop_instance_uid])
        image = to_image(header.pixel_array, header, regions[0].frame_number)
        spacing_mm = (float(header.PixelSpacing[0]), float(header.PixelSpacing[1]))
        for region in regions:
            assert region.series_instance_uid == header.SeriesInstanceUID
            assert -20 < image[inside(image.shape, spacing_mm, region)].mean() < 500
            assert reference_noise(image, spacing_mm, region) > 0
