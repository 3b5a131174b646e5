"""What a self-check concludes from counts: shares, intervals, ties and states."""

import pytest
from scipy.stats import binomtest

from mediqa_node.domain.promotion import Weights
from mediqa_node.domain.self_check import (
    EXPECTATIONS,
    FEWEST_PAIRS,
    SENTENCES,
    TOLERANCE,
    Figures,
    PairKind,
    ScoredPair,
    SelfCheck,
    State,
    state_of,
    wilson,
)


def pair(difference: float, kind: PairKind = PairKind.THICKNESS) -> ScoredPair:
    return ScoredPair(kind=kind, better="1.2.1", worse="1.2.2", better_quality=0.5 + difference, worse_quality=0.5)


@pytest.mark.parametrize(("n_expected", "n"), [(k, n) for n in (1, 8, 15, 400) for k in {0, 1, n // 2, n - 1, n}])
def test_the_interval_is_that_of_wilson(n_expected: int, n: int) -> None:
    expected = binomtest(n_expected, n).proportion_ci(method="wilson")

    assert wilson(n_expected, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_every_kind_and_state_has_its_words() -> None:
    assert set(EXPECTATIONS) == set(PairKind)
    assert set(SENTENCES) == set(State)


@pytest.mark.parametrize(
    ("kind", "n_expected", "n", "state"),
    [
        (PairKind.THICKNESS, 0, 0, State.TOO_FEW),
        (PairKind.THICKNESS, 0, FEWEST_PAIRS - 1, State.TOO_FEW),
        (PairKind.THICKNESS, 7, 8, State.ORDERS),
        (PairKind.THICKNESS, 6, 8, State.UNDECIDED),
        (PairKind.THICKNESS, 4, 8, State.DOES_NOT_ORDER),
        (PairKind.THICKNESS, 0, 8, State.DOES_NOT_ORDER),
        (PairKind.THICKNESS, 80, 100, State.ORDERS),
        (PairKind.THICKNESS, 75, 100, State.UNDECIDED),
        (PairKind.THICKNESS, 60, 100, State.DOES_NOT_ORDER),
        (PairKind.REPEAT, 59, 100, State.UNDECIDED),
        (PairKind.REPEAT, 60, 100, State.ORDERS),
        (PairKind.REPEAT, 30, 100, State.DOES_NOT_ORDER),
    ],
)
def test_states_at_their_boundaries(kind: PairKind, n_expected: int, n: int, state: State) -> None:
    assert state_of(kind, n_expected, n) is state


@pytest.mark.parametrize(
    ("difference", "kind", "tie", "agrees"),
    [
        (0.1, PairKind.DOSE, False, True),
        (-0.1, PairKind.DOSE, False, False),
        (0.9 * TOLERANCE, PairKind.DOSE, True, False),
        (1.1 * TOLERANCE, PairKind.DOSE, False, True),
        (-0.9 * TOLERANCE, PairKind.REPEAT, True, True),
        (-1.1 * TOLERANCE, PairKind.REPEAT, False, False),
    ],
)
def test_a_tie_is_as_expected_only_of_a_repetition(difference: float, kind: PairKind, tie: bool, agrees: bool) -> None:
    one = pair(difference, kind)

    assert (one.is_tie, one.agrees) == (tie, agrees)


def test_only_pairs_of_a_kind_are_counted() -> None:
    pairs = [pair(0.1), pair(0.001), pair(-0.2), pair(0.1, PairKind.KERNEL)]

    figures = Figures.of(PairKind.THICKNESS, pairs)

    assert (figures.n, figures.n_expected, figures.n_ties, figures.state) == (3, 1, 1, State.TOO_FEW)
    assert figures.share == pytest.approx(1 / 3)
    assert Figures.of(PairKind.DOSE, pairs).as_dict()["share"] is None


def test_a_check_fails_only_by_a_kind_with_enough_pairs() -> None:
    weights = Weights(name="default", sha256="3f" * 32, card_sha256="ca" * 32)

    def check(*figures: Figures) -> SelfCheck:
        return SelfCheck(checked_at=0.0, software_version="0.2", weights=weights, figures=figures)

    few = Figures(kind=PairKind.DOSE, n=7, n_expected=0, n_ties=0)
    good = Figures(kind=PairKind.KERNEL, n=8, n_expected=8, n_ties=0)
    bad = Figures(kind=PairKind.THICKNESS, n=8, n_expected=1, n_ties=3)

    assert check().in_brief() == "no pairs"
    assert check(few, good).holds
    assert not check(few, good, bad).holds
    assert check(bad, good).in_brief() == "thickness 1 of 8 (NOT ORDERED), kernel 8 of 8"
