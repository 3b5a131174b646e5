"""The domains of a card: read bit for bit, or refused with a sentence that names the field."""

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.factories import network_input

from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.image.measure.slice_statistics import LOCAL, SliceStatistics, window_names
from mediqa_node.image.training_range import TrainingRange, fit_training_range
from mediqa_node.model.card import DEFAULT_PREPROCESSING, Card, QualityMap, read_card
from mediqa_node.model.checkpoint import load_checkpoint
from mediqa_node.model.predict import NetworkScorer


def domain_of(modality: str) -> TrainingRange:
    random = np.random.default_rng(3)
    sources = {
        str(source): [
            SliceStatistics(
                window=random.normal(source, 1.0, (7, len(window_names(modality)))),
                local=random.normal(source, 1.0, (7, len(LOCAL))),
                inside=random.uniform(0.3, 0.6, 7),
                round_field=np.ones(7, dtype=bool),
                lit=np.ones(7),
                covered=np.zeros(7),
            )
        ]
        for source in range(5)
    }
    return fit_training_range(sources, modality=modality, fingerprint=DEFAULT_PREPROCESSING.fingerprint())


CARD = Card(
    name="chest",
    size="t16",
    trained=True,
    weights_sha256="0" * 64,
    quality=QualityMap(kind="clamp", a=0.0, b=5.0),
    domains={modality: domain_of(modality) for modality in ("CT", "OP")},
)


def changed(path: str, value: Any) -> bytes:
    """The card with one value of the domain of CT replaced; `...` removes it."""
    raw = json.loads(CARD.to_json())
    *parents, last = path.split(".")
    target = raw["domains"]["CT"]
    for key in parents:
        target = target[int(key) if key.isdigit() else key]
    if value is ...:
        del target[last]
    else:
        target[int(last) if last.isdigit() else last] = value
    return json.dumps(raw).encode()


def test_domains_come_back_bit_for_bit():
    card = read_card(CARD.to_json())

    assert card == CARD
    assert card.to_json() == CARD.to_json()
    assert card.domains["CT"].window.precision == CARD.domains["CT"].window.precision


def test_a_card_without_domains_is_read_as_one_that_refuses_nothing():
    raw = json.loads(CARD.to_json())
    del raw["domains"]

    assert read_card(json.dumps(raw).encode()).domains == {}


TWICE = [list(row) for row in np.eye(4) * 2]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("version", 2, "domain of CT: statistics of version 2; this version measures 1"),
        ("version", True, "version True"),
        ("version", ..., "domain of CT: fields"),
        ("fingerprint", "0" * 16, "domain of CT: found with another preprocessing"),
        ("sources", 2, "domain of CT: sources 2"),
        ("sources", 5.0, "sources 5.0"),
        ("inside_at_least", 1.5, "inside_at_least 1.5"),
        ("inside_at_least", float("nan"), "inside_at_least nan"),
        ("round_field", 1, "round_field must be true or false"),
        ("surprise", 1, "surprise"),
        ("window", None, "domain of CT, window: fields"),
        ("local.limit", ..., "domain of CT, local: fields"),
        ("local.limit", 0.0, "local: limit 0.0"),
        ("local.limit", "2", "local: limit '2'"),
        ("local.limit", float("inf"), "local: limit inf"),
        ("window.names.0", "median", "window: statistics"),
        ("window.names", list(LOCAL), "window: statistics"),
        ("window.mean", [0.0, 0.0, 0.0], "window: mean must be 4 finite numbers"),
        ("window.mean.1", True, "window: mean must be 4 finite numbers"),
        ("window.mean.1", float("nan"), "window: mean must be 4 finite numbers"),
        ("window.precision", TWICE[:3], "window: precision must be 4 rows of 4"),
        ("window.precision.2", [0.0] * 3, "window: precision must be 4 rows of 4"),
        ("window.precision.2.2", None, "window: precision must be 4 rows of 4"),
        ("window.precision.0.1", 0.25, "window: precision is not symmetric"),
        ("window.precision.3.3", -1.0, "window: precision is not positive definite"),
    ],
)
def test_a_domain_that_this_version_cannot_honour_is_refused(path, value, said):
    with pytest.raises(CheckpointRefused, match="checkpoint card cannot be honoured") as refused:
        read_card(changed(path, value))

    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("domains", "said"),
    [
        ([], "domains must be an object by modality"),
        ({"US": {}}, "domain of US: unknown modality"),
        ({"MR": {}}, "domain of MR: fields"),
    ],
)
def test_domains_of_anything_else_are_refused(domains, said):
    with pytest.raises(CheckpointRefused, match=said):
        read_card(json.dumps(json.loads(CARD.to_json()) | {"domains": domains}).encode())


def test_a_domain_of_photographs_is_none_of_ct():
    raw = json.loads(CARD.to_json())
    raw["domains"]["CT"] = deepcopy(raw["domains"]["OP"])

    with pytest.raises(CheckpointRefused, match="domain of CT, window: statistics"):
        read_card(json.dumps(raw).encode())


def test_a_card_whose_preprocessing_changed_under_its_domain_is_refused():
    other = replace(CARD, preprocess=replace(DEFAULT_PREPROCESSING, slices=5))

    with pytest.raises(CheckpointRefused, match="another preprocessing"):
        read_card(other.to_json())


def test_the_scorer_asks_the_domain_of_the_modality_and_no_other():
    network, card = load_checkpoint("untrained")
    scorer = NetworkScorer(network, replace(card, domains=CARD.domains))
    inputs = network_input(np.zeros((7, 3, 224, 224), dtype=np.float32))

    found = scorer.range_position(inputs, "CT")
    assert found is not None
    assert found.is_outside
    assert scorer.range_position(inputs, "MR") is None
