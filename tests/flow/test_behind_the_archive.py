"""The default arrangement, behind the archive: second copies, other codings and corrections are daily bread."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from support.node import QUICK, Node
from support.orthanc import Orthanc
from support.series import ct_series, series_uid
from support.waiting import need, until

from mediqa_node.storage.tables import assessments, instances

pytestmark = [pytest.mark.acceptance, pytest.mark.peers]

RULES = {
    "returns": [{"from": "PACS", "modality": "CT", "to": ["PACS"]}],
    "score": {"rules": [{"from": "PACS", "description": "^NO SCORE", "score": False}], "max_age_days": 3},
    "receiver": {
        "allowed": [
            {"ae_title": "PEERPACS", "address": "127.0.0.1/32"},
            {"ae_title": "*", "address": "127.0.0.0/8", "store": False},
        ]
    },
    "completion": {**QUICK["completion"], "deliver_after_s": 2},
}


@pytest.fixture
def pacs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    need(request.config, "/usr/sbin/Orthanc", "/usr/bin/storescu")
    made = Orthanc(tmp_path / "pacs").start()
    yield made
    made.stop()


@pytest.fixture
def node(tmp_path: Path, pacs: Orthanc) -> Iterator[Node]:
    peer = {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port, "authority": True}
    made = Node(tmp_path / "node", peers={"PACS": {**peer, "commitment": True}}, **RULES)
    pacs.knows("node", "MEDIQA", made.port)
    made.start()
    yield made
    made.close()


def changed(paths: list[Path], folder: Path, *command: str) -> list[Path]:
    """Copy files and change the copies in place with a tool of DCMTK."""
    folder.mkdir()
    copies = [folder / path.name for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    subprocess.run([*command, *map(str, copies)], check=True, capture_output=True)
    return copies


def compressed(paths: list[Path], folder: Path) -> list[Path]:
    """Return the same images in lossless JPEG, as an archive stores them."""
    folder.mkdir()
    copies = [folder / path.name for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        subprocess.run(["/usr/bin/dcmcjpeg", "+e1", "+un", str(path), str(copy)], check=True, capture_output=True)
    return copies


def route(pacs: Orthanc, paths: list[Path]) -> str:
    """Have the archive hold these files, in place of what it held of their series, and send them to the node."""
    uid = series_uid(paths)
    for found in pacs.find("Series", SeriesInstanceUID=uid):
        pacs.delete(f"/series/{found['ID']}")
    for path in paths:
        pacs.upload(path.read_bytes())
    [found] = pacs.find("Series", SeriesInstanceUID=uid)
    assert pacs.send(found["ID"], to="node")["FailedInstancesCount"] == 0
    return uid


def rows(node: Node, table: Any, *columns: Any) -> list[Any]:
    with node.database.read() as connection:
        return list(connection.execute(sa.select(*columns or (table,))).all())


def n_reports(pacs: Orthanc) -> list[tuple[str, bool]]:
    return sorted((str(report.PatientID), "VOID" in report.SeriesDescription) for report in pacs.reports())


def test_a_compressed_second_copy_and_coerced_attributes_are_the_same_images(
    node: Node, pacs: Orthanc, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path / "ct", "routed", slices=range(6), StudyDate=None, patient_id="P1")
    uid = route(pacs, paths)
    node.reaches(uid, "CONFIRMED")
    first = n_reports(pacs)

    route(pacs, compressed(paths, tmp_path / "jpeg"))
    coerced = changed(paths, tmp_path / "coerced", "/usr/bin/dcmodify", "-nb", "-i", "RequestingService=WARD 3")
    route(pacs, coerced)
    until(lambda: not [row for row in rows(node, instances, instances.c.status) if row.status == "candidate"], "judged")
    node.reaches(uid, "CONFIRMED")

    assert first == [("P1", False)]
    assert n_reports(pacs) == first, "the same images were reported again"
    assert len(rows(node, assessments, assessments.c.revision)) == 1, "the same images were scored again"
    syntaxes = {row.transfer_syntax_uid for row in rows(node, instances, instances.c.transfer_syntax_uid)}
    assert len(syntaxes) == 2


def test_a_correction_in_the_archive_replaces_the_report(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "wrong", slices=range(6), patient_id="WRONG", StudyDate=None)
    uid = route(pacs, paths)
    node.reaches(uid, "CONFIRMED")

    right = changed(paths, tmp_path / "right", "/usr/bin/dcmodify", "-nb", "-m", "PatientID=RIGHT")
    route(pacs, compressed(right, tmp_path / "jpeg"))

    until(lambda: ("RIGHT", False) in n_reports(pacs), "the report of the right patient is there")
    until(lambda: ("WRONG", True) in n_reports(pacs), "that of the wrong one is taken back")
    assert n_reports(pacs).count(("RIGHT", False)) == 1
    node.reaches(uid, "CONFIRMED")


def test_rules_decide_what_is_scored(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    out = ct_series(tmp_path / "out", "out", slices=range(4), SeriesDescription="NO SCORE, please", StudyDate=None)
    old = ct_series(tmp_path / "old", "old", slices=range(4), StudyDate="20010203")

    excluded, prior = route(pacs, out), route(pacs, old)

    assert str(node.reaches(excluded, "NOT_SCORED").reason) == "policy: rule 1 of `score.rules` excludes it"
    assert "days old" in str(node.reaches(prior, "NOT_SCORED").reason)
    assert pacs.reports() == []
    assert pydicom.dcmread(out[0]).SeriesDescription == "NO SCORE, please"
