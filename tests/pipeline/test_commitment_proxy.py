"""Storage Commitment asked of the node: kept before it is acknowledged, and never given before the archive has."""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom import Dataset
from support.archive import Archive, receiving, references, request
from support.bench import Bench
from support.orthanc import Orthanc
from support.receiving import EXPLICIT, Scu, command, encode, p_data
from support.series import ct_series
from support.waiting import free_port, until

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules, ReceiverPolicy
from mediqa_node.network.contexts import COMMITMENT_INSTANCE, PERFORMED_PROCEDURE_STEP, STORAGE_COMMITMENT
from mediqa_node.pipeline import commitment, commitment_proxy, commitment_services
from mediqa_node.pipeline.commitment_proxy import CommitmentSweep, is_wanted
from mediqa_node.pipeline.procedure_steps import procedure_step_services
from mediqa_node.pipeline.sweeps import retain
from mediqa_node.storage.commitment_tables import commitment_requests

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
PAIRS = {"1.2.3.1": CT, "1.2.3.2": CT, "1.2.3.3": MR}
THEIRS = "1.2.826.0.1.3680043.9.1"
DAY_S = 86_400.0

MakeBench = Callable[..., Bench]


@pytest.fixture
def archive() -> Iterator[Archive]:
    running = Archive()
    yield running
    running.stop()


@pytest.fixture
def scanner() -> Iterator[Archive]:
    running = Archive(ae_title="SCANNER")
    yield running
    running.stop()


@pytest.fixture
def bench_with(tmp_path: Path) -> Iterator[MakeBench]:
    """Make a bench that commits what the archive commits, for the scanner."""
    made: list[Bench] = []

    def make(archive_port: int, scanner_port: int, **more: Any) -> Bench:
        peers = [
            Peer(name="ARCHIVE", ae_title="SCRIPTED", host="127.0.0.1", port=archive_port),
            Peer(name="CT1", ae_title="SCANNER", host="127.0.0.1", port=scanner_port),
        ]
        receiver = ReceiverPolicy(commit_with="ARCHIVE", **more)
        made.append(
            Bench(tmp_path / f"bench{len(made)}", peers=peers, receiver=receiver, delivery=DeliveryRules(timeout_s=10))
        )
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def sweep(bench: Bench) -> None:
    CommitmentSweep(bench.node).run()


def told(scanner: Archive) -> list[tuple[str, int, set[str], dict[str, int]]]:
    """Return transaction, event type, what is kept and the failure reasons of each report to the scanner."""
    return [
        (
            str(report.TransactionUID),
            event,
            {str(one.ReferencedSOPInstanceUID) for one in report.get("ReferencedSOPSequence", [])},
            {str(one.ReferencedSOPInstanceUID): one.FailureReason for one in report.get("FailedSOPSequence", [])},
        )
        for report, event, _ in scanner.reports
    ]


def rows(bench: Bench) -> list[Any]:
    with bench.database.read() as connection:
        return list(connection.execute(sa.select(commitment_requests)).all())


def test_the_node_commits_to_what_its_archive_has_committed_to(
    archive: Archive, scanner: Archive, bench_with: MakeBench
) -> None:
    bench = bench_with(archive.port, scanner.port)
    with receiving(bench) as port:
        assert request(port, THEIRS, PAIRS) == 0x0000
        sweep(bench)
        sweep(bench)
        assert archive.asked_for == [PAIRS]
        assert archive.requests[0].TransactionUID != THEIRS
        assert scanner.reports == [], "not before the archive"
        archive.answers(port)
        sweep(bench)
        sweep(bench)

    assert told(scanner) == [(THEIRS, 1, set(PAIRS), {})]
    report, _, roles = scanner.reports[0]
    assert roles == (False, True), "the SCP role is proposed"
    assert {str(one.ReferencedSOPClassUID) for one in report.ReferencedSOPSequence} == {CT, MR}


def test_every_instance_that_failed_is_named_with_its_reason(
    archive: Archive, scanner: Archive, bench_with: MakeBench
) -> None:
    bench = bench_with(archive.port, scanner.port)
    with receiving(bench) as port:
        request(port, THEIRS, PAIRS)
        sweep(bench)
        archive.answers(port, failed={"1.2.3.2": 0x0112})
        sweep(bench)

    assert told(scanner) == [(THEIRS, 2, {"1.2.3.1", "1.2.3.3"}, {"1.2.3.2": 0x0112})]


def test_a_transaction_that_the_caller_repeats_is_one_and_its_result_is_told_again(
    archive: Archive, scanner: Archive, bench_with: MakeBench
) -> None:
    bench = bench_with(archive.port, scanner.port)
    with receiving(bench) as port:
        assert [request(port, THEIRS, PAIRS) for _ in range(3)] == [0x0000] * 3
        sweep(bench)
        archive.answers(port)
        sweep(bench)
        assert len(told(scanner)) == len(archive.requests) == len(rows(bench)) == 1

        assert request(port, THEIRS, PAIRS) == 0x0000
        sweep(bench)

    assert told(scanner) == [(THEIRS, 1, set(PAIRS), {})] * 2
    assert len(archive.requests) == 1


