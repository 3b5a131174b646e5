"""What many tests start, and the profile of Hypothesis."""

import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings
from support.decoding import KeptReader
from support.receiving import Listening

pytest_plugins = ["support.postgresql"]

settings.register_profile("shared machine", deadline=None)  # a deadline would measure who else is working here
settings.load_profile("shared machine")

structlog.configure(  # the default draws every variable of a traceback, which takes seconds
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-peers", action="store_true", help="fail, not skip, where DCMTK or another peer is missing"
    )


def pytest_collection_finish() -> None:
    gc.freeze()


@pytest.fixture(scope="session")
def kept_reader() -> Iterator[KeptReader]:
    """A reader whose process serves all tests that share it."""
    reader = KeptReader()
    yield reader
    reader.close()


@pytest.fixture
def one_decoder(kept_reader: KeptReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode all series of a test, and of others, in one process."""
    monkeypatch.setattr("mediqa_node.pipeline.score.FrameReader", lambda: kept_reader)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Callable[..., Listening]]:
    """Start a receiver in this process on a free port; arguments are those of its policy."""
    started: list[Listening] = []

    def start(**arguments: Any) -> Listening:
        started.append(Listening(tmp_path / f"node{len(started)}", **arguments))
        return started[-1]

    yield start
    for node in started:
        node.stop(within_s=1.0)


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Debian's Chromium, one for all files of a process; skip without it, or fail with --require-peers."""
    if not Path("/usr/bin/chromium").exists():
        reason = "needs chromium: apt-get install chromium"
        (pytest.fail if request.config.getoption("--require-peers") else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright  # late: most tests need no browser
    from support.served import launch

    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()


@pytest.fixture
def peer(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return the path of a program that tests talk to; skip without it, or fail with --require-peers."""

    def find(program: str) -> str:
        path = shutil.which(program, path="/usr/bin:/usr/sbin")  # not pynetdicom's storescu in the virtualenv
        if path is None:
            reason = f"needs {program}: apt-get install {'strace' if program == 'strace' else 'dcmtk'}"
            (pytest.fail if request.config.getoption("--require-peers") else pytest.skip)(reason)
        return path

    return find


@pytest.fixture
def dcmtk(peer: Callable[[str], str]) -> Callable[[str], str]:
    """Return the path of a DCMTK program."""
    return peer
