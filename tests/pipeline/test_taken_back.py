"""What reject notes and corrections take back from a destination: what stands there wrongly, all of it, and no more."""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pipeline.test_corrections import whose
from pipeline.test_identity import RIGHT, WRONG, command, stored
from pydicom import Dataset
from support.bench import Bench
from support.corrections import ELSEWHERE, SCANNER, Make
from support.scripted import ABORT, SR_CLASSES, ScriptedPacs, scripted
from support.series import ct_series, reject_note, series_uid
from support.siblings import before_release

from mediqa_node.dicom.report.retraction import VOID
from mediqa_node.domain.policy import CompanionRules, Retention
from mediqa_node.domain.retraction import VoidReason
from mediqa_node.domain.rules import ReturnRule
from mediqa_node.pipeline.sweeps import retain
from mediqa_node.storage import index, rejections, retractions

AUTHORITY = {"aet": "QC", "address": "10.0.0.7"}


CAPTURE, KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.59"


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    """A PACS that takes reports, notes and captures, and knows no study."""
    with scripted(classes=[*SR_CLASSES.values(), KEY_OBJECT, CAPTURE]) as running:
        yield running


@pytest.fixture
def bench(make: Make) -> Iterator[Bench]:
    """A bench whose scanner CT_ROOM_1 is a source, and QC an authority."""
    return make(retention=Retention(days=1))


def note(bench: Bench, path: Path, rejected: list[Path], title: str) -> None:
    """Have the scanner reject images, and let everything follow."""
    bench.receive_all([reject_note(path, rejected, title=title)], association=path.name, **SCANNER)
    bench.pass_time(200)
    bench.work()


@pytest.mark.parametrize("then", ["113039", *before_release("late after retention", "late for no destination")])
def test_a_note_voids_no_later_report_that_leaves_its_image_out(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, then: str
) -> None:
    paths = ct_series(tmp_path / "one", "x", slices=range(7))
    bench.receive_all([*paths[:6], reject_note(tmp_path / "n1.dcm", paths[:1])], **SCANNER)
    bench.pass_time(60)
    if then == "113039":
        note(bench, tmp_path / "n2.dcm", paths[:6], "113039")
    else:
        if then == "late after retention":
            bench.now += 2 * 86400
            assert retain(bench.node) == 7
        else:
            object.__setattr__(bench.node, "returns", (ReturnRule(to=("PACS",), when="never"),))
        bench.receive_all(paths[6:], association="a2", **SCANNER)
        bench.pass_time(200)
        bench.work()

    assert whose(stored(pacs)) == [("SYN001", False)]


