"""A patient is corrected with dcmodify at the scanner, or in Orthanc, while a node runs that reports to Orthanc."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from support.node import QUICK, Node
from support.orthanc import Orthanc, predecessors
from support.senders import storescu
from support.series import ct_series, reject_note, series_uid
from support.waiting import need, until

pytestmark = pytest.mark.acceptance

SCANNER = "CT_SOURCE"


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    """An Orthanc."""
    need(request.config, "/usr/sbin/Orthanc", "/usr/bin/storescu")
    made = Orthanc(tmp_path_factory.mktemp("pacs")).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[Node]:
    """A node with a scanner that is a source, and the Orthanc as destination and authority."""
    made = Node(
        tmp_path_factory.mktemp("node"),
        peers={
            "PACS": {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port, "authority": True},
        },
        receiver={
            "allowed": [
                {"ae_title": SCANNER, "address": "127.0.0.1/32", "source": True},
                {"ae_title": "*", "address": "127.0.0.0/8"},
            ]
        },
        completion={**QUICK["completion"], "deliver_after_s": 6},
    )
    pacs.knows("node", "MEDIQA", made.port)
    made.start()
    yield made
    made.close()


def send(node: Node, paths: list[Path], *, aet: str = SCANNER) -> str:
    """Send files over one association, insist on 0x0000 for each, and return their series."""
    assert storescu(node.port, paths, aet=aet) == dict.fromkeys(paths, 0x0000)
    return series_uid(paths)


def broken(node: Node, paths: list[Path]) -> str:
    """Send files one by one, so that their report waits for further ones; return their series."""
    for path in paths:
        send(node, [path])
    return series_uid(paths)


def corrected(paths: list[Path], folder: Path) -> list[Path]:
    """Correct the patient as a technologist would: the same images, another ID and name."""
    folder.mkdir()
    copies = [folder / path.name for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    change = ["-m", "PatientID=RIGHT", "-m", "PatientName=Richtig^Rita"]
    subprocess.run(["/usr/bin/dcmodify", "-nb", *change, *map(str, copies)], check=True, capture_output=True)
    return copies


def correct_in_the_pacs(pacs: Orthanc, paths: list[Path]) -> None:
    """Have the archive hold the images, correct their patient there, and send them on to the node."""
    for path in paths:
        pacs.upload(path.read_bytes())
    [patient] = pacs.find("Patient", PatientID=str(pydicom.dcmread(paths[0]).PatientID))
    keep = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    for series in pacs.get(f"/patients/{patient['ID']}/series"):
        if series["MainDicomTags"]["Modality"] == "SR":
            continue
        for instance in series["Instances"]:
            change = {"Replace": {"PatientID": "RIGHT", "PatientName": "Richtig^Rita"}, "Keep": keep, "Force": True}
            pacs.upload(pacs.post_for_bytes(f"/instances/{instance}/modify", change))
    [found] = pacs.find("Series", PatientID="RIGHT", SeriesInstanceUID=series_uid(paths))
    for series in pacs.get(f"/patients/{patient['ID']}/series"):
        if series["MainDicomTags"]["Modality"] != "SR":
            pacs.delete(f"/series/{series['ID']}")
    pacs.send(found["ID"], to="node")


def whose(pacs: Orthanc, study: str) -> list[tuple[str, bool]]:
    """Return the patient of every report of a study at the archive, and whether it is void, sorted."""
    reports = pacs.reports(StudyInstanceUID=study)
    return sorted((str(report.PatientID), "VOID" in report.SeriesDescription) for report in reports)


def study_of(paths: list[Path]) -> str:
    """Return the study of files."""
    return str(pydicom.dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)


ByScanner = Callable[[Node, Orthanc, list[Path], Path], None]


def by_scanner(node: Node, pacs: Orthanc, paths: list[Path], folder: Path) -> None:
    """Correct at the scanner and send again."""
    send(node, corrected(paths, folder))


def by_pacs(node: Node, pacs: Orthanc, paths: list[Path], folder: Path) -> None:
    """Correct in the archive and send on."""
    correct_in_the_pacs(pacs, paths)


@pytest.mark.parametrize("correct", [by_scanner, by_pacs])
@pytest.mark.parametrize("when", ["before assessment", "before delivery"])
def test_before_a_report_has_left_there_is_one_under_the_right_patient(
    node: Node, pacs: Orthanc, tmp_path: Path, correct: ByScanner, when: str
) -> None:
    name = f"{when} {correct.__name__}"
    paths = ct_series(tmp_path / "wrong", name, patient_id=f"WRONG {name}", patient_name="Falsch^Fritz")
    if when == "before assessment":
        series = send(node, paths)
    else:
        series = broken(node, paths)
        node.reaches(series, "ASSESSED")

    correct(node, pacs, paths, tmp_path / "right")

    until(lambda: whose(pacs, study_of(paths)), "a report is there")
    node.reaches(series, "DELIVERED")
    assert whose(pacs, study_of(paths)) == [("RIGHT", False)]


def test_after_delivery_the_archive_gets_a_void_report_and_one_under_the_right_patient(
    node: Node, pacs: Orthanc, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path / "wrong", "after, by PACS", patient_id="WRONG")
    series = send(node, paths)
    node.reaches(series, "DELIVERED")

    by_pacs(node, pacs, paths, tmp_path / "right")

    expected = [("RIGHT", False), ("WRONG", False), ("WRONG", True)]
    until(lambda: whose(pacs, study_of(paths)) == expected, "all three reports are there")
    node.reaches(series, "DELIVERED")
    first, void, right = sorted(
        pacs.reports(StudyInstanceUID=study_of(paths)),
        key=lambda report: (report.PatientID == "RIGHT", "VOID" in report.SeriesDescription),
    )
    assert predecessors(right) == predecessors(void) == {first.SOPInstanceUID}
    assert first.SeriesInstanceUID == void.SeriesInstanceUID != right.SeriesInstanceUID


def test_after_delivery_the_scanner_has_to_ask_somebody(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "wrong", "after, by scanner", patient_id="WRONG")
    series = send(node, paths)
    node.reaches(series, "DELIVERED")

    by_scanner(node, pacs, paths, tmp_path / "right")

    assert node.reaches(series, "WITHHELD").reason.code == "identity"
    assert whose(pacs, study_of(paths)) == [("WRONG", False)]
    shown = node.command("status")
    assert f"retry {series} --keep-first" in shown.stdout
    done = node.command("retry", series, "--keep-last", "--by", "Curie")
    assert done.returncode == 0, done.stderr
    expected = [("RIGHT", False), ("WRONG", False), ("WRONG", True)]
    until(lambda: whose(pacs, study_of(paths)) == expected, "the void report and the right one are there")


def test_a_note_of_the_scanner_takes_the_report_back(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "bad", "rejected", patient_id="BAD")
    series = send(node, paths)
    node.reaches(series, "DELIVERED")

    send(node, [reject_note(tmp_path / "note.dcm", paths)])

    node.reaches(series, "NOT_SCORED")
    expected = [("BAD", False), ("BAD", True)]
    until(lambda: whose(pacs, study_of(paths)) == expected, "the void report is there")
