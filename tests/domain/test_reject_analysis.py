"""Repeat rate and precision of the alarms, counted by hand."""

from mediqa_node.domain.reject_analysis import Answered, lines, repeats_by, total
from mediqa_node.domain.worklist import AnswerKind, Category

R, K, W = AnswerKind.REPEATED, AnswerKind.KEPT, AnswerKind.WRONG_ALARM


def answered(kind: AnswerKind, category: Category, *, scanner: str = "CT_1", reason: str = "") -> Answered:
    return Answered(month="2026-11", scanner=scanner, protocol="Chest", kind=kind, category=category, reason=reason)


def test_the_repeat_rate_is_of_all_series_and_the_precision_of_answered_alarms() -> None:
    given = [
        answered(R, Category.REPEAT),
        answered(K, Category.LOOK),
        answered(W, Category.LOOK),
        answered(W, Category.REPEAT),
        answered(R, Category.FINE),  # a repeat that the node did not ask for
        answered(K, Category.FINE),
    ]

    [line] = lines(given, {("2026-11", "CT_1"): (100, 9)})

    assert (line.repeated.n, line.repeated.of, line.repeated.value) == (2, 100, 0.02)
    assert (line.precision.n, line.precision.of, line.precision.value) == (2, 4, 0.5)
    assert line.repeated_without_alarm == 1
    low, high = line.precision.interval
    assert round(low, 3) == 0.15  # Wilson for 2 of 4
    assert round(high, 3) == 0.85


def test_a_scanner_without_answers_has_a_line_and_no_precision() -> None:
    [line] = lines([], {("2026-11", "CT_2"): (50, 3)})

    assert line.repeated.value == 0
    assert line.precision.value is None


def test_the_newest_month_comes_first_and_its_total_adds_up() -> None:
    given = [answered(R, Category.REPEAT, scanner="CT_2"), answered(W, Category.REPEAT)]
    found = lines(given, {("2026-10", "CT_1"): (7, 0), ("2026-11", "CT_1"): (10, 1), ("2026-11", "CT_2"): (20, 2)})

    assert [(line.month, line.scanner) for line in found] == [
        ("2026-11", "CT_1"), ("2026-11", "CT_2"), ("2026-10", "CT_1"),
    ]  # fmt: skip
    whole = total(found, month="2026-11")
    assert (whole.n_series, whole.repeated.n, whole.precision.n, whole.precision.of) == (30, 1, 1, 2)


def test_reasons_of_repeats_are_counted_the_commonest_first() -> None:
    given = [answered(R, Category.REPEAT, reason="motion") for _ in range(3)]
    given += [answered(R, Category.LOOK), answered(K, Category.LOOK, reason="motion")]

    assert repeats_by(given, "reason") == [("motion", 3), ("", 1)]
