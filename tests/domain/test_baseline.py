"""What is usual, and what stands out: apart by group, never from other methods, never more than three."""

from dataclasses import replace

import numpy as np
import pytest
from support.measured import measured_stack, measures

from mediqa_node.domain.baseline import HEADING, Group, Usual, usual_of, usual_values, what_stands_out
from mediqa_node.domain.measures import Limit, Validity
from mediqa_node.domain.quantities import CT_DW, CT_NOISE, CT_SHARPNESS, MR_GHOST, MR_NONUNIFORMITY, MR_SNR, OP_FOCUS


def chests(n: int, *, mean: float = 12.0, sd: float = 2.0, seed: int = 0, **changes: str) -> list:
    noise = np.random.default_rng(seed).normal(mean, sd, n)
    return [measured_stack(measures=measures(float(value)), **changes) for value in noise]


def test_usual_values_are_those_of_one_scanner_protocol_and_size() -> None:
    series = [
        *chests(60),
        *chests(40, mean=25.0, seed=1, size_class="Dw 320-360 mm"),
        *chests(29, mean=99.0, seed=2, scanner="CT_ROOM_4"),
    ]

    usual = {(one.group.scanner, one.group.size_class, one.name): one for one in usual_values(series)}

    small, large = (usual["CT_ROOM_3", size, CT_NOISE.name] for size in ("Dw 280-320 mm", "Dw 320-360 mm"))
    assert (small.n, large.n) == (60, 40)
    assert small.median == pytest.approx(12.0, abs=1.0)
    assert small.spread == pytest.approx(2.0, rel=0.35)
    assert large.median == pytest.approx(25.0, abs=1.5)
    assert not [key for key in usual if key[0] == "CT_ROOM_4"], "29 series are too few"


def test_limited_values_make_no_baseline() -> None:
    usual = usual_values(chests(50))

    assert CT_NOISE.name in {one.name for one in usual}
    assert CT_SHARPNESS.name not in {one.name for one in usual}


def test_values_of_another_version_of_the_method_are_not_compared() -> None:
    usual = usual_values(chests(50))
    changed = replace(CT_NOISE, method=replace(CT_NOISE.method, version=CT_NOISE.method.version + 1))
    now = measured_stack(measures=(changed.measured(40.0, n=16), CT_DW.measured(290.0, n=20)))

    assert usual_of(now, usual).keys() == {CT_DW.name}


def test_an_adverse_value_stands_out_and_a_good_one_does_not() -> None:
    usual = usual_values(chests(60))
    noisy, quiet, ordinary = (measured_stack(measures=measures(value)) for value in (21.0, 3.0, 14.0))

    [found] = what_stands_out(noisy.measures, usual_of(noisy, usual))

    assert found.measure.name == CT_NOISE.name
    assert found.p < 0.01
    assert found.in_words().startswith("noise in soft tissue 21.0 HU; usual here 1")
    assert found.in_words().endswith("for Dw 280-320 mm")
    assert what_stands_out(quiet.measures, usual_of(quiet, usual)) == ()
    assert what_stands_out(ordinary.measures, usual_of(ordinary, usual)) == ()
    assert "because" not in HEADING.lower()


def test_a_size_never_stands_out() -> None:
    usual = usual_values(chests(60))
    huge = measured_stack(measures=measures(12.0, dw_mm=500.0))

    assert what_stands_out(huge.measures, usual_of(huge, usual)) == ()


def test_at_most_three_stand_out_the_least_likely_first() -> None:
    group = Group(modality="MR", scanner="MR1", protocol="T1", stack="all images", size_class="")
    quantities = (MR_SNR, MR_GHOST, MR_NONUNIFORMITY, OP_FOCUS)
    usual = {
        one.name: Usual(
            group=group, name=one.name, method=one.method.name, method_version=one.method.version, n=100, median=1.0,
            spread=0.01,
        )
        for one in quantities
    }  # fmt: skip
    values = {MR_SNR: 0.9, MR_GHOST: 1.2, MR_NONUNIFORMITY: 1.15, OP_FOCUS: 0.8}

    found = what_stands_out([quantity.measured(value, n=9) for quantity, value in values.items()], usual)

    assert [one.measure.name for one in found] == [MR_GHOST.name, OP_FOCUS.name, MR_NONUNIFORMITY.name]


def test_one_of_many_comparisons_has_to_be_less_likely_than_one_alone() -> None:
    """Holm: what is significant alone is not among ten comparisons."""
    group = Group(modality="CT", scanner="CT", protocol="", stack="all images", size_class="")
    value = 12.0 + 2.6 * 2.0

    def usual(name: str, median: float, spread: float) -> Usual:
        quantity = {one.name: one for one in (CT_NOISE, MR_SNR, MR_GHOST, MR_NONUNIFORMITY, OP_FOCUS)}[name]
        return Usual(
            group=group, name=name, method=quantity.method.name, method_version=1, n=2000, median=median, spread=spread
        )

    alone = what_stands_out([CT_NOISE.measured(value, n=9)], {CT_NOISE.name: usual(CT_NOISE.name, 12.0, 2.0)})
    others = (MR_SNR, MR_GHOST, MR_NONUNIFORMITY, OP_FOCUS)
    many = what_stands_out(
        [CT_NOISE.measured(value, n=9), *(one.measured(1.0, n=9) for one in others)],
        {CT_NOISE.name: usual(CT_NOISE.name, 12.0, 2.0)} | {one.name: usual(one.name, 1.0, 1.0) for one in others},
    )

    assert len(alone) == 1
    assert many == ()


def test_normal_series_stand_out_as_rarely_as_stated() -> None:
    usual = usual_values(chests(200))
    found = [what_stands_out(one.measures, usual_of(one, usual)) for one in chests(2000, seed=9)]

    assert sum(map(bool, found)) / 2000 < 0.02


def test_a_measure_without_a_value_has_a_reason_and_the_reverse() -> None:
    with pytest.raises(ValueError, match="valid"):
        replace(CT_NOISE.measured(1.0, n=1), value=None)
    with pytest.raises(ValueError, match="reason"):
        replace(CT_NOISE.not_measurable(Limit.NO_BODY), limit=None)
    assert CT_NOISE.not_measurable(Limit.NO_BODY).validity is Validity.NOT_MEASURABLE
