"""Parameters that a test only needs to try before a release, because similar ones run every time."""

from collections.abc import Iterable
from typing import Any

import pytest


def before_release(*values: Any) -> list[Any]:
    """Mark parameters as `acceptance`; a tuple is one value for each name."""
    return [pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=pytest.mark.acceptance) for v in values]


def one_in(n: int, values: Iterable[Any]) -> list[Any]:
    """Run the first of every `n` parameters each time, the others before a release."""
    return [one for i, value in enumerate(values) for one in (before_release(value) if i % n else [value])]
