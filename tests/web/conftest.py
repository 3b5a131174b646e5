"""A workbench for each test, and a browser for all of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from support.bench import Bench
from support.served import Served, launch
from support.workbench import Site


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Debian's Chromium; skip without it, or fail with --require-peers."""
    if not Path("/usr/bin/chromium").exists():
        reason = "needs chromium: apt-get install chromium"
        (pytest.fail if request.config.getoption("--require-peers") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()


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
