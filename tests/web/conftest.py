"""A workbench for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.workbench import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An empty site on loopback."""
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture
def jane(site: Site) -> int:
    """The number of a physicist called jane."""
    return site.add_user("jane", "physicist")
