"""Three validators that each see what the others miss: dciodvfy, dsrdump, PixelMed (tests/sr-gate)."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from factories import ENHANCED_CT, REQUESTS, ct_image, ct_volume, frame_references, prompt, source_header, stack_result

from mediqa_node.dicom.report import SOP_CLASSES, ReportRequest, build_report, report_bytes

GATE = Path(__file__).parents[1] / "sr-gate"
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


KINDS = {**REQUESTS, "enhanced-ct": enhanced_ct, "revision": revision, "dirty": dirty}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[ReportRequest], Path]:
    def write(request: ReportRequest) -> Path:
        path = tmp_path / "report.dcm"
        path.write_bytes(report_bytes(build_report(request)))
        return path

    return write


def gate(path: Path) -> str:
    return subprocess.run(["sh", GATE, path], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("sop_class", SOP_CLASSES)
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


@pytest.mark.parametrize(("kind", "sop_class"), [("ct-volume", "comprehensive3d"), ("enhanced-mr", "enhanced")])
def test_the_whole_gate_is_silent(kind, sop_class, written):
    assert gate(written(replace(KINDS[kind](), sop_class=sop_class))) == ""


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
