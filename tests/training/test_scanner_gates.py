"""Gates on series as they came from scanners, on refusals, and on what a score is made of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.samples import sample

from mediqa_node.model.card import Fusion
from mediqa_node.model.predict import load_scorer
from training.data.collection import ImageSet
from training.evaluate.retention import RETENTION_HEADS, looked_at, retention
from training.evaluate.scanner_gates import CHECK_HEADS, Refusals, clean_series, cost, of_card, repeatability
from training.simulate.degraded import FACTORS
from training.simulate.mr_from_ct import PREFIX

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def scorer():
    return load_scorer()


def card_of(scorer, *, ct: float, **metrics):
    fusion = {"CT": {"quality": Fusion(offset=0.0, network=ct, statistics=1.0 - ct)}}
    return replace(scorer.card, fusion=fusion, metrics={"made_by": {}, **metrics})


@pytest.mark.parametrize(("ct", "holds"), [(0.75, True), (0.5, False)])
def test_the_network_has_most_of_the_score(scorer, ct, holds):
    [share] = of_card(card_of(scorer, ct=ct))

    assert (share.holds, share.figure) == (holds, f"CT {ct:.2f}, MR 1.00, OP 1.00")
    assert len(share.row()) == len(CHECK_HEADS)


@pytest.mark.parametrize(("refused", "holds"), [(1, True), (2, False)])
def test_one_patient_of_twenty_may_be_refused(scorer, refused, holds):
    seen = Refusals(patients={"CT": 15, "MR": 10}, refused={"CT": 0, "MR": refused}, foreign=9, passed=["fruit"])

    _, patients, foreign = of_card(card_of(scorer, ct=1.0, refusals=vars_of(seen)))

    assert (patients.holds, patients.figure) == (holds, f"CT 0 of 15, MR {refused} of 10")
    assert (foreign.holds, foreign.figure) == (None, "8 of 9 refused; not: fruit")


def vars_of(seen: Refusals) -> dict:
    return {name: getattr(seen, name) for name in ("patients", "refused", "foreign", "passed")}


def test_series_as_they_came_are_scored_repeated_and_timed(scorer):
    sets = [ImageSet(name=one.name, folder=one, source=one.name, split="dev") for one in sorted(DATA.glob("ct*"))]

    clean = clean_series(sets, scorer, held_out="one")
    again = repeatability(sets, scorer)
    spent = cost(sets, scorer)

    assert clean.gate.endswith("set one")
    assert clean.holds in (True, False)
    assert again.figure.startswith("SD ")
    assert spent.figure.endswith("core-seconds on this machine")


def copies(source: str, split: str, *, falls: bool) -> list:
    return [
        (
            sample(f"{source} {factor} {level}", base=source, source=source, split=split, modality="MR", factor=factor,
                   severities=dict.fromkeys(FACTORS["MR"], 0.0) | {"noise": level}),
            1.0 - level if falls else level,
        )
        for level, factor in ((0.0, "clean"), (0.3, "noise"), (0.6, "noise"), (0.3, "mixed"))
    ]  # fmt: skip


def test_retention_is_that_of_the_worst_unseen_source():
    both = [*copies("seen", "train", falls=True), *copies("good", "test", falls=True)]
    both += [*copies("poor", "test", falls=False), *copies(f"{PREFIX}x", "train", falls=False)]
    keys = looked_at([one for one, _ in both])
    samples = [one for one, _ in both if one.key in keys]

    found, *others = retention(
        np.array([value for one, value in both if one.key in keys]), samples, "MR", weights_sha256="a" * 64
    )

    assert {one.source for one in samples} == {"seen", "good", "poor"}
    assert "mixed" not in {one.factor for one in samples}
    assert others == [], "of no other factor are there pairs"
    assert (found.factor, found.seen, found.unseen, found.worst) == ("noise", 1.0, 0.0, -1.0)
    assert found.row() == ("MR noise", "1.00", "0.00", "-1.00 poor", "-1.00")
    assert len(found.row()) == len(RETENTION_HEADS)
