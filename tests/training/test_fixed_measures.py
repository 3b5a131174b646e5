"""Score against measures: what a score adds, on numbers of known dependence and on copies of real slices."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from support.samples import disc, sample
from typer.testing import CliRunner

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.quantities import CT_NOISE, MR_GHOST, OP_FOCUS
from mediqa_node.model.card import Card
from mediqa_node.reader_study.statistics import Interval
from training.cli import app
from training.data.collection import ImageSet
from training.data.store import Sample
from training.evaluate.fixed_measures import (
    MEASURE_HEADS,
    SCORE_HEADS,
    MeasuredCopies,
    OfFactor,
    by_factor,
    measure_rows,
    score_rows,
    severity,
    shown,
)
from training.evaluate.measured_copies import measure_copy, unseen

DATA = Path(__file__).parents[1] / "data"
SLICES, COPIES = 30, 12
N = SLICES * COPIES
NOISE = "ct.noise.soft"


def image_set(name: str, *, source: str = "", split: str = "dev") -> ImageSet:
    return ImageSet(name=name, folder=Path(name), source=source or name, split=split)


def card_of(trained: list[str]) -> Card:
    """Return the card of a checkpoint that was trained on these sources."""
    made_by = {"sources": {"CT": trained}} if trained else {}
    return Card(name="n", size="n16", trained=True, weights_sha256="0" * 64, quality=None, metrics={"made_by": made_by})


def of_dose() -> list[Sample]:
    """Return copies of lower dose at random severities, in which `views` has no part."""
    severities = np.random.default_rng(0).uniform(size=N)
    return [
        sample(
            str(place),
            base=f"b{place // COPIES}",
            factor="dose",
            labels={"quality": 1.0 - each},
            severities={"dose": float(each), "views": 0.0},
        )
        for place, each in enumerate(severities)
    ]


def truth() -> np.ndarray:
    return np.array([severity(one, "dose") for one in of_dose()])


def blurred(values: np.ndarray, seed: int) -> np.ndarray:
    return values + np.random.default_rng(seed).normal(0.0, 0.2, N)


def judged(measure: np.ndarray, **scores: np.ndarray) -> OfFactor:
    [found] = by_factor(MeasuredCopies(samples=of_dose(), measures={NOISE: measure}, scores=scores))
    return found


def test_a_score_that_repeats_a_measure_is_0_and_one_that_adds_to_it_is_not():
    noise_hu = blurred(truth(), 1)

    found = judged(noise_hu, shipped=-noise_hu, statistics=-noise_hu, network=-blurred(truth(), 2))

    assert (found.factor, found.slices, found.copies) == ("dose", SLICES, N)
    assert found.scores["shipped"].spearman.value > 0.7
    assert found.scores["shipped"].given_measures.value == 0.0
    assert found.scores["network"].given_measures.low > 0.4
    assert found.measures[NOISE].given_score.value == 0.0


def test_a_network_that_repeats_the_statistics_adds_nothing_to_them():
    statistics = -blurred(truth(), 1)

    found = judged(blurred(truth(), 2), shipped=statistics, statistics=statistics, network=0.5 * statistics)

    assert found.scores["network"].given_measures.low > 0.4
    assert found.scores["network"].given_both.value == 0.0


def test_a_score_that_rises_with_the_severity_is_negative():
    found = judged(blurred(truth(), 1), shipped=truth())

    assert found.scores["shipped"].spearman.value == pytest.approx(-1.0)
    assert set(found.scores) == {"shipped"}


def test_where_a_measure_is_missing_is_known_without_a_score():
    by_slice = truth().reshape(SLICES, COPIES)
    bad = (by_slice > np.sort(by_slice)[:, [-5]]).ravel()  # the worst four of each slice
    noise_hu = np.where(bad, np.nan, 1.0)

    found = judged(noise_hu, shipped=-bad.astype(float))

    assert found.explained > 0.5
    assert found.scores["shipped"].given_measures.value == 0.0
    assert found.measures[NOISE].missing == 4 * SLICES


def test_a_slice_without_the_measure_that_is_meant_for_a_factor_is_left_out():
    noise_hu = truth()
    noise_hu[: 2 * COPIES] = np.nan  # two slices: there the score alone would seem to know
    noise_hu[2 * COPIES] = np.nan

    found = judged(noise_hu, shipped=-truth())

    assert (found.slices, found.left_out, found.copies) == (SLICES - 2, 2, N - 2 * COPIES)
    assert found.measures[NOISE].missing == 1


def test_measures_on_no_copy_are_counted_and_have_no_number():
    measures = {NOISE: blurred(truth(), 1), "ct.sharpness": np.full(N, np.nan)}
    [found] = by_factor(MeasuredCopies(samples=of_dose(), measures=measures, scores={"shipped": -truth()}))

    first, second = (dict(zip(MEASURE_HEADS, row, strict=True)) for row in measure_rows([found]))
    assert (first["measure"], first["not measurable"]) == (NOISE + " *", f"0 of {N}")
    assert second == {
        "factor": "CT dose",
        "measure": "ct.sharpness",
        "not measurable": f"{N} of {N}",
        "rises with severity": "–",
        "given the shipped score": "–",
    }


def test_a_factor_whose_measure_exists_nowhere_has_no_slices():
    found = judged(np.full(N, np.nan), shipped=-truth())

    assert (found.slices, found.left_out, found.explained) == (0, SLICES, None)
    assert found.scores["shipped"].spearman == Interval(value=None)


def test_a_row_says_what_a_checkpoint_without_statistics_lacks():
    [row] = score_rows([judged(blurred(truth(), 1), shipped=-truth(), network=-truth())])

    cells = dict(zip(SCORE_HEADS, row, strict=True))
    assert cells["shipped"] == cells["network"] == "1.00"
    assert cells["statistics"] == cells["network, given measures and statistics"] == "–"


def test_several_factors_together_are_as_bad_as_the_quality_is_low():
    assert severity(sample("k", labels={"quality": 0.3}, factor="mixed"), "mixed") == pytest.approx(0.7)


def test_correlations_are_shown_in_two_decimals():
    found = judged(blurred(truth(), 1), shipped=-truth()).scores["shipped"].given_measures

    assert shown(found) == "1.00 [1.00, 1.00]"


# ── on pixels ────────────────────────────────────────────────────────────────


def test_copies_are_measured_with_what_the_simulation_knows():
    water, modalities = disc(256, noise=12.0, seed=0)[0], {}
    vessels = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(400, 400)), 2.0)
    field = np.hypot(*np.mgrid[-1:1:400j, -1:1:400j]) < 0.95
    photograph = np.where(field, 120.0 + 300.0 * vessels, 0.0)[..., None] * np.array([1.0, 0.7, 0.4])
    for modality, image in (("CT", water), ("MR", water + 1000.0), ("OP", photograph.clip(0, 255))):
        one = sample("k", modality=modality, settings={"axis": 1.0})
        modalities[modality] = {found.name: found for found in measure_copy(image.astype(np.float32), one, 1.0)}

    assert modalities["CT"][CT_NOISE.name].value == pytest.approx(12.0, rel=0.15)
    assert modalities["MR"][MR_GHOST.name].limit != "no_phase_direction"
    assert modalities["OP"][OP_FOCUS.name].value is not None


def test_only_sources_that_the_checkpoint_has_not_seen_are_used():
    sets = [image_set("a"), image_set("b", source="a"), image_set("c"), image_set("d", split="refuse")]

    assert list(unseen(sets, card_of(["b"]))) == ["c"], "a and b are of one patient"
    assert list(unseen(sets, card_of(["b"]), wanted=["a"])) == ["a"]


@pytest.mark.parametrize(
    ("trained", "wanted", "message"),
    [
        (["a"], (), "trained on every source"),
        ([], (), "does not name"),
        (["x"], ("y",), "no source y; the collection has a"),
    ],
)
def test_without_a_source_to_use_the_command_says_why(trained, wanted, message):
    with pytest.raises(ConfigurationError, match=message):
        unseen([image_set("a")], card_of(trained), wanted)


def test_partial_prints_scores_and_measures_of_the_named_sources():
    done = CliRunner().invoke(app, ["partial", str(DATA), "--source", "mr_brain_epi_ge750", "--slices", "1"])

    assert done.exit_code == 0, done.output
    assert "1 slice of named sources:\n  MR: mr_brain_epi_ge750 (1)\n" in done.output
    lines = done.output.splitlines()
    noise = next(line for line in lines if line.startswith("MR noise"))
    used, left_out, copies = map(int, noise.split()[2:5])
    assert (used + left_out, copies) == (1, 9 * used)
    assert sum(line.startswith("MR noise") for line in lines) == 6, "scores, and five measures"
