"""A running node whose wall clock is set: a day back, a day forward, forty days forward (libfaketime)."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.node import QUICK, Node
from support.scripted import ScriptedPacs, scripted
from support.senders import Scu, storescu
from support.series import ct_series, series_uid
from support.waiting import need, until

pytestmark = pytest.mark.acceptance

LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
DAY_S = 86400
_PROOF = """
import os, sys, time
at = time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
file = open(sys.argv[1], "w").close()
print(*at, os.stat(sys.argv[1]).st_mtime)
"""


class SetClock:
    """What processes under libfaketime take for the time: the real one, moved by what a file says."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._file = folder / "by"
        self.by_s = 0
        self.set(0)
        # libfaketime refuses absolute waits on the monotonic clock, which time.sleep makes
        (folder / "sitecustomize.py").write_text(
            "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds)\n"
        )
        self.environment = {
            "LD_PRELOAD": LIBRARY,
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }

    def set(self, by_s: int) -> None:
        """Set the wall clock of the processes to the real time and this much."""
        self.by_s = by_s
        new = self._file.with_suffix(".new")
        new.write_text(f"{by_s:+d}\n")
        new.replace(self._file)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> SetClock:
    """A clock that moves the wall clock and nothing else: proven here before anything rests on it."""
    need(request.config, "/usr/bin/faketime")
    made = SetClock(tmp_path_factory.mktemp("clock") / "set")
    made.set(-DAY_S)
    command = [sys.executable, "-c", _PROOF, str(made.folder / "file")]
    ran = subprocess.run(command, env={**os.environ, **made.environment}, capture_output=True, text=True, check=True)
    wall, monotonic, boot, modified = map(float, ran.stdout.split())
    assert abs(time.time() - DAY_S - wall) < 60
    assert abs(time.monotonic() - monotonic) < 60
    assert abs(time.clock_gettime(time.CLOCK_BOOTTIME) - boot) < 60
    assert abs(time.time() - modified) < 60
    made.set(0)
    return made


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, clock: SetClock) -> Iterator[tuple[Node, ScriptedPacs]]:
    """A node under that clock, which keeps images for thirty days, and its PACS."""
    with scripted() as pacs:
        peers = {"PACS": {"ae_title": "SCRIPTED", "host": "127.0.0.1", "port": pacs.port}}
        completion = {**QUICK["completion"], "deliver_after_s": 3}
        made = Node(tmp_path_factory.mktemp("node"), peers=peers, completion=completion)
        made.start(environment=clock.environment)
        yield made, pacs
        made.close()


@pytest.mark.parametrize("step_s", [DAY_S, -DAY_S, 40 * DAY_S], ids="{:+d} s".format)
def test_series_are_reported_as_if_the_clock_had_not_been_set(
    node: tuple[Node, ScriptedPacs], clock: SetClock, tmp_path: Path, step_s: int
) -> None:
    running, pacs = node
    before = len(pacs.received)
    half = ct_series(tmp_path / "half", f"half {step_s}", slices=range(6))
    waiting = ct_series(tmp_path / "waiting", f"waiting {step_s}")
    with Scu(running.port, waiting, aet="CT_ROOM_2") as broken:
        assert [broken.send(path) for path in waiting] == [0] * 5
        broken.association.abort()
    with Scu(running.port, half) as sender:
        assert [sender.send(path) for path in half[:3]] == [0] * 3
        files = set(running.spool.rglob("*"))
        clock.set(clock.by_s + step_s)
        began = time.monotonic()
        assert [sender.send(path) for path in half[3:]] == [0] * 3
    for paths in (half, waiting):
        running.reaches(series_uid(paths), "DELIVERED", within_s=60)
    took_s = time.monotonic() - began

    assert len(pacs.received) == before + 2
    assert took_s < 30, "seconds, as without a step"
    assert files <= set(running.spool.rglob("*")), "nothing was deleted"
    after = ct_series(tmp_path / "after", f"after {step_s}")
    storescu(running.port, after, aet="CT_ROOM_3")
    running.reaches(series_uid(after), "DELIVERED", within_s=60)
    [noticed] = [line for line in running.log("the clock was set") if abs(line["seconds"] - step_s) < 5]
    assert noticed["level"] == "warning"
    until(running.answers_echo, "C-ECHO is answered")


def test_status_says_that_nothing_is_deleted_until_somebody_has_confirmed_the_clock(
    node: tuple[Node, ScriptedPacs], clock: SetClock
) -> None:
    running, _ = node
    shown = running.command("status")
    assert "the clock was set forward" in shown.stdout
    assert "nothing is deleted" in shown.stdout
    assert "mediqa-node clock --confirm --by NAME" in shown.stdout
    assert shown.returncode == 1

    confirmed = running.command("clock", "--confirm", "--by", "Curie")
    assert confirmed.returncode == 0, confirmed.stderr
    assert "nothing is deleted" not in running.command("status").stdout
