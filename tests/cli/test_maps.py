"""`mediqa-node score --maps FOLDER`: what people look at, and what programs read."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from support.bench import StandInScorer
from support.command import invoke_in
from support.series import ct_series

from mediqa_node import config
from mediqa_node.composition import checkpoints
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.pipeline.offline import score_paths
from mediqa_node.pipeline.score import Assessor
from mediqa_node.pipeline.score_map_files import write_maps

DATA = Path(__file__).parents[1] / "data"
MR = DATA / "mr_brain_t1_xa30_enhanced"
PHOTOGRAPH = DATA / "fundus_chasedb1" / "Image_01L.jpg"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@cache
def assessor() -> Assessor:
    return Assessor(scorer=StandInScorer(), prompts=checkpoints.prompt_rules(config.load(None, {})))


def mapped(folder: Path, *paths: Path) -> list[dict[str, Any]]:
    """Score with the stand-in, whose patch is the mean of its pixels, and write maps below a folder."""
    results, unreadable = score_paths(
        paths, assessor=assessor, advance=lambda done, total: None, also=[write_maps(folder)]
    )
    assert unreadable == []
    return results


def arrays(result: dict[str, Any]) -> dict[str, np.ndarray]:
    [path] = [path for path in result["maps"] if path.endswith(".npz")]
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def test_each_scored_slice_has_a_picture_and_the_series_a_sheet_and_a_file(tmp_path):
    [result] = mapped(tmp_path / "maps", *ct_series(tmp_path / "ct", "mapped"))

    names = [Path(path).name for path in result["maps"]]
    assert names == ["contact-sheet.png", *(f"slice-{i:02}.png" for i in range(1, 6)), "maps.npz"]
    assert all(Path(path).parent.parent == tmp_path / "maps" for path in result["maps"])
    for path in result["maps"][:-1]:
        with Image.open(path) as picture:
            picture.verify()
            assert picture.format == "PNG"
            assert picture.info == {}, "nothing is said beside the pixels"


def test_the_file_holds_what_the_network_said_and_where(tmp_path):
    paths = ct_series(tmp_path / "ct", "arrays")
    [result] = mapped(tmp_path / "maps", *paths)

    found = arrays(result)
    assert found["scores"].shape == found["weights"].shape == found["quality"].shape == (5, 8, 8)
    assert found["views"].tolist() == [[i, 0, 0, 64, 64] for i in range(5)]
    assert found["native_scores"].shape == found["native_quality"].shape == (5, 64, 64)
    assert np.array_equal(found["native_quality"], found["quality"].repeat(8, axis=1).repeat(8, axis=2))
    assert found["sop_instance_uids"].tolist() == result["slice_instance_uids"]
    assert found["frame_numbers"].tolist() == [0] * 5
    assert found["slice_qualities"].tolist() == result["slice_scores"]
    assert found["slice_weights"].tolist() == result["slice_weights"]
    assert str(found["series_instance_uid"]) == result["series_instance_uid"]


def test_a_map_lies_on_what_it_judges(tmp_path):
    """The stand-in scores a patch by its brightness: the map is the image in coarse squares, not moved or turned."""
    [result] = mapped(tmp_path / "maps", MR)
    found = arrays(result)
    frames = pydicom.dcmread(MR / "000.dcm").pixel_array

    for number, native in zip(found["frame_numbers"], found["native_quality"], strict=True):
        image = frames[number - 1].astype(float)
        assert native.shape == image.shape
        coarse = image.reshape(8, 16, 8, 16).mean(axis=(1, 3)).repeat(16, axis=0).repeat(16, axis=1)
        assert np.corrcoef(native.ravel(), coarse.ravel())[0, 1] > 0.97
        assert np.corrcoef(native[::-1].ravel(), coarse.ravel())[0, 1] < 0.8


def test_a_photograph_has_one_picture(tmp_path):
    [result] = mapped(tmp_path / "maps", PHOTOGRAPH)

    assert [Path(path).name for path in result["maps"]] == ["contact-sheet.png", "slice-01.png", "maps.npz"]
    assert Path(result["maps"][0]).parent.name.startswith("Image_01L-"), "named by the file"
    assert arrays(result)["native_quality"].shape == (1, 960, 999)


def test_nothing_that_a_file_says_becomes_a_path_or_a_word_in_the_maps(tmp_path):
    paths = ct_series(
        tmp_path / "ct", "canary", patient_name="Canary^Karla", patient_id="CANARY7",
        SeriesInstanceUID="../../escaped", AccessionNumber="CANARY8",
    )  # fmt: skip

    results = mapped(tmp_path / "maps", *paths)

    for path in (tmp_path / "maps").rglob("*"):
        assert path.resolve().is_relative_to(tmp_path / "maps")
        assert path.is_dir() or b"anary" not in path.read_bytes().lower()
    assert not list(tmp_path.parent.rglob("escaped*"))
    assert all("escaped" not in path for result in results for path in result.get("maps", []))


def test_without_the_option_nothing_is_said_of_maps(tmp_path):
    [result], _ = score_paths(ct_series(tmp_path, "no maps"), assessor=assessor, advance=lambda done, total: None)

    assert "maps" not in result


def test_a_folder_that_cannot_be_written_is_misuse_and_a_sentence(tmp_path):
    (tmp_path / "maps").write_text("a file")

    with pytest.raises(ConfigurationError, match=r"--maps .*cannot be written"):
        mapped(tmp_path / "maps", *ct_series(tmp_path / "ct", "nowhere"))


def test_the_command_writes_them_and_marks_untrained_weights(tmp_path):
    paths = ct_series(tmp_path / "ct", "command")
    (tmp_path / "node.yaml").write_text("model: {checkpoint: untrained}")

    finished = invoke_in(tmp_path, "score", "--json", "--maps", tmp_path / "maps", *paths)

    assert finished.returncode == 0, finished.stderr
    [result] = json.loads(finished.stdout)
    assert all(Path(path).is_file() for path in result["maps"])
    assert arrays(result)["trained"] == np.False_
    for path in result["maps"][:-1]:
        head = np.asarray(Image.open(path).convert("RGB"))[:60]
        assert (head == (255, 176, 0)).all(axis=-1).sum() > 200, "untrained, in amber"
