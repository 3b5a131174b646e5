"""Who may correct whom: the source of the images before a report leaves, an authority after it, else a person."""

import time
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pipeline.test_identity import RIGHT, WRONG, command, stored
from pydicom import Dataset
from support.bench import Bench
from support.corrections import ELSEWHERE, RULES, SCANNER, Make
from support.scripted import ScriptedPacs
from support.series import ct_series, reject_note, series_uid
from support.siblings import before_release

from mediqa_node.domain.identity import IdentityRules
from mediqa_node.domain.policy import AllowRule, DeliveryRules, ReceiverPolicy, Retention
from mediqa_node.domain.series import CopyDecision
from mediqa_node.pipeline import sources
from mediqa_node.pipeline.sweeps import retain
from mediqa_node.storage import copies, decisions, retractions


def settle(bench: Bench, series: str, action: CopyDecision) -> int:
    """Decide as a person would; return how many reports are to be taken back."""
    with bench.database.write() as connection:
        proposal = copies.proposal(connection, series, action)
        assert proposal is not None
        return copies.decide(bench.database, connection, proposal, by="Curie", at=bench.now)


def whose(reports: list[Dataset]) -> list[tuple[str, bool]]:
    """Return the patient of each report, and whether it is void."""
    return [(report.PatientID, "VOID" in report.SeriesDescription) for report in reports]


def test_the_scanner_corrects_its_own_series_before_its_report_leaves(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make()
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)

    bench.receive_all(right := ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **SCANNER)
    bench.pass_time(100)

    assert whose(stored(pacs)) == [("RIGHT", False)]
    with bench.database.read() as connection:
        [made] = decisions.corrections_of(connection, series_uid(right))
    assert (made.action, made.by, made.n_kept, made.n_set_aside) == ("source", "CT_ROOM_1", 5, 5)


def test_a_half_corrected_series_waits_for_the_other_half(make: Make, pacs: ScriptedPacs, tmp_path: Path) -> None:
    bench = make()
    series = waiting(bench, ct_series(tmp_path / "w", "x", **WRONG))
    right = ct_series(tmp_path / "r", "x", **RIGHT)

    bench.receive_all(right[:3], association="a2", **SCANNER)
    bench.pass_time(200)
    row = bench.series(series)
    assert (row.state, str(row.reason.code)) == ("WITHHELD", "identity")
    assert row.reason.detail == "3 images have copies with another patient ID, name"
    assert stored(pacs) == []

    bench.receive_all(right[3:], association="a3", **SCANNER)
    bench.pass_time(200)
    assert whose(stored(pacs)) == [("RIGHT", False)]


def waiting(bench: Bench, paths: list[Path]) -> str:
    """Receive and score a series of the scanner whose association broke: its report waits a minute."""
    for path in paths:
        bench.receive(path, **SCANNER)
    bench.release(released=False)
    bench.pass_time(15)
    assert bench.series(series_uid(paths)).state == "ASSESSED"
    return series_uid(paths)


