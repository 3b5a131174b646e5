"""A dead destination and a stuck sweep leave a trace that `status` can read."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from support.bench import Bench
from support.scripted import scripted
from support.series import ct_series

from mediqa_node.domain.health import ConcernKind, Destination, Heartbeat, concerns
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules
from mediqa_node.pipeline import sweeps
from mediqa_node.pipeline.heartbeat import Beat, Pulse
from mediqa_node.storage.health import waiting_destinations
from mediqa_node.storage.heartbeats import read_heartbeats


def waiting(bench: Bench) -> list[Destination]:
    with bench.database.read() as connection:
        return waiting_destinations(connection)


def beats(bench: Bench) -> list[Heartbeat]:
    with bench.database.read() as connection:
        return read_heartbeats(connection)


def test_a_dead_pacs_is_seen_from_its_first_failure_until_it_answers(tmp_path: Path) -> None:
    down = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=1)
    bench = Bench(tmp_path / "bench", peers=[down], delivery=DeliveryRules(retry_first_s=300.0))
    bench.receive_all(ct_series(tmp_path / "ct", "one"))
    bench.pass_time(60, step_s=10, until=lambda: any(one.failing_since for one in waiting(bench)))
    [first] = waiting(bench)
    bench.pass_time(700, step_s=100)
    [later] = waiting(bench)

    assert (later.n_waiting, later.failing_since) == (1, first.failing_since)
    assert "is not reachable or did not answer" in later.why
    [concern] = concerns([later], [], has_room=True, now=bench.now)
    assert concern.kind is ConcernKind.UNREACHABLE

    with scripted() as pacs:
        bench.node = replace(bench.node, peers=(replace(down, port=pacs.port),))
        bench.pass_time(400, step_s=100, until=lambda: not waiting(bench))
    assert waiting(bench) == []
    bench.close()


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path / "bench")
    yield made
    made.close()


def test_a_sweep_that_hangs_grows_old_while_the_others_run(bench: Bench) -> None:
    at = [0.0]
    pulse = Pulse(clock=lambda: at[0])
    good, bad = (pulse.timed(name, 5.0, lambda: None) for name in ("good", "hung"))
    beat = Beat(bench.database, "courier", pulse, clock=lambda: 1000.0 + at[0])
    bad()
    for at[0] in range(0, 100, 5):
        good()
    beat.write()

    [row] = beats(bench)
    assert {name: sweep.age_s for name, sweep in row.sweeps.items()} == {"good": 0.0, "hung": 95.0}
    assert [name for name, _ in row.late(1000.0 + at[0])] == ["hung"]


def test_a_sweep_that_fails_has_run(bench: Bench) -> None:
    at = [0.0]
    pulse = Pulse(clock=lambda: at[0])

    def fails() -> None:
        raise ValueError("broken")

    run = pulse.timed("failing", 5.0, fails)
    at[0] = 70.0
    with pytest.raises(ValueError, match="broken"):
        run()

    assert pulse.sweeps()["failing"].age_s == 0.0


def test_every_sweep_of_courier_and_worker_is_watched(bench: Bench) -> None:
    stop = threading.Event()
    stop.set()
    sweeps.schedule(bench.node, jobs=None)  # type: ignore[arg-type]
    sweeps.courier_loops(bench.node, None, stop)  # type: ignore[arg-type]
    sweeps.worker_loop(bench.node, stop)
    sweeps.Rounds(bench.node, type("Gate", (), {"is_open": False})(), stop).run()

    assert set(bench.node.pulse.sweeps()) == {
        "companions", "retractions", "copies", "commands", "slow commands", "trends", "liveness", "retention", "forget",
        "constancy", "rounds", "backscore", "backscore jobs",
    }  # fmt: skip


def test_a_heartbeat_is_written_at_once_and_the_receiver_counts_its_associations(bench: Bench) -> None:
    stop = threading.Event()
    stop.set()

    Beat(bench.database, "receiver", Pulse(), associations=lambda: (3, 32)).run(stop)

    [row] = beats(bench)
    assert (row.role, row.n_associations, row.max_associations) == ("receiver", 3, 32)
