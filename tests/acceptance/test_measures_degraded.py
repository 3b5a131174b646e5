"""Measures of real images with degradations of known size: measured against inserted, for each source.

    pytest -n 0 -s -m acceptance tests/acceptance/test_measures_degraded.py --collection DIR

The noise and the sharpness that the images have already count with what is added: variances add, and so do the inverse
squares of the frequencies at which two nearly Gaussian transfers fall to one half. The tables are printed with `-s`.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from acceptance.series import Series, print_table
from scipy import ndimage
from support.ct_phantoms import Scan, noise

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter
from mediqa_node.dicom.header import frame_header
from mediqa_node.dicom.technique.stack_facts import mr_facts
from mediqa_node.domain.measure_facts import CtFacts
from mediqa_node.domain.measures import Measure
from mediqa_node.domain.quantities import CT_DW, CT_NOISE, CT_SHARPNESS, MR_GHOST
from mediqa_node.image.measure.ct.series import measure_ct
from mediqa_node.image.measure.mr.series import measure_mr
from mediqa_node.image.measure.stack_source import StackSource, coarse, evenly

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore::UserWarning")]

SLICES = 3
NOISE_HU = (5.0, 10.0, 20.0, 40.0)
BLUR_MM = (0.5, 0.8, 1.2, 1.8)
GHOSTS = (0.02, 0.04, 0.08, 0.16)
REALISATIONS = 5
Spacing = tuple[float, float]


def test_noise_added_to_patients_is_measured(collection: dict[str, Series]) -> None:
    """In quadrature with the image's own noise; noise of the spectrum of filtered back projection."""
    fits, ratio = _compared(collection, CT_NOISE.name, NOISE_HU, _noisy, _in_quadrature)

    assert len(fits) >= 8
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.03)
    assert 1.96 * np.std(ratio, ddof=1) < 0.08
    assert all(0.9 < slope < 1.1 and r2 > 0.99 for slope, r2 in fits.values())


def test_the_slope_of_noise_hangs_on_no_single_realisation(collection: dict[str, Series]) -> None:
    """Of the five noisiest sources, whose slopes are least certain: in the same bounds, within its standard error."""

    def slope(images: list[np.ndarray], spacing_mm: Spacing, series: Series, own: float, realisation: int) -> float:
        first = 1000 * realisation
        noisy = [[_noisy(one, spacing_mm, level, first + i) for i, one in enumerate(images)] for level in NOISE_HU]
        found = [_value(worse, spacing_mm, series, CT_NOISE.name) for worse in noisy]
        return _fit([_in_quadrature(own, level) for level in NOISE_HU], found)[0]

    sources = [(_value(*of, CT_NOISE.name) or 0.0, name, of) for name, *of in _ct(collection)]
    lines, means = [], []
    for own, name, of in sorted(sources, key=lambda source: source[0])[-5:]:
        slopes = np.array([slope(*of, own, realisation) for realisation in range(REALISATIONS)])
        means.append((slopes.mean(), slopes.std(ddof=1) / np.sqrt(REALISATIONS)))
        lines.append(f"{name:34}{own:8.1f}{slopes.mean():8.2f} ± {slopes.std(ddof=1):.2f}")
    print_table(f"{'ct.noise.soft of':34}{'own':>8}   slope, mean ± SD of {REALISATIONS}", lines)
    assert all(0.9 - error < mean < 1.1 + error for mean, error in means)


