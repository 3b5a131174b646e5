"""Fault F13: whose image is it? Never a report under a wrong patient, never one for rejected images."""

import subprocess
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from pydicom import Dataset
from support.bench import Bench
from support.command import invoke_in
from support.orthanc import predecessors
from support.scripted import ScriptedPacs, scripted
from support.series import ct_series, reject_note, series_uid
from support.siblings import before_release

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import Retention
from mediqa_node.domain.rules import ReturnRule
from mediqa_node.domain.series import CopyDecision
from mediqa_node.pipeline.sweeps import enqueue_waiting, retain
from mediqa_node.storage import copies, overview

WRONG, RIGHT = {"patient_id": "WRONG"}, {"patient_id": "RIGHT", "patient_name": "Richtig^Rita"}


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    """A PACS that stores what it gets and knows no study."""
    with scripted() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, pacs: ScriptedPacs) -> Iterator[Bench]:
    """A bench that sends to the PACS and trusts corrections from QC."""
    peers = [
        Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port),
        Peer(name="QC", ae_title="QC", host="127.0.0.1", port=1, authority=True),
    ]
    made = Bench(tmp_path / "bench", peers=peers, returns=[ReturnRule(to=("PACS",))])
    yield made
    made.close()


def stored(pacs: ScriptedPacs) -> list[Dataset]:
    """Return the reports that the PACS was sent."""
    return [pydicom.dcmread(BytesIO(content), force=True) for content in map(_part10, pacs.received)]


def _part10(dataset: bytes) -> bytes:
    meta = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    head = b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + len(meta).to_bytes(4, "little")
    return head + meta + dataset


def waiting_to_leave(bench: Bench, paths: list[Path]) -> str:
    """Receive and judge a series whose association broke: its report waits a minute for late slices."""
    for path in paths:
        bench.receive(path)
    bench.release(released=False)
    bench.pass_time(15)
    series = series_uid(paths)
    assert bench.series(series).state == "ASSESSED"
    return series


def test_a_correction_before_scoring_is_what_gets_reported(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG))
    bench.receive_all(right := ct_series(tmp_path / "r", "x", **RIGHT), association="a2", aet="QC")

    bench.pass_time(100)

    [report] = stored(pacs)
    assert report.PatientID == "RIGHT"
    assert predecessors(report) == set()
    assert bench.series(series_uid(right)).revision == 1


def test_a_correction_before_delivery_leaves_nothing_under_the_wrong_patient(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    series = waiting_to_leave(bench, ct_series(tmp_path / "w", "x", **WRONG))

    bench.receive_all(ct_series(tmp_path / "r", "x", **RIGHT), association="a2", aet="QC")
    bench.pass_time(200)

    assert [(report.PatientID, predecessors(report)) for report in stored(pacs)] == [("RIGHT", set())]
    assert [delivery.state for delivery in bench.deliveries(series)] == ["superseded", "sent"]


def test_a_correction_that_comes_while_the_pacs_is_being_asked_stops_the_report(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    right = ct_series(tmp_path / "r", "x", **RIGHT)

    def corrected_meanwhile() -> None:
        pacs.on_find = lambda: None
        for path in right:
            bench.receive(path, association="a2", aet="QC")
        bench.release("a2")

    pacs.on_find = corrected_meanwhile
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG))
    bench.pass_time(100)

    assert [report.PatientID for report in stored(pacs)] == ["RIGHT"]


