"""How tables and facts are printed, on a terminal and in a pipe."""

import pytest

from mediqa_node.cli import present

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
