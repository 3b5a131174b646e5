"""Options of the acceptance run: `pytest -m acceptance tests/acceptance --collection DIR --table FILE`."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--collection", help="folder of image sets with manifest.json; else $MEDIQA_COLLECTION")
    parser.addoption("--table", help="file that the table of all series is written to")