def test_blur_of_patients_is_measured(collection: dict[str, Series]) -> None:
    """A Gaussian of standard deviation s has its half transfer at sqrt(ln 2 / 2) / (pi s)."""

    def blurred(image: np.ndarray, spacing_mm: Spacing, level: float, number: int) -> np.ndarray:
        del number
        return np.asarray(ndimage.gaussian_filter(image, [level / step for step in spacing_mm], mode="nearest"))

    def expected(own: float, level: float) -> float:
        half = np.sqrt(np.log(2) / 2) / (np.pi * level)
        return float(1 / np.sqrt(1 / own**2 + 1 / half**2))

    fits, ratio = _compared(collection, CT_SHARPNESS.name, BLUR_MM, blurred, expected, slices=16)

    assert len(fits) >= 6
    assert np.median([slope for slope, _ in fits.values()]) == pytest.approx(1.0, abs=0.1)
    # sharp kernels are no Gaussians: what is expected of them is a few percent low
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.08)
    assert 1.96 * np.std(ratio, ddof=1) < 0.13


def test_size_does_not_follow_noise_or_blur(collection: dict[str, Series]) -> None:
    lines, largest = [], 0.0
    for name, images, spacing_mm, series in _ct(collection):
        own = _value(images, spacing_mm, series, CT_DW.name)
        if own is None:
            continue
        rng = np.random.default_rng(1)
        worse = [ndimage.gaussian_filter(image, 1.0) + rng.normal(0, 40, image.shape) for image in images]
        found = _value([one.astype(np.float32) for one in worse], spacing_mm, series, CT_DW.name)
        assert found is not None
        largest = max(largest, abs(found / own - 1))
        lines.append(f"{name:34}{own:10.1f}{found:10.1f}{found / own - 1:+9.2%}")
    print_table(f"{'ct.dw of':34}{'clean':>10}{'degraded':>10}{'':>9}", lines)
    assert largest < 0.02


