"""What a copy may do to a report: a withdrawn patient does not return, and a right report is not taken back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pipeline.test_corrections import settle, whose
from pipeline.test_identity import RIGHT, WRONG, stored
from pipeline.test_wrong_hands import AUTHORITY, STRANGER, recoded
from support.bench import Bench
from support.corrections import SCANNER, Make
from support.scripted import ScriptedPacs
from support.series import ct_series, reject_note, series_uid
from support.siblings import before_release

from mediqa_node.domain.identity import IdentityRules
from mediqa_node.domain.series import CopyDecision
from mediqa_node.storage import copies

WRITING = {"authority": True, "identity": IdentityRules(ignore_padding_zeros=True, ignore_issuer=True)}
PACS = {"aet": "SCRIPTED", "address": "10.0.0.8"}


@pytest.fixture
def bench(make: Make) -> Iterator[Bench]:
    """A bench whose scanner CT_ROOM_1 is a source, and QC an authority."""
    return make()


@pytest.mark.parametrize(
    ("sender", "late"), [(AUTHORITY, True), (SCANNER, False), *before_release((SCANNER, True), (STRANGER, True))]
)
def test_a_patient_withdrawn_by_a_note_does_not_return_in_another_coding(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, sender: dict[str, str], late: bool
) -> None:
    wrong = ct_series(tmp_path / "w", "x", **WRONG)
    bench.receive_all([*wrong, reject_note(tmp_path / "n.dcm", wrong, title="113038")], **SCANNER)
    bench.pass_time(20)
    bench.receive_all(ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **SCANNER)
    bench.pass_time(60 if late else 1)

    bench.receive_all(recoded(ct_series(tmp_path / "again", "x", **WRONG)), association="a3", **sender)
    bench.pass_time(100)
    bench.work()

    assert whose(stored(pacs)) == [("RIGHT", False)] * late
    assert bench.series(series_uid(wrong)).state == "WITHHELD"
    assert bench.copies(pydicom.dcmread(wrong[0]).SOPInstanceUID) == ["rejected", "current", "disputed"]


@pytest.mark.parametrize(
    "steps",
    [
        [{"AccessionNumber": ""}, {"AccessionNumber": "A1"}, {"AccessionNumber": "A2"}],
        *before_release([{"patient_name": ""}, {"patient_name": "Doe^Jane"}, {"patient_name": "Roe^Mary"}]),
    ],
    ids=["accession", "name"],
)
def test_a_copy_set_aside_for_its_descriptions_names_nobody_who_was_set_aside(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, steps: list[dict[str, Any]]
) -> None:
    for i, changes in enumerate(steps):
        bench.receive_all(ct_series(tmp_path / str(i), "x", **changes), association=f"a{i}", **SCANNER)
        bench.complete_series()
    bench.pass_time(60)

    [report] = stored(pacs)
    assert (report.AccessionNumber, report.PatientName) in [("A2", "Wasser^Anna"), ("A123", "Roe^Mary")]


@pytest.mark.parametrize("how", ["person", *before_release("authority", "keep last")])
def test_a_stray_slice_does_not_take_back_the_report_of_the_others(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, how: str
) -> None:
    ours = ct_series(tmp_path / "a", "x", slices=range(6), patient_id="A")
    stray = ct_series(tmp_path / "b", "x", slices=range(6), patient_id="B")[5:]
    bench.receive_all(ours[:5], **SCANNER)
    bench.pass_time(20)
    bench.receive_all(stray, association="a2", **SCANNER)
    bench.pass_time(60)
    assert bench.series(series_uid(ours)).state == "WITHHELD"

    if how == "authority":
        bench.receive_all(ours[5:], association="a3", **AUTHORITY)
    else:
        action = CopyDecision.KEEP_FIRST if how == "person" else CopyDecision.KEEP_LAST
        assert settle(bench, series_uid(ours), action) == (how == "keep last")
    bench.pass_time(130)
    bench.work()

    voided = [patient for patient, is_void in whose(stored(pacs)) if is_void]
    assert voided == (["A"] if how == "keep last" else [])
    assert whose(stored(pacs))[0] == ("A", False)
    assert bench.series(series_uid(ours)).state == "DELIVERED"


@pytest.mark.parametrize(
    ("action", "name", "left_out"), [(CopyDecision.KEEP_FIRST, "Doe^J", 2), (CopyDecision.KEEP_LAST, "Roe^M", 2)]
)
def test_a_decision_settles_a_series_whose_first_and_last_image_name_nobody(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, action: CopyDecision, name: str, left_out: int
) -> None:
    names = ["", "Doe^J", "Doe^J", "Roe^M", "Roe^M", ""]
    paths = [ct_series(tmp_path / str(i), "x", slices=[i], patient_name=one)[0] for i, one in enumerate(names)]
    bench.receive_all(paths, **SCANNER)
    bench.pass_time(20)

    with bench.database.read() as connection:
        decision = copies.proposal(connection, series_uid(paths), action)
    assert decision is not None
    assert (decision.identity.name, decision.left_out, len(decision.kept)) == (name, left_out, 4)
    settle(bench, series_uid(paths), action)
    bench.pass_time(60)
    assert bench.series(series_uid(paths)).state == "DELIVERED"


@pytest.mark.parametrize(
    "whom",
    [
        {"patient_id": "", "patient_name": ""},
        *before_release(
            {"patient_id": "ANON", "patient_name": "ANON", "PatientIdentityRemoved": "YES"},
            {"patient_id": "ANON", "PatientIdentityRemoved": "YES", "pixels": "masked"},
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize(("sender", "late"), [(SCANNER, False), (AUTHORITY, True), *before_release((STRANGER, True))])
def test_a_copy_that_names_nobody_says_nothing_about_the_patient(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, whom: dict[str, Any], sender: dict[str, str], late: bool
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "one", "x"), **SCANNER)
    if late:
        bench.pass_time(20)
    bench.receive_all(ct_series(tmp_path / "two", "x", **whom), association="a2", **sender)
    bench.pass_time(60)

    assert whose(stored(pacs)) == [("SYN001", False)]
    assert bench.series(series_uid(paths)).state == "DELIVERED"
    assert bench.copies(pydicom.dcmread(paths[0]).SOPInstanceUID) == ["current", "superseded"]


def test_withdrawn_images_do_not_come_back_without_a_name(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    wrong = ct_series(tmp_path / "w", "x", **WRONG)
    bench.receive_all([*wrong, reject_note(tmp_path / "n.dcm", wrong, title="113038")], **SCANNER)
    bench.pass_time(20)
    bench.receive_all(
        ct_series(tmp_path / "r", "x", patient_id="ANON", PatientIdentityRemoved="YES"), association="a2", **SCANNER
    )
    bench.pass_time(60)

    assert stored(pacs) == []
    assert bench.series(series_uid(wrong)).state == "NOT_SCORED"


@pytest.mark.parametrize(
    "writing", [{"patient_id": "7"}, *before_release({"IssuerOfPatientID": "PACS"})], ids=["zeros", "issuer"]
)
@pytest.mark.parametrize("sent", ["copies", *before_release("redescribed copies"), "note"])
def test_an_authority_writes_identifiers_in_its_own_way(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, writing: dict[str, str], sent: str
) -> None:
    bench = make(peer=WRITING)
    ours = {"patient_id": "007", "IssuerOfPatientID": "RIS"}
    bench.receive_all(paths := ct_series(tmp_path / "one", "x", **ours), **SCANNER)
    bench.pass_time(20)
    described = {"StudyDescription": "CT Abdomen"} if sent == "redescribed copies" else {}
    theirs = ct_series(tmp_path / "two", "x", **{**ours, **writing, **described})
    what = [reject_note(tmp_path / "n.dcm", theirs)] if sent == "note" else theirs
    bench.receive_all(what, association="a2", **PACS)
    bench.pass_time(60)

    assert whose(stored(pacs)) == [("007", False), *([("007", True)] if sent == "note" else [])]
    assert bench.series(series_uid(paths)).state == ("NOT_SCORED" if sent == "note" else "DELIVERED")


@pytest.mark.parametrize("sender", [SCANNER, *before_release(AUTHORITY)])
def test_corrected_copies_may_come_before_the_note_that_withdraws_the_first_ones(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, sender: dict[str, str]
) -> None:
    wrong, right = ct_series(tmp_path / "w", "x", **WRONG), ct_series(tmp_path / "r", "x", **RIGHT)
    bench.receive_all(wrong, **SCANNER)
    bench.pass_time(20)
    bench.receive_all(ct_series(tmp_path / "e", "x", patient_id="EVIL"), association="a2", **STRANGER)
    bench.receive_all(right[:3], association="a3", **sender)
    bench.pass_time(3)
    bench.receive_all([reject_note(tmp_path / "n.dcm", wrong, title="113038")], association="a4", **sender)
    bench.pass_time(3)
    bench.receive_all(ct_series(tmp_path / "r2", "x", **RIGHT)[3:], association="a5", **STRANGER)
    bench.receive_all(right[3:], association="a6", **sender)
    bench.pass_time(130)

    assert sorted(whose(stored(pacs))) == [("RIGHT", False), ("WRONG", False), ("WRONG", True)]
    [evidence] = stored(pacs)[-1].CurrentRequestedProcedureEvidenceSequence
    assert len(evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 5


def test_who_was_set_aside_stays_a_question_after_a_withdrawal(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    wrong, right = ct_series(tmp_path / "w", "x", **WRONG), ct_series(tmp_path / "r", "x", **RIGHT)
    bench.receive_all(wrong, **SCANNER)
    bench.receive_all(right, association="a2", **SCANNER)
    bench.pass_time(1)
    bench.receive_all([reject_note(tmp_path / "n.dcm", right, title="113038")], association="a3", **SCANNER)
    bench.receive_all(recoded(wrong), association="a4", **SCANNER)
    bench.pass_time(60)

    assert stored(pacs) == []
    assert bench.copies(pydicom.dcmread(wrong[0]).SOPInstanceUID) == ["superseded", "rejected", "disputed"]
    settle(bench, series_uid(wrong), CopyDecision.KEEP_LAST)
    bench.pass_time(60)
    assert whose(stored(pacs)) == [("WRONG", False)]


def test_a_decision_for_a_withdrawn_patient_outlives_the_note(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    wrong = ct_series(tmp_path / "w", "x", **WRONG)
    bench.receive_all([*wrong, reject_note(tmp_path / "n.dcm", wrong, title="113038")], **SCANNER)
    bench.pass_time(20)
    bench.receive_all(ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **SCANNER)
    bench.pass_time(20)
    bench.receive_all(recoded(wrong), association="a3", **SCANNER)
    bench.pass_time(20)

    settle(bench, series_uid(wrong), CopyDecision.KEEP_LAST)
    bench.pass_time(100)
    bench.work()

    assert sorted(whose(stored(pacs))) == [("RIGHT", False), ("RIGHT", True), ("WRONG", False)]


def reconstruction(folder: Path, number: int, whom: dict[str, Any], **changes: Any) -> list[Path]:
    """Write a reconstruction of one acquisition."""
    name = f"s{number}"
    return ct_series(folder / name, name, study="st", event="e", kernel=f"B{number}0", **{**whom, **changes})


@pytest.mark.parametrize("assessed", [True, *before_release(False)])
def test_another_reconstruction_is_not_corrected_past_the_report_that_stands(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, assessed: bool
) -> None:
    wrong = [reconstruction(tmp_path / "w", n, WRONG) for n in (1, 2)]
    right = [reconstruction(tmp_path / "r", n, RIGHT) for n in (1, 2)]
    bench.receive_all(wrong[0], **SCANNER)
    bench.pass_time(20)
    bench.receive_all(wrong[1], association="a2", **SCANNER)
    bench.pass_time(20 if assessed else 0)
    for n, paths in enumerate(right):
        bench.receive_all(paths, association=f"c{n}", **SCANNER)
    bench.pass_time(60)
    assert whose(stored(pacs)) == [("WRONG", False)]

    settle(bench, series_uid(right[0]), CopyDecision.KEEP_LAST)
    settle(bench, series_uid(right[1]), CopyDecision.KEEP_LAST)
    bench.pass_time(100)
    assert sorted(whose(stored(pacs))) == [("RIGHT", False), ("WRONG", False), ("WRONG", True)]


def test_another_reconstruction_follows_one_that_was_corrected(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    for n in (1, 2):
        bench.receive_all(reconstruction(tmp_path / "w", n, WRONG), association=f"a{n}", **SCANNER)
        bench.pass_time(20)
    bench.receive_all(reconstruction(tmp_path / "r", 1, RIGHT), association="c1", **AUTHORITY)
    bench.pass_time(20)
    second = reconstruction(tmp_path / "r", 2, RIGHT)
    bench.receive_all(second, association="c2", **SCANNER)
    bench.pass_time(100)

    assert sorted(whose(stored(pacs))) == [("RIGHT", False), ("WRONG", False), ("WRONG", True)]
    assert bench.copies(pydicom.dcmread(second[0]).SOPInstanceUID) == ["superseded", "current"]
    assert bench.series(series_uid(second)).reason.code == "other_reconstruction"


@pytest.mark.acceptance
def test_an_acquisition_that_is_another_patients_is_reported_for_nobody_else(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench.receive_all(reconstruction(tmp_path / "w", 1, WRONG), **SCANNER)
    bench.pass_time(20)
    bench.receive_all(reconstruction(tmp_path / "r", 1, RIGHT), association="c1", **AUTHORITY)
    bench.pass_time(60)
    bench.receive_all(reconstruction(tmp_path / "w", 2, WRONG), association="a2", **SCANNER)
    bench.pass_time(60)

    assert sorted(whose(stored(pacs))) == [("RIGHT", False), ("WRONG", False), ("WRONG", True)]
