"""Measure and score those slices of a stack that have arrived, as if the others could not be decoded.

The functions are those of the whole stack. Their results are kept by the recall of the files; what they return for a
stack with holes is of no use to anybody.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from pydicom import Dataset

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.header import integer
from mediqa_node.dicom.prompts import PromptRules, prompt_from_header
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.images import FrameRef, Stack
from mediqa_node.domain.quantities import BURNED_IN_TEXT
from mediqa_node.domain.technique import Technique
from mediqa_node.pipeline.measures import facts_of_ct, first_header, source_of
from mediqa_node.pipeline.score import Assessor, SeriesFiles, check_scorable, network_input, salient_of

NOT_ARRIVED = Path("has not arrived")
"""Stands for the file of a slice that has not arrived; a recall raises UndecodablePixels for it."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A stack whose slices arrive.

    Attributes:
        files: those that have arrived, and last `NOT_ARRIVED`.
        first: the stack of the first images.
        expected: the stack that it will be, if count, order and spacing are as predicted.
    """

    files: SeriesFiles
    first: Stack
    expected: Stack

    @property
    def known(self) -> Stack:
        """The first images in the extent of all, which a prompt depends on."""
        return replace(self.first, positions_mm=self.expected.positions_mm)


def expected_stack(first: Stack, headers: Sequence[Dataset], count: int) -> Stack | None:
    """Return a stack of `count` slices with those that have arrived in their places, the others as `NOT_ARRIVED`.

    Slices are numbered by Instance Number (0020,0013) where these are different and none is beyond the count, else as
    they arrive; the first images tell whether positions ascend with it. None if they do neither.

    Args:
        headers: of all slices that have arrived, those of `first` at their indices.
    """
    numbers = [(integer(header, "InstanceNumber") or 0) - 1 for header in headers]
    if len(set(numbers)) < len(numbers) or not (min(numbers) >= 0 and max(numbers) < count):
        numbers = list(range(len(headers)))
    order = [numbers[frame.instance_index] for frame in first.frames]
    ascends = all(a < b for a, b in pairwise(order))
    if len(headers) > count or not (ascends or all(a > b for a, b in pairwise(order))):
        return None
    hole = replace(first.frames[0], frame_number=None, instance_index=len(headers))
    frames = [hole] * count
    for index, number in enumerate(numbers):
        frames[number if ascends else count - 1 - number] = replace(hole, instance_index=index)
    step_mm = first.spacing_mm[0]
    return replace(first, frames=tuple(frames), positions_mm=tuple(step_mm * index for index in range(count)))


def measure_arrived(
    arrived: Arrived, reader: FrameReader, technique: Technique, prompts: PromptRules, wanted: Collection[str]
) -> None:
    """Measure the slices of a CT stack that have arrived."""
    from mediqa_node.image.measure.ct.series import measure_slices  # imports scipy, which the courier does not need
    from mediqa_node.image.measure.stack import burned_in_text

    of_ct = facts_of_ct(arrived.known, arrived.files, technique, prompts)
    source = source_of(arrived.expected, arrived.files, first_header(arrived.first, arrived.files), reader)
    if of_ct.is_hu:
        measure_slices(source, of_ct, wanted)
    if BURNED_IN_TEXT.name in wanted:
        burned_in_text(source)


def score_arrived(
    arrived: Arrived, reader: FrameReader, assessor: Assessor, before: tuple[FrameRef, ...]
) -> tuple[FrameRef, ...]:
    """Score the slices of a stack that have arrived, and return them.

    Nothing is scored where a slice is not independent of the others: its gray values are those of percentiles over all
    of them, or a classifier looks at all of them for the prompt.

    Args:
        before: what the last call returned.

    Raises:
        NotScorable: such a stack is not scored.
    """
    files, spec = arrived.files, assessor.scorer.spec
    prompt = prompt_from_header(files.headers, arrived.known, assessor.prompts)
    check_scorable(arrived.first, prompt, spec)
    if assessor.classifier is not None or spec.rule_for(prompt.modality.value, prompt.type.value).kind == "percentile":
        return ()
    try:
        found = salient_of(arrived.expected, files, reader, spec, prompt, [])
    except NotScorable:  # none of them has arrived
        return ()
    new = [image for frame, image in zip(found.frames, found.images, strict=True) if frame not in before]
    if new:
        inputs, scorer = network_input(new, spec, prompt), assessor.scorer.recalling(files.recall)
        scorer.range_position(inputs, prompt.modality.value)
        scorer.score(inputs, prompt)
    return found.frames
