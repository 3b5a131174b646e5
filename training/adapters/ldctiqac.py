"""LDCTIQAC2023: abdominal CT with simulated low dose and sparse views, scored by five radiologists.

Layout: `LDCTIQAG2023_train/` (so spelt) with `image/0000.tif` and `train.json` {"0341.tif": 2.2}; a test set with
`images/` and `test.json` or `test-ground-truth.json`. Scores 0 to 4, larger is better, in steps of 0.2. The files hold
floats 0..1, which span a window of 350 HU at 40 HU.

No file names its patient, and many are noise or streak variants of a few slices: a split by file would test on slices
seen in training. So images are grouped by content, and if a group spans the official training and test sets, the
official split is dropped.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from mediqa_node.domain.errors import ConfigurationError
from training.adapters.contract import Match
from training.adapters.files import here_or_below, opinion
from training.data.dicom_rows import Left
from training.data.manifest import Row

NAME = "ldctiqac"
LICENCE = "see Zenodo 7833096; third parties report CC BY 4.0 and CC BY-NC-SA"
POLARITY = "score 0 (bad) to 4 (excellent), mean of five radiologists → score / 4"
EXPECTS = "LDCTIQAG2023_train/train.json beside image/*.tif; LDCTIQAC_test/test.json beside images/*.tiff"
SHOWN_HU = (-135.0, 215.0)
_TRAIN, _TEST = ("train.json",), ("test.json", "test-ground-truth.json")
_ALIKE = 0.95
"""Correlation of thumbnails from which two images show one slice, or close neighbours. Measured on other CT, 512 x 512:
a slice and its copy with white noise of 105 HU correlate by 0.98 or more, slices of two patients by 0.90 or less."""
_THUMBNAIL = 32
_WORST, _BEST = 0.0, 4.0


def probe(root: Path) -> Match | None:
    """Look for a JSON of scores next to its images."""
    found = [file.name for _, file, _ in _tables(root)]
    return Match(root=root, found=" and ".join(found)) if found else None


def records(root: Path) -> Iterator[Row | Left]:
    """Yield a row for every image; images that show the same slice count as one patient."""
    rows: list[Row] = []
    for split, file, folder in _tables(root):
        for name, score in _scores(file).items():
            path = next((path for path in (folder / name, folder / f"{name}f") if path.is_file()), None)
            if path is None:
                yield Left(reason=f"images that {file.name} scores", missing=True)
            elif (mos := opinion(score, worst=_WORST, best=_BEST)) is None:
                yield Left(reason=f"score outside {_WORST:g}..{_BEST:g}")
            else:
                rows.append(_row(path, mos, split))
    groups = alike([row.paths[0] for row in rows])
    rows = [replace(row, patient=f"slice{group:04}") for row, group in zip(rows, groups, strict=True)]
    of_split = {split: {row.patient for row in rows if row.split == split} for split in ("", "test")}
    mixed = bool(of_split[""] & of_split["test"])
    yield from (replace(row, split="") if mixed else row for row in rows)


def alike(paths: list[Path]) -> np.ndarray:
    """Return the group of every image, (n,): images with correlating thumbnails, directly or through others."""
    if not paths:
        return np.zeros(0, dtype=np.int64)
    small = np.stack([_thumbnail(path) for path in paths])
    return np.asarray(connected_components(csr_array(small @ small.T > _ALIKE), directed=False)[1])


def _thumbnail(path: Path) -> np.ndarray:
    """Return the means of 32 x 32 blocks minus their mean, as a unit vector."""
    import tifffile

    image = np.asarray(tifffile.imread(path), dtype=np.float64)
    if image.ndim != 2 or min(image.shape) < _THUMBNAIL:
        raise ConfigurationError(f"{path.name} of LDCTIQAC2023 has the shape {image.shape}, not (rows, columns)")
    rows, columns = (size // _THUMBNAIL for size in image.shape)
    blocks = image[: rows * _THUMBNAIL, : columns * _THUMBNAIL].reshape(_THUMBNAIL, rows, _THUMBNAIL, columns)
    vector = blocks.mean(axis=(1, 3)).ravel()
    vector = vector - vector.mean()
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))


def _row(path: Path, mos: float, split: str) -> Row:
    return Row(
        key=f"{split or 'train'}-{path.stem}",
        patient="",
        source="LDCTIQAC2023",
        split=split,
        dimension="2D",
        modality="CT",
        region="abdomen",
        type="soft",
        payload_kind="image",
        paths=(path.absolute(),),
        window=SHOWN_HU,
        mos=mos,
        licence=LICENCE,
    )


def _tables(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield the split ("" or test), the JSON and the folder of its images."""
    for folder in here_or_below(root):
        for split, names in (("", _TRAIN), ("test", _TEST)):
            for name in names:
                images = (folder / "image", folder / "images", folder)
                if (folder / name).is_file():
                    has_tiff = (place for place in images if place.is_dir() and any(place.glob("*.tif*")))
                    yield split, folder / name, next(has_tiff, images[0])


def _scores(file: Path) -> dict[str, float]:
    try:
        return {str(name): float(score) for name, score in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{file} is no table of image names and scores: {error}") from error
