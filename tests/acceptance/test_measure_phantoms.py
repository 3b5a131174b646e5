"""How far measures of CT are from the truth of phantoms: bias and 95 % limits of agreement (Bland & Altman 1986).

    pytest -m acceptance tests/acceptance/test_measure_phantoms.py -s

prints the table; differences are relative, in per cent of the truth.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pydicom
import pytest
from support.ct_phantoms import (
    FAT_HU,
    LUNG_HU,
    SHARP,
    SOFT,
    Kernel,
    Part,
    Scan,
    circular_field,
    disc,
    ellipse,
    imaged,
    noise,
    peak_frequency,
    repeated,
    stack,
    table,
)
from support.header_builders import DEMO

from mediqa_node.dicom.pixels import to_image
from mediqa_node.domain.measure_facts import CtDose, CtFacts
from mediqa_node.domain.measures import Limit, Measure
from mediqa_node.domain.size_specific_dose import size_factor
from mediqa_node.image.measure.ct.series import measure_ct

pytestmark = pytest.mark.acceptance

FACTS = CtFacts(dose=CtDose(ctdi_vol_mgy=10.0, phantom_cm=32), body_part="body")

Pair = tuple[float, float]
"""Truth and what was measured."""


@dataclass(frozen=True)
class Row:
    """One line of the table: pairs, and how far bias and limits of agreement may go, in per cent."""

    measure: str
    over: str
    pairs: Callable[[], Iterator[Pair]]
    bias: float
    agreement: float


def measured(images: list[np.ndarray], pixel_mm: float, name: str) -> Measure:
    [found] = measure_ct(stack(images, pixel_mm), FACTS, [name])
    return found


def value(images: list[np.ndarray], pixel_mm: float, name: str) -> float:
    found = measured(images, pixel_mm, name)
    assert found.value is not None, (name, found.reason)
    return found.value


def bodies() -> Iterator[tuple[list[Part], float]]:
    """Phantoms and their true water-equivalent diameters, mm."""
    for diameter in (100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0):
        yield [disc(diameter)], diameter
    for height, width in ((180.0, 260.0), (240.0, 340.0), (300.0, 380.0)):
        yield [ellipse(-20.0, 10.0, height, width, 0.0)], np.sqrt(height * width)
    lungs = [ellipse(-10.0, side * 80.0, 140.0, 100.0, LUNG_HU) for side in (-1, 1)]
    yield [ellipse(0.0, 0.0, 230.0, 330.0, 0.0), *lungs], np.sqrt(230.0 * 330.0 - 2 * 0.85 * 140.0 * 100.0)
    arms = [disc(75.0, 0.0, 10.0, side * 155.0) for side in (-1, 1)]
    yield [ellipse(0.0, 0.0, 200.0, 220.0, 0.0), *arms], np.sqrt(200.0 * 220.0 + 2 * 75.0**2)


def dw_pairs() -> Iterator[Pair]:
    for parts, truth in bodies():
        for noise_hu in (0.0, 15.0, 50.0):
            yield truth, value([imaged(parts, Scan(pixel_mm=0.9, noise_hu=noise_hu))], 0.9, "ct.dw")


def dw_on_table() -> Iterator[Pair]:
    """Every patient touches the table, whose upper edge lies half a millimetre inside of it."""
    for diameter in (150.0, 200.0, 250.0, 300.0):
        parts = [*table(diameter / 2 - 30.5), disc(diameter, 0.0, -30.0)]
        yield diameter, value([imaged(parts, Scan(noise_hu=15.0))], 0.8, "ct.dw")


def dw_cut() -> Iterator[Pair]:
    """Patients of whom the field cuts a twentieth to a quarter of the outline: limited, and too small."""
    for circular in (False, True):
        for width in (300.0, 360.0, 420.0, 480.0):
            for column_mm in (0.0, 40.0, 80.0):
                image = imaged([ellipse(0.0, column_mm, 260.0, width, 0.0)], Scan())
                image = circular_field(image) if circular else image
                cut, dw = (measured([image], 0.8, name) for name in ("ct.truncation", "ct.dw"))
                if 0.05 <= cut.value <= 0.25:
                    assert dw.limit is Limit.TRUNCATED
                    yield np.sqrt(260.0 * width), dw.value


def noise_pairs(*spectra: str) -> Iterator[Pair]:
    for spectrum in spectra:
        for kernel in (SOFT, SHARP):
            for pixel_mm in (0.6, 0.9):
                for noise_hu in (4.0, 12.0, 40.0):
                    scan = Scan(kernel=kernel, pixel_mm=pixel_mm, noise_hu=noise_hu, spectrum=spectrum)
                    yield noise_hu, value(repeated([disc(240.0, 50.0)], scan, 3), pixel_mm, "ct.noise.soft")


def noise_of_long_correlation() -> Iterator[Pair]:
    """Against the deviation of the inserted noise about a plane over the same windows, which its correlation fills."""
    for pixel_mm in (0.6, 0.9):
        edge = round(10 / pixel_mm)
        y, x = (place.ravel() for place in np.indices((edge, edge)))
        plane = np.column_stack([np.ones(edge * edge), y, x])
        for noise_hu in (4.0, 12.0, 40.0):
            scan = Scan(pixel_mm=pixel_mm, noise_hu=noise_hu, spectrum="low")
            inserted = noise(scan)
            corners = [(i, j) for i in range(0, 500 - edge, 11) for j in range(0, 500 - edge, 11)]
            windows = np.stack([inserted[i : i + edge, j : j + edge].ravel() for i, j in corners], axis=1)
            left = windows - plane @ np.linalg.lstsq(plane, windows, rcond=None)[0]
            local = np.sqrt((left**2).sum(axis=0) / (edge * edge - 3))
            found = value(repeated([disc(240.0, 50.0)], scan, 3), pixel_mm, "ct.noise.soft")
            yield float(np.median(local)), found


def noise_in_anatomy() -> Iterator[Pair]:
    """Organs, fat, vessels and bone, with a slope of 40 HU across the body."""
    rng = np.random.default_rng(5)
    for noise_hu in (5.0, 12.0, 30.0):
        vessels = [disc(float(rng.uniform(4, 12)), 130.0, *rng.uniform(-80, 80, 2)) for _ in range(40)]
        organs = [disc(90.0, 110.0, -30.0, -50.0), disc(70.0, 40.0, 40.0, 50.0), disc(40.0, 700.0, 85.0, 0.0)]
        parts = [ellipse(0.0, 0.0, 250.0, 330.0, FAT_HU), ellipse(0.0, 0.0, 220.0, 300.0, 55.0), *organs, *vessels]
        slope = np.linspace(-20, 20, 512)[None, :]
        images = [
            np.maximum(image + slope, -1024).astype(np.float32) for image in repeated(parts, Scan(noise_hu=noise_hu), 3)
        ]
        yield noise_hu, value(images, 0.8, "ct.noise.soft")


def peak_pairs() -> Iterator[Pair]:
    for kernel in (Kernel(0.25), SOFT, Kernel(0.45), SHARP, Kernel(0.7, 3.0, 0.2)):
        for pixel_mm in (0.5, 0.7):
            scan = Scan(kernel=kernel, pixel_mm=pixel_mm, noise_hu=15.0)
            images = repeated([disc(200.0, 50.0)], scan, 8)
            yield peak_frequency(scan), value(images, pixel_mm, "ct.noise.peak_frequency")


def sharpness_pairs(kernels: tuple[Kernel, ...], noise_hu: float) -> Iterator[Pair]:
    for kernel in kernels:
        for pixel_mm in (0.5, 0.7):
            skin = [disc(220.0, 30.0), disc(217.0, FAT_HU), disc(180.0, 50.0)]
            for parts in ([disc(220.0, 20.0)], skin):
                images = repeated(parts, Scan(kernel=kernel, pixel_mm=pixel_mm, noise_hu=noise_hu), 3)
                yield kernel.true_f50, value(images, pixel_mm, "ct.sharpness")


def ssde_pairs() -> Iterator[Pair]:
    for parts, truth in bodies():
        factor = size_factor(truth, 32, "body")
        assert isinstance(factor, float)
        yield 10.0 * factor, value([imaged(parts, Scan(pixel_mm=0.9, noise_hu=15.0))], 0.9, "ct.ssde")


SOFT_KERNELS = (Kernel(0.25), SOFT, Kernel(0.45), Kernel(0.35, 1.5))
SHARP_KERNELS = (SHARP, Kernel(0.6, 2.5))
ROWS = (
    Row("ct.dw", "water, ellipses, lungs, arms", dw_pairs, 1.0, 1.5),
    Row("ct.dw", "touching a table", dw_on_table, 1.0, 1.5),
    Row("ct.dw", "5 to 25 % of the outline cut", dw_cut, 8.0, 8.0),
    Row("ct.ssde", "water, ellipses, lungs, arms", ssde_pairs, 1.0, 1.5),
    Row("ct.noise.soft", "filtered back projection", lambda: noise_pairs("fbp"), 2.0, 3.0),
    Row("ct.noise.soft", "white", lambda: noise_pairs("white"), 2.0, 3.0),
    Row("ct.noise.soft", "long correlation, same window", noise_of_long_correlation, 8.0, 6.0),
    Row("ct.noise.soft", "in anatomy", noise_in_anatomy, 8.0, 8.0),
    Row("ct.noise.peak_frequency", "filtered back projection", peak_pairs, 5.0, 10.0),
    Row("ct.sharpness", "soft kernels, 10 HU", lambda: sharpness_pairs(SOFT_KERNELS, 10.0), 4.0, 6.0),
    Row("ct.sharpness", "soft kernels, 40 HU", lambda: sharpness_pairs(SOFT_KERNELS, 40.0), 6.0, 10.0),
    Row("ct.sharpness", "sharp kernels, 30 HU", lambda: sharpness_pairs(SHARP_KERNELS, 30.0), 6.0, 13.0),
)  # fmt: skip


def show(measure: str, over: str, figures: str) -> None:
    print(f"\n{measure:24} {over:32} {figures}")  # noqa: T201


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.measure}, {row.over}")
def test_a_measure_agrees_with_the_truth_of_phantoms(row: Row) -> None:
    truth, found = np.array(list(row.pairs())).T

    difference = 100 * (found - truth) / truth
    bias, half_width = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
    limits = f"{bias - half_width:+6.1f} to {bias + half_width:+5.1f} %"
    worst = f"{np.abs(difference).max():4.1f} %"
    show(row.measure, row.over, f"n {len(truth):3}  bias {bias:+5.1f} %  limits {limits}  worst {worst}")
    assert abs(bias) <= row.bias
    assert half_width <= row.agreement


def test_noise_follows_the_inverse_root_of_the_dose() -> None:
    doses = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    scans = [replace(Scan(), noise_hu=60.0 / np.sqrt(dose)) for dose in doses]

    found = [value(repeated([disc(240.0, 50.0)], scan, 3), 0.8, "ct.noise.soft") for scan in scans]

    slope, _ = np.polyfit(np.log(doses), np.log(found), 1)
    show("ct.noise.soft", "power of the dose", f"slope {slope:+.3f}")
    assert slope == pytest.approx(-0.5, abs=0.01)


def test_noise_that_is_added_to_real_patients_comes_back() -> None:
    """Measured before and after, in quadrature, against what was added: one to four times the patient's own noise."""
    recovered = []
    for path in sorted(DEMO.glob("*.dcm")):
        header = pydicom.dcmread(path)
        pixel_mm, image = float(header.PixelSpacing[0]), to_image(header.pixel_array, header, None)
        before = value([image], pixel_mm, "ct.noise.soft")
        for times in (1, 2, 4):
            added = noise(Scan(size_px=image.shape[0], pixel_mm=pixel_mm, noise_hu=times * before, seed=times))
            after = value([(image + added).astype(np.float32)], pixel_mm, "ct.noise.soft")
            recovered.append(np.sqrt(max(after**2 - before**2, 0.0)) / (times * before))

    bias, spread = 100 * (np.mean(recovered) - 1), 100 * np.std(recovered, ddof=1)
    show("ct.noise.soft", "added to real patients", f"n {len(recovered):3}  bias {bias:+5.1f} %  SD {spread:4.1f} %")
    assert abs(bias) < 6.0
    assert spread < 12.0


def test_dw_depends_neither_on_noise_nor_on_padding() -> None:
    body = [ellipse(0.0, 0.0, 240.0, 340.0, 0.0)]
    images = [imaged(body, Scan(noise_hu=sd)) for sd in (0.0, 30.0, 80.0)]
    images += [circular_field(images[1]), np.pad(images[1], 128, constant_values=-1024)]

    found = [value([image], 0.8, "ct.dw") for image in images]

    show("ct.dw", "noise and padding", f"spread {np.ptp(found) / found[0]:.2%}")
    assert np.ptp(found) < 0.005 * found[0]
