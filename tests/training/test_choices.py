"""Choices by ridge on frozen features: folds, order within an image, and what a merit says."""

import numpy as np
import pytest
from support.samples import sample

from training.evaluate.retention import order_within
from training.fit.choices import FOLDS, folds_of, left_out
from training.simulate.degraded import FACTORS
from training.simulate.mr_from_ct import PREFIX


def copies(source: str, modality: str = "MR", factor: str = "ghosts", severities: tuple[float, ...] = (0.0, 0.3, 0.6)):
    return [
        sample(
            f"{source}-{place}", base=f"{source}-b", source=source, modality=modality,
            factor=factor if place else "clean",
            severities=dict.fromkeys(FACTORS[modality], 0.0) | {factor: severity},
        )
        for place, severity in enumerate(severities)
    ]  # fmt: skip


def test_an_mr_like_source_is_in_the_fold_of_its_ct_and_folds_have_sources_of_every_modality():
    names = [f"ct{n}" for n in range(7)]
    ct = [one for name in names for one in copies(name, "CT", "dose")]
    made = [one for name in names for one in copies(PREFIX + name)]
    mr = [one for n in range(6) for one in copies(f"mr{n}")]

    fold = folds_of([*made, *ct, *mr])

    assert fold[: len(made)].tolist() == fold[len(made) : len(made) + len(ct)].tolist()
    assert set(fold[-len(mr) :]) == set(range(FOLDS))


@pytest.mark.parametrize(
    ("predicted", "order"), [((0.9, 0.5, 0.1), 1.0), ((0.1, 0.5, 0.9), -1.0), ((0.9, 0.1, 0.5), 1 / 3)]
)
def test_order_is_the_concordant_less_the_discordant_pairs(predicted, order):
    found = order_within(np.array(predicted), copies("a"), "MR")

    assert {factor: np.mean(pairs) for factor, pairs in found.items()} == {"ghosts": pytest.approx(order)}


def test_pairs_that_nobody_can_tell_apart_do_not_count():
    assert order_within(np.array([0.1, 0.5]), copies("a", severities=(0.0, 0.04)), "MR") == {}


def test_a_left_out_source_is_predicted_by_the_others_alone():
    rng = np.random.default_rng(0)
    samples = [one for n in range(10) for one in copies(f"s{n}")]
    features = rng.normal(size=(len(samples), 4))
    label = features[:, 0] * 3.0
    spoilt = np.array([one.source == "s0" for one in samples])
    label[spoilt] = 100.0

    predicted = left_out(features, label, samples, folds_of(samples))

    assert np.abs(predicted[spoilt]).max() < 10.0, "its own labels are not seen"
