"""An idle node asks one question; a busy one is quick. What the pace rests on inside DBOS is still there."""

import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bench import Bench
from support.series import ct_series, series_uid
from support.waiting import until

from mediqa_node.domain.backscore import Selection
from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.promotion import Weights
from mediqa_node.pipeline import durable, sweeps
from mediqa_node.storage import activity, backscores
from mediqa_node.storage.backscore_selection import Page
from mediqa_node.storage.database import Database
from mediqa_node.storage.migrate import upgrade


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path / "bench", peers=[Peer(name="PACS", ae_title="PACS", host="127.0.0.1", port=1)])
    yield made
    made.close()


def busy(bench: Bench, *, soon_s: float = 0.0) -> bool:
    with bench.database.read() as connection:
        return activity.is_busy(connection, soon=bench.now + soon_s)


def test_a_node_is_busy_from_the_first_instance_to_the_last_delivery_that_is_due(bench: Bench, tmp_path: Path) -> None:
    assert not busy(bench), "nothing was ever received"

    paths = ct_series(tmp_path / "ct", "one")
    bench.receive(paths[0])
    assert busy(bench), "a series is arriving"

    bench.receive_all(paths[1:])
    bench.pass_time(120, until=lambda: bool(bench.deliveries(series_uid(paths))) and not bench.jobs.waiting)
    [delivery] = bench.deliveries(series_uid(paths))
    assert (delivery.state, delivery.reason_code) == ("waiting", "no_answer")
    assert not busy(bench), "the peer is down, and the next attempt is not due yet"
    assert busy(bench, soon_s=delivery.not_before - bench.now), "and then it is"


def test_a_copy_that_waits_to_be_compared_keeps_the_node_busy(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "one")
    bench.receive_all(paths)
    bench.pass_time(30, until=lambda: bool(bench.deliveries(series_uid(paths))))
    other = ct_series(tmp_path / "other", "one", PatientName="Other^Name")
    bench.pass_time(1)
    assert not busy(bench)

    bench.receive(other[0])

    assert busy(bench)


class Gate:
    """A gate that remembers how it was set."""

    is_open = True


def test_an_idle_round_runs_no_sweep_and_closes_the_gate(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    rounds = sweeps.Rounds(bench.node, gate, threading.Event())
    ran: list[str] = []
    monkeypatch.setattr(rounds, "_sweeps", (sweeps._Paced("x", 0.0, lambda: ran.append("sweep")),))

    assert rounds.round() is False
    assert ran == []
    assert not gate.is_open


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory):
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('engine') / 'node.db'}")
    upgrade(database)
    durable.migrate(database)
    ran: list[str] = []

    def score(uid: str, generation: int) -> str:
        if uid == "broken":
            raise KeyError("DOE^JANE")
        ran.append(uid)
        return "done"

    def backscore(number: int, uid: str) -> str:
        ran.append(f"set {number}: {uid}")
        return "done"

    gate = durable.launch(database, executor_id="worker", score=score, backscore=backscore)
    yield gate, database, ran
    durable.shut_down(within_s=1)
    database.close()


def enqueue(database: Database, uid: str, *, can_wait: bool = False) -> None:
    with database.write() as connection:
        durable.DurableJobs(database).score(connection, f"score:{uid}", uid, 1, can_wait=can_wait)


def test_the_engine_takes_jobs_only_while_the_gate_is_open(launched) -> None:
    gate, database, ran = launched
    enqueue(database, "1.1")
    until(lambda: ran == ["1.1"], "the job runs")
    until(lambda: durable.DurableJobs(database).ended(["score:1.1"]), "its result is recorded")

    gate.is_open = False
    time.sleep(2 * durable.POLL_S)  # a poll may be under way
    queries: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *call: queries.append(call[2]))
    enqueue(database, "1.2")
    queries.clear()
    time.sleep(2.5)  # the engine does its own chores each second, if it is not told otherwise
    assert ran == ["1.1"]
    assert not [query for query in queries if "workflow_status" in query], "closed, and still the engine asks"

    gate.is_open = True
    until(lambda: ran == ["1.1", "1.2"], "the second job runs")