def test_what_was_promised_is_answered_though_commitment_is_no_longer_offered(
    archive: Archive, scanner: Archive, bench_with: MakeBench
) -> None:
    bench = bench_with(archive.port, scanner.port)
    without = replace(
        bench.node, receiver=ReceiverPolicy(), peers=[replace(p, commitment=False) for p in bench.node.peers]
    )
    assert not is_wanted(without)
    with receiving(bench) as port:
        request(port, THEIRS, PAIRS)
    assert is_wanted(without)

    bench.now += 2 * DAY_S
    CommitmentSweep(without).run()

    [(_, _, kept, failed)] = told(scanner)
    assert (kept, set(failed.values())) == (set(), {0x0110})
    assert not is_wanted(without)


def test_a_request_survives_a_restart_between_any_two_steps(
    archive: Archive, scanner: Archive, bench_with: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_with(archive.port, scanner.port)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with receiving(bench) as port:
        request(port, THEIRS, PAIRS)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(commitment, "reach", die)  # begun, and not asked
        sweep(bench)
    bench.now += 121
    sweep(bench)
    with receiving(bench) as port:
        archive.answers(port)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(commitment_proxy, "_report", die)  # decided, and not told
        sweep(bench)
    sweep(bench)

    assert told(scanner) == [(THEIRS, 1, set(PAIRS), {})]


def test_what_an_archive_that_is_down_leaves_open_fails_at_the_deadline(
    scanner: Archive, bench_with: MakeBench
) -> None:
    bench = bench_with(free_port(), scanner.port, commitment_deadline_s=7200.0)
    with receiving(bench) as port:
        request(port, THEIRS, PAIRS)
        for _ in range(24):
            sweep(bench)
            bench.now += 299
        assert scanner.reports == []
        bench.now += 300
        sweep(bench)

    assert told(scanner) == [(THEIRS, 2, set(), dict.fromkeys(PAIRS, 0x0110))]


def test_an_archive_that_does_not_answer_is_asked_again_for_what_is_open(
    archive: Archive, scanner: Archive, bench_with: MakeBench
) -> None:
    bench = bench_with(archive.port, scanner.port)
    with receiving(bench) as port:
        request(port, THEIRS, PAIRS)
        sweep(bench)
        bench.now += 3601
        sweep(bench)
        assert archive.asked_for == [PAIRS] * 2
        archive.answers(port, number=0)
        sweep(bench)

    assert told(scanner) == [(THEIRS, 1, set(PAIRS), {})]


def test_a_caller_that_is_away_is_told_when_it_is_back(archive: Archive, bench_with: MakeBench) -> None:
    port_of_scanner = free_port()
    bench = bench_with(archive.port, port_of_scanner)
    with receiving(bench) as port:
        request(port, THEIRS, PAIRS)
        sweep(bench)
        archive.answers(port)
        sweep(bench)
        sweep(bench)
        assert rows(bench)[0].attempts == 1, "with a pause between two attempts"
        bench.now += 6
        sweep(bench)
        assert rows(bench)[0].attempts == 2
        bench.now += 8 * DAY_S
        sweep(bench)

    assert rows(bench)[0].tell_at is None, "given up"
    with receiving(bench) as port:
        request(port, THEIRS, PAIRS)  # it is back, and asks again
    sweep(bench)
    assert rows(bench)[0].tell_at is not None, "it has another week"
    bench.now += 8 * DAY_S
    sweep(bench)
    bench.now += 31 * DAY_S
    retain(bench.node)
    assert rows(bench) == []


def test_the_archive_is_not_asked_while_images_are_on_their_way_to_it(
    archive: Archive, scanner: Archive, bench_with: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_with(archive.port, scanner.port)
    with receiving(bench) as port:
        request(port, THEIRS, PAIRS)
    with monkeypatch.context() as patched:
        patched.setattr(commitment_proxy, "instances_on_their_way", lambda *_: True)
        sweep(bench)
        assert rows(bench)[0].ask_at == bench.now + 5
        bench.now += 3600
        sweep(bench)
        assert rows(bench)[0].ask_at == bench.now + 60, "less and less often"
    assert archive.requests == []
    bench.now += 61
    sweep(bench)

    assert archive.asked_for == [PAIRS]


def test_a_large_request_takes_several_transactions_and_one_report(
    archive: Archive, scanner: Archive, bench_with: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_proxy, "AT_MOST", 2)
    bench = bench_with(archive.port, scanner.port)
    with receiving(bench) as port:
        request(port, THEIRS, PAIRS)
        sweep(bench)
        assert [len(one) for one in archive.asked_for] == [2, 1]
        archive.answers(port, number=1)
        sweep(bench)
        assert scanner.reports == []
        archive.answers(port, number=0)
        sweep(bench)

    assert told(scanner) == [(THEIRS, 1, set(PAIRS), {})]


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"calling": "STRANGER"}, 0x0124),
        ({"action": 2}, 0x0123),
        ({"instance": "1.2.3"}, 0x0112),
        ({"transaction": None}, 0x0120),
        ({"transaction": "../../etc"}, 0x0115),
        ({"pairs": {}}, 0x0120),
        ({"pairs": {"1.2..3": CT}}, 0x0115),
    ],
)
def test_a_request_that_cannot_be_kept_is_refused(bench_with: MakeBench, how: dict[str, Any], status: int) -> None:
    bench = bench_with(1, 1)
    with receiving(bench) as port:
        assert request(port, **{"transaction": THEIRS, "pairs": PAIRS, **how}) == status
    assert rows(bench) == []


