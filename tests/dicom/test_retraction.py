"""What was sent under the wrong patient, or of rejected images, is taken back without claiming anything new."""

import re
import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from support.factories import ASSESSED_AT, DEVICE, ct_image, ct_volume, enhanced_mr, fundus
from support.report_reading import children, coded_value, comment, name, walk

from mediqa_node.dicom.companions.request import CompanionRequest
from mediqa_node.dicom.companions.secondary_capture import build_captures
from mediqa_node.dicom.reject_note import rejected_by
from mediqa_node.dicom.report import codes
from mediqa_node.dicom.report.build import SOP_CLASSES, build_report, report_bytes
from mediqa_node.dicom.report.retraction import TITLES, VOID, retraction_note, void_report
from mediqa_node.domain.retraction import VoidReason

GATE = Path(__file__).parents[1] / "sr-gate"
LATER = ASSESSED_AT + timedelta(hours=2)
PATIENT_AND_STUDY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "IssuerOfPatientID", "StudyInstanceUID", "StudyDate",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "ReferencedRequestSequence", "SeriesInstanceUID",
    "SeriesNumber", "SOPClassUID", "Modality",
)  # fmt: skip
WARNED = "<99MEDIQA>|<2.25.|build DICOMDIR"

ALL = pytest.mark.parametrize("reason", VoidReason)
peers = pytest.mark.skipif(
    not all(map(shutil.which, ("dciodvfy", "dsrdump", "java"))), reason="apt-get install dicom3tools dcmtk"
)


