"""A collection of images on disk: which folders it has, which belong together, and what the node would look at.

The manifest is JSON: `items`, each with `id` (its folder), `split` (`dev`: patients; `refuse`: never to be
scored) and, for pictures without a header, `modality`; `same_fold`, lists of ids that come from one patient, scanner
or study and so must not stand on both sides of a split. Everything else in it is for people.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter, salient_images
from mediqa_node.dicom.exclusions import exclusions
from mediqa_node.dicom.part10 import is_part10, read_header
from mediqa_node.dicom.prompts import default_rules, prompt_from_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.domain.errors import ConfigurationError, NotScorable, UndecodablePixels
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.domain.prompt import Prompt, prompt_of

STACKS_AT_MOST = 4
"""As many as the node scores of one series."""
_PICTURES = frozenset({".jpg", ".jpeg", ".png"})
_PHOTOGRAPH = prompt_of({"dimension": "2D", "modality": "OP", "region": "retina", "type": "cfp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """One folder of a collection.

    Attributes:
        source: what it shares with the sets of its fold; its own name without one.
        split: `dev` or `refuse`.
    """

    name: str
    folder: Path
    source: str
    split: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StackImages:
    """The slices of one stack that are scored, or why there are none.

    Attributes:
        images: as `assess.preprocess` takes them; () where nothing could be looked at.
        spacing_mm: between rows; 0 where the header has none.
        prompt: what the headers say the network should be told; None where there are no images.
        refused: why the node would refuse the series by its headers or for want of pixels; None if it would not.
    """

    images: tuple[np.ndarray, ...] = ()
    spacing_mm: float = 0.0
    prompt: Prompt | None = None
    refused: str | None = None

    @property
    def modality(self) -> str:
        """CT, MR, OP, or "" where there are no images."""
        return self.prompt.modality.value if self.prompt else ""

    @property
    def image_type(self) -> str:
        """The prompt of that name, `unknown` where there are no images."""
        return self.prompt.type.value if self.prompt else "unknown"


def read_manifest(collection: Path, manifest: Path) -> list[ImageSet]:
    """Return the sets of a collection.

    Raises:
        ConfigurationError: no manifest, an item without id or split, or a folder that is not there.
    """
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        source = {name: fold[0] for fold in content.get("same_fold", []) for name in fold}
        found = [
            ImageSet(
                name=item["id"],
                folder=collection / item["id"],
                source=source.get(item["id"], item["id"]),
                split=item["split"],
            )
            for item in content["items"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConfigurationError(f"manifest {manifest} cannot be used: {type(error).__name__}: {error}") from error
    if wrong := sorted({one.split for one in found} - {"dev", "refuse"}):
        raise ConfigurationError(f"manifest {manifest}: unknown split {', '.join(wrong)}; known: dev, refuse")
    if missing := [one.name for one in found if not one.folder.is_dir()]:
        raise ConfigurationError(f"collection {collection} has no folder for: {', '.join(missing)}")
    return found


def stacks_of(folder: Path, spec: PreprocessSpec) -> Iterator[StackImages]:
    """Yield what the node would look at in a folder: the stacks of its series, and each picture as a photograph.

    Headers that forbid a score are told in `refused`; the images are yielded all the same where there are any.
    """
    yield from stacks_of_files(sorted(folder.iterdir()), spec)


def stacks_of_files(files: Sequence[Path], spec: PreprocessSpec) -> Iterator[StackImages]:
    """Yield what the node would look at in files, as `stacks_of` does."""
    series: dict[str, list[tuple[Path, Dataset]]] = {}
    for path in files:
        if path.suffix.lower() in _PICTURES:
            with Image.open(path) as picture:
                rgb = np.asarray(picture.convert("RGB"), dtype=np.float32)
            yield StackImages(images=(rgb,), prompt=_PHOTOGRAPH)
        elif is_part10(path):
            try:
                header = read_header(path)
            except UndecodablePixels as error:
                yield StackImages(refused=f"unreadable: {path.name}: {error}")
            else:
                series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((path, header))
    for members in series.values():
        paths, headers = zip(*members, strict=True)
        yield from _stacks_of_series(paths, headers, spec)


def _stacks_of_series(paths: Sequence[Path], headers: Sequence[Dataset], spec: PreprocessSpec) -> Iterator[StackImages]:
    forbidden = next((found for found in exclusions(headers) if not found.scorable), None)
    refused = f"{forbidden.code}: {forbidden.detail}" if forbidden else None
    try:
        stacks = assemble_stacks(headers)[:STACKS_AT_MOST]
    except NotScorable as reason:
        yield StackImages(refused=str(reason))
        return
    with FrameReader() as reader:
        for stack in stacks:
            try:
                prompt = prompt_from_header(headers, stack, default_rules())
                image_at = image_getter(stack, paths, headers, reader, stored=spec.reads_stored_values)
                found = salient_images(stack, image_at, spec, modality=prompt.modality.value)
            except NotScorable as reason:
                yield StackImages(refused=refused or str(reason))
            else:
                yield StackImages(images=found.images, spacing_mm=stack.spacing_mm[1], prompt=prompt, refused=refused)
