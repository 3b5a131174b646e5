"""Harvest the physical parameters of one series: the labels of training stage 1, with their evidence.

Tube charge is read per image, since tube current is modulated along the patient; the series' label is
the median of its valid slices. Every raw candidate is kept with the chosen value.

A label belongs to the primary stack, which is what is scored and exported, and only its images are read for it. Images
that were dropped at a repeated position or are in other stacks may have been acquired differently: where their
technique differs from that of the primary stack at the same place, the label is not eligible (`several_techniques`).
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom import Dataset

from mediqa_node.dicom.doubts import doubts_outside, stack_doubts, text_doubts
from mediqa_node.dicom.exclusions import exclusions, exclusions_of_each, scorable, series_modality
from mediqa_node.dicom.header import FrameHeader, frame_headers
from mediqa_node.dicom.series_exclusions import with_stack
from mediqa_node.dicom.stacks.geometry import position_along, slice_normal
from mediqa_node.dicom.stacks.planes import Plane, planes
from mediqa_node.dicom.technique.ct import differs, read_ct
from mediqa_node.dicom.technique.ct_covariates import ct_covariates, ct_series_flags
from mediqa_node.dicom.technique.ct_exposure import RANGES, SAME_CTDI, ct_reading
from mediqa_node.dicom.technique.ctdi_phantom import phantom_cm
from mediqa_node.dicom.technique.dose_sr import DoseEvent
from mediqa_node.dicom.technique.mr import mr_covariates, nominal, read_mr
from mediqa_node.dicom.technique.op import op_covariates
from mediqa_node.dicom.technique.primary import Primary, primary_stack
from mediqa_node.domain.technique import (
    DOUBTS,
    SPOILING,
    Exclusion,
    FrameTechnique,
    HeaderDoubt,
    Technique,
)

VALID_FRACTION = 0.8
_SAME_PLACE_MM = 0.5
NO_DOSE_EVENTS: Mapping[str, DoseEvent] = {}
# A value with one of these flags is shown but never used for training.
_UNVERIFIED = frozenset({
    "ge_exposure_unverified", "dual_source_not_added", "rdsr_mismatch", "field_varies", "mixed_definition",
})  # fmt: skip
_CONSTANT = 0.02
_APART = 1.2
_SHARE = 0.2

FrameKey = tuple[str, int | None]


def harvest(
    headers: Sequence[Dataset],
    *,
    dose_events: Mapping[str, DoseEvent] = NO_DOSE_EVENTS,
    of_instances: Sequence[tuple[Exclusion, ...]] | None = None,
    placed: Sequence[Plane] | None = None,
) -> Technique:
    """Return the technique of one series.

    Args:
        headers: all instances of the series, without pixels, in any order.
        dose_events: irradiation events of the study's dose reports, by Irradiation Event UID (0008,3010).
        of_instances, placed: `exclusions_of_each(headers)` and `planes(headers)`, if the caller has them already.

    Returns:
        label `mas` for CT (median effective tube charge, mAs), `tesla` for MR (nominal field), None otherwise.
        `eligible` is True only with a verified label and without any exclusion.
    """
    placed = planes(headers) if placed is None else placed
    of_instances = exclusions_of_each(headers, placed) if of_instances is None else of_instances
    found = exclusions(headers, placed=placed, of_instances=of_instances)
    modality = series_modality(headers)
    refusal = next((exclusion for exclusion in found if not exclusion.scorable), None)
    if refusal is not None or modality not in ("CT", "MR", "OP"):
        source = f"excluded:{refusal.code}" if refusal else None
        return _without_label(found, source=source)
    fine, n_frames = scorable(of_instances), sum(len(frame_headers(header)) for header in headers)
    primary = primary_stack(headers, placed, fine)
    doubts = (*stack_doubts(primary.frames, primary.planes, primary.stack, modality), *text_doubts(headers))
    doubts += (HeaderDoubt.REFUSED_IMAGES,) * (not all(fine) or len(placed) < n_frames)
    if modality == "OP":
        covariates = op_covariates(frame_headers(headers[primary.stack.frames[0].instance_index])[0])
        return _without_label(found, flags=doubts, covariates=covariates)
    if primary.stack.orientation is not None:
        doubts = tuple(dict.fromkeys((*doubts, *doubts_outside(primary.others))))
    found = (*with_stack(found, primary.stack), *_doubtful(doubts))
    z_mm = _z_positions_mm(placed)
    technique = (
        _harvest_ct(primary, z_mm, found, dose_events) if modality == "CT" else _harvest_mr(primary, z_mm, found)
    )
    return replace(technique, flags=tuple(dict.fromkeys((*technique.flags, *doubts))))


def _without_label(found: tuple[Exclusion, ...], **values: Any) -> Technique:
    return Technique(
        label_name=None,
        tube_charge_mas=None,
        field_strength_t=None,
        exclusions=found,
        **({"source": None} | values),
    )


def _doubtful(doubts: Sequence[HeaderDoubt]) -> tuple[Exclusion, ...]:
    """Return an exclusion from training for doubts that concern what pixels mean or where they lie."""
    spoiling = [DOUBTS[doubt] for doubt in doubts if doubt in SPOILING]
    return (Exclusion(code="doubtful_header", detail="; ".join(spoiling), scorable=True),) if spoiling else ()


def statistics(values: Sequence[float | None], z_mm: Sequence[float | None] = ()) -> dict[str, float]:
    """Return the aggregates of per-slice values; values that are None count in `n` only.

    Args:
        z_mm: position of each value along the slice normal, for `central_mean`, the mean over the
            central 60 % of the covered length; omitted without positions.

    Returns:
        n, n_valid, and, if any value is valid: median, mean, hmean (the harmonic mean, which determines noise, because
            its variance goes as 1/mAs), min, max, p5, p95, cv, central_mean.
    """
    valid = np.array([value for value in values if value is not None], dtype=np.float64)
    result = {"n": float(len(values)), "n_valid": float(len(valid))}
    if not len(valid):
        return result
    result |= {
        "median": float(np.median(valid)),
        "mean": float(valid.mean()),
        "hmean": float(len(valid) / (1 / valid).sum()),
        "min": float(valid.min()),
        "max": float(valid.max()),
        "p5": float(np.percentile(valid, 5)),
        "p95": float(np.percentile(valid, 95)),
        "cv": float(valid.std() / valid.mean()),
    }
    placed = [(z, value) for z, value in zip(z_mm, values, strict=False) if z is not None and value is not None]
    if placed:
        low, high = min(z for z, _ in placed), max(z for z, _ in placed)
        margin = 0.2 * (high - low)
        result["central_mean"] = float(np.mean([v for z, v in placed if low + margin <= z <= high - margin] or valid))
    return result


def _harvest_ct(
    primary: Primary,
    z_mm: Mapping[FrameKey, float],
    found: tuple[Exclusion, ...],
    dose_events: Mapping[str, DoseEvent],
) -> Technique:
    frames = primary.frames
    events = [dose_events.get(frame.text("IrradiationEventUID")) for frame in frames]
    read = [read_ct(frame, z_mm.get(_key(frame)), event) for frame, event in zip(frames, events, strict=True)]
    slices = [frame for frame, _ in read]
    values = [frame.tube_charge_mas for frame in slices]
    numbers = statistics(values, [frame.z_mm for frame in slices])
    label, flags = _label(numbers)
    flags = [*_flags(slices), *flags, *ct_series_flags(frames[0])]
    modulation = frames[0].codes("ExposureModulationType")
    if numbers["n_valid"] > 1 and numbers["cv"] < 1e-6 and modulation and "NONE" not in modulation:
        flags.append("per_series_value")
    report = next((event.tube_charge_mas for event in events if event and event.tube_charge_mas), None)
    if differs(numbers.get("mean"), report, 0.2):
        flags.append("rdsr_mismatch")
    flags += [flag for event in events if event for flag in event.flags]
    definitions = Counter(definition for _, definition in read if definition)
    flags += ["mixed_definition"] * (len(definitions) > 1)
    reading = replace(ct_reading(frames[0], events[0], []), ctdi_phantom_cm=_phantom_cm(frames, events, slices))
    dropped = [read_ct(frame, z_mm.get(_key(frame)), None)[0] for frame in primary.others]
    missing = (*_label_exclusions("mas", label, RANGES["mas"], flags), *_other_techniques(slices, dropped))
    return Technique(
        label_name="mas",
        tube_charge_mas=label,
        field_strength_t=None,
        source=_source(slices) if label is not None else None,
        mas_definition=definitions.most_common(1)[0][0] if definitions else None,
        flags=tuple(dict.fromkeys(flags)),
        eligible=not (found or missing),
        exclusions=(*found, *missing),
        statistics=numbers,
        covariates=ct_covariates(frames[0], reading),
        frames=tuple(slices),
    )


def _phantom_cm(
    frames: Sequence[FrameHeader], events: Sequence[DoseEvent | None], slices: Sequence[FrameTechnique]
) -> int | None:
    """Return the diameter of the phantom that CTDIvol of a stack refers to; None if images differ or none is stated.

    Without a code in the images, that of the dose report counts where both state the same dose over the stack: the dose
    of a single slice follows its tube current.
    """
    codes = {phantom_cm(items[0]) for frame in frames if (items := frame.items("CTDIPhantomTypeCodeSequence"))}
    if codes:
        return codes.pop() if len(codes) == 1 else None
    reported = [event for event in events if event is not None and event.ctdi_vol_mgy is not None]
    phantoms = {event.ctdi_phantom_cm for event in reported}
    own = [one.ctdi_vol_mgy for one in slices if one.ctdi_vol_mgy is not None]
    if len(phantoms) != 1 or not own:
        return None
    dose = float(np.mean([event.ctdi_vol_mgy for event in reported if event.ctdi_vol_mgy is not None]))
    return phantoms.pop() if abs(float(np.mean(own)) - dose) <= SAME_CTDI * dose else None


def _harvest_mr(primary: Primary, z_mm: Mapping[FrameKey, float], found: tuple[Exclusion, ...]) -> Technique:
    frames = primary.frames
    slices = [read_mr(frame, z_mm.get(_key(frame)))[0] for frame in frames]
    numbers = statistics([frame.field_strength_t for frame in slices])
    tesla, flags = _label(numbers)
    label = nominal(tesla)
    flags = [*_flags(slices), *flags]
    flags += ["no_nominal_field"] * (tesla is not None and label is None)
    flags += ["field_varies"] * (tesla is not None and numbers["max"] - numbers["min"] > 0.05 * tesla)
    dropped = [read_mr(frame, z_mm.get(_key(frame)))[0] for frame in primary.others]
    missing = (*_label_exclusions("tesla", label, (0.01, 21.1), flags), *_other_techniques(slices, dropped))
    return Technique(
        label_name="tesla",
        tube_charge_mas=None,
        field_strength_t=label,
        source=_source(slices) if label is not None else None,
        flags=tuple(dict.fromkeys(flags)),
        eligible=not (found or missing),
        exclusions=(*found, *missing),
        statistics=numbers,
        covariates={"field_strength_t": tesla, **mr_covariates(frames[0])},
        frames=tuple(slices),
    )


def _label(numbers: Mapping[str, float]) -> tuple[float | None, list[str]]:
    """Return the median, unless fewer than 80 % of the slices have a value."""
    if not numbers["n_valid"]:
        return None, []
    if numbers["n_valid"] < VALID_FRACTION * numbers["n"]:
        return None, ["too_few_valid_slices"]
    return numbers["median"], []


def _label_exclusions(
    name: str, label: float | None, limits: tuple[float, float], flags: Sequence[str]
) -> tuple[Exclusion, ...]:
    if label is None:
        reason = ", ".join(flags) or "no tag holds it"
        return (Exclusion(code="missing_label", detail=f"no {name}: {reason}", scorable=True),)
    result = []
    if not limits[0] <= label <= limits[1]:
        result.append(Exclusion(code="range", detail=f"{name} {label:g} outside {limits}", scorable=True))
    if doubts := sorted(flag for flag in set(flags) if flag in _UNVERIFIED or flag.startswith("multi_value:")):
        result.append(Exclusion(code="unverified_label", detail=", ".join(doubts), scorable=True))
    return tuple(result)


def _other_techniques(own: Sequence[FrameTechnique], others: Sequence[FrameTechnique]) -> tuple[Exclusion, ...]:
    """Return an exclusion if the primary stack has several voltages, or other images of its place differ from it."""
    if len(voltages := {round(found) for frame in own if (found := _kvp(frame)) is not None}) > 1:
        detail = f"{min(voltages)} to {max(voltages)} kV in the primary stack"
        return (Exclusion(code="several_techniques", detail=detail, scorable=True),)
    if len(charges := _constant_charges([frame.tube_charge_mas for frame in own if frame.tube_charge_mas])) > 1:
        detail = f"{' and '.join(f'{charge:g}' for charge in charges)} mAs in the primary stack"
        return (Exclusion(code="several_techniques", detail=detail, scorable=True),)
    located = sorted((frame.z_mm, index) for index, frame in enumerate(own) if frame.z_mm is not None)
    n_different = 0
    for other in others:
        if other.z_mm is not None:
            start = bisect_left(located, (other.z_mm - _SAME_PLACE_MM, 0))
            end = bisect_right(located, (other.z_mm + _SAME_PLACE_MM, len(own)))
            n_different += any(_differently(own[index], other) for _, index in located[start:end])
    if not n_different:
        return ()
    detail = f"{n_different} images outside of the primary stack have another tube charge, voltage or field strength"
    return (Exclusion(code="several_techniques", detail=detail, scorable=True),)


def _constant_charges(values: Sequence[float]) -> list[float]:
    """Return the tube charges of a stack that has a few constant ones, mAs; [] where it is modulated.

    Each is that of a fifth of the images at least, and all images have one of them.
    """
    groups: list[list[float]] = []
    for value in sorted(values):
        if not groups or value > (1 + _CONSTANT) * groups[-1][0]:
            groups.append([])
        groups[-1].append(value)
    if any(len(group) < max(2, _SHARE * len(values)) for group in groups):
        return []
    charges = [group[0] for group in groups]
    return charges if charges and charges[-1] > _APART * charges[0] else []


def _differently(one: FrameTechnique, other: FrameTechnique) -> bool:
    return (
        differs(other.tube_charge_mas, one.tube_charge_mas)
        or differs(other.field_strength_t, one.field_strength_t)
        or differs(_kvp(other), _kvp(one), 0.01)
    )


def _kvp(frame: FrameTechnique) -> float | None:
    found = frame.candidates.get("KVP")
    return found if isinstance(found, float) else None


def _flags(slices: Sequence[FrameTechnique]) -> list[str]:
    return list(dict.fromkeys(flag for frame in slices for flag in frame.flags))


def _source(slices: Sequence[FrameTechnique]) -> str | None:
    sources = Counter(frame.source for frame in slices if frame.source)
    return sources.most_common(1)[0][0] if sources else None


def _key(frame: FrameHeader) -> FrameKey:
    return frame.text("SOPInstanceUID"), frame.frame_number


def _z_positions_mm(placed: Sequence[Plane]) -> dict[FrameKey, float]:
    """Return the position of every placed plane along the normal of its own orientation, mm."""
    return {
        (plane.ref.sop_instance_uid, plane.ref.frame_number): position_along(
            slice_normal(plane.orientation), plane.origin_mm
        )
        for plane in placed
        if plane.orientation is not None and plane.origin_mm is not None
    }
