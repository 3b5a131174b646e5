"""Statistics beside the network: in the same file, counted as the card says, and as training counted them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.samples import WORDS, disc, sample

from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.preprocessing import NetworkInput
from mediqa_node.domain.prompt import prompt_of
from mediqa_node.image.measure.quality_statistics import VERSION, as_vector, names, quality_statistics
from mediqa_node.image.preprocess import preprocess
from mediqa_node.model.card import DEFAULT_PREPROCESSING, Card, Fusion, PredictedParameter, QualityMap, read_card
from mediqa_node.model.checkpoint import load_whole, save_checkpoint
from mediqa_node.model.lock import WEIGHTS_FILE, LockEntry
from mediqa_node.model.network import MedIQA
from mediqa_node.model.predict import NetworkScorer
from mediqa_node.model.sizes import SIZES
from mediqa_node.model.statistics_regressor import StatisticsRegressor, regressors_of
from training.data.store import Store
from training.data.views import prepare
from training.evaluate.by_method import NETWORK, SHIPPED, STATISTICS, predict_by_method, targets_of_card

MAS = PredictedParameter(name="mas", unit="mA.s", modality="CT", scale="log", mean=4.0, sd=0.8)
CARD = Card(
    name="fused",
    size="n16",
    trained=True,
    weights_sha256="0" * 64,
    quality=QualityMap(kind="clamp", a=-50.0, b=50.0),
    parameters=(MAS,),
    fusion={"CT": {"quality": Fusion(offset=0.1, network=0.4, statistics=0.6)}},
    statistics_version=VERSION,
)


def regressor(seed: int = 0, *, n: int = 12, modality: str = "CT") -> StatisticsRegressor:
    random = np.random.default_rng(seed)
    k = len(names(modality))
    return StatisticsRegressor(
        mean=random.normal(size=k).astype(np.float32).astype(float),
        spread=random.uniform(0.5, 2.0, k).astype(np.float32).astype(float),
        support=random.normal(size=(n, k)).astype(np.float32).astype(float),
        coefficients=random.normal(size=n).astype(np.float32).astype(float),
        intercept=0.25,
        gamma=0.5 / 64,
    )


def weights(seed: int = 0) -> MedIQA:
    torch.manual_seed(seed)
    return MedIQA(SIZES["n16"], parameters=("mas",)).eval()


def saved(folder: Path, card: Card = CARD, regressors: object = None, **more: object) -> dict[str, LockEntry]:
    found = {"CT": {"quality": regressor(), "mas": regressor(1)}} if regressors is None else regressors
    return {"fused": save_checkpoint(folder, weights(), card, found, **more)}  # type: ignore[arg-type]


def test_what_a_regressor_says_survives_the_file():
    one = regressor()
    [back] = regressors_of(one.tensors("CT", "quality"))["CT"].values()
    statistics = np.random.default_rng(2).normal(size=(5, len(names("CT"))))

    assert back(statistics).tolist() == one(statistics).tolist()
    assert one(statistics + 1e9).tolist() == pytest.approx([one(statistics[:1] + 1e9)[0]] * 5)


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("mean", torch.zeros(3), "mean of shape"),
        ("coefficients", torch.full((12,), float("nan")), "coefficients of shape"),
        ("intercept", torch.full((1,), float("inf")), "intercept of shape"),
        ("gamma", torch.zeros(()), "gamma of shape"),
        ("coefficients", torch.zeros(()), "support of shape"),
        ("spread", torch.zeros(len(names("CT"))), "spread must be above 0"),
    ],
)
def test_tensors_that_do_not_fit_are_named(part, value, said):
    tensors = regressor().tensors("CT", "quality") | {f"statistics.CT.quality.{part}": value}

    with pytest.raises(ValueError, match=f"statistics of CT, quality: {said}"):
        regressors_of(tensors)


@pytest.mark.parametrize("key", ["statistics.CT.quality.more", "statistics.CT", "statistics.US.quality.mean"])
def test_parts_that_nobody_knows_are_refused(key):
    with pytest.raises(ValueError, match="statistics of"):
        regressors_of(regressor().tensors("CT", "quality") | {key: torch.zeros(1)})


def test_node_and_training_say_the_same_of_volumes(tmp_path):
    fusion = {
        "CT": {
            "quality": Fusion(offset=0.1, network=0.4, statistics=0.6),
            "mas": Fusion(offset=-0.2, network=0.7, statistics=0.3),
        }
    }
    network, card, regressors = load_whole("fused", saved(tmp_path / "c", replace(CARD, fusion=fusion)))
    torch.nn.init.normal_(network.slice_weight.weight, std=300.0)
    scorer = NetworkScorer(network, card, regressors)
    store = Store(tmp_path / "store")
    volumes = [np.concatenate([disc(64, noise=n, seed=seed) for n in (5, 60, 200)]) for seed in (1, 2)]
    store.add(
        [(sample(f"volume {place}", labels={"quality": 0.5, "mas": 80.0}), one) for place, one in enumerate(volumes)]
    )
    data = prepare(store, card.preprocess)

    trained = predict_by_method(network, targets_of_card(card), regressors, card.fusion, data, "CT").values

    for place, one in enumerate(store.samples):
        inputs = preprocess(list(store.slices(one)), card.preprocess, modality="CT", image_type="soft")
        answer = scorer.score(inputs, one.words)
        assert np.ptp(answer.weights) > 0.01
        q = float(np.average(answer.raw, weights=answer.weights))
        assert q == pytest.approx(trained["quality"][SHIPPED][place], abs=2e-3)  # views in float16
        assert np.log(answer.prediction.value) == pytest.approx(4.0 + 0.8 * trained["mas"][SHIPPED][place], abs=2e-3)
    of = {method: trained["quality"][method] for method in (NETWORK, STATISTICS, SHIPPED)}
    assert of[SHIPPED] == pytest.approx(0.1 + 0.4 * of[NETWORK] + 0.6 * of[STATISTICS])
    assert abs(of[SHIPPED] - of[NETWORK]).max() > 0.05


def inputs(card: Card = CARD) -> NetworkInput:
    return preprocess(list(disc(64, noise=20, seed=1)), card.preprocess, modality="CT", image_type="soft")


def test_a_score_is_offset_and_shares_of_both(tmp_path):
    network, card, regressors = load_whole("fused", saved(tmp_path))
    prompt = prompt_of(WORDS["CT"])
    own = NetworkScorer(network, replace(card, fusion={})).score(inputs(), prompt).raw
    shown = inputs()
    [measured] = [as_vector(quality_statistics(one, modality="CT", window=shown.window)) for one in shown.slices]

    both = NetworkScorer(network, card, regressors).score(shown, prompt).raw

    assert both == pytest.approx(0.1 + 0.4 * own + 0.6 * regressor()(measured[None]), abs=1e-9)


def test_another_modality_is_left_to_the_network(tmp_path):
    network, card, regressors = load_whole("fused", saved(tmp_path))
    prompt = prompt_of(WORDS["MR"])

    alone, beside = (
        NetworkScorer(network, one, regressors).score(inputs(), prompt).raw for one in (replace(card, fusion={}), card)
    )

    assert alone.tolist() == beside.tolist()


def test_views_without_their_slices_are_refused(tmp_path):
    network, card, regressors = load_whole("fused", saved(tmp_path))
    scorer = NetworkScorer(network, card, regressors)

    with pytest.raises(ValueError, match="these weights measure slices, and got views alone"):
        scorer.score(replace(inputs(), slices=()), prompt_of(WORDS["CT"]))


def test_a_fusion_whose_statistics_are_missing_is_refused(tmp_path):
    with pytest.raises(CheckpointRefused, match="no statistics of CT for quality"):
        load_whole("fused", saved(tmp_path / "none", regressors={"CT": {"mas": regressor()}}))

    alone = {"CT": {"quality": Fusion(offset=0.0, network=1.0, statistics=0.0)}}
    _, _, none = load_whole("fused", saved(tmp_path / "no share", replace(CARD, fusion=alone), regressors={}))
    assert none == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"statistics_version": VERSION + 1}, f"statistics of version {VERSION + 1}; this version measures {VERSION}"),
        ({"statistics_version": None}, "statistics of version None"),
        ({"fusion": {"US": {}}}, "unknown modality of a fusion 'US'"),
        ({"fusion": {"CT": {"tesla": Fusion(offset=0, network=1, statistics=0)}}}, "unknown output of a fusion of CT"),
        ({"fusion": {"CT": {"quality": Fusion(offset=0, network=-1, statistics=2)}}}, "shares -1, 2"),
        ({"fusion": {"CT": {"quality": Fusion(offset=0, network=0, statistics=0)}}}, "shares 0, 0"),
        ({"parameters": ()} | {"fusion": {"CT": {"mas": Fusion(offset=0, network=1, statistics=0)}}}, "'mas'"),
    ],
)
def test_a_card_whose_fusion_cannot_be_honoured_is_refused(changes, said):
    with pytest.raises(CheckpointRefused, match=said):
        read_card(replace(CARD, **changes).to_json())


def test_a_card_keeps_its_fusion():
    card = read_card(CARD.to_json())

    assert (card.fusion, card.statistics_version) == (CARD.fusion, VERSION)


def test_half_precision_weights_are_half_as_large_and_score_alike(tmp_path):
    prompt = prompt_of(WORDS["CT"])
    raw = {}
    for half in (False, True):
        folder = tmp_path / str(half)
        network, card, regressors = load_whole("fused", saved(folder, half=half))
        assert all(value.dtype == torch.float32 for value in network.state_dict().values())
        raw[half] = NetworkScorer(network, card, regressors).score(inputs(), prompt).raw

    kept = load_file(tmp_path / "True" / WEIGHTS_FILE)
    assert {value.dtype for key, value in kept.items() if not key.startswith("statistics.")} == {torch.float16}
    assert {value.dtype for key, value in kept.items() if key.startswith("statistics.")} == {torch.float32}
    assert raw[True] == pytest.approx(raw[False], abs=5e-3)
    assert raw[True].tolist() != raw[False].tolist()


def test_the_fingerprint_of_older_cards_stands_where_photographs_are_not_reduced():
    reduced = replace(DEFAULT_PREPROCESSING, native_crops=1, native_at_most_px=768)

    assert DEFAULT_PREPROCESSING.fingerprint() == "95d0feb89069564b"
    assert reduced.fingerprint() != replace(reduced, native_at_most_px=None).fingerprint()


def test_a_card_keeps_which_modalities_are_sampled():
    spec = replace(DEFAULT_PREPROCESSING, sampled=("CT",))
    card = Card(name="x", size="n16", trained=True, weights_sha256="0" * 64, quality=None, preprocess=spec)

    assert read_card(card.to_json()).preprocess == spec


def test_crops_of_a_large_photograph_show_as_much_as_of_one_of_the_size_that_is_wanted():
    spec = replace(DEFAULT_PREPROCESSING, native_crops=1, native_at_most_px=768)
    picture = np.full((1536, 1536, 3), 90.0, dtype=np.float32)

    shown = preprocess([picture], spec, modality="OP", image_type="cfp")

    assert [(view.height, view.width) for view in shown.views] == [(1536, 1536), (448, 448)]
    assert [one.shape for one in shown.slices] == [(1536, 1536, 3)]
    assert shown.images.shape == (2, 3, 224, 224)
