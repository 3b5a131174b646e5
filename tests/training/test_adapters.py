"""Adapters on folders with the true layouts: a bad image scores lower, groups hold, wrong use is refused."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from support.series import refreshed
from typer.testing import CliRunner

from mediqa_node.domain.errors import ConfigurationError
from training.adapters import recognise
from training.adapters.contract import Report, report
from training.cli import app
from training.data.manifest import read_manifest

DATA = Path(__file__).parents[1] / "data"
EPI, BREAST = DATA / "mr_brain_epi_ge750", DATA / "mr_breast_ucsf06"


def read(root: Path, name: str | None = None) -> Report:
    return report(*recognise(root, name))


def mos(found: Report) -> dict[str, float]:
    return {row.paths[0].name.split(".")[0]: row.mos for row in found.rows}


def series(source: Path, folder: Path, number: int, *, names: str = "{:03}.dcm", n: int = 3, **changes: object) -> None:
    """A copy of a real MR series under other UIDs."""
    for i, path in enumerate(sorted(source.iterdir())[:n]):
        same = {"SeriesInstanceUID": f"2.25.{number}", "SOPInstanceUID": f"2.25.{number}{i:03}"}
        refreshed(path, folder / names.format(i), **same, **changes)


def tesla(field: float) -> dict[str, float]:
    return {"MagneticFieldStrength": field, "ImagingFrequency": 42.577 * field}


# ── LDCTIQAC2023 ─────────────────────────────────────────────────────────────


@pytest.fixture
def ldctiqac(tmp_path: Path) -> Path:
    """Four slices, each clean and in two noisy copies, the worst last; two of the test set."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    scores: dict[str, dict[str, float]] = {"train": {}, "test": {}}
    for part, slices in (("train", range(4)), ("test", range(4, 6))):
        folder = tmp_path / ("LDCTIQAG2023_train/image" if part == "train" else "LDCTIQAC_test/images")
        folder.mkdir(parents=True)
        for number in slices:
            inside = (x / random.uniform(0.5, 0.9)) ** 2 + (y / random.uniform(0.4, 0.7)) ** 2 < 1
            organs = np.kron(random.uniform(0.2, 0.8, (8, 8)), np.ones((16, 16)))
            for copy, noise in enumerate((0.0, 0.05, 0.15)):
                name = f"{3 * number + copy:04}.tif" + ("f" if part == "test" else "")
                image = np.clip(inside * organs + noise * random.normal(size=x.shape), 0, 1)
                tifffile.imwrite(folder / name, image.astype(np.float32))
                scores[part][name] = 4.0 - 1.8 * copy
        (folder.parent / f"{part}.json").write_text(json.dumps(scores[part]))
    return tmp_path


def test_ldctiqac_scores_rise_with_quality_and_copies_of_a_slice_are_one_patient(ldctiqac):
    found = read(ldctiqac)

    assert found.adapter.NAME == "ldctiqac"
    assert (mos(found)["0000"], mos(found)["0002"]) == (1.0, pytest.approx(0.1))
    groups = [row.patient for row in found.rows]
    assert [len(set(groups[i : i + 3])) for i in range(0, 18, 3)] == [1] * 6
    assert found.patients == 6
    assert [row.split for row in found.rows].count("test") == 6
    assert found.rows[0].window == (-135.0, 215.0)


def test_ldctiqac_drops_the_official_split_where_a_slice_stands_on_both_sides(ldctiqac):
    image = tifffile.imread(ldctiqac / "LDCTIQAG2023_train" / "image" / "0000.tif")
    tifffile.imwrite(ldctiqac / "LDCTIQAC_test" / "images" / "0012.tiff", np.clip(image + 0.01, 0, 1))

    assert {row.split for row in read(ldctiqac).rows} == {""}


