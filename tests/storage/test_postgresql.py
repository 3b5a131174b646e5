"""The same node on PostgreSQL: same stations, same tables, same promises."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from support.archive import Archive, receiving, request
from support.bench import Bench
from support.scripted import ScriptedPacs, scripted
from support.series import CT_IMAGE as CT
from support.series import ct_series, series_uid

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules, ReceiverPolicy
from mediqa_node.domain.procedure_step import StepStatus
from mediqa_node.domain.pull import ArchivedSeries
from mediqa_node.pipeline import durable
from mediqa_node.pipeline.assess import assess_series
from mediqa_node.pipeline.commitment_proxy import CommitmentSweep
from mediqa_node.pipeline.deliver import deliver_report
from mediqa_node.pipeline.query import describe
from mediqa_node.pipeline.sweeps import retain
from mediqa_node.storage import health, outbox, overview, own_objects, procedure_steps, pulls
from mediqa_node.storage.database import Database
from mediqa_node.storage.migrate import upgrade
from mediqa_node.storage.tables import metadata


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    """A PACS that stores what it gets."""
    with scripted() as running:
        yield running


@pytest.fixture
def bench(url: str, pacs: ScriptedPacs, tmp_path: Path) -> Iterator[Bench]:
    """The stations on PostgreSQL, with two destinations."""
    peers = [Peer(name=name, ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port) for name in ("ONE", "TWO")]
    peers.append(Peer(name="QC", ae_title="QC", host="127.0.0.1", port=1, authority=True))
    patient = DeliveryRules(timeout_s=30.0)  # twelve deliveries at once on a busy machine
    made = Bench(tmp_path / "bench", peers=peers, url=url, returns=None, delivery=patient)
    yield made
    made.close()


def test_a_series_becomes_a_report_on_postgresql(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "x", slices=range(6))
    bench.receive_all(paths[:5])
    bench.pass_time(10)
    series = series_uid(paths)
    assert bench.series(series).state == "ASSESSED"  # QC does not listen
    assert [(d.destination, d.state) for d in bench.deliveries(series)] == [
        ("ONE", "sent"),
        ("TWO", "sent"),
        ("QC", "waiting"),
    ]
    with bench.database.write() as connection:
        [waits] = health.waiting_destinations(connection)
        health.outage_over(connection, waits.name, at=bench.now)
        assert health.stuck_series(connection, before=bench.now) == []
    assert (waits.name, waits.n_waiting, waits.n_companions, waits.failing_since is None) == ("QC", 1, 0, False)

    bench.receive_all(paths[5:], association="a2")
    bench.receive_all(ct_series(tmp_path / "r", "x", slices=[0], patient_id="RIGHT"), association="a3", aet="QC")
    bench.pass_time(30)

    row = bench.series(series)
    assert (row.state, row.reason.code) == ("WITHHELD", "identity")
    with bench.database.read() as connection:
        facts = overview.facts(connection)
        assert overview.whole_series(connection, row)["copies"] == {"current": 6, "disputed": 1}
    assert (facts.n_series, facts.n_instances) == (1, 7)


def test_reports_and_images_are_committed_on_postgresql(url: str, tmp_path: Path) -> None:
    archive = Archive()
    pacs = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=archive.port, commitment=True)
    bench = Bench(tmp_path / "bench", peers=[pacs], url=url, receiver=ReceiverPolicy(commit_with="PACS", mpps=True))
    paths = ct_series(tmp_path / "ct", "x", slices=range(3))
    series = series_uid(paths)
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in paths]
    sweep = CommitmentSweep(bench.node)
    try:
        with bench.database.write() as connection:
            step = {"calling_ae_title": "CT_ROOM_1", "series": {series: uids}, "at": bench.now}
            assert procedure_steps.create(bench.database, connection, "1.2.9", **step)
            assert not procedure_steps.create(bench.database, connection, "1.2.9", **step)
            assert procedure_steps.find(connection, "1.2.9") == ("CT_ROOM_1", "IN PROGRESS")
            procedure_steps.update(connection, "1.2.9", status=StepStatus.COMPLETED, series=None, at=bench.now)
        bench.receive_all(paths[:2])
        with bench.database.read() as connection:
            assert procedure_steps.announced(connection, series) is False
        bench.receive_all(paths[2:], association="a2")
        bench.pass_time(30, until=lambda: bench.series(series).state == "DELIVERED")
        assert bench.series(series).completion == "announced"
        with receiving(bench) as port:
            assert [request(port, "1.2.3", dict.fromkeys(uids, CT), calling="SCRIPTED") for _ in range(2)] == [0, 0]
            sweep.run()
            assert [archive.answers(port, number=number) for number in (0, 1)] == [0, 0]
            sweep.run()
        assert bench.series(series).state == "CONFIRMED"
        assert [len(told.ReferencedSOPSequence) for told, _, _ in archive.reports] == [3]
        bench.now += 40 * 86_400
        retain(bench.node)
    finally:
        bench.close()
        archive.stop()


def test_the_same_instance_twice_is_one_row(bench: Bench, tmp_path: Path) -> None:
    [path] = ct_series(tmp_path / "ct", "x", slices=[0])

    said = [bench.receive(path), bench.receive(path, association="a2")]

    assert said == ["new", "duplicate"]
    assert len(list(bench.spool.files())) == 1


def test_a_pulled_series_goes_live_and_its_report_is_found_on_postgresql(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "pulled", "pulled")
    uid = series_uid(paths)
    archive = Peer(name="ARCHIVE", ae_title="ARCHIVE", host="127.0.0.1", port=1)
    asked = ArchivedSeries(study_instance_uid="1.2", series_instance_uid=uid)
    with bench.database.write() as connection:
        pulls.note_asked(bench.database, connection, asked, peer=archive, ae_title="MEDIQA", at=bench.now)
    bench.receive_all(paths, aet="ARCHIVE")
    with bench.database.write() as connection:
        pulls.note_pulled(connection, uid, n_instances=5, at=bench.now)
    bench.pass_time(20)
    assert bench.series(uid).reason.code == "pulled"

    bench.receive_all(paths, association="a2", aet="CT_ROOM_1")
    bench.pass_time(100)
    assert [one.state for one in bench.deliveries(uid)][:2] == ["sent", "sent"]
    assert not bench.series(uid).pulled

    own_objects.list_missing(bench.database, describe)
    with bench.database.write() as connection:
        [found] = own_objects.standing(connection, [bench.series(uid).study_instance_uid])
        report = found["SOPInstanceUID"]
        move = own_objects.add_move(
            connection, calling_ae_title="VIEWER", message_id=1, destination="ONE", sop_instance_uids=[report], at=3.0
        )
        taken = own_objects.take_move(connection, since=0.0)
        assert taken is not None
        assert (taken.id, own_objects.take_move(connection, since=0.0)) == (move, None)
        assert own_objects.work_before(connection, move + 1) == taken.remaining
        assert own_objects.take_out(bench.database, connection, report, "VIEWER", at=4.0) is not None
        assert sorted(outbox.standing(connection, uid)) == ["ONE", "TWO", "VIEWER"]


def test_two_deliveries_of_one_report_at_the_same_time_send_the_same_bytes(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    sent = [ct_series(tmp_path / f"{i}", f"s{i}", study="one study") for i in range(4)]
    for i, paths in enumerate(sent):
        bench.receive_all(paths, association=f"a{i}")
    bench.now += 3
    assert bench.complete_series() == 4
    jobs = bench.jobs.waiting
    for name in [name for name, (kind, _) in jobs.items() if kind == "score"]:
        _, arguments = jobs.pop(name)
        assess_series(bench.node, *arguments)
    due = [arguments[0] for kind, arguments in jobs.values() if kind == "deliver"]
    jobs.clear()

    with ThreadPoolExecutor(12) as pool:
        said = list(pool.map(lambda number: deliver_report(bench.node, number), due))

    assert sorted(set(said)) == ["sent", "waiting"]
    assert said.count("sent") == 8
    assert len(set(pacs.received)) == 4, "one report for each series, whoever built it first"
    with bench.database.read() as connection:
        numbers = {
            outbox.find_report(connection, series_uid(paths), 1, "1.2.840.10008.5.1.4.1.1.88.34") for paths in sent
        }
    assert len({report.series_number for report in numbers if report}) == 4


def _differences(database: Database) -> list[object]:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_name": lambda name, kind, _parents: kind != "table" or name in metadata.tables,
                "compare_type": True,
            },
        )
        return list(compare_metadata(context, metadata))


def test_migrations_make_the_tables_that_the_code_means_on_sqlite(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(database)

    assert _differences(database) == []
    upgrade(database)  # a second time changes nothing
    database.close()


def test_migrations_make_the_tables_that_the_code_means_on_postgresql(url: str) -> None:
    database = Database(url)
    upgrade(database)

    assert _differences(database) == []
    database.close()


def test_durable_jobs_live_in_the_same_transaction_as_the_move_they_follow(url: str) -> None:
    database = Database(url)
    upgrade(database)
    durable.migrate(database)
    jobs = durable.DurableJobs(database)

    with pytest.raises(RuntimeError, match="pulled"), database.write() as connection:
        jobs.score(connection, "score:1:1", "1", 1)
        raise RuntimeError("the plug is pulled")
    with database.write() as connection:
        jobs.score(connection, "score:2:1", "2", 1)
        jobs.score(connection, "score:2:1", "2", 1)

    with database.read() as connection:
        names = connection.execute(sa.text("SELECT workflow_uuid FROM dbos.workflow_status")).scalars().all()
    assert names == ["score:2:1"]
    database.close()
