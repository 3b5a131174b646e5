"""How tables and facts are printed, on a terminal and in a pipe."""

from dataclasses import asdict, replace
from typing import Any

import pytest
from pydantic import TypeAdapter
from support.factories import ct_volume, outside_range, predicted_mas, range_position
from support.report_reading import with_assessment

from mediqa_node.cli import present
from mediqa_node.cli.score import _quality
from mediqa_node.cli.series import _position, _predicted, _score, _short_score
from mediqa_node.domain.assessment import Assessment
from mediqa_node.storage.assessments import Scored

ROWS = [("1", "a long description of a series", "-0.5"), ("1,200", "short", "–")]


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_in_a_pipe_each_row_is_one_line_and_numbers_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    present.table(("n", "what", "value"), ROWS)

    assert printed(capsys) == [
        "    n  what                            value",
        "    1  a long description of a series   -0.5",
        "1,200  short                               –",
    ]


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_on_a_terminal_lines_fit_and_no_word_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr(present, "width", lambda: columns)

    present.table(("n", "what", "value"), ROWS)
    present.fact("reason", "a long sentence that has to be wrapped somewhere between two of its words")

    lines = printed(capsys)
    assert max(map(len, lines)) <= columns
    words = {word for line in lines for word in line.split()}
    assert {"description", "series", "1,200", "-0.5", "sentence", "somewhere"} <= words


def test_a_word_wider_than_the_terminal_is_folded_and_not_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(present, "width", lambda: 20)

    present.table(("uid", "n"), [("1.2.840." + "9" * 40, "1")])

    lines = printed(capsys)
    assert "".join(line.split()[0] for line in lines[1:]) == "1.2.840." + "9" * 40


def test_what_is_no_finite_number_is_null() -> None:
    assert present.finite({"a": [float("nan"), 1.0], "b": (float("inf"), "x")}) == {"a": [None, 1.0], "b": [None, "x"]}


def shown(**changes: object) -> tuple[str, str]:
    """The score and the prediction of `show`, from what the database holds."""
    found = stored(**changes)
    return _score(found), _predicted(found)


def stored(**changes: object) -> dict[str, Any]:
    return TypeAdapter(Assessment).dump_python(with_assessment(ct_volume(), **changes).assessment, mode="json")


def test_show_rounds_no_score_across_a_threshold():
    primary = replace(ct_volume().assessment.primary, quality=0.597)

    assert shown(primary=primary, verdict="borderline")[0].startswith("0.59 of 1, borderline")
    assert shown(primary=primary, verdict="uncalibrated", calibration=None)[0].startswith("0.60 of 1, uncalibrated")


def test_tables_round_no_score_across_a_threshold():
    calibration = ct_volume().assessment.calibration
    assert calibration is not None
    score = Scored(quality=0.597, verdict="borderline", trained=True, calibration=calibration)
    result = {"quality": 0.597, "calibration": asdict(calibration)}

    assert _short_score(score) == "0.59 borderline"
    assert _short_score(replace(score, verdict="uncalibrated", calibration=None)) == "0.60"
    assert _quality(result) == "0.59"
    assert _quality({**result, "calibration": None}) == "0.60"


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (0.5, ""),
        (0.93, "near the limit of the training range: local statistics 0.93 x the limit"),
        (1.034, "outside the training range: local statistics 1.03 x the limit, outside on 4 of 7 slices"),
    ],
)
def test_show_states_how_far_a_series_near_the_limit_is(ratio, words):
    primary = replace(ct_volume().assessment.primary, range_position=range_position(ratio))

    assert _position(stored(primary=primary)) == words


def test_what_was_stored_before_positions_were_kept_is_read():
    older = stored(primary=ct_volume().assessment.primary)
    del older["primary"]["range_position"]

    assert _position(older) == ""
    assert TypeAdapter(Assessment).validate_python(older).primary.range_position is None


def test_a_series_outside_the_training_range_has_no_verdict():
    outside = outside_range().assessment
    score = Scored(quality=outside.quality, verdict=outside.verdict, trained=True, calibration=None)

    assert _short_score(score) == "0.73 outside range"
    assert shown(primary=outside.primary, verdict=outside.verdict, calibration=None)[0].startswith(
        "0.73 of 1, outside range,"
    )


def test_show_states_no_prediction_outside_what_was_learned():
    stacks = [replace(ct_volume().assessment.primary, prediction=predicted_mas(value)) for value in (101.5, 900.0)]

    assert [shown(primary=stack)[1] for stack in stacks] == ["mas 50.8 to 203 mA.s", ""]


@pytest.mark.parametrize(
    ("state", "code", "step"),
    [
        ("withheld", "other_identity", "mediqa-node retry 7"),
        ("parked", "refused", "mediqa-node echo PACS, then mediqa-node retry 7"),
        ("parked", None, "mediqa-node echo PACS, then mediqa-node retry 7"),
        ("parked", "not_configured", "add PACS to `peers` again, then mediqa-node retry 7"),
        ("parked", "file_missing", "mediqa-node verify, then mediqa-node retry 7"),
    ],
)
def test_a_retry_is_not_offered_alone_where_it_would_fail_again(state: str, code: str | None, step: str) -> None:
    assert present.held_step(7, "PACS", state, code) == step


def test_a_report_that_cannot_be_built_is_corrected_first() -> None:
    assert present.held_step(7, "PACS", "parked", "not_built").startswith("correct the images at their source")