def test_a_withdrawal_of_the_wrong_patient_voids_no_report_of_the_right_one(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench.receive_all(wrong := ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(20)
    note(bench, tmp_path / "n.dcm", wrong, "113038")
    right = ct_series(tmp_path / "r", "x", slices=range(6), **RIGHT)
    bench.receive_all(right[:5], association="a2", **SCANNER)
    bench.pass_time(100)
    bench.now += 2 * 86400
    retain(bench.node)
    bench.receive_all(right[5:], association="a3", **SCANNER)
    bench.pass_time(100)
    bench.work()

    assert bench.series(series_uid(right)).reason.code == "purged"
    assert sorted(whose(stored(pacs))) == [("RIGHT", False), ("WRONG", False), ("WRONG", True)]


# ── other reconstructions of the acquisition ─────────────────────────────────


@pytest.mark.parametrize(
    ("titles", "n_void", "second_is_scored"),
    [
        (["113001"], 1, True),
        *before_release((["113037"], 1, True)),
        (["113038"], 1, False),
        *before_release((["113039"], 0, False), (["113039", "113001"], 1, True), (["113001", "113038"], 2, True)),
        *before_release((["113038", "113001"], 1, False)),
    ],
    ids=[
        "quality",
        "safety",
        "wrong patient",
        "expired",
        "expired, then quality",
        "quality, then wrong patient",
        "wrong patient, then quality",
    ],
)
def test_another_reconstruction_is_scored_only_in_place_of_one_of_poor_quality(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, titles: list[str], n_void: int, second_is_scored: bool
) -> None:
    one = ct_series(tmp_path / "1", "one", study="s", event="e")
    two = ct_series(tmp_path / "2", "two", study="s", event="e", kernel="B60f")
    for paths in (one, two):
        bench.receive_all(paths, association=str(paths[0]), **SCANNER)
        bench.pass_time(20)
    for title in titles:
        note(bench, tmp_path / f"{title}.dcm", one, title)

    sent = [void for _, void in whose(stored(pacs))]
    assert (sent.count(True), sent.count(False)) == (n_void, 1 + second_is_scored)
    assert (bench.series(series_uid(two)).state == "DELIVERED") is second_is_scored


def test_reconstructions_of_the_right_patient_are_scored_after_a_withdrawal(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    for name, kernel in (("one", "B30f"), ("two", "B60f")):
        wrong = ct_series(tmp_path / f"w{name}", name, study="s", event="e", kernel=kernel, **WRONG)
        bench.receive_all(wrong, association=name, **SCANNER)
        bench.pass_time(20)
        note(bench, tmp_path / f"{name}.dcm", wrong, "113038")
    for name, kernel in (("two", "B60f"), ("one", "B30f")):
        right = ct_series(tmp_path / f"r{name}", name, study="s", event="e", kernel=kernel, **RIGHT)
        bench.receive_all(right, association=f"r{name}", **SCANNER)
        bench.pass_time(100)

    assert sorted(whose(stored(pacs))) == [("RIGHT", False), ("WRONG", False), ("WRONG", True)]


def test_a_report_that_stands_after_retention_keeps_its_acquisition(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    one = ct_series(tmp_path / "1", "one", study="s", event="e", slices=range(6))
    bench.receive_all(one[:5], **SCANNER)
    bench.pass_time(20)
    bench.now += 2 * 86400
    retain(bench.node)
    two = ct_series(tmp_path / "2", "two", study="s", event="e", kernel="B60f")
    for paths in (one[5:], two):
        bench.receive_all(paths, association=str(paths[0]), **SCANNER)
        bench.pass_time(100)

    assert len(stored(pacs)) == 1
    assert [bench.series(series_uid(paths)).reason.code for paths in (one, two)] == ["purged", "other_reconstruction"]


# ── what is sent ─────────────────────────────────────────────────────────────


def named(document: Dataset) -> list[str]:
    """Return the instances that a note rejects."""
    [study] = document.CurrentRequestedProcedureEvidenceSequence
    return sorted(
        item.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    )


@pytest.mark.parametrize("how", ["void", *before_release("note")])
def test_what_is_late_takes_back_no_revision_that_has_left_meanwhile(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    bench = make(peer={"retraction": how})
    bench.receive_all(ct_series(tmp_path / "w", "x"), **SCANNER)
    bench.pass_time(20)
    with monkeypatch.context() as held:  # as a destination does that has hung for a while
        held.setattr("support.bench.send_due_retractions", lambda node: 0)
        bench.receive_all(ct_series(tmp_path / "r", "x", AccessionNumber="A999"), association="a2", **AUTHORITY)
        bench.pass_time(100)
    bench.work()

    first, second, last = stored(pacs)
    assert [report.AccessionNumber for report in (first, second, last)] == ["A123", "A999", "A123"]
    if how == "note":
        assert named(last) == [first.SOPInstanceUID]
    else:
        assert first.SeriesInstanceUID == second.SeriesInstanceUID == last.SeriesInstanceUID
        assert [report.InstanceNumber for report in (first, last, second)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("statuses", "n_there"),
    [([0, 0, ABORT], 2), *before_release(([], 7), ([0, 0, 0xC000], 1), ([0, 0, 0xA700], 1))],
    ids=["no answer", "all taken", "refused", "out of resources"],
)
@pytest.mark.parametrize("how", ["void", *before_release("note")])
def test_pictures_are_taken_back_if_they_may_have_arrived(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, how: str, statuses: list[int], n_there: int
) -> None:
    bench = make(peer={"retraction": how}, companions=CompanionRules(secondary_capture=True))
    pacs.statuses = list(statuses)
    bench.receive_all(ct_series(tmp_path / "w", "x", slices=range(9), **WRONG), **SCANNER)
    bench.pass_time(20)
    n_sent = len(pacs.received)
    bench.receive_all(ct_series(tmp_path / "r", "x", slices=range(9), **RIGHT), association="a2", **AUTHORITY)
    bench.pass_time(60)

    wrong = [sent for sent in stored(pacs)[:n_sent] if sent.PatientID == "WRONG"]
    captures = [sent for sent in wrong if sent.SOPClassUID == CAPTURE][:n_there]
    [note] = [sent for sent in stored(pacs) if sent.SOPClassUID == KEY_OBJECT]
    assert len(captures) == n_there
    assert named(note) == sorted(sent.SOPInstanceUID for sent in [*captures, *(wrong[:1] if how == "note" else [])])
    with bench.database.read() as connection:
        assert retractions.unfinished(connection) == []


def test_pictures_that_no_note_can_take_back_are_listed(make: Make, pacs: ScriptedPacs, tmp_path: Path) -> None:
    with scripted(classes=[*SR_CLASSES.values(), CAPTURE]) as takes_no_note:
        bench = make(peer={"port": takes_no_note.port}, companions=CompanionRules(secondary_capture=True))
        bench.receive_all(wrong := ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
        bench.pass_time(20)
        note(bench, tmp_path / "n.dcm", wrong, "113038")
        bench.work()

        assert ("WRONG", True) in whose(stored(takes_no_note))
        with bench.database.read() as connection:
            [left] = retractions.unfinished(connection)
    assert (left.state, left.message) == ("parked", "PACS does not accept Key Object Selection Document Storage")


# ── which notes are read, and count ──────────────────────────────────────────


def test_documents_that_cannot_be_read_hold_up_their_own_study_only(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejections, "_DOCUMENTS_AT_ONCE", 2)
    first = ct_series(tmp_path / "one", "one")
    for i in range(3):
        bench.receive(reject_note(tmp_path / f"{i}.dcm", first), association=f"n{i}", **SCANNER)
    with bench.database.read() as connection:
        broken = [bench.spool.path(row.path) for row in rejections.unread(connection)]
        broken += [bench.spool.path(row.path) for row in rejections.unread(connection, after=2)]
    for path in broken:
        path.rename(path.with_suffix(".aside"))
        path.mkdir()  # EISDIR, as a bad sector gives EIO
    other = ct_series(tmp_path / "two", "two", slices=range(6))
    bench.receive_all([*other, reject_note(tmp_path / "n.dcm", other[:1])], association="a2", **SCANNER)
    bench.receive_all(first, association="a3", **SCANNER)
    bench.pass_time(60)
    assert [bench.series(series_uid(paths)).state for paths in (first, other)] == ["RECEIVING", "DELIVERED"]

    for path in broken:
        path.rmdir()
        path.with_suffix(".aside").rename(path)
    bench.pass_time(60)
    assert bench.series(series_uid(first)).reason.code == "rejected"
    assert len(stored(pacs)) == 1


@pytest.mark.parametrize(
    ("changes", "sender", "counts"),
    [
        ({"StudyDescription": "CT Abdomen"}, SCANNER, True),
        ({"StudyDescription": "CT Abdomen"}, ELSEWHERE, False),
        *before_release((RIGHT, SCANNER, False)),
    ],
    ids=["described otherwise", "not its source", "corrected"],
)
def test_the_source_of_images_stays_their_source_when_an_authority_describes_them(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, changes: dict[str, str], sender: dict[str, str], counts: bool
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(20)
    described = ct_series(tmp_path / "q", "x", **{**WRONG, **changes})
    bench.receive_all(described, association="a2", **AUTHORITY)
    bench.pass_time(100)
    bench.receive_all([reject_note(tmp_path / "n.dcm", described)], association="a3", **sender)
    bench.pass_time(60)
    bench.work()

    assert (bench.series(series_uid(paths)).state == "NOT_SCORED") is counts


def test_the_source_corrects_what_an_authority_has_only_described(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    described = ct_series(tmp_path / "q", "x", StudyDescription="CT Abdomen", **WRONG)
    steps = [
        (ct_series(tmp_path / "w", "x", **WRONG), SCANNER),
        (described, AUTHORITY),
        (ct_series(tmp_path / "s", "x", StudyDescription="Scanner's words", **WRONG), SCANNER),
    ]
    for i, (paths, sender) in enumerate(steps):
        for path in paths:
            bench.receive(path, association=f"b{i}", **sender)
        bench.complete_series()
    with bench.database.read() as connection:
        used = index.current_instances(connection, series_uid(described))
    assert {row.calling_ae_title for row in used} == {"QC"}, "the authority's words stay"

    bench.receive_all(ct_series(tmp_path / "r", "x", **RIGHT), association="a3", **SCANNER)
    for i in range(3):
        bench.release(f"b{i}")
    bench.pass_time(60)
    assert whose(stored(pacs)) == [("RIGHT", False)]


@pytest.mark.parametrize("before", ["another patient", *before_release("retention")])
def test_a_note_that_is_corrected_under_its_uid_counts_as_corrected(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, before: str
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "one", "x"), **SCANNER)
    bench.pass_time(20)
    wrong = pydicom.dcmread(reject_note(right := tmp_path / "n.dcm", paths))
    if before == "another patient":
        wrong.PatientID = "TYPO"
    else:
        wrong.ConceptNameCodeSequence[0].CodeValue = "113039"
    wrong.save_as(tmp_path / "wrong.dcm")
    for i, path in enumerate((tmp_path / "wrong.dcm", right)):
        assert whose(stored(pacs)) == [("SYN001", False)]
        bench.receive_all([path], association=f"b{i}", **SCANNER)
        bench.pass_time(60)
        bench.work()

    assert whose(stored(pacs)) == [("SYN001", False), ("SYN001", True)]


@pytest.mark.parametrize("how", ["void", *before_release("note")])
def test_a_void_report_is_called_another_patients_once_that_is_known(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, how: str
) -> None:
    bench = make(peer={"retraction": how})
    bench.receive_all(paths := ct_series(tmp_path / "one", "x", **WRONG), **SCANNER)
    bench.pass_time(20)
    for title in ("113001", "113038", "113037"):
        note(bench, tmp_path / f"{title}.dcm", paths, title)

    report, *taken_back = stored(pacs)
    said = [(sent.SeriesDescription, sent.InstanceNumber) for sent in taken_back]
    if how == "void":
        assert {sent.SeriesInstanceUID for sent in taken_back} == {report.SeriesInstanceUID}
        assert said == [(VOID[VoidReason.REJECTED], 2), (VOID[VoidReason.WRONG_PATIENT], 3)]
    else:
        assert [sent.ConceptNameCodeSequence[0].CodeValue for sent in taken_back] == ["113001", "113038"]
        assert all(named(sent) == [report.SOPInstanceUID] for sent in taken_back)


@pytest.mark.parametrize(
    ("there", "is_sent"),
    [
        ([{"PatientID": "RIGHT"}], False),
        ([{"PatientID": "RIGHT"}, {"PatientID": "WRONG"}], True),
        *before_release(([{"PatientID": "WRONG", "AccessionNumber": "A999"}], True), ([], True)),
    ],
    ids=["moved", "moved in part", "another accession number", "not there"],
)
def test_no_void_report_goes_into_a_study_that_the_destination_has_moved(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, there: list[dict[str, str]], is_sent: bool
) -> None:
    bench = make()
    bench.receive_all(wrong := ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(20)
    pacs.holds = there
    note(bench, tmp_path / "n.dcm", wrong, "113038")

    assert (("WRONG", True) in whose(stored(pacs))) is is_sent
    with bench.database.read() as connection:
        left = retractions.unfinished(connection)
    said = "PACS has this study with another patient ID: remove our report there by hand"
    assert [(row.state, row.message) for row in left] == ([] if is_sent else [("parked", said)])


def test_what_somebody_has_removed_by_hand_is_listed_no_more(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    bench.receive_all(wrong := ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(20)
    series = series_uid(wrong)
    unheld = command(bench, tmp_path, "retry", series, "--removed", "--by", "Curie")
    assert (unheld.returncode, "waits in vain" in unheld.stdout) == (1, True)
    pacs.holds = [{"PatientID": "RIGHT"}]
    note(bench, tmp_path / "n.dcm", wrong, "113038")

    shown = command(bench, tmp_path, "retry", series, "--removed")
    assert (shown.returncode, "nothing was changed" in shown.stdout) == (0, True)
    with bench.database.read() as connection:
        assert len(retractions.unfinished(connection)) == 1
    done = command(bench, tmp_path, "retry", series, "--removed", "--by", "Curie")
    assert (done.returncode, done.stderr) == (0, "")
    with bench.database.read() as connection:
        assert retractions.unfinished(connection) == []
    assert "removed by hand, says Curie" in command(bench, tmp_path, "show", series).stdout
    assert len(stored(pacs)) == 1


def test_a_destination_that_answers_no_query_is_sent_the_void_report_in_the_end(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench.receive_all(wrong := ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(20)
    pacs.find_status = 0xC000
    note(bench, tmp_path / "n.dcm", wrong, "113038")
    assert whose(stored(pacs)) == [("WRONG", False)]

    bench.now += bench.node.delivery.identity_within_s + 3600
    bench.work()
    assert whose(stored(pacs)) == [("WRONG", False), ("WRONG", True)]


def test_a_void_report_that_has_waited_long_is_still_held_against_its_study(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench.receive_all(wrong := ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(20)
    pacs.find_status = 0xC000
    note(bench, tmp_path / "n.dcm", wrong, "113038")

    pacs.find_status, pacs.holds = 0x0000, [{"PatientID": "RIGHT"}]
    bench.now += bench.node.delivery.identity_within_s + 3600
    bench.work()

    assert whose(stored(pacs)) == [("WRONG", False)]
