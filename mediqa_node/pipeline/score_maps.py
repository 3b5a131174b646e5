"""The scored slices of a series with their maps, for pictures and files."""

from collections.abc import Sequence

import numpy as np

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.pixels import to_image
from mediqa_node.domain.assessment import Assessment, StackResult
from mediqa_node.domain.scoring import PatchMaps
from mediqa_node.image.foreground import background
from mediqa_node.image.maps.native import native_map
from mediqa_node.image.maps.overlay import ExplainedSlice
from mediqa_node.image.maps.pictures import Caption
from mediqa_node.pipeline.score import SeriesFiles


def explained_slices(files: SeriesFiles, result: StackResult, maps: PatchMaps) -> list[ExplainedSlice]:
    """Return each scored slice of a stack with its map.

    Args:
        files: of the series, in any order; the slices are decoded again.
        maps: of this stack; StackResult holds none when it was read back.

    Raises:
        UndecodablePixels: a file has changed since.
        LookupError: a scored instance is not among the files.
        OSError: a file is gone.
    """
    _, row_mm, column_mm = result.stack.spacing_mm
    aspect = row_mm / column_mm if row_mm > 0 and column_mm > 0 else 1.0
    return [
        ExplainedSlice(
            image=image,
            window=result.window,
            map=native_map(maps, index, (image.shape[0], image.shape[1])),
            quality=part.quality,
            raw=part.raw,
            weight=part.weight if result.has_learned_weights else None,
            aspect=aspect,
            background=background(image, modality=result.prompt.modality.value),
        )
        for index, (image, part) in enumerate(zip(_images(files, result), result.slices, strict=True))
    ]


def caption(assessment: Assessment) -> Caption:
    """Return the caption of a picture; it names neither patient nor date."""
    result, prompt = assessment.primary, assessment.primary.prompt
    words = (prompt.dimension, prompt.modality, prompt.region, prompt.type)
    return Caption(
        quality=result.quality,
        raw=result.raw_score,
        what=" ".join(term.value for term in words),
        trained=assessment.checkpoint.trained,
        calibration=assessment.calibration,
        outside=result.outside_range.words if result.outside_range else "",
    )


def _images(files: SeriesFiles, result: StackResult) -> Sequence[np.ndarray]:
    """Decode the scored slices, in HU, signal or 0..255, independent of what the network reads."""
    place = {str(header.SOPInstanceUID): index for index, header in enumerate(files.headers)}
    with FrameReader() as reader:
        images = []
        for frame in (part.frame for part in result.slices):
            index = place[frame.sop_instance_uid]
            raw = reader.raw(files.paths[index], frame.frame_number)
            image = to_image(raw, files.headers[index], frame.frame_number)
            # 8-bit colour: a float image takes four times the memory, and all slices are held at once
            images.append(image if image.ndim == 2 else np.clip(image, 0, 255).astype(np.uint8))
    return images
