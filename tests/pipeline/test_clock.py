"""The wall clock is set while series arrive and reports wait: everything goes on as if it had not been."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bench import Bench
from support.scripted import ScriptedPacs, scripted
from support.series import ct_series, series_uid
from support.siblings import before_release

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules, Retention
from mediqa_node.pipeline.clock_watch import PAUSE_S, ClockWatch
from mediqa_node.pipeline.sweeps import retain
from mediqa_node.storage import clock, commitment_requests, report_commitments

DAY_S = 86400.0


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    """A PACS that stores what it gets."""
    with scripted() as running:
        yield running


class Machine:
    """A machine with a boot clock that goes on and a wall clock that can be set."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.set_by_s = 0.0
        self.boot = "first"
        self.steps = 0
        self.watch = self.courier()
        self.watch.look()

    def courier(self) -> ClockWatch:
        """Return the watch of a courier that starts now."""
        return ClockWatch(self.bench.node, self._stepped, offset_s=lambda: self.set_by_s, boot=lambda: self.boot)

    def _stepped(self) -> None:
        self.steps += 1

    def set_clock(self, by_s: float) -> None:
        """Set the wall clock, and let the courier notice."""
        self.set_by_s += by_s
        self.bench.now += by_s
        self.watch.look()


@pytest.fixture
def bench(tmp_path: Path, pacs: ScriptedPacs) -> Iterator[Bench]:
    """A bench with a PACS, that keeps images for thirty days and gives up after seven."""
    peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
    made = Bench(tmp_path / "bench", peers=[peer], retention=Retention(days=30), delivery=DeliveryRules(timeout_s=61.0))
    yield made
    made.close()


STEPS = pytest.mark.parametrize(
    "step_s", [-DAY_S, *before_release(DAY_S), 40 * DAY_S, *before_release(-40.0, 40.0)], ids="{:+.0f} s".format
)


@STEPS
def test_a_series_that_was_arriving_is_reported_in_its_own_time(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, step_s: float
) -> None:
    machine = Machine(bench)
    paths = ct_series(tmp_path / "one", "x", slices=range(6))
    for path in paths[:3]:
        bench.receive(path)
    machine.set_clock(step_s)
    for path in paths[3:]:
        bench.receive(path)
    bench.release(released=False)

    bench.pass_time(8)
    assert bench.series(series_uid(paths)).state == "RECEIVING", "not earlier than ten seconds after the last image"
    bench.pass_time(4)
    assert bench.series(series_uid(paths)).state == "ASSESSED"
    bench.pass_time(60)
    assert len(pacs.received) == 1
    assert machine.steps == 1


@STEPS
def test_a_report_that_was_waiting_leaves_in_its_own_time(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, step_s: float
) -> None:
    machine = Machine(bench)
    paths = ct_series(tmp_path / "one", "x")
    for path in paths:
        bench.receive(path)
    bench.release(released=False)
    bench.pass_time(15)
    machine.set_clock(step_s)

    bench.pass_time(30)
    assert pacs.received == []
    bench.pass_time(30)
    assert len(pacs.received) == 1


@pytest.mark.parametrize(
    ("step_s", "away_s"),
    [(120.0, 7.0), *before_release((300.0, 7.0), (-120.0, 7.0), (40.0, 25.0), (DAY_S, 1300.0), (-DAY_S, 1300.0))],
)
def test_a_clock_that_is_set_while_the_courier_restarts_changes_nothing_either(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, step_s: float, away_s: float
) -> None:
    machine = Machine(bench)
    paths = ct_series(tmp_path / "one", "x", slices=range(6))
    bench.now += 700
    machine.courier().look()  # which keeps that it has looked
    for path in paths[:3]:
        bench.receive(path)
    last = bench.now
    bench.now += away_s / 2
    machine.set_by_s += step_s
    bench.now += step_s + away_s / 2 - 2
    late = ct_series(tmp_path / "late", "z")
    bench.receive(late[0], association="a2")
    bench.now += 2
    (restarted := machine.courier()).look()

    row = bench.series(series_uid(paths))
    assert bench.now - row.last_instance_at == pytest.approx(away_s), "as long ago as it was"
    assert row.last_instance_at == pytest.approx(last + step_s)
    assert bench.now - bench.series(series_uid(late)).last_instance_at == pytest.approx(2), "by the clock as it is set"
    assert machine.steps == 1
    restarted.look()
    assert machine.steps == 1


def test_a_dead_peer_is_not_given_up_because_the_clock_was_set(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    machine = Machine(bench)
    pacs.statuses = [0xA700] * 100
    bench.receive_all(paths := ct_series(tmp_path / "one", "x"))
    bench.pass_time(20)

    machine.set_clock(40 * DAY_S)
    bench.pass_time(600)

    [delivery] = bench.deliveries(series_uid(paths))
    assert delivery.state == "waiting"


@pytest.mark.parametrize("confirmed", [False, True])
def test_nothing_is_deleted_after_a_step_forward_until_it_is_confirmed_or_a_day_has_passed(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, confirmed: bool
) -> None:
    machine = Machine(bench)
    bench.receive_all(ct_series(tmp_path / "one", "x"))
    bench.pass_time(20)
    machine.set_clock(40 * DAY_S)
    assert retain(bench.node) == 0

    if confirmed:
        with bench.database.write() as connection:
            assert clock.confirm(connection, by="Curie")
    else:
        bench.now += PAUSE_S
    assert retain(bench.node) == 5


def test_a_long_shutdown_is_no_step(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    machine = Machine(bench)
    bench.receive_all(ct_series(tmp_path / "one", "x"))
    bench.pass_time(20)

    bench.now += 40 * DAY_S
    machine.boot, machine.set_by_s = "second", 1e9
    machine.courier().look()

    assert machine.steps == 0
    assert retain(bench.node) == 5


def test_a_machine_that_starts_in_the_past_has_been_set_back(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    machine = Machine(bench)
    paths = ct_series(tmp_path / "one", "x")
    for path in paths:
        bench.receive(path)
    bench.release(released=False)

    bench.now -= 365 * DAY_S
    machine.boot, machine.set_by_s = "second", -3e9
    machine.courier().look()
    bench.pass_time(100)

    assert machine.steps == 1
    assert len(pacs.received) == 1


def test_slewing_is_no_step(bench: Bench) -> None:
    machine = Machine(bench)
    for _ in range(100):
        machine.set_clock(0.4)

    assert machine.steps == 0


@pytest.mark.parametrize("by_s", [DAY_S, -DAY_S])
def test_what_waits_for_commitment_follows_the_clock(bench: Bench, by_s: float) -> None:
    machine = Machine(bench)
    at = bench.now
    with bench.database.write() as connection:
        pairs = {"1.2.3": "1.2"}
        how = {"calling_ae_title": "CT1", "transaction_uid": "1.2.4", "peer": "PACS", "pairs": pairs}
        commitment_requests.keep(bench.database, connection, **how, at=at, deadline_at=at + DAY_S)
        report_commitments.note(bench.database, connection, [1], since=at, ask_at=at + 3600)
    bench.now += 600
    machine.set_clock(by_s)

    with bench.database.read() as connection:
        [request] = commitment_requests.to_ask(connection, now=bench.now)
        ask_at = connection.execute(sa.text("SELECT ask_at FROM report_commitments")).scalar_one()
    assert (request.received_at, request.deadline_at) == (at + by_s, at + by_s + DAY_S)
    assert ask_at == at + by_s + 3600
