"""Measurement of a phantom series on the slices that would have been scored."""

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter
from mediqa_node.dicom.header import text
from mediqa_node.dicom.modality import modality_of
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.domain.errors import NotScorable, UndecodablePixels
from mediqa_node.domain.images import Stack
from mediqa_node.domain.phantom import PhantomMeasurement, PhantomSlice
from mediqa_node.domain.technique import Technique
from mediqa_node.image.measure.phantom import measure_phantom
from mediqa_node.image.salient import salient_slices
from mediqa_node.pipeline.origin import acquired_at
from mediqa_node.pipeline.score import SeriesFiles


def measure(files: SeriesFiles, technique: Technique, rule: str) -> PhantomMeasurement:
    """Return mean, noise and uniformity of the largest stack of a series that the site has named a phantom.

    A header that names a phantom does not refuse here; whatever else rules out a score (a localizer, a
    screen, a map) rules out a measurement too.

    Args:
        rule: name of the site's rule.

    Raises:
        NotScorable: the series cannot be measured; photographs never are.
    """
    refusals = (found for found in technique.exclusions if not found.scorable and found.code != "phantom")
    if (refusal := next(refusals, None)) is not None:
        raise NotScorable(refusal.code, f"{refusal.detail} (in a series that rule {rule!r} names a phantom)")
    header = files.headers[0]
    modality = modality_of(header)
    if modality not in ("CT", "MR"):
        raise NotScorable("phantom", f"series of modality {modality or 'unknown'} are not measured (rule {rule!r})")
    stacks = assemble_stacks(files.headers)
    if not stacks:
        raise NotScorable("no_image", "no instance of the series holds an image plane")
    return PhantomMeasurement(
        series_instance_uid=stacks[0].series_instance_uid,
        modality=modality,
        station_name=text(header, "StationName"),
        rule=rule,
        acquired_at=acquired_at(header),
        slices=_slices(stacks[0], files, modality),
    )


def _slices(stack: Stack, files: SeriesFiles, modality: str) -> tuple[PhantomSlice, ...]:
    """Measure the middle of each of seven regions, except end slices without a disc."""
    measured: list[PhantomSlice] = []
    failures: list[str] = []
    with FrameReader() as reader:
        image_at = image_getter(stack, files.paths, files.headers, reader, stored=False)
        for index in salient_slices(len(stack.frames), image_at, modality=modality):
            try:
                measured.append(measure_phantom(image_at(index), modality=modality))
            except (ValueError, UndecodablePixels) as reason:
                failures.append(str(reason))
    if not measured:
        raise NotScorable("phantom", f"not measured on any of {len(failures)} slices: {failures[0]}")
    return tuple(measured)
