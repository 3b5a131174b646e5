"""Physics of the simulated degradations, and what their labels say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.stats import spearmanr
from support.factories import prompt

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model.card import DEFAULT_PREPROCESSING
from training.data.collection import ImageSet, StackImages
from training.data.store import INDEX, PIXELS, Store
from training.simulate import ct, mr
from training.simulate.build import (
    STRENGTHS,
    Plan,
    _simulated,
    _variants,
    build,
    degrade,
    plan_of,
    plan_of_store,
    sweep_of,
)
from training.simulate.build import _support as build_support
from training.simulate.ct_variants import variant
from training.simulate.degraded import FACTORS, BaseImage, Degraded, Step, quality_of, saturating
from training.simulate.mr_from_ct import fold_of, mr_like

DATA = Path(__file__).parents[1] / "data"
EDGE, SPACING_MM = 96, 3.0


def disc(edge: int = EDGE, radius: float = 0.7) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : edge * 1j, -1 : 1 : edge * 1j]
    return x**2 + y**2 < radius**2


WATER = np.where(disc(), 0.0, -1000.0).astype(np.float32)
INSIDE = disc(radius=0.5)


def photograph() -> np.ndarray:
    """Return a lit field with vessels, RGB 0..255, 256 pixels."""
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(256, 256)), 1.5)
    light = 0.5 + 0.5 * texture / np.abs(texture).max()
    return (np.where(disc(256, 0.9), light, 0.0)[..., None] * np.array([200.0, 120.0, 60.0])).astype(np.float32)


def anatomy() -> np.ndarray:
    """Return a body of three tissues with a little noise in air, 96 pixels."""
    image = 300.0 * disc() + 200.0 * disc(radius=0.4) + 150.0 * np.roll(disc(radius=0.15), 20, 1)
    real, imaginary = np.random.default_rng(1).normal(0.0, 4.0, (2, EDGE, EDGE))
    return np.hypot(image + real, imaginary).astype(np.float32)


def base(modality: str) -> BaseImage:
    image = {"CT": WATER, "MR": anatomy(), "OP": photograph()}[modality]
    words = {"CT": ("chest", "soft"), "MR": ("brain", "t1"), "OP": ("retina", "cfp")}[modality]
    return BaseImage(
        key="k",
        source="s",
        prompt=prompt("2D", modality, *words),
        image=image,
        spacing_mm=SPACING_MM,
    )


def copies(modality: str, *steps: Step, seed: int = 0) -> list[Degraded]:
    return list(degrade(base(modality), steps, np.random.default_rng(seed)))


# ── CT ───────────────────────────────────────────────────────────────────────


def test_a_water_disc_comes_back_at_0_hu():
    sinogram, angles = ct.sinogram_of(WATER, SPACING_MM)
    back = ct.reconstruction(sinogram, angles, WATER.shape, SPACING_MM)

    assert sinogram.shape[1] == ct.VIEWS
    assert float(back[INSIDE].mean()) == pytest.approx(0.0, abs=5.0)
    assert float(back[~disc(radius=0.85) & disc(radius=0.95)].mean()) == pytest.approx(-1000.0, abs=15.0)


@pytest.fixture(scope="module")
def scanned() -> dict[float, np.ndarray]:
    """The noise of whole scans at two tube charges."""
    clean = ct.scan(WATER, SPACING_MM, 1e7, np.random.default_rng(1))
    return {mas: (ct.scan(WATER, SPACING_MM, mas, np.random.default_rng(0)) - clean)[INSIDE] for mas in (50.0, 200.0)}


def test_the_variance_of_a_scan_goes_as_one_over_mas(scanned):
    assert float(scanned[50.0].var() / scanned[200.0].var()) == pytest.approx(4.0, rel=0.15)


def test_inserted_noise_is_that_of_a_whole_scan(scanned):
    noise = ct.noise_of(WATER, SPACING_MM, np.random.default_rng(2))

    for mas, whole in scanned.items():
        assert float(noise.at(mas, 0.3)[INSIDE].std()) == pytest.approx(float(whole.std()), rel=0.15)
    ratio = noise.at(50.0, 0.3)[INSIDE].var() / noise.at(200.0, 0.3)[INSIDE].var()
    assert float(ratio) == pytest.approx(4.0, rel=0.15)


def test_streaks_grow_as_views_fall():
    bar = WATER + 1500.0 * np.roll(disc(radius=0.08), 22, 0)
    streaks = ct.streaks_of(bar, SPACING_MM, (8, 16, 32))

    deviations = [float(streaks[k][INSIDE].std()) for k in (8, 16, 32)]
    assert 0.0 < deviations[0] < deviations[1] < deviations[2]


def test_streaks_are_the_difference_of_two_reconstructions():
    bar = WATER + 1500.0 * np.roll(disc(radius=0.08), 22, 0)
    sinogram, angles = ct.sinogram_of(bar, SPACING_MM)
    whole, sparse = (
        ct.reconstruction(sinogram[:, ::k], angles[::k], bar.shape, SPACING_MM) for k in (1, 4)
    )  # fmt: skip

    assert np.allclose(ct.streaks_of(bar, SPACING_MM, (2, 3, 4))[4], sparse - whole, atol=0.1)


def test_less_dose_is_labelled_less_mas_and_less_quality():
    found = copies("CT", Step("clean"), *(Step("dose", strength) for strength in STRENGTHS))

    for label in ("mas", "quality"):
        values = [one.labels[label] for one in found]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == len(values)
    assert found[0].labels["mas"] == 250.0


# ── MR ───────────────────────────────────────────────────────────────────────


WHOLE = (1.0, 1.0)


def source(image: np.ndarray, shares: tuple[float, float] = WHOLE, filled: float = 1.0) -> mr._Source:
    """Return a slice of signal 500 whose k-space was acquired within shares of it."""
    return mr._Source(image, filled, mr.acquired_mask(image.shape, shares), image > 0, 500.0, 0.0)


def scanned_mr(one: mr._Source, seed: int = 0, **settings: float):
    return mr._scanned(one.image, {"axis": 0.0, **settings}, one, np.random.default_rng(seed))


@pytest.mark.parametrize(("low_t", "high_t"), [(0.5, 1.0), (0.5, 1.5), (1.5, 3.0)])
def test_the_ratio_of_signal_to_noise_goes_as_the_field(low_t, high_t):
    def snr(field_t: float) -> float:
        inside = np.abs(scanned_mr(source(500.0 * disc()), field_t=field_t)[0])[INSIDE]
        return float(inside.mean() / inside.std())

    assert snr(high_t) / snr(low_t) == pytest.approx(high_t / low_t, rel=0.05)


@pytest.mark.parametrize("shares", [WHOLE, (0.5, 0.7)], ids=["all of it", "zero-filled"])
@pytest.mark.parametrize(
    "less", [{}, {"reduction": 3.0, "centre": 0.1}, {"kept_rows": 0.5, "kept_columns": 0.5}],
    ids=["nothing left out", "lines", "matrix"],
)  # fmt: skip
def test_what_is_not_acquired_of_k_space_holds_no_noise(less, shares):
    one = source(500.0 * disc(), shares)

    noisy, _, acquired = scanned_mr(one, field_t=1.0, **less)
    clean, _, _ = scanned_mr(one, **less)

    noise = np.fft.fftshift(np.abs(np.fft.fft2(noisy - clean)))
    assert float(noise[acquired == 0].max(initial=0.0)) < 1e-9 * float(noise.max())
    assert acquired.sum() < one.acquired.sum() if less else np.array_equal(acquired, one.acquired)
    share = float(acquired.sum() / one.acquired.sum())
    deviation = float((noisy - clean).real.std())
    assert deviation == pytest.approx(mr.NOISE_AT_1_T * 500.0 * share**0.5, rel=0.05), "of all that was acquired"


def test_the_acquired_part_of_a_zero_filled_source_is_found_and_kept():
    rng = np.random.default_rng(3)
    anatomy_of = ndimage.gaussian_filter(rng.standard_normal((8, 256, 256)), (0, 0.7, 0.7)) + 4.0 * disc(256)
    shares = (0.5, 0.75)
    filled = [
        np.abs(mr._image(np.fft.fftshift(np.fft.fft2(one * disc(256))) * mr.acquired_mask(one.shape, shares)))
        for one in anatomy_of
    ]
    stack = StackImages(images=tuple(filled), prompt=prompt(modality="MR"))

    assert build_support(stack) == pytest.approx(shares, abs=0.03)


def test_a_smaller_matrix_is_smaller_than_what_was_acquired():
    mask = mr.acquired_mask((EDGE, EDGE), (0.5, 0.5))
    one = source(mr._image(np.fft.fftshift(np.fft.fft2(anatomy())) * mask).real, (0.5, 0.5))

    [nothing, half] = [scanned_mr(one, kept_rows=kept, kept_columns=kept)[1]["resolution"] for kept in (1.0, 0.5)]

    assert half > 5 * nothing, "cutting where nothing was acquired changes nothing"


def test_a_rigid_shift_is_no_ghost():
    power = np.ones(64)

    assert np.abs(mr.registered(np.full(64, 2.0), power)).max() < 0.1
    moving = np.where(np.arange(64) < 40, 0.0, 3.0)
    assert np.abs(mr.registered(moving, power)).max() > 1.0


def test_fewer_acquired_lines_across_the_body_are_coarser_whoever_left_them_out():
    assert [mr.coarseness(lines) for lines in (600, 300, 20, 5)] == [0.0, 0.0, 1.0, 1.0]
    assert mr.coarseness(60) == pytest.approx(1 - np.log(3) / np.log(15))
    one, other = source(500.0 * disc(), WHOLE), source(500.0 * disc(), (0.5, 0.5))

    cut = mr._lines_across(scanned_mr(one, kept_rows=0.5, kept_columns=0.5)[2], {"kept_rows": 0.5}, one)
    acquired = mr._lines_across(other.acquired, {}, other)

    assert cut == pytest.approx(acquired, rel=0.03)


def test_the_tesla_of_a_label_is_that_of_the_noise():
    one = copies("MR", Step("noise", 0.8))[0]

    assert one.labels["tesla"] == pytest.approx(one.settings["field_t"], rel=0.05)


def test_a_matrix_that_is_filled_up_keeps_the_mean():
    filled = np.abs(mr._zero_filled(anatomy().astype(complex), 1.5))

    assert filled.shape == (144, 144)
    assert float(filled.mean()) == pytest.approx(float(anatomy().mean()), rel=0.02)


@pytest.mark.parametrize("axis", [0, 1])
def test_ghosts_lie_along_the_phase_axis(axis):
    one = source(500.0 * disc(radius=0.35))
    motion = {"axis": float(axis), "shift_px": 4.0, "periodic": 1.0, "cycles": 24.0, "share": 0.3}

    scanned, changes, _ = scanned_mr(one, **motion)

    air = np.abs(scanned)
    air[disc(radius=0.5)] = 0.0
    beside = slice(EDGE // 2 - 8, EDGE // 2 + 8)
    along, across = (air[:, beside], air[beside]) if axis == 0 else (air[beside], air[:, beside])
    assert float(along.mean()) > 5.0 * float(across.mean())
    assert changes["ghosts"] > 0.0 == changes["undersampling"]


@pytest.mark.parametrize("reduction", [2, 3])
def test_undersampling_leaves_the_centre_and_every_so_manieth_line(reduction):
    factor = mr._left_out((EDGE, EDGE), 0, {"reduction": float(reduction), "centre": 0.1})[:, 0]

    centre = slice(EDGE // 2 - 4, EDGE // 2 + 5)
    assert factor[centre].tolist() == [1.0] * 9
    outer = factor[EDGE // 2 + 6 :]
    assert float(outer.mean()) == pytest.approx(1.0 / reduction, abs=0.03)


def test_less_matrix_takes_detail_and_nothing_of_the_mean():
    [sharp, blunt] = (
        np.abs(mr._image(np.fft.fftshift(np.fft.fft2(anatomy())) * (1.0 if factor is None else factor)))
        for factor in (None, mr._smaller(np.ones((EDGE, EDGE)), {"kept_rows": 0.4, "kept_columns": 0.4}))
    )

    assert float(blunt[INSIDE].mean()) == pytest.approx(float(sharp[INSIDE].mean()), rel=0.02)
    assert float(np.abs(np.diff(blunt, axis=0)).max()) < float(np.abs(np.diff(sharp, axis=0)).max())


# ── fundus ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("factor", FACTORS["OP"])
def test_a_photograph_is_the_worse_the_more_of_one_factor_there_is(factor):
    found = [copies("OP", Step(factor, strength))[0] for strength in STRENGTHS]  # each with the same draws besides

    severity = [one.severities[factor] for one in found]
    quality = [one.labels["quality"] for one in found]
    assert severity == sorted(severity)
    assert severity[0] < severity[-1]
    assert spearmanr(quality, STRENGTHS).statistic < -0.99


# ── all ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("modality", FACTORS)
def test_a_clean_copy_has_had_nothing_done_to_it(modality):
    [clean] = copies(modality, Step("clean"))
    settings = {name: value for name, value in clean.settings.items() if name not in ("axis", "filled", "body")}

    assert set(clean.severities) - {"coarseness"} == set(FACTORS[modality])
    done = set(FACTORS[modality]) - {"dose", "noise", "blur"}  # the source has noise and blur of its own
    assert [clean.severities[name] for name in done] == [0.0] * len(done)
    assert settings in ({}, {"mas": 0.0, "view_divisor": 1})


@pytest.mark.parametrize("modality", FACTORS)
def test_the_same_seed_gives_the_same_bytes(modality):
    plan = plan_of(modality, 1, np.random.default_rng(0))
    small = replace(base(modality), image=base(modality).image[::2, ::2])
    once, again, other = (list(degrade(small, plan, np.random.default_rng(seed))) for seed in (4, 4, 5))

    assert [one.image.tobytes() for one in once] == [one.image.tobytes() for one in again]
    assert [one.labels for one in once] == [one.labels for one in again]
    assert once[1].image.tobytes() != other[1].image.tobytes()


def test_a_plan_has_the_image_itself_and_factors_equally_often():
    plan = plan_of("MR", 10, np.random.default_rng(0))
    often = {factor: sum(step.factor == factor for step in plan) for factor in (*FACTORS["MR"], "mixed", "clean")}

    assert often == {**dict.fromkeys(FACTORS["MR"], 4), "mixed": 24, "clean": 1}
    assert all(step.strength is None for step in plan)


def test_a_sweep_is_the_image_and_every_factor_at_rising_strengths():
    steps = sweep_of("CT")

    assert steps[0] == Step("clean")
    assert [(step.factor, step.strength) for step in steps[1:]] == [
        (factor, strength) for factor in ("dose", "views") for strength in STRENGTHS
    ]


def test_one_factor_takes_four_fifths_of_the_quality_at_most():
    assert quality_of({"noise": 1.0}) == pytest.approx(0.2)
    assert quality_of({}) == 1.0
    assert [saturating(change, 0.1) for change in (-1.0, 0.0)] == [0.0, 0.0]
    assert saturating(1e9, 0.1) == 1.0


def photographs(folder: Path) -> list[ImageSet]:
    found = []
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        Image.fromarray(photograph().astype(np.uint8)).save(folder / name / "a.png")
        found.append(ImageSet(name=name, folder=folder / name, source=name, split="dev"))
    return found


def test_a_store_that_was_interrupted_is_built_to_the_same_bytes(tmp_path):
    sets = photographs(tmp_path / "data")
    plan = Plan(bases={"OP": 1}, groups={"OP": 1}, held_out=("two",))
    build(sets, DEFAULT_PREPROCESSING, plan, Store(tmp_path / "whole"), processes=1, advance=lambda *_: None)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(sets, DEFAULT_PREPROCESSING, plan, Store(tmp_path / "cut"), processes=1, advance=stop)
    assert len(Store(tmp_path / "cut").samples) == 5
    build(sets, DEFAULT_PREPROCESSING, plan, Store(tmp_path / "cut"), processes=1, advance=lambda *_: None)

    for name in (INDEX, PIXELS):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {one.source: one.split for one in Store(tmp_path / "cut").samples} == {"one": "train", "two": "test"}


def test_a_store_is_not_gone_on_with_under_another_plan(tmp_path):
    sets = photographs(tmp_path / "data")
    store = tmp_path / "store"
    plan = Plan(bases={"OP": 1}, groups={"OP": 1})
    build(sets, DEFAULT_PREPROCESSING, plan, Store(store), processes=1, advance=lambda *_: None)
    other = plan.model_copy(update={"held_out": ("two",)})

    with pytest.raises(ConfigurationError, match=r"made by another plan or version \(plan\.json\)"):
        build(sets, DEFAULT_PREPROCESSING, other, Store(store), processes=1, advance=lambda *_: None)


def test_a_source_to_be_held_out_that_is_not_there_is_named(tmp_path):
    plan = Plan(bases={"OP": 1}, groups={"OP": 1}, held_out=("three",))
    with pytest.raises(ConfigurationError, match="no source three; the collection has one, two"):
        build(
            photographs(tmp_path / "data"), DEFAULT_PREPROCESSING, plan, Store(tmp_path / "s"),
            processes=1, advance=lambda *_: None,
        )  # fmt: skip


# ── variants of CT ───────────────────────────────────────────────────────────────


def test_variants_differ_in_texture_and_stay_in_their_stack():
    one = replace(torso(), key="set-0-3")
    made = [variant(one, 2, np.random.default_rng(seed)) for seed in range(12)]

    assert {each.key for each in made} == {"set-0-3v2-0"}, "a stack of its own"
    assert len({each.image.shape for each in made}) > 3
    assert 0 < sum(each.field_of_view is not None for each in made) < 12
    assert len({each.kernel for each in made}) > 2
    assert {each.prompt.type.value for each in made} == {"soft", "lung", "bone"}
    noise = [ct.own_noise_hu(each.image, ct.body(each.image), each.spacing_mm) for each in made]
    assert max(noise) > 2.0 * min(noise)
    assert all(min(each.image.shape) >= 128 and each.is_variant for each in made)


def test_a_smaller_field_of_view_has_the_noise_of_the_whole_patient():
    whole = replace(torso(), image=np.where(torso().image > -300.0, 40.0, -1000.0).astype(np.float32))
    part = replace(whole, field_of_view=(slice(60, 130), slice(60, 130)))

    found = [next(ct.degrade(one, np.random.default_rng(0), [Step("dose", 0.8)])) for one in (whole, part)]

    assert found[1].image.shape == (70, 70)
    assert np.array_equal(found[1].image, found[0].image[60:130, 60:130])
    assert found[1].labels["mas"] == found[0].labels["mas"]


def test_the_scanner_of_a_held_out_source_waits_for_the_refit():
    plan = Plan(bases={"MR": 1}, groups={"MR": 1}, held_out=("a",), apart=("s",))

    assert {sample.split for sample, _ in _simulated((base("MR"), plan))} == {"refit"}


@pytest.mark.parametrize(("held_out", "split"), [((), "train"), (("s",), "refit")])
def test_variants_of_held_out_slices_wait_for_the_refit(held_out, split):
    plan = Plan(bases={"CT": 1}, groups={"CT": 1}, ct_variants=1, held_out=held_out)
    [made] = _variants([replace(torso(), key="set-0-3")], plan)

    found = [sample for sample, _ in _simulated((made, plan))]

    assert {sample.split for sample in found} == {split}
    assert [sample.factor for sample in found] == ["clean", *["dose"] * 4]
    assert all(sample.is_variant for sample in found)


# ── MR-like images of CT anatomy ─────────────────────────────────────────────────


def torso() -> BaseImage:
    """Return a CT-like slice: fat around muscle, two lungs, a spine."""
    y, x = np.mgrid[-1:1:192j, -1:1:192j]
    image = np.full((192, 192), -1000.0)
    image[x**2 / 0.8 + y**2 / 0.4 < 0.9] = -90.0
    image[x**2 / 0.7 + y**2 / 0.33 < 0.85] = 55.0
    image[(np.abs(x) - 0.4) ** 2 / 0.06 + y**2 / 0.12 < 0.7] = -850.0
    image[x**2 + (y - 0.38) ** 2 < 0.012] = 600.0
    noise = np.random.default_rng(2).normal(0.0, 12.0, image.shape)
    return replace(base("CT"), image=(image + noise).astype(np.float32), spacing_mm=2.0)


@pytest.mark.parametrize("seed", range(4))
def test_mr_of_ct_anatomy_has_the_support_and_the_noise_that_it_says(seed):
    made = mr_like(torso(), np.random.default_rng(seed))

    assert made is not None
    assert (made.source, made.modality, made.spacing_mm) == ("mr_from_" + base("CT").source, "MR", 0.0)
    outside = mr.acquired_mask(made.image.shape, made.support) == 0
    power = np.fft.fftshift(np.abs(np.fft.fft2(made.image)) ** 2)
    if outside.any():
        assert float(np.median(power[outside])) < 0.2 * float(np.median(power[~outside]))
    inside = mr.body(made.image)
    ratio = mr._own_noise(made.image, made.support) / (made.own_noise * float(made.image[inside].mean()))
    assert 0.4 < ratio < 2.5, "estimated from the image"
    assert fold_of(made.source) == base("CT").source


@pytest.mark.parametrize("seed", range(4))
def test_a_smaller_matrix_takes_known_noise_along(seed, monkeypatch):
    monkeypatch.setattr(mr, "_SMALLER", 1.0)
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    real, imaginary = np.random.default_rng(seed).normal(0.0, 3.0, (2, *x.shape))
    image = np.abs(100.0 * ndimage.gaussian_filter((x**2 + y**2 < 0.6).astype(float), 2.0) + real + 1j * imaginary)
    noisy = replace(base("MR"), image=image.astype(np.float32), support=(1.0, 1.0), own_noise=0.03)

    source = mr._source(noisy, np.random.default_rng(seed), varied=True)

    flat = source.image[ndimage.binary_erosion(source.inside, iterations=8)]
    assert source.image.shape < image.shape
    assert source.own == pytest.approx(float(flat.std() / flat.mean()), rel=0.08)


def test_too_little_of_a_body_makes_no_mr():
    empty = replace(torso(), image=np.full((192, 192), -1000.0, dtype=np.float32))

    assert mr_like(empty, np.random.default_rng(0)) is None


def test_a_source_kept_for_the_end_is_held_out_like_the_others(tmp_path):
    sets = photographs(tmp_path / "in")
    plan = Plan(bases={"OP": 1}, groups={"OP": 1}, held_out=(), final=(sets[0].source,))
    store = Store(tmp_path / "store")

    build(sets, DEFAULT_PREPROCESSING, plan, store, processes=1, advance=lambda *_: None)

    assert {one.source: one.split for one in store.samples} == {
        one.source: "test" if one.source == sets[0].source else "train" for one in sets
    }
    assert plan_of_store(store.folder).final == (sets[0].source,)
