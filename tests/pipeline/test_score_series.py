"""What is not scored although nothing in its header forbids it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from support.bench import StandInScorer
from support.series import ct_series

from mediqa_node import config
from mediqa_node.composition import checkpoints
from mediqa_node.dicom.pixels import to_image
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.scoring import Scorer
from mediqa_node.pipeline.score import Assessor, SeriesFiles, assess, harvest_series, read_headers

DATA = Path(__file__).parents[1] / "data"


def judged(scorer: Scorer, *paths: Path) -> None:
    files = read_headers(paths)
    assessor = Assessor(scorer=scorer, prompts=checkpoints.prompt_rules(config.load(None, {})))
    assess(files, harvest_series(files), assessor, revision=1, assessed_at=datetime.now(UTC))


def test_a_strip_is_no_image_of_a_body_and_fills_no_memory(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(min((DATA / "ct_sts003_lowdose").glob("*.dcm")))
    dataset.Rows, dataset.Columns = 8, 60_000
    dataset.PixelData = np.zeros((8, 60_000), dtype=np.uint16).tobytes()
    dataset.save_as(tmp_path / "strip.dcm")

    with pytest.raises(NotScorable, match="strip: 8 x 60000 pixels"):
        judged(StandInScorer(), tmp_path / "strip.dcm")


def test_weights_that_were_not_made_for_a_modality_do_not_score_it() -> None:
    scorer = StandInScorer()
    scorer.spec = replace(scorer.spec, intensity={"CT": scorer.spec.intensity["CT"]})

    with pytest.raises(NotScorable, match="modality: the checkpoint was not made for MR"):
        judged(scorer, *sorted((DATA / "mr_breast_ucsf06").glob("*.dcm")))
    judged(scorer, *sorted((DATA / "ct_sts003_lowdose").glob("*.dcm")))


def bent(folder: Path, before: bytes, after: bytes) -> tuple[Path, ...]:
    """A synthetic series in which the bytes of an element are replaced by as many others."""
    paths = ct_series(folder, "bent", slices=range(8), StationName="CT_ROOM1", RescaleIntercept="-1024.0")
    for path in paths:
        content = path.read_bytes()
        assert before in content
        path.write_bytes(content.replace(before, after))
    return tuple(paths)


def test_a_station_of_unknown_value_representation_does_not_stop_a_series(tmp_path: Path) -> None:
    judged(StandInScorer(), *bent(tmp_path, b"\x08\x00\x10\x10SH", b"\x08\x00\x10\x10ZZ"))


def test_a_comma_in_the_intercept_changes_no_pixel_and_no_label_but_the_series_never_trains(tmp_path: Path) -> None:
    plain = read_headers(bent(tmp_path / "plain", b"-1024.0", b"-1024.0"))
    comma = read_headers(bent(tmp_path / "comma", b"-1024.0", b"-1024,0"))

    expected, found = harvest_series(plain), harvest_series(comma)
    assert (expected.eligible, found.eligible) == (True, False)
    assert replace(found, flags=expected.flags, exclusions=expected.exclusions, eligible=True) == expected
    assert (shown(comma) == shown(plain)).all()


def shown(files: SeriesFiles) -> np.ndarray:
    pixels = pydicom.dcmread(files.paths[0]).pixel_array
    return to_image(pixels, files.headers[0], None)


def test_an_intercept_that_is_no_number_is_named_and_the_series_never_trains(tmp_path: Path) -> None:
    paths = bent(tmp_path, b"-1024.0", b"unknown")

    with pytest.raises(NotScorable, match=r"^unreadable: RescaleIntercept \(0028,1052\) 'unknown' is not a number"):
        judged(StandInScorer(), *paths)
    assert not harvest_series(read_headers(paths)).eligible
