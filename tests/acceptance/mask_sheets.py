"""Contact sheets of the masks of the patient in CT, to be looked at: one row a stack, the outline in red.

    python -m acceptance.mask_sheets OUT --collection DIR     (from the folder `tests`)

Without a collection: tests/data and the demonstration series. Every tile has the slice and its water-equivalent
diameter, mm, and the share of its outline that the field cuts.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from acceptance.collection import image_sets
from PIL import Image, ImageDraw
from scipy import ndimage

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.domain.errors import NotScorable, UndecodablePixels
from mediqa_node.image.measure.ct.patient import patient_mask
from mediqa_node.image.measure.ct.size import slice_size
from mediqa_node.image.measure.stack_source import coarse, evenly, fine
from mediqa_node.pipeline.score import read_headers

COLUMNS, ROWS, TILE_PX = 6, 5, 256
_SHOWN_HU = (-1024.0, 400.0)


@dataclass(frozen=True)
class Tile:
    """One slice with the outline of its mask."""

    picture: Image.Image
    words: str


def tiles(paths: Sequence[Path]) -> Iterator[list[Tile]]:
    """Yield the tiles of every stack of one CT series, at most six slices of each."""
    files = read_headers(paths)
    for stack in assemble_stacks(files.headers):
        header = files.headers[stack.frames[0].instance_index]
        spacing = tuple(4 * float(step) for step in header.get("PixelSpacing", []))
        if len(spacing) != 2:
            continue
        with FrameReader() as reader:
            image_at = image_getter(stack, files.paths, files.headers, reader, stored=False)
            yield [
                tile(image_at(index), (spacing[0], spacing[1]), index) for index in evenly(len(stack.frames), COLUMNS)
            ]


def tile(image_hu: np.ndarray, pixel_mm: tuple[float, float], index: int) -> Tile:
    """Draw one slice."""
    small = coarse(image_hu)
    patient = patient_mask(small, pixel_mm)
    size = slice_size(small, patient, pixel_mm)
    low, high = _SHOWN_HU
    gray = (np.clip((image_hu[::2, ::2] - low) / (high - low), 0, 1) ** 1.5 * 255).astype(np.uint8)
    shown = fine(patient, image_hu.shape)[::2, ::2]
    colour = np.repeat(gray[..., None], 3, axis=2)
    colour[shown & ~ndimage.binary_erosion(shown)] = (255, 0, 0)
    words = f"{index}: no patient" if size is None else f"{index}: {size.dw_mm:.0f} mm, cut {size.cut:.0%}"
    return Tile(Image.fromarray(colour).resize((TILE_PX, TILE_PX), Image.Resampling.NEAREST), words)


def sheets(collection: Path | None, out: Path) -> int:
    """Write the sheets; return how many."""
    rows: list[tuple[str, list[Tile]]] = []
    with tempfile.TemporaryDirectory() as folder:
        for each in image_sets(collection, Path(folder)):
            if each.refused:
                continue
            for paths in _ct_series(each.paths):
                try:
                    rows += [(each.name, row) for row in tiles(paths)]
                except (NotScorable, UndecodablePixels) as error:
                    print(f"{each.name}: {error}")  # noqa: T201
    pages = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
    for number, page in enumerate(pages):
        _page(page).save(out / f"masks{number:02}.png")
    return len(pages)


def _ct_series(paths: Sequence[Path]) -> Iterator[list[Path]]:
    series = defaultdict(list)
    for path in paths:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.get("Modality") == "CT":
            series[str(header.SeriesInstanceUID)].append(path)
    yield from series.values()


def _page(rows: Sequence[tuple[str, list[Tile]]]) -> Image.Image:
    page = Image.new("RGB", (COLUMNS * TILE_PX, len(rows) * TILE_PX))
    draw = ImageDraw.Draw(page)
    for row, (name, shown) in enumerate(rows):
        for column, one in enumerate(shown):
            x, y = column * TILE_PX, row * TILE_PX
            page.paste(one.picture, (x, y))
            draw.text((x + 3, y + 3), f"{name} {one.words}", fill=(255, 255, 0))
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--collection", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"{sheets(arguments.collection, arguments.out)} sheets in {arguments.out}")  # noqa: T201
