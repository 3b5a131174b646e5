"""A whole node on a hospital's network: reports by DICOMweb, old series pulled, its reports found and retrieved."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from support.command import run_in
from support.node import Node
from support.orthanc import Orthanc
from support.senders import storescu
from support.series import ct_series, series_uid
from support.waiting import free_port, need, until

pytestmark = pytest.mark.acceptance
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


@pytest.fixture
def archive(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    need(request.config, "/usr/sbin/Orthanc", "/usr/bin/findscu", "/usr/bin/storescp")
    if not Path(PLUGIN).exists():
        pytest.skip("needs orthanc-dicomweb: apt-get install orthanc-dicomweb")
    running = Orthanc(tmp_path / "orthanc").start(Plugins=[PLUGIN])
    yield running
    running.stop()


def test_a_series_is_reported_pulled_found_and_retrieved(archive: Orthanc, tmp_path: Path) -> None:
    viewer_port = free_port()
    address = {"host": "127.0.0.1"}
    node = Node(
        tmp_path / "node",
        peers={
            "WEB": {"dicomweb": {"url": f"http://127.0.0.1:{archive.http_port}/dicom-web"}},
            "PACS": {"ae_title": archive.ae_title, "port": archive.dicom_port, **address},
            "VIEWER": {"ae_title": "VIEWER", "port": viewer_port, **address},
        },
        returns=[{"to": ["WEB"]}],
        receiver={"query": True},
    )
    archive.knows("node", "MEDIQA", node.port)
    live, old = ct_series(tmp_path / "live", "live"), ct_series(tmp_path / "old", "old", StudyDate="20190102")
    for path in old:
        archive.upload(path.read_bytes())
    node.start()
    try:
        assert set(storescu(node.port, live).values()) == {0x0000}
        [report] = until(lambda: archive.reports_of(series_uid(live)), "the report is in the archive")

        pulled = run_in(node.folder, "pull", "--peer", "PACS", "--since", "2019-01-01", "--until", "2019-01-03")
        assert pulled.returncode == 0, pulled.stderr
        until(lambda: node.series(series_uid(old)).state == "ASSESSED", "what was pulled is scored")
        assert str(node.series(series_uid(old)).reason) == "pulled from an archive, never reported"
        assert archive.reports_of(series_uid(old)) == []
        assert run_in(node.folder, "echo", "WEB").returncode == 0

        retrieved = retrieve(node, tmp_path / "viewer", viewer_port, str(report.StudyInstanceUID))
        assert [ds.SOPInstanceUID for ds in retrieved] == [report.SOPInstanceUID]
    finally:
        node.close()


def retrieve(node: Node, folder: Path, port: int, study: str) -> list[pydicom.Dataset]:
    """Find a study at the node and have it sent to a viewer; return what the viewer got."""
    folder.mkdir()
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    where = ["127.0.0.1", str(node.port)]
    found = subprocess.run(
        ["/usr/bin/findscu", "-S", "-aec", "MEDIQA", *keys, *where], capture_output=True, text=True, check=True
    )
    assert found.stderr.count("Find Response:") == 1
    viewer = subprocess.Popen(["/usr/bin/storescp", "-aet", "VIEWER", "-od", folder, str(port)], env=ENVIRONMENT)
    try:
        command = ["/usr/bin/movescu", "-S", "-aet", "VIEWER", "-aec", "MEDIQA", "-aem", "VIEWER", *keys, *where]
        until(lambda: subprocess.run(command, env=ENVIRONMENT, check=False).returncode == 0 and any(folder.iterdir()),
              "the viewer has the report")  # fmt: skip
    finally:
        viewer.terminate()
        viewer.wait(timeout=60)
    return [pydicom.dcmread(path) for path in folder.iterdir()]
