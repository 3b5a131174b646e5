"""Manifests: read back as written, faults by their line, and what is refused before it wastes a night."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from mediqa_node.domain.errors import ConfigurationError
from training.data.manifest import (
    Row,
    for_finetuning,
    for_pretraining,
    read_manifest,
    unfit_splits,
    with_splits,
    write_manifest,
)

CT = Row(key="s", patient="p", dimension="3D", modality="CT", label_name="mas", label_value=40.0, eligible=True)


def many(n: int, **fields: object) -> list[Row]:
    """Series of n patients whose tube charges differ, with splits."""
    rows = [replace(CT, key=f"s{i}", patient=f"p{i}", label_value=10.0 + i) for i in range(n)]
    return [replace(row, **fields) for row in with_splits(rows)]


def written(folder: Path, *rows: dict[str, str]) -> Path:
    usual = {"series_key": "s1", "patient_key": "p1", "prompt_dim": "2D", "prompt_mod": "MR"}
    with (folder / "manifest.csv").open("w", newline="") as lines:
        table = csv.DictWriter(lines, list(dict.fromkeys([*usual, *(name for row in rows for name in row)])))
        table.writeheader()
        table.writerows({**usual, **row} for row in rows)
    return folder


def test_a_manifest_reads_back_as_written(tmp_path):
    (inside := tmp_path / "out" / "a,b.png").parent.mkdir()
    (outside := tmp_path / "elsewhere.png").touch()
    inside.touch()
    rows = [
        replace(CT, payload_kind="image", paths=(inside, outside), split="val", source="site", licence="CC BY 4.0"),
        Row(key="t", patient="q", dimension="2D", modality="OP", region="retina", type="cfp", mos=1 / 3, weight=0.5),
    ]

    write_manifest(rows, tmp_path / "out" / "manifest.csv")

    assert read_manifest(tmp_path / "out") == rows
    assert "a,b.png" in (text := (tmp_path / "out" / "manifest.csv").read_text())
    assert f"{tmp_path}/out" not in text, "what lies in the folder moves with it"


def test_an_export_of_the_node_is_read_with_its_other_columns_and_folders(tmp_path):
    (series := tmp_path / "images" / "s1").mkdir(parents=True)
    (series / "2.dcm").touch()
    (series / "1.dcm").touch()
    label = {"label_name": "tesla", "label_value": "1.5", "label_unit": "T", "stage1_eligible": "True"}
    more = {"device_key": "D1", "kvp": "", "relative_path": "images/s1", "payload_kind": "dicom", "split": "train"}

    [row] = read_manifest(written(tmp_path, {**label, **more}))

    assert row.paths == (series / "1.dcm", series / "2.dcm")
    assert (row.source, row.label_name, row.label_value, row.eligible) == ("D1", "tesla", 1.5, True)
    assert (row.region, row.type, row.mos, row.weight) == ("unknown", "unknown", None, 1.0)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"prompt_mod": "PET"}, "prompt_mod 'PET'; known: CT, MR, OP"),
        ({"prompt_reg": "elbow"}, "prompt_reg 'elbow'"),
        ({"mos_norm": "4"}, "mos_norm 4 must lie in 0..1"),
        ({"label_name": "mas", "label_value": "many"}, "label_value 'many' is no number"),
        ({"label_name": "tesla", "label_value": "-3"}, "label_value -3 must be finite and above 0"),
        ({"label_name": "tesla", "label_value": "15000", "label_unit": "G"}, "label_unit 'G' of tesla; known: T"),
        ({"split": "dev"}, "split 'dev'; known: train, val, test"),
        ({"relative_path": "gone.npz"}, "relative_path gone.npz is not there"),
        ({"stage1_eligible": "maybe"}, "stage1_eligible 'maybe'"),
        ({"patient_key": ""}, "patient_key is empty"),
        ({"series_key": "s0"}, "series_key 's0' occurs twice"),
    ],
)
def test_a_fault_is_told_by_its_line_and_what_is_allowed(tmp_path, cells, said):
    folder = written(tmp_path, {"series_key": "s0"}, cells)

    with pytest.raises(ConfigurationError) as error:
        read_manifest(folder)

    assert "1 of 2 rows cannot be used" in str(error.value)
    assert f"line 3: {said}" in str(error.value)


def test_a_manifest_without_its_columns_is_refused(tmp_path):
    (tmp_path / "manifest.csv").write_text("series_key,age\ns,4\n")

    with pytest.raises(ConfigurationError, match="lacks the columns patient_key, prompt_dim, prompt_mod"):
        read_manifest(tmp_path)


def test_varied_labels_may_train():
    assert len(for_pretraining(many(30)).rows) == 30
    assert for_pretraining(many(30)).left_out == ()
    assert len(for_finetuning([replace(row, mos=row.label_value / 50) for row in many(30)]).rows) == 30


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (many(20, label_name="tesla", label_value=3.0), "one field strength only, 3 T, in all 20 series"),
        ([*many(20, label_name="tesla", label_value=1.494)], "one field strength only, 1.5 T"),
        (many(20, label_value=80.0), "one tube charge only, 80 mA.s"),
        (many(9), "mas: 9 series; at least 10 are needed"),
        (many(20, eligible=False), "20 of 20 series are not eligible"),
        (many(20, split="train"), "no patient in split test"),
        (many(20, split=""), "20 of 20 series have no split"),
        ([*many(20), replace(CT, patient="p0", split="train"), replace(CT, patient="p0", split="test")], "the result"),
        ([], "the manifest is empty"),
    ],
)
def test_what_cannot_train_stage_1_is_refused_with_the_reason(rows, said):
    with pytest.raises(ConfigurationError, match="nothing to train stage 1 on") as error:
        for_pretraining(rows)

    assert said in str(error.value)


def test_one_field_strength_is_left_out_where_tube_charges_can_be_learnt():
    tesla = [replace(row, key=f"m{row.key}", label_name="tesla", label_value=1.5) for row in many(20)]

    chosen = for_pretraining([*many(20), *tesla])

    assert {row.label_name for row in chosen.rows} == {"mas"}
    assert chosen.left_out == ("tesla: one field strength only, 1.5 T, in all 20 series: nothing to learn",)


@pytest.mark.parametrize(
    ("rows", "said"),
    [(many(20, mos=0.5), "all 20 are 0.5 of 1"), (many(20), "20 of 20 series have no opinion score")],
)
def test_what_cannot_train_stage_2_is_refused_with_the_reason(rows, said):
    with pytest.raises(ConfigurationError, match="nothing to train stage 2 on") as error:
        for_finetuning(rows)

    assert said in str(error.value)


def test_splits_are_by_patient_whatever_the_order_of_rows():
    rows = [replace(CT, key=f"{i}-{j}", patient=f"p{i}") for i in range(40) for j in range(3)]

    decided = with_splits(rows)

    assert unfit_splits(decided) is None
    assert sorted(with_splits(rows[::-1]), key=lambda r: r.key) == sorted(decided, key=lambda r: r.key)
    assert [sum(row.split == split for row in decided) for split in ("train", "val", "test")] == [96, 12, 12]


def test_a_split_that_the_data_set_decided_stays_and_gets_no_others():
    rows = [replace(row, split="test" if row.patient == "p1" else "") for row in many(40)]

    decided = {row.patient: row.split for row in with_splits(rows)}

    assert [patient for patient, split in decided.items() if split == "test"] == ["p1"]
    assert sum(split == "val" for split in decided.values()) == 4
