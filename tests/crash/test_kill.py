"""Faults F1 and F2: SIGKILL at named places and at random times, under load, with a real PACS.

What a sender was told is the truth; spool, PACS and `mediqa-node verify` have to agree with it.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support import trial
from support.node import Node
from support.orthanc import Orthanc, evidence_instances
from support.outside import Sent, differences
from support.receiver_process import WAITS_S, waiting_callers
from support.senders import answered, start_storescu
from support.series import ct_series
from support.waiting import until

from mediqa_node.storage import overview
from mediqa_node.system.failpoint import COURIER, RECEIVER, WORKER

pytestmark = pytest.mark.peers

ALL = {
    name: role for role, names in (("receiver", RECEIVER), ("worker", WORKER), ("courier", COURIER)) for name in names
}
EVERY_RUN = ("before-commit", "after-inference")  # one process each; the other places before a release


def load(folder: Path, word: str, n_series: int = 3, n_slices: int = 5) -> list[list[Path]]:
    """Write the series that scanners send at once."""
    return [
        ct_series(folder / f"{word}{i}", f"{folder} {word} {i}", slices=range(n_slices), patient_id=f"P{i}")
        for i in range(n_series)
    ]


def send_all(node: Node, series: list[list[Path]], sent: Sent) -> bool:
    """Send series in parallel, one scanner each, and note every answer; True if all were acknowledged."""
    sending = [start_storescu(node.port, paths, aet=f"CT_{i}") for i, paths in enumerate(series)]
    whole = True
    for paths, process in zip(series, sending, strict=True):
        statuses = answered(process)
        sent.note(paths, statuses)
        whole = whole and set(statuses.values()) == {0} and len(statuses) == len(paths)
    return whole


def send_until_acknowledged(node: Node, series: list[list[Path]], sent: Sent, *, within_s: float = 90.0) -> None:
    """Send as a scanner does: what was not acknowledged is sent again."""
    deadline = time.monotonic() + within_s
    while not send_all(node, series, sent):
        assert time.monotonic() < deadline, "scanners could not get rid of their images"
        time.sleep(0.2)


def assert_promise_kept(node: Node, pacs: Orthanc, sent: Sent, *, within_s: float = 90.0) -> None:
    """Wait until nothing is missing, then look once more: nothing may be there twice either."""
    ours = set(sent.attempted)

    def broken() -> list[str]:
        return differences(sent, node.spool, [r for r in pacs.reports() if evidence_instances(r) & ours])

    deadline = time.monotonic() + within_s
    while (problems := broken()) and time.monotonic() < deadline:
        time.sleep(0.3)
    assert problems == []
    until(lambda: _quiet(node), "the node has nothing left to do")
    assert broken() == []
    looked = node.command("verify", "--json")
    assert json.loads(looked.stdout)["problems"] == []


def _quiet(node: Node) -> bool:
    with node.database.read() as connection:
        facts = overview.facts(connection)
    return facts.n_receiving == facts.n_ready == facts.n_waiting == 0


SAYS = {"receiver": "receiving", "worker": "scoring", "courier": "delivering"}
"""What each process logs when it begins to work."""


class Mortal:
    """A running node whose processes can be told where to die next."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.armed: dict[str, str] = {}
        for name in reversed(EVERY_RUN):
            self._write(name)
        hook = Path(__file__).parents[1] / "support" / "hook"
        self.environment = {"PYTHONPATH": str(hook), "MEDIQA_TRIAL_FOLDER": str(folder)}

    def _write(self, name: str) -> None:
        (self.folder / ALL[name]).write_text(f"{name}@{self._token(name)}")
        self.armed[ALL[name]] = name

    def _token(self, name: str) -> Path:
        return self.folder / f"die-at-{name}"

    def starts(self, role: str) -> int:
        """How often a process of this role has begun to work."""
        return len(self.node.log(SAYS[role]))

    def arm(self, name: str) -> None:
        """See that the next process that comes by `name` with a token in place dies there."""
        role = ALL[name]
        if self.armed.get(role) != name:
            self._write(name)
            until(lambda: self._runs(role), f"{role} runs: after several deaths its supervisor takes its time")
            before = self.starts(role)
            self.node.kill(role)
            until(lambda: self.starts(role) > before, f"{role} runs again")

    def _runs(self, role: str) -> bool:
        try:
            return self.node.pid(role) > 0
        except LookupError:
            return False

    def dies_at(self, name: str, series: list[list[Path]], sent: Sent) -> None:
        """Put the node under load until a process has died at `name` and all is acknowledged."""
        role = ALL[name]
        self.arm(name)
        deaths = len(self._deaths(role))
        until(self.node.answers_echo, "the receiver is up")
        token = self._token(name)
        token.touch()
        send_until_acknowledged(self.node, series, sent)
        until(lambda: not token.exists(), f"a process came by {name}")
        until(lambda: len(self._deaths(role)) > deaths, f"the supervisor has seen {role} die")

    def _deaths(self, role: str) -> list[int]:
        ended = self.node.log("process ended and is started again")
        return [line["status"] for line in ended if line["role"] == role and line["status"] == -9]


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[Mortal]:
    """One node for all named places: it goes on after each death."""
    folder = tmp_path_factory.mktemp("mortal")
    peer = {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port, "commitment": True}
    node = Node(folder / "node", peers={"PACS_MAIN": peer}, companions={"secondary_capture": True})
    pacs.knows("node", "MEDIQA", node.port)
    running = Mortal(node, folder)
    running.node.start(environment=running.environment)
    yield running
    running.node.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [name if name in EVERY_RUN else pytest.param(name, marks=pytest.mark.acceptance) for name in ALL]
)
def test_a_process_killed_at_a_named_place_loses_and_doubles_nothing(
    name: str, mortal: Mortal, pacs: Orthanc, tmp_path: Path
) -> None:
    sent = Sent()
    chance = trial.dice("kill", name)
    n_series, n_slices = trial.rounds((3, 5), (chance.randint(1, 4), chance.randint(2, 9)))
    mortal.dies_at(name, load(tmp_path, name, n_series=n_series, n_slices=n_slices), sent)

    assert_promise_kept(mortal.node, pacs, sent)
    if name == "commitment-asked":  # what the archive answers counts, although nobody remembers the question
        until(lambda: mortal.node.log("delivery confirmed"), "the archive commits")


