"""The supervisor: what becomes of the others when one process does not start."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.waiting import until

from mediqa_node.config import load
from mediqa_node.service import supervisor
from mediqa_node.service.roles import REFUSED, RESTART
from mediqa_node.service.supervisor import Supervisor

Start = Callable[[], "subprocess.Popen[bytes]"]


def ends_with(status: int) -> Start:
    return lambda: subprocess.Popen([sys.executable, "-c", f"raise SystemExit({status})"])


def raises() -> "subprocess.Popen[bytes]":
    raise BlockingIOError(11, "Resource temporarily unavailable")


class Scripted(Supervisor):
    """A supervisor of one worker, whose processes are given."""

    def __init__(self, folder: Path, starts: list[Start]) -> None:
        super().__init__(load(folder / "node.yaml"), [], {})
        self.starts = starts
        self.thread = threading.Thread(target=self._keep, args=("worker",))

    def _start(self, role: str) -> "subprocess.Popen[bytes] | None":
        if not self.starts:
            self._stop.wait(60)
            return None
        return self.starts.pop(0)()

    @property
    def is_stopped(self) -> bool:
        """Whether the whole node ends."""
        return self._stop.is_set()

    def end(self) -> None:
        """End it from outside."""
        self._stop.set()
        self.thread.join()


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Scripted]]:
    monkeypatch.setattr(supervisor, "_BACKOFF_S", (0.01,))
    (tmp_path / "node.yaml").write_text("node: {data_dir: var}\n")
    made: list[Scripted] = []

    def start(*starts: Start) -> Scripted:
        made.append(Scripted(tmp_path, list(starts)))
        made[-1].thread.start()
        return made[-1]

    yield start
    for one in made:
        one.end()


def test_a_first_process_that_refuses_to_start_ends_the_node(supervised: Callable[..., Scripted]) -> None:
    node = supervised(ends_with(REFUSED), ends_with(0))

    until(lambda: node.is_stopped, "the node ends")
    assert len(node.starts) == 1


@pytest.mark.parametrize("before", [RESTART, 1, -9 & 0xFF])
def test_a_later_one_is_tried_again_and_the_others_go_on(before: int, supervised: Callable[..., Scripted]) -> None:
    with capture_logs() as lines:
        node = supervised(ends_with(before), ends_with(REFUSED), ends_with(REFUSED))
        until(lambda: not node.starts, "it is tried again")

    assert not node.is_stopped
    assert {line["status"] for line in lines} >= {REFUSED}


def test_a_process_that_the_system_cannot_start_is_started_later(supervised: Callable[..., Scripted]) -> None:
    with capture_logs() as lines:
        node = supervised(ends_with(1), raises, raises, ends_with(0))
        until(lambda: not node.starts, "it is tried again")

    assert not node.is_stopped
    assert [line["reason"] for line in lines if line["event"] == "process not started"] == [
        "Resource temporarily unavailable"
    ] * 2
