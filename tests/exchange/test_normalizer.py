"""The label map: equal dose ratios are equal steps, fitted on the training split alone."""

from typing import Any

import pytest

from mediqa_node.exchange.normalizer import fit_normalizers, normalized


def row(value: float | None, *, split: str = "train", label: str = "mas", region: str = "chest", **changes: Any) -> Any:
    return {
        "label_name": label, "label_value": value, "modality": "CT" if label == "mas" else "MR", "region": region,
        "type": "lung", "patient_key": str(value), "split": split, "stage1_eligible": True, **changes,
    }  # fmt: skip


def test_without_enough_series_the_bounds_are_those_of_the_literature() -> None:
    maps = fit_normalizers([row(value) for value in (10.0, 20.0, 100.0, 400.0)])

    assert maps["mas:CT"]["source"] == "fixed"
    assert maps["mas:CT"]["n"] == 4
    found = [normalized(row(value), maps)["label_norm"] for value in (5.0, 10.0, 20.0, 100.0, 400.0, 800.0)]
    assert found == pytest.approx([0.0, 0.0, 0.19, 0.62, 1.0, 1.0], abs=0.005)


def test_a_stratum_with_enough_series_is_fitted_between_its_percentiles_on_the_training_split() -> None:
    train = [row(float(value)) for value in range(50, 150)]
    rest = [row(9000.0, split="test"), row(1.0, stage1_eligible=False), row(7.0, region="abdomen")]

    maps = fit_normalizers([*train, *rest])

    assert maps["mas:CT/chest/lung"]["n"] == 100
    assert maps["mas:CT/chest/lung"]["lo"] == pytest.approx(50.99)
    assert maps["mas:CT/chest/lung"]["hi"] == pytest.approx(148.01)
    assert normalized(rest[0], maps) == {"label_norm": 1.0, "normalizer_id": "mas:CT/chest/lung"}
    assert normalized(rest[2], maps)["normalizer_id"] == "mas:CT"


def test_a_constant_label_is_not_stretched() -> None:
    maps = fit_normalizers([row(100.0, patient_key=str(n)) for n in range(20)])

    assert maps["mas:CT"]["source"] == "fixed"


def test_field_strengths_keep_their_levels() -> None:
    rows = [row(1.5, label="tesla"), row(3.0, label="tesla"), row(3.0, label="tesla"), row(0.3, label="tesla")]

    maps = fit_normalizers(rows)

    assert maps["tesla:MR"]["levels"] == {"0.3": 1, "1.5": 1, "3": 2}
    found = [normalized(one, maps)["label_norm"] for one in rows]
    assert found == pytest.approx([0.51, 0.73, 0.73, 0.0], abs=0.005)


def test_a_series_without_a_label_has_no_map() -> None:
    assert fit_normalizers([row(None)]) == {}
    assert normalized(row(None), {}) == {"label_norm": None, "normalizer_id": None}
