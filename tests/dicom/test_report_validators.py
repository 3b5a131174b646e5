"""Three validators that each see what the others miss: dciodvfy, dsrdump, PixelMed (tests/sr-gate)."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from support.factories import (
    ENHANCED_CT,
    REQUESTS,
    assessment,
    ct_image,
    ct_volume,
    frame_references,
    prompt,
    references,
    report_request,
    source_header,
    stack_result,
)
from support.measured import measured_stack, measures
from support.siblings import one_in

from mediqa_node.dicom.report.build import SOP_CLASSES, ReportRequest, build_report, report_bytes
from mediqa_node.domain.baseline import usual_values
from mediqa_node.domain.errors import InvalidInstance

TESTS = Path(__file__).parents[1]
GATE = TESTS / "sr-gate"
REAL = sorted({path.parent for path in (TESTS / "data").rglob("*.dcm")})
TOOLS = {"dciodvfy": "dicom3tools", "dsrdump": "dcmtk", "java": "default-jre-headless"}
MISSING = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
if not Path("/usr/share/java/pixelmed.jar").exists():
    MISSING.append("pixelmed-apps")

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
    pytest.mark.skipif(bool(MISSING), reason=f"apt-get install {' '.join(MISSING)}"),
]


def revision() -> ReportRequest:
    return replace(ct_volume(), predecessor=build_report(ct_volume()), instance_number=2)


def enhanced_ct() -> ReportRequest:
    header = source_header(sop_class=ENHANCED_CT, frames=4)
    primary = stack_result(frame_references(header, (1, 2, 3)), [0.2, 0.4, 0.6], [0.5, 0.25, 0.25], prompt=prompt())
    return replace(ct_volume(), sources=[header], assessment=replace(ct_volume().assessment, primary=primary))


def dirty() -> ReportRequest:
    header = source_header(
        PatientName=None, PatientSex="U", PatientBirthDate="1960", StudyDate=None, AccessionNumber="A" * 20
    )
    return replace(ct_image(), sources=[header])


def half_filled() -> ReportRequest:
    """An animal, de-identified by an unnamed method, with halves of identifiers."""
    issuer, other = Dataset(), Dataset()
    issuer.UniversalEntityID = "1.2.3"
    other.PatientID = "OLD1"
    header = source_header(
        PatientSpeciesDescription="Canine",
        PatientIdentityRemoved="YES",
        IssuerOfAccessionNumberSequence=[issuer],
        IssuerOfPatientIDQualifiersSequence=[issuer],
        OtherPatientIDsSequence=[other],
        ProcedureCodeSequence=[Dataset()],
        ClinicalTrialSponsorName="Sponsor",
    )
    return replace(ct_image(), sources=[header])


def predicted() -> ReportRequest:
    return replace(ct_volume(), predicted_parameters=True)


def measured() -> ReportRequest:
    usual = usual_values(
        [measured_stack(study_instance_uid=f"1.2.{i}", measures=measures(11.0 + i % 3)) for i in range(40)]
    )
    return replace(ct_volume(), measured=measured_stack(measures=measures(30.0)), usual=usual)


KINDS = {
    **REQUESTS,
    "enhanced-ct": enhanced_ct,
    "revision": revision,
    "dirty": dirty,
    "half-filled": half_filled,
    "predicted": predicted,
    "measured": measured,
}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[ReportRequest], Path]:
    def write(request: ReportRequest) -> Path:
        path = tmp_path / "report.dcm"
        path.write_bytes(report_bytes(build_report(request)))
        return path

    return write


def gate(path: Path) -> str:
    return subprocess.run(["sh", GATE, path], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("sop_class", one_in(3, SOP_CLASSES))
@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_and_dsrdump_find_no_error(kind, sop_class, written):
    path = written(replace(KINDS[kind](), sop_class=sop_class))

    iod = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    tree = subprocess.run(["dsrdump", path], capture_output=True, text=True, check=False)

    said = (iod.stdout + iod.stderr).splitlines()
    assert [line for line in said if line.startswith("Error")] == []
    warned = [line for line in said if line.startswith("Warning")]
    assert [line for line in warned if not re.search("<99MEDIQA>|<2.25.|build DICOMDIR", line)] == []
    assert (tree.returncode, [line for line in tree.stderr.splitlines() if line.startswith("E:")]) == (0, [])


@pytest.mark.parametrize("folder", REAL, ids=lambda folder: folder.name)
def test_real_headers_give_valid_reports(folder, written):
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.glob("*.dcm"))]
    first = headers[0]
    modality = first.Modality if first.Modality in ("CT", "MR") else "OP"
    frames = frame_references(first, (1,)) if "NumberOfFrames" in first else references([first])
    judgement = assessment(
        stack_result(frames, [0.5], [1.0], prompt=prompt("2D", modality, "unknown", "unknown")),
        study_instance_uid=str(first.get("StudyInstanceUID")),
        series_instance_uid=str(first.get("SeriesInstanceUID")),
    )
    request = report_request(judgement, [h for h in headers if h.SeriesInstanceUID == first.SeriesInstanceUID])
    if not first.get("StudyInstanceUID"):
        with pytest.raises(InvalidInstance):
            build_report(request)
        return
    path = written(request)

    iod = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    tree = subprocess.run(["dsrdump", path], capture_output=True, text=True, check=False)
    assert [line for line in (iod.stdout + iod.stderr).splitlines() if line.startswith("Error")] == []
    assert (tree.returncode, [line for line in tree.stderr.splitlines() if line.startswith("E:")]) == (0, [])


def test_the_whole_gate_is_silent(written):
    assert gate(written(replace(measured(), sop_class="comprehensive3d"))) == ""


@pytest.mark.acceptance
@pytest.mark.timeout(600)
@pytest.mark.parametrize("sop_class", SOP_CLASSES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_gate_is_silent_on_every_kind_in_every_class(kind, sop_class, written):
    assert gate(written(replace(KINDS[kind](), sop_class=sop_class))) == ""


@pytest.mark.acceptance
def test_the_gate_would_speak(written, tmp_path):
    report = build_report(ct_image())
    report.ConceptNameCodeSequence[0].CodeValue = "126001"
    path = tmp_path / "wrong-title.dcm"
    path.write_bytes(report_bytes(report))

    assert gate(path) != ""
