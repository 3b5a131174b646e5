"""`python -m tests.benchmarks.pages`: the workbench with 100,000 series, and what its process costs while nobody looks.

Server time of every page, over a real socket; time until a page answers to a click, in Chromium; compressed scripts of
each page; processor time and memory of the idle web process. The series are copies of a few real ones, see
`tests/support/many.py`.
"""

import argparse
import gzip
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import httpx
import psutil
import yaml
from playwright.sync_api import sync_playwright

from mediqa_node.domain.access import Role
from mediqa_node.storage import sessions, users
from mediqa_node.web.access import COOKIE
from tests.support.bench import Bench
from tests.support.many import multiply
from tests.support.series import ct_series
from tests.support.served import launch
from tests.support.waiting import free_port

PAGES = (
    "/", "/?received=all", "/?received=all&category=repeat", "/?received=all&q=room_3", "/?received=all&before={half}",
    "/?received=30d&open=1", "/series/{half}?received=all", "/trends", "/labels", "/labels?state=excluded",
    "/labels/exports", "/reading", "/calibrations", "/operations", "/users", "/rooms", "/audit", "/account",
    "/api/v1/series?received=all",
)  # fmt: skip
_RUNS = 7


def prepare(folder: Path, n: int) -> str:
    """Fill the database of a node in a folder; return the token of an open session."""
    bench = Bench(folder / "var")
    bench.now = time.time() - 3600
    series = [
        ct_series(folder / f"ct{i}", f"ct{i}", slices=range(8), pixels=f"p{i}", StationName=f"CT{i % 2}")
        for i in range(6)
    ]
    reference = files("mediqa_node") / "reference"
    series += [sorted(Path(str(reference / name)).glob("*.dcm")) for name in ("mr_breast", "op_fundus")]
    for i, paths in enumerate(series):
        bench.receive_all(paths, association=f"a{i}")
        bench.pass_time(5)
    bench.lister.run()
    token = ""
    with bench.database.write() as connection:
        for role in (Role.PHYSICIST, Role.ADMINISTRATOR):
            users.add(connection, role, role, "no password", by="benchmark", at=time.time())
        user = users.find(connection, Role.ADMINISTRATOR)
        assert user is not None
        token = sessions.open_session(connection, at=time.time(), address="127.0.0.1", user_id=user.id)
        physicist = users.find(connection, Role.PHYSICIST)
        assert physicist is not None
        token += " " + sessions.open_session(connection, at=time.time(), address="127.0.0.1", user_id=physicist.id)
    bench.close()
    multiply(folder / "var" / "node.db", n, now=time.time())
    return token


@contextmanager
def web_process(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run the web process of a node alone."""
    port = free_port()
    configuration = folder / "node.yaml"
    configuration.write_text(yaml.safe_dump({"node": {"data_dir": "var"}, "web": {"port": port}}))
    line = [sys.executable, "-m", "mediqa_node", "-c", str(configuration), "process", "web"]
    with (folder / "web.log").open("wb") as log:
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(400):
            try:
                httpx.get(f"{address}/sign-in")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=20)


def server_times(address: str, tokens: list[str], half: int) -> Iterator[str]:
    """Yield the time of each page."""
    clients = [httpx.Client(base_url=address, cookies={COOKIE: token}, timeout=60) for token in tokens]
    worst = 0.0
    for pattern in PAGES:
        path = pattern.format(half=half)
        client = next((one for one in clients if one.get(path).status_code != 403), clients[0])
        took = []
        for _ in range(_RUNS):
            before = time.perf_counter()
            answer = client.get(path)
            took.append(1000 * (time.perf_counter() - before))
        worst = max(worst, statistics.median(took))
        scripts = sum(
            len(gzip.compress(client.get(one).content, 9)) for one in re.findall(r'<script src="([^"]+)"', answer.text)
        )
        said = f"{path:42} {answer.status_code}  median {statistics.median(took):4.0f} ms, longest {max(took):4.0f} ms"
        yield f"{said}, {len(answer.content) / 1000:4.0f} kB, scripts {scripts / 1000:3.0f} kB compressed"
    yield f"slowest page: {worst:.0f} ms (median of {_RUNS})"


def interactive_times(address: str, token: str, half: int) -> Iterator[str]:
    """Yield the time until a page has run its scripts, in Chromium."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.add_cookies([{"name": COOKIE, "value": token, "url": address}])
        for path in ("/?received=all", f"/series/{half}", "/trends", "/labels", "/operations"):
            took = []
            for _ in range(3):
                page = context.new_page()
                page.goto(address + path, wait_until="domcontentloaded")
                took.append(page.evaluate("performance.getEntriesByType('navigation')[0].domInteractive"))
                page.close()
            yield f"{path:42} interactive after {statistics.median(took):4.0f} ms (n = 3)"
        browser.close()


def idle(process: psutil.Process, seconds: float) -> str:
    """Return what the process costs while nobody looks."""
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    share = (after.user + after.system - before.user - before.system) / seconds
    return f"idle, {seconds:.0f} s: {share:.2%} of one core, {process.memory_info().rss / 1e6:.0f} MB"


def figures(n: int, idle_s: float) -> Iterator[str]:
    """Yield all figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokens = prepare(folder, n).split()
        size = (folder / "var" / "node.db").stat().st_size
        yield f"{n:,} series, database of {size / 1e9:.1f} GB"
        with web_process(folder) as (address, process):
            yield f"before any page: {idle(process, 5)}"
            yield from server_times(address, tokens, n // 2)
            yield from interactive_times(address, tokens[1], n // 2)
            yield idle(process, idle_s)


def main() -> None:
    """Print all figures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--series", type=int, default=100_000)
    arguments.add_argument("--idle", type=float, default=60.0)
    given = arguments.parse_args()
    for line in figures(given.series, given.idle):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