def test_ghosts_inserted_into_patients_are_followed(collection: dict[str, Series]) -> None:
    """A copy shifted by half the field along phase encoding; the ratio rises linearly with its strength."""
    lines, r2s = [], []
    for series in collection.values():
        stack = series.stacks[0]
        first = stack.frames[0]
        facts = mr_facts(frame_header(series.files.headers[first.instance_index], first.frame_number))
        if not series.set_name.startswith("mr_") or facts.phase_axis is None:
            continue
        images = _images(series)
        spacing_mm = stack.spacing_mm[1:]
        values = []
        for strength in (0.0, *GHOSTS):
            axis = facts.phase_axis
            ghosts = [one + strength * np.roll(one, one.shape[axis] // 2, axis) for one in images]
            [found] = measure_mr(_source(ghosts, spacing_mm), facts, {MR_GHOST.name})
            values.append(found.value)
        if any(value is None for value in values):
            lines.append(f"{series.set_name:34}{'not measurable':>16}")
            continue
        slope, r2 = _fit((0.0, *GHOSTS), values)
        r2s.append(r2)
        shown = "".join(f"{value:9.3f}" for value in values)
        lines.append(f"{series.set_name:34}{shown}{slope:8.2f}{r2:7.3f}")
    print_table(
        f"{'mr.ghost_ratio at':34}" + "".join(f"{one:9.2f}" for one in (0.0, *GHOSTS)) + "   slope     R2", lines
    )
    assert len(r2s) >= 3
    assert np.median(r2s) > 0.97


def _noisy(image: np.ndarray, spacing_mm: Spacing, level: float, number: int) -> np.ndarray:
    scan = Scan(size_px=max(image.shape), pixel_mm=spacing_mm[0], noise_hu=level, seed=100 + number)
    added = noise(scan)[: image.shape[0], : image.shape[1]]
    return np.maximum(np.rint(image + added), -1024).astype(np.float32)


def _in_quadrature(own: float, level: float) -> float:
    return float(np.hypot(own, level))


# ── sources ──────────────────────────────────────────────────────────────────


def _compared(
    collection: dict[str, Series],
    name: str,
    levels: Sequence[float],
    degraded: Callable[[np.ndarray, Spacing, float, int], np.ndarray],
    expected: Callable[[float, float], float],
    slices: int = SLICES,
) -> tuple[dict[str, tuple[float, float]], np.ndarray]:
    """Print measured against expected for each source; return slope and R² by source, and measured over expected.

    Of values that are valid, of sources whose own is valid; a star marks those that are limited.
    """
    lines, fits, pairs = [], {}, []
    for source, images, spacing_mm, series in _ct(collection, slices):
        own = _measure(images, spacing_mm, series, name)
        if own.value is None:
            lines.append(f"{source:34}{'not measurable':>16}")
            continue
        wanted, found = [], []
        for level in levels:
            worse = [degraded(image, spacing_mm, level, number) for number, image in enumerate(images)]
            wanted.append(expected(own.value, level))
            found.append(_measure(worse, spacing_mm, series, name))
        shown = "".join(f"{_shown(one):>9}/{want:<8.3g}" for one, want in zip(found, wanted, strict=True))
        valid = [
            (one.value, want)
            for one, want in zip(found, wanted, strict=True)
            if own.limit is None and one.limit is None and one.value is not None
        ]
        line = f"{source:34}{_shown(own):>8}  {shown}"
        if len(valid) > 2:
            fits[source] = _fit([want for _, want in valid], [value for value, _ in valid])
            line += f"{fits[source][0]:7.2f}{fits[source][1]:8.4f}"
        lines.append(line)
        pairs += valid
    ratio = np.array([value / want for value, want in pairs])
    spread = 1.96 * float(ratio.std(ddof=1))
    levels_shown = "".join(f"{'+ ' + format(level, 'g'):>18}" for level in levels)
    print_table(
        f"{name + ' of':34}{'own':>8}  {levels_shown}  slope      R2",
        lines,
        f"measured / expected: {len(ratio)} values of {len(fits)} sources, mean {ratio.mean():.3f}, "
        f"limits of agreement {ratio.mean() - spread:.2f} to {ratio.mean() + spread:.2f}",
    )
    return fits, ratio


def _shown(measure: Measure) -> str:
    if measure.value is None:
        return "-"
    return f"{measure.value:.3g}" + ("*" if measure.limit else "")


def _ct(
    collection: dict[str, Series],
    slices: int = SLICES,
) -> list[tuple[str, list[np.ndarray], Spacing, Series]]:
    """Return one CT series of each set, with evenly spaced slices."""
    found: dict[str, tuple[str, list[np.ndarray], Spacing, Series]] = {}
    for series in collection.values():
        if series.set_name.startswith("ct_") and series.set_name not in found:
            images = _images(series, slices)
            found[series.set_name] = (series.set_name, images, series.stacks[0].spacing_mm[1:], series)
    return list(found.values())


def _images(series: Series, slices: int = SLICES) -> list[np.ndarray]:
    stack = series.stacks[0]
    with FrameReader() as reader:
        image_at = image_getter(stack, series.files.paths, series.files.headers, reader, stored=False)
        return [image_at(index) for index in evenly(len(stack.frames), slices)]


def _source(images: Sequence[np.ndarray], spacing_mm: Spacing) -> StackSource:
    return StackSource(
        count=len(images),
        image_at=lambda index: images[index],
        coarse_at=lambda index: coarse(images[index]),
        spacing_mm=spacing_mm,
    )


def _value(images: Sequence[np.ndarray], spacing_mm: Spacing, series: Series, name: str) -> float | None:
    return _measure(images, spacing_mm, series, name).value


def _measure(images: Sequence[np.ndarray], spacing_mm: Spacing, series: Series, name: str) -> Measure:
    [one] = measure_ct(_source(images, spacing_mm), CtFacts(body_part=series.body_part), {name})
    return one


def _fit(x: Sequence[float], y: Sequence[float | None]) -> tuple[float, float]:
    """Return slope and coefficient of determination of a straight line."""
    values = np.array(y, dtype=np.float64)
    slope, offset = np.polyfit(x, values, 1)
    left = values - (slope * np.array(x) + offset)
    return float(slope), float(1 - (left**2).sum() / ((values - values.mean()) ** 2).sum())
