"""All measures of a CT stack: sizes on every coarse slice, noise, spectrum and sharpness on at most sixteen full ones.

Of a stack of more than 512 slices, evenly spaced ones are looked at.

Every quantity that was asked for comes back, measured, limited or not measurable with a reason. A slice that cannot be
decoded is left out.
"""

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.domain.measure_facts import CtFacts
from mediqa_node.domain.measures import Limit, Measure
from mediqa_node.domain.quantities import (
    CT_AP,
    CT_DW,
    CT_FIGURE_OF_MERIT,
    CT_LATERAL,
    CT_NOISE,
    CT_PEAK_FREQUENCY,
    CT_QUANTITIES,
    CT_SHARPNESS,
    CT_TRUNCATION,
    Quantity,
)
from mediqa_node.domain.recall import recalled
from mediqa_node.image.measure.ct.dose import figure_of_merit, size_specific_dose
from mediqa_node.image.measure.ct.field import field_radius
from mediqa_node.image.measure.ct.noise_spectrum import (
    FEWEST_PATCHES,
    RadialSpectrum,
    noise_spectrum,
    spectrum_measure,
)
from mediqa_node.image.measure.ct.patient import patient_mask
from mediqa_node.image.measure.ct.size import SliceSize, slice_size
from mediqa_node.image.measure.ct.skin_edge import edge_spread, f50
from mediqa_node.image.measure.ct.soft_noise import soft_noise
from mediqa_node.image.measure.ct.windows import BRAIN_HU, SOFT_HU, soft_windows
from mediqa_node.image.measure.over_slices import limited_where_uncertain, over_slices
from mediqa_node.image.measure.stack_source import SliceGetter, StackSource, coarse, evenly, fine

_Result = TypeVar("_Result")

MOST_FULL_SLICES = 16
MOST_EDGES = 8
"""Of more slices in full, the skin of every second one is measured: it costs as much as all the rest of a slice."""
_FEWEST_EDGES = 3
TRUNCATED_FROM = 0.05
"""Share of the outline, mean over slices, from which sizes are limited."""
_IN_FULL = frozenset({CT_NOISE.name, CT_PEAK_FREQUENCY.name, CT_SHARPNESS.name, CT_FIGURE_OF_MERIT.name})
_SIZES: tuple[tuple[Quantity, str], ...] = (
    (CT_DW, "dw_mm"),
    (CT_LATERAL, "lateral_mm"),
    (CT_AP, "ap_mm"),
    (CT_TRUNCATION, "cut"),
)


@dataclass
class _Found:
    """What the slices of a stack gave."""

    sizes: list[SliceSize] = field(default_factory=list)
    decoded: int = 0
    bodies: int = 0
    noise: list[float] = field(default_factory=list)
    spectra: list[RadialSpectrum] = field(default_factory=list)
    sharpness: list[float] = field(default_factory=list)


def measure_ct(source: StackSource, facts: CtFacts, wanted: Collection[str]) -> tuple[Measure, ...]:
    """Return a measure of every CT quantity that is wanted, in the order of the catalogue.

    Args:
        source: HU slices, with or without spacing and thickness.
        facts: what the header states.
        wanted: names of quantities; others than those of CT are ignored.
    """
    quantities = [one for one in CT_QUANTITIES if one.name in wanted]
    refused = _refused(source, facts)
    if refused is not None:
        return tuple(one.not_measurable(refused) for one in quantities)
    found = measure_slices(source, facts, {one.name for one in quantities})
    measures = {one.name: one for one in _measures(source, facts, found)}
    return tuple(measures[one.name] for one in quantities)


def _refused(source: StackSource, facts: CtFacts) -> Limit | None:
    """Return why nothing of a stack can be measured, None if something may."""
    if not facts.is_hu:
        return Limit.DOUBTFUL_PIXELS
    if not all(np.isfinite(step) and step > 0 for step in source.spacing_mm):
        return Limit.NO_SPACING
    return None


def measure_slices(source: StackSource, facts: CtFacts, wanted: Collection[str]) -> _Found:
    """Return what the slices of a stack give, one by one; for a caller who is after the recall of the source, nothing.

    Args:
        source, facts, wanted: as `measure_ct` takes them.
    """
    found = _Found()
    full = evenly(source.count, MOST_FULL_SLICES)
    patients: dict[int, np.ndarray] = {}
    for index in source.coarse_indices(full):
        coarsely = _known(source, index, "ct size", partial(_look, source, index))
        if coarsely is None:
            continue
        found.decoded += 1
        patient, size = coarsely
        if size is not None:
            found.bodies += 1
            found.sizes.append(size)
            if index in full:
                patients[index] = patient
    if not _IN_FULL.isdisjoint(wanted):
        every = 1 if len(patients) <= MOST_EDGES else 2
        for place, (index, patient) in enumerate(patients.items()):
            unwanted = {CT_SHARPNESS.name} if place % every else set()
            _measure_full(source, index, patient, facts, found, frozenset(wanted) - unwanted)
    return found


def _known(source: StackSource, index: int, what: Hashable, make: Callable[[], _Result | None]) -> _Result | None:
    """Return what is found in one slice, None where it cannot be decoded or is no gray image."""
    try:
        return recalled(source.recall, (what, source.name_at(index), source.step, source.spacing_mm), make)
    except UndecodablePixels:
        return None


def _look(source: StackSource, index: int) -> tuple[np.ndarray, SliceSize | None] | None:
    """Return the patient in a coarse slice, a mask, and the patient's size."""
    small = _slice(source.coarse_at, index)
    if small is None:
        return None
    pixel_mm = source.spacing_mm[0] * source.step, source.spacing_mm[1] * source.step
    patient = patient_mask(small, pixel_mm)
    return patient, slice_size(small, patient, pixel_mm)


