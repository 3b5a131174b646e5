"""How far measures of fundus photographs and stacks are from the truth: tables, printed with `-s`.

    pytest -n 0 -s -m acceptance tests/acceptance/test_measure_phantoms_op.py --collection DIR

The first tables are of synthetic photographs; the last are of real ones, degraded by known amounts, and need a
collection of photographs by source (`fundus_*`), else those of tests/data.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pydicom
import pytest
from acceptance.collection import image_sets
from PIL import Image
from scipy import ndimage, stats
from support.op_phantoms import Fundus, render, share_inside, source_of, tilt_unevenness, with_text

from mediqa_node.dicom.pixels import to_image
from mediqa_node.domain.quantities import OP_QUANTITIES
from mediqa_node.image.measure.burned_in import holds_text
from mediqa_node.image.measure.op.photograph import prepare
from mediqa_node.image.measure.op.series import measure_op
from training.simulate.fundus import at_size

pytestmark = pytest.mark.acceptance

NAMES = tuple(one.name for one in OP_QUANTITIES)
BASE = Fundus(shape=(800, 960), diameter_px=720.0)
PHOTOGRAPHS = 6
BLURS = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01)
"""Standard deviations over the diameter of the field."""


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def measured(image: np.ndarray) -> dict[str, float]:
    found = measure_op(source_of(image.astype(np.float32)), NAMES)
    return {one.name.removeprefix("op."): np.nan if one.value is None else one.value for one in found}


def agreement(title: str, truth: Sequence[float], found: Sequence[float]) -> tuple[float, float, float]:
    """Print slope, R2, bias and limits of agreement (Bland & Altman 1986); return slope, R2 and the wider limit."""
    x, y = np.asarray(truth), np.asarray(found)
    known = np.isfinite(x) & np.isfinite(y)
    assert known.sum() >= 3, title
    x, y = x[known], y[known]
    off = y - x
    low, high = off.mean() - 1.96 * off.std(ddof=1), off.mean() + 1.96 * off.std(ddof=1)
    line = stats.linregress(x, y) if np.ptp(x) > 0 else None
    slope, r2 = (line.slope, line.rvalue**2) if line else (np.nan, np.nan)
    say(f"{title:44} n {len(x):3} slope {slope:6.3f} R2 {r2:5.3f} bias {off.mean():+.4f} limits {low:+.4f} {high:+.4f}")
    return float(slope), float(r2), float(max(abs(low), abs(high)))


def test_the_field_of_any_size_place_and_light_is_found() -> None:
    truth, found, share, covered = [], [], [], []
    for diameter, height, tilt, noise in product((300.0, 720.0, 1700.0), (0.7, 0.9, 1.1), (0.0, 0.4), (0.0, 6.0)):
        shape = (round(height * diameter), round(1.3 * diameter))
        phantom = replace(BASE, shape=shape, diameter_px=diameter, tilt=tilt, noise=noise, blur=0.002)
        values = measured(render(phantom))
        truth.append(diameter)
        found.append(values["field_diameter"])
        share.append(share_inside(phantom))
        covered.append(values["field_coverage"])

    relative = np.array(found) / np.array(truth)
    _, _, limit = agreement("diameter over truth", [1.0] * len(truth), relative)
    assert limit < 0.002
    slope, _, limit = agreement("coverage", share, covered)
    assert slope == pytest.approx(1, abs=0.05)
    assert limit < 0.01


def test_uneven_light_and_clipping_are_measured_as_inserted() -> None:
    tilts, uneven, shares, clipped = [], [], [], []
    for tilt, seed, noise in product((0.0, 0.1, 0.2, 0.4, 0.6), (1, 2), (0.0, 6.0)):
        tilts.append(tilt_unevenness(tilt))
        uneven.append(measured(render(replace(BASE, tilt=tilt, seed=seed, noise=noise, green=70.0)))["illumination"])
    for share, seed in product((0.0, 0.01, 0.05, 0.2), (1, 2)):
        shares.append(share)
        clipped.append(measured(render(replace(BASE, clipped=share, seed=seed)))["clipped"])

    slope, _, limit = agreement("illumination", tilts, uneven)
    assert (slope, limit) == (pytest.approx(1, abs=0.03), pytest.approx(0, abs=0.02))
    slope, _, limit = agreement("clipped", shares, clipped)
    assert (slope, limit) == (pytest.approx(1, abs=0.02), pytest.approx(0, abs=0.005))


@pytest.mark.parametrize(("blur", "noise"), [(0.0, 0.0), (0.002, 0.0), (0.002, 4.0), (0.004, 4.0)])
def test_the_contrast_of_vessels_is_linear_in_depth_and_veil(blur: float, noise: float) -> None:
    truth, found = [], []
    for depth, veil, seed in product((0.05, 0.1, 0.2, 0.3, 0.45), (0.0, 40.0), (1, 2)):
        phantom = replace(BASE, depth=depth, veil=veil, seed=seed, blur=blur, noise=noise)
        truth.append(depth * phantom.green / (phantom.green + veil))
        found.append(measured(render(phantom))["vessel_contrast"])

    slope, r2, _ = agreement(f"vessel contrast, blur {100 * blur:.1f} %, noise {noise:.0f}", truth, found)
    assert r2 > 0.98
    assert 0.65 < slope < 1.05


def test_focus_depends_on_blur_and_hardly_on_pixels_light_and_noise() -> None:
    columns = ("plain", "350 px", "1700 px", "tilt 0.4", "veil 40", "noise 4", "noise 10")  # the last is limited: noisy
    say("\nfocus by blur (% of the diameter)\n" + " ".join(f"{name:>9}" for name in ("blur", *columns)))
    rows = []
    for blur in BLURS:
        plain = replace(BASE, blur=blur)
        kinds = [
            plain,
            replace(plain, shape=(390, 460), diameter_px=350.0),
            replace(plain, shape=(1870, 2210), diameter_px=1700.0),
            replace(plain, tilt=0.4),
            replace(plain, veil=40.0),
            replace(plain, noise=4.0),
            replace(plain, noise=10.0),
        ]
        rows.append([measured(render(one))["focus"] for one in kinds])
        say(f"{100 * blur:9.2f} " + " ".join(f"{value:9.4f}" for value in rows[-1]))

    table = np.array(rows)
    assert (np.diff(table[:, :6], axis=0) <= 0).all()
    assert (np.diff(table[2:, :6], axis=0) < 0).all()
    sharp = table[:, 0] > 0.02
    for column in range(1, 6):
        agreement(f"focus, {columns[column]} against plain", table[:, 0], table[:, column])
        assert table[sharp, column] == pytest.approx(table[sharp, 0], rel=0.15 if column == 5 else 0.08)


def test_drawn_text_is_suspected_by_its_size_and_value() -> None:
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    say("\ntext found, of 24: rows are sizes in pixels, columns values over the largest of the image")
    say(" ".join(f"{name:>16}" for name in ("size", "1.0 sharp", "1.0 smooth", "1.3 sharp", "1.3 smooth")))
    for size in (7, 8, 9, 10, 12, 14, 18, 24, 36):
        counts = []
        for over, smooth in product((1.0, 1.3), (False, True)):
            found = 0
            for seed, place, text in product(range(4), ((6, 6), (110, 60)), ("DOE JOHN", "1960-01-01", "Smith 42y")):
                noise = np.random.default_rng(seed).rayleigh(12, x.shape)
                image = (180.0 * (np.hypot(y, x) < 0.7) + 250.0 * (np.hypot(y - 0.5, x) < 0.12) + noise).astype("f4")
                assert not holds_text(image)
                value = over * float(image.max())
                found += holds_text(with_text(image, text, size_px=size, place=place, value=value, smooth=smooth))
            counts.append(found)
        say(" ".join(f"{value:16}" for value in (size, *counts)))
        assert counts[2] == 24
        assert size < 10 or counts[3] == 24


def folder(request: pytest.FixtureRequest) -> Path:
    named = request.config.getoption("--collection", None) or os.environ.get("MEDIQA_COLLECTION")
    return Path(named) if named else Path(__file__).parents[1] / "data"


def sources(request: pytest.FixtureRequest) -> dict[str, list[np.ndarray]]:
    """Return up to six photographs of each source, RGB 0..255."""
    found = {}
    for source in sorted(folder(request).glob("fundus_*")):
        paths = sorted(source.glob("*.jp*g"))
        chosen = paths[:: max(1, len(paths) // PHOTOGRAPHS)][:PHOTOGRAPHS]
        found[source.name] = [at_size(np.asarray(Image.open(path).convert("RGB"))).astype(float) for path in chosen]
    return found


def test_blur_inserted_into_real_photographs_lowers_focus(request: pytest.FixtureRequest) -> None:
    say("\nfocus over that of the source, median, by blur (% of the diameter)")
    say(" ".join(f"{name:>9}" for name in [f"{100 * blur:.2f}" for blur in BLURS]))
    for source, images in sources(request).items():
        rows = []
        for image in images:
            photograph = prepare(image.astype(np.float32))
            assert photograph is not None
            sd_px = [blur * 2 * photograph.field.radius for blur in BLURS]
            rows.append([measured(ndimage.gaussian_filter(image, (sd, sd, 0), truncate=3.0))["focus"] for sd in sd_px])
        table = np.array(rows)
        line = " ".join(f"{value:9.3f}" for value in np.median(table / table[:, :1], axis=0))
        say(f"{line} {source} {len(images)}")
        assert (np.diff(table, axis=1) < 0).all()


def test_light_and_veil_inserted_into_real_photographs_are_measured(request: pytest.FixtureRequest) -> None:
    say("")
    for source, images in sources(request).items():
        even, uneven, clear, veiled = [], [], [], []
        for image in images:
            photograph = prepare(image.astype(np.float32))
            assert photograph is not None
            inside = photograph.field.mask(image.shape, share=0.94)
            contrast = measured(image)["vessel_contrast"]
            for ramp in (0.2, 0.5, 1.0, 1.4):
                gain = np.exp(-ramp * (1 - np.arange(image.shape[1]) / image.shape[1]))
                circle, field = photograph.circle, photograph.field
                places = field.column + (np.arange(photograph.green.shape[1]) - circle.column) * (
                    field.radius / circle.radius
                )
                level = np.interp(places, np.arange(image.shape[1]), gain)
                low, middle, high = np.percentile((photograph.background * level)[photograph.lit], (25, 50, 75))
                even.append((high - low) / middle)
                uneven.append(measured(image * gain[:, None])["illumination"])
            for veil in (0.1, 0.3, 0.5, 0.7):
                light = np.array([190.0, 180.0, 160.0]) * photograph.field.mask(image.shape)[..., None]
                hazy = image * (1 - veil) + veil * light
                clear.append(contrast * np.median(((1 - veil) * image[..., 1] / hazy[..., 1].clip(1))[inside]))
                veiled.append(measured(hazy)["vessel_contrast"])
        slope, r2, _ = agreement(f"illumination, {source}", even, uneven)
        assert slope == pytest.approx(1, abs=0.1)
        assert r2 > 0.95
        slope, r2, _ = agreement(f"contrast under a veil, {source}", clear, veiled)
        assert slope == pytest.approx(1, abs=0.1)
        assert r2 > 0.95


def test_no_text_is_suspected_in_clean_images(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    named = request.config.getoption("--collection", None) or os.environ.get("MEDIQA_COLLECTION")
    seen, suspected = 0, []
    for found in image_sets(Path(named) if named else None, tmp_path):
        for path in () if found.refused else found.paths:
            header = pydicom.dcmread(path)
            frames = header.pixel_array
            several = int(header.get("NumberOfFrames", 1) or 1) > 1
            for number, raw in enumerate(frames[::8] if several else [frames]):
                seen += 1
                image = to_image(raw, header, 8 * number + 1 if several else None)
                suspected += [f"{path.name} of {found.name}"] if holds_text(image) else []
    say(f"\ntext suspected on {len(suspected)} of {seen} clean images")
    assert suspected == []
