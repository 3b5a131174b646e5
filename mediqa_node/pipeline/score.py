"""From the files of one series to its assessment: headers, stacks, slices, prompts, score.

Uses neither database nor network: the node and `mediqa-node score` call the same function.
"""

import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import structlog
from pydicom import Dataset

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import SalientImages, image_getter, salient_images
from mediqa_node.dicom.exclusions import exclusions_of_each, scorable
from mediqa_node.dicom.part10 import read_header
from mediqa_node.dicom.plausible import LONGEST_STRIP
from mediqa_node.dicom.prompts import PromptRules, prompt_from_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.dicom.stacks.planes import Plane, in_order, planes_of
from mediqa_node.dicom.technique.dose_sr import DoseEvent
from mediqa_node.dicom.technique.harvest import harvest
from mediqa_node.domain.assessment import (
    Assessment,
    Calibration,
    SliceResult,
    StackResult,
    weighted_quality,
)
from mediqa_node.domain.errors import InconsistentGeometry, NotScorable, UndecodablePixels, UnreadableElement, fault_of
from mediqa_node.domain.images import FrameRef, Stack
from mediqa_node.domain.policy import Refuse
from mediqa_node.domain.preprocessing import NetworkInput, PreprocessSpec
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.prompt_opinion import PromptClassifier, completed
from mediqa_node.domain.range_position import OUTSIDE_RANGE
from mediqa_node.domain.recall import Recall, fresh
from mediqa_node.domain.scoring import Scorer
from mediqa_node.domain.series import ReasonCode
from mediqa_node.domain.technique import Exclusion, HeaderDoubt, Technique
from mediqa_node.image.preprocess import preprocess
from mediqa_node.image.verdict import verdict_of
from mediqa_node.pipeline.origin import protocol_of, scanner_of
from mediqa_node.pipeline.parts import part, reach_in_station

log = structlog.get_logger("score")

OTHER_STACKS_AT_MOST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessor:
    """Everything that an assessment depends on except the images.

    Attributes:
        classifier: predicts the prompts that headers leave open; None: they stay `unknown`.
        refuse: what becomes of a stack outside the training range.
    """

    scorer: Scorer
    prompts: PromptRules
    calibrations: tuple[Calibration, ...] = ()
    classifier: PromptClassifier | None = None
    refuse: Refuse = Refuse.STRICT


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one series and their headers, in the same order.

    Attributes:
        recall: what is known of their frames already.
    """

    paths: tuple[Path, ...]
    headers: tuple[Dataset, ...]
    recall: Recall = field(default=fresh, repr=False, compare=False)

    def recalling(self, recall: Recall) -> "SeriesFiles":
        """Return the same files, and what was found of their headers, with another recall."""
        other = copy(self)
        object.__setattr__(other, "recall", recall)
        return other

    def look_at_each(self) -> None:
        """Have `recall` know what there is to find in each header by itself."""
        _ = self.planes, self.exclusions

    @cached_property
    def exclusions(self) -> list[tuple[Exclusion, ...]]:
        """What each image is refused for on its own; harvest, scoring and export all ask."""
        return exclusions_of_each(self.headers, recall=self.recall, names=self.paths)

    @cached_property
    def planes(self) -> list[Plane]:
        """The image planes of all headers."""
        found = self.recall(
            range(len(self.paths)),
            lambda index: ("planes", self.paths[index], index),
            lambda some: [planes_of(self.headers[index], index) for index in some],
        )
        return in_order(plane for of_header in found for plane in of_header)

    @cached_property
    def stacks(self) -> list[Stack]:
        """The stacks of the images that nothing refuses on their own, the primary one first; scores and measures ask.

        Raises:
            InconsistentGeometry, UnreadableElement: the headers are broken.
        """
        return list(assemble_stacks(self.headers, scorable(self.exclusions), self.planes))


_DATA_ERRORS = (
    *(ValueError, ArithmeticError, LookupError, TypeError, AttributeError, EOFError, struct.error),
    *(NotImplementedError, RecursionError),  # of a RuntimeError, torch raises the others
)
"""What code raises that a header or pixels surprise."""


class _ModelFailed(Exception):
    """Carries what a network raised past those who would take it for an error of the images."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextmanager
def _of_the_model() -> Iterator[None]:
    try:
        yield
    except _DATA_ERRORS as error:
        raise _ModelFailed(error) from error