def test_a_scored_image_that_is_not_there_is_counted_as_missing(ldctiqac):
    (ldctiqac / "LDCTIQAG2023_train" / "image" / "0001.tif").unlink()

    assert read(ldctiqac).missing == {"images that train.json scores": 1}


# ── EyeQ and Kaggle ──────────────────────────────────────────────────────────


@pytest.fixture
def eyeq(tmp_path: Path) -> Path:
    lines = [",image,quality,DR_grade"]
    for number in range(10, 14):
        for eye, quality in (("left", 0), ("right", 2)):
            (tmp_path / "train").mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "train" / f"{number}_{eye}.jpeg")
            lines.append(f"{len(lines)},{number}_{eye}.jpeg,{quality},0")
    (tmp_path / "Label_EyeQ_train.csv").write_text("\n".join([*lines, "9,15_left.jpeg,1,4", "10,15_right.jpeg,7,4"]))
    (tmp_path / "Label_EyeQ_test.csv").write_text(f"{lines[0]}\n1,20_left.jpeg,1,0\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "20_left.jpeg")
    return tmp_path


def test_eyeq_gives_a_rejected_photograph_less_than_a_good_one_and_keeps_eyes_together(eyeq):
    found = read(eyeq)

    assert (mos(found)["10_left"], mos(found)["20_left"], mos(found)["10_right"]) == (1.0, 0.5, 0.0)
    assert found.patients == 5
    assert {row.key: row.split for row in found.rows}["20_left"] == "test"
    assert found.missing == {"photographs that Label_EyeQ_train.csv grades": 1}
    assert found.left == {"quality is not 0, 1 or 2": 1}


def test_a_grade_of_retinopathy_is_refused_as_quality(eyeq):
    (eyeq / "trainLabels.csv").write_text("image,level\n10_left,0\n10_right,4\n")
    for name in ("train", "test"):
        (eyeq / f"Label_EyeQ_{name}.csv").unlink()

    with pytest.raises(ConfigurationError, match="`level` is the grade of diabetic retinopathy, not image quality"):
        recognise(eyeq)


def test_eyeq_without_photographs_is_refused(eyeq):
    for path in (eyeq / "train").iterdir():
        path.unlink()

    with pytest.raises(ConfigurationError, match="EyeQ holds labels only"):
        recognise(eyeq)


# ── MR ───────────────────────────────────────────────────────────────────────


def test_adni_grade_4_is_worse_than_1_and_what_was_not_rated_is_dropped(tmp_path):
    patient = tmp_path / "ADNI" / "002_S_0295" / "MP-RAGE" / "2006-04-18_08_20_30.0"
    for number in (13721, 13722, 13723):
        names = f"ADNI_002_S_0295_MR_MP-RAGE_br_raw_{{:03}}_S13408_I{number}.dcm"
        series(EPI, patient / f"I{number}", number, names=names)
    lines = ["RID,loni_image,series_type,series_quality,series_selected", "295,I13721,T1,1,1", "295,I13722,T1,4,0"]
    text = "\n".join([*lines, "295,I13723,T1,-1,0", "295,I99999,T1,2,0"])
    (tmp_path / "MAYOADIRL_MRI_IMAGEQC_12_08_15.csv").write_text(text)

    found = read(tmp_path)

    assert {row.paths[0].parent.name: row.mos for row in found.rows} == {"I13721": 1.0, "I13722": 0.0}
    assert {row.patient for row in found.rows} == {"002_S_0295"}
    assert {len(row.paths) for row in found.rows} == {3}
    assert found.left == {"not rated (-1 or empty)": 1}
    assert found.missing == {"series without a grade": 1, "graded series whose images are elsewhere": 1}


def test_the_table_of_adni_3_has_the_same_meaning_under_other_names(tmp_path):
    series(EPI, tmp_path / "ADNI" / "003_S_6014" / "Accelerated_Sagittal_MPRAGE" / "2017" / "I844444", 7)
    text = "PTID,SERIES_TYPE,SERIES_QUALITY,LONI_IMAGE\n003_S_6014,MT1,2,844444\n"
    (tmp_path / "MAYOADIRL_MRI_QUALITY_ADNI3_03Sep2024.csv").write_text(text)

    [row] = read(tmp_path).rows

    assert row.mos == pytest.approx(2 / 3)


def test_fastmri_is_labelled_by_field_strength_and_its_scouts_are_left_out(tmp_path):
    folder = tmp_path / "fastMRI_brain_DICOM"
    t2 = {"ScanningSequence": "SE", "RepetitionTime": 6000, "EchoTime": 100}
    flair = t2 | {"ScanningSequence": ["SE", "IR"], "InversionTime": 2500}
    series(EPI, folder / "221", 1, PatientID="221", SeriesDescription="AXT2", **t2, **tesla(3.0))
    series(EPI, folder / "222", 2, PatientID="222", SeriesDescription="AXFLAIR", **flair, **tesla(1.5))
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "localizer"}
    series(EPI, folder / "222", 3, names="s{:03}.dcm", PatientID="222", **scout)

    found = read(tmp_path)

    labels = {row.patient: (row.type, row.label_name, row.label_value, row.region) for row in found.rows}
    assert labels == {"221": ("t2", "tesla", 3.0, "brain"), "222": ("flair", "tesla", 1.5, "brain")}
    assert found.left == {"the node would not score it: localizer": 1}


