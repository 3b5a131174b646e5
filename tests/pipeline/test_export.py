"""An export, from received images to files that leave: what is in them, and above all what is not."""

import csv
import gzip
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pipeline.test_corrections import settle
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from support.bench import Bench, StandInScorer
from support.scripted import scripted
from support.series import ct_series, refreshed, reject_note, series_uid
from support.series import write as save
from support.siblings import before_release, one_in

from mediqa_node.composition import checkpoints
from mediqa_node.config import Settings
from mediqa_node.dicom.deidentify.instance import deidentify
from mediqa_node.dicom.deidentify.pseudonyms import Pseudonyms
from mediqa_node.dicom.photograph import wrap_photograph
from mediqa_node.dicom.pixels import to_image
from mediqa_node.domain.errors import ConfigurationError, StorageFailed
from mediqa_node.domain.export import PAYLOADS, ExportRequest, ExportSummary
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.rating import Rating
from mediqa_node.domain.rules import ReturnRule
from mediqa_node.domain.series import CopyDecision
from mediqa_node.exchange.splits import split_of
from mediqa_node.image.preprocess import preprocess
from mediqa_node.pipeline.export.export import export
from mediqa_node.pipeline.export.select import ExportSource
from mediqa_node.storage import ratings
from training.data.manifest import read_manifest

DATA = Path(__file__).parents[1] / "data"
KEYS = Pseudonyms(b"e" * 32)
Row = dict[str, str]
BLOCK = 0x0029


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "node")
    yield made
    made.close()


def source(bench: Bench, keys: Pseudonyms = KEYS) -> ExportSource:
    return ExportSource(
        database=bench.database,
        spool=bench.spool,
        prompts=checkpoints.prompt_rules(Settings()),
        pseudonyms=keys,
        spec=lambda: StandInScorer.spec,
        software_version="0.1.0",
    )


def receive(bench: Bench, *series: list[Path], aet: str = "CT_ROOM_1") -> None:
    for paths in series:
        bench.receive_all(paths, association=str(paths[0].parent), aet=aet)
    bench.pass_time(40, step_s=5)


def write(bench: Bench, out: Path, *, replace: bool = False, **asked: Any) -> ExportSummary:
    return export(source(bench), ExportRequest(**asked), out, replace=replace, advance=lambda *_: None)


