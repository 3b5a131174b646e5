"""A report's numbers, made again from what is kept."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from support.bench import Bench, StandInScorer
from support.factories import predicted_mas
from support.report_reading import groups, walk
from support.scripted import ScriptedPacs, scripted
from support.series import ct_series, series_uid
from support.siblings import before_release

from mediqa_node.dicom.report import codes
from mediqa_node.dicom.report.build import report_bytes
from mediqa_node.dicom.report.items import number_item
from mediqa_node.dicom.report.retraction import void_report
from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import ReportRules
from mediqa_node.domain.preprocessing import NetworkInput
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.retraction import VoidReason
from mediqa_node.domain.scoring import ScoredSlices
from mediqa_node.model.predict import NetworkScorer, load_scorer
from mediqa_node.pipeline.checks.reproduce import Explanation, explain
from mediqa_node.pipeline.score import Assessor
from mediqa_node.storage.tables import reports

DATA = Path(__file__).parents[1] / "data"


@cache
def network() -> NetworkScorer:
    return load_scorer("untrained")


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    with scripted() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, pacs: ScriptedPacs) -> Iterator[Bench]:
    peers = [Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)]
    made = Bench(tmp_path / "bench", peers=peers, scorer=network(), allow_untrained=True)
    yield made
    made.close()


def reported(bench: Bench, paths: list[Path]) -> str:
    """Bring a series to its report; return the report's UID."""
    bench.receive_all(paths)
    bench.pass_time(120)
    [delivery] = bench.deliveries(series_uid(paths))
    assert delivery.state == "sent", delivery
    return str(delivery.report_sop_instance_uid)


def explained(bench: Bench, uid: str) -> Explanation:
    assert bench.node.assessor is not None
    assessor = bench.node.assessor
    return explain(bench.node, uid, lambda name, sha256: assessor)


@pytest.mark.parametrize(
    ("name", "slices"),
    [("ct_sts003_lowdose", 7), *before_release(("mr_brain_t1_xa30_enhanced", 7), ("mr_brain_dti_achieva", 5))],
)
def test_every_number_of_a_delivered_report_comes_out_the_same(bench: Bench, name: str, slices: int) -> None:
    uid = reported(bench, sorted((DATA / name).glob("*.dcm")))

    found = explained(bench, uid)

    assert found.missing == found.notes == ()
    assert found.is_reproduced
    assert found.largest_difference == 0.0
    assert found.written is not None
    assert ("IQA series", "Image Quality Rating") in found.written
    assert sum(group.startswith("IQA slice") for group, _ in found.written) == slices  # no learned weights


def test_a_report_of_an_earlier_layout_is_compared_without_what_it_should_not_have_stated(bench: Bench) -> None:
    uid = reported(bench, sorted((DATA / "ct_sts003_lowdose").glob("*.dcm")))
    with bench.database.write() as connection:
        row = connection.execute(sa.select(reports.c.part10).where(reports.c.sop_instance_uid == uid)).scalar_one()
        old = in_layout_2(pydicom.dcmread(BytesIO(row)))
        connection.execute(sa.update(reports).where(reports.c.sop_instance_uid == uid).values(part10=old))

    found = explained(bench, uid)

    assert found.is_reproduced
    assert 0 < found.largest_difference < 1e-11  # twelve places
    assert found.notes[-1].startswith("the report has layout 2, this version writes")


def in_layout_2(report: pydicom.Dataset) -> bytes:
    """The report as an earlier version wrote it: decimals of twelve places alone, and equal weights."""
    for item in walk(report):
        if "MeasuredValueSequence" in item and (exact := item.MeasuredValueSequence[0].get("FloatingPointValue")):
            item.MeasuredValueSequence[0].NumericValue = f"{exact:.12f}"[:15]
            del item.MeasuredValueSequence[0].FloatingPointValue
        if "layout=" in item.get("TextValue", ""):
            item.TextValue = re.sub("layout=[0-9]+", "layout=2", item.TextValue)
    for label, group in groups(report).items():
        if label.startswith("IQA slice"):
            group.ContentSequence.append(
                number_item("CONTAINS", codes.SLICE_WEIGHT, "0.142857142857", codes.UNIT_RANGE, estimated=True)
            )
    return report_bytes(report)