def test_callers_wait_while_the_receiver_starts_again_and_none_is_refused(mortal: Mortal) -> None:
    before = mortal.starts("receiver")

    killed = mortal.node.kill("receiver")
    until(lambda: not psutil.pid_exists(killed), "it accepts nobody any more", every_s=0.005)
    waited_s = waiting_callers([(mortal.node.port, None)] * 8)

    assert max(waited_s) < WAITS_S * max(1.0, 2 * os.getloadavg()[0])
    assert mortal.starts("receiver") == before + 1


@pytest.mark.acceptance
@pytest.mark.parametrize("role", ["receiver", "worker", "courier"])
def test_any_process_killed_in_idleness_is_back_and_serves(
    role: str, mortal: Mortal, pacs: Orthanc, tmp_path: Path
) -> None:
    before, sent = mortal.starts(role), Sent()
    mortal.node.kill(role)
    until(lambda: mortal.starts(role) > before, f"{role} runs again")

    send_until_acknowledged(mortal.node, load(tmp_path, role, n_series=1), sent)

    assert_promise_kept(mortal.node, pacs, sent)


def test_sigterm_under_load_ends_every_process_with_status_0_and_loses_nothing(
    mortal: Mortal, pacs: Orthanc, tmp_path: Path
) -> None:
    node, sent = mortal.node, Sent()
    series = load(tmp_path, "drained", n_series=4, n_slices=8)
    seen = len(node.log("association ended"))
    sending = [start_storescu(node.port, paths, aet=f"CT_{i}") for i, paths in enumerate(series)]
    until(lambda: len(node.log("association ended")) > seen, "the first sender is done", every_s=0.005)

    status = node.stop()

    assert status == 0
    assert node.log("process did not stop in time and is killed") == []
    for paths, process in zip(series, sending, strict=True):
        sent.note(paths, answered(process))
    node.start()
    send_until_acknowledged(node, series, sent)
    assert_promise_kept(node, pacs, sent)


def test_a_supervisor_that_was_killed_takes_its_processes_with_it(mortal: Mortal) -> None:
    node = mortal.node
    assert node.process is not None
    pids = [node.pid(role) for role in ("receiver", "worker", "courier")]

    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    node.process = None

    until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "no process is left behind")


@pytest.mark.acceptance
@pytest.mark.timeout(1200)
def test_a_node_killed_as_a_whole_at_random_times_loses_and_doubles_nothing(
    new_node: Callable[..., Node], pacs: Orthanc, tmp_path: Path
) -> None:
    node, sent, dice = new_node(), Sent(), trial.dice("rounds")
    for round_ in range(10):
        node.start(ready=False)
        until(node.answers_echo, "the receiver is up")
        series = load(tmp_path, f"round{round_}-", n_series=3)
        sending = [start_storescu(node.port, paths, aet=f"CT_{i}") for i, paths in enumerate(series)]
        # within the transmission in some rounds, within the judgement or the delivery in others
        time.sleep(dice.choice([dice.uniform(0.0, 0.15), dice.uniform(0.15, 3.0), dice.uniform(3.0, 12.0)]))
        node.kill_group()
        for paths, process in zip(series, sending, strict=True):
            sent.note(paths, answered(process))

    node.start()
    again = [paths for round_ in range(10) for paths in load(tmp_path, f"round{round_}-", n_series=3)]
    for few in (again[i : i + 3] for i in range(0, len(again), 3)):
        send_until_acknowledged(node, few, sent)

    assert_promise_kept(node, pacs, sent, within_s=240)
