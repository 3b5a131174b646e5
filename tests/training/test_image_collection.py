"""A folder is a collection: its sources, what is held out of it, and what a manifest of another shape is answered."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.samples import disc, sample
from typer.testing import CliRunner

from mediqa_node.domain.errors import ConfigurationError
from training.cli import app, main
from training.data.collection import held_out_sources, read_collection
from training.data.store import Store


def photographs(folder: Path, *sources: str) -> Path:
    """One photograph of noise and light for each source, in folders of folders."""
    for seed, name in enumerate(sources):
        (folder / name / "left").mkdir(parents=True)
        pixels = np.random.default_rng(seed).integers(60, 200, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / "left" / "eye.png")
    return folder


def run(*arguments: object) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.output, done.exception


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mediqa-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_without_a_manifest_every_folder_is_a_source_and_a_folder_of_files_is_one(tmp_path):
    several = photographs(tmp_path / "several", "a", "b")
    (several / ".hidden").mkdir()

    assert [(one.source, one.split) for one in read_collection(several)] == [("a", "dev"), ("b", "dev")]
    assert [one.folder for one in read_collection(several / "a" / "left")] == [several / "a" / "left"]


def test_a_manifest_of_the_collection_is_read_although_nobody_names_it(tmp_path):
    photographs(tmp_path, "a", "b")
    content = {"items": [{"id": "a", "split": "dev"}, {"id": "b", "split": "refuse"}], "same_fold": [["x", "a"]]}
    (tmp_path / "manifest.json").write_text(json.dumps(content))

    assert [(one.source, one.split) for one in read_collection(tmp_path)] == [("x", "dev"), ("b", "refuse")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "the file: "),
        ('{"items": 3}', "items: Input should be a valid list"),
        ('{"items": ["a"]}', "items.0: "),
        ('{"items": [{"id": "a", "split": "dev"}, {"id": 3}]}', "items.1.split: Field required"),
        ('{"items": [{"id": ["a"], "split": "dev"}]}', "items.0.id: Input should be a valid string"),
        ('{"items": [{"id": "a", "split": "train"}]}', "items.0.split: Input should be 'dev' or 'refuse'"),
        ('{"items": [], "same_fold": ["a"]}', "same_fold.0: Input should be a valid list"),
        ('{"items": [], "same_fold": null}', "same_fold: Input should be a valid list"),
        ("null", "the file: "),
    ],
)
def test_a_manifest_of_another_shape_is_answered_by_entry_and_key(tmp_path, content, problem):
    (tmp_path / "list.json").write_text(content)

    with pytest.raises(ConfigurationError) as refused:
        read_collection(tmp_path, tmp_path / "list.json")

    assert problem in str(refused.value)


def test_a_share_holds_out_at_least_one_of_two_and_none_of_one():
    names = [f"source{n}" for n in range(8)]

    assert len(held_out_sources(names, ["0.25"])) == 2
    assert held_out_sources(names, ["0.25"]) == held_out_sources(reversed(names), ["0.25"])
    assert len(held_out_sources(names[:2], ["0.1"])) == 1
    assert held_out_sources(names[:1], ["0.5"]) == frozenset()
    assert held_out_sources(names, ["source3", "source5"]) == {"source3", "source5"}


@pytest.mark.parametrize(("asked", "held"), [(("b",), {"b"}), (("0.5",), None), ((), None)])
def test_simulate_holds_sources_out_by_name_by_share_and_by_preset(tmp_path, asked, held):
    collection = photographs(tmp_path / "images", "a", "b")
    options = [word for name in asked for word in ("--hold-out", name)]

    code, printed, error = run(
        "simulate", "--collection", collection, "--out", tmp_path / "store", "--preset", "small", "--processes", 1,
        *options,
    )  # fmt: skip

    assert (code, error) == (0, None)
    sides = {one.source: one.split for one in Store(tmp_path / "store").samples}
    assert sorted(sides.values()) == ["test", "train"]
    assert held in (None, {name for name, split in sides.items() if split == "test"})
    assert "nothing is held out" not in printed


def test_after_a_sweep_comes_evaluate(tmp_path):
    collection = photographs(tmp_path / "images", "a", "b")
    (tmp_path / "mine.yaml").write_text("few: {bases: {OP: 1}, held_out: [0.5], sweep: true}\n")

    code, printed, error = run(
        "simulate", "--collection", collection, "--out", tmp_path / "sweep", "--config", tmp_path / "mine.yaml",
        "--preset", "few", "--processes", 1,
    )  # fmt: skip

    assert (code, error) == (0, None)
    assert f"→ mediqa-train evaluate STORE --checkpoint CHECKPOINT --sweep {tmp_path / 'sweep'}" in printed
    assert "pretrain" not in printed


def test_simulate_says_that_one_source_alone_cannot_be_held_out(tmp_path):
    collection = photographs(tmp_path / "images", "a")

    call = ("simulate", "--collection", collection, "--processes", 1)
    code, printed, _ = run(*call, "--out", tmp_path / "store", "--preset", "small")
    _, _, sweep = run(*call, "--out", tmp_path / "sweep", "--preset", "sweep")

    assert code == 0
    assert "nothing is held out of OP" in printed
    assert "a modality needs two sources" in str(sweep)


@pytest.mark.parametrize(("collection", "reason"), [("nowhere", "no such folder"), ("empty", "no slice of CT, MR")])
def test_a_collection_that_holds_nothing_is_refused(tmp_path, collection, reason):
    (tmp_path / "empty").mkdir()

    _, _, error = run("simulate", "--collection", tmp_path / collection, "--out", tmp_path / "store")

    assert isinstance(error, ConfigurationError)
    assert reason in str(error)


def test_evaluate_refuses_a_store_without_test_samples(tmp_path, monkeypatch, capsys):
    Store(tmp_path / "store").add([(sample("a", labels={"quality": 0.5}), disc(64, noise=5, seed=1))])

    code = exit_code(monkeypatch, "evaluate", tmp_path / "store", "--checkpoint", "default")

    assert code == 2
    assert "no test samples" in (said := capsys.readouterr().err)
    assert "--hold-out" in said


def test_a_command_names_the_package_that_it_lacks_before_it_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["training.cli.app"], "find_spec", lambda _: None)

    code = exit_code(monkeypatch, "pretrain", tmp_path, "--out", tmp_path / "run")

    assert code == 2
    assert 'needs matplotlib, which is not installed: pip install "mediqa-node[train]"' in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_package_that_only_some_files_need_is_named_too(monkeypatch, capsys):
    def lacks() -> None:
        raise ModuleNotFoundError("No module named 'nibabel.nifti1'", name="nibabel.nifti1")

    monkeypatch.setattr("training.cli.app", lacks)

    assert exit_code(monkeypatch, "finetune") == 2
    assert "needs nibabel" in capsys.readouterr().err
