"""Measures of CT on real images: noise against regions drawn before it ran, agreement of neighbours and of copies.

    pytest -n 0 -s -m acceptance tests/acceptance/test_measures_real.py --collection DIR

The tables are printed with `-s`.
"""

import numpy as np
import pytest
from acceptance.noise_regions import read_regions, slice_noise, slices
from acceptance.series import Series, print_table

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter
from mediqa_node.dicom.prompt_rules import default_rules
from mediqa_node.domain.measure_facts import CtFacts
from mediqa_node.domain.measures import Measure
from mediqa_node.domain.quantities import CT_DW, CT_NOISE, CT_SHARPNESS, MR_NONUNIFORMITY, MR_SNR
from mediqa_node.image.measure.ct.series import measure_ct
from mediqa_node.image.measure.stack_source import StackSource, coarse
from mediqa_node.pipeline.measures import measure_series
from mediqa_node.pipeline.score import SeriesFiles, harvest_series, read_headers

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore::UserWarning")]

RMS = 0.10
"""Largest root mean square of the relative error of noise over the slices with regions."""


def _noise_of(image: np.ndarray, spacing_mm: tuple[float, float], part: str | None) -> float | None:
    source = StackSource(count=1, image_at=lambda _: image, coarse_at=lambda _: coarse(image), spacing_mm=spacing_mm)
    [measure] = measure_ct(source, CtFacts(body_part=part), {CT_NOISE.name})
    return measure.value


# ── noise ────────────────────────────────────────────────────────────────────


def test_noise_is_that_of_regions_drawn_before_it_ran(collection: dict[str, Series]) -> None:
    lines, ratios = [], []
    with FrameReader() as reader:
        for regions in slices(read_regions()):
            series = collection[regions[0].series_instance_uid]
            image, spacing_mm = _slice(series, regions[0].sop_instance_uid, reader)
            truth, value = slice_noise(image, spacing_mm, regions), _noise_of(image, spacing_mm, series.body_part)
            ratios += [] if value is None else [value / truth]
            tissue = ", ".join(dict.fromkeys(one.tissue for one in regions))
            shown = ("none", "") if value is None else (f"{value:.1f}", f"{value / truth:.2f}")
            lines.append(f"{series.set_name:34}{tissue[:33]:34}{truth:11.1f}{shown[0]:>11}{shown[1]:>7}")
    found = np.array(ratios)
    rms, spread = float(np.sqrt(np.mean((found - 1) ** 2))), 1.96 * float(found.std(ddof=1))
    print_table(
        f"{'set':34}{'tissue':34}{'regions HU':>11}{'measure HU':>11}{'ratio':>7}",
        lines,
        f"{len(found)} of {len(lines)} slices, median ratio {np.median(found):.3f}, RMS of relative errors {rms:.3f}",
        f"limits of agreement (95 %) {found.mean() - spread:.2f} to {found.mean() + spread:.2f}",
    )
    assert len(found) >= 20
    assert rms <= RMS


def _slice(series: Series, sop_instance_uid: str, reader: FrameReader) -> tuple[np.ndarray, tuple[float, float]]:
    for stack in series.stacks:
        for index, frame in enumerate(stack.frames):
            if frame.sop_instance_uid == sop_instance_uid:
                image_at = image_getter(stack, series.files.paths, series.files.headers, reader, stored=False)
                return image_at(index), stack.spacing_mm[1:]
    raise LookupError(sop_instance_uid)


def test_a_sharper_kernel_has_more_noise_and_a_sharper_edge_and_the_same_patient(
    collection: dict[str, Series],
) -> None:
    """Two reconstructions of one acquisition, with a sharp and a soft kernel."""
    sets = {series.set_name: series for series in collection.values()}
    lines = []
    for sharp, soft in KERNEL_PAIRS:
        one, other = (_measures(sets[name], (CT_NOISE.name, CT_SHARPNESS.name, CT_DW.name)) for name in (sharp, soft))
        values = {name: (one[name].value, other[name].value) for name in one}
        lines += [f"{sharp:28}{soft:28}{name:18}{a!s:>22}{b!s:>22}" for name, (a, b) in values.items()]
        (noise, quiet), (edge, blunt), (wide, same) = values.values()
        assert noise is not None and quiet is not None and noise > 1.5 * quiet
        assert wide is not None and same is not None
        assert wide == pytest.approx(same, rel=0.01)
        if edge is not None and blunt is not None:
            assert edge > blunt
    print_table(f"{'sharp':28}{'soft':28}{'measure':18}{'sharp':>22}{'soft':>22}", lines)


KERNEL_PAIRS = (
    ("ct_chest_lungdx_a0001_s2", "ct_chest_lungdx_a0001_s3"),
    ("ct_chest_lungdx_a0002_s2", "ct_chest_lungdx_a0002_s3"),
)


# ── agreement of parts ───────────────────────────────────────────────────────


def test_every_other_slice_agrees_with_the_rest_within_the_stated_uncertainty(collection: dict[str, Series]) -> None:
    """Even and odd slices are two samples of one scan: their difference over its stated uncertainty is about normal."""
    lines, scores = [], {}
    for series in collection.values():
        stack = series.stacks[0]
        if len(stack.frames) < FEWEST or len({frame.sop_instance_uid for frame in stack.frames}) < len(stack.frames):
            continue  # frames of one object cannot be divided by files
        halves = [_of_files(series, parity) for parity in (0, 1)]
        a, b = (_measures_of(files, NEIGHBOURS) for files in halves)
        for name in a.keys() & b.keys():
            one, other = a[name], b[name]
            if one.value is None or other.value is None or one.uncertainty is None or other.uncertainty is None:
                continue
            error = float(np.hypot(one.uncertainty, other.uncertainty))
            z = (one.value - other.value) / error if error > 0 else 0.0
            scores.setdefault(name, []).append(z)
            lines.append(f"{series.set_name:34}{name:18}{one.value:12.4g}{other.value:12.4g}{error:12.3g}{z:8.2f}")
    summary = [
        f"{name}: {len(z)} stacks, |z| < 2 in {np.mean(np.abs(z) < 2):.0%}, RMS {np.sqrt(np.mean(np.square(z))):.2f}"
        for name, z in sorted(scores.items())
    ]
    print_table(f"{'set':34}{'measure':18}{'even':>12}{'odd':>12}{'error':>12}{'z':>8}", lines, *summary)
    for name, z in scores.items():
        assert len(z) >= 5, name
        assert np.mean(np.abs(z) < 2) >= 0.9, name


FEWEST = 7
NEIGHBOURS = (CT_NOISE.name, CT_DW.name, MR_SNR.name, MR_NONUNIFORMITY.name)


def _of_files(series: Series, parity: int) -> SeriesFiles:
    frames = series.stacks[0].frames[parity::2]
    return read_headers([series.files.paths[frame.instance_index] for frame in frames])


def _measures(series: Series, names: tuple[str, ...]) -> dict[str, Measure]:
    return _measures_of(series.files, names)


def _measures_of(files: SeriesFiles, names: tuple[str, ...]) -> dict[str, Measure]:
    found = measure_series(files, harvest_series(files), default_rules(), names)
    return {name: one for name in names if found is not None and (one := found.measure(name)) is not None}
