"""An archive that is reached by DICOMweb alone: Orthanc's plugin."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from support.bench import Bench
from support.orthanc import Orthanc, dataset_digest
from support.series import ct_series, series_uid

from mediqa_node.domain.peer import DicomWeb, Peer
from mediqa_node.domain.policy import CompanionRules
from mediqa_node.network.sender import open_link
from mediqa_node.pipeline.checks.verify import verify
from mediqa_node.storage import companions, outbox

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture
def archive(peer: Callable[[str], str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    peer("Orthanc")
    if not PLUGIN.exists():
        reason = "needs orthanc-dicomweb: apt-get install orthanc-dicomweb"
        (pytest.fail if request.config.getoption("--require-peers") else pytest.skip)(reason)
    running = Orthanc(tmp_path / "orthanc")
    yield running.start(Plugins=[str(PLUGIN)])
    running.stop()


def web(archive: Orthanc) -> Peer:
    """Return the archive as a peer that has no AE title."""
    return Peer(name="WEB", dicomweb=DicomWeb(url=f"http://127.0.0.1:{archive.http_port}/dicom-web"))


def assessed(bench: Bench, paths: list[Path]) -> str:
    bench.receive_all(paths)
    bench.now += 3
    bench.complete_series()
    bench.work()
    return series_uid(paths)


def test_report_and_companions_arrive_as_built_and_under_the_patient_who_is_there(
    archive: Orthanc, tmp_path: Path
) -> None:
    mine, other = ct_series(tmp_path / "mine", "mine"), ct_series(tmp_path / "other", "other")
    archive.upload(mine[0].read_bytes())
    changed = pydicom.dcmread(other[0])
    changed.PatientID = "SOMEBODY ELSE"
    changed.save_as(tmp_path / "changed.dcm")
    archive.upload((tmp_path / "changed.dcm").read_bytes())
    bench = Bench(tmp_path / "bench", peers=[web(archive)], companions=CompanionRules(secondary_capture=True))

    series, withheld = assessed(bench, mine), assessed(bench, other)

    [delivery], [held] = bench.deliveries(series), bench.deliveries(withheld)
    assert (delivery.state, delivery.message) == ("sent", None)
    assert (held.state, held.reason_code) == ("withheld", "other_identity")
    with bench.database.read() as connection:
        [report] = outbox.reports_at(connection, series, "WEB")
        pictures = companions.find(connection, series, 1, "1.2.840.10008.5.1.4.1.1.7")
    sent = [report.part10, *(one.part10 for one in pictures)]
    kept = [archive.file(one["ID"]) for one in archive.find("Instance") if one["MainDicomTags"]["SOPInstanceUID"] in
            {report.sop_instance_uid, *(one.sop_instance_uid for one in pictures)}]  # fmt: skip
    assert len(sent) > 1
    assert {dataset_digest(one) for one in kept} == {dataset_digest(one) for one in sent}

    with open_link(web(archive), [], ae_title="MEDIQA") as link:
        link.verify()
        patient_id = str(pydicom.dcmread(mine[0]).PatientID)
        assert report.sr_series_instance_uid in link.find_series(report.study_instance_uid, patient_id)
        assert link.has_instance("1.2.3", "1.2.3.4", "1.2.3.4.5") is False
    assert verify(bench.node, ask_peers=True, advance=lambda *_: None).problems == ()
    bench.close()
