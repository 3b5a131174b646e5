"""A workbench for each test, and a browser for all of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.bench import Bench
from support.served import Served
from support.workbench import Site


@pytest.fixture
def serving() -> Iterator[Callable[[Bench], Served]]:
    """Serve the workbench of a bench."""
    running: list[Served] = []

    def start(bench: Bench) -> Served:
        running.append(Served(bench))
        return running[-1]

    yield start
    for served in running:
        served.close()


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
