"""What the stages refuse before it wastes a night, and how splits are decided anew, through the command line."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from training.cli import main
from training.cli.stages import prepared_of
from training.data.manifest import Row, with_splits, write_manifest
from training.fit.recipe import Recipe

MR = Row(
    key="s", patient="p", dimension="2D", modality="MR", payload_kind="npz", label_name="tesla", label_value=1.5,
    eligible=True,
)  # fmt: skip


def rows_of(values: list[float], **fields: object) -> list[Row]:
    return [replace(MR, key=f"s{n}", patient=f"p{n}", label_value=v, **fields) for n, v in enumerate(values)]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mediqa-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("values", "label", "reason"),
    [
        ([1.5, 1.494, 1.5] * 5, "tesla", "one field strength only, 1.5 T, in all 15 series"),
        ([80.0] * 12, "mas", "one tube charge only, 80 mA.s, in all 12 series"),
        ([1.5, 3.0, 1.5], "tesla", "tesla: 3 series; at least 10 are needed"),
    ],
)
def test_labels_that_teach_nothing_are_refused_with_the_reason(tmp_path, monkeypatch, capsys, values, label, reason):
    write_manifest(with_splits(rows_of(values, label_name=label)), tmp_path / "manifest.csv")

    status = run(monkeypatch, "pretrain", tmp_path, "--out", tmp_path / "run")

    assert status == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_split_that_nobody_has_drawn_is_told_with_the_way_out(tmp_path, monkeypatch, capsys):
    write_manifest(rows_of([1.5, 3.0] * 6, split="train"), tmp_path / "manifest.csv")

    assert run(monkeypatch, "pretrain", tmp_path, "--out", tmp_path / "run") == 2
    assert "no patient in split test" in (said := capsys.readouterr().err)
    assert "--resplit SEED" in said


def test_splits_decided_anew_part_patients_and_count_in_samples_that_were_read_before(tmp_path, capsys):
    (folder := tmp_path / "export").mkdir()
    rows = []
    for n, row in enumerate(rows_of([1.5, 3.0] * 10, split="train")):
        np.savez(path := folder / f"{n}.npz", slices=np.full((1, 32, 32), 10.0 + n, dtype=np.float32))
        rows.append(replace(row, patient=f"p{n // 2}", paths=(path,)))
    write_manifest(rows, folder / "manifest.csv")
    recipe = Recipe(slices=1)

    first = prepared_of(folder, recipe, stage=1, resplit=1)
    second = prepared_of(folder, recipe, stage=1, resplit=2)

    splits = [{one.patient: one.split for one in data.samples} for data in (first, second)]
    assert splits[0] != splits[1]
    for data, side in zip((first, second), splits, strict=True):
        assert sorted(side.values()) == ["test", *["train"] * 8, "val"]
        assert all(one.split == side[one.patient] for one in data.samples)
    assert "patients split again with seed 1: train 8, val 1, test 1" in capsys.readouterr().out
