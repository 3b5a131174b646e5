"""The workbench of a real node: a study that DCMTK sends appears on the open worklist and gets its score by itself."""

import subprocess
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from support.node import Node
from support.orthanc import Orthanc
from support.waiting import free_port, need, until

pytestmark = [pytest.mark.peers, pytest.mark.acceptance]
PASSWORD = "a password for the test"
DEFAULT = {"checkpoint": "default", "device": "cpu"}


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node that scores with the shipped checkpoint, reports to Orthanc and serves its workbench."""
    need(request.config, "/usr/sbin/Orthanc", "/usr/bin/storescu", "/usr/bin/chromium")
    pacs = Orthanc(tmp_path / "pacs").start()
    peers = {"PACS": {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port}}
    node = Node(tmp_path / "node", peers=peers, web={"port": free_port()}, model=DEFAULT)
    node.start()
    until(lambda: node.log("showing"), "the workbench is served")
    added = subprocess.run(
        [*node.command_line("users", "add", "curie", "--role", "administrator", "--password-stdin")],
        input=PASSWORD + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert added.returncode == 0, added.stderr
    yield node
    node.close()
    pacs.stop()


def test_a_study_that_is_sent_appears_and_gets_its_score_without_a_reload(node: Node, browser: Browser) -> None:
    [showing] = node.log("showing")
    images = sorted(Path(str(files("mediqa_node") / "demo_series")).glob("*.dcm"))
    page = browser.new_page(viewport={"width": 1360, "height": 800})
    loads: list[str] = []
    page.on("load", lambda: loads.append(page.url))
    page.goto(f"http://127.0.0.1:{showing['port']}/")
    page.fill("[name=name]", "curie")
    page.fill("[name=password]", PASSWORD)
    page.click("button.primary")
    expect(page.locator("#stream")).to_have_attribute("data-state", "live", timeout=30_000)
    before = len(loads)
    line = ["/usr/bin/storescu", "-aet", "CT1", "-aec", "MEDIQA", "127.0.0.1", str(node.port), *map(str, images)]
    sent = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert sent.returncode == 0, sent.stderr
    at = time.monotonic()
    row = page.locator("#rows tr").first
    expect(row).to_contain_text("8 images", timeout=30_000)
    appeared_s = time.monotonic() - at
    expect(row).to_contain_text("CT chest", timeout=60_000)
    scored_s = time.monotonic() - at
    expect(row).to_contain_text("PACS", timeout=60_000)
    took = f"row {appeared_s:.1f} s, score {scored_s:.1f} s, report {time.monotonic() - at:.1f} s"
    print(f"after the last image: {took}")  # noqa: T201 (a figure of the acceptance list)
    assert len(loads) == before
    page.close()
