"""A whole node: a modality announces, an archive commits, a caller is told; processes are killed in between."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pynetdicom import AE
from support.archive import references
from support.node import QUICK, Node
from support.orthanc import Orthanc
from support.senders import storescu
from support.series import ct_series, series_uid
from support.waiting import need, until

MPPS = "1.2.840.10008.3.1.2.3.3"
STEP = "1.2.826.0.1.3680043.9.77"

pytestmark = [pytest.mark.peers, pytest.mark.acceptance]


@pytest.fixture
def pacs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    need(request.config, "/usr/sbin/Orthanc", "/usr/bin/storescu")
    running = Orthanc(tmp_path / "orthanc").start()
    yield running
    running.stop()


@pytest.fixture
def node(tmp_path: Path, pacs: Orthanc) -> Iterator[Node]:
    peer = {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port, "commitment": True}
    made = Node(
        tmp_path / "node",
        peers={"PACS": peer},
        receiver={"commit_with": "PACS", "mpps": True},
        delivery=QUICK["delivery"] | {"commitment_within_s": 3},
        completion={"quiet_after_s": 600, "forced_after_s": 900},
    )
    pacs.knows("node", "MEDIQA", made.port)
    made.start()
    yield made
    made.close()


@contextmanager
def modality(node: Node) -> Iterator[Any]:
    entity = AE(ae_title="CT_ROOM_1")
    entity.add_requested_context(MPPS)
    association = entity.associate("127.0.0.1", node.port, ae_title="MEDIQA")
    assert association.is_established
    yield association
    association.release()


def test_a_step_completes_a_series_and_its_report_is_confirmed(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "confirmed", slices=[0, 3, 4])
    series = series_uid(paths)
    begun = Dataset()
    begun.PerformedProcedureStepStatus = "IN PROGRESS"
    with modality(node) as association:
        status, _ = association.send_n_create(begun, MPPS, STEP)
        assert status.Status == 0x0000
    assert storescu(node.port, paths) == dict.fromkeys(paths, 0x0000)
    node.kill("receiver")
    until(node.answers_echo, "the receiver is back")
    ended, one = Dataset(), Dataset()
    ended.PerformedProcedureStepStatus = "COMPLETED"
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in paths]
    one.SeriesInstanceUID = series
    one.ReferencedImageSequence = references({("1.2.840.10008.5.1.4.1.1.2", uid): None for uid in uids})
    ended.PerformedSeriesSequence = [one]
    with modality(node) as association:
        status, _ = association.send_n_set(ended, MPPS, STEP)
        assert status.Status == 0x0000

    assert node.reaches(series, "CONFIRMED").completion == "announced"
    shown = node.command("status")
    assert "confirmed" in shown.stdout


def test_a_caller_is_told_although_processes_die(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    for path in ct_series(tmp_path / "ct", "asked", slices=range(3)):
        pacs.upload(path.read_bytes())
    [series] = [entry["ID"] for entry in pacs.find("Series")]
    asked = pacs.post("/modalities/node/storage-commitment", {"Resources": [series]})
    node.kill("courier")
    node.kill("receiver")

    until(lambda: pacs.get(asked["Path"])["Status"] == "Success", "Orthanc is told")
    assert len(pacs.get(asked["Path"])["Success"]) == 3
