"""Factors of AAPM Report 204 against its tables, and where there is none."""

import pytest

from mediqa_node.domain.measures import Limit
from mediqa_node.domain.size_specific_dose import relative_uncertainty, size_factor

TABLE_1D = {8: 2.76, 12: 2.38, 16: 2.06, 20: 1.78, 24: 1.53, 28: 1.32, 32: 1.14, 36: 0.99, 40: 0.85, 45: 0.71}
"""Effective diameter in cm and conversion factor, phantom of 32 cm."""
TABLE_2D = {6: 1.49, 10: 1.27, 16: 1.01, 22: 0.80, 28: 0.63, 34: 0.50, 40: 0.40, 46: 0.32, 55: 0.22}
"""The same for the phantom of 16 cm."""


@pytest.mark.parametrize(("phantom_cm", "table"), [(32, TABLE_1D), (16, TABLE_2D)])
def test_factors_of_bodies_are_those_of_the_tables(phantom_cm: int, table: dict[int, float]) -> None:
    found = {dw_cm: size_factor(10.0 * dw_cm, phantom_cm, "body") for dw_cm in table}

    assert found == pytest.approx(table, abs=0.01)


@pytest.mark.parametrize(
    ("dw_mm", "phantom_cm", "body_part", "limit"),
    [
        (300.0, None, "body", Limit.PHANTOM_UNKNOWN),
        (300.0, 20, "body", Limit.PHANTOM_UNKNOWN),
        (170.0, 16, "head", Limit.NO_HEAD_FACTORS),
        (170.0, 32, "head", Limit.NO_HEAD_FACTORS),
        (170.0, 16, None, Limit.BODY_OR_HEAD),
        (79.0, 32, "body", Limit.SIZE_OUT_OF_RANGE),
        (451.0, 32, None, Limit.SIZE_OUT_OF_RANGE),
        (59.0, 16, "body", Limit.SIZE_OUT_OF_RANGE),
    ],
)
def test_there_is_no_factor_without_phantom_region_or_size(
    dw_mm: float, phantom_cm: int | None, body_part: str | None, limit: Limit
) -> None:
    assert size_factor(dw_mm, phantom_cm, body_part) is limit


def test_a_centimetre_of_dw_adds_its_part_to_the_uncertainty() -> None:
    assert relative_uncertainty(32, 0.0) == pytest.approx(0.10)
    assert relative_uncertainty(32, 10.0) == pytest.approx((0.10**2 + 0.0367**2) ** 0.5, abs=1e-4)
