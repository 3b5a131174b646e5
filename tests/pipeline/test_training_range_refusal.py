"""What lies outside of what a checkpoint was trained on ends without a score and without a report."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from acceptance.collection import with_uids
from PIL import Image
from support.bench import Bench
from support.limits import ABDOMEN, DATA, DEMO, PELVIS, THIGH, ct_domain
from support.scripted import ScriptedPacs, scripted
from support.series import ct_series, refreshed, series_uid

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules
from mediqa_node.model.checkpoint import load_checkpoint
from mediqa_node.model.predict import NetworkScorer


@pytest.fixture(scope="module")
def scorer() -> NetworkScorer:
    """The default weights, with limits that three patients made."""
    network, card = load_checkpoint("untrained")
    return NetworkScorer(network, replace(card, domains={"CT": ct_domain(THIGH, PELVIS, DEMO)}))


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    with scripted() as running:
        yield running


PUBLISHED = DeliveryRules(timeout_s=61.0, allow_empty_patient_id=True)


@pytest.fixture
def bench(tmp_path: Path, scorer: NetworkScorer, pacs: ScriptedPacs) -> Iterator[Bench]:
    peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
    made = Bench(tmp_path / "bench", scorer=scorer, peers=[peer], allow_untrained=True, delivery=PUBLISHED)
    yield made
    made.close()


def photographs(folder: Path) -> list[Path]:
    """A CT series of five slices that shows a photograph, 0..255 as Hounsfield units."""
    with Image.open(DATA / "fundus_chasedb1" / "Image_01L.jpg") as picture:
        pixels = np.asarray(picture.convert("L").resize((512, 512)), dtype="<i2")
    slices = ct_series(folder / "made", "photograph")
    changes = {"Rows": 512, "Columns": 512, "PixelData": pixels.tobytes()}
    return [refreshed(path, folder / "shown" / path.name, **changes) for path in slices]


def test_a_photograph_in_the_clothes_of_ct_is_not_scored_and_nothing_is_sent(bench, pacs, tmp_path):
    paths = photographs(tmp_path)
    bench.receive_all(paths)

    bench.pass_time(600)

    row = bench.series(series_uid(paths))
    assert row.state == "NOT_SCORED"
    assert row.reason.code == "outside_training_range"
    assert "unlike the CT images it was trained on (" in str(row.reason)
    assert bench.deliveries(series_uid(paths)) == []
    assert pacs.received == []


def test_a_patient_that_the_limits_were_not_learnt_from_is_scored_and_reported(bench, pacs, tmp_path):
    paths = with_uids(sorted(ABDOMEN.glob("*.dcm")), tmp_path / "abdomen", "abdomen")
    bench.receive_all(paths)

    bench.pass_time(600)

    assert bench.series(series_uid(paths)).state == "DELIVERED"
    assert len(pacs.received) == 1
