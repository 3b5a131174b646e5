"""A collection of images on disk: its sources, which of them are held out, and the slices that the node would score.

Without a manifest every folder of the collection is a source; a collection without folders is one source.

A manifest is JSON. `items`: each with `id` (its folder) and `split` (`dev`: patients; `refuse`: must never be scored).
`same_fold`: lists of ids that come from one patient, scanner or study, and so count as one source. Other keys are
ignored.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError
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

COLLECTION_MANIFEST = "manifest.json"
STACKS_AT_MOST = 4
"""As many as the node scores of one series."""
_PICTURES = frozenset({".jpg", ".jpeg", ".png"})
_PHOTOGRAPH = prompt_of({"dimension": "2D", "modality": "OP", "region": "retina", "type": "cfp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """One folder of a collection.

    Attributes:
        source: name shared by the sets of a fold; without one its own name.
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
        images: input of `image.preprocess`; () without readable pixels.
        spacing_mm: between rows; 0 if the header has none.
        prompt: from the headers; None without images.
        refused: why the node would not score the series, from its headers or for missing pixels; else None.
    """

    images: tuple[np.ndarray, ...] = ()
    spacing_mm: float = 0.0
    prompt: Prompt | None = None
    refused: str | None = None

    @property
    def modality(self) -> str:
        """CT, MR, OP, or "" without images."""
        return self.prompt.modality.value if self.prompt else ""

    @property
    def image_type(self) -> str:
        """The type prompt, `unknown` without images."""
        return self.prompt.type.value if self.prompt else "unknown"


class _Item(BaseModel):
    id: str
    split: Literal["dev", "refuse"]


class _Manifest(BaseModel):
    model_config = ConfigDict(strict=True)

    items: list[_Item]
    same_fold: list[list[str]] = []


def read_collection(collection: Path, manifest: Path | None = None) -> list[ImageSet]:
    """Return the image sets of a collection.

    Args:
        manifest: see module. None: `manifest.json` of the collection if it has one, else every folder is a source.

    Raises:
        ConfigurationError: no such collection, an invalid manifest (by entry and key), or a missing folder.
    """
    if not collection.is_dir():
        raise ConfigurationError(f"collection {collection}: no such folder")
    if manifest is None and (collection / COLLECTION_MANIFEST).is_file():
        manifest = collection / COLLECTION_MANIFEST
    if manifest is None:
        folders = [one for one in sorted(collection.iterdir()) if one.is_dir() and not one.name.startswith(".")]
        return [ImageSet(name=one.name, folder=one, source=one.name, split="dev") for one in folders or [collection]]
    try:
        content = _Manifest.model_validate(json.loads(manifest.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"manifest {manifest} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(f"manifest {manifest}:\n  {described(error)}") from error
    except ValueError as error:
        raise ConfigurationError(f"manifest {manifest} is not JSON: {error}") from error
    source = {name: fold[0] for fold in content.same_fold for name in fold}
    if missing := [one.id for one in content.items if not (collection / one.id).is_dir()]:
        raise ConfigurationError(f"collection {collection} has no folder for: {', '.join(missing)}")
    return [
        ImageSet(name=one.id, folder=collection / one.id, source=source.get(one.id, one.id), split=one.split)
        for one in content.items
    ]


def described(error: ValidationError) -> str:
    """Return the validation errors of a file, one line per entry and key."""
    return "\n  ".join(f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors())


def held_out_sources(sources: Iterable[str], wanted: Sequence[str]) -> frozenset[str]:
    """Return the sources to hold out of training.

    A choice by fraction depends only on the names, so that runs over one collection agree.

    Args:
        sources: of one modality, or all of them.
        wanted: names of sources, or one fraction from 0 to 1; at least one of two or more sources is held out.

    >>> sorted(held_out_sources(["a", "b", "c", "d"], ["0.5"]))
    ['c', 'd']
    >>> held_out_sources(["a", "b"], ["b"])
    frozenset({'b'})
    >>> held_out_sources(["a"], ["0.5"])
    frozenset()
    """
    known = set(sources)
    share = fraction(wanted)
    if share is None:
        return frozenset(wanted) & known
    order = sorted(known, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return frozenset(order[: max(1, round(share * len(order)))] if share > 0 and len(order) > 1 else ())


def fraction(wanted: Sequence[str]) -> float | None:
    """Return the fraction that `--hold-out` gives instead of names, or None."""
    try:
        share = float(wanted[0]) if len(wanted) == 1 else None
    except ValueError:
        return None
    return share if share is not None and 0 <= share < 1 else None


def check_held_out(sources: Iterable[str], wanted: Sequence[str]) -> None:
    """Raise ConfigurationError if a source to hold out is not in the collection."""
    known = sorted(set(sources))
    if fraction(wanted) is None and (unknown := sorted(set(wanted) - set(known))):
        raise ConfigurationError(
            f"held out: no source {', '.join(unknown)}; the collection has {', '.join(known)}. "
            f"Name others with `--hold-out NAME`, or a share of them: `--hold-out 0.25`"
        )


def files_of(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def stacks_of(folder: Path, spec: PreprocessSpec) -> Iterator[StackImages]:
    """Yield the stacks of the series below a folder, and pictures as photographs, read as by the node.

    A stack that the node would refuse for its headers has `refused` set, and its images if it has any.
    """
    yield from stacks_of_files(files_of(folder), spec)


def stacks_of_files(files: Sequence[Path], spec: PreprocessSpec) -> Iterator[StackImages]:
    """Yield the stacks in some files, like `stacks_of`."""
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
