"""A report has one name for one content, and can be read back."""

import uuid
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import highdicom as hd
import pytest
from pydicom import Dataset
from support.factories import (
    ASSESSED_AT,
    DEVICE,
    REQUESTS,
    calibration,
    ct_volume,
    source_header,
    technique,
)
from support.report_reading import name, parsed, tree_text, walk, with_assessment

from mediqa_node import __version__
from mediqa_node.dicom.report import codes
from mediqa_node.dicom.report.build import SOP_CLASSES, ReportRequest, build_report, report_bytes
from mediqa_node.dicom.report.uid import deterministic_uid

GOLDEN = Path(__file__).parents[1] / "golden"
ALL = pytest.mark.parametrize("make", REQUESTS.values(), ids=REQUESTS)


@ALL
def test_the_same_request_gives_the_same_bytes(make):
    assert report_bytes(build_report(make())) == report_bytes(build_report(make()))


def test_the_order_of_arrival_changes_nothing():
    request = ct_volume()

    assert report_bytes(build_report(replace(request, sources=request.sources[::-1]))) == report_bytes(
        build_report(request)
    )


def changed_header(**changes: object) -> ReportRequest:
    return replace(ct_volume(), sources=[source_header(i, **changes) for i in range(1, 21)])


@cache
def first_report() -> Dataset:
    """The report that each of `DIFFERENT` is compared with."""
    return build_report(ct_volume())


DIFFERENT = {
    "patient id": lambda: changed_header(PatientID="SYN002"),
    "issuer": lambda: changed_header(IssuerOfPatientID="OTHER"),
    "patient name": lambda: changed_header(PatientName="Anders^A"),
    "birth date": lambda: changed_header(PatientBirthDate="19600103"),
    "accession": lambda: changed_header(AccessionNumber="A124"),
    "one instance more": lambda: replace(ct_volume(), sources=[source_header(i) for i in range(1, 22)]),
    "device": lambda: replace(ct_volume(), device=replace(DEVICE, device_uid="2.25.7")),
    "software": lambda: replace(ct_volume(), device=replace(DEVICE, software_version="0.2.0")),
    "weights": lambda: with_assessment(
        ct_volume(), checkpoint=replace(ct_volume().assessment.checkpoint, sha256="a" * 64)
    ),
    "preprocessing": lambda: with_assessment(ct_volume(), fingerprint="f" * 16),
    "thresholds": lambda: with_assessment(ct_volume(), calibration=calibration(borderline_below=0.61)),
    "recorded technique": lambda: with_assessment(ct_volume(), technique=technique(mas=121.0)),
    "SR class": lambda: replace(ct_volume(), sop_class="comprehensive"),
    "predecessor": lambda: replace(ct_volume(), predecessor=first_report(), instance_number=2),
}


@pytest.mark.parametrize("make", DIFFERENT.values(), ids=DIFFERENT)
def test_another_input_gives_another_instance_uid(make):
    assert build_report(make()).SOPInstanceUID != first_report().SOPInstanceUID


def test_another_layout_gives_another_instance_uid(monkeypatch):
    before = build_report(ct_volume()).SOPInstanceUID
    monkeypatch.setattr("mediqa_node.dicom.report.build.LAYOUT", "next")

    assert build_report(ct_volume()).SOPInstanceUID != before


def test_the_time_of_the_job_does_not_rename_a_report():
    later = replace(ct_volume(), created_at=ASSESSED_AT + timedelta(hours=1))

    assert build_report(later).SOPInstanceUID == build_report(ct_volume()).SOPInstanceUID


def test_uids_are_version_8_uuids():
    for part in range(200):
        uid = deterministic_uid("test", str(part))
        number = uuid.UUID(int=int(uid.removeprefix("2.25.")))
        assert (number.version, number.variant) == (8, uuid.RFC_4122)
        assert len(uid) <= 64
    assert deterministic_uid("ab", "c") != deterministic_uid("a", "bc")


def test_a_revision_names_its_predecessor_and_stays_in_its_series():
    first = parsed(ct_volume())
    second = parsed(replace(ct_volume(), predecessor=first, instance_number=2))
    [study] = second.PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    [document] = series.ReferencedSOPSequence

    assert (second.SeriesInstanceUID, int(second.InstanceNumber)) == (first.SeriesInstanceUID, 2)
    assert (document.ReferencedSOPClassUID, document.ReferencedSOPInstanceUID) == (
        first.SOPClassUID,
        first.SOPInstanceUID,
    )
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (first.StudyInstanceUID, first.SeriesInstanceUID)
    assert second.SOPInstanceUID != first.SOPInstanceUID
    with pytest.raises(ValueError, match="instance number"):
        build_report(replace(ct_volume(), predecessor=first, instance_number=1))


def test_tracking_uids_outlive_a_revision():
    first = parsed(ct_volume())
    second = parsed(replace(ct_volume(), predecessor=first, instance_number=2))

    one, other = ([i.UID for i in walk(r) if name(i) == codes.TRACKING_UID[:2]] for r in (first, second))
    assert one == other


@pytest.mark.parametrize(("sop_class", "uid"), SOP_CLASSES.items())
def test_the_same_tree_is_written_in_each_class(sop_class, uid):
    report = parsed(replace(ct_volume(), sop_class=sop_class))

    assert report.SOPClassUID == report.file_meta.MediaStorageSOPClassUID == uid
    assert report.ContentSequence == parsed(ct_volume()).ContentSequence


def test_the_file_is_written_in_the_node_s_own_name():
    meta = parsed(ct_volume()).file_meta

    assert meta.ImplementationVersionName == "MEDIQA_NODE_" + __version__.replace(".", "")
    assert len(meta.ImplementationVersionName) <= 16
    assert meta.ImplementationClassUID.startswith("2.25.")
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_the_private_codes_say_whose_they_are():
    [scheme] = parsed(ct_volume()).CodingSchemeIdentificationSequence

    assert (scheme.CodingSchemeDesignator, scheme.CodingSchemeVersion) == ("99MEDIQA", "1")
    assert scheme.CodingSchemeUID.startswith("2.25.")


@pytest.mark.parametrize("sop_class", SOP_CLASSES)
def test_highdicom_reads_it_back_in_five_lines(sop_class, tmp_path):
    path = tmp_path / "sr.dcm"
    path.write_bytes(report_bytes(build_report(replace(ct_volume(), sop_class=sop_class))))

    sr = hd.sr.srread(path)
    series, *slices = sr.content.get_image_measurement_groups()
    concept = hd.sr.CodedConcept("IQA-Q", "99MEDIQA", "Overall image quality score Q")
    quality = series.get_measurements(name=concept)[0].value
    scored = [
        (g.source_images[0].referenced_sop_instance_uid, *(m.value for m in g.get_measurements())) for g in slices
    ]

    assert quality == pytest.approx(ct_volume().assessment.quality)
    assert sum(w * rating for _, rating, w in scored) == pytest.approx(100 * quality)
    assert [uid for uid, *_ in scored] == [p.frame.sop_instance_uid for p in ct_volume().assessment.primary.slices]


@pytest.mark.parametrize("kind", ["ct-volume", "enhanced-mr"])
def test_the_tree_is_the_golden_one(kind):
    expected = (GOLDEN / f"report-{kind}.txt").read_text()

    assert tree_text(parsed(REQUESTS[kind]())) == expected
