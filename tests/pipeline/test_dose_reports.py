"""A dose report labels the images of its own patient, as long as it is in use."""

from pathlib import Path
from typing import Any

import pytest
from dicom.test_dose_sr import PER_ROTATION, container, event, num, report
from pipeline.test_corrections import settle
from support.bench import Bench
from support.corrections import SCANNER, Make
from support.series import ct_series, reject_note, series_uid, uid, write

from mediqa_node.domain.series import CopyDecision
from mediqa_node.pipeline.offline import score_paths
from mediqa_node.storage import assessments

UNLABELLED: dict[str, Any] = {"XRayTubeCurrent": None, "ExposureTime": None, "Exposure": None}


def dose_report(path: Path, number: int, tube_current_ma: float, *, patient_id: str = "SYN001") -> Path:
    """Write a dose report of the study `s` and the event `e`: half as many mAs as mA."""
    source = container(
        "113831",
        "CT X-Ray Source Parameters",
        num("113733", "KVP", 120, "kV"),
        num("113734", "X-Ray Tube Current", tube_current_ma, "mA"),
        PER_ROTATION,
    )
    ds = report(event(uid("event", "e"), source, pitch=1.0))
    ds.SOPInstanceUID, ds.SeriesInstanceUID = uid("dose", number), uid("doses", number)
    ds.StudyInstanceUID, ds.Modality, ds.InstanceNumber = uid("study", "s"), "SR", 1
    ds.PatientID, ds.PatientName = patient_id, "Wasser^Anna"
    write(ds, path)
    return path


def images(folder: Path, name: str = "x", **changes: Any) -> list[Path]:
    return ct_series(folder, name, study="s", event="e", slices=range(9), size_px=32, **UNLABELLED, **changes)


def tube_charge(bench: Bench, paths: list[Path]) -> float | None:
    with bench.database.read() as connection:
        technique = assessments.load_technique(connection, series_uid(paths))
    assert technique is not None
    return technique.tube_charge_mas


@pytest.fixture
def bench(make: Make) -> Bench:
    return make()


def test_the_newest_dose_report_in_use_labels_the_images(bench: Bench, tmp_path: Path) -> None:
    bench.receive_all(paths := images(tmp_path / "a"), **SCANNER)

    def after(*files: Path) -> float | None:
        bench.receive_all(files, association=str(files), **SCANNER)
        bench.pass_time(30, step_s=5)
        return tube_charge(bench, paths)

    first, second = dose_report(tmp_path / "1", 1, 300), dose_report(tmp_path / "2", 2, 150)
    assert after(first) == 150
    assert after(second) == 75
    assert after(reject_note(tmp_path / "n2", [second])) == 150, "the first one is in use still"
    assert after(reject_note(tmp_path / "n1", [first])) is None
    assert after(dose_report(tmp_path / "3", 3, 200)) == 100


def test_a_decision_for_another_dose_report_changes_the_label(bench: Bench, tmp_path: Path) -> None:
    bench.receive_all([*(paths := images(tmp_path / "a")), dose_report(tmp_path / "1", 1, 300)], **SCANNER)
    bench.pass_time(30, step_s=5)
    bench.receive_all([dose_report(tmp_path / "2", 1, 150)], association="a2", **SCANNER)
    bench.pass_time(30, step_s=5)
    assert tube_charge(bench, paths) == 150

    settle(bench, uid("doses", 1), CopyDecision.KEEP_LAST)
    bench.pass_time(30, step_s=5)

    assert tube_charge(bench, paths) == 75


def test_a_dose_report_labels_its_own_patient_only(bench: Bench, tmp_path: Path) -> None:
    patients = {"P1": 300.0, "P2": 150.0, "P3": None}
    folders = {one: images(tmp_path / one, one, patient_id=one) for one in patients}
    doses = [
        dose_report(tmp_path / f"d{one}", i, ma, patient_id=one) for i, (one, ma) in enumerate(patients.items()) if ma
    ]
    for i, paths in enumerate((doses, *folders.values())):
        bench.receive_all(paths, association=str(i), **SCANNER)
    bench.pass_time(30, step_s=5)

    assert [tube_charge(bench, paths) for paths in folders.values()] == [150, 75, None]
    assessor = bench.node.assessor
    assert assessor is not None
    scored, _ = score_paths([tmp_path], assessor=lambda: assessor, advance=lambda done, total: None)
    labels = {
        one["series_instance_uid"]: one["technique"]["tube_charge_mas"] for one in scored if one["modality"] == "CT"
    }
    assert [labels[series_uid(paths)] for paths in folders.values()] == [150, 75, None], "files score alike"