def test_a_correction_after_delivery_makes_a_report_under_the_right_patient_that_names_the_wrong_one(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG))
    bench.pass_time(10)
    assert [report.PatientID for report in stored(pacs)] == ["WRONG"]

    bench.receive_all(right := ct_series(tmp_path / "r", "x", **RIGHT), association="a2", aet="QC")
    bench.pass_time(200)

    wrong, void, corrected = stored(pacs)
    assert (corrected.PatientID, str(corrected.PatientName)) == ("RIGHT", "Richtig^Rita")
    assert predecessors(corrected) == {wrong.SOPInstanceUID}
    assert corrected.SeriesInstanceUID != wrong.SeriesInstanceUID, "a series is of one patient"
    assert (void.PatientID, void.SeriesInstanceUID) == ("WRONG", wrong.SeriesInstanceUID)
    assert predecessors(void) == {wrong.SOPInstanceUID}
    assert "VOID" in void.SeriesDescription
    assert bench.series(series_uid(right)).state == "DELIVERED"
    assert bench.scorer.scored == 2, "one judgement for the whole correction, not one for each slice"


def test_a_half_corrected_series_is_withheld_until_the_other_half_comes(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG))
    right = ct_series(tmp_path / "r", "x", **RIGHT)
    bench.receive_all(right[:2], association="a2", aet="QC")
    bench.pass_time(100)
    row = bench.series(series_uid(right))
    assert (row.state, row.reason.code) == ("WITHHELD", "identity")
    assert pacs.received == []

    bench.receive_all(right[2:], association="a3", aet="QC")
    bench.pass_time(100)

    assert [report.PatientID for report in stored(pacs)] == ["RIGHT"]


def test_a_correction_from_anybody_else_is_kept_and_nothing_leaves_until_somebody_decides(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "w", "x", **WRONG))
    bench.receive_all(ct_series(tmp_path / "r", "x", **RIGHT), association="a2", aet="WORKSTATION")

    bench.pass_time(100)

    assert stored(pacs) == []
    row = bench.series(series_uid(paths))
    assert (row.state, row.reason.code) == ("WITHHELD", "identity")
    assert bench.copies(pydicom.dcmread(paths[0]).SOPInstanceUID) == ["current", "disputed"]
    with bench.database.read() as connection:
        assert [dispute.n_copies for dispute in overview.disputes(connection)] == [5]


def test_the_same_pixels_in_another_encoding_are_the_same_image(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "w", "x"))
    bench.pass_time(10)
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
        ds.save_as(path, implicit_vr=True, little_endian=True)

    bench.receive_all(paths, association="a2", aet="QC")
    bench.pass_time(200)

    assert len(pacs.received) == 1
    assert bench.copies(ds.SOPInstanceUID) == ["current", "same"]
    assert bench.scorer.scored == 1


@pytest.mark.parametrize("elsewhere", [False, *before_release(True)], ids=["the same series", "another series"])
def test_other_pixels_under_a_known_uid_hold_the_report(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, elsewhere: bool
) -> None:
    paths = ct_series(tmp_path / "one", "x")
    series = waiting_to_leave(bench, paths)
    changes: dict[str, Any] = {"SeriesInstanceUID": "2.25.99"} if elsewhere else {}
    other = ct_series(tmp_path / "other", "x", pixels="other", slices=[2], **changes)
    bench.receive_all(other, association="a2", aet="QC")

    bench.pass_time(300)

    assert pacs.received == []
    [delivery] = bench.deliveries(series)
    assert (delivery.state, str(delivery.message)[:9]) == ("withheld", "identity:")
    assert bench.series(series).state == "WITHHELD"
    assert bench.copies(pydicom.dcmread(paths[2]).SOPInstanceUID) == ["current", "conflict"]
    shown = command(bench, tmp_path, "status")
    assert shown.returncode == 1
    assert "withheld" in shown.stdout
    assert "1 further copy with other pixels" in shown.stdout

    kept = "2.25.99" if elsewhere else series
    with bench.database.write() as connection:
        keep = copies.proposal(connection, kept, CopyDecision.KEEP_FIRST)
        assert (len(keep.set_aside), keep.changes) == (1, False)
        copies.apply(connection, keep, by="Curie", at=bench.now)
        overview.retry(connection, [series], now=bench.now)
    bench.pass_time(300)
    assert len(pacs.received) == 1


