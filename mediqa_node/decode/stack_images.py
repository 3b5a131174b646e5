"""Select and decode the slices of a stack to score, for the node and for training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from pydicom import Dataset

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.pixels import to_image, uses_unstored_bits
from mediqa_node.domain.errors import NotScorable, UndecodablePixels
from mediqa_node.domain.images import FrameRef, Stack
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.domain.recall import Recall, fresh, recalled
from mediqa_node.image.released import released_indices
from mediqa_node.image.salient import salient_slices


@dataclass(frozen=True, slots=True, kw_only=True)
class SalientImages:
    """The slices of one stack that are scored.

    Attributes:
        frames, images: the input of `image.preprocess` and the frame of each image, in order of position.
        failed: selected frames that could not be decoded.
    """

    frames: tuple[FrameRef, ...]
    images: tuple[np.ndarray, ...]
    failed: tuple[FrameRef, ...]


FrameName = tuple[Path, int | None]
"""A file and a frame of it, from 1; None for a single-frame object. Received files are never written again."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    """An image and what decoding it has told of its file."""

    image: np.ndarray
    unstored_bits: bool
    unconfirmed_colour: bool


def image_getter(
    stack: Stack,
    paths: Sequence[Path],
    headers: Sequence[Dataset],
    reader: FrameReader,
    *,
    stored: bool,
    recall: Recall = fresh,
) -> Callable[[int], np.ndarray]:
    """Return a function that decodes a slice by index and caches the last few.

    Args:
        paths, headers: all instances of the series, indexed by `FrameRef.instance_index`.
        stored: return stored values instead of those of `dicom.pixels.to_image`.
        recall: what is decoded already, by `FrameName`.
    """

    def decoded(path: Path, header: Dataset, frame_number: int | None) -> _Decoded:
        raw = reader.raw(path, frame_number)
        if unstored := uses_unstored_bits(raw, header):
            reader.of_unstored_bits.add(path)
        image = raw if stored else to_image(raw, header, frame_number)
        return _Decoded(image, unstored, path in reader.of_unconfirmed_colour)

    @lru_cache(maxsize=32)
    def image_at(index: int) -> np.ndarray:
        frame = stack.frames[index]
        path, header, number = paths[frame.instance_index], headers[frame.instance_index], frame.frame_number
        found = recalled(recall, ("image", (path, number), stored), partial(decoded, path, header, number))
        if found.unstored_bits:
            reader.of_unstored_bits.add(path)
        if found.unconfirmed_colour:
            reader.of_unconfirmed_colour.add(path)
        return found.image

    return image_at


def salient_images(
    stack: Stack, image_at: Callable[[int], np.ndarray], spec: PreprocessSpec, *, modality: str
) -> SalientImages:
    """Decode the slices that `spec` selects for scoring.

    Raises:
        NotScorable: `undecodable`: none of them could be decoded.
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
