"""What is usual, and what stands out: apart by group, never from other methods, never more than three."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.measured import measured_stack, measures

from mediqa_node.domain.baseline import HEADING, Group, Usual, usual_of, usual_values, what_stands_out
from mediqa_node.domain.measures import Limit, MeasuredStack, Validity
from mediqa_node.domain.quantities import (
    CT_DW,
    CT_NOISE,
    CT_SHARPNESS,
    MISSING_SLICES,
    MR_GHOST,
    MR_NONUNIFORMITY,
    MR_SNR,
    OP_FOCUS,
    Quantity,
)


def exams(values: Sequence[float], **changes: str) -> list[MeasuredStack]:
    """Return one chest an exam, with these values of noise."""
    return [
        measured_stack(study_instance_uid=f"1.2.{i}", measures=measures(float(value)), **changes)
        for i, value in enumerate(values)
    ]


def chests(n: int, *, mean: float = 12.0, sd: float = 2.0, seed: int = 0, **changes: str) -> list[MeasuredStack]:
    return exams(np.random.default_rng(seed).normal(mean, sd, n), **changes)


def usual(quantity: Quantity, *, n: int = 100, mean: float = 1.0, sd: float = 0.01) -> Usual:
    group = Group(
        modality="MR", scanner="MR1", protocol="T1", stack="all images", kernel="", recon_class="", thickness="5.0 mm",
        size_class="",
    )  # fmt: skip
    return Usual(
        group=group, name=quantity.name, method=quantity.method.name, method_version=quantity.method.version, limit="",
        n=n, median=mean, spread=sd, mean=mean, sd=sd, logarithmic=False, low=mean - 3 * sd, high=mean + 3 * sd,
    )  # fmt: skip


def test_usual_values_are_those_of_one_scanner_protocol_and_size() -> None:
    series = [
        *chests(60),
        *chests(40, mean=25.0, seed=1, size_class="Dw 320-360 mm"),
        *chests(29, mean=99.0, seed=2, scanner="CT_ROOM_4"),
    ]

    found = {(one.group.scanner, one.group.size_class, one.name): one for one in usual_values(series)}

    small, large = (found["CT_ROOM_3", size, CT_NOISE.name] for size in ("Dw 280-320 mm", "Dw 320-360 mm"))
    assert (small.n, large.n) == (60, 40)
    assert small.median == pytest.approx(12.0, abs=1.0)
    assert small.spread == pytest.approx(2.0, rel=0.35)
    assert large.median == pytest.approx(25.0, abs=1.5)
    assert not [key for key in found if key[0] == "CT_ROOM_4"], "29 exams are too few"


def test_limited_values_make_no_baseline() -> None:
    known = usual_values(chests(50))

    assert CT_NOISE.name in {one.name for one in known}
    assert CT_SHARPNESS.name not in {one.name for one in known}


def test_values_of_another_version_of_the_method_are_not_compared() -> None:
    known = usual_values(chests(50))
    changed = replace(CT_NOISE, method=replace(CT_NOISE.method, version=CT_NOISE.method.version + 1))
    now = measured_stack(measures=(changed.measured(40.0, n=16), CT_DW.measured(290.0, n=20)))

    assert usual_of(now, known).keys() == {CT_DW.name}


def test_an_adverse_value_stands_out_and_a_good_one_does_not() -> None:
    known = usual_values(chests(60))
    noisy, quiet, ordinary = (measured_stack(measures=measures(value)) for value in (21.0, 3.0, 14.0))

    [found] = what_stands_out(noisy.measures, usual_of(noisy, known))

    assert found.measure.name == CT_NOISE.name
    assert found.p < 0.01
    assert found.in_words().startswith("noise in soft tissue 21.0 HU; usual here 1")
    assert found.in_words().endswith("for Dw 280-320 mm (60 exams)")
    assert what_stands_out(quiet.measures, usual_of(quiet, known)) == ()
    assert what_stands_out(ordinary.measures, usual_of(ordinary, known)) == ()
    assert "because" not in HEADING.lower()


def test_a_size_never_stands_out() -> None:
    known = usual_values(chests(60))
    huge = measured_stack(measures=measures(12.0, dw_mm=500.0))

    assert what_stands_out(huge.measures, usual_of(huge, known)) == ()


def test_at_most_three_stand_out_the_least_likely_first() -> None:
    known = {one.name: usual(one) for one in (MR_SNR, MR_GHOST, MR_NONUNIFORMITY, OP_FOCUS)}
    values = {MR_SNR: 0.9, MR_GHOST: 1.2, MR_NONUNIFORMITY: 1.15, OP_FOCUS: 0.8}

    found = what_stands_out([quantity.measured(value, n=9) for quantity, value in values.items()], known)

    assert {one.measure.name for one in found[:2]} == {MR_GHOST.name, OP_FOCUS.name}
    assert [one.measure.name for one in found[2:]] == [MR_NONUNIFORMITY.name]


def test_one_of_many_comparisons_has_to_be_less_likely_than_one_alone() -> None:
    """Holm: what is significant alone is not among five comparisons."""
    others = (MR_SNR, MR_GHOST, MR_NONUNIFORMITY, OP_FOCUS)
    known = {CT_NOISE.name: usual(CT_NOISE, n=2000, mean=12.0, sd=2.0)} | {one.name: usual(one) for one in others}
    noisy = CT_NOISE.measured(12.0 + 2.6 * 2.0, n=9)

    alone = what_stands_out([noisy], known)
    many = what_stands_out([noisy, *(one.measured(1.0, n=9) for one in others)], known)

    assert len(alone) == 1
    assert many == ()


@pytest.mark.parametrize("n", [30, 60, 200])
@pytest.mark.parametrize("skew", [0.0, 0.15, 0.3])
def test_ordinary_exams_stand_out_as_rarely_as_stated(n: int, skew: float) -> None:
    """One in a hundred of a normal or of a skewed population, whatever the size of the baseline."""
    rng = np.random.default_rng(n)
    found = 0
    for _ in range(60):
        draw = rng.lognormal(2.5, skew, n + 50) if skew else rng.normal(12, 1.5, n + 50)
        known = usual_values(exams(draw[:n]))
        found += sum(bool(what_stands_out(one.measures, usual_of(one, known))) for one in exams(draw[n:]))

    assert found / 3000 < 0.016


def test_a_count_stands_out_only_beyond_everything_in_a_large_baseline() -> None:
    def slices(missing: int, study: int) -> MeasuredStack:
        return measured_stack(study_instance_uid=f"1.2.{study}", measures=(MISSING_SLICES.measured(missing, n=50),))

    gap = slices(25, 0)
    few, many = (usual_values([slices(0, i) for i in range(n)]) for n in (40, 150))

    assert what_stands_out(gap.measures, usual_of(gap, few)) == ()
    assert [one.measure.name for one in what_stands_out(gap.measures, usual_of(gap, many))] == [MISSING_SLICES.name]


def test_reconstructions_are_apart_and_an_exam_counts_once() -> None:
    soft, sharp = chests(40), chests(40, mean=70.0, seed=1, kernel="B70f")
    thin = [replace(one, thickness_mm=1.0) for one in chests(40, mean=30.0, seed=2)]

    noise = [one for one in usual_values([*soft, *soft, *sharp, *thin]) if one.name == CT_NOISE.name]

    assert sorted((one.group.kernel, one.group.thickness, one.n) for one in noise) == [
        ("B31f", "1.0 mm", 40), ("B31f", "5.0 mm", 40), ("B70f", "5.0 mm", 40),
    ]  # fmt: skip


def test_a_ct_of_unknown_size_is_compared_with_nothing() -> None:
    known = usual_values([*chests(40), *chests(40, size_class="")])
    cut = measured_stack(size_class="", measures=measures(99.0))

    assert {one.group.size_class for one in known} == {"Dw 280-320 mm"}
    assert usual_of(cut, known) == {}


def test_values_of_one_limit_of_a_protocol_are_compared_with_each_other_only() -> None:
    def head(snr: float, study: int, limit: Limit | None) -> MeasuredStack:
        value = MR_SNR.measured(snr, n=9, limit=limit)
        return measured_stack(modality="MR", size_class="", study_instance_uid=f"1.2.{study}", measures=(value,))

    known = usual_values([head(50.0 + i % 5, i, Limit.FILTERED) for i in range(40)])
    filtered, plain = head(20.0, 99, Limit.FILTERED), head(20.0, 99, None)

    assert [one.measure.name for one in what_stands_out(filtered.measures, usual_of(filtered, known))] == [MR_SNR.name]
    assert usual_of(plain, known) == {}


def test_a_measure_without_a_value_has_a_reason_and_the_reverse() -> None:
    with pytest.raises(ValueError, match="valid"):
        replace(CT_NOISE.measured(1.0, n=1), value=None)
    with pytest.raises(ValueError, match="reason"):
        replace(CT_NOISE.not_measurable(Limit.NO_BODY), limit=None)
    assert CT_NOISE.not_measurable(Limit.NO_BODY).validity is Validity.NOT_MEASURABLE
