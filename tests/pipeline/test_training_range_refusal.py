"""What lies outside the training range of a checkpoint is not scored, or scored and flagged where the site wants it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from acceptance.collection import with_uids
from PIL import Image
from pydicom import Dataset
from support.bench import Bench, StandInScorer
from support.factories import calibration, range_position
from support.limits import ABDOMEN, DATA, DEMO, PELVIS, THIGH, ct_domain
from support.report_reading import comment
from support.scripted import ScriptedPacs, scripted
from support.series import ct_series, refreshed, series_uid

from mediqa_node.dicom.prompt_rules import default_rules
from mediqa_node.dicom.report import codes
from mediqa_node.dicom.report.numbers import numbers
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules, Refuse, ScorePolicy
from mediqa_node.domain.range_position import RangePosition
from mediqa_node.domain.scoring import CheckpointId
from mediqa_node.model.checkpoint import load_checkpoint
from mediqa_node.model.predict import NetworkScorer
from mediqa_node.pipeline.checks.reproduce import explain
from mediqa_node.pipeline.score import Assessor, assess, harvest_series, read_headers
from mediqa_node.storage import assessments


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
def bench(tmp_path: Path, scorer: NetworkScorer, pacs: ScriptedPacs, request: pytest.FixtureRequest) -> Iterator[Bench]:
    peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
    score = ScorePolicy(refuse=getattr(request, "param", Refuse.STRICT))
    made = Bench(tmp_path / "bench", scorer=scorer, peers=[peer], allow_untrained=True, delivery=PUBLISHED, score=score)
    yield made
    made.close()


flagging = pytest.mark.parametrize("bench", [Refuse.FLAG], indirect=True)


def read(sent: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(sent), force=True)


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
    assert re.search(r"unlike the CT images it was trained on \(\d+\.\d\d x the limit\)", str(row.reason))
    assert bench.deliveries(series_uid(paths)) == []
    assert pacs.received == []


def test_a_patient_that_the_limits_were_not_learnt_from_is_scored_and_reported(bench, pacs, tmp_path):
    paths = with_uids(sorted(ABDOMEN.glob("*.dcm")), tmp_path / "abdomen", "abdomen")
    bench.receive_all(paths)

    bench.pass_time(600)

    assert bench.series(series_uid(paths)).state == "DELIVERED"
    assert len(pacs.received) == 1


@flagging
def test_a_site_that_flags_gets_a_report_without_a_verdict(bench, pacs, tmp_path):
    paths = photographs(tmp_path)
    bench.receive_all(paths)

    bench.pass_time(600)

    with bench.database.read() as connection:
        kept = assessments.load_assessment(connection, series_uid(paths), 1)
        scored = assessments.scored(connection, [series_uid(paths)])
    assert bench.series(series_uid(paths)).state == "DELIVERED"
    assert kept is not None
    assert (kept.verdict, kept.calibration) == ("outside_range", None)
    assert kept.primary.outside_range is not None
    assert scored[series_uid(paths)].verdict == "outside_range"
    [report] = pacs.received
    assert "OUTSIDE THE TRAINING RANGE" in comment(read(report))
    distance = numbers(read(report))["IQA series", codes.TIMES_LIMIT.meaning]
    assert distance == pytest.approx(kept.primary.outside_range.times_limit)


@flagging
def test_a_patient_inside_is_reported_as_ever(bench, pacs, tmp_path):
    paths = with_uids(sorted(ABDOMEN.glob("*.dcm")), tmp_path / "abdomen", "abdomen")
    bench.receive_all(paths)

    bench.pass_time(600)

    [report] = pacs.received
    assert "TRAINING RANGE" not in comment(read(report))
    assert "uncalibrated" in comment(read(report))


@flagging
def test_other_refusals_stay_refusals(bench, tmp_path):
    paths = with_uids(sorted((DATA / "refuse" / "mr_survey_scout").glob("*.dcm")), tmp_path / "scout", "scout")
    bench.receive_all(paths)

    bench.pass_time(1000)

    assert {bench.series(uid).state for uid in map(series_uid, [[path] for path in paths])} == {"NOT_SCORED"}


@flagging
def test_a_flagged_report_is_reproduced_although_the_site_refuses_now(bench, tmp_path):
    paths = photographs(tmp_path)
    bench.receive_all(paths)
    bench.pass_time(600)
    [delivery] = bench.deliveries(series_uid(paths))
    strict = replace(bench.node.assessor, refuse=Refuse.STRICT)

    found = explain(bench.node, delivery.report_sop_instance_uid, lambda name, sha256: strict)

    assert found.missing == ()
    assert found.is_reproduced
    assert ("IQA series", codes.TIMES_LIMIT.meaning) in found.written


def test_no_stack_outside_has_a_verdict_even_where_a_calibration_would_apply(scorer, tmp_path):
    files = read_headers(photographs(tmp_path))
    checkpoint = replace(scorer.checkpoint, trained=True)
    fits = calibration(
        station_name="*",
        weights_sha256=checkpoint.sha256,
        card_sha256=checkpoint.card_sha256,
        fingerprint=StandInScorer.spec.fingerprint(),
    )
    given = {}
    for position in (range_position(1.2), range_position(0.95)):
        stand_in = Calibrated(checkpoint, position)
        assessor = Assessor(scorer=stand_in, prompts=default_rules(), calibrations=(fits,), refuse=Refuse.FLAG)
        found = assess(files, harvest_series(files), assessor, revision=1, assessed_at=datetime.now(UTC))
        given[position.is_outside] = (found.verdict, found.calibration)

    assert given[True] == ("outside_range", None)
    assert given[False][0] in ("acceptable", "borderline", "review")
    assert given[False][1] == fits


class Calibrated(StandInScorer):
    """A stand-in with the checkpoint of a calibration, whose stacks all lie at one position."""

    def __init__(self, checkpoint: CheckpointId, position: RangePosition) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.position = position
