"""`mediqa-node score --maps`: a folder of score map pictures and one NPZ file for each series."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.scoring import PatchMaps
from mediqa_node.image.maps.overlay import ExplainedSlice
from mediqa_node.image.maps.patches import as_arrays
from mediqa_node.image.maps.pictures import contact_sheet, slice_picture
from mediqa_node.pipeline.offline import Also
from mediqa_node.pipeline.score import Assessor, SeriesFiles
from mediqa_node.pipeline.score_maps import caption, explained_slices
from mediqa_node.system import npz

SHEET, ARRAYS = "contact-sheet.png", "maps.npz"


def write_maps(folder: Path) -> Also:
    """Return an action that writes the maps of each assessed series below `folder` and adds `maps` to its result.

    The folder of a series is named by its file or folder, see `offline.output_name`.

    Raises:
        ConfigurationError: (when called) the folder cannot be written.
    """

    def write(files: SeriesFiles, assessment: Assessment, _: Assessor, name: str) -> Mapping[str, Any]:
        maps = assessment.primary.maps
        if maps is None:
            return {"maps": []}
        slices = explained_slices(files, assessment.primary, maps)
        place = folder / name
        try:
            place.mkdir(parents=True, exist_ok=True)
            return {"maps": [str(path) for path in _write(place, slices, assessment, maps)]}
        except OSError as error:
            raise ConfigurationError(f"--maps {folder}: cannot be written: {error.strerror or error}") from error

    return write


def _write(place: Path, slices: Sequence[ExplainedSlice], assessment: Assessment, maps: PatchMaps) -> list[Path]:
    text = caption(assessment)
    paths = [place / SHEET, *(place / f"slice-{number:02}.png" for number in range(1, len(slices) + 1))]
    pictures = [contact_sheet(slices, text), *(slice_picture(slices, index, text) for index in range(len(slices)))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    (place / ARRAYS).write_bytes(npz.packed(arrays(slices, assessment, maps)))
    return [*paths, place / ARRAYS]


def arrays(slices: Sequence[ExplainedSlice], assessment: Assessment, maps: PatchMaps) -> dict[str, np.ndarray]:
    """Return the maps of a series as arrays.

    Returns:
        `scores`, `weights`, `quality` (m, g, g) and `views` (m, 5: slice, top, left, height, width) as the
        network computed them; `native_scores`, `native_weights`, `native_quality` (n, rows, columns), NaN where no
        view lies; `slice_raw_scores`, `slice_qualities` (NaN: not mapped), `slice_weights`,
        `sop_instance_uids`, `frame_numbers` (0: single frame), all (n,); `series_instance_uid`,
        `weights_sha256`, `trained`, `times_limit` (distance over the limit of the training range; NaN without limits).
        `quality` and `native_quality` only where the card maps raw scores.
    """
    native = {
        "native_scores": np.stack([part.map.scores for part in slices]),
        "native_weights": np.stack([part.map.weights for part in slices]),
    }
    found = [part.map.quality for part in slices if part.map.quality is not None]
    scored, position = assessment.primary.slices, assessment.primary.range_position
    return {
        **as_arrays(maps),
        **native,
        **({"native_quality": np.stack(found)} if found else {}),
        "slice_raw_scores": np.array([part.raw for part in scored]),
        "slice_qualities": np.array([np.nan if part.quality is None else part.quality for part in scored]),
        "slice_weights": np.array([part.weight for part in scored]),
        "sop_instance_uids": np.array([part.frame.sop_instance_uid for part in scored]),
        "frame_numbers": np.array([part.frame.frame_number or 0 for part in scored]),
        "series_instance_uid": np.array(assessment.series_instance_uid),
        "weights_sha256": np.array(assessment.checkpoint.sha256),
        "trained": np.array(assessment.checkpoint.trained),
        "times_limit": np.array(np.nan if position is None else position.times_limit),
    }
