"""Measure the physical quality of a series on its pixels: no network, no labels; scored or not.

Only the primary stack is measured, so that echoes, b-values and phases are never mixed. A series that is refused for
what its pixels are (a localizer, a map, a screen) is not measured; one that is refused for another reason is.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np
import structlog

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import FrameName
from mediqa_node.dicom.exclusions import series_modality
from mediqa_node.dicom.header import FrameHeader, frame_header, text
from mediqa_node.dicom.part10 import NATIVE, transfer_syntax
from mediqa_node.dicom.pixels import to_image
from mediqa_node.dicom.plausible import LONGEST_STRIP
from mediqa_node.dicom.prompts import PromptRules, prompt_from_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.dicom.technique.harvest import harvest
from mediqa_node.dicom.technique.stack_facts import ct_dose, ct_facts, mr_facts
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.images import Stack
from mediqa_node.domain.measure_facts import CtFacts
from mediqa_node.domain.measures import Limit, Measure, MeasuredStack, size_class
from mediqa_node.domain.quantities import (
    CT_DW,
    CT_FIGURE_OF_MERIT,
    CT_NOISE,
    CT_QUANTITIES,
    CT_SSDE,
    MISSING_SLICES,
    MR_QUANTITIES,
    OP_QUANTITIES,
    QUANTITIES,
    REPEATED_SLICES,
    SPACING_TO_THICKNESS,
    STACK_QUANTITIES,
    Quantity,
    in_order,
)
from mediqa_node.domain.recall import recalled
from mediqa_node.domain.technique import Technique
from mediqa_node.image.measure.stack_source import StackSource, coarse, coarse_step, evenly
from mediqa_node.pipeline.origin import acquired_at, scanner_of
from mediqa_node.pipeline.score import SeriesFiles, data_errors

log = structlog.get_logger("measure")

ALL = frozenset(QUANTITIES)
SLICES_AT_FULL_RESOLUTION = 16
_BETWEEN_SLICES = frozenset({MISSING_SLICES.name, REPEATED_SLICES.name, SPACING_TO_THICKNESS.name})
"""Not asked of a single image."""
_MEASURED_THOUGH_REFUSED = frozenset({"phantom", "burned_in"})
_KEPT_BYTES = 40_000_000
"""Of slices in full, and as much of coarse ones: sixteen of 512 x 512 pixels, and all coarse ones of a long stack."""
_MOST_COARSE, _MOST_COMPRESSED = 512, 32
"""Slices that are looked at, at most: a few seconds, also where each has to be decompressed."""


def measure_series(
    files: SeriesFiles, technique: Technique, prompts: PromptRules, wanted: Collection[str] = ALL
) -> MeasuredStack | None:
    """Return the measures of the primary stack of a series; None where its pixels are not those of a slice.

    Broken data are logged and give None, because a measure must never stand in the way of a score.

    Args:
        wanted: names of `domain.quantities`.
    """
    if not wanted:
        return None
    try:
        with data_errors():
            [found] = files.recall(
                (technique,),
                lambda one: ("measures", files.paths, frozenset(wanted), repr(one)),
                lambda _: (_measured(files, technique, prompts, wanted),),
            )
            return found
    except NotScorable as reason:
        log.warning("series not measured", reason=str(reason.code))
        return None


def _measured(
    files: SeriesFiles, technique: Technique, prompts: PromptRules, wanted: Collection[str]
) -> MeasuredStack | None:
    modality = series_modality(files.headers)
    refusals = {one.code for one in technique.exclusions if not one.scorable}
    if modality not in ("CT", "MR", "OP") or refusals - _MEASURED_THOUGH_REFUSED:
        return None
    stacks = tuple(assemble_stacks(files.headers) if refusals else files.stacks)
    if not stacks or _is_strip(stacks[0]):
        return None
    if refusals:  # a refused series is harvested no further than its reason
        technique = harvest(files.headers, of_instances=[()] * len(files.headers))
    stack = _photographs(stacks) if modality == "OP" else stacks[0]
    if modality == "CT":
        wanted = frozenset(wanted) | {CT_DW.name}  # the others are compared by size, and dose rests on it
    header = first_header(stack, files)
    of_ct = facts_of_ct(stack, files, technique, prompts) if modality == "CT" else CtFacts()
    with FrameReader() as reader:
        source = source_of(stack, files, header, reader)
        measures = in_order(_measures(modality, source, header, of_ct, wanted))
    measured = _context(stack, header, modality, technique, of_ct)
    dw = next((one for one in measures if one.name == CT_DW.name), None)
    return replace(measured, measures=measures, size_class=size_class(dw))


def first_header(stack: Stack, files: SeriesFiles) -> FrameHeader:
    """Return the header of the first slice of a stack."""
    first = stack.frames[0]
    return frame_header(files.headers[first.instance_index], first.frame_number)


def facts_of_ct(stack: Stack, files: SeriesFiles, technique: Technique, prompts: PromptRules) -> CtFacts:
    """Return what headers state that the measures of a CT stack depend on."""
    return ct_facts(stack, technique, prompt_from_header(files.headers, stack, prompts).region.value)


def _photographs(stacks: tuple[Stack, ...]) -> Stack:
    """Return the photographs of a series, which have no position and are a stack each, as one."""
    alike = [one for one in stacks if (one.rows, one.columns) == (stacks[0].rows, stacks[0].columns)]
    return replace(stacks[0], frames=tuple(frame for one in alike for frame in one.frames))


def _is_strip(stack: Stack) -> bool:
    short, long = sorted((stack.rows, stack.columns))
    return LONGEST_STRIP * short < long


def _measures(
    modality: str,
    source: StackSource,
    header: FrameHeader,
    of_ct: CtFacts,
    wanted: Collection[str],
) -> list[Measure]:
    # numpy alone would do for the courier; scipy costs it 0.1 s and 20 MB
    from mediqa_node.image.measure.ct.series import measure_ct
    from mediqa_node.image.measure.mr.series import measure_mr
    from mediqa_node.image.measure.op.series import measure_op
    from mediqa_node.image.measure.stack import measure_stack

    asked: dict[str, tuple[Iterable[Quantity], Callable[[Collection[str]], Sequence[Measure]]]] = {
        "CT": (CT_QUANTITIES, lambda names: measure_ct(source, of_ct, names)),
        "MR": (MR_QUANTITIES, lambda names: measure_mr(source, mr_facts(header), names)),
        "OP": (OP_QUANTITIES, lambda names: measure_op(source, names)),
    }
    between = _BETWEEN_SLICES if modality == "OP" or source.count == 1 else frozenset()
    of_stack = [one for one in STACK_QUANTITIES if one.name not in between]
    parts = (asked[modality], (of_stack, lambda names: measure_stack(source, names)))
    return [one for quantities, measure in parts for one in _guarded(quantities, measure, wanted)]


def _guarded(
    quantities: Iterable[Quantity], measure: Callable[[Collection[str]], Sequence[Measure]], wanted: Collection[str]
) -> Sequence[Measure]:
    """Return the measures that are wanted; after a fault all of them as failed, so that others are kept."""
    known = [one for one in quantities if one.name in wanted]
    try:
        return measure(frozenset(one.name for one in known))
    except Exception:  # whatever arithmetic does on odd pixels
        log.warning("measures failed", measures=[one.name for one in known], exc_info=True)
        return [one.not_measurable(Limit.FAILED) for one in known]


def source_of(stack: Stack, files: SeriesFiles, header: FrameHeader, reader: FrameReader) -> StackSource:
    """Return the slices of a stack to measure; `header` is that of the first."""
    native = transfer_syntax(files.paths[0]) in NATIVE
    step = coarse_step(stack.rows, stack.columns)

    def stored(index: int) -> np.ndarray:
        frame = stack.frames[index]
        return reader.raw(files.paths[frame.instance_index], frame.frame_number)

    def name_at(index: int) -> FrameName:
        frame = stack.frames[index]
        return files.paths[frame.instance_index], frame.frame_number

    kept = _cached(stored)  # decoded once for both

    def stored_coarsely(index: int) -> np.ndarray:
        made = lambda: coarse(kept(index), step).copy()  # noqa: E731 - a view would hold the whole slice
        return recalled(files.recall, ("coarse", name_at(index), step), made)

    return StackSource(
        count=len(stack.frames),
        image_at=_cached(_getter(stack, files, kept)),
        coarse_at=_cached(_getter(stack, files, stored_coarsely)),
        spacing_mm=stack.spacing_mm[1:],
        thickness_mm=header.number("SliceThickness"),
        positions_mm=stack.positions_mm,
        step=step,
        most_coarse=_MOST_COARSE if native else _MOST_COMPRESSED,
        recall=files.recall,
        name_at=name_at,
    )


def _getter(stack: Stack, files: SeriesFiles, stored: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """Return a function that rescales the stored values of a slice, or some of them."""

    def image_at(index: int) -> np.ndarray:
        frame = stack.frames[index]
        return to_image(stored(index), files.headers[frame.instance_index], frame.frame_number)

    return image_at


def _cached(image_at: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """Keep the last slices, because several measures look at the same ones; at least the last one."""
    kept: dict[int, np.ndarray] = {}

    def cached(index: int) -> np.ndarray:
        if index not in kept:
            image = image_at(index)
            while kept and sum(one.nbytes for one in kept.values()) + image.nbytes > _KEPT_BYTES:
                del kept[next(iter(kept))]
            kept[index] = image
        return kept[index]

    return cached


def _context(stack: Stack, header: FrameHeader, modality: str, technique: Technique, of_ct: CtFacts) -> MeasuredStack:
    """Return what the measures may be compared with, without the measures."""
    kernel, recon = (technique.covariates.get(name) for name in ("kernel", "recon_class"))
    protocol = text(header.dataset, "ProtocolName") or text(header.dataset, "SeriesDescription")
    return MeasuredStack(
        series_instance_uid=stack.series_instance_uid,
        study_instance_uid=stack.study_instance_uid,
        modality=modality,
        scanner=scanner_of(header.dataset),
        protocol=protocol,
        stack=replace(stack.key, acquisition_number=None, temporal_position=None, orientation=None).label(),
        size_class="",
        measures=(),
        frames=tuple(stack.frames[index] for index in evenly(len(stack.frames), SLICES_AT_FULL_RESOLUTION)),
        body_part=of_ct.body_part,
        kernel=kernel if isinstance(kernel, str) else "",
        recon_class=recon if isinstance(recon, str) and modality == "CT" else "",
        thickness_mm=header.number("SliceThickness"),
        ctdi_vol_mgy=of_ct.dose.ctdi_vol_mgy,
        ctdi_phantom_cm=of_ct.dose.phantom_cm,
        acquired=acquired_at(header.dataset),
    )


def with_dose(measured: MeasuredStack, technique: Technique) -> MeasuredStack | None:
    """Return the measures with those that rest on dose calculated again; None if the dose is the same.

    For a dose report that arrives after the images: no pixel is read again.
    """
    from mediqa_node.image.measure.ct.dose import figure_of_merit, size_specific_dose

    dose = ct_dose(technique)
    size, noise = measured.measure(CT_DW.name), measured.measure(CT_NOISE.name)
    same = (dose.ctdi_vol_mgy, dose.phantom_cm) == (measured.ctdi_vol_mgy, measured.ctdi_phantom_cm)
    if measured.modality != "CT" or same or size is None:
        return None
    again = {CT_SSDE.name: size_specific_dose(CtFacts(dose=dose, body_part=measured.body_part), size)}
    if noise is not None:
        ssde = again[CT_SSDE.name]
        again[CT_FIGURE_OF_MERIT.name] = figure_of_merit(noise, ssde, measured.thickness_mm)
    measures = tuple(again.get(one.name, one) for one in measured.measures)
    return replace(measured, measures=measures, ctdi_vol_mgy=dose.ctdi_vol_mgy, ctdi_phantom_cm=dose.phantom_cm)
