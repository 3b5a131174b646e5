"""What the rest of the node sees of the network: images in, scores out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.factories import network_input

from mediqa_node.domain.assessment import weighted_quality
from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.execution import Execution
from mediqa_node.domain.prompt import Prompt, PromptTerm
from mediqa_node.model.card import PredictedParameter, QualityMap
from mediqa_node.model.lock import digest, read_lock
from mediqa_node.model.network import MedIQA
from mediqa_node.model.predict import NetworkScorer, load_scorer
from mediqa_node.model.sizes import SIZES


def prompt(modality: str = "CT") -> Prompt:
    words = ("3D", modality, "chest", "soft")
    terms = (PromptTerm(value=word, source="data", confidence=1.0) for word in words)
    return Prompt(**dict(zip(("dimension", "modality", "region", "type"), terms, strict=True)))


@pytest.fixture(scope="module")
def scorer() -> NetworkScorer:
    return load_scorer("untrained")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Three slices: a ramp, a disc, a disc in noise; float32 (3, 3, 224, 224), 0..1."""
    y, x = np.mgrid[:224, :224] / 223
    disc = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.12).astype(float)
    noisy = np.clip(disc + np.random.default_rng(0).normal(0, 0.2, disc.shape), 0, 1)
    return np.repeat(np.stack([x, disc, noisy])[:, None], 3, axis=1).astype(np.float32)


def test_scores_vary_and_lie_inside_the_scale(scorer, images):
    answer = scorer.score(network_input(images), prompt())

    assert answer.raw.shape == answer.quality.shape == answer.weights.shape == (3,)
    assert np.ptp(answer.quality) > 0.01
    assert ((answer.quality > 0.02) & (answer.quality < 0.98)).all()
    assert answer.weights.sum() == pytest.approx(1.0, abs=1e-15)
    assert weighted_quality(list(answer.quality), list(answer.weights)) == pytest.approx(answer.quality.mean())
    assert answer.prediction is None


def test_the_same_slice_scores_the_same_bit_for_bit_in_any_company(scorer, images):
    together = scorer.score(network_input(images), prompt()).raw
    alone = [scorer.score(network_input(images[i : i + 1]), prompt()).raw[0] for i in range(3)]

    assert together.tolist() == alone == load_scorer("untrained").score(network_input(images), prompt()).raw.tolist()


def test_identical_slices_are_scored_once(scorer, images, monkeypatch):
    seen: list[int] = []
    run = scorer._run
    monkeypatch.setattr(scorer, "_run", lambda shots, codes: seen.append(len(shots)) or run(shots, codes))

    answer = scorer.score(network_input(images[[0, 1, 0, 0, 1]]), prompt())

    assert seen == [2]
    assert answer.raw[0] == answer.raw[2] == answer.raw[3] != answer.raw[1] == answer.raw[4]
    assert answer.weights.tolist() == pytest.approx([0.2] * 5)


def test_the_prompt_matters(scorer, images):
    of_ct, of_mr = (scorer.score(network_input(images), prompt(modality)).raw for modality in ("CT", "MR"))

    assert of_ct[0] != of_mr[0]


def test_it_names_its_weights_and_the_preprocessing_they_need(scorer):
    assert (scorer.checkpoint.name, scorer.checkpoint.size, scorer.checkpoint.trained) == ("untrained", "t16", False)
    assert len(scorer.checkpoint.sha256) == 64
    assert (scorer.spec.size_px, scorer.spec.slices) == (224, 7)
    assert scorer.spec.rule_for("CT", "lung").low == -1350
    assert scorer.spec.rule_for("CT", "unknown").low == -160


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((1, 3, 224, 224)),
        np.zeros((1, 1, 224, 224), dtype=np.float32),
        np.zeros((0, 3, 224, 224), dtype=np.float32),
        np.full((1, 3, 224, 224), np.nan, dtype=np.float32),
    ],
    ids=["float64", "one channel", "no slice", "NaN"],
)
def test_images_that_are_not_prepared_are_refused(scorer, bad):
    with pytest.raises(ValueError, match="to score"):
        scorer.score(network_input(bad), prompt())


