"""Select and decode the slices of a stack that are scored, for node and training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydicom import Dataset

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.pixels import to_image
from mediqa_node.domain.errors import NotScorable, UndecodablePixels
from mediqa_node.domain.images import FrameRef, Stack
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.image.released import released_indices
from mediqa_node.image.salient import salient_slices


@dataclass(frozen=True, slots=True, kw_only=True)
class SalientImages:
    """The slices of one stack that are scored.

    Attributes:
        frames, images: in order of position; the images that `image.preprocess` takes, and their frames.
        failed: frames that should be among them and could not be decoded.
    """

    frames: tuple[FrameRef, ...]
    images: tuple[np.ndarray, ...]
    failed: tuple[FrameRef, ...]


def image_getter(
    stack: Stack, paths: Sequence[Path], headers: Sequence[Dataset], reader: FrameReader, *, stored: bool
) -> Callable[[int], np.ndarray]:
    """Return a getter of slices by index, which remembers the last few it decoded.

    Args:
        paths, headers: of the series; `FrameRef.instance_index` counts in them.
        stored: return stored values instead of those of `dicom.pixels.to_image`.
    """

    @lru_cache(maxsize=32)
    def image_at(index: int) -> np.ndarray:
        frame = stack.frames[index]
        raw = reader.raw(paths[frame.instance_index], frame.frame_number)
        return raw if stored else to_image(raw, headers[frame.instance_index], frame.frame_number)

    return image_at


def salient_images(
    stack: Stack, image_at: Callable[[int], np.ndarray], spec: PreprocessSpec, *, modality: str
) -> SalientImages:
    """Decode the slices that `spec` has scored.

    Raises:
        NotScorable: `undecodable`: not one of them could be decoded.
    """
    count = len(stack.frames)
    if spec.slice_rule == "released":
        indices = released_indices(count)
    else:
        indices = salient_slices(count, image_at, modality=modality, wanted=spec.slices)
    images: list[np.ndarray] = []
    frames: list[FrameRef] = []
    failed: list[FrameRef] = []
    for index in indices:
        try:
            images.append(image_at(index))
            frames.append(stack.frames[index])
        except UndecodablePixels as error:
            failed.append(stack.frames[index])
            reason = str(error)
    if not images:
        raise NotScorable("undecodable", f"none of {len(indices)} slices could be decoded: {reason}")
    return SalientImages(frames=tuple(frames), images=tuple(images), failed=tuple(failed))