def read(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(BytesIO(report_bytes(dataset)))


def voided(reason=VoidReason.WRONG_PATIENT, make=ct_volume, **changes) -> Dataset:
    delivered = read(build_report(replace(make(), **changes)))
    return read(void_report(delivered, reason, device=DEVICE, created_at=LATER))


@cache
def captures() -> list[Dataset]:
    request = ct_volume()
    companions = CompanionRequest(
        assessment=request.assessment,
        sources=request.sources,
        device=DEVICE,
        series_number=9001,
        first_instance_number=1,
        created_at=ASSESSED_AT,
    )
    return build_captures(companions, [np.zeros((8, 8, 3), np.uint8)] * 7)


def note(reason=VoidReason.WRONG_PATIENT, objects: list[Dataset] | None = None) -> Dataset:
    own = objects or [build_report(ct_volume()), *captures()]
    return read(retraction_note(own, reason, device=DEVICE, created_at=LATER, series_number=9002))


@ALL
def test_a_void_report_says_why_and_holds_no_result(reason):
    void = voided(reason)
    [measurements] = children(void, codes.MEASUREMENTS)

    assert comment(void).startswith(VOID[reason])
    assert comment(void).isascii()
    assert void.SeriesDescription == VOID[reason]
    assert len(void.SeriesDescription) <= 64
    assert "ContentSequence" not in measurements
    assert not {"NUM", "IMAGE"} & {item.ValueType for item in walk(void)}
    assert "CurrentRequestedProcedureEvidenceSequence" not in void
    assert (void.CompletionFlag, void.VerificationFlag) == ("COMPLETE", "UNVERIFIED")


@pytest.mark.parametrize("make", [ct_volume, ct_image, enhanced_mr, fundus])
def test_a_void_report_keeps_patient_study_and_series_of_what_was_delivered(make):
    delivered, void = read(build_report(make())), voided(make=make)

    for keyword in PATIENT_AND_STUDY:
        assert void.get(keyword) == delivered.get(keyword), keyword
    [study] = void.PredecessorDocumentsSequence
    [reference] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == delivered.SOPInstanceUID != void.SOPInstanceUID
    assert void.InstanceNumber == delivered.InstanceNumber + 1
    assert int(void.ContentTime) - int(delivered.ContentTime) == 2_00_00  # in the same zone


def test_viewers_find_the_title_and_the_containers_they_expect():
    void = voided()
    [library] = children(void, codes.IMAGE_LIBRARY)

    assert name(void) == codes.REPORT[:2]
    assert coded_value(library.ContentSequence[0], codes.MODALITY) == "CT"
    assert children(void, codes.PROCEDURE_REPORTED)


def test_a_void_report_of_a_partial_one_is_complete():
    assert "CompletionFlagDescription" not in voided(make=enhanced_mr)


def test_retractions_are_named_by_what_they_take_back_and_why():
    uids = [found.SOPInstanceUID for reason in VoidReason for found in (voided(reason), note(reason))]

    assert len(set(uids)) == 2 * len(VoidReason)
    assert report_bytes(voided()) == report_bytes(voided())
    assert report_bytes(note()) == report_bytes(note())


@ALL
def test_a_note_rejects_the_node_s_own_objects_and_no_image_of_a_scanner(reason):
    own = [build_report(ct_volume()), *captures()]
    rejection = note(reason)

    code, rejected = rejected_by(rejection)
    assert code == TITLES[reason].value
    assert {one.sop_instance_uid for one in rejected} == {found.SOPInstanceUID for found in own}
    referred = {
        (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID, item.ValueType)
        for item in walk(rejection)
        for reference in item.get("ReferencedSOPSequence", ())
    }
    assert referred == {
        (found.SOPClassUID, found.SOPInstanceUID, "IMAGE" if "PixelData" in found else "COMPOSITE") for found in own
    }
    assert (rejection.Modality, rejection.StudyInstanceUID) == ("KO", own[0].StudyInstanceUID)
    assert rejection.PatientID == own[0].PatientID
    assert rejection.SeriesInstanceUID not in {found.SeriesInstanceUID for found in own}
    assert len(rejection.SeriesDescription) <= 64


def test_the_titles_are_those_an_archive_acts_on():
    assert {reason: code.value for reason, code in TITLES.items()} == {
        VoidReason.WRONG_PATIENT: "113038",
        VoidReason.REJECTED: "113001",
        VoidReason.UNSAFE: "113037",
        VoidReason.WITHDRAWN: "113001",
    }


def test_a_note_for_nothing_or_for_several_patients_is_refused():
    mine, theirs = build_report(ct_volume()), build_report(ct_volume())
    theirs.PatientID = "SYN002"

    for objects in ([], [mine, theirs]):
        with pytest.raises(ValueError, match="one patient and study"):
            retraction_note(objects, VoidReason.REJECTED, device=DEVICE, created_at=LATER, series_number=9002)


DOCUMENTS = {
    **{f"void-{sop_class}": partial(voided, sop_class=sop_class) for sop_class in SOP_CLASSES},
    **{f"void-{make.__name__}": partial(voided, make=make) for make in (ct_image, enhanced_mr, fundus)},
    **{f"note-{reason}": partial(note, reason) for reason in VoidReason},
    "note-for-captures": lambda: note(objects=captures()),
}


@peers
@pytest.mark.peers
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_dciodvfy_and_dsrdump_find_no_error(kind, tmp_path):
    path = tmp_path / "document.dcm"
    path.write_bytes(report_bytes(DOCUMENTS[kind]()))

    iod = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    tree = subprocess.run(["dsrdump", path], capture_output=True, text=True, check=False)

    found = [line for line in (iod.stdout + iod.stderr).splitlines() if line.startswith(("Error", "Warning"))]
    assert [line for line in found if not re.search(WARNED, line)] == []
    assert (tree.returncode, [line for line in tree.stderr.splitlines() if line.startswith("E:")]) == (0, [])


@peers
@pytest.mark.peers
@pytest.mark.acceptance
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_whole_gate_is_silent(kind, tmp_path):
    path = tmp_path / "document.dcm"
    path.write_bytes(report_bytes(DOCUMENTS[kind]()))

    assert subprocess.run(["sh", GATE, path], capture_output=True, text=True, check=False).stdout == ""
