"""Simulated series as a node takes them."""

import shutil
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from typer.testing import CliRunner

from mediqa_node.dicom.part10 import read_header
from mediqa_node.dicom.technique.harvest import harvest
from mediqa_node.exchange.rating_table import Layout, read_ratings
from training.cli import app
from training.data.collection import ImageSet
from training.data.manifest import read_manifest
from training.data.read import read_rows
from training.data.store import Store
from training.fit.recipe import STAGE2, read_recipe
from training.simulate.series import Labelled, bases_of, write_series

DATA = Path(__file__).parents[1] / "data"
BASES = ("ct_sts003_lowdose", "mr_breast_ucsf06")
EDGE_PX = 64
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def write(out: Path, collection: Path, *names: str, series: int, seed: int = 1) -> list[Labelled]:
    sets = [ImageSet(name=name, folder=collection / name, source=name, split="dev") for name in names]
    return write_series(sets, out, series=series, seed=seed, processes=1, advance=lambda *_: None)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bases, of CT only EDGE_PX rows and columns from the middle: projections of whole slices take seconds."""
    ct, mr = BASES
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(DATA / mr, folder / mr)
    (folder / ct).mkdir()
    for path in (DATA / ct).glob("*.dcm"):
        ds = pydicom.dcmread(path)
        top, left = (ds.Rows - EDGE_PX) // 2, (ds.Columns - EDGE_PX) // 2
        ds.PixelData = ds.pixel_array[top : top + EDGE_PX, left : left + EDGE_PX].tobytes()
        ds.Rows = ds.Columns = EDGE_PX
        ds.save_as(folder / ct / path.name)
    return folder


@pytest.fixture(scope="module")
def made(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Labelled]]:
    """Three tube charges of an extremity by GE, two fields of a breast."""
    out = tmp_path_factory.mktemp("simulated") / "out"
    return out, write(out, small, *BASES, series=5)


def series_of(out: Path) -> dict[str, list[Path]]:
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(out.rglob("*.dcm")):
        found[str(read_header(path).SeriesInstanceUID)].append(path)
    return dict(found)


def headers_of(paths: Sequence[Path]) -> list[Dataset]:
    return [read_header(path) for path in paths]


def test_the_node_harvests_exactly_what_was_simulated_and_would_train_on_it(made):
    out, written = made
    files = series_of(out)

    assert {(one.modality, one.level) for one in written} == {
        ("CT", 10.0), ("CT", 40.0), ("CT", 160.0), ("MR", 0.3), ("MR", 1.0),
    }  # fmt: skip
    for one in written:
        found = harvest(headers_of(files[one.series_uid]))
        value = found.tube_charge_mas if one.modality == "CT" else found.field_strength_t
        assert (value, found.eligible, found.exclusions) == (one.level, True, ())


def test_noise_grows_as_dose_and_field_fall_and_the_label_follows(made):
    out, written = made
    files = series_of(out)

    def roughness(uid: str) -> float:
        image = pydicom.dcmread(files[uid][3]).pixel_array.astype(float)
        return float(np.abs(np.diff(image, axis=1)).mean())

    for modality in ("CT", "MR"):
        by_level = sorted((one for one in written if one.modality == modality), key=lambda one: one.level)
        qualities, roughnesses = [one.quality for one in by_level], [roughness(one.series_uid) for one in by_level]
        assert qualities == sorted(qualities)
        assert len(set(qualities)) == len(qualities)
        assert roughnesses == sorted(roughnesses, reverse=True)


def test_a_series_has_seven_positions_new_uids_and_says_that_it_is_simulated(made):
    out, _ = made
    known = {
        element.value
        for name in BASES
        for path in (DATA / name).glob("*.dcm")
        for element in read_header(path).iterall()
        if element.VR == "UI" and not str(element.value).startswith("1.2.840.10008.")
    }
    seen = set()
    for paths in series_of(out).values():
        headers = headers_of(paths)
        assert len({tuple(ds.ImagePositionPatient) for ds in headers}) == len(headers) == 7
        for ds in headers:
            uids = {ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID}
            assert all(uid.startswith("2.25.") for uid in uids)
            assert not uids & known
            assert ds.SOPInstanceUID not in seen
            seen.add(ds.SOPInstanceUID)
            assert str(ds.PatientName).replace("SIMULATED^", "SIM-") == ds.PatientID
            assert ds.SeriesDescription.startswith("SIMULATED ")
            assert (ds.ContentQualification, ds.file_meta.TransferSyntaxUID) == ("RESEARCH", "1.2.840.10008.1.2.1")


def test_no_name_number_or_date_of_the_patient_is_in_any_byte(made):
    out, _ = made
    secrets = set()
    for name in BASES:
        for path in (DATA / name).glob("*.dcm"):
            ds = read_header(path)
            for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "AccessionNumber", "StudyID",
                            "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "InstitutionName"):  # fmt: skip
                if len(value := str(ds.get(keyword, ""))) > 4:
                    secrets.add(value.encode())

    assert len(secrets) > 10
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [one for one in secrets if one in content]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(made, small, tmp_path):
    before, _ = made
    write(tmp_path / "ct", small, BASES[0], series=1, seed=1)
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        write(tmp_path / name, small, BASES[1], series=1, seed=seed)

    def content(folder: Path) -> dict[Path, bytes]:
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.dcm")}

    assert len(content(tmp_path / "ct")) == 7
    assert content(tmp_path / "ct").items() <= content(before).items()
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert not set(content(tmp_path / "one").values()) & set(content(tmp_path / "other").values())


def test_the_labels_are_a_table_that_the_node_imports(made):
    out, written = made

    table = read_ratings((out / "labels.csv").read_bytes(), Layout(), {"series_uid": str})

    assert (table.problems, table.unread) == ((), ())
    assert [rating.series_instance_uid for _, rating in table.rows] == [one.series_uid for one in written]
    assert {(rating.reader_id, rating.study_id, rating.criterion) for _, rating in table.rows} == {
        ("SIMULATOR", "simulated", "overall")
    }
    assert "not an opinion of an expert" in (out / "README.md").read_text()


@pytest.mark.peers
def test_a_validator_finds_nothing_wrong_that_is_not_in_the_source(made, peer):
    out, _ = made

    def errors(path: Path) -> set[str]:
        said = subprocess.run([peer("dciodvfy"), "-filename", str(path)], capture_output=True, text=True, check=False)
        return {line for line in said.stderr.splitlines() if line.startswith("Error")}

    for base, name in zip(BASES, ("CT", "MR"), strict=True):
        source = errors(sorted((DATA / base).glob("*.dcm"))[0])
        for paths in series_of(out).values():
            if headers_of(paths[:1])[0].Modality == name:
                assert {line.partition(" - ")[0] for line in errors(paths[0])} <= {
                    line.partition(" - ")[0] for line in source
                }


def test_more_series_than_can_be_made_and_a_folder_in_use_are_refused(tmp_path):
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"items": [{"id": "ct_sts003_lowdose", "split": "dev"}]}')
    asked = ["simulate", "--dicom", "--collection", str(DATA), "--manifest", str(manifest), "--series", "6"]

    many = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "out")])
    used = CliRunner().invoke(app, [*asked, "--out", str(tmp_path)])

    assert "6 series were asked for; 1 series of the collection can be copied, to 5" in str(many.exception)
    assert "not empty" in str(used.exception)
    assert not (tmp_path / "out").exists()


def test_what_a_node_would_not_train_on_is_no_base():
    sets = [ImageSet(name=n, folder=DATA / n, source=n, split="dev") for n in ("mr_brain_t1_xa30_enhanced", *BASES)]
    refused = ImageSet(name="r", folder=DATA / BASES[0], source="r", split="refuse")

    assert [base.modality for base in bases_of([*sets, refused])] == ["CT", "MR"]


def test_training_reads_the_series_without_a_node_as_volumes(made, tmp_path):
    out, written = made
    rows = read_manifest(out)
    spec = read_recipe(STAGE2, "default").spec
    store = Store(tmp_path)
    left_out = read_rows(rows[:1], spec, store, advance=lambda *_: None)

    assert left_out == []
    assert [(row.label_name, row.label_value) for row in rows] == [
        ("mas" if one.modality == "CT" else "tesla", one.level) for one in written
    ]
    assert [row.mos for row in rows] == pytest.approx([one.quality for one in written], abs=1e-4)
    assert {(row.modality, row.source, row.split) for row in rows} == {
        ("CT", BASES[0], ""), ("MR", BASES[1], ""),
    }  # fmt: skip
    assert store.samples[0].shape[0] == 7


def test_copies_of_a_source_that_is_held_out_are_on_the_test_side(small, tmp_path):
    sets = [ImageSet(name=name, folder=small / BASES[1], source=name, split="dev") for name in ("one", "two")]
    held_out = ("two", "not there")
    write_series(sets, tmp_path / "out", series=2, held_out=held_out, seed=1, processes=1, advance=lambda *_: None)

    rows = read_manifest(tmp_path / "out")

    assert {(row.source, row.split) for row in rows} == {("one", "train"), ("two", "test")}