def test_k_space_of_fastmri_is_refused(tmp_path):
    (tmp_path / "fastmri_multicoil").mkdir()
    (tmp_path / "fastmri_multicoil" / "file1.h5").touch()

    with pytest.raises(ConfigurationError, match="holds no field strength"):
        recognise(tmp_path)


def test_ispy1_maps_and_segmentations_are_no_acquisitions(tmp_path):
    for patient, field in (("ISPY1_1001", 1.5), ("ISPY1_1002", 3.0)):
        folder = tmp_path / "ISPY1" / patient / "01-02-1985-485859-MR BREASTUNI UE-34504"
        for number, series_number in enumerate((2, 21000, 22001), start=10 * int(patient[-1])):
            same = {"PatientID": patient, "SeriesNumber": series_number, **tesla(field)}
            series(BREAST, folder / f"{series_number}.000000-series", number, names="1-{:02}.dcm", n=2, **same)

    found = read(tmp_path)

    assert {row.patient: row.label_value for row in found.rows} == {"ISPY1_1001": 1.5, "ISPY1_1002": 3.0}
    assert {row.region for row in found.rows} == {"breast"}
    assert found.left == {"PE, SER or segmentation: computed, not acquired": 4}


def test_mr_art_gives_a_head_that_nodded_less_than_one_at_rest(tmp_path):
    lines = ["bids_name\tscore"]
    for subject in ("sub-000103", "sub-000148"):
        (folder := tmp_path / "ds004173" / subject / "anat").mkdir(parents=True)
        for score, how in enumerate(("standard", "headmotion1", "headmotion2"), start=1):
            name = f"{subject}_acq-{how}_T1w"
            nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), folder / f"{name}.nii.gz")
            lines.append(f"{name}\t{score}")
    (tmp_path / "ds004173" / "derivatives").mkdir()
    (tmp_path / "ds004173" / "derivatives" / "scores.tsv").write_text("\n".join([*lines, "sub-9_acq-standard_T1w\t1"]))

    found = read(tmp_path)

    assert mos(found)["sub-000103_acq-standard_T1w"] == 1.0
    assert mos(found)["sub-000103_acq-headmotion2_T1w"] == 0.0
    assert (len(found.rows), found.patients) == (6, 2)
    assert found.missing == {"scans that scores.tsv rates": 1}