def command(bench: Bench, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `mediqa-node` on the bench's database."""
    settings = {"node": {"data_dir": "bench"}, "database": {"url": bench.database.url}}
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))
    return invoke_in(folder, *arguments)


def test_a_copy_that_cannot_be_compared_is_a_conflict_and_stops_nobody_else(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench.receive_all(ct_series(tmp_path / "one", "x"))
    bench.pass_time(10)
    first = next(bench.spool.files())
    bench.spool.remove(first)  # a disk that forgets
    bench.receive_all(ct_series(tmp_path / "two", "x", **RIGHT), association="a2", aet="QC")

    bench.receive_all(ct_series(tmp_path / "three", "another series"), association="a3", aet="CT_2")
    bench.pass_time(100)

    assert bench.series(series_uid(list((tmp_path / "three").iterdir()))).state == "DELIVERED"
    with bench.database.read() as connection:
        found = {dispute.status: dispute.n_copies for dispute in overview.disputes(connection)}
    assert found == {"conflict": 1, "disputed": 4}


# ── reject notes ─────────────────────────────────────────────────────────────


def test_a_reject_note_takes_a_series_out_and_its_report_is_never_sent(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    series = waiting_to_leave(bench, paths := ct_series(tmp_path / "one", "x"))

    bench.receive_all([reject_note(tmp_path / "note.dcm", paths)], association="a2", aet="QC")
    bench.pass_time(300)

    assert pacs.received == []
    row = bench.series(series)
    assert (row.state, row.reason.code) == ("NOT_SCORED", "rejected")
    assert [delivery.state for delivery in bench.deliveries(series)] == ["superseded"]


def test_a_reject_note_for_some_slices_makes_a_report_of_the_rest(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "one", "x", slices=range(6)))
    bench.pass_time(10)
    bench.receive_all([reject_note(tmp_path / "note.dcm", paths[4:])], association="a2", aet="QC")

    bench.pass_time(300)

    first, revised = stored(pacs)
    assert predecessors(revised) == {first.SOPInstanceUID}
    evidence = revised.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert len(evidence) == 4


def test_a_reject_note_that_comes_before_its_images_holds(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "one", "x")
    bench.receive_all([reject_note(tmp_path / "note.dcm", paths)], association="a0", aet="QC")
    bench.pass_time(20)

    bench.receive_all(paths)
    bench.pass_time(100)

    assert pacs.received == []
    assert bench.series(series_uid(paths)).state == "NOT_SCORED"


def test_rejected_images_that_come_back_in_another_form_stay_rejected(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "one", "x"))
    bench.receive_all([reject_note(tmp_path / "note.dcm", paths)], association="a2", aet="QC")
    bench.pass_time(20)
    sent = len(pacs.received)

    bench.receive_all(ct_series(tmp_path / "again", "x", **RIGHT), association="a3", aet="QC")
    bench.pass_time(100)

    assert len(pacs.received) == sent
    assert bench.series(series_uid(paths)).state == "NOT_SCORED"


# ── what the destination knows ───────────────────────────────────────────────


@pytest.mark.parametrize(
    ("theirs", "what"),
    [
        ({"PatientID": "SOMEBODY", "AccessionNumber": "A123"}, "patient ID"),
        *before_release(
            (
                {"PatientID": "SYN001", "IssuerOfPatientID": "ELSEWHERE", "AccessionNumber": "A123"},
                "issuer of patient ID",
            ),
            ({"PatientID": "SYN001", "AccessionNumber": "A999"}, "accession number"),
        ),
    ],
)
def test_a_study_that_the_pacs_holds_under_another_patient_withholds_the_report_until_that_is_mended(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, theirs: dict[str, str], what: str
) -> None:
    pacs.holds = [theirs]
    paths = ct_series(tmp_path / "one", "x", IssuerOfPatientID="HERE")
    bench.receive_all(paths)
    bench.pass_time(100)
    series = series_uid(paths)
    [delivery] = bench.deliveries(series)
    assert (delivery.state, delivery.message) == ("withheld", f"identity: PACS has this study with another {what}")
    assert bench.series(series).state == "WITHHELD"
    assert pacs.received == []

    pacs.holds = [{"PatientID": "SYN001", "IssuerOfPatientID": "HERE", "AccessionNumber": "A123"}]
    again = command(bench, tmp_path, "retry", str(delivery.id))
    assert again.returncode == 0, again.stderr
    bench.now = time.time() + 1
    enqueue_waiting(bench.node)
    bench.work()

    assert [report.PatientID for report in stored(pacs)] == ["SYN001"]
    assert bench.series(series).state == "DELIVERED"


