"""What a hospital sees: images go in by DCMTK, reports come out at Orthanc. One node serves all tests."""

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from support.node import Node
from support.orthanc import Orthanc, evidence_instances, predecessors
from support.proxy import Proxy
from support.senders import Scu, storescu
from support.series import CT_IMAGE, ct_series, refreshed, series_uid, uid, write
from support.siblings import before_release
from support.waiting import need, until

from mediqa_node.dicom.photograph import wrap_photograph
from mediqa_node.domain.health import Heartbeat
from mediqa_node.service import ROLES
from mediqa_node.storage import assessments, constancy_checks, copies, heartbeats

pytestmark = pytest.mark.peers

DATA = Path(__file__).parents[1] / "data"
REFUSE = sorted(path for path in (DATA / "refuse").iterdir() if list(path.glob("*.dcm")))


def send(node: Node, paths: list[Path], *options: str, aet: str = "CT_ROOM_1") -> str:
    """Send files, insist on 0x0000 for each, and return their series."""
    statuses = storescu(node.port, paths, aet=aet, options=options)
    assert statuses == dict.fromkeys(paths, 0x0000)
    return series_uid(paths)


def delivered(node: Node, pacs: Orthanc, series: str) -> pydicom.Dataset:
    """Wait for the end of a series and return its one report."""
    row = node.reaches(series, "DELIVERED", "NOT_SCORED", "WITHHELD", "PARKED")
    assert row.state == "DELIVERED", row.reason
    [report] = pacs.reports_of(series)
    return report