# ── plain ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("direction", "good", "bad"), [("higher_better", 5, 1), ("lower_better", 1, 5)])
def test_a_plain_table_is_read_in_the_direction_that_it_states(tmp_path, direction, good, bad):
    columns = "image,patient,modality,score,scale_min,scale_max,scale_direction"
    for name in ("good", "bad"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    rows = [f"{name}.png,P1,OP,{score},1,5,{direction}" for name, score in (("good", good), ("bad", bad))]
    (tmp_path / "labels.csv").write_text("\n".join([columns, *rows, f"bad.png,P1,OP,9,1,5,{direction}"]))

    found = read(tmp_path)

    assert mos(found) == {"good": 1.0, "bad": 0.0}
    assert found.left == {"score is empty or outside its scale": 1}


def test_a_plain_table_that_does_not_say_which_way_it_counts_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("image,patient,modality,score,scale_min,scale_max\na.png,P,OP,4,0,4\n")

    with pytest.raises(ConfigurationError, match=r"labels\.csv lacks scale_direction"):
        recognise(tmp_path)


def test_a_picture_of_ct_needs_the_window_that_it_was_drawn_with(tmp_path):
    columns = "image,patient,modality,score,scale_min,scale_max,scale_direction,window_low,window_high"
    (tmp_path / "1.2.840.55").mkdir()
    (tmp_path / "1.2.840.55" / "1.dcm").write_bytes(b"")
    for name in ("windowed", "unknown"):
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    rows = [
        f"{name},P{n},CT,3,1,5,higher_better,{window}"
        for n, (name, window) in enumerate((("windowed.png", "-160,240"), ("unknown.png", ","), ("1.2.840.55", ",")))
    ]
    (tmp_path / "labels.csv").write_text("\n".join([columns, *rows]))

    found = read(tmp_path)

    assert [(row.payload_kind, row.window) for row in found.rows] == [("image", (-160.0, 240.0)), ("dicom", None)]
    assert found.left == {"CT picture without window_low and window_high: its gray values are no HU": 1}


# ── the command ──────────────────────────────────────────────────────────────


def run(*arguments: object) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["adapt", *map(str, arguments)])
    return done.exit_code, done.output, done.exception


def test_the_command_writes_a_manifest_that_training_reads(ldctiqac, tmp_path):
    code, said, _ = run(ldctiqac, "--out", tmp_path / "out")

    assert code == 0, said
    rows = read_manifest(tmp_path / "out")
    assert len(rows) == 18
    assert {row.split for row in rows} == {"train", "val", "test"}
    assert f"→ mediqa-train finetune {tmp_path / 'out'} --out RUN" in said
    assert "mos         0.1 × 6, 0.55 × 6, 1 × 6" in said
    assert "polarity    score 0 (bad) to 4 (excellent)" in said


def test_a_dry_run_tells_the_same_and_writes_nothing(eyeq):
    before = sorted(eyeq.rglob("*"))

    code, said, _ = run(eyeq, "--dry-run")

    assert code == 0
    assert "missing     1 photographs that Label_EyeQ_train.csv grades" in said
    assert said.splitlines()[-1] == "nothing written"
    assert sorted(eyeq.rglob("*")) == before
    assert json.loads(run(eyeq, "--dry-run", "--json")[1])["labels"] == {"mos": {"0.0": 4, "0.5": 1, "1.0": 4}}


def test_a_folder_that_nobody_knows_is_answered_with_the_known_layouts(tmp_path):
    _, _, error = run(tmp_path, "--dry-run")

    assert isinstance(error, ConfigurationError)
    assert "does not have the layout of a known data set" in str(error)
    assert "mr-art    ds004173" in str(error)


def test_two_data_sets_in_one_folder_have_to_be_named(eyeq):
    (eyeq / "labels.csv").write_text("image,patient,modality,score,scale_min,scale_max,scale_direction\na,b,OP,1,0,1,x")

    _, _, error = run(eyeq, "--dry-run")

    assert "name one with --as" in str(error)
    assert run(eyeq, "--dry-run", "--as", "eyeq")[0] == 0