def test_a_copy_that_takes_long_to_compare_holds_up_its_own_series_only(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make()
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.receive_all(ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **SCANNER)
    bench.receive_all(other := ct_series(tmp_path / "o", "other"), association="a3", **SCANNER)
    bench.now += 10

    assert bench.settler.run() == 1  # the sweep alone: nothing compares

    assert bench.series(series_uid(other)).state == "READY"


@pytest.mark.parametrize(
    "corrector",
    [ELSEWHERE, {"aet": "OTHER", "address": "10.0.0.5"}],
    ids=["its title from another address", "another title from its address"],
)
def test_nobody_else_corrects_it(make: Make, pacs: ScriptedPacs, tmp_path: Path, corrector: dict[str, str]) -> None:
    bench = make()
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.receive_all(right := ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **corrector)
    bench.pass_time(100)
    assert stored(pacs) == []
    assert bench.series(series_uid(right)).state == "WITHHELD"

    assert settle(bench, series_uid(right), CopyDecision.KEEP_LAST) == 0
    bench.pass_time(100)
    assert whose(stored(pacs)) == [("RIGHT", False)]


def test_a_title_seen_from_two_addresses_is_no_source_any_more(make: Make, pacs: ScriptedPacs, tmp_path: Path) -> None:
    bench = make()
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.receive_all(ct_series(tmp_path / "o", "other"), association="a2", **ELSEWHERE)
    bench.receive_all(right := ct_series(tmp_path / "r", "x", **RIGHT), association="a3", **SCANNER)

    bench.pass_time(100)

    assert bench.series(series_uid(right)).state == "WITHHELD"
    with bench.database.read() as connection:
        assert sources.ambiguous(RULES, connection) == {"CT_ROOM_1": ["10.0.0.5", "10.0.0.9"]}
        narrow = ReceiverPolicy(allowed=(AllowRule(ae_title="CT_ROOM_1", address="10.0.0.5", source=True),))
        assert sources.ambiguous(narrow, connection) == {}


def test_after_delivery_the_scanner_asks_a_person_and_the_wrong_report_is_taken_back(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make()
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(100)
    bench.receive_all(right := ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **SCANNER)
    bench.pass_time(200)
    series = series_uid(right)
    assert whose(stored(pacs)) == [("WRONG", False)]
    assert bench.series(series).state == "WITHHELD"

    assert settle(bench, series, CopyDecision.KEEP_LAST) == 1
    bench.pass_time(200)

    assert sorted(whose(stored(pacs))) == [("RIGHT", False), ("WRONG", False), ("WRONG", True)]
    with bench.database.read() as connection:
        assert retractions.unfinished(connection) == []


def test_a_decision_for_the_first_copies_after_delivery_sends_nothing(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make()
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(100)
    bench.receive_all(right := ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **SCANNER)
    bench.pass_time(20)

    assert settle(bench, series_uid(right), CopyDecision.KEEP_FIRST) == 0
    bench.pass_time(200)

    assert whose(stored(pacs)) == [("WRONG", False)]
    assert bench.series(series_uid(right)).state == "DELIVERED"
    assert bench.scorer.scored == 1


@pytest.mark.parametrize("aet", ["CT_ROOM_1", "QC"])
def test_bytes_that_were_set_aside_and_come_again_are_a_question(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, aet: str
) -> None:
    bench = make()
    wrong, right = ct_series(tmp_path / "w", "x", **WRONG), ct_series(tmp_path / "r", "x", **RIGHT)
    bench.receive_all(wrong, **SCANNER)
    bench.receive_all(right, association="a2", **SCANNER)
    bench.pass_time(1)  # corrected, and not assessed yet

    bench.receive_all(wrong, association="a3", aet=aet, address=SCANNER["address"])
    bench.pass_time(200)

    assert stored(pacs) == []
    assert bench.series(series_uid(right)).state == "WITHHELD"
    assert bench.copies(pydicom.dcmread(wrong[0]).SOPInstanceUID) == ["superseded", "current", "disputed"]

    settle(bench, series_uid(right), CopyDecision.KEEP_LAST)
    bench.pass_time(200)
    assert whose(stored(pacs)) == [("WRONG", False)]


def test_a_correction_after_retention_still_settles(make: Make, pacs: ScriptedPacs, tmp_path: Path) -> None:
    bench = make(retention=Retention(days=1))
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(100)
    bench.now += 2 * 86400
    assert retain(bench.node) == 5

    right = ct_series(tmp_path / "r", "x", **RIGHT)
    for path in right:  # in another coding
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
        ds.save_as(path, implicit_vr=True, little_endian=True)
    bench.receive_all(right, association="a2", aet="QC", address="10.0.0.7")
    bench.pass_time(200)

    assert whose(stored(pacs)) == [("WRONG", False), ("WRONG", True), ("RIGHT", False)]


def test_images_of_one_series_that_name_two_patients_are_withheld_until_one_is_kept(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make()
    wrong, right = ct_series(tmp_path / "w", "x", **WRONG), ct_series(tmp_path / "r", "x", **RIGHT)
    bench.receive_all([*wrong[:1], *right[1:]], **SCANNER)
    bench.pass_time(100)
    row = bench.series(series_uid(right))
    assert (row.state, row.reason.detail) == ("WITHHELD", "images of this series name different patient ID, name")

    with bench.database.read() as connection:
        proposal = copies.proposal(connection, series_uid(right), CopyDecision.KEEP_LAST)
    assert (len(proposal.kept), proposal.left_out, proposal.identity.patient_id) == (4, 1, "RIGHT")
    settle(bench, series_uid(right), CopyDecision.KEEP_LAST)
    bench.pass_time(100)
    assert whose(stored(pacs)) == [("RIGHT", False)]


def test_an_empty_patient_id_is_withheld_unless_the_site_allows_it(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make()
    bench.receive_all(paths := ct_series(tmp_path / "w", "x", patient_id=""), **SCANNER)
    bench.pass_time(100)
    assert bench.series(series_uid(paths)).state == "WITHHELD"
    bench.close()

    allowing = make(delivery=DeliveryRules(allow_empty_patient_id=True))
    allowing.receive_all(again := ct_series(tmp_path / "a", "y", patient_id=""), **SCANNER)
    allowing.pass_time(100)
    assert allowing.series(series_uid(again)).state == "DELIVERED"


@pytest.mark.parametrize(
    "filled",
    [
        {"PatientName": "WASSER^ANNA^^", "AccessionNumber": "A123"},
        *before_release(
            {"PatientBirthDate": "", "PatientSex": "", "AccessionNumber": ""},
            {"IssuerOfPatientID": "HOSPITAL"},
        ),
        {"PatientName": "Wasser^Anna=水^安娜"},
        {"PatientName": "Wasser^Anna^Maria^Dr"},
        *before_release({"StudyDescription": "ABDOMEN CT", "InstitutionName": "Elsewhere"}),
    ],
    ids=["case and padding", "emptied", "filled in", "a second writing", "a middle name", "descriptions"],
)
def test_what_an_archive_fills_in_is_no_other_patient(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, filled: dict[str, str]
) -> None:
    bench = make()
    bench.receive_all(paths := ct_series(tmp_path / "one", "x"), **SCANNER)
    bench.pass_time(20)

    bench.receive_all(ct_series(tmp_path / "two", "x", **filled), association="a2", aet="ARCHIVE", address="10.0.0.7")
    bench.pass_time(200)

    assert bench.series(series_uid(paths)).state == "DELIVERED"
    assert len(stored(pacs)) == 1
    assert bench.copies(pydicom.dcmread(paths[0]).SOPInstanceUID) == ["current", "same"]


def test_a_note_takes_back_our_own_objects_where_the_peer_wants_that(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make(peer={"retraction": "note"})
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(100)
    bench.receive_all(ct_series(tmp_path / "r", "x", **RIGHT), association="a2", aet="QC", address="10.0.0.7")
    bench.pass_time(200)

    wrong, note, right = stored(pacs)
    assert (note.Modality, note.PatientID, right.PatientID) == ("KO", "WRONG", "RIGHT")
    evidence = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID for item in evidence] == [wrong.SOPInstanceUID]


def test_what_cannot_be_taken_back_yet_is_listed_and_tried_again(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make()
    pacs.statuses = [0x0000, 0xA700, 0xC000]
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(100)
    note = reject_note(tmp_path / "note.dcm", list((tmp_path / "w").iterdir()), title="113038")
    bench.receive_all([note], association="a2", **SCANNER)
    bench.pass_time(3)
    with bench.database.read() as connection:
        [row] = retractions.unfinished(connection)
    assert (row.state, row.reason, row.message) == (
        "waiting",
        "wrong_patient",
        "PACS is out of resources (status 0xa700)",
    )

    bench.now += 100
    bench.work()
    with bench.database.read() as connection:
        [row] = retractions.unfinished(connection)
    assert (row.state, row.status) == ("parked", 0xC000)
    with bench.database.write() as connection:
        assert retractions.retry(connection, (), now=bench.now) == 1
    bench.work()
    assert whose(stored(pacs))[-1] == ("WRONG", True)
    with bench.database.read() as connection:
        assert retractions.unfinished(connection) == []


@pytest.mark.parametrize(
    ("title", "n_back"), [("113001", 1), *before_release(("113037", 1), ("113038", 1)), ("113039", 0)]
)
def test_a_title_decides_whether_the_report_is_taken_back(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, title: str, n_back: int
) -> None:
    bench = make()
    bench.receive_all(paths := ct_series(tmp_path / "w", "x"), **SCANNER)
    bench.pass_time(20)

    bench.receive_all([reject_note(tmp_path / "note.dcm", paths, title=title)], association="a2", **SCANNER)
    bench.pass_time(100)

    row = bench.series(series_uid(paths))
    assert (row.state, str(row.reason.code)) == ("NOT_SCORED", "rejected")
    assert sum(void for _, void in whose(stored(pacs))) == n_back


def test_a_note_on_the_association_of_its_images_stops_their_report(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make()
    paths = ct_series(tmp_path / "w", "x")
    bench.receive_all([*paths, reject_note(tmp_path / "note.dcm", paths)], **SCANNER)

    bench.pass_time(100)

    assert stored(pacs) == []
    assert bench.scorer.scored == 0
    assert bench.series(series_uid(paths)).state == "NOT_SCORED"


@pytest.mark.parametrize(
    ("sender", "of"),
    [
        (ELSEWHERE, {}),
        *before_release(({"aet": "OTHER", "address": "10.0.0.5"}, {})),
        (SCANNER, {"PatientID": "SOMEBODY"}),
        *before_release((SCANNER, {"StudyInstanceUID": "2.25.77"})),
        ({"aet": "QC", "address": "10.0.0.7"}, {"PatientID": "SOMEBODY"}),
    ],
    ids=["another address", "another title", "another patient", "another study", "an authority, another patient"],
)
@pytest.mark.parametrize("first", [False, True], ids=["after", "before"])
def test_a_note_that_does_not_count_silences_nobody(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, sender: dict[str, str], of: dict[str, str], first: bool
) -> None:
    bench = make()
    paths = ct_series(tmp_path / "w", "x")
    note = reject_note(tmp_path / "note.dcm", paths)
    ds = pydicom.dcmread(note)
    for keyword, value in of.items():
        setattr(ds, keyword, value)
        if keyword == "StudyInstanceUID":
            ds.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = value
    ds.save_as(note)
    if first:
        bench.receive_all([note], association="a0", **sender)
        bench.pass_time(20)
    bench.receive_all(paths, **SCANNER)
    if not first:
        bench.receive_all([note], association="a2", **sender)

    bench.pass_time(100)

    assert len(stored(pacs)) == 1


def test_one_event_uid_for_every_patient_silences_nobody(make: Make, pacs: ScriptedPacs, tmp_path: Path) -> None:
    bench = make()
    for n in range(3):
        paths = ct_series(tmp_path / str(n), f"s{n}", patient_id=f"P{n}", event="the same for all")
        bench.receive_all(paths, association=f"a{n}", **SCANNER)
        bench.pass_time(20)

    assert len(stored(pacs)) == 3


# ── what the destination knows ───────────────────────────────────────────────


def test_our_own_first_report_under_the_wrong_patient_does_not_block_its_correction(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make()
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(100)
    [first] = stored(pacs)
    pacs.holds = [{"PatientID": "WRONG"}]
    pacs.holds_series = [{"PatientID": "WRONG", "SeriesInstanceUID": first.SeriesInstanceUID}]

    bench.receive_all(ct_series(tmp_path / "r", "x", **RIGHT), association="a2", aet="QC", address="10.0.0.7")
    bench.pass_time(200)

    assert whose(stored(pacs)) == [("WRONG", False), ("WRONG", True), ("RIGHT", False)]


def test_a_study_that_the_pacs_holds_under_two_patients_is_named_so(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make()
    pacs.holds = [{"PatientID": "SYN001"}, {"PatientID": "SOMEBODY"}]
    pacs.holds_series = [{"PatientID": "SOMEBODY", "SeriesInstanceUID": "2.25.1"}]
    bench.receive_all(paths := ct_series(tmp_path / "w", "x"), **SCANNER)
    bench.pass_time(100)

    [delivery] = bench.deliveries(series_uid(paths))
    assert delivery.message == "identity: PACS has this study twice, once as here and once with another patient ID"
    assert bench.series(series_uid(paths)).state == "WITHHELD"


@pytest.mark.parametrize(
    ("rules", "ours", "theirs", "sent"),
    [
        ({}, "7", "007", False),
        ({"ignore_padding_zeros": True}, "7", "007", True),
        *before_release(
            ({"ignore_case": True}, "ab1", "AB1", True),
            ({"ignore_padding_zeros": True}, "70", "7", False),
        ),
    ],
)
def test_identifiers_are_compared_as_the_peer_writes_them(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, rules: dict[str, bool], ours: str, theirs: str, sent: bool
) -> None:
    bench = make(peer={"identity": IdentityRules(**rules)})
    pacs.holds = [{"PatientID": theirs, "AccessionNumber": theirs}]
    bench.receive_all(ct_series(tmp_path / "w", "x", patient_id=ours, AccessionNumber=ours), **SCANNER)
    bench.pass_time(20)

    assert bool(stored(pacs)) is sent


@pytest.mark.parametrize(
    ("keyword", "theirs", "state"),
    [
        ("IssuerOfPatientID", "HOSP_A", "sent"),
        ("IssuerOfPatientID", "HOSP_B", "withheld"),
        *before_release(("AccessionNumber", "HOSP_B", "withheld"), ("AccessionNumber", "HOSP_A", "sent")),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["first image", "last image"])
def test_what_one_image_leaves_empty_another_one_states(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, keyword: str, theirs: str, state: str, first: bool
) -> None:
    bench = make()
    named = ct_series(tmp_path / "w", "x", **{keyword: "HOSP_A"})
    empty = ct_series(tmp_path / "e", "x", slices=[0], **{keyword: ""})
    pacs.holds = [{"PatientID": "SYN001", keyword: theirs}]
    bench.receive_all([*empty, *named[1:]] if first else [*named[1:], *empty], **SCANNER)
    bench.pass_time(20)

    [delivery] = bench.deliveries(series_uid(named))
    assert delivery.state == state
    assert [report[keyword].value for report in stored(pacs)] == ["HOSP_A"] * (state == "sent")


@pytest.mark.parametrize(
    ("answer", "state", "message"),
    [
        ({"AccessionNumber": ""}, "waiting", "PACS answers queries without Patient ID (0010,0020)"),
        ({"AccessionNumber": "B999"}, "withheld", "identity: PACS has this study with another accession number"),
    ],
)
def test_a_c_find_answer_without_patient_id_is_not_another_patient(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, answer: dict[str, str], state: str, message: str
) -> None:
    bench = make()
    pacs.holds = [answer]
    bench.receive_all(paths := ct_series(tmp_path / "w", "x", AccessionNumber="A123"), **SCANNER)
    bench.pass_time(20)

    [delivery] = bench.deliveries(series_uid(paths))
    assert (delivery.state, delivery.message, pacs.received) == (state, message, [])


@pytest.mark.parametrize("status", [0xA900, *before_release(0xC000, 0xA700)])
@pytest.mark.parametrize(("then", "state"), [("withhold", "withheld"), ("send", "sent")])
def test_a_peer_that_fails_to_answer_c_find_holds_a_report_for_a_while(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, status: int, then: Any, state: str
) -> None:
    bench = make(delivery=DeliveryRules(timeout_s=61.0, identity_within_s=120, identity_unanswered=then))
    pacs.find_status = status
    bench.receive_all(paths := ct_series(tmp_path / "w", "x"), **SCANNER)
    bench.pass_time(100)
    [delivery] = bench.deliveries(series_uid(paths))
    assert delivery.state == "waiting"

    bench.pass_time(60)
    [delivery] = bench.deliveries(series_uid(paths))
    assert (delivery.state, len(stored(pacs))) == (state, int(state == "sent"))
    assert delivery.reason_code in ("identity_unanswered", "identity_not_checked")


@pytest.mark.parametrize("how", ["silent", "aborts"])
def test_so_does_one_that_keeps_silent_or_hangs_up(make: Make, pacs: ScriptedPacs, tmp_path: Path, how: str) -> None:
    bench = make(delivery=DeliveryRules(timeout_s=0.3, identity_within_s=0))
    pacs.aborts_find = how == "aborts"
    pacs.on_find = (lambda: None) if how == "aborts" else (lambda: time.sleep(1))
    bench.receive_all(paths := ct_series(tmp_path / "w", "x"), **SCANNER)
    bench.pass_time(5)

    [delivery] = bench.deliveries(series_uid(paths))
    assert (delivery.state, delivery.reason_code) == ("withheld", "identity_unanswered")
    assert bench.series(series_uid(paths)).reason.code == "identity"


def test_the_command_shows_a_decision_first_and_takes_it_by_name(
    make: Make, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    bench = make()
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.receive_all(right := ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **ELSEWHERE)
    bench.pass_time(20)
    series = series_uid(right)

    shown = command(bench, tmp_path, "retry", series, "--keep-last")
    assert (shown.returncode, bench.series(series).state) == (0, "WITHHELD"), shown.stderr
    assert "patient ID RIGHT, Richtig^Rita" in shown.stdout
    assert "nothing was changed" in shown.stdout
    done = command(bench, tmp_path, "retry", series, "--keep-last", "--by", "Curie")
    assert (done.returncode, bench.series(series).state) == (0, "RECEIVING"), done.stderr