def table(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def patient(folder: Path, name: str, **changes: Any) -> list[Path]:
    return ct_series(folder / name, name, slices=range(9), size_px=32, patient_id=name, **changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ── identifiers ──────────────────────────────────────────────────────────────

SECRETS = (
    "Zwiebelfisch", "Quirin", "QX77231", "19431217", "1943-12-17", "20250309", "2025-03-09", "171559", "ACC99173",
    "Hohenfels", "Sauerampfer", "1.2.840.99173",
)  # fmt: skip


def plant(ds: Dataset) -> None:
    """Put names, numbers and dates wherever a site, a vendor or a converter might."""
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Zwiebelfisch^Quirin", "QX77231", "19431217"
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = "ACC99173", "QX77231", "Sauerampfer^Ada"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20250309"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "171559"
    ds.AcquisitionDateTime = "20250309171559"
    for keyword in (
        "InstitutionName", "InstitutionalDepartmentName", "StationName", "StudyDescription", "SeriesDescription",
        "ProtocolName", "PatientComments", "ImageComments", "AdditionalPatientHistory", "DeviceSerialNumber",
        "PerformedProcedureStepDescription", "RequestedProcedureDescription", "DerivationDescription", "Occupation",
        "ContrastBolusAgent", "ConvolutionKernel", "FilterType", "BodyPartExamined", "ScanOptions",
        "ManufacturerModelName", "SoftwareVersions", "FrameComments", "RescaleType",
    ):  # fmt: skip
        setattr(ds, keyword, "Hohenfels"[:16])
    ds.ManufacturerModelName, ds.SoftwareVersions, ds.RescaleType = "Zwiebelfisch CT", "V Quirin", "HU"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "QUIRIN"]
    ds.OperatorsName, ds.PerformingPhysicianName, ds.OtherPatientIDs = "Sauerampfer^Ada", "Quirin", "QX77231"
    ds.DeviceUID = ds.FrameOfReferenceUID = "1.2.840.99173.1"
    deepest, middle, item = Dataset(), Dataset(), Dataset()
    for place in (deepest, middle, item):
        place.PatientName, place.FrameComments, place.InstitutionName = "Zwiebelfisch^Quirin", "Quirin", "Hohenfels"
        place.IrradiationEventUID, place.ContentDate, place.KVP = "1.2.840.99173.2", "19431217", 120
        place.private_block(BLOCK, "VENDOR", create=True).add_new(0x01, "LO", "Zwiebelfisch")
    middle.CTExposureSequence = Sequence([deepest])
    item.SharedFunctionalGroupsSequence = Sequence([middle])
    ds.UnassignedSharedConvertedAttributesSequence = Sequence([item])
    ds.RequestAttributesSequence = Sequence([item])
    block = ds.private_block(BLOCK, "Zwiebelfisch GmbH", create=True)
    block.add_new(0x10, "LO", "Quirin")
    block.add_new(0x11, "SQ", Sequence([item]))
    ds.add_new(0x60003000, "OW", b"Zwiebelfisch")
    ds.add_new(0x60000022, "LO", "Quirin")
    ds.add_new(0x00282000, "OB", b"Zwiebelfisch")
    ds.add_new(0xFFFCFFFC, "OB", b"Quirin")


def unpacked(name: str, content: bytes, folder: Path) -> bytes:
    if name.endswith(".gz"):
        return content + gzip.decompress(content)
    if name.endswith(".npz"):
        with zipfile.ZipFile(folder / name) as file:
            return content + b"".join(file.read(one) for one in file.namelist())
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        return content + json.dumps(pq.read_table(folder / name).to_pylist()).encode()
    return content


def test_no_planted_name_number_or_date_is_in_any_byte_of_any_payload(bench: Bench, tmp_path: Path) -> None:
    paths = patient(tmp_path / "in", "QX77231")
    for path in paths:
        ds = pydicom.dcmread(path)
        plant(ds)
        ds.save_as(path)
    receive(bench, paths)
    uid = series_uid(paths)
    rated = Rating(series_instance_uid=uid, reader_id="Sauerampfer", score=3, scale_min=0, scale_max=4,
                   scale_direction="higher_better", comment="Quirin", study_id="Hohenfels", read_at="2025-03-09",
                   reader_group="Hohenfels", display_window="Quirin", session="Quirin")  # fmt: skip
    with bench.database.write() as connection:
        ratings.save_import(connection, [rated], sha256="0" * 64, by="Quirin", at=bench.now)
    uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths]

    for payload in PAYLOADS:
        out = tmp_path / payload
        write(bench, out, payload=payload, eligible_only=False, faces=True)

        files = contents(out)
        assert len([name for name in files if name.startswith("images/")]) == {"refs": 0, "dicom": 9}.get(payload, 1)
        assert table(out / "annotations.csv")[0]["score"] == "3.0"
        for name, content in files.items():
            whole = unpacked(name, content, out)
            for secret in (*SECRETS, uid, *uids):
                for spelled in (secret, secret.upper(), secret.lower()):
                    found = [code for code in ("utf-8", "utf-16-le") if spelled.encode(code) in whole]
                    assert not found, f"{spelled} in {name} of {payload}"


def test_texts_of_the_manifest_hold_no_name_or_number_of_the_patient(bench: Bench, tmp_path: Path) -> None:
    receive(
        bench,
        patient(tmp_path / "in", "48213", patient_name="SHARP^TIM", BodyPartExamined="TIM SHARP 48213", kernel="48213"),
    )

    write(bench, tmp_path / "out")

    [row] = table(tmp_path / "out" / "manifest.csv")
    assert (row["body_part_raw"], row["kernel"], row["manufacturer"]) == ("", "", "ACME")


