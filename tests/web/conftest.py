"""A browser for the tests of the workbench, one for all files."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from support.bench import Bench
from support.served import Served, launch


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