@contextmanager
def data_errors() -> Iterator[None]:
    """Turn every error of broken data into a refusal that names it: another attempt would end in the same way.

    What a network raises is no fault of the images, and is raised as it is.

    Raises:
        NotScorable: `unreadable` or `undecodable`.
    """
    try:
        yield
    except NotScorable:
        raise
    except _ModelFailed as failed:
        raise failed.error from failed.error.__cause__
    except (UnreadableElement, InconsistentGeometry) as error:
        raise NotScorable("unreadable", str(error)) from error
    except UndecodablePixels as error:
        raise NotScorable("undecodable", str(error)) from error
    except _DATA_ERRORS as error:
        log.warning("series not understood", exc_info=True)
        raise NotScorable("unreadable", fault_of(error)) from error


def read_headers(paths: Sequence[Path]) -> SeriesFiles:
    """Read the headers of a series, without pixels.

    Raises:
        NotScorable: a file is not DICOM, inflates beyond its budget, or is nested too deeply.
        OSError: a file cannot be opened.
    """
    return _read_headers(tuple(paths))


@lru_cache(maxsize=4)
def _read_headers(paths: tuple[Path, ...]) -> SeriesFiles:
    """Cache the last few series: the courier reads one while it waits and again when it reports.

    Spooled files never change, and no caller modifies a header.
    """
    return SeriesFiles(paths, tuple(map(header_of, paths)))


def header_of(path: Path) -> Dataset:
    """Return the header of one file; raises as `read_headers`."""
    try:
        return read_header(path)
    except UndecodablePixels as error:
        raise NotScorable("unreadable", f"{path.name}: {error}") from error


def require_scorable(technique: Technique) -> None:
    """Raise NotScorable where the headers of a series rule out a score: a localizer, a screen, a map."""
    if technique.refusal is not None:
        raise NotScorable(technique.refusal.code, technique.refusal.detail)


def harvest_series(files: SeriesFiles, dose_events: Mapping[str, DoseEvent] | None = None) -> Technique:
    """Return the physical parameters of a series, scored or not.

    Raises:
        NotScorable: the headers are broken.
    """
    with data_errors():
        [technique] = files.recall(
            (dose_events or {},),
            lambda events: ("technique", files.paths, repr(events)),
            lambda _: (
                harvest(
                    files.headers,
                    dose_events=dose_events or {},
                    of_instances=files.exclusions,
                    placed=files.planes,
                ),
            ),
        )
        return technique


def assess(
    files: SeriesFiles, technique: Technique, assessor: Assessor, *, revision: int, assessed_at: datetime
) -> Assessment:
    """Assess one series: assemble stacks, score the primary one and a sample of the others.

    Images that are refused on their own, such as a localizer among the slices, are left out.

    Raises:
        NotScorable: a score of these images would have no meaning, or they are broken.
    """
    with data_errors():
        return _assess(files, technique, assessor, revision=revision, assessed_at=assessed_at)


def _assess(
    files: SeriesFiles, technique: Technique, assessor: Assessor, *, revision: int, assessed_at: datetime
) -> Assessment:
    require_scorable(technique)
    assessor = replace(assessor, scorer=assessor.scorer.recalling(files.recall))
    stacks = files.stacks
    if not stacks:
        raise NotScorable("no_image", "no instance of the series holds an image plane")
    failed: list[FrameRef] = []
    with FrameReader() as reader:
        primary = _score_stack(stacks[0], files, reader, assessor, failed)
        others = []
        for stack in sample(stacks[1:], OTHER_STACKS_AT_MOST):
            try:
                others.append(_score_stack(stack, files, reader, assessor, []))
            except NotScorable:
                continue
    modality = primary.prompt.modality.value
    header = files.headers[stacks[0].frames[0].instance_index]
    verdict, calibration = (
        (OUTSIDE_RANGE, None)
        if primary.outside_range
        else verdict_of(
            primary.quality,
            assessor.calibrations,
            modality=modality,
            station_name=scanner_of(header),  # as the worklist names them, where calibrations are made
            protocol_name=protocol_of(header),
            checkpoint=assessor.scorer.checkpoint,
            fingerprint=assessor.scorer.spec.fingerprint(),
        )
    )
    return Assessment(
        study_instance_uid=stacks[0].study_instance_uid,
        series_instance_uid=stacks[0].series_instance_uid,
        modality=modality,
        revision=revision,
        primary=primary,
        others=tuple(others),
        n_stacks=len(stacks),
        technique=technique,
        verdict=verdict,
        calibration=calibration,
        checkpoint=assessor.scorer.checkpoint,
        fingerprint=assessor.scorer.spec.fingerprint(),
        assessed_at=assessed_at,
        failed_slices=tuple(failed),
    )


