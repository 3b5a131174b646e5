"""`mediqa-node export`: what it says, and its exit status."""

import json
from pathlib import Path

import pytest
import yaml
from support.bench import Bench
from support.command import invoke_in
from support.series import ct_series


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node that has judged two series, and does not run."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "node.yaml").write_text(yaml.safe_dump({"retention": {"low_water_bytes": 0}}))
    bench = Bench(folder / "var")
    for name in ("one", "two"):
        paths = ct_series(folder / name, name, slices=range(9), size_px=32, patient_id=name)
        bench.receive_all(paths, association=name)
    bench.pass_time(20, step_s=5)
    bench.close()
    return folder


def test_it_says_what_left_and_what_comes_next(node: Path) -> None:
    result = invoke_in(node, "export", "first")

    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("exported    2 series of 2 patients, ")
    assert lines[1].startswith("splits      train ")
    assert " empty: " in lines[-2], "two patients cannot fill three splits"
    assert "With 35 patients or more" in lines[-2]
    assert lines[-1] == "→ first/README.md describes the content, excluded.csv what was left out"
    assert (node / "first" / "manifest.parquet").is_file()
    assert (node / "var" / "export.key").stat().st_mode & 0o777 == 0o600


def test_a_second_run_needs_force_and_is_the_same_export(node: Path) -> None:
    first = invoke_in(node, "export", "again", "--json")
    refused = invoke_in(node, "export", "again")
    forced = invoke_in(node, "export", "again", "--force", "--json")

    assert refused.returncode == 2
    assert "replace it with --force" in refused.stderr
    assert json.loads(first.stdout)["export_id"] == json.loads(forced.stdout)["export_id"]


def test_network_input_is_made_by_the_card_of_the_configured_checkpoint(node: Path) -> None:
    result = invoke_in(node, "export", "npz", "--payload", "npz", "--json")

    assert result.returncode == 0, result.stderr
    assert len(list((node / "npz" / "images").iterdir())) == 2
    assert len(json.loads((node / "npz" / "provenance.json").read_text())["preprocessing"]) == 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--payload", "png"], "'png': must be one of refs, dicom, nifti, npz"),
        (["--modality", "US"], "'US': must be one of CT, MR, OP"),
        (["--since", "yesterday"], "'yesterday': must be a day such as 2026-11-30"),
        (["--since", "2031-01-01"], "no series to export; left out: outside the dates asked for 2"),
    ],
)
def test_misuse_is_told(node: Path, arguments: list[str], words: str) -> None:
    result = invoke_in(node, "export", "wrong", *arguments)

    assert result.returncode == 2
    assert words in " ".join(result.stderr.split())
    assert not (node / "wrong").exists()


def test_without_a_node_it_says_how_to_start_one(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("{}")

    result = invoke_in(tmp_path, "export", "out")

    assert result.returncode == 2
    assert "mediqa-node serve" in result.stderr


def test_status_tells_how_the_last_night_went(node: Path) -> None:
    configured = {"retention": {"low_water_bytes": 0}, "export": {"nightly": "02:30"}}
    (node / "node.yaml").write_text(yaml.safe_dump(configured))
    (node / "var" / "exports").mkdir()
    note = {"at": 0.0, "folder": "/exports/1970-01-01", "n_series": 2}
    (node / "var" / "exports" / ".last.json").write_text(json.dumps(note))

    good = invoke_in(node, "status")
    (node / "var" / "exports" / ".last.json").write_text(json.dumps({"at": 0.0, "problem": "no room for about 9 MB"}))
    bad = invoke_in(node, "status", "--json")

    assert "exported    " in good.stdout
    assert "2 series to /exports/1970-01-01" in good.stdout
    assert json.loads(bad.stdout)["export"]["problem"] == "no room for about 9 MB"
