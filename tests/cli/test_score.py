"""`mediqa-node score PATH… --json`: what a script can rely on."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image
from support import command
from support.bench import StandInScorer
from support.factories import range_position
from support.siblings import before_release

from mediqa_node import config
from mediqa_node.cli.score import _print_prediction, _print_range, place
from mediqa_node.composition import checkpoints
from mediqa_node.dicom.prompt_rules import default_rules
from mediqa_node.domain.policy import Refuse
from mediqa_node.pipeline.offline import score_paths
from mediqa_node.pipeline.score import Assessor

TESTS = Path(__file__).parents[1]
DATA = TESTS / "data"
CT = DATA / "ct_sts003_lowdose"
PHOTOGRAPH = DATA / "fundus_chasedb1" / "Image_01L.jpg"

KEYS = {
    "series_instance_uid", "modality", "quality", "raw_score", "slice_scores", "slice_weights", "slice_instance_uids",
    "verdict", "prompt", "technique", "stacks", "weights_sha256", "not_scored",
}  # fmt: skip
MORE = {
    "reason_code",
    "measured",
    "files",
    "trained",
    "n_stacks",
    "slice_frame_numbers",
    "slice_raw_scores",
    "execution",
    "predicted",
    "slices_beyond_scale",
    "calibration",
    "measures",
    "range_position",
}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return command.run("score", *arguments, folder=TESTS)


def score(*arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    """Return exit status, the array of standard output (nothing else may be there), standard error."""
    finished = run(*arguments, "--json")
    return finished.returncode, json.loads(finished.stdout), finished.stderr


@cache
def assessor() -> Assessor:
    return checkpoints.open_active(config.load(None, {}))


def score_here(*paths: Path) -> tuple[int, list[dict[str, Any]], str]:
    """As `score`, in this process: a network is loaded once."""
    results, unreadable = score_paths(list(paths), assessor=assessor, advance=lambda done, total: None)
    assert json.loads(json.dumps(results)) == json.loads(json.dumps(results, allow_nan=False))
    return 1 if unreadable else 0, results, "\n".join(f"{path}: {reason}" for path, reason in unreadable)


@cache
def everything() -> tuple[int, list[dict[str, Any]], str]:
    return score(CT, DATA / "mr_brain_t1_xa30_enhanced", DATA / "refuse", DATA / "fundus_chasedb1")


def one(results: list[dict[str, Any]], uid: str) -> dict[str, Any]:
    [found] = [result for result in results if result["series_instance_uid"] == uid]
    return found


def header(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)


def test_every_series_has_one_object_with_every_key():
    status, results, _ = everything()

    assert status == 0
    assert all(set(result) == KEYS | MORE for result in results)
    uids = [result["series_instance_uid"] for result in results]
    assert len(uids) == len(set(uids))
    expected = {str(header(path).SeriesInstanceUID) for path in [*CT.glob("*.dcm"), *(DATA / "refuse").rglob("*.dcm")]}
    assert expected <= set(uids)


def test_a_scored_series_says_what_its_score_is_made_of():
    _, results, _ = everything()
    result = one(results, str(header(CT / "000.dcm").SeriesInstanceUID))
    instances = {str(header(path).SOPInstanceUID) for path in CT.glob("*.dcm")}

    assert result["modality"] == "CT"
    assert result["not_scored"] is None
    assert result["verdict"] == "uncalibrated"
    assert set(result["slice_instance_uids"]) == instances
    assert len(result["slice_scores"]) == len(result["slice_weights"]) == len(result["slice_instance_uids"]) == 7
    assert result["slice_frame_numbers"] == [None] * 7
    assert [result["prompt"][name]["value"] for name in ("dimension", "modality", "region", "type")] == [
        "3D", "CT", "extremity", "soft",
    ]  # fmt: skip
    assert result["technique"]["label_name"] == "mas"
    assert [stack["images"] for stack in result["stacks"]] == [7]
    assert len(result["weights_sha256"]) == 64


def test_quality_is_the_weighted_sum_of_its_slices():
    _, results, _ = everything()
    scored = [result for result in results if result["not_scored"] is None]

    assert len(scored) >= 4
    for result in scored:
        total = sum(w * q for w, q in zip(result["slice_weights"], result["slice_scores"], strict=True))
        assert abs(total - result["quality"]) < 1e-9
        assert abs(sum(result["slice_weights"]) - 1) < 1e-9
        assert all(0 <= q <= 1 for q in [result["quality"], *result["slice_scores"]])


def test_frames_of_a_multi_frame_object_are_numbered():
    _, results, _ = everything()
    result = one(results, str(header(DATA / "mr_brain_t1_xa30_enhanced" / "000.dcm").SeriesInstanceUID))

    assert len(set(result["slice_instance_uids"])) == 1
    numbers = result["slice_frame_numbers"]
    assert len(set(numbers)) == 7
    assert all(1 <= number <= 96 for number in numbers)


def test_what_is_nothing_to_score_is_a_result_with_a_reason_and_no_failure():
    status, results, _ = everything()
    refused = [result for result in results if result["not_scored"] is not None]

    assert status == 0
    assert {result["reason_code"] for result in refused} == {
        "localizer", "map", "mosaic", "not_a_fundus_photograph", "secondary_capture",
    }  # fmt: skip
    for result in refused:
        assert result["quality"] is result["raw_score"] is result["prompt"] is result["verdict"] is None
        assert result["slice_scores"] == result["slice_weights"] == result["slice_instance_uids"] == []


def test_photographs_are_scored_one_by_one():
    _, results, _ = everything()
    photographs = [result for result in results if result["modality"] == "OP"]

    assert len(photographs) == 2
    assert {result["prompt"]["region"]["value"] for result in photographs} == {"retina"}
    assert all(len(result["slice_scores"]) == 1 for result in photographs)


def test_the_same_files_give_the_same_answer(tmp_path):
    for source in CT.glob("*.dcm"):
        shutil.copy(source, tmp_path / f"{source.stem[::-1]}{source.suffix}")

    _, again, _ = score(tmp_path, PHOTOGRAPH)
    _, here, _ = score_here(CT)

    found = [{**result, "files": None} for result in (again[0], everything()[1][0], _through_json(here[0]))]
    assert found[0] == found[1] == found[2]


def _through_json(result: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(json.dumps(result))
    return parsed


def test_a_file_named_twice_and_an_instance_found_twice_count_once(tmp_path):
    shutil.copytree(CT, tmp_path / "copy")

    status, results, _ = score_here(CT, CT / "000.dcm", tmp_path / "copy")

    assert status == 0
    assert results == score_here(CT)[1]


def test_jpeg_and_png_of_the_same_pixels_score_alike(tmp_path):
    picture = Image.open(PHOTOGRAPH).convert("RGB")
    picture.save(tmp_path / "fundus.PNG", format="PNG")
    picture.convert("L").save(tmp_path / "gray.png")

    status, results, _ = score_here(PHOTOGRAPH, tmp_path)

    assert status == 0
    assert len(results) == 2, "the same photograph is the same instance"
    assert [result["quality"] is None for result in results] == [False, True]
    assert results[1]["reason_code"] == "not_a_fundus_photograph"


def test_a_readme_inside_a_searched_folder_is_passed_over(tmp_path):
    shutil.copy(CT / "000.dcm", tmp_path)
    (tmp_path / "README.md").write_text("not an image")
    (tmp_path / "empty").touch()

    status, results, said = score_here(tmp_path)

    assert (status, len(results)) == (0, 1)
    assert "README" not in said


def test_a_file_that_was_named_and_is_no_image_is_told(tmp_path):
    (tmp_path / "README.md").write_text("not an image")

    status, results, said = score(tmp_path / "README.md")

    assert (status, results) == (1, [])
    assert "README.md: neither DICOM nor JPEG nor PNG" in said


def test_a_missing_file_is_misuse_and_a_sentence(tmp_path):
    finished = run(tmp_path / "nowhere.dcm", "--json")

    assert finished.returncode == 2
    assert finished.stdout == ""
    assert "nowhere.dcm" in finished.stderr
    assert "does not exist" in " ".join(finished.stderr.replace("│", " ").split())
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_named_and_the_rest_is_scored(tmp_path, kept):
    for source in CT.glob("*.dcm"):
        shutil.copy(source, tmp_path)
    cut = tmp_path / "003.dcm"
    cut.write_bytes(cut.read_bytes()[: int(kept * cut.stat().st_size)])

    status, results, said = score_here(tmp_path)

    assert status == 1
    assert "003.dcm" in said
    assert len(results[0]["slice_scores"]) == 6


@pytest.mark.parametrize("form", ["--json", *before_release("--json-lines")])
def test_a_file_name_that_the_terminal_cannot_show_stops_no_series(tmp_path, form):
    for source in CT.glob("*.dcm"):
        shutil.copy(source, tmp_path)
    (tmp_path / "000.dcm").rename(os.fsdecode(os.fsencode(tmp_path) + b"/Sch\xe4del.dcm"))

    ran = command.run("score", form, tmp_path, folder=tmp_path)

    assert (ran.returncode, ran.stderr.count("Traceback")) == (0, 0)
    [result] = [json.loads(ran.stdout)] if form == "--json-lines" else json.loads(ran.stdout)
    assert len(result["slice_scores"]) == 7
    assert any("del.dcm" in path for path in result["files"])


def test_the_command_fails_where_something_could_not_be_read_and_still_answers(tmp_path):
    shutil.copy(CT / "000.dcm", tmp_path)
    (tmp_path / "cut.dcm").write_bytes((CT / "001.dcm").read_bytes()[:-100])

    status, results, said = score(tmp_path)

    assert (status, len(results)) == (1, 1)
    assert "cut.dcm" in said


@pytest.mark.parametrize("content", [b"", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM\x02\0\0\0UL\x04\0\xff\xff\0\0"])
def test_hardly_a_file_is_named(tmp_path, content):
    (tmp_path / "broken.dcm").write_bytes(content)

    status, results, said = score_here(tmp_path)

    assert (status, results) == (1, [])
    assert "broken.dcm" in said
    assert "Traceback" not in said


def test_a_picture_that_is_none_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(PHOTOGRAPH.read_bytes()[:5000])
    (tmp_path / "text.png").write_text("not a picture")
    Image.new("L", (16_000, 12_000)).save(tmp_path / "huge.png", compress_level=1)

    status, results, said = score_here(tmp_path)

    assert (status, results) == (1, [])
    assert all(name in said for name in ("broken.jpg", "text.png", "huge.png"))
    assert "Traceback" not in said


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "SOPInstanceUID", "StudyInstanceUID", "SOPClassUID"])
def test_an_image_that_does_not_say_who_it_is_is_not_scored(tmp_path, keyword):
    ds = pydicom.dcmread(CT / "000.dcm")
    del ds[keyword]
    ds.save_as(tmp_path / "anonymous.dcm")

    status, [result], said = score_here(tmp_path)

    assert status == 0
    assert result["quality"] is None
    assert result["reason_code"] == "unidentified"
    assert "anonymous.dcm" in result["series_instance_uid"]
    assert "Traceback" not in said


def test_without_json_the_answer_is_a_table():
    finished = run(CT, DATA / "refuse" / "mr_mosaic_siemens_trio")

    lines = finished.stdout.splitlines()
    assert finished.returncode == 0
    assert lines[0].split()[:4] == ["score", "verdict", "what", "file"]
    assert "3D CT extremity soft" in lines[1]
    assert f"{CT} (7 files)" in lines[1]
    assert sum("mosaic" in line for line in lines) == 1
    assert "not for diagnosis" in finished.stderr


def test_each_result_names_its_files_as_they_were_given():
    _, results, _ = score_here(CT, PHOTOGRAPH)

    assert [result["files"] for result in results] == [sorted(map(str, CT.glob("*.dcm"))), [str(PHOTOGRAPH)]]


def test_a_refused_picture_names_its_file_too(tmp_path):
    Image.open(PHOTOGRAPH).convert("L").save(tmp_path / "gray.png")

    _, [result], _ = score_here(tmp_path)

    assert result["files"] == [str(tmp_path / "gray.png")]


@pytest.mark.parametrize("more", [[], ["--json"], ["--json-lines"]])
def test_a_folder_without_images_is_a_failure(tmp_path, more):
    finished = run(tmp_path, *more)

    assert finished.returncode == 1
    assert finished.stderr.strip() == f"no images found in {tmp_path}"


def test_json_lines_has_one_object_a_line():
    finished = run(DATA / "refuse" / "mr_mosaic_siemens_trio", DATA / "refuse" / "mr_survey_scout", "--json-lines")

    found = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [result["reason_code"] for result in found] == ["mosaic", "localizer"]


@pytest.mark.parametrize(("option", "count"), [("--json", json.loads), ("--json-lines", str.splitlines)])
def test_an_interruption_keeps_what_is_done(monkeypatch, capsys, option, count):
    """Ctrl-C after the first of two series."""
    from typer.testing import CliRunner

    from mediqa_node import cli
    from mediqa_node.pipeline import offline

    one = offline._score

    def interrupted(series, *arguments):
        if series.modality == "OP":
            raise KeyboardInterrupt
        return one(series, *arguments)

    monkeypatch.setattr(offline, "_score", interrupted)
    monkeypatch.setattr("mediqa_node.logs.configure", lambda **_: None)  # it would last beyond this test
    cli.register()
    finished = CliRunner().invoke(
        cli.app, ["score", option, str(DATA / "refuse" / "mr_mosaic_siemens_trio"), str(PHOTOGRAPH)]
    )

    assert finished.exit_code == 130
    assert len(count(finished.stdout)) == 1
    assert "interrupted after 1 of 2 series" in finished.stderr


def test_verbose_prints_the_numbers_behind_a_refusal(capsys):
    from mediqa_node.cli import score as command

    refused = {
        "quality": None, "raw_score": None, "verdict": None, "prompt": None, "modality": "MR", "predicted": None,
        "files": ["scans/a.dcm"], "not_scored": "outside training range: unlike the breast MR",
        "measured": "noise 1.04", "stacks": [],
    }  # fmt: skip
    for verbose in (False, True):
        shown = command._Shown(as_lines=False, as_array=False, verbose=verbose, with_measures=False)
        shown._at_once = True
        shown.add(refused)

        assert ("scans/a.dcm: noise 1.04" in capsys.readouterr().out) is verbose


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (0.5, None),
        (0.93, "near the limit of the training range: local statistics 0.93 x the limit"),
        (1.034, "outside the training range: local statistics 1.03 x the limit, outside on 4 of 7 slices"),
    ],
)
def test_how_far_a_stack_near_the_limit_is_stands_in_table_and_json(ratio, words, capsys):
    stand_in = StandInScorer()
    stand_in.position = range_position(ratio)
    flagging = Assessor(scorer=stand_in, prompts=default_rules(), refuse=Refuse.FLAG)

    [result], _ = score_paths([CT], lambda: flagging, advance=lambda done, total: None)
    _print_range(result)

    assert result["range_position"]["times_limit"] == ratio
    assert result["range_position"]["outside"] is (ratio > 1)
    assert result["stacks"][0]["range_position"] == result["range_position"]
    assert result["verdict"] == ("outside_range" if ratio > 1 else "uncalibrated")
    assert capsys.readouterr().out == (f"{CT} (7 files): {words}\n" if words else "")


def test_files_given_relative_and_absolute_have_one_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir("/")

    assert place(["scans/a.dcm", "/scans/b.dcm"]) == "/scans (2 files)"


def test_a_prediction_is_printed_as_the_range_of_its_error(capsys):
    predicted = {"value": 196.0, "unit": "mA.s", "likely": (92.3, 416.2), "supported": True, "recorded": 171.0}
    for recorded in (171.0, None):
        _print_prediction({"files": [str(CT / "000.dcm")], "predicted": predicted | {"recorded": recorded}})
    _print_prediction({"files": [str(CT / "000.dcm")], "predicted": predicted | {"supported": False, "likely": None}})

    said = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == ["looks like 92.3 to 416 mA.s; 171 recorded", "looks like 92.3 to 416 mA.s; nothing recorded"]
