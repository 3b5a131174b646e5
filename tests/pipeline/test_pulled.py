"""What was moved here for this node is scored and measured, and never reported; until its source sends it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bench import Bench
from support.receiving import Listening, Scu, command, ct, encode, p_data
from support.scripted import ScriptedPacs, scripted
from support.series import ct_series, series_uid

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import ScorePolicy
from mediqa_node.domain.pull import ArchivedSeries
from mediqa_node.domain.rules import ForwardRule
from mediqa_node.domain.series import ReasonCode
from mediqa_node.domain.worklist import Category, category_of
from mediqa_node.pipeline.forward.plan import ForwardPlan
from mediqa_node.pipeline.recovery import recover
from mediqa_node.storage import measures, pulls, trend_views
from mediqa_node.storage.forward_tables import forwards
from mediqa_node.storage.ingest import Recorded
from mediqa_node.storage.tables import associations, instances, series
from mediqa_node.web.words import report

PACS = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=104)
OLD = {"StudyDate": "20190102"}


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    with scripted() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, pacs: ScriptedPacs) -> Iterator[Bench]:
    peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
    made = Bench(tmp_path / "bench", peers=[peer], score=ScorePolicy(max_age_days=3))
    yield made
    made.close()


def test_a_pulled_series_is_scored_and_measured_whatever_its_age_and_never_reported(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path / "pulled", "pulled", **OLD)
    bench.receive_all(paths, aet="SCRIPTED", moved_for="MEDIQA")

    bench.pass_time(200)

    found = bench.series(series_uid(paths))
    assert (found.state, found.reason.code, found.pulled) == ("ASSESSED", "pulled", True)
    assert bench.deliveries(found.series_instance_uid) == []
    with bench.database.read() as connection:
        assert measures.load(connection, found.series_instance_uid, found.generation) is not None
    entry = bench.entry(found.series_instance_uid)
    assert (entry.category, report(entry)) == (Category.SCORED, "pulled, not reported")
    with bench.database.read() as connection:
        assert trend_views.received_by_scanner(connection, since=0.0, until=bench.now) == {}
    assert pacs.received == []


def test_an_archive_that_does_not_say_for_whom_it_sends_is_known_by_what_it_was_asked_for(
    bench: Bench, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path / "silent", "silent", slices=range(6))
    asked = ArchivedSeries(study_instance_uid="1.2", series_instance_uid=series_uid(paths))
    with bench.database.write() as connection:
        pulls.note_asked(bench.database, connection, asked, peer=PACS, ae_title="MEDIQA", at=bench.now)
    bench.receive_all(paths, aet="SCRIPTED")
    bench.receive_all(paths[:2], association="a2", aet="SCRIPTED")
    with bench.database.write() as connection:
        assert set(connection.execute(sa.select(instances.c.move_originator)).scalars()) == {"MEDIQA"}
        pulls.note_pulled(connection, series_uid(paths), n_instances=6, at=bench.now)
    bench.pass_time(100)
    assert bench.series(series_uid(paths)).reason.code == "pulled"

    bench.receive_all(paths[:1], association="a3", aet="CT_ROOM_1")
    bench.pass_time(100)
    assert bench.series(series_uid(paths)).state == "DELIVERED"


@pytest.mark.parametrize("how", ["killed", "failed"])
@pytest.mark.parametrize(("hours", "state"), [(0.5, "ASSESSED"), (2, "DELIVERED")])
def test_what_an_archive_sends_long_after_a_pull_that_broke_off_is_live(
    bench: Bench, tmp_path: Path, how: str, hours: float, state: str
) -> None:
    paths = ct_series(tmp_path / "later", f"{how} {hours}")
    asked = ArchivedSeries(study_instance_uid="1.2", series_instance_uid=series_uid(paths))
    with bench.database.write() as connection:
        pulls.note_asked(bench.database, connection, asked, peer=PACS, ae_title="MEDIQA", at=bench.now)
        if how == "failed":
            pulls.note_failed(connection, series_uid(paths), "broke off", at=bench.now)
    bench.now += hours * 3600

    bench.receive_all(paths, aet="SCRIPTED")
    bench.pass_time(100)

    assert bench.series(series_uid(paths)).state == state


def test_what_another_had_moved_here_is_live(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "prefetched", "prefetched")
    bench.receive_all(paths, aet="SCRIPTED", moved_for="WORKSTATION")

    bench.pass_time(20)

    assert bench.series(series_uid(paths)).state == "DELIVERED"
    with bench.database.read() as connection:
        assert set(connection.execute(sa.select(instances.c.move_originator)).scalars()) == {"WORKSTATION"}


def test_nothing_that_was_pulled_is_an_alarm() -> None:
    assert category_of("ASSESSED", "review", is_live=False) is Category.SCORED
    assert category_of("ASSESSED", "review") is Category.REPEAT


@pytest.mark.parametrize("n_sent_live", [1, 5])
def test_a_pulled_series_that_its_source_sends_is_live_and_reported(
    bench: Bench, tmp_path: Path, n_sent_live: int
) -> None:
    paths = ct_series(tmp_path / "both", "both")
    bench.receive_all(paths, aet="SCRIPTED", moved_for="MEDIQA")
    bench.pass_time(20)
    assert bench.series(series_uid(paths)).reason.code == "pulled"

    outcomes = [bench.receive(path, association="a2", aet="CT_ROOM_1") for path in paths[:n_sent_live]]
    reason = bench.series(series_uid(paths)).reason
    bench.release("a2")
    bench.pass_time(100)

    found = bench.series(series_uid(paths))
    assert set(outcomes) == {Recorded.DUPLICATE}
    assert reason.code is ReasonCode.SENT_LIVE
    assert (found.state, found.pulled, found.calling_ae_title, found.revision) == ("DELIVERED", False, "CT_ROOM_1", 2)
    with bench.database.read() as connection:
        originators = list(connection.execute(sa.select(instances.c.move_originator)).scalars())
    assert originators.count(None) == n_sent_live


def test_a_further_image_from_the_source_makes_a_pulled_series_live(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "parts", "parts", slices=range(6))
    bench.receive_all(paths[:5], aet="SCRIPTED", moved_for="MEDIQA")
    bench.pass_time(20)

    bench.receive_all(paths[5:], association="a2", aet="CT_ROOM_1")
    bench.pass_time(100)

    found = bench.series(series_uid(paths))
    assert (found.state, found.pulled, found.calling_ae_title) == ("DELIVERED", False, "CT_ROOM_1")


def test_a_live_series_stays_live_when_it_is_moved_here_too(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "live", "live", slices=range(6))
    bench.receive_all(paths[:5])
    bench.receive_all(paths, association="a2", aet="SCRIPTED", moved_for="MEDIQA")
    bench.pass_time(100)

    found = bench.series(series_uid(paths))
    assert (found.state, found.pulled, found.calling_ae_title) == ("DELIVERED", False, "CT_ROOM_1")


def test_what_was_pulled_takes_no_place_of_a_live_reconstruction(bench: Bench, tmp_path: Path) -> None:
    archived = ct_series(tmp_path / "soft", "soft", study="one", event="e1")
    live = ct_series(tmp_path / "bone", "bone", study="one", event="e1")
    bench.receive_all(archived, aet="SCRIPTED", moved_for="MEDIQA")
    bench.pass_time(20)
    bench.receive_all(live, association="a2")
    bench.pass_time(20)

    assert bench.series(series_uid(archived)).reason.code == "pulled"
    assert bench.series(series_uid(live)).state == "DELIVERED"


def test_the_receiver_reads_for_whom_an_instance_was_moved(listening) -> None:
    node: Listening = listening()
    with Scu(node.port) as scu:
        for number, more in ((1, {}), (2, {0x1030: b"MEDIQA  "}), (3, {0x1030: b"OTHER "})):
            ds = ct(number)
            rq = command(str(ds.SOPClassUID), str(ds.SOPInstanceUID), more=more)
            scu.send(p_data(1, rq, is_command=True) + p_data(1, encode(ds), is_command=False))
            assert scu.answer().status == 0x0000

    assert [row.move_originator for row in node.rows()] == [None, "MEDIQA", "OTHER"]


@pytest.mark.parametrize(("sender", "originator"), [("SCRIPTED", "MEDIQA"), ("CT_ROOM_1", None)])
def test_a_file_that_is_adopted_is_pulled_if_the_archive_that_was_asked_has_sent_it(
    listening, sender: str, originator: str | None
) -> None:
    node: Listening = listening()
    with Scu(node.port, calling=sender.encode()) as scu:
        assert scu.store_dataset(ct(1)) == 0x0000
    [row] = node.rows()
    asked = ArchivedSeries(study_instance_uid="1.2", series_instance_uid=row.series_instance_uid)
    with node.database.write() as connection:
        for table in (instances, series, associations):
            connection.execute(sa.delete(table))
        pulls.note_asked(node.database, connection, asked, peer=PACS, ae_title="MEDIQA", at=time.time())

    plan = ForwardPlan([ForwardRule(to=("OTHER",))], [Peer(name="OTHER", ae_title="OTHER", host="127.0.0.1", port=1)])
    recover(node.database, node.spool, now=time.time(), plan=plan)

    [adopted] = node.rows()
    assert adopted.move_originator == originator
    with node.database.read() as connection:
        assert connection.execute(sa.select(series.c.pulled)).scalar_one() is (originator is not None)
        forwarded = connection.execute(sa.select(sa.func.count()).select_from(forwards)).scalar_one()
    assert forwarded == (originator is None), "what was pulled is not forwarded"