def _slice(getter: SliceGetter, index: int) -> np.ndarray | None:
    """Return a slice with finite values, None where it is no gray image; UndecodablePixels if it cannot be decoded."""
    image = getter(index)
    if image.ndim != 2 or not image.size:
        return None
    return image if np.isfinite(image).all() else np.nan_to_num(image, nan=-1024.0, posinf=3071.0, neginf=-1024.0)


def _measure_full(
    source: StackSource, index: int, patient: np.ndarray, facts: CtFacts, found: _Found, wanted: Collection[str]
) -> None:
    peak, head = CT_PEAK_FREQUENCY.name in wanted, facts.body_part == "head"
    texture = _known(
        source, index, ("ct noise", head, peak), partial(_texture, source, index, patient, head=head, peak=peak)
    )
    if texture is not None:
        noise, spectrum = texture
        found.noise.append(noise)
        found.spectra += [] if spectrum is None else [spectrum]
    if CT_SHARPNESS.name in wanted:
        sharpness = _known(source, index, "ct edge", partial(_sharpness_of, source, index, patient))
        found.sharpness += [] if sharpness is None else [sharpness]


def _texture(
    source: StackSource, index: int, patient: np.ndarray, *, head: bool, peak: bool
) -> tuple[float, RadialSpectrum | None] | None:
    """Return the noise of a slice, HU, and its spectrum if `peak`; None without soft tissue enough."""
    image = _slice(source.image_at, index)
    if image is None:
        return None
    inside = fine(patient, image.shape, source.step)
    windows = soft_windows(image, inside, source.spacing_mm, BRAIN_HU if head else SOFT_HU)
    noise = None if windows is None else soft_noise(windows)
    if windows is None or noise is None:
        return None
    return noise, noise_spectrum(image, windows, source.spacing_mm, noise) if peak else None


def _sharpness_of(source: StackSource, index: int, patient: np.ndarray) -> float | None:
    """Return the sharpness of the skin in a slice, 1/mm, None without a skin that can be measured."""
    image = _slice(source.image_at, index)
    if image is None:
        return None
    field_px = field_radius(coarse(image, source.step))
    edge = edge_spread(image, patient, source.spacing_mm, step=source.step, field_radius_px=field_px)
    return None if edge is None else f50(edge, _nyquist(source))


def _nyquist(source: StackSource) -> float:
    return 0.5 / max(source.spacing_mm)


def _measures(source: StackSource, facts: CtFacts, found: _Found) -> tuple[Measure, ...]:
    missing = None if found.bodies else Limit.NO_BODY if found.decoded else Limit.UNDECODABLE
    sizes = _size_measures(facts, found, missing)
    noise = _from_slices(CT_NOISE, found.noise, missing or Limit.NO_SOFT_TISSUE)
    ssde = size_specific_dose(facts, sizes[0])
    return (
        noise,
        _peak(found, missing),
        *sizes,
        ssde,
        _sharpness(source, found, missing),
        figure_of_merit(noise, ssde, source.thickness_mm),
    )


def _from_slices(quantity: Quantity, values: list[float], missing: Limit) -> Measure:
    return over_slices(quantity, values) if values else quantity.not_measurable(missing)


def _size_measures(facts: CtFacts, found: _Found, missing: Limit | None) -> list[Measure]:
    if not facts.axial:
        missing = Limit.NOT_ACROSS
    if missing is not None:
        return [quantity.not_measurable(missing) for quantity, _ in _SIZES]
    cut = float(np.mean([size.cut for size in found.sizes]))
    limited = Limit.TRUNCATED if cut >= TRUNCATED_FROM else None
    detail = f"{cut:.0%} of the outline" if limited else ""
    result = []
    turned = {"lateral_mm": "ap_mm", "ap_mm": "lateral_mm"} if facts.turned else {}
    for quantity, of_image in _SIZES:
        name = turned.get(of_image, of_image)
        values = [getattr(size, name) for size in found.sizes]
        if quantity is CT_TRUNCATION:
            result.append(over_slices(quantity, values))
        else:
            result.append(over_slices(quantity, values, limit=limited, detail=detail))
    return result


def _peak(found: _Found, missing: Limit | None) -> Measure:
    patches = sum(spectrum.patches for spectrum in found.spectra)
    if missing is not None or patches < FEWEST_PATCHES:
        detail = f"{patches} of at least {FEWEST_PATCHES}" if missing is None else ""
        return CT_PEAK_FREQUENCY.not_measurable(missing or Limit.FEW_PATCHES, detail)
    return spectrum_measure(found.spectra)


def _sharpness(source: StackSource, found: _Found, missing: Limit | None) -> Measure:
    if not found.sharpness:
        return CT_SHARPNESS.not_measurable(missing or Limit.NO_EDGE)
    limit, detail = _limit_of_edges(found.sharpness, _nyquist(source))
    return limited_where_uncertain(over_slices(CT_SHARPNESS, found.sharpness, limit=limit, detail=detail))


def _limit_of_edges(values: list[float], nyquist: float) -> tuple[Limit | None, str]:
    """Return why sharpness is limited, for other reasons than its uncertainty."""
    if np.median(values) >= nyquist:
        return Limit.CENSORED, f"Nyquist frequency {nyquist:.2f}/mm"
    if len(values) < _FEWEST_EDGES:
        return Limit.FEW_SLICES, f"{len(values)} of at least {_FEWEST_EDGES}"
    return None, ""