def test_what_hides_in_a_compressed_stream_or_in_unused_bits_does_not_leave(bench: Bench, tmp_path: Path) -> None:
    [path] = sorted((DATA / "ct_body_totalseg_j2k").glob("*.dcm"))[:1]
    hidden = []
    for n in range(7):
        copy = refreshed(
            path, tmp_path / "j2k" / f"{n}.dcm", SOPInstanceUID=f"2.25.10{n}", SeriesInstanceUID="2.25.9",
            StudyInstanceUID="2.25.8", PatientID="J2K",
            SOPClassUID="1.2.840.10008.5.1.4.1.1.2", ImagePositionPatient=[0, 0, 5.0 * n],
        )  # fmt: skip
        ds = pydicom.dcmread(copy)
        [frame] = pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)
        comment = b"\x00\x01Zwiebelfisch"
        size = b"\xff\x51" + frame[4:6]  # SIZ comes first; a comment may follow it
        end = 2 + 2 + int.from_bytes(size[2:4], "big")
        marked = frame[:end] + b"\xff\x64" + (len(comment) + 2).to_bytes(2, "big") + comment + frame[end:]
        ds.PixelData = encapsulate([marked])
        ds.save_as(copy)
        assert b"Zwiebelfisch" in copy.read_bytes()
        hidden.append(copy)
    receive(bench, hidden)

    write(bench, tmp_path / "out", payload="dicom", eligible_only=False, faces=True)

    left = sorted((tmp_path / "out" / "images").rglob("*.dcm"))
    assert len(left) == 7
    assert not any(b"Zwiebelfisch" in one.read_bytes() for one in left)
    before, after = pydicom.dcmread(path), pydicom.dcmread(left[0])
    assert (to_image(before.pixel_array, before, None) == to_image(after.pixel_array, after, None)).all()