def test_a_report_waits_for_its_study_as_long_as_the_site_says(tmp_path: Path, pacs: ScriptedPacs) -> None:
    peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
    bench = Bench(tmp_path / "bench", peers=[peer], returns=[ReturnRule(to=("PACS",), wait_for_study_s=60)])
    bench.receive_all(ct_series(tmp_path / "one", "x"))
    bench.pass_time(30)
    assert (pacs.received, pacs.asked > 1) == ([], True)

    pacs.holds = [{"PatientID": "SYN001"}]
    bench.pass_time(10)
    bench.close()

    assert len(pacs.received) == 1


# ── retention ────────────────────────────────────────────────────────────────


@pytest.fixture
def forgetful(tmp_path: Path, pacs: ScriptedPacs) -> Iterator[Callable[[], Bench]]:
    """Make a bench that keeps images for one day."""
    made: list[Bench] = []

    def make() -> Bench:
        peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
        made.append(Bench(tmp_path / "bench", peers=[peer], retention=Retention(days=1)))
        return made[-1]

    yield make
    made[0].close()


def test_only_finished_series_are_deleted_after_retention(
    forgetful: Callable[[], Bench], pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = forgetful()
    pacs.statuses = [0x0000, 0xC000]
    bench.receive_all(ct_series(tmp_path / "delivered", "delivered"), association="a1")
    bench.pass_time(10)
    bench.receive_all(parked := ct_series(tmp_path / "parked", "parked"), association="a2")
    bench.pass_time(10)
    bench.now += 2 * 86400
    bench.receive_all(ct_series(tmp_path / "new", "new"), association="a3")

    deleted = retain(bench.node)

    assert deleted == 5
    assert len(list(bench.spool.files())) == 10
    assert bench.series(series_uid(parked)).state == "PARKED"
    assert retain(bench.node) == 0


def test_a_series_that_comes_again_after_retention_is_not_scored_again(
    forgetful: Callable[[], Bench], pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = forgetful()
    bench.receive_all(paths := ct_series(tmp_path / "one", "x", slices=range(6)))
    bench.pass_time(10)
    bench.now += 2 * 86400
    assert retain(bench.node) == 6

    bench.receive_all(paths, association="a2", aet="QC")
    bench.receive_all(ct_series(tmp_path / "two", "x", slices=[2], **RIGHT), association="a3", aet="QC")
    bench.pass_time(100)
    row = bench.series(series_uid(paths))
    assert (row.state, row.reason.code) == ("WITHHELD", "identity"), "one of six images names another patient now"
    with bench.database.write() as connection:
        keep = copies.proposal(connection, series_uid(paths), CopyDecision.KEEP_FIRST)
        copies.apply(connection, keep, by="Curie", at=bench.now)
    assert bench.series(series_uid(paths)).state == "DELIVERED"

    bench.receive_all(ct_series(tmp_path / "late", "x", slices=[6]), association="a4")
    bench.pass_time(200)

    assert len(pacs.received) == 1, "the last report stands"
    row = bench.series(series_uid(paths))
    assert (row.state, row.reason.code) == ("NOT_SCORED", "purged")
