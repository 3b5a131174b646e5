"""Find pairs of series in one study whose order of image quality follows from their headers.

Every rule prefers to miss a pair: the two series have to be equal in all that is recorded, except what orders them.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from mediqa_node.domain.self_check import Pair, PairKind

THICKNESS_FACTOR = 1.5
DOSE_FACTOR = 1.5
_SAME_DOSE = 1.2
_SAME = 0.01
"""Numbers that differ by less than this share are equal."""
_OVERLAP = 0.8
"""Share of the longer range of positions that both series cover."""
_DIRECTION = 0.9962
"""Cosine of 5 degrees between directions of image rows, or of columns."""
_ONE_ACQUISITION_S = 60.0
_APART_S, _WITHIN_S = 20.0, 3600.0
_FEWEST_SLICES = 3
_SHARP = frozenset({"lung", "bone"})

Value = str | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """What the headers of one series state that decides about pairs.

    Attributes:
        patient: Patient ID and its issuer; only ever compared.
        acquisition: what names the acquisition (`pipeline.policy.acquisition_of`); None if the header does not.
        acquired_s: time of acquisition in seconds from an arbitrary day; None if the header does not state it.
        grid: rows, columns, row and column spacing in mm.
        reach_mm: where the first slice begins and the last one ends along the normal.
        n_slices: positions of the primary stack.
        kernel_class: `soft`, `lung` or `bone` by the node's table of kernels; None for a kernel that it lacks.
        reconstruction: class and strength of an iterative reconstruction.
        tube_charge_mas: None unless the label is verified.
        settings: all other parameters of acquisition, in a fixed order.
        contrast: whether the header names a contrast agent.
        phases: words of the names that tell a phase: arterial, 70 %, expiration.
        several: whether the series holds, or is part of, several volumes of the same place: dynamic, cine, perfusion.
    """

    series_instance_uid: str
    modality: str
    patient: tuple[str, str] = field(repr=False)
    scanner: tuple[str, ...]
    acquisition: str | None
    acquisition_number: int | None
    acquired_s: float | None
    frame_of_reference: str
    image_type: tuple[str, ...]
    description: str
    protocol: str
    grid: tuple[float, float, float, float]
    orientation: tuple[float, ...] | None
    reach_mm: tuple[float, float]
    n_slices: int
    thickness_mm: float | None
    kernel: str
    kernel_class: str | None
    reconstruction: tuple[str, ...]
    tube_charge_mas: float | None
    mas_definition: str | None
    settings: tuple[Value, ...]
    contrast: bool
    phases: frozenset[str]
    several: bool


def same_settings(one: Sequence[Value], other: Sequence[Value]) -> bool:
    """Return whether parameters are equal, numbers within 1 %.

    >>> same_settings((120.0, "FL", None), (120.5, "FL", None)), same_settings((120.0,), (None,))
    (True, False)
    """
    return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, str) or isinstance(other, str) or one is None or other is None:
        return one == other
    return abs(one - other) <= _SAME * max(abs(one), abs(other))


def pairs_in(
    study: Sequence[SeriesFacts], kinds: Collection[PairKind] = tuple(PairKind), *, contrast: bool = False
) -> list[Pair]:
    """Return at most one pair of each kind among the series of one study.

    Reconstructions of one acquisition share their noise, so that a further pair of a study would prove nothing more.
    Of several the one with the largest contrast of thickness or dose is taken, without a look at the scores.

    Args:
        contrast: whether any series of the study, scored or not, had a contrast agent: then a series that comes again
            may be the next phase, and neither repetitions nor doses are compared.
    """
    fit = sorted((one for one in study if _is_fit(one)), key=lambda one: one.series_instance_uid)
    contrast = contrast or any(one.contrast for one in study)
    found = []
    for kind in PairKind:
        if kind in kinds and not (contrast and kind in (PairKind.REPEAT, PairKind.DOSE)):
            rated = list(_RULES[kind](fit))
            found += [Pair(kind, *max(rated, key=lambda one: one[0])[1])] if rated else []
    return found


_Rated = tuple[float, tuple[str, str]]
"""How far apart a pair is, and the UIDs: the better series first."""


def _is_fit(one: SeriesFacts) -> bool:
    """Return whether a series may be part of any pair: an original volume of a known patient, without repeats."""
    original = one.image_type[:2] == ("ORIGINAL", "PRIMARY")
    placed = one.orientation is not None and one.n_slices >= _FEWEST_SLICES and bool(one.frame_of_reference)
    return original and placed and bool(one.patient[0]) and not one.several


def _thickness(study: Sequence[SeriesFacts]) -> Iterator[_Rated]:
    for one, other in _of_one_acquisition(study):
        thick, thin = sorted((one, other), key=lambda series: series.thickness_mm or 0.0, reverse=True)
        factor = (thick.thickness_mm or 0.0) / (thin.thickness_mm or float("inf"))
        if one.kernel and one.kernel == other.kernel and factor >= THICKNESS_FACTOR:
            yield factor, (thick.series_instance_uid, thin.series_instance_uid)


def _kernel(study: Sequence[SeriesFacts]) -> Iterator[_Rated]:
    for one, other in _of_one_acquisition(study):
        soft, sharp = (one, other) if one.kernel_class == "soft" else (other, one)
        known = soft.kernel_class == "soft" and sharp.kernel_class in _SHARP
        if known and _same(one.thickness_mm, other.thickness_mm) and one.thickness_mm:
            yield 1.0, (soft.series_instance_uid, sharp.series_instance_uid)


def _of_one_acquisition(study: Sequence[SeriesFacts]) -> Iterator[tuple[SeriesFacts, SeriesFacts]]:
    """Yield two reconstructions of the same data: equal in all but thickness and kernel.

    A device may use one event UID for everything: frame of reference, acquisition number, time and names of phases
    have to agree as well.
    """
    for one, other in combinations(study, 2):
        if (
            one.modality == "CT"
            and one.acquisition is not None
            and one.acquisition == other.acquisition
            and one.acquisition_number == other.acquisition_number
            and (apart := _apart_s(one, other)) is not None
            and apart <= _ONE_ACQUISITION_S
            and (one.contrast, one.phases) == (other.contrast, other.phases)
            and _same_place(one, other)
        ):
            yield one, other


def _repeat(study: Sequence[SeriesFacts]) -> Iterator[_Rated]:
    """Yield what was acquired twice, no more: a third series of the kind makes it a dynamic one."""
    again = {one.series_instance_uid: [two for two in study if two is not one and _is_again(one, two)] for one in study}
    for one, other in combinations(study, 2):
        twice = again[one.series_instance_uid] == [other] and again[other.series_instance_uid] == [one]
        apart = _apart_s(one, other)
        if twice and apart is not None and _APART_S <= apart <= _WITHIN_S:
            first, later = sorted((one, other), key=lambda series: series.acquired_s or 0.0)
            yield 1.0, (later.series_instance_uid, first.series_instance_uid)


def _is_again(one: SeriesFacts, other: SeriesFacts) -> bool:
    if one.modality == "CT" and not (1 / _SAME_DOSE <= _dose_factor(one, other) <= _SAME_DOSE):
        return False
    named = bool(one.description or one.protocol)
    same_name = (one.description, one.protocol) == (other.description, other.protocol)
    same_data = one.acquisition is not None and one.acquisition == other.acquisition
    return named and same_name and not same_data and _same_scan(one, other)


def _dose(study: Sequence[SeriesFacts]) -> Iterator[_Rated]:
    for one, other in combinations(study, 2):
        high, low = sorted((one, other), key=lambda series: series.tube_charge_mas or 0.0, reverse=True)
        apart = _apart_s(one, other)
        factor = _dose_factor(high, low)
        same = one.modality == "CT" and one.protocol and one.protocol == other.protocol and _same_scan(one, other)
        if same and apart is not None and apart <= _WITHIN_S and factor >= DOSE_FACTOR:
            yield factor, (high.series_instance_uid, low.series_instance_uid)


def _dose_factor(one: SeriesFacts, other: SeriesFacts) -> float:
    """Return the ratio of tube charges; 0 if one is not known, or if they mean different things."""
    if not one.tube_charge_mas or not other.tube_charge_mas or one.mas_definition != other.mas_definition:
        return 0.0
    return one.tube_charge_mas / other.tube_charge_mas


def _same_scan(one: SeriesFacts, other: SeriesFacts) -> bool:
    """Return whether two acquisitions without named phases have the same settings, reconstruction and place."""
    return (
        not one.phases
        and not other.phases
        and one.kernel == other.kernel
        and one.thickness_mm is not None
        and _same(one.thickness_mm, other.thickness_mm)
        and _same_place(one, other)
    )


def _same_place(one: SeriesFacts, other: SeriesFacts) -> bool:
    """Return whether two series show the same part of the same patient on the same scanner, pixel by pixel alike."""
    return (
        all(
            getattr(one, name) == getattr(other, name)
            for name in ("modality", "patient", "scanner", "frame_of_reference", "image_type", "reconstruction")
        )
        and same_settings(one.settings, other.settings)
        and same_settings(one.grid, other.grid)
        and _same_orientation(one.orientation or (), other.orientation or ())
        and _overlap(one.reach_mm, other.reach_mm) >= _OVERLAP
    )


def _same_orientation(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(float(np.dot(one[part], other[part])) >= _DIRECTION for part in (slice(0, 3), slice(3, 6)))


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    shared = min(one[1], other[1]) - max(one[0], other[0])
    longer = max(one[1] - one[0], other[1] - other[0])
    return shared / longer if longer > 0 else 0.0


def _apart_s(one: SeriesFacts, other: SeriesFacts) -> float | None:
    if one.acquired_s is None or other.acquired_s is None:
        return None
    return abs(one.acquired_s - other.acquired_s)


_RULES: dict[PairKind, Callable[[Sequence[SeriesFacts]], Iterator[_Rated]]] = {
    PairKind.THICKNESS: _thickness,
    PairKind.KERNEL: _kernel,
    PairKind.REPEAT: _repeat,
    PairKind.DOSE: _dose,
}
