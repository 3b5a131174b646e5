"""Gates: each method against the best other one, on labels that samples have, and nothing claimed that was not seen."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.samples import sample

from mediqa_node.model.card import PredictedParameter
from training.data.batches import Target
from training.evaluate.by_method import NETWORK, QUALITY, SHIPPED, STATISTICS, MethodPredictions
from training.evaluate.claims import claims_of, held_out_rmse
from training.evaluate.gates import GATE_HEADS, gate_rows, passed, results, undefined_lines
from training.evaluate.single_factors import NOT_EVALUATED, Swept, sweep_rows, sweeps
from training.evaluate.visible import visible
from training.simulate.degraded import FACTORS

WEIGHTS = "a" * 64
MADE_BY = {"samples": 100, "simulated": 100, "sources": {"MR": ["one", "two"], "CT": ["three"]}}


def judged(
    said: dict[str, np.ndarray], *, modality: str = "MR", labels: tuple[str, ...] = (QUALITY,)
) -> MethodPredictions:
    """Return four images of two sources, ten copies each, whose labels rise from 0 to 1."""
    samples = [
        sample(
            f"{base}-{copy}",
            base=f"b{base}",
            source=f"s{base % 2}",
            modality=modality,
            labels=dict.fromkeys(labels, copy / 9),
        )
        for base in range(4)
        for copy in range(10)
    ]
    return MethodPredictions(data=SimpleNamespace(samples=samples), values={QUALITY: said})


def truth() -> np.ndarray:
    return np.tile(np.arange(10) / 9, 4)


def noisy(much: float) -> np.ndarray:
    return truth() + np.random.default_rng(0).normal(0.0, much, 40)


def test_what_is_shipped_is_held_against_the_best_of_the_others_and_never_against_itself():
    said = {NETWORK: noisy(0.1), STATISTICS: noisy(3.0), SHIPPED: noisy(3.0)}

    found = {one.method: one for one in results({"MR": judged(said)}, seed=0, weights_sha256=WEIGHTS)}

    assert found[SHIPPED].best_other == NETWORK
    assert found[NETWORK].best_other == STATISTICS
    assert found[SHIPPED].behind.low < -0.05
    assert not passed(list(found.values()))


@pytest.mark.parametrize(
    ("much", "modality", "holds"), [(0.05, "MR", True), (0.6, "MR", False), (0.05, "OP", True), (0.05, "CT", True)]
)
def test_a_gate_is_passed_by_the_shipped_score_alone(much, modality, holds):
    said = {NETWORK: noisy(0.05), SHIPPED: noisy(much)}

    found = list(results({modality: judged(said, modality=modality)}, seed=0, weights_sha256=WEIGHTS))

    assert passed(found) is holds


def test_a_set_of_held_out_sources_counts_in_every_modality():
    both = {modality: judged({SHIPPED: truth()}, modality=modality) for modality in ("CT", "MR")}
    mr = both["MR"].data
    mr.samples = [replace(one, source=f"mr_{one.source}") for one in mr.samples]

    found = results(both, seed=0, weights_sha256=WEIGHTS, held_out="one", sources={"s0", "mr_s0"})

    assert [(one.task[0], one.agreement.n) for one in found] == [("CT", 20), ("MR", 20)]


def test_sets_of_held_out_sources_have_results_of_their_own():
    one = {"MR": judged({SHIPPED: np.concatenate([truth()[:10], -truth()[10:20], truth()[20:30], -truth()[30:]])})}
    given = {"seed": 0, "weights_sha256": WEIGHTS}

    good, poor = (
        next(iter(results(one, held_out=name, sources={source}, **given)))
        for name, source in (("one", "s0"), ("two", "s1"))
    )

    assert (good.task, good.agreement.srcc.value) == (("MR", QUALITY, "one"), pytest.approx(1.0))
    assert poor.agreement.srcc.value == pytest.approx(-1.0)
    assert [row[0] for row in gate_rows([good, poor])] == ["MR quality set one", "MR quality set two"]


def test_the_row_of_what_is_shipped_has_the_best_other_and_the_gate():
    said = {NETWORK: noisy(0.5), STATISTICS: noisy(0.4), SHIPPED: noisy(0.05)}

    found = list(results({"MR": judged(said)}, seed=0, weights_sha256=WEIGHTS))

    shipped = dict(zip(GATE_HEADS, list(gate_rows(found))[-1], strict=True))
    assert shipped["less the best other"].endswith(STATISTICS)
    assert shipped["gate"].startswith("PASSED: SRCC at least .82, within an image .88, worst source .60")


def test_samples_without_a_label_do_not_count_for_it():
    one = judged({SHIPPED: noisy(0.1)})
    one.data.samples[0] = sample("b", base="b0", source="s0", modality="MR", labels={"tesla": 1.0})

    [found] = results({"MR": one}, seed=0, weights_sha256=WEIGHTS)

    assert found.agreement.n == 39


def test_too_few_images_have_a_reason_and_no_number():
    one = judged({SHIPPED: truth()[:1], NETWORK: truth()[:1]})
    del one.data.samples[1:]

    found = list(results({"MR": one}, seed=0, weights_sha256=WEIGHTS))

    assert list(undefined_lines(found)) == [
        "MR quality, network, shipped: no agreement: 1 image; at least 10 are needed"
    ]
    assert [row[4:9] for row in gate_rows(found)] == [("–",) * 5] * 2
    assert not passed(found)
    assert json.loads(json.dumps([asdict(each) for each in found], allow_nan=False))[0]["worst"] == [None, ""]


def test_a_parameter_is_held_against_its_label_in_the_same_units():
    one = judged({SHIPPED: truth()}, labels=("tesla",))
    tesla = Target(label="tesla", modality="MR", log=True, mean=1.0, sd=2.0)
    said = 0.5 * (np.tile(np.log(np.arange(1, 11)), 4) - 1.0)
    samples = [replace(each, labels={"tesla": 9 * each.labels["tesla"] + 1}) for each in one.data.samples]
    asked = MethodPredictions(
        data=SimpleNamespace(samples=samples), values={"tesla": {SHIPPED: said}}, targets=(tesla,)
    )

    [found] = results({"MR": asked}, seed=0, weights_sha256=WEIGHTS)

    assert found.agreement.rmse.value == pytest.approx(0.0, abs=1e-9)
    assert found.agreement.plcc.value == pytest.approx(1.0)


def test_levels_that_nobody_can_tell_apart_are_left_out():
    levels = [(0.0, 1.0), (0.04, 2.0), (0.06, 3.0), (0.1, 4.0), (0.12, 5.0)]

    assert [score for _, score in visible(levels, 0.05)] == [1.0, 3.0, 5.0]


def test_an_image_with_two_visible_levels_does_not_count():
    few = swept([0.9, 0.7, 0.5, 0.3])
    for one in few["MR"].data.samples[2:]:
        one.severities["ghosts"] = 0.26

    assert list(sweeps(few, FACTORS, weights_sha256=WEIGHTS)) == []


def swept(shipped: list[float], *, factor: str = "ghosts", copies: int = 4) -> dict[str, MethodPredictions]:
    severities = [dict.fromkeys(FACTORS["MR"], 0.0) | {factor: n / copies} for n in range(copies)]
    samples = [
        sample(f"{n}", base="b0", modality="MR", factor=factor if n else "clean", severities=severities[n])
        for n in range(copies)
    ]
    said = {method: np.array(shipped) for method in (NETWORK, STATISTICS, SHIPPED)}
    return {"MR": MethodPredictions(data=SimpleNamespace(samples=samples), values={QUALITY: said})}


def test_a_sweep_is_the_mean_over_checkpoints_and_a_factor_without_copies_is_left_out():
    falls, rises = [0.9, 0.7, 0.5, 0.3], [0.3, 0.5, 0.7, 0.9]

    found = [one for said in (falls, falls, rises) for one in sweeps(swept(said), FACTORS, weights_sha256=WEIGHTS)]

    assert {one.factor for one in found} == {"ghosts"}
    mean = ("1", "0.333", "0.333", "0.333", "-1.00 b0")
    assert evaluated(found) == [
        ("MR ghosts", *mean, "not detected"),
        ("MR brain ghosts", *mean, "NOT MET: 0.85"),
    ]


def test_brains_and_other_parts_of_the_body_are_told_apart():
    falls, rises = [0.9, 0.7, 0.5, 0.3], [0.3, 0.5, 0.7, 0.9]
    one, other = swept(falls)["MR"], swept(rises)["MR"]
    words = dict(other.data.samples[0].prompt) | {"region": "abdomen"}
    samples = one.data.samples + [replace(each, base="b1", prompt=words) for each in other.data.samples]
    said = {SHIPPED: np.concatenate([one.values[QUALITY][SHIPPED], other.values[QUALITY][SHIPPED]])}
    both = {"MR": MethodPredictions(data=SimpleNamespace(samples=samples), values={QUALITY: said})}

    found = {each.region: each.mean for each in sweeps(both, FACTORS, weights_sha256=WEIGHTS)}

    assert found == pytest.approx({"": 0.0, "body": -1.0, "brain": 1.0})


@pytest.mark.parametrize(("factor", "verdict"), [("undersampling", "PASSED: 0.90"), ("ghosts", "PASSED: 0.85")])
def test_a_sweep_that_falls_all_the_way_passes_its_gate_if_it_has_one(factor, verdict):
    found = list(sweeps(swept([0.9, 0.7, 0.5, 0.3], factor=factor), FACTORS, weights_sha256=WEIGHTS))

    assert [row[-1] for row in evaluated(found)] == ["", verdict]


def evaluated(found: list[Swept]) -> list[tuple[str, ...]]:
    return [row for row in sweep_rows(found) if row[-1] != NOT_EVALUATED]


def test_a_gate_that_no_image_could_show_has_a_row():
    found = list(sweeps(swept([0.9, 0.7, 0.5, 0.3]), FACTORS, weights_sha256=WEIGHTS))

    assert ("MR body noise", "0", "–", "–", "–", "–", NOT_EVALUATED) in list(sweep_rows(found))
    assert not any(row[0].startswith("CT") for row in sweep_rows(found))


@pytest.mark.parametrize(
    ("scores", "mean"),
    [((0.9, 0.8, 0.7), 1.0), ((0.9, 0.5, 0.8), 1.0), ((0.9, 0.8, 0.95), -1.0), ((0.9, 0.8, 0.9), 0.0)],
)
def test_of_ct_every_visible_pair_counts(scores, mean):
    samples = [
        sample(f"{n}", base="b0", modality="CT", factor="views" if n else "clean", labels={QUALITY: quality})
        for n, quality in enumerate((0.8, 0.795, 0.788))
    ]
    one = MethodPredictions(data=SimpleNamespace(samples=samples), values={QUALITY: {SHIPPED: np.array(scores)}})

    [found] = sweeps({"CT": one}, FACTORS, weights_sha256=WEIGHTS)

    assert (found.factor, found.images) == ("views", 1)
    assert found.mean == mean, "the first and the last copy can be told apart"


# ── claims ───────────────────────────────────────────────────────────────────


def gates(*, srcc: float | None = 0.91) -> dict:
    sweep = {"modality": "MR", "region": "", "method": SHIPPED, "images": 9}
    brain = sweep | {"region": "brain"}
    return {
        "sweeps": [
            {**sweep, "factor": "noise", "mean": 0.97},
            {**sweep, "factor": "ghosts", "mean": 0.42},
            {**brain, "factor": "noise", "mean": 0.97},
            {**brain, "factor": "ghosts", "mean": 0.85},
            {**brain, "region": "abdomen", "factor": "ghosts", "mean": 0.1},
        ],
        "tasks": [
            {
                "task": ["MR", QUALITY],
                "method": SHIPPED,
                "agreement": {"srcc": {"value": srcc}, "n": 40, "groups": 8},
            }
        ],
    }


def test_a_claim_names_what_is_followed_what_is_not_and_of_how_many_sources():
    claim = claims_of(gates(), MADE_BY)["MR"]

    assert "severity of noise, trained on simulated degradations of images of 2 sources; no expert" in claim
    assert "SRCC 0.91 over 40 images of 8 slices" in claim
    by_region = "By region it follows, of abdomen: nothing; of brain: noise, ghosts. Not comparable"
    assert f"NOT DETECTED: ghosts. {by_region}" in claim
    assert claim.isascii()


@pytest.mark.parametrize(
    ("noise", "images", "wanted"),
    [
        (0.97, 9, "severity of noise, trained"),
        (0.97, 1, "severity of noise (tested on 1 image), trained"),
        (0.9, 9, "BELOW THE GATE: noise. NOT DETECTED: ghosts."),
        (0.7, 9, "NOT DETECTED: noise, ghosts."),
    ],
)
def test_a_factor_is_claimed_by_the_verdict_of_its_gate(noise, images, wanted):
    found = gates()
    for one in found["sweeps"]:
        if (one["region"], one["factor"]) == ("brain", "noise"):
            one |= {"mean": noise, "images": images}

    assert wanted in claims_of(found, MADE_BY)["MR"]


def test_a_factor_may_be_followed_as_little_as_its_gate_allows():
    body = {"modality": "MR", "region": "body", "method": SHIPPED, "images": 9, "factor": "ghosts", "mean": 0.65}
    found = gates() | {"sweeps": [body]}

    claim = claims_of(found, MADE_BY)["MR"]

    assert "severity of ghosts, trained" in claim
    assert "By region it follows, of body: ghosts." in claim


def test_a_refit_claims_what_the_fit_before_it_showed():
    claim = claims_of(gates(), MADE_BY, refit=True)["MR"]

    assert "Held-out sources: SRCC 0.91 over 40 images" in claim
    assert "These figures are of the fit before, without the held-out sources." in claim


def test_pretrained_features_are_named():
    given = {"trained_on": "ImageNet", "weights": "some package"}

    claim = claims_of(gates(), MADE_BY | {"pretrained": given})["MR"]

    assert "of images of 2 sources from features pretrained on ImageNet; no expert" in claim


def test_anatomy_of_ct_is_no_source_of_mr():
    claim = claims_of(gates(), MADE_BY | {"sources": {"MR": ["one", "mr_from_a", "mr_from_b"]}})["MR"]

    assert "images of 1 source and MR-like images of 2 CT sources; no expert" in claim


def test_expert_scores_are_not_denied():
    assert "60 of 100 samples are of expert scores" in claims_of(gates(), MADE_BY | {"simulated": 40})["MR"]


def test_nothing_is_called_simulated_that_is_not_and_one_is_singular():
    made_by = {"samples": 28, "simulated": 0, "sources": {"MR": ["one"]}}
    few = gates()
    few["tasks"][0]["agreement"] |= {"n": 1, "groups": 1}

    claim = claims_of(few, made_by)["MR"]

    assert "trained on images of 1 source; 28 of 28 samples are of expert scores. Held-out" in claim
    assert "SRCC 0.91 over 1 image of 1 slice. " in claim
    assert "simulated" not in claim


def test_an_agreement_that_is_undefined_is_called_so():
    assert "SRCC undefined over 40 images" in claims_of(gates(srcc=None), MADE_BY)["MR"]


def test_the_error_of_a_predicted_parameter_is_that_of_what_is_shipped():
    tasks = [
        {"task": ["MR", "tesla"], "method": method, "agreement": {"rmse": {"value": value}}}
        for method, value in ((NETWORK, 0.9), (SHIPPED, 0.5))
    ]
    tesla, mas = (
        PredictedParameter(name=name, unit="T", modality=modality, sd=1.2)
        for name, modality in (("tesla", "MR"), ("mas", "CT"))
    )

    assert held_out_rmse({"tasks": tasks}, tesla) == pytest.approx(0.6)  # from standard units
    assert held_out_rmse({"tasks": tasks}, mas) is None


def test_of_a_modality_that_was_not_judged_nothing_is_claimed():
    assert set(claims_of(gates(), MADE_BY)) == {"MR"}
