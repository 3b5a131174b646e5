"""Options of the acceptance run: `pytest -m acceptance tests/acceptance --collection DIR --table FILE`."""

import os
from pathlib import Path

import pytest
from acceptance.series import Series, ct_and_mr


@pytest.fixture(scope="session")
def collection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Series]:
    """Return the CT and MR series of the collection by Series Instance UID."""
    named = request.config.getoption("--collection", None) or os.environ.get("MEDIQA_COLLECTION")
    if not named:
        pytest.skip("needs --collection DIR")
    return ct_and_mr(Path(named), tmp_path_factory.mktemp("sets"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--collection", help="folder of image sets with manifest.json; else $MEDIQA_COLLECTION")
    parser.addoption("--table", help="file that the table of all series is written to")
