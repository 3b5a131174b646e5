"""Storage Commitment for reports: asked after they were sent, answered at our receiver, and what follows."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import UID
from support.archive import Archive, receiving, report
from support.bench import Bench
from support.orthanc import Orthanc
from support.scripted import SR_CLASSES, scripted
from support.series import ct_series, series_uid
from support.waiting import until

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import CompanionRules, DeliveryRules
from mediqa_node.domain.rules import ReturnRule
from mediqa_node.pipeline import commitment
from mediqa_node.pipeline.checks.verify import verify
from mediqa_node.pipeline.commitment_proxy import CommitmentSweep
from mediqa_node.pipeline.sweeps import courier_loops, retain
from mediqa_node.storage import held, outbox, overview, report_commitments
from mediqa_node.storage.outbox import DeliveryRow
from mediqa_node.web import words

MakeBench = Callable[..., Bench]
HOUR_S = 3600.0


@pytest.fixture
def archive() -> Iterator[Archive]:
    running = Archive(classes=[*SR_CLASSES.values(), "1.2.840.10008.5.1.4.1.1.7"])
    yield running
    running.stop()


@pytest.fixture
def bench_to(tmp_path: Path) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(port: int, *, others: list[Peer] | None = None, ae_title: str = "SCRIPTED", **policy: Any) -> Bench:
        peer = Peer(name="PACS", ae_title=ae_title, host="127.0.0.1", port=port, commitment=True)
        policy.setdefault("delivery", DeliveryRules(timeout_s=10))
        made.append(Bench(tmp_path / f"bench{len(made)}", peers=[peer, *(others or [])], **policy))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def reported(bench: Bench, folder: Path, name: str = "one", **how: Any) -> str:
    """Receive and score a series, and send its report; return its UID."""
    paths = ct_series(folder, name, **how)
    bench.receive_all(paths, association=name)
    bench.now += 30
    bench.complete_series()
    bench.work()
    series = series_uid(paths)
    bench.pass_time(90, step_s=10, until=lambda: all(row.attempts for row in bench.deliveries(series)))
    return series


def sweep(bench: Bench) -> None:
    CommitmentSweep(bench.node).run()


def of_pacs(bench: Bench, series: str) -> DeliveryRow:
    return next(row for row in bench.deliveries(series) if row.destination == "PACS")


def test_a_report_is_confirmed_once_its_archive_commits_to_keep_it(
    archive: Archive, bench_to: MakeBench, tmp_path: Path
) -> None:
    bench = bench_to(archive.port)
    series = reported(bench, tmp_path / "ct")
    assert (of_pacs(bench, series).state, bench.series(series).state) == ("sent", "DELIVERED")

    sweep(bench)
    sweep(bench)
    sop_instance = of_pacs(bench, series).report_sop_instance_uid
    assert archive.asked_for == [{sop_instance: SR_CLASSES["comprehensive3d"]}], "once"
    with receiving(bench) as port:
        assert archive.answers(port) == 0x0000
        assert archive.answers(port) == 0x0000, "an answer may come twice"
    sweep(bench)

    assert (of_pacs(bench, series).state, bench.series(series).state) == ("confirmed", "CONFIRMED")
    entry = bench.entry(series)
    assert words.state(entry) == "reported, confirmed"
    assert words.report(entry).startswith("PACS in ")
    assert words.report(entry).endswith(", confirmed")
    bench.pass_time(2 * HOUR_S, step_s=600)
    sweep(bench)
    assert len(archive.requests) == 1
    with bench.database.read() as connection:
        assert held.last_sent(connection)["PACS"][0] == 1
        assert dict(overview.facts(connection).ended) == {"CONFIRMED": 1}
    assert verify(bench.node, ask_peers=False, advance=lambda done, total: None).problems == ()


def test_a_series_is_confirmed_only_when_all_of_its_deliveries_are(
    archive: Archive, bench_to: MakeBench, tmp_path: Path
) -> None:
    with scripted(ae_title="OTHER") as other:
        peer = Peer(name="OTHER", ae_title="OTHER", host="127.0.0.1", port=other.port)
        bench = bench_to(archive.port, others=[peer])
        series = reported(bench, tmp_path / "ct")
        with receiving(bench) as port:
            sweep(bench)
            archive.answers(port)
        sweep(bench)

    assert {row.destination: row.state for row in bench.deliveries(series)} == {"PACS": "confirmed", "OTHER": "sent"}
    assert bench.series(series).state == "DELIVERED"


def test_a_report_that_the_archive_does_not_keep_is_sent_again_once_and_then_parked(
    archive: Archive, bench_to: MakeBench, tmp_path: Path
) -> None:
    bench = bench_to(archive.port)
    series = reported(bench, tmp_path / "ct")
    with receiving(bench) as port:
        sweep(bench)
        archive.answers(port, failed={"": 0x0112})
        sweep(bench)
        again = of_pacs(bench, series)
        assert (again.state, again.reason_code, bench.series(series).state) == ("waiting", "not_committed", "ASSESSED")

        bench.pass_time(5)
        assert archive.received[0] == archive.received[1], "the same bytes"
        assert (len(archive.received), of_pacs(bench, series).state) == (2, "sent")
        archive.answers(port, number=0, failed={"": 0x0112})  # the old answer again counts for nothing
        sweep(bench)
        assert of_pacs(bench, series).state == "sent"
        archive.answers(port, number=1, failed={"": 0x0112})
        sweep(bench)
        parked = of_pacs(bench, series)

        assert (parked.state, parked.reason_code) == ("parked", "not_committed")
        assert parked.message == "PACS does not commit to keep it: failure reason 0x0112, no such object"
        assert bench.series(series).state == "PARKED"
        with bench.database.write() as connection:
            assert overview.retry(connection, [str(parked.id)], now=bench.now) == (1, 0)
        bench.pass_time(5)
        sweep(bench)
        archive.answers(port)
        sweep(bench)

    assert (of_pacs(bench, series).state, bench.series(series).state) == ("confirmed", "CONFIRMED")
    assert len({request.TransactionUID for request in archive.requests}) == len(archive.requests) == 3


def test_without_an_answer_the_archive_is_asked_again_and_a_person_hears_of_it_after_a_day(
    archive: Archive, bench_to: MakeBench, tmp_path: Path
) -> None:
    bench = bench_to(archive.port)
    series = reported(bench, tmp_path / "ct")
    sweep(bench)
    bench.now += HOUR_S - 1
    sweep(bench)
    assert len(archive.requests) == 1
    bench.now += 2
    sweep(bench)
    assert len(archive.requests) == 2
    assert archive.asked_for[0] == archive.asked_for[1]
    assert archive.requests[0].TransactionUID != archive.requests[1].TransactionUID
    bench.now += 24 * HOUR_S

    with bench.database.read() as connection:
        [late] = report_commitments.uncommitted(connection, before=bench.now - 24 * HOUR_S)
    assert (late.name, late.n) == ("PACS", 1)
    with receiving(bench) as port:
        archive.answers(port, number=0)  # late is not too late
    sweep(bench)
    assert of_pacs(bench, series).state == "confirmed"
    with bench.database.read() as connection:
        assert report_commitments.uncommitted(connection, before=bench.now) == []


def test_an_archive_that_is_down_or_refuses_is_asked_later(
    archive: Archive, bench_to: MakeBench, tmp_path: Path
) -> None:
    bench = bench_to(archive.port)
    series = reported(bench, tmp_path / "ct")
    archive.action_status = 0x0213
    sweep(bench)
    archive.action_status = 0x0000
    bench.now += 60
    sweep(bench)
    assert archive.requests == []
    assert of_pacs(bench, series).state == "sent"
    bench.now += bench.node.delivery.retry_at_most_s
    sweep(bench)

    assert len(archive.requests) == 1


def test_companions_are_committed_with_their_report_and_sent_again_alone(
    archive: Archive, bench_to: MakeBench, tmp_path: Path
) -> None:
    bench = bench_to(archive.port, companions=CompanionRules(secondary_capture=True))
    series = reported(bench, tmp_path / "ct")
    sweep(bench)
    [asked] = archive.asked_for
    captures = [uid for uid, kind in asked.items() if UID(kind).name == "Secondary Capture Image Storage"]
    assert len(asked) == 6
    assert len(captures) == 5
    with receiving(bench) as port:
        archive.answers(port, failed={captures[0]: 0x0112})
        sweep(bench)
        bench.pass_time(5)
        assert len(archive.received) == 8, "the report, and the one that is missing"
        sweep(bench)
        assert archive.asked_for[1] == asked
        archive.answers(port)
        sweep(bench)

    assert bench.series(series).state == "CONFIRMED"


def test_one_transaction_holds_no_more_instances_than_an_archive_can_be_asked_about(
    archive: Archive, bench_to: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment, "AT_MOST", 2)
    bench = bench_to(archive.port)
    for name in ("one", "two", "three"):
        reported(bench, tmp_path / name, name)

    sweep(bench)

    assert [len(request) for request in archive.asked_for] == [2, 1]


@pytest.mark.parametrize("place", ["commitment-begun", "commitment-asked"])
def test_a_courier_that_dies_while_it_asks_asks_again(
    archive: Archive, bench_to: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    bench = bench_to(archive.port)
    series = reported(bench, tmp_path / "ct")

    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == place:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(commitment, "reach", die)
        sweep(bench)
    asked = len(archive.requests)
    with receiving(bench) as port:
        if asked:
            assert archive.answers(port) == 0x0000, "the answer to what was asked counts"
        else:
            bench.now += 121
            sweep(bench)
            archive.answers(port)
    sweep(bench)

    assert asked == (place == "commitment-asked")
    assert bench.series(series).state == "CONFIRMED"


def test_only_the_archive_that_was_asked_can_answer(archive: Archive, bench_to: MakeBench, tmp_path: Path) -> None:
    other = Peer(name="OTHER", ae_title="OTHER", host="127.0.0.1", port=1)
    bench = bench_to(archive.port, others=[other], returns=[ReturnRule(to=("PACS",))])
    series = reported(bench, tmp_path / "ct")
    sweep(bench)
    with receiving(bench) as port:
        assert archive.answers(port, calling="STRANGER") == 0x0124
        assert archive.answers(port, calling="OTHER") == 0x0115
        assert report(port, "1.2.3", {("1.2", "1.2.3.4"): None}) == 0x0115
        assert report(port, archive.requests[0].TransactionUID, {("1.2", "1.2.3.4"): None}) == 0x0000
    sweep(bench)

    assert of_pacs(bench, series).state == "sent"


def test_what_an_archive_says_of_an_earlier_report_changes_nothing_about_a_later_one(
    archive: Archive, bench_to: MakeBench, tmp_path: Path
) -> None:
    bench = bench_to(archive.port)
    series = reported(bench, tmp_path / "ct")
    sweep(bench)
    bench.receive_all(ct_series(tmp_path / "late", "one", slices=[5]), association="late")
    bench.pass_time(1200, step_s=10, until=lambda: len(archive.received) == 2)
    with receiving(bench) as port:
        archive.answers(port, number=0, failed={"": 0x0112})
        sweep(bench)
        first, second = bench.deliveries(series)
        assert (first.state, second.state) == ("sent", "sent")
        archive.answers(port, number=1)
        sweep(bench)

    first, second = bench.deliveries(series)
    assert (first.state, second.state, bench.series(series).state) == ("sent", "confirmed", "CONFIRMED")
    bench.now += 2 * HOUR_S
    sweep(bench)
    assert len(archive.requests) == 2


def test_an_answer_counts_for_nothing_about_a_report_that_was_sent_after_the_question(
    archive: Archive, bench_to: MakeBench, tmp_path: Path
) -> None:
    bench = bench_to(archive.port)
    series = reported(bench, tmp_path / "ct")
    sweep(bench)
    bench.now += 10
    with bench.database.write() as connection:
        outbox.update_delivery(connection, of_pacs(bench, series).id, done_at=bench.now)
    with receiving(bench) as port:
        archive.answers(port)
    sweep(bench)

    assert of_pacs(bench, series).state == "sent"


def test_old_reports_are_left_alone_and_old_transactions_forgotten(
    archive: Archive, bench_to: MakeBench, tmp_path: Path
) -> None:
    bench = bench_to(archive.port)
    reported(bench, tmp_path / "one", "one")
    sweep(bench)
    reported(bench, tmp_path / "two", "two")
    bench.now += 40 * 24 * HOUR_S
    sweep(bench)
    assert len(archive.requests) == 1
    retain(bench.node)

    with receiving(bench) as port:
        assert archive.answers(port) == 0x0115


def test_the_courier_asks_only_where_a_peer_is_to_be_asked(
    archive: Archive, bench_to: MakeBench, tmp_path: Path
) -> None:
    asking, silent = bench_to(archive.port), Bench(tmp_path / "silent")
    for bench in (asking, silent):
        courier_loops(bench.node, None, threading.Event())  # type: ignore[arg-type]
    silent.close()

    assert "commitment" in asking.node.pulse.sweeps()
    assert "commitment" not in silent.node.pulse.sweeps()


@pytest.mark.peers
def test_orthanc_commits_to_a_report_that_it_holds_and_not_to_one_that_was_deleted(
    bench_to: MakeBench, tmp_path: Path
) -> None:
    pacs = Orthanc(tmp_path / "orthanc").start()
    try:
        bench = bench_to(pacs.dicom_port, ae_title=pacs.ae_title)
        with receiving(bench) as port:
            pacs.knows("node", "MEDIQA", port)
            kept = reported(bench, tmp_path / "kept", "kept")
            sweep(bench)
            until(lambda: sweep(bench) or bench.series(kept).state == "CONFIRMED", "Orthanc commits")

            lost = reported(bench, tmp_path / "lost", "lost")
            [one] = [
                entry["ID"]
                for entry in pacs.find("Instance", SOPInstanceUID=str(of_pacs(bench, lost).report_sop_instance_uid))
            ]
            pacs.delete(f"/instances/{one}")
            sweep(bench)
            until(lambda: sweep(bench) or of_pacs(bench, lost).state == "waiting", "Orthanc does not commit")
            bench.pass_time(5)
            until(lambda: sweep(bench) or bench.series(lost).state == "CONFIRMED", "Orthanc has it again and commits")
    finally:
        pacs.stop()
