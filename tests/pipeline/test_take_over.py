"""What a dead receiver or worker of another host has begun is finished by the courier of one that lives."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bench import Bench

from mediqa_node.pipeline import durable
from mediqa_node.pipeline.durable import DurableJobs
from mediqa_node.pipeline.take_over import TakeOver
from mediqa_node.storage import leases
from mediqa_node.storage.cluster_tables import leases as table
from mediqa_node.storage.database import Database
from mediqa_node.storage.heartbeats import heartbeats
from mediqa_node.storage.leases import Leases
from mediqa_node.storage.spool import Spool
from mediqa_node.storage.tables import associations


@pytest.fixture
def bench(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(leases, "GRACE_S", 0.0)
    made = Bench(tmp_path / "bench", url=url)
    durable.migrate(made.database)
    made.now = time.time()
    yield made
    made.close()


@pytest.fixture
def jobs(bench: Bench) -> DurableJobs:
    return DurableJobs(bench.database)


def sweep(bench: Bench, jobs: DurableJobs) -> TakeOver:
    """The sweep of the courier of host b."""
    spool = Spool(bench.spool.root, owner="b", durable=False)
    return TakeOver(replace(bench.node, spool=spool), jobs, Leases(bench.database, "b/courier"))


def begun(database: Database, jobs: DurableJobs, job: str, executor_id: str) -> None:
    """Enqueue a job that a worker has begun."""
    with database.write() as connection:
        jobs.score(connection, job, "1.2.3", 1)
    change = "UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = :executor WHERE workflow_uuid = :job"
    with database.write() as connection:
        connection.execute(sa.text(change), {"executor": executor_id, "job": job})


def statuses(database: Database) -> dict[str, str]:
    with database.read() as connection:
        rows = connection.execute(sa.text("SELECT workflow_uuid, status FROM dbos.workflow_status")).all()
    return {str(job): str(status) for job, status in rows}


def lease(bench: Bench, name: str, for_s: float) -> None:
    assert Leases(bench.database, name).take(name, for_s=for_s) is not None


def test_jobs_of_a_dead_worker_go_back_to_their_queue(bench: Bench, jobs: DurableJobs) -> None:
    lease(bench, "a/worker", 0.01)
    lease(bench, "a/worker-2", 60)
    begun(bench.database, jobs, "of the dead", "a/worker")
    begun(bench.database, jobs, "of the living", "a/worker-2")
    time.sleep(0.1)

    sweep(bench, jobs).run()

    assert statuses(bench.database) == {"of the dead": "ENQUEUED", "of the living": "PENDING"}
    assert Leases(bench.database, "a/worker").take("a/worker").lapsed_at == 0  # given back: it may start again


def test_associations_and_files_of_a_dead_receiver_are_taken_over_once(bench: Bench, jobs: DurableJobs) -> None:
    lease(bench, "a/receiver", 0.01)
    (bench.spool.root / "tmp" / "a-half").write_bytes(b"half")
    with bench.database.write() as connection:
        values = {"calling_ae_title": "CT", "address": "", "opened_at": 0.0, "host_id": "a"}
        connection.execute(sa.insert(associations).values(id="1", **values))
    time.sleep(0.1)
    over = sweep(bench, jobs)

    assert over.run() > 0
    assert over.run() == 0

    assert list((bench.spool.root / "tmp").iterdir()) == []
    with bench.database.read() as connection:
        assert connection.execute(sa.select(associations.c.released)).scalar_one() is False


def test_a_node_of_a_version_before_leases_is_left_alone_while_it_runs(bench: Bench, jobs: DurableJobs) -> None:
    begun(bench.database, jobs, "of the old worker", "worker")
    old = {"host": "a", "pid": 1, "started_at": 0.0, "sweeps": {}}
    with bench.database.write() as connection:
        connection.execute(sa.insert(heartbeats).values(role="worker", at=bench.now, **old))
        past = {"token": 0, "holder": "worker", "machine": "", "until": 1.0}  # as the migration enters it
        connection.execute(sa.insert(table).values(name="worker", **past))

    sweep(bench, jobs).run()
    assert statuses(bench.database) == {"of the old worker": "PENDING"}

    bench.now += 3600
    sweep(bench, jobs).run()
    assert statuses(bench.database) == {"of the old worker": "ENQUEUED"}


def test_a_take_over_that_fails_is_begun_again(
    bench: Bench, jobs: DurableJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease(bench, "a/worker", 0.01)
    begun(bench.database, jobs, "job", "a/worker")
    time.sleep(0.1)
    over = sweep(bench, jobs)
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "take_back", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            over.run()
    assert Leases(bench.database, "a/worker").take("a/worker") is None  # nor may it start before that is over

    over.run()

    assert statuses(bench.database) == {"job": "ENQUEUED"}
