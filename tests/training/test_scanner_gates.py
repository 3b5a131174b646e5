"""Gates on series as they came from scanners, on refusals, and on what a score is made of."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.samples import sample

from mediqa_node.model.card import Fusion
from mediqa_node.model.predict import load_scorer
from training.data.collection import ImageSet
from training.data.store import VARIANT
from training.evaluate.by_method import QUALITY, SHIPPED, MethodPredictions
from training.evaluate.refusals import Refusals
from training.evaluate.retention import RETENTION_HEADS, retention, seen_copies
from training.evaluate.scanner_gates import CHECK_HEADS, clean_series, cost, of_card, repeatability
from training.evaluate.series import scored_series
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


def test_a_network_that_passes_alone_is_due_the_whole_score(scorer):
    [share] = of_card(card_of(scorer, ct=0.75), alone={"CT"})

    assert (share.holds, share.least) == (False, "CT 1.00, MR 1.00, OP 1.00")


@pytest.mark.parametrize(("refused", "holds"), [(1, True), (2, False)])
def test_one_patient_of_twenty_may_be_refused(scorer, refused, holds):
    seen = Refusals(patients={"CT": 15, "MR": 10}, refused={"CT": 0, "MR": refused}, foreign=9, passed=["screen"])

    _, patients, foreign = of_card(card_of(scorer, ct=1.0, refusals=vars_of(seen)))

    assert (patients.holds, patients.figure) == (holds, f"CT 0 of 15, MR {refused} of 10, OP has no range")
    assert (foreign.holds, foreign.figure) == (False, "8 of 9 refused; not: screen")


@pytest.mark.parametrize(("passed", "holds"), [([], True), (["refuse/mr_fruit_ge_irspgr"], True), (["photo"], False)])
def test_only_what_looks_like_tissue_may_pass(scorer, passed, holds):
    seen = Refusals(patients={"MR": 10}, refused={"MR": 0}, foreign=9, passed=passed)

    *_, foreign = of_card(card_of(scorer, ct=1.0, refusals=vars_of(seen)))

    assert foreign.holds is holds


def vars_of(seen: Refusals) -> dict:
    return {name: getattr(seen, name) for name in ("patients", "refused", "foreign", "passed")}


def sets_of(pattern: str) -> list[ImageSet]:
    return [ImageSet(name=one.name, folder=one, source=one.name, split="dev") for one in sorted(DATA.glob(pattern))]


@pytest.fixture(scope="module")
def of_three(scorer):
    """The same weights, which read three slices."""
    return SimpleNamespace(
        card=scorer.card, spec=replace(scorer.spec, slices=3), score=scorer.score, range_position=scorer.range_position
    )


def test_scores_of_clean_series_are_compared_with_their_own_quality(of_three, monkeypatch):
    fits = clean_series(scored_series(sets_of("ct*"), of_three), "a" * 64, held_out="one")
    monkeypatch.setattr("training.evaluate.series.own_quality", lambda _: -5.0)
    fails = clean_series(scored_series(sets_of("ct*"), of_three), "a" * 64, held_out="")

    assert (fits.gate[-7:], fits.holds, fits.figure[:15]) == ("set one", True, "100%: CT 3 of 3")
    assert fails.holds is False
    assert fails.figure.startswith("0%: CT 0 of 3; not: ct_body_totalseg_j2k 0.")


def test_the_halves_of_a_series_are_scored_alike(of_three):
    again = repeatability(sets_of("ct*"), of_three)
    none = repeatability(sets_of("fundus*"), of_three)

    found = re.fullmatch(r"SD (0\.\d+) in 3 series, largest difference (0\.\d+)", again.figure)
    assert 0.0 < float(found[1]) < float(found[2]) < 0.2
    assert (none.figure, none.holds) == ("no series", None)


def test_the_cost_is_of_ct_and_nothing_without_it(of_three):
    spent = cost(sets_of("ct*"), of_three)

    assert spent.gate.startswith("cost of 3 slices in ")
    assert float(spent.figure.split()[0]) > 0.0
    assert cost(sets_of("fundus*"), of_three) is None


def test_nothing_passes_without_evidence(scorer):
    nothing = vars_of(Refusals(patients={}, refused={}, foreign=0, passed=[]))
    _, patients, foreign = of_card(card_of(scorer, ct=1.0, refusals=nothing))

    assert foreign.holds is None
    assert (patients.holds, patients.figure) == (None, "CT has no range, MR has no range, OP has no range")
    assert clean_series([], "a" * 64, held_out="").holds is None


def copies(source: str, split: str, *, falls: bool, bases: int = 7) -> list:
    return [
        (
            sample(f"{source} {base} {factor} {level}", base=f"{source} {base}", source=source, split=split,
                   modality="MR", factor=factor, severities=dict.fromkeys(FACTORS["MR"], 0.0) | {"noise": level}),
            1.0 - level if falls else level,
        )
        for base in range(bases)
        for level, factor in ((0.0, "clean"), (0.3, "noise"), (0.6, "noise"), (0.3, "mixed"))
    ]  # fmt: skip


def judged(copies: list) -> MethodPredictions:
    return MethodPredictions(
        data=SimpleNamespace(samples=[one for one, _ in copies]),
        values={QUALITY: {SHIPPED: np.array([value for _, value in copies])}},
    )


def test_of_seen_sources_a_few_slices_as_scanned_are_predicted():
    every = [*copies("seen", "train", falls=True), *copies("good", "test", falls=True)]
    every += [*copies(f"{PREFIX}x", "train", falls=False), *copies("later", "refit", falls=False)]
    every += [
        (replace(one, base="a variant", key=f"v{one.key}", settings={VARIANT: 1.0}), value) for one, value in every[:4]
    ]

    keys = seen_copies([one for one, _ in every])

    chosen = [one for one, _ in every if one.key in keys]
    assert {one.source for one in chosen} == {"seen"}
    assert "mixed" not in {one.factor for one in chosen}
    assert len(chosen) == 6 * 3


def test_retention_is_that_of_the_worst_unseen_source():
    seen = judged(copies("seen", "train", falls=True))
    unseen = judged([*copies("good", "test", falls=True), *copies("poor", "test", falls=False),
                     *copies("small", "test", falls=False, bases=1)])  # fmt: skip

    found, *others = retention(seen, unseen, weights_sha256="a" * 64)

    assert others == [], "of no other factor are there pairs"
    assert (found.factor, found.seen, found.unseen, found.worst) == (
        "noise",
        1.0,
        pytest.approx(-3 / 45),
        (-1.0, "poor", 21),
    )
    assert found.row() == ("MR noise", "1.00 (21 pairs)", "-0.07", "-1.00 poor (21 pairs)", "-1.00")
    assert len(found.row()) == len(RETENTION_HEADS)


def test_few_pairs_have_no_retention():
    few, many = (judged(copies("one", "train", falls=True, bases=n)) for n in (1, 7))

    [of_few], [by_few] = (list(retention(*both, weights_sha256="a" * 64)) for both in ((many, few), (few, many)))

    assert of_few.row()[3:] == ("fewer than 20 pairs", "–")
    assert by_few.row()[3:] == ("1.00 one (21 pairs)", "–")
