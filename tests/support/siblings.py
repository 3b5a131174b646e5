"""Parameters that a test only needs to try before a release, because similar ones run every time."""

from typing import Any

import pytest


def before_release(*values: Any) -> list[Any]:
    """Mark parameters as `acceptance`; a tuple is one value for each name."""
    return [pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=pytest.mark.acceptance) for v in values]
