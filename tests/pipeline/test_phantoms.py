"""A series that the site names a phantom is measured instead of scored."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from support.bench import Bench
from support.series import ct_series, reject_note, series_uid
from typer.testing import CliRunner

from mediqa_node.cli.constancy import app
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import ScorePolicy
from mediqa_node.domain.rules import PhantomRule
from mediqa_node.pipeline.sweeps import retain
from mediqa_node.storage import assessments, phantoms

WATER = PhantomRule(name="water, daily", station="^CT_ROOM_1$", patient_id="^QA")
NOBODY = Peer(name="PACS", ae_title="P", host="127.0.0.1", port=1)
QC = Peer(name="QC", ae_title="QC", host="127.0.0.1", port=1, authority=True)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """The stations, with a rule for the water phantom and a destination for everything."""
    made = Bench(tmp_path / "node", peers=[NOBODY, QC], score=ScorePolicy(phantoms=(WATER,)))
    yield made
    made.close()


def phantom_series(folder: Path, name: str, *, noise: float = 8.0, mean: float = 0.0, **changes: Any) -> list[Path]:
    """Nine slices of a round water phantom, under a header that says QA."""
    changes = {"patient_id": "QA-WATER", "size_px": 128, **changes}
    paths = ct_series(folder, name, slices=range(9), **changes)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    for number, path in enumerate(paths):
        ds = pydicom.dcmread(path)
        random = np.random.default_rng(number)
        water = np.where(np.hypot(x, y) < 0.8, mean, -1000.0) + random.normal(0, noise, x.shape)
        ds.PixelData = np.rint(water).astype("<i2").tobytes()
        ds.save_as(path)
    return paths


def received(bench: Bench, paths: list[Path], *, aet: str = "CT_ROOM_1") -> str:
    bench.receive_all(paths, association=f"{paths[0].parent.name} of {aet}", aet=aet)
    bench.pass_time(15)
    return series_uid(paths)


def test_a_series_of_the_phantom_gets_three_numbers_and_no_report(bench: Bench, tmp_path: Path) -> None:
    uid = received(bench, phantom_series(tmp_path / "qa", "qa", mean=1.0))

    row = bench.series(uid)
    with bench.database.read() as connection:
        [measured] = phantoms.trend(connection)
        technique = assessments.load_technique(connection, uid)
    assert row.state == "NOT_SCORED"
    assert str(row.reason) == (
        f"phantom: mean {measured.mean:.1f} HU, noise {measured.noise:.1f} HU, uniformity {measured.uniformity:.1f} HU"
    )
    assert measured.mean == pytest.approx(1.0, abs=0.3)
    assert measured.noise == pytest.approx(8.0, rel=0.03)
    assert (measured.station_name, measured.rule, measured.modality) == ("CT_ROOM_1", "water, daily", "CT")
    assert measured.acquired_at == "2026-11-20 10:15:00"
    assert technique.tube_charge_mas is not None, "its dose is harvested all the same"
    assert bench.deliveries(uid) == []
    assert bench.scorer.scored == 0


def test_a_phantom_that_its_header_names_is_measured_if_the_site_names_it_too(bench: Bench, tmp_path: Path) -> None:
    known = received(bench, phantom_series(tmp_path / "known", "known", SeriesDescription="Water phantom"))
    strange = received(
        bench, phantom_series(tmp_path / "strange", "strange", SeriesDescription="Phantom", patient_id="X1")
    )

    reason = bench.series(known).reason
    assert (reason.code, reason.detail[:5]) == ("phantom", "mean ")
    reason = bench.series(strange).reason
    assert (reason.code, reason.detail[:9]) == ("phantom", "'Phantom'")
    assert "in a description" in reason.detail


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SeriesDescription": "Scout"}, "localizer: "),
        ({"Modality": "OP", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.5.1"}, "phantom: series of modality OP"),
    ],
    ids=["a scout of the phantom", "a photograph"],
)
def test_what_cannot_be_measured_says_why(
    bench: Bench, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    uid = received(bench, phantom_series(tmp_path / "qa", "qa", **changes))

    assert bench.series(uid).state == "NOT_SCORED"
    assert str(bench.series(uid).reason).startswith(reason)
    with bench.database.read() as connection:
        assert phantoms.trend(connection) == []


def test_a_rule_that_finds_a_patient_measures_nothing_and_says_so(bench: Bench, tmp_path: Path) -> None:
    uid = received(bench, ct_series(tmp_path / "oval", "oval", patient_id="QA1"))

    reason = bench.series(uid).reason
    assert reason.code == "phantom"
    assert "not measured on any of 5 slices: no round phantom" in reason.detail


def test_every_pattern_of_a_rule_must_be_found(bench: Bench, tmp_path: Path) -> None:
    elsewhere = received(bench, phantom_series(tmp_path / "room2", "room2", StationName="CT_ROOM_2"))

    assert bench.series(elsewhere).state == "ASSESSED"


def test_a_late_slice_replaces_the_measurement(bench: Bench, tmp_path: Path) -> None:
    paths = phantom_series(tmp_path / "qa", "qa")
    received(bench, paths[:8])
    received(bench, paths[8:])

    with bench.database.read() as connection:
        assert len(phantoms.trend(connection)) == 1


def trend(bench: Bench) -> list[str]:
    with bench.database.read() as connection:
        return [row.series_instance_uid for row in phantoms.trend(connection)]


def test_a_phantom_that_was_rejected_leaves_the_trend_and_one_whose_source_is_purged_stays(
    bench: Bench, tmp_path: Path
) -> None:
    rejected, kept = (phantom_series(tmp_path / name, name) for name in ("rejected", "kept"))
    for paths in (rejected, kept[:8]):
        received(bench, paths)

    received(bench, [reject_note(tmp_path / "note.dcm", rejected)], aet="QC")
    bench.now += 90 * 86400
    assert retain(bench.node) > 8
    received(bench, kept[8:])

    assert bench.series(series_uid(rejected)).reason.code == "rejected"
    assert bench.series(series_uid(kept)).reason.code == "purged"
    assert trend(bench) == [series_uid(kept)]


def test_a_series_that_is_a_patients_after_all_leaves_the_trend(bench: Bench, tmp_path: Path) -> None:
    paths = phantom_series(tmp_path / "qa", "qa")
    uid = received(bench, paths)
    assert trend(bench) == [uid]

    for path in paths:
        ds = pydicom.dcmread(path)
        ds.PatientID = "X1"
        ds.save_as(path)
    received(bench, paths, aet="QC")

    assert bench.series(uid).state == "ASSESSED"
    assert trend(bench) == []


def test_a_phantom_under_two_names_waits_for_a_person_and_is_not_measured(bench: Bench, tmp_path: Path) -> None:
    paths = phantom_series(tmp_path / "qa", "qa")
    uid = received(bench, paths[:8])
    ds = pydicom.dcmread(paths[8])
    ds.PatientID = "X1"
    ds.save_as(paths[8])

    received(bench, paths[8:])

    row = bench.series(uid)
    assert (row.state, row.reason.code) == ("WITHHELD", "identity")
    assert trend(bench) == []


def test_a_disc_that_the_image_cuts_off_is_no_measurement_and_no_fault(bench: Bench, tmp_path: Path) -> None:
    paths = phantom_series(tmp_path / "qa", "qa")
    for path in paths:
        ds = pydicom.dcmread(path)
        shifted = np.roll(np.where(np.arange(128) < 100, ds.pixel_array, -1000), 28, axis=1)
        ds.PixelData = shifted.astype("<i2").tobytes()
        ds.save_as(path)

    uid = received(bench, paths)

    assert bench.series(uid).state == "NOT_SCORED"
    assert "cut off" in str(bench.series(uid).reason)


def test_the_trend_is_listed_by_station(bench: Bench, tmp_path: Path) -> None:
    for day, noise in (("20261120", 8.0), ("20261121", 9.0), ("20261122", 30.0)):
        received(bench, phantom_series(tmp_path / day, day, noise=noise, AcquisitionDate=day))
    (tmp_path / "node.yaml").write_text(f"database: {{url: '{bench.database.url}'}}\n")
    command = ["-c", str(tmp_path / "node.yaml"), "constancy", "--phantoms"]

    shown, plain = (CliRunner().invoke(app, [*command, *more]) for more in ([], ["--json"]))

    head, _, *rows = shown.stdout.splitlines()
    assert head == "CT_ROOM_1: water, daily, CT"
    assert [row.split()[0] for row in rows] == ["2026-11-20", "2026-11-21", "2026-11-22"]
    assert [round(row["noise"]) for row in json.loads(plain.stdout)] == [8, 9, 30]