@pytest.mark.parametrize("payload", one_in(2, PAYLOADS))
@pytest.mark.parametrize(
    "screen",
    [{"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, *before_release({"SeriesDescription": "Screen save", "KVP": 100})],
)
def test_a_screen_among_the_slices_does_not_leave(
    bench: Bench, tmp_path: Path, payload: str, screen: dict[str, Any]
) -> None:
    paths = patient(tmp_path / "in", "P1")
    refreshed(paths[8], paths[8], PixelData=np.full((32, 32), 31234, np.int16).tobytes(), **screen)
    receive(bench, paths)

    write(bench, tmp_path / "out", payload=payload, eligible_only=False)

    [row] = table(tmp_path / "out" / "manifest.csv")
    assert (row["n_instances"], row["n_slices"]) == ("8", "8")
    if payload == "dicom":
        images = [pydicom.dcmread(path).pixel_array for path in (tmp_path / "out" / "images").rglob("*.dcm")]
    elif payload == "npz":
        images = list(np.load(tmp_path / "out" / row["relative_path"])["slices"])
    elif payload == "nifti":
        images = [np.asarray(nibabel.load(tmp_path / "out" / row["relative_path"]).dataobj)]
    else:
        return
    assert images
    assert max(image.max() for image in images) < 31234


# ── what an export says ──────────────────────────────────────────────────────


def test_the_trainer_reads_what_was_exported(bench: Bench, tmp_path: Path) -> None:
    receive(bench, patient(tmp_path / "in", "P1", Exposure=80, XRayTubeCurrent=160), patient(tmp_path / "in", "P2"))

    summary = write(bench, tmp_path / "out", payload="npz")

    rows = read_manifest(tmp_path / "out")
    assert summary.n_series == len(rows) == 2
    assert sorted(row.label_value or 0 for row in rows) == [80.0, 100.0]
    assert {(row.label_name, row.modality, row.payload_kind, row.eligible) for row in rows} == {
        ("mas", "CT", "npz", True)
    }
    assert all(len(row.paths) == 1 and row.paths[0].suffix == ".npz" for row in rows)


def test_an_npz_holds_the_node_s_own_slices_and_network_input(bench: Bench, tmp_path: Path) -> None:
    paths = patient(tmp_path / "in", "P1")
    receive(bench, paths)

    write(bench, tmp_path / "out", payload="npz")

    [row] = table(tmp_path / "out" / "manifest.csv")
    headers = [pydicom.dcmread(path) for path in paths]
    slices = [to_image(ds.pixel_array, ds, None) for ds in headers[1:8]]  # 7 of 9: the middle of equal regions
    with np.load(tmp_path / "out" / row["relative_path"], allow_pickle=False) as found:
        wanted = [list(found["positions_mm"]).index(5.0 * n) for n in range(9) if 5.0 * n in found["positions_mm"]]
        shown = [to_image(headers[round(z / 5)].pixel_array, headers[0], None) for z in found["positions_mm"]]
        inputs = preprocess(shown, StandInScorer.spec, modality="CT", image_type=row["prompt_type"])
        assert wanted == list(range(7))
        assert len(slices) == 7
        assert found["slices"].dtype == np.int16
        assert (found["slices"] == np.stack(shown)).all()
        assert (found["images"] == inputs.images[:, :1]).all()
        assert found["views"].tolist()[0] == [0, 0, 0, 32, 32]
        assert found["tube_charge_mas"].tolist() == [100.0] * 7
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert provenance["preprocessing"] == StandInScorer.spec.fingerprint()


@pytest.mark.parametrize("payload", one_in(2, PAYLOADS))
def test_the_same_node_gives_the_same_bytes(bench: Bench, tmp_path: Path, payload: str) -> None:
    receive(bench, patient(tmp_path / "in", "P1"), patient(tmp_path / "in", "P2"))

    first = write(bench, tmp_path / "one", payload=payload)
    bench.now += 86_400
    second = write(bench, tmp_path / "two", payload=payload)

    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert first.export_id == second.export_id
    sums = (tmp_path / "one" / "SHA256SUMS").read_text().splitlines()
    files = contents(tmp_path / "one")
    assert {line[66:]: line[:64] for line in sums} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "SHA256SUMS"
    }


def test_over_incremental_exports_no_patient_moves_and_splits_share_nobody(bench: Bench, tmp_path: Path) -> None:
    seen: dict[str, str] = {}
    for number, patients in enumerate([range(5), range(5, 8), range(3, 11)]):
        batch = [patient(tmp_path / f"in{number}", f"P{n}", study=f"{number} {n}") for n in patients]
        for paths, n in zip(batch, patients, strict=True):
            for path in paths:  # further series of known patients
                ds = pydicom.dcmread(path)
                ds.SeriesInstanceUID = f"2.25.7{number}{n}"
                ds.SOPInstanceUID = f"2.25.7{number}{n}9{ds.InstanceNumber}"
                ds.FrameOfReferenceUID = f"2.25.8{number}{n}"
                ds.PixelData = (ds.pixel_array + number).tobytes()
                ds.save_as(path)
        receive(bench, *batch)
        write(bench, tmp_path / f"out{number}")

        rows = table(tmp_path / f"out{number}" / "manifest.csv")
        for row in rows:
            assert seen.setdefault(row["patient_key"], row["split"]) == row["split"]
        splits = json.loads((tmp_path / f"out{number}" / "splits.json").read_text())["split"]
        assert sorted(key for keys in splits.values() for key in keys) == sorted(row["series_key"] for row in rows)
    assert len(rows) == 5 + 3 + 8
    assert len(seen) == 11


def test_one_acquisition_under_two_patient_ids_is_not_on_both_sides(bench: Bench, tmp_path: Path) -> None:
    drawn = {split_of(KEYS.patient({"PatientID": f"P{n}"}), KEYS): f"P{n}" for n in range(40)}
    shared = {"study": "one", "event": "shared"}
    receive(bench, *(patient(tmp_path / "in", drawn[split], **shared) for split in ("test", "train")))

    write(bench, tmp_path / "out", payload="refs")

    rows, left_out = (table(tmp_path / "out" / name) for name in ("manifest.csv", "excluded.csv"))
    assert [row["split"] for row in rows] == ["test"], "the one that came first stays"
    assert [row["reason"] for row in left_out] == ["split_conflict"]


def test_one_person_under_two_ids_stays_one_when_the_first_series_is_not_exported_any_more(
    bench: Bench, tmp_path: Path
) -> None:
    drawn = {split_of(KEYS.patient({"PatientID": f"P{n}"}), KEYS): f"P{n}" for n in range(40)}
    first, second = drawn["test"], drawn["train"]
    shared = {"study": "one", "event": "shared"}
    receive(bench, patient(tmp_path / "in", first, **shared), aet="ROOM_A")
    receive(bench, patient(tmp_path / "in", second, **shared), patient(tmp_path / "in", "other"), aet="ROOM_B")
    write(bench, tmp_path / "one")

    write(bench, tmp_path / "two", scanners=("ROOM_B",))

    keys = {row["patient_key"] for row in table(tmp_path / "two" / "manifest.csv")}
    assert keys == {KEYS.patient({"PatientID": "other"})}
    assert "split_conflict" in {row["reason"] for row in table(tmp_path / "two" / "excluded.csv")}


def test_a_device_that_gives_every_patient_one_event_makes_them_no_group(bench: Bench, tmp_path: Path) -> None:
    drawn = {split_of(KEYS.patient({"PatientID": f"P{n}"}), KEYS): f"P{n}" for n in range(40)}
    receive(bench, *(patient(tmp_path / "in", drawn[split], event="shared") for split in ("test", "train")))

    write(bench, tmp_path / "out", payload="refs")

    assert {row["split"] for row in table(tmp_path / "out" / "manifest.csv")} == {"test", "train"}


@pytest.mark.parametrize("exported_before", [True, *before_release(False)])
@pytest.mark.parametrize("right_came", ["first", "last"])
def test_a_corrected_series_goes_over_to_the_split_of_its_patient(
    bench: Bench, tmp_path: Path, right_came: str, exported_before: bool
) -> None:
    drawn = {split_of(KEYS.patient({"PatientID": f"P{n}"}), KEYS): f"P{n}" for n in range(40)}
    wrong, right = drawn["train"], drawn["test"]
    own = patient(tmp_path / "in", right)
    if right_came == "first":
        receive(bench, own)
    receive(bench, patient(tmp_path / "in", wrong), mixed := ct_series(
        tmp_path / "wrong", "mixed", slices=range(9), size_px=32, patient_id=wrong, event="of the mixed"
    ))  # fmt: skip
    if right_came == "last":
        receive(bench, own)
    if exported_before:
        write(bench, tmp_path / "before", payload="refs")
    receive(bench, ct_series(
        tmp_path / "right", "mixed", slices=range(9), size_px=32, patient_id=right, event="of the mixed"
    ))  # fmt: skip
    settle(bench, series_uid(mixed), CopyDecision.KEEP_LAST)
    bench.pass_time(40, step_s=5)

    for out in ("after", "again"):
        write(bench, tmp_path / out, payload="refs")

        rows = table(tmp_path / out / "manifest.csv")
        key = {name: KEYS.patient({"PatientID": name}) for name in (wrong, right)}
        assert sorted((row["patient_key"], row["split"]) for row in rows) == sorted(
            [(key[wrong], "train"), (key[right], "test"), (key[right], "test")]
        )
        assert not table(tmp_path / out / "excluded.csv")


def test_scores_of_experts_go_along_without_comments(bench: Bench, tmp_path: Path) -> None:
    paths = patient(tmp_path / "in", "P1")
    receive(bench, paths)
    given = [
        Rating(series_instance_uid=series_uid(paths), reader_id=reader, score=score, scale_min=0, scale_max=4,
               scale_direction="higher_better", comment="private")
        for reader, score in (("r1", 2), ("r2", 3))
    ]  # fmt: skip
    with bench.database.write() as connection:
        ratings.save_import(connection, given, sha256="0" * 64, by="me", at=bench.now)

    write(bench, tmp_path / "out")

    [row] = table(tmp_path / "out" / "manifest.csv")
    assert (float(row["mos"]), row["n_readers"], row["scale_max"]) == (pytest.approx(0.625), "2", "4.0")
    found = table(tmp_path / "out" / "annotations.csv")
    assert [one["score"] for one in found] == ["2.0", "3.0"]
    assert len({one["reader_key"] for one in found}) == 2
    assert "private" not in (tmp_path / "out" / "annotations.csv").read_text()


@pytest.mark.parametrize(
    ("action", "n_kept"), [(CopyDecision.KEEP_LAST, [0, 1, 1]), (CopyDecision.KEEP_FIRST, [1, 2, 2])]
)
def test_a_rating_of_other_pixels_counts_no_more(
    bench: Bench, tmp_path: Path, action: CopyDecision, n_kept: list[int]
) -> None:
    receive(bench, first := patient(tmp_path / "1", "x"))
    receive(bench, patient(tmp_path / "2", "x", pixels="other"))
    uid, image = series_uid(first), pydicom.dcmread(first[0]).SOPInstanceUID

    def rate(sop_instance_uid: str | None) -> None:
        given = Rating(
            series_instance_uid=uid, reader_id="r1", score=2, scale_min=0, scale_max=4,
            scale_direction="higher_better", sop_instance_uid=sop_instance_uid,
        )  # fmt: skip
        with bench.database.write() as connection:
            ratings.save_import(connection, [given], sha256="0" * 64, by="me", at=bench.now)

    def counted() -> int:
        with bench.database.read() as connection:
            return len(ratings.kept(connection))

    rate(None)
    bench.now += 1
    settle(bench, uid, action)
    found = [counted()]
    bench.now += 1
    rate(image)
    found.append(counted())
    third = ct_series(tmp_path / "3", "x", slices=[1], size_px=32, patient_id="x", pixels="third")
    receive(bench, third)
    settle(bench, uid, CopyDecision.KEEP_FIRST)
    found.append(counted())

    assert found == n_kept


# ── what is left out, and why ────────────────────────────────────────────────


def test_everything_that_is_left_out_has_its_reason(bench: Bench, tmp_path: Path) -> None:
    receive(
        bench,
        patient(tmp_path / "in", "good"),
        patient(tmp_path / "in", "scout", SeriesDescription="Scout of Quirin"),
        patient(tmp_path / "in", "nolabel", Exposure=None, XRayTubeCurrent=None),
        ct_series(tmp_path / "in" / "few", "few", slices=range(3), size_px=32, patient_id="few"),
    )
    mixed = patient(tmp_path / "in", "mixed")
    ds = pydicom.dcmread(mixed[0])
    ds.PatientID = "somebody else"
    ds.save_as(mixed[0])
    receive(bench, mixed)

    summary = write(bench, tmp_path / "out")
    everything = write(bench, tmp_path / "all", eligible_only=False)

    assert summary.reasons == {"localizer": 1, "missing_label": 1, "too_few_slices": 1, "several_patients": 1}
    assert everything.reasons == {"localizer": 1, "several_patients": 1}
    assert "Quirin" not in (tmp_path / "out" / "excluded.csv").read_text()


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"modalities": ("MR",)}, 1),
        ({"modalities": ("CT",)}, 2),
        ({"scanners": ("ct_room_*",)}, 2),
        ({"scanners": ("Prisma",)}, 0),
        ({"scanners": ("*Prisma*",)}, 1),
        ({"scanners": ("MR_AET",)}, 1),
        ({"since": date(2026, 11, 20)}, 2),
        ({"until": date(2026, 11, 19)}, 1),
        ({"since": date(2026, 11, 21)}, 0),
    ],
)
def test_filters_choose(three_series: Bench, tmp_path: Path, asked: dict[str, Any], kept: int) -> None:
    if not kept:
        with pytest.raises(ConfigurationError, match=r"no series to export; left out: (other|outside)"):
            write(three_series, tmp_path / "out", **asked)
        assert not (tmp_path / "out").exists()
        return

    assert write(three_series, tmp_path / "out", **asked).n_series == kept
    assert {row["reason"] for row in table(tmp_path / "out" / "excluded.csv")} <= {
        "filter_modality", "filter_scanner", "filter_date",
    }  # fmt: skip