class Predicting(StandInScorer):
    """Predicts an exposure that its card supports."""

    def score(self, inputs: NetworkInput, prompt: Prompt) -> ScoredSlices:
        return replace(super().score(inputs, prompt), prediction=predicted_mas())


@pytest.mark.parametrize("wanted", [True, False])
def test_a_predicted_parameter_is_reported_and_reproduced_where_the_site_asks_for_it(
    tmp_path: Path, pacs: ScriptedPacs, wanted: bool
) -> None:
    peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
    rules = ReportRules(predicted_parameters=wanted)
    bench = Bench(tmp_path / "bench", peers=[peer], scorer=Predicting(), report=rules, allow_untrained=True)

    found = explained(bench, reported(bench, ct_series(tmp_path / "ct", "x")))

    assert found.is_reproduced
    assert (("IQA series", "Predicted exposure") in (found.written or {})) == wanted
    bench.close()


def test_a_void_report_states_no_number(bench: Bench, tmp_path: Path) -> None:
    uid = reported(bench, ct_series(tmp_path / "ct", "x"))
    with bench.database.write() as connection:
        row = connection.execute(sa.select(reports.c.part10).where(reports.c.sop_instance_uid == uid)).scalar_one()
        sent = pydicom.dcmread(BytesIO(row))
        void = void_report(sent, VoidReason.REJECTED, device=bench.node.device, created_at=datetime.now(UTC))
        connection.execute(
            sa.update(reports).where(reports.c.sop_instance_uid == uid).values(part10=report_bytes(void))
        )

    assert explained(bench, uid).missing == ("the report is void: it states no number",)


def test_other_weights_do_not_reproduce_it(bench: Bench, tmp_path: Path) -> None:
    uid = reported(bench, ct_series(tmp_path / "ct", "x"))
    assert bench.node.assessor is not None
    other = Assessor(scorer=StandInScorer(), prompts=bench.node.assessor.prompts)

    found = explain(bench.node, uid, lambda name, sha256: other)

    assert not found.is_reproduced
    assert found.largest_difference > 1e-3


def test_what_is_missing_is_said(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "x")
    uid = reported(bench, paths)
    kept = [bench.spool.path(path) for path in bench.spool.files()]

    def unpinned(name: str, sha256: str) -> Assessor:
        raise CheckpointRefused(f"the weights with SHA-256 {sha256} are not in the model lock any more")

    assert explain(bench.node, "1.2.3", unpinned).missing == ("this node has built no report 1.2.3",)
    [said] = explain(bench.node, uid, unpinned).missing
    assert network().checkpoint.sha256 in said
    content = bytearray(kept[0].read_bytes())
    content[-1] ^= 1
    kept[0].write_bytes(content)
    kept[1].unlink()
    [said] = explained(bench, uid).missing
    assert said.startswith(f"2 of {len(paths)} spooled files are gone or damaged")


def test_a_number_that_was_changed_in_the_report_is_found(bench: Bench, tmp_path: Path) -> None:
    from mediqa_node.dicom.report.numbers import numbers

    uid = reported(bench, ct_series(tmp_path / "ct", "x"))
    found = explained(bench, uid)
    assert found.written is not None
    dataset = pydicom.Dataset()
    dataset.ContentSequence = []

    assert numbers(dataset) == {}
    key = ("IQA series", "Image Quality Rating")
    changed = Explanation(written={**found.written, key: found.written[key] + 1e-6}, reproduced=found.reproduced)
    assert not changed.is_reproduced
    short = {name: value for name, value in found.written.items() if name != key}
    assert not Explanation(written=short, reproduced=found.reproduced).is_reproduced