def test_a_ct_series_becomes_exactly_one_sound_report(
    node: Node, pacs: Orthanc, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    need(request.config, "/usr/bin/dsrdump", "/usr/bin/dcentvfy")
    paths = ct_series(tmp_path / "ct", "one report")

    report = delivered(node, pacs, send(node, paths))

    assert evidence_instances(report) == {pydicom.dcmread(path).SOPInstanceUID for path in paths}
    file = tmp_path / "report.dcm"
    pydicom.dcmwrite(file, report)
    dump = subprocess.run(["/usr/bin/dsrdump", str(file)], capture_output=True, text=True, check=False)
    assert dump.returncode == 0
    assert not [line for line in dump.stderr.splitlines() if line.startswith("E:")]
    # dcentvfy: patient and study of the report agree with those of its source
    agree = subprocess.run(["/usr/bin/dcentvfy", str(file), str(paths[0])], capture_output=True, text=True, check=False)
    assert agree.returncode == 0, agree.stderr


@pytest.mark.parametrize(
    "name", [*before_release("ct_sts003_lowdose", "mr_brain_epi_ge750"), "mr_brain_t1_xa30_enhanced"]
)
def test_real_images_of_each_kind_are_reported(node: Node, pacs: Orthanc, name: str) -> None:
    paths = sorted((DATA / name).glob("*.dcm"))

    report = delivered(node, pacs, send(node, paths, aet=name[:16]))

    assert report.StudyInstanceUID == pydicom.dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID


def test_a_fundus_photograph_is_reported(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    photograph = np.asarray(Image.open(DATA / "fundus_chasedb1" / "Image_01L.jpg").convert("RGB"))
    path = tmp_path / "fundus.dcm"
    ds = wrap_photograph(photograph)
    ds.PatientID = "EYE1"
    write(ds, path)

    report = delivered(node, pacs, send(node, [path], aet="FUNDUS_1"))

    assert evidence_instances(report) == {ds.SOPInstanceUID}


def test_images_without_uids_are_refused_and_their_sender_is_told(node: Node, tmp_path: Path) -> None:
    source = min((DATA / "ct_body_totalseg_j2k").glob("*.dcm"))
    ds = pydicom.dcmread(source)
    assert ds.SOPInstanceUID == ""
    ds.file_meta.MediaStorageSOPInstanceUID = uid("without UIDs")
    ds.save_as(nameless := tmp_path / "nameless.dcm")

    with Scu(node.port, [nameless]) as scanner:
        status = scanner.send(nameless)

    assert status == 0xC000


def test_jpeg_2000_is_decoded_and_reported(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    paths = [
        refreshed(
            source,
            tmp_path / source.name,
            SOPInstanceUID=uid("j2k", source.name),
            SeriesInstanceUID=uid("j2k series"),
            StudyInstanceUID=uid("j2k study"),
            PatientID="J2K1",
            SOPClassUID=CT_IMAGE,
        )
        for source in sorted((DATA / "ct_body_totalseg_j2k").glob("*.dcm"))
    ]

    report = delivered(node, pacs, send(node, paths, "-xv", aet="CT_J2K"))

    assert report.PatientID == "J2K1"


def test_what_no_score_could_mean_anything_for_is_kept_and_not_reported(node: Node, pacs: Orthanc) -> None:
    sent = {path.name: send(node, sorted(path.glob("*.dcm")), aet=path.name[:16]) for path in REFUSE}

    ends = {name: node.reaches(series, "NOT_SCORED", "DELIVERED") for name, series in sent.items()}

    assert {name: str(row.state) for name, row in ends.items()} == dict.fromkeys(sent, "NOT_SCORED")
    assert all(row.reason for row in ends.values())
    assert not any(pacs.reports_of(series) for series in sent.values())
    with node.database.read() as connection:
        harvested = {name: assessments.load_technique(connection, series) for name, series in sent.items()}
    assert all(technique is not None for technique in harvested.values()), "refused series are harvested too"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        *before_release(("GB18030", "Wang^XiaoDong=王^小东"), ("ISO_IR 192", "Müller^Zoë=黄^美丽")),
    ],
)
def test_names_in_other_scripts_arrive_unharmed(
    node: Node, pacs: Orthanc, tmp_path: Path, charset: str | list[str], name: str
) -> None:
    paths = ct_series(tmp_path, f"named {name}", charset=charset, patient_name=name, patient_id=f"N{len(name)}")

    report = delivered(node, pacs, send(node, paths))

    assert report.PatientName == pydicom.valuerep.PersonName(name)
    assert report.PatientName.ideographic == name.split("=")[1]


def test_a_late_slice_makes_a_revised_report_that_names_its_predecessor(
    node: Node, pacs: Orthanc, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path, "late slice", slices=range(6))
    first = delivered(node, pacs, send(node, paths[:5], aet="CT_LATE"))

    series = send(node, paths[5:], aet="CT_LATE")

    until(lambda: len(pacs.reports_of(series)) == 2, "the revised report is there")
    old, revised = pacs.reports_of(series)
    assert old.SOPInstanceUID == first.SOPInstanceUID
    assert predecessors(revised) == {first.SOPInstanceUID}
    assert revised.SeriesInstanceUID == first.SeriesInstanceUID
    assert revised.SeriesNumber == first.SeriesNumber
    assert len(evidence_instances(revised)) == 6
    assert node.reaches(series, "DELIVERED").revision == 2


def test_our_own_report_routed_back_is_accepted_and_ignored(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    report = delivered(node, pacs, send(node, ct_series(tmp_path, "routed back")))
    [found] = pacs.find("Series", SeriesInstanceUID=report.SeriesInstanceUID)
    before = len(pacs.reports())

    answer = pacs.send(found["ID"], to="node")

    assert answer["FailedInstancesCount"] == 0
    assert node.reaches(report.SeriesInstanceUID, "NOT_SCORED").reason.code == "own_report"
    assert node.deliveries(report.SeriesInstanceUID) == []
    assert len(pacs.reports()) == before


def test_the_same_series_from_the_pacs_is_scored_once(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    paths = ct_series(tmp_path, "from both")
    series = send(node, paths)
    delivered(node, pacs, series)
    for path in paths:
        pacs.upload(path.read_bytes())
    [found] = pacs.find("Series", SeriesInstanceUID=series)

    pacs.send(found["ID"], to="node")

    def compared() -> bool:
        with node.database.read() as connection:
            return not any(row.series_instance_uid == series for row in copies.candidates(connection))

    until(compared, "the copies are compared")
    row = node.reaches(series, "DELIVERED")
    assert (row.revision, row.n_instances) == (1, 5)
    assert len(pacs.reports_of(series)) == 1


def test_series_of_one_study_get_distinct_series_numbers(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    series = [
        send(node, ct_series(tmp_path / f"{i}", f"sibling {i}", study="siblings", SeriesNumber=9000 if i == 0 else i))
        for i in range(3)
    ]

    found = [delivered(node, pacs, uid_) for uid_ in series]

    numbers = [int(report.SeriesNumber) for report in found]
    assert len(set(numbers)) == 3
    assert 9000 not in numbers, "a number that the study itself uses"
    assert len({report.SeriesInstanceUID for report in found}) == 3


def test_the_worker_proves_its_scores_before_its_first_job(node: Node, pacs: Orthanc, tmp_path: Path) -> None:
    series = send(node, ct_series(tmp_path, "proven"))
    delivered(node, pacs, series)

    with node.database.read() as connection:
        checks = constancy_checks.history(connection, at_most=99)
        first = connection.exec_driver_sql("SELECT min(assessed_at) FROM assessments").scalar_one()

    assert len(checks) == 1, "once for this identity, however often the worker started"
    assert (checks[0].passed, checks[0].compared_with) == (True, "card")
    assert checks[0].checked_at < first


# ── two archives, one of them down ───────────────────────────────────────────


def _both(node: Node, series: str) -> dict[str, str]:
    return {delivery.destination: delivery.state for delivery in node.deliveries(series)}


@pytest.mark.parametrize(("fault", "down_s"), [("stalled", 0), *before_release(("refusing", 0), ("refusing", 60))])
def test_an_archive_that_is_down_delays_no_other_and_gets_its_reports_once_it_is_up(
    two_pacs: tuple[Node, Proxy, Orthanc, Orthanc], tmp_path: Path, fault: str, down_s: float
) -> None:
    node, proxy, well, down = two_pacs
    setattr(proxy, fault, True)
    up_at = time.monotonic() + down_s
    sent = [ct_series(tmp_path / f"{i}", f"down {fault} {down_s} {i}") for i in range(3)]
    for paths in sent:
        assert set(storescu(node.port, paths).values()) == {0}
    series = [series_uid(paths) for paths in sent]

    expected = {"PACS_MAIN": "sent", "OTHER": "waiting"}
    until(lambda: all(_both(node, one) == expected for one in series), "the other has all")
    assert [len(well.reports_of(one)) for one in series] == [1, 1, 1]
    until(lambda: time.monotonic() >= up_at, "the outage is over")
    assert not any(down.reports_of(one) for one in series)

    setattr(proxy, fault, False)
    until(lambda: all(len(down.reports_of(one)) == 1 for one in series), "it has all")
    for one in series:
        node.reaches(one, "DELIVERED")
    assert [len(well.reports_of(one)) for one in series] == [1, 1, 1]


def test_an_archive_whose_answer_was_lost_holds_one_report(
    two_pacs: tuple[Node, Proxy, Orthanc, Orthanc], tmp_path: Path
) -> None:
    node, proxy, _, behind = two_pacs
    proxy.swallow = 1
    paths = ct_series(tmp_path, "answer lost")
    storescu(node.port, paths)

    row = node.reaches(series_uid(paths), "DELIVERED")

    assert proxy.swallowed >= 1
    assert len(behind.reports_of(series_uid(paths))) == 1
    assert {delivery.destination: delivery.attempts for delivery in node.deliveries(row.series_instance_uid)} == {
        "PACS_MAIN": 1,
        "OTHER": 2,
    }
    looked = node.command("verify", "--json")
    assert looked.returncode == 0, looked.stdout


def test_every_process_writes_its_heartbeat(node: Node) -> None:
    def beats() -> dict[str, Heartbeat]:
        with node.database.read() as connection:
            return {beat.role: beat for beat in heartbeats.read_heartbeats(connection)}

    until(lambda: "constancy" in beats()["worker"].sweeps, "the second heartbeat", within_s=30)
    assert set(beats()) == set(ROLES)
    expected = {"companions", "retractions", "copies", "liveness", "retention", "forget", "rounds"}
    slow = {"commands", "slow commands", "trends", "backscore", "backscore jobs"}
    assert set(beats()["courier"].sweeps) == expected | slow
    assert beats()["receiver"].max_associations == 32
    assert json.loads(node.command("status", "--json").stdout)["concerns"] == []


def test_status_says_that_all_is_well_and_verify_finds_nothing(node: Node) -> None:
    looked = node.command("verify", "--json")

    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert '"problems": []' in looked.stdout