def sample(stacks: Sequence[Stack], at_most: int) -> list[Stack]:
    """Return at most `at_most` evenly spread members."""
    if len(stacks) <= at_most:
        return list(stacks)
    return [stacks[i * len(stacks) // at_most] for i in range(at_most)]


def _score_stack(
    stack: Stack, files: SeriesFiles, reader: FrameReader, assessor: Assessor, failed: list[FrameRef]
) -> StackResult:
    prompt = prompt_from_header(files.headers, stack, assessor.prompts)
    check_scorable(stack, prompt, assessor.scorer.spec)
    with part("decode"):
        found = salient_of(stack, files, reader, assessor.scorer.spec, prompt, failed)
    if assessor.classifier is not None and not assessor.scorer.spec.reads_stored_values:
        with _of_the_model():
            opinion = assessor.classifier.opinion(found.images, prompt.modality.value)
        prompt = completed(prompt, opinion)
    with part("preprocess"):
        inputs = network_input(found.images, assessor.scorer.spec, prompt)
    reach_in_station("after-decode")
    with part("range"), _of_the_model():
        position = assessor.scorer.range_position(inputs, prompt.modality.value)
    if position is not None and position.is_outside and assessor.refuse is Refuse.STRICT:
        summary = position.summary(prompt.modality.value)
        raise NotScorable(ReasonCode.OUTSIDE_TRAINING_RANGE, summary, measured=position.details())
    started = time.perf_counter()
    with part("inference"), _of_the_model():
        scored = assessor.scorer.score(inputs, prompt)
    inference_s = time.perf_counter() - started
    reach_in_station("after-inference")
    weights = scored.weights.tolist()
    raw, mapped = scored.raw.tolist(), None if scored.quality is None else scored.quality.tolist()
    return StackResult(
        stack=_with_pixel_doubts(stack, found.frames, files, reader),
        prompt=prompt,
        quality=None if mapped is None else weighted_quality(mapped, weights),
        raw_score=float(np.dot(scored.raw, scored.weights)),
        slices=tuple(
            SliceResult(frame=frame, quality=mapped[i] if mapped else None, raw=raw[i], weight=weights[i])
            for i, frame in enumerate(found.frames)
        ),
        prediction=scored.prediction,
        window=inputs.window,
        n_clamped=scored.n_clamped,
        maps=scored.maps,
        inference_s=inference_s,
        range_position=position,
    )


def _with_pixel_doubts(stack: Stack, frames: Sequence[FrameRef], files: SeriesFiles, reader: FrameReader) -> Stack:
    """Flag a stack for doubts about a scored frame that only its decoded pixels give."""
    scored = {files.paths[frame.instance_index] for frame in frames}
    found = [HeaderDoubt.COLOUR_MODEL] * bool(scored & reader.of_unconfirmed_colour)
    found += [HeaderDoubt.UNSTORED_BITS] * bool(scored & reader.of_unstored_bits)
    return replace(stack, flags=(*stack.flags, *found)) if found else stack


def check_scorable(stack: Stack, prompt: Prompt, spec: PreprocessSpec) -> None:
    """Raise NotScorable for a strip, or for a modality that the checkpoint has no intensity rule for."""
    modality = prompt.modality.value
    if modality != "OP" and modality not in spec.intensity:
        raise NotScorable("modality", f"the checkpoint was not made for {modality}: its card has no intensity rule")
    short, long = sorted((stack.rows, stack.columns))
    if 0 < LONGEST_STRIP * short < long:
        raise NotScorable("strip", f"{stack.rows} x {stack.columns} pixels do not show a body")


def salient_of(
    stack: Stack,
    files: SeriesFiles,
    reader: FrameReader,
    spec: PreprocessSpec,
    prompt: Prompt,
    failed: list[FrameRef],
) -> SalientImages:
    """Decode the salient slices; frames that cannot be decoded are appended to `failed`."""
    stored, recall = spec.reads_stored_values, files.recall
    image_at = image_getter(stack, files.paths, files.headers, reader, stored=stored, recall=recall)
    found = salient_images(stack, image_at, spec, modality=prompt.modality.value)
    failed.extend(found.failed)
    return found


def network_input(images: Sequence[np.ndarray], spec: PreprocessSpec, prompt: Prompt) -> NetworkInput:
    """Preprocess the scored slices of one stack."""
    return preprocess(images, spec, modality=prompt.modality.value, image_type=prompt.type.value)


def shown_again(files: SeriesFiles, result: StackResult, spec: PreprocessSpec) -> NetworkInput:
    """Preprocess the scored slices again: the same network input as when they were scored.

    Raises:
        UndecodablePixels: a file has changed since.
        OSError: a file is gone.
    """
    with FrameReader() as reader:
        image_at = image_getter(result.stack, files.paths, files.headers, reader, stored=spec.reads_stored_values)
        places = {frame: index for index, frame in enumerate(result.stack.frames)}
        images = [image_at(places[part.frame]) for part in result.slices]
    return network_input(images, spec, result.prompt)
