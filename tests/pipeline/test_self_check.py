"""A self-check on received, assessed and kept series: which scores are compared, and which are not."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.bench import Bench, StandInScorer
from support.series import ct_series, reject_note, series_uid, uid

from mediqa_node.composition import checkpoints
from mediqa_node.config import Settings
from mediqa_node.domain.policy import AllowRule, ReceiverPolicy, ScorePolicy
from mediqa_node.domain.promotion import Weights
from mediqa_node.domain.self_check import Figures, PairKind
from mediqa_node.pipeline.checks import self_check
from mediqa_node.pipeline.checks.self_check import Compared, compare_pairs
from mediqa_node.storage.correction_tables import retractions
from mediqa_node.storage.tables import assessments, series

STAND_IN = Weights(
    name="stand-in", sha256=StandInScorer.checkpoint.sha256, card_sha256=StandInScorer.checkpoint.card_sha256
)
Receive = Callable[..., list[Path]]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    scanner = ReceiverPolicy(allowed=(AllowRule(ae_title="CT_ROOM_1", address="127.0.0.1/32", source=True),))
    made = Bench(tmp_path / "bench", score=ScorePolicy(primary="all", measures=()), receiver=scanner)
    yield made
    made.close()


@pytest.fixture
def receive(bench: Bench, tmp_path: Path) -> Receive:
    """Receive and assess one reconstruction; `darker` lowers its score."""

    def receive(study: str, name: str, *, darker: int = 0, **changes: Any) -> list[Path]:
        known = {
            "study": study,
            "event": study,
            "FrameOfReferenceUID": uid("frame", study),
            "Manufacturer": "SIEMENS",
            "RescaleIntercept": -darker,
        }
        paths = ct_series(tmp_path / study / name, f"{study} {name}", **known | changes)
        bench.receive_all(paths, association=f"{study} {name}"[-32:])
        bench.pass_time(70)
        return paths

    return receive


def compare(bench: Bench, weights: Weights = STAND_IN, **options: Any) -> Compared:
    rules = checkpoints.prompt_rules(Settings())
    return compare_pairs(bench.database, bench.spool, rules, weights, **options)


def change(bench: Bench, paths: list[Path], **values: Any) -> None:
    with bench.database.write() as connection:
        here = series.c.series_instance_uid == series_uid(paths)
        connection.execute(sa.update(series).where(here).values(**values))


def test_thick_and_thin_series_are_compared_by_their_scores(bench: Bench, receive: Receive) -> None:
    thick, thin = receive("s1", "thick"), receive("s1", "thin", SliceThickness=1.0, darker=60)
    receive("s2", "thick", darker=60)
    receive("s2", "thin", SliceThickness=1.0)

    found = compare(bench)

    figures = Figures.of(PairKind.THICKNESS, found.pairs)
    assert (figures.n, figures.n_expected, found.n_studies, found.n_headers, found.n_gone) == (2, 1, 2, 4, 0)
    [right] = [pair for pair in found.pairs if pair.agrees]
    assert (right.better, right.worse) == (series_uid(thick), series_uid(thin))
    assert right.difference > 0.01


def test_kernels_doses_and_repetitions_are_compared(bench: Bench, receive: Receive) -> None:
    receive("kernels", "soft")
    receive("kernels", "sharp", kernel="B70f", darker=60)
    receive("doses", "high")
    receive("doses", "low", event="doses 2", Exposure=40, XRayTubeCurrent=80, AcquisitionNumber=2, darker=60)
    receive("again", "first", darker=60)
    receive("again", "again", event="again 2", AcquisitionTime="102000", AcquisitionNumber=2)

    found = compare(bench)

    assert sorted((str(pair.kind), pair.agrees) for pair in found.pairs) == [
        ("dose", True),
        ("kernel", True),
        ("repeat", True),
    ]
    assert [str(pair.kind) for pair in compare(bench, kinds=(PairKind.DOSE,)).pairs] == ["dose"]


def test_only_scores_of_the_active_checkpoint_count(bench: Bench, receive: Receive) -> None:
    receive("s1", "thick")
    thin = receive("s1", "thin", SliceThickness=1.0)
    other = replace(STAND_IN, sha256="cd" * 32), replace(STAND_IN, card_sha256="cd" * 32)

    assert len(compare(bench).pairs) == 1
    assert [compare(bench, weights).pairs for weights in other] == [(), ()]

    with bench.database.write() as connection:
        here = assessments.c.series_instance_uid == series_uid(thin)
        connection.execute(sa.update(assessments).where(here).values(trained=False))
    assert compare(bench).pairs == ()


def test_the_latest_revision_counts_and_one_that_is_being_assessed_does_not(bench: Bench, receive: Receive) -> None:
    thick = receive("s1", "thick", slices=range(10))
    receive("s1", "thin", slices=range(10), SliceThickness=1.0, darker=60)
    [before] = compare(bench).pairs

    more = ct_series(
        thick[0].parent, "s1 thick", study="s1", event="s1", slices=[10], Manufacturer="SIEMENS",
        FrameOfReferenceUID=uid("frame", "s1"), RescaleIntercept=0, pixels="other",
    )  # fmt: skip
    bench.receive_all(more, association="late")
    assert compare(bench).pairs == ()
    bench.pass_time(70)

    [after] = compare(bench).pairs
    assert bench.series(series_uid(thick)).revision == 2
    assert after.worse_quality == before.worse_quality
    assert after.better_quality != before.better_quality


def test_a_series_that_is_not_scored_is_part_of_no_pair(bench: Bench, receive: Receive) -> None:
    receive("s1", "thick")
    receive("s1", "thin", SliceThickness=1.0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])

    assert compare(bench) == Compared(pairs=(), n_studies=0, n_headers=0, n_gone=0)


@pytest.mark.parametrize("state", ["NOT_SCORED", "PARKED", "WITHHELD", "RECEIVING", "READY"])
def test_a_series_in_another_state_does_not_count(bench: Bench, receive: Receive, state: str) -> None:
    receive("s1", "thick")
    change(bench, receive("s1", "thin", SliceThickness=1.0), state=state)

    assert compare(bench).pairs == ()


def test_a_study_with_a_report_that_was_taken_back_does_not_count(bench: Bench, receive: Receive) -> None:
    thick = receive("s1", "thick")
    receive("s1", "thin", SliceThickness=1.0)

    with bench.database.write() as connection:
        where = {"series_instance_uid": series_uid(thick), "destination": "PACS", "report_sop_instance_uid": "1.2.4"}
        more = {"reason": "wrong_patient", "state": "sent", "attempts": 1, "not_before": 0.0, "created_at": 0.0}
        connection.execute(sa.insert(retractions).values(**where, **more))

    assert compare(bench).pairs == ()


def test_a_study_with_another_patient_in_one_of_its_series_does_not_count(
    bench: Bench, receive: Receive, tmp_path: Path
) -> None:
    receive("s1", "thick")
    receive("s1", "thin", SliceThickness=1.0)
    third = receive("s1", "third", kernel="B40f")
    assert len(compare(bench).pairs) == 1

    stranger = ct_series(
        tmp_path / "copy", "s1 third", study="s1", event="s1", slices=[0], patient_id="OTHER", kernel="B40f",
        Manufacturer="SIEMENS", FrameOfReferenceUID=uid("frame", "s1"), RescaleIntercept=0,
    )  # fmt: skip
    bench.receive_all(stranger, association="copy", aet="ELSEWHERE")
    bench.pass_time(70)

    assert bench.series(series_uid(third)).state == "WITHHELD"
    assert compare(bench).pairs == ()


def test_a_study_with_rejected_images_does_not_count(bench: Bench, receive: Receive, tmp_path: Path) -> None:
    receive("s1", "thick")
    receive("s1", "thin", SliceThickness=1.0)
    third = receive("s1", "third", kernel="B40f")

    bench.receive_all([reject_note(tmp_path / "note.dcm", third)], association="note")
    bench.pass_time(70)

    state = bench.series(series_uid(third)).state
    assert (state, compare(bench).pairs) == ("NOT_SCORED", ())


def test_a_series_whose_images_were_deleted_is_left_out_and_counted(bench: Bench, receive: Receive) -> None:
    receive("s1", "thick")
    thin = receive("s1", "thin", SliceThickness=1.0)

    with bench.database.read() as connection:
        rows = self_check.self_checks.scored_stacks(connection, [series_uid(thin)])
    bench.spool.remove(rows[series_uid(thin)].path or "")

    found = compare(bench)
    assert (found.pairs, found.n_headers, found.n_gone) == ((), 1, 1)


def test_headers_are_read_only_of_series_that_may_be_pairs(bench: Bench, receive: Receive) -> None:
    receive("s1", "one")
    receive("s1", "other voltage", KVP=80)
    receive("s1", "another scanner", KVP=80, ManufacturerModelName="Scanner 16")

    found = compare(bench)

    assert (found.n_studies, found.n_headers) == (1, 0)


def test_studies_are_looked_at_in_portions(bench: Bench, receive: Receive, monkeypatch: pytest.MonkeyPatch) -> None:
    for study in ("s1", "s2", "s3"):
        receive(study, "thick")
        receive(study, "thin", SliceThickness=1.0)
    monkeypatch.setattr(self_check, "STUDIES_AT_ONCE", 2)
    steps: list[tuple[int, int]] = []

    found = compare(bench, advance=lambda done, of: steps.append((done, of)))

    assert (len(found.pairs), steps) == (3, [(2, 3), (3, 3)])


def test_a_period_takes_series_received_since(bench: Bench, receive: Receive) -> None:
    receive("s1", "thick")
    middle = bench.now
    receive("s1", "thin", SliceThickness=1.0)

    assert compare(bench, since=middle).pairs == ()
    assert len(compare(bench, since=0.0).pairs) == 1
