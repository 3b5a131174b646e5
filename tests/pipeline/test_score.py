"""What is not scored although nothing in its header forbids it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from support.bench import StandInScorer

from mediqa_node import config
from mediqa_node.composition import checkpoints
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.scoring import Scorer
from mediqa_node.pipeline.score import Assessor, assess, harvest_series, read_headers

DATA = Path(__file__).parents[1] / "data"


def judged(scorer: Scorer, *paths: Path) -> None:
    files = read_headers(paths)
    judge = Assessor(scorer=scorer, prompts=checkpoints.prompt_rules(config.load(None, {})))
    assess(files, harvest_series(files), judge, revision=1, assessed_at=datetime.now(UTC))


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