def test_an_engine_polls_often_while_the_gate_is_open_with_one_question_while_no_job_is_queued(launched) -> None:
    gate, database, ran = launched
    intervals = []
    for gate.is_open in (False, True):
        intervals.append(gate._queue(durable.SCORE)._polling_interval_sec)
    assert intervals == [durable.IDLE_POLL_ROUND_S, durable.POLL_S]

    enqueue(database, "1.3")
    until(lambda: ran[-1:] == ["1.3"], "the job runs")
    until(lambda: durable.DurableJobs(database).ended(["score:1.3"]), "its result is recorded")
    queries: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *call: queries.append(call[2]))
    until(lambda: len(queries) > 5, "the engine polls")

    assert len({query for query in queries if "workflow_status" in query}) == 1


def test_a_closed_gate_is_passed_now_and_then(launched, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, database, ran = launched
    gate.is_open = False
    monkeypatch.setattr(durable, "IDLE_POLL_S", 0.5)

    enqueue(database, "2.1")

    until(lambda: ran[-1:] == ["2.1"], "the job runs")


def test_a_series_that_can_wait_goes_last(launched) -> None:
    gate, database, ran = launched
    gate.is_open = False
    for uid in ("3.1", "3.2"):
        enqueue(database, uid, can_wait=True)
    enqueue(database, "3.3")

    gate.is_open = True

    until(lambda: ran[-3:] == ["3.3", "3.1", "3.2"], "the jobs run, the first that cannot wait")


def test_a_back_score_goes_behind_what_can_wait(launched) -> None:
    gate, database, ran = launched
    gate.is_open = False
    with database.write() as connection:
        durable.DurableJobs(database).backscore(connection, "backscore:1:4.1:1", 1, "4.1")
    enqueue(database, "4.2", can_wait=True)
    enqueue(database, "4.3")

    gate.is_open = True

    until(lambda: ran[-3:] == ["4.3", "4.2", "set 1: 4.1"], "the jobs run, the back-score last")
    jobs = durable.DurableJobs(database)
    until(lambda: jobs.ended(["backscore:1:4.1:1"]), "the back-score has ended")
    assert jobs.forget(ended_before=time.time() + 5, kind=durable.BACKSCORE) == 1
    assert (jobs.ended(["backscore:1:4.1:1"]), len(jobs.ended(["score:4.2", "score:4.3"]))) == ({}, 2)


def test_a_back_score_that_is_enqueued_keeps_the_node_busy(bench: Bench) -> None:
    weights = Weights(name="one", sha256="ab" * 32, card_sha256="")
    with bench.database.write() as connection:
        number = backscores.add(connection, Selection(), weights, with_reports=False, total=1, by="Anna", at=bench.now)
        one = backscores.find(connection, number)
        [item] = backscores.take(connection, one, Page([("1.1", 1)], "1.1", is_last=False))
    assert not busy(bench), "nothing is enqueued yet"

    with bench.database.write() as connection:
        backscores.queue(connection, item, "backscore:1:1.1:1")
    assert busy(bench)

    with bench.database.write() as connection:
        backscores.cancel(connection, number, at=bench.now)
    assert not busy(bench)


def test_a_database_that_does_not_answer_ends_neither_worker_nor_courier(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise StorageFailed("database did not answer")

    gate = Gate()
    monkeypatch.setattr(activity, "is_busy", refuse)

    assert sweeps.keep_pace(bench.node, gate) is False
    assert gate.is_open, "nothing is known, and the gate stays as it is"


def test_companions_which_wait_for_a_peer_hold_up_no_series(bench: Bench) -> None:
    loops = sweeps.courier_loops(bench.node, bench.jobs, threading.Event())

    assert {"companions", "retractions", "copies"} <= {loop.name for loop in loops}
    assert len(sweeps.Rounds(bench.node, Gate(), threading.Event())._sweeps) == 3


def test_a_job_that_fails_is_named_without_its_message(launched) -> None:
    gate, database, _ = launched
    gate.is_open = True
    enqueue(database, "broken")
    jobs = durable.DurableJobs(database)

    ended = until(lambda: jobs.ended(["score:broken"]), "the job has failed")

    assert ended["score:broken"] == f"internal error: KeyError, pipeline/durable.py:{line_of_the_call()}"


def line_of_the_call() -> int:
    lines = Path(durable.__file__).read_text().splitlines()
    return 1 + next(i for i, line in enumerate(lines) if "return station(*arguments)" in line)