def test_no_day_of_the_filters_leaves(three_series: Bench, tmp_path: Path) -> None:
    write(three_series, tmp_path / "out", since=date(2026, 11, 20), until=date(2026, 11, 20))

    request = json.loads((tmp_path / "out" / "provenance.json").read_text())["request"]
    assert (request["since"], request["until"]) == (True, True)
    assert not any(b"2026-11-20" in content for content in contents(tmp_path / "out").values())


@pytest.fixture(scope="module")
def three_series(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Two series of CT and a brain by MR."""
    folder = tmp_path_factory.mktemp("three")
    made = Bench(folder / "node")
    receive(made, patient(folder / "in", "P1"), patient(folder / "in", "P2"))
    receive(made, sorted((DATA / "mr_brain_t1_xa30_enhanced").glob("*.dcm")), aet="MR_AET")
    yield made
    made.close()


@pytest.mark.parametrize("payload", [*before_release("dicom"), "nifti"])
def test_volumes_of_heads_leave_only_if_asked_for(three_series: Bench, tmp_path: Path, payload: str) -> None:
    without = write(three_series, tmp_path / "without", payload=payload)
    asked = write(three_series, tmp_path / "asked", payload=payload, faces=True)

    assert without.reasons == {"face": 1}
    assert asked.reasons == {}
    assert write(three_series, tmp_path / "npz", payload="npz").reasons == {}


def test_an_enhanced_object_keeps_its_frames_and_its_physics(three_series: Bench, tmp_path: Path) -> None:
    write(three_series, tmp_path / "out", payload="dicom", faces=True, modalities=("MR",))

    [path] = (tmp_path / "out" / "images").rglob("*.dcm")
    [original] = (DATA / "mr_brain_t1_xa30_enhanced").glob("*.dcm")
    before, after = pydicom.dcmread(original), pydicom.dcmread(path)
    assert (before.pixel_array == after.pixel_array).all()
    assert len(after.PerFrameFunctionalGroupsSequence) == before.NumberOfFrames == after.NumberOfFrames
    [row] = table(tmp_path / "out" / "manifest.csv")
    assert (row["b0_nominal"], row["te"], row["prompt_reg"], row["prompt_type"]) == ("3.0", "2.41", "brain", "t1")


def test_a_photograph_leaves_in_colour(bench: Bench, tmp_path: Path) -> None:
    photograph = np.asarray(Image.open(DATA / "fundus_chasedb1" / "Image_01L.jpg").convert("RGB"))[::4, ::4]
    ds = wrap_photograph(photograph)
    ds.PatientID = "EYE1"
    save(ds, tmp_path / "fundus.dcm")
    receive(bench, [tmp_path / "fundus.dcm"])

    write(bench, tmp_path / "npz", payload="npz", eligible_only=False)
    write(bench, tmp_path / "dicom", payload="dicom", eligible_only=False)

    [row] = table(tmp_path / "npz" / "manifest.csv")
    assert (row["modality"], row["prompt_reg"], row["label_value"]) == ("OP", "retina", "")
    with np.load(tmp_path / "npz" / row["relative_path"]) as found:
        assert (found["slices"][0] == photograph).all()
        assert found["images"].shape == (1, 3, 32, 32)
    [path] = (tmp_path / "dicom" / "images").rglob("*.dcm")
    assert (pydicom.dcmread(path).pixel_array == photograph).all()


def test_a_series_whose_pixels_do_not_decode_is_left_out_and_leaves_no_file(bench: Bench, tmp_path: Path) -> None:
    broken = patient(tmp_path / "in", "broken")
    receive(bench, patient(tmp_path / "in", "good"))
    for path in broken[5:]:
        ds = pydicom.dcmread(path)
        ds.PixelData = ds.PixelData[:100]
        ds.save_as(path)
    receive(bench, broken)

    summary = write(bench, tmp_path / "out", payload="dicom")

    assert summary.reasons == {"undecodable": 1}
    assert len(list((tmp_path / "out" / "images").iterdir())) == 1


def test_a_series_that_nobody_thought_of_does_not_stop_the_others(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(bench, patient(tmp_path / "in", "good"), patient(tmp_path / "in", "odd"))

    def stumbling(ds: Dataset, keys: Pseudonyms) -> Dataset:
        if ds.PatientID == "odd":
            raise ZeroDivisionError
        return deidentify(ds, keys)

    monkeypatch.setattr("mediqa_node.pipeline.export.pixels.deidentify", stumbling)

    assert write(bench, tmp_path / "out", payload="dicom").reasons == {"fault": 1}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory"), "file_missing"),
        *before_release((PermissionError(13, "Permission denied"), "file_unreadable")),
        (OSError(5, "Input/output error"), "file_unreadable"),
    ],
)
@pytest.mark.parametrize(
    "station",
    ["export.select.read_headers", *before_release("export.select.image_getter"), "export.pixels.read_headers"],
)
def test_a_file_that_cannot_be_read_costs_its_own_series_alone(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str, station: str
) -> None:
    receive(bench, patient(tmp_path / "in", "good"), patient(tmp_path / "in", "bad"))
    module, _, name = station.rpartition(".")
    read = getattr(import_module(f"mediqa_node.pipeline.{module}"), name)
    calls = iter(range(9))

    def unreadable(*args: Any, **named: Any) -> Any:
        if next(calls) == 0:
            raise error
        return read(*args, **named)

    monkeypatch.setattr(f"mediqa_node.pipeline.{station}", unreadable)

    summary = write(bench, tmp_path / "out", payload="dicom")

    assert (summary.n_series, summary.reasons) == (1, {reason: 1})


def test_an_interrupted_export_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    receive(bench, patient(tmp_path / "in", "P1"), patient(tmp_path / "in", "P2"))

    def stop(what: str, done: int, total: int) -> None:
        if what == "writing" and done == 1:
            raise KeyboardInterrupt

    interrupted: Callable[[str, int, int], None] = stop
    with pytest.raises(KeyboardInterrupt):
        export(source(bench), ExportRequest(payload="npz"), tmp_path / "place" / "out", advance=interrupted)

    assert list((tmp_path / "place").iterdir()) == []


def test_an_export_leaves_the_receiver_its_room(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receive(bench, patient(tmp_path / "in", "P1"))
    low_water_bytes = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(bench.spool, "low_water_bytes", low_water_bytes)

    with pytest.raises(StorageFailed, match="kept for the receiver"):
        write(bench, tmp_path / "out", payload="dicom")


def test_series_whose_source_is_gone_are_left_out(bench: Bench, tmp_path: Path) -> None:
    receive(bench, patient(tmp_path / "in", "P1"))
    bench.now += 40 * 86_400
    from mediqa_node.pipeline.sweeps import retain

    retain(bench.node)

    with pytest.raises(ConfigurationError, match="images deleted after retention 1"):
        write(bench, tmp_path / "out")


def test_the_document_for_machines_names_every_column_and_its_file(bench: Bench, tmp_path: Path) -> None:
    receive(bench, patient(tmp_path / "in", "P1"))
    write(bench, tmp_path / "out")

    document = json.loads((tmp_path / "out" / "croissant.json").read_text())

    files = {one["@id"]: one["sha256"] for one in document["distribution"]}
    assert files["manifest.csv"] == hashlib.sha256((tmp_path / "out" / "manifest.csv").read_bytes()).hexdigest()
    series = next(one for one in document["recordSet"] if one["name"] == "series")
    head = (tmp_path / "out" / "manifest.csv").read_text().splitlines()[0].split(",")
    assert [field["source"]["extract"]["column"] for field in series["field"]] == head
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(f"| {name} |" in card for name in head)


def test_nothing_leaves_while_it_is_in_question(tmp_path: Path) -> None:
    with scripted() as pacs:
        pacs.holds = [{"PatientID": "somebody else"}]
        peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
        bench = Bench(tmp_path / "node", peers=[peer], returns=[ReturnRule(sender="CT_9", to=("PACS",))])
        folder = tmp_path / "in"
        receive(bench, patient(folder, "good"), patient(folder, "P1"), patient(folder, "P2"))
        receive(bench, patient(folder, "elsewhere"), aet="CT_9")
        receive(bench, patient(folder / "again", "P1", pixels="other"))
        receive(bench, ct_series(folder / "third", "P2", slices=[0], size_px=32, patient_id="P3"))

        assert write(bench, tmp_path / "one").reasons == {
            "conflicting_copies": 1,
            "several_patients": 1,
            "other_identity": 1,
        }

        bench.receive_all(ct_series(folder / "5", "good", slices=[0], size_px=32, patient_id="P5"), association="c")
        bench.receive_all([reject_note(tmp_path / "note.dcm", patient(folder, "P1"))], association="n")
        with pytest.raises(ConfigurationError, match="or not assessed or compared yet 3"):
            write(bench, tmp_path / "two")
        bench.close()