def test_an_answer_that_is_not_a_number_raises(scorer, images):
    broken = MedIQA(SIZES["t16"])
    torch.nn.init.constant_(broken.fc_score[3].bias, float("nan"))

    with pytest.raises(FloatingPointError):
        NetworkScorer(broken, scorer.card).score(network_input(images[:1]), prompt())


def test_only_the_parameter_of_the_modality_is_predicted(scorer, images):
    torch.manual_seed(0)
    network = MedIQA(SIZES["t16"], parameters=("mas", "tesla"))
    torch.nn.init.constant_(network.parameter_head.fc2.weight, 0.0)
    network.parameter_head.fc2.bias.data = torch.tensor([4.0, 3.0])
    card = replace(
        scorer.card,
        parameters=(
            PredictedParameter(name="mas", unit="mA.s", modality="CT", scale="log"),
            PredictedParameter(name="tesla", unit="T", modality="MR"),
        ),
    )
    two_heads = NetworkScorer(network, card)

    dose, field = (two_heads.score(network_input(images[:1]), prompt(m)).prediction for m in ("CT", "MR"))

    assert (dose.name, dose.unit, dose.value) == ("mas", "mA.s", pytest.approx(np.exp(4.0)))
    assert (field.name, field.unit, field.value) == ("tesla", "T", pytest.approx(3.0))
    assert two_heads.score(network_input(images[:1]), prompt("OP")).prediction is None
    assert not dose.is_supported  # this card states neither what was learned nor an error


@pytest.mark.parametrize(
    ("output", "changes", "supported"),
    [
        (0.0, {}, True),
        (np.log(7.0), {}, True),
        (np.log(20.5), {}, False),
        (np.log(0.1), {}, False),
        (0.0, {"lowest": None}, False),
        (0.0, {"held_out_rmse": None}, False),
    ],
)
def test_a_prediction_is_supported_within_what_was_learned(output, changes, supported):
    known = {"lowest": 0.2, "highest": 7.0, "held_out_rmse": np.log(2.0)} | changes
    parameter = PredictedParameter(name="tesla", unit="T", modality="MR", scale="log", **known)

    assert parameter.prediction(output).is_supported == supported


def test_the_error_on_held_out_sources_is_given_in_the_unit_of_the_parameter():
    dose = PredictedParameter(
        name="mas", unit="mA.s", modality="CT", scale="log", mean=np.log(100.0), sd=2.0, held_out_rmse=np.log(2.0)
    )
    blur = PredictedParameter(name="tesla", unit="T", modality="MR", mean=3.0, sd=2.0, held_out_rmse=0.5)

    assert dose.prediction(0.0).likely == pytest.approx((50.0, 200.0))
    assert blur.prediction(1.0).likely == pytest.approx((4.5, 5.5))


@pytest.mark.parametrize(
    ("quality", "raw", "expected"),
    [
        (QualityMap(kind="logistic", a=1.0, b=2.0), [1.0, -1e6, 1e6], [0.5, 0.0, 1.0]),
        (QualityMap(kind="clamp", a=1.0, b=5.0), [0.0, 3.0, 9.0], [0.0, 0.5, 1.0]),
    ],
    ids=["logistic", "clamp"],
)
def test_raw_scores_are_mapped_to_the_unit_scale(quality, raw, expected):
    assert quality(np.array(raw)).tolist() == pytest.approx(expected, abs=1e-12)
    assert quality.beyond(np.array(raw)) == (2 if quality.kind == "clamp" else 0)


def test_threads_are_those_asked_for():
    before = torch.get_num_threads()
    try:
        load_scorer("untrained")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(CheckpointRefused, match="no CUDA device"):
        load_scorer("untrained", execution=Execution(device="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_agrees_with_the_cpu(scorer, images):
    on_gpu = load_scorer("untrained", execution=Execution(device="cuda"))

    first, second = (on_gpu.score(network_input(images), prompt()).raw for _ in range(2))

    assert first.tolist() == second.tolist()
    assert first == pytest.approx(scorer.score(network_input(images), prompt()).raw, abs=1e-4)


def test_the_card_that_speaks_is_named_by_the_digest_that_the_lock_pins(scorer):
    # a card that a person wrote: this version would write other bytes of it
    assert scorer.checkpoint.card_sha256 == read_lock()["untrained"].card_sha256 != digest(scorer.card.to_json())
