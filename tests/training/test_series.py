"""Scores of series as they came from the scanner, against their own quality."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from training.cli import app
from training.evaluate.plots import draw_series
from training.evaluate.series import ScoredSeries

DATA = Path(__file__).parents[1] / "data"


def scored(score: float, quality: float, **more: object) -> ScoredSeries:
    known: dict[str, object] = {
        "name": "a set", "number": 0, "source": "a set", "modality": "MR", "region": "brain", "type": "t1",
        "refused": None, "outside": None, "image": np.arange(64.0 * 48).reshape(64, 48),
    }  # fmt: skip
    return ScoredSeries(score=score, quality=quality, **known | more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("score", "quality", "fits"),
    [
        (0.6, 0.8, True), (1.0, 1.1, True), (0.59, 0.8, False),
        (0.5, 0.64, True), (0.5, 0.66, False), (0.94, 0.79, True), (0.95, 0.79, False), (0.1, -0.4, True),
    ],
)  # fmt: skip
def test_a_good_series_must_not_score_low_and_a_poor_one_must_score_near_its_quality(score, quality, fits):
    assert scored(score, quality).holds is fits


def test_a_contact_sheet_has_a_tile_for_every_series(tmp_path):
    colour = np.full((40, 40, 3), 200.0)

    draw_series([scored(0.5, 0.9), scored(0.7, 0.7, outside="far"), scored(0.9, 0.9, image=colour)], tmp_path / "x.png")

    with Image.open(tmp_path / "x.png") as sheet:
        pixels = np.asarray(sheet)
    assert all(pixels[:170, 180 * place : 180 * place + 170].max() > 100 for place in range(3))
    assert pixels[:170, 540:].max() == 0


@pytest.mark.acceptance
def test_every_series_of_a_collection_is_listed_with_its_quality(tmp_path):
    found = CliRunner().invoke(
        app, ["series", "--collection", str(DATA), "--held-out", "mr_breast_ucsf06", "--out", str(tmp_path / "x.png")]
    )

    assert found.exit_code == 0, found.output
    assert "mr_breast_ucsf06" in found.stdout
    assert "series have a score that fits their own quality" in found.stdout
    assert (tmp_path / "x.png").exists()