def test_a_caller_has_no_more_requests_open_than_the_node_can_keep(
    bench_with: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_services, "_OPEN_AT_MOST", 1)
    bench = bench_with(1, 1)
    with receiving(bench) as port:
        assert request(port, THEIRS, PAIRS) == 0x0000
        assert request(port, f"{THEIRS}.1", PAIRS) == 0x0213
        monkeypatch.setattr(commitment_services, "_OPEN_AT_MOST", 9)
        monkeypatch.setattr(commitment_services, "_INSTANCES_AT_MOST", 5)
        assert request(port, f"{THEIRS}.1", PAIRS) == 0x0213
        assert request(port, f"{THEIRS}.1", {"1.2.3.4": CT}) == 0x0000


def test_a_request_is_not_acknowledged_if_the_database_does_not_take_it(
    bench_with: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_with(1, 1)

    def fail() -> None:
        raise StorageFailed("the disk is full")

    with receiving(bench) as port:
        monkeypatch.setattr(bench.database, "write", fail)
        assert request(port, THEIRS, PAIRS) == 0x0213


def test_whatever_a_request_holds_it_is_answered_and_the_next_one_is_served(bench_with: MakeBench) -> None:
    bench = bench_with(1, 1)
    chance = random.Random(7)
    ds = Dataset()
    ds.TransactionUID = THEIRS
    ds.ReferencedSOPSequence = references({(kind, uid): None for uid, kind in PAIRS.items()})
    good = encode(ds)
    seen = set()
    steps = procedure_step_services(bench.database, clock=bench.node.clock)
    services = commitment_services.commitment_services(
        bench.database, bench.node.peers, commit_with="ARCHIVE", deadline_s=60, clock=bench.node.clock
    )
    with receiving(bench, {**services, **steps}) as port:
        contexts = {1: (STORAGE_COMMITMENT, [EXPLICIT]), 3: (PERFORMED_PROCEDURE_STEP, [EXPLICIT])}
        with Scu(port, calling=b"SCANNER", contexts=contexts) as scu:
            for _ in range(300):
                at = chance.randrange(len(good))
                more = chance.choice((chance.randbytes(3), b"\xff" * 4, b"\0" * 4, b""))
                bad = good[:at] + more + good[at + chance.choice((len(more), 1, 8)) :]
                for context, field in ((1, 0x0130), (3, 0x0140), (3, 0x0120)):
                    rq = command(contexts[context][0], COMMITMENT_INSTANCE, field=field)
                    rq += struct.pack("<HHIH", 0, 0x1008, 2, 1)  # Action Type ID
                    scu.send(p_data(context, rq, is_command=True) + p_data(context, bad, is_command=False))
                    answer = scu.answer()
                    seen.add(answer.status)
                    assert answer.comment != "internal error", bad

    assert {0x0000, 0x0110, 0x0115, 0x0120} <= seen
    assert seen <= {0x0000, 0x0106, 0x0110, 0x0111, 0x0112, 0x0115, 0x0120, 0x0131}


@pytest.mark.peers
def test_orthanc_is_told_what_orthanc_holds(bench_with: MakeBench, tmp_path: Path) -> None:
    """One Orthanc is the caller and the archive: it asks the node about an image that it holds."""
    pacs = Orthanc(tmp_path / "orthanc", ae_title="SCANNER").start()
    try:
        bench = bench_with(pacs.dicom_port, pacs.dicom_port)
        both = Peer(name="ARCHIVE", ae_title="SCANNER", host="127.0.0.1", port=pacs.dicom_port)
        bench.node = replace(bench.node, peers=(both,))
        for path in ct_series(tmp_path / "ct", "one", slices=range(2)):
            pacs.upload(path.read_bytes())
        with receiving(bench) as port:
            pacs.knows("node", "MEDIQA", port)
            [series] = [entry["ID"] for entry in pacs.find("Series")]
            asked = pacs.post("/modalities/node/storage-commitment", {"Resources": [series]})
            until(lambda: sweep(bench) or pacs.get(asked["Path"])["Status"] == "Success", "Orthanc is told")
            assert len(pacs.get(asked["Path"])["Success"]) == 2
    finally:
        pacs.stop()
