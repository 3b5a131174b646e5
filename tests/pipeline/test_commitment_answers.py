"""Which answer of an archive settles what: a caller deletes its images after a positive one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom import Dataset
from support.archive import Archive, receiving, references, report, request
from support.bench import Bench
from support.series import ct_series

from mediqa_node.domain.forward import ForwardState
from mediqa_node.domain.health import ConcernKind
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules, ReceiverPolicy
from mediqa_node.pipeline import commitment_proxy
from mediqa_node.pipeline.commitment_proxy import CommitmentSweep
from mediqa_node.storage import clock, commitment_requests, commitments, forwards, health
from mediqa_node.storage.commitment_tables import commitment_items
from mediqa_node.storage.forward_tables import forwards as forwards_table
from mediqa_node.storage.tables import instances

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
THEIRS = "1.2.826.0.1.3680043.9.1"
ONE = "1.2.3.1"


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
def bench(archive: Archive, scanner: Archive, tmp_path: Path) -> Iterator[Bench]:
    """A node that commits what the archive commits, and asks it to commit to what is forwarded."""
    peers = [
        Peer(name="ARCHIVE", ae_title="SCRIPTED", host="127.0.0.1", port=archive.port, commitment=True),
        Peer(name="CT1", ae_title="SCANNER", host="127.0.0.1", port=scanner.port),
    ]
    made = Bench(
        tmp_path / "bench",
        peers=peers,
        receiver=ReceiverPolicy(commit_with="ARCHIVE"),
        delivery=DeliveryRules(timeout_s=10),
    )
    yield made
    made.close()


def sweep(bench: Bench) -> None:
    CommitmentSweep(bench.node).run()


def n_kept(scanner: Archive) -> list[tuple[str, int, int]]:
    """Return transaction, and how many instances are kept and not, of each report to the scanner."""
    return [
        (str(one.TransactionUID), len(one.get("ReferencedSOPSequence", [])), len(one.get("FailedSOPSequence", [])))
        for one, _, _ in scanner.reports
    ]


@pytest.mark.parametrize("other", [{"1.2.3.9": CT}, {ONE: MR}, {ONE: CT, "1.2.3.9": CT}])
def test_a_transaction_uid_that_is_used_for_other_instances_is_refused(
    archive: Archive, scanner: Archive, bench: Bench, other: dict[str, str]
) -> None:
    with receiving(bench) as port:
        assert request(port, THEIRS, {ONE: CT}) == 0x0000
        assert request(port, THEIRS, other) == 0x0131, "before there is a result"
        sweep(bench)
        archive.answers(port)
        sweep(bench)
        assert request(port, THEIRS, other) == 0x0131
        sweep(bench)

    assert n_kept(scanner) == [(THEIRS, 1, 0)]
    assert archive.asked_for == [{ONE: CT}]


def test_an_answer_settles_only_the_request_that_it_was_asked_for(
    archive: Archive, scanner: Archive, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = f"{THEIRS}.2"
    with receiving(bench) as port:
        request(port, THEIRS, {ONE: CT})
        sweep(bench)
        request(port, second, {ONE: CT})
        with monkeypatch.context() as patched:  # another copy is on its way to the archive
            patched.setattr(commitment_proxy, "instances_on_their_way", lambda *_, **how: not how)
            sweep(bench)
            archive.answers(port)
            sweep(bench)
            assert n_kept(scanner) == [(THEIRS, 1, 0)]
        bench.now += 61
        sweep(bench)
        assert archive.asked_for == [{ONE: CT}] * 2
        archive.answers(port, failed={"": 0x0112})
        sweep(bench)

    assert n_kept(scanner) == [(THEIRS, 1, 0), (second, 0, 1)]


def test_an_answer_about_another_class_leaves_the_instance_open(
    archive: Archive, scanner: Archive, bench: Bench
) -> None:
    with receiving(bench) as port:
        request(port, THEIRS, {ONE: CT})
        sweep(bench)
        ours = archive.requests[-1].TransactionUID
        assert report(port, ours, {(MR, ONE): None}) == 0x0000
        sweep(bench)
        assert n_kept(scanner) == []
        assert report(port, ours, {(MR, ONE): None, (CT, ONE): 0x0112}) == 0x0000
        sweep(bench)

    assert n_kept(scanner) == [(THEIRS, 0, 1)]


def _element(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"event": 7}, 0x0113),
        ({"event": 0}, 0x0113),
        ({"event": 2}, 0x0115),
        ({"event": 2, "more": _element(FailedSOPSequence=[])}, 0x0115),
        ({"event": 1, "more": _element(FailedSOPSequence=references({(CT, "1.2.9"): 0x0112}))}, 0x0115),
        ({"more": _element(ReferencedSOPSequence=[_element(ReferencedSOPInstanceUID=ONE)])}, 0x0115),
        ({"more": _element(ReferencedSOPSequence=[_element(ReferencedSOPClassUID=CT), *references({(CT, ONE): None})])},
         0x0115),
        ({"event": 2, "more": _element(FailedSOPSequence=[_element(FailureReason=0x0112)])}, 0x0115),
    ],
)  # fmt: skip
def test_an_answer_that_contradicts_itself_or_cannot_be_read_is_refused_whole(
    archive: Archive, bench: Bench, how: dict[str, Any], status: int
) -> None:
    with receiving(bench) as port:
        request(port, THEIRS, {ONE: CT})
        sweep(bench)
        assert report(port, archive.requests[-1].TransactionUID, {(CT, ONE): None}, **how) == status
        with bench.database.read() as connection:
            assert connection.execute(sa.select(commitment_items.c.result)).scalars().all() == [None]
        empty = _element(FailedSOPSequence=[])
        assert report(port, archive.requests[-1].TransactionUID, {(CT, ONE): None}, more=empty) == 0x0000


def _forwarded(bench: Bench, path: Path, *, sent_at: float) -> tuple[str, str]:
    """Have an image received and forwarded at a time; return its class and instance."""
    bench.receive(path)
    with bench.database.write() as connection:
        row = connection.execute(sa.select(instances)).one()
        forwards.add(
            bench.database,
            connection,
            instance_id=row.id,
            destinations=["ARCHIVE"],
            series_instance_uid=row.series_instance_uid,
            study_instance_uid=row.series_instance_uid,
            is_copy=False,
            now=sent_at,
        )
        _send(connection, sent_at)
    return row.sop_class_uid, row.sop_instance_uid


def _send(connection: sa.Connection, at: float) -> None:
    sent = {"state": ForwardState.SENT, "done_at": at, "ask_at": at}
    connection.execute(sa.update(forwards_table).values(**sent))


def _state(bench: Bench) -> str:
    with bench.database.read() as connection:
        return str(connection.execute(sa.select(forwards_table.c.state)).scalar_one())


@pytest.mark.parametrize("reason", [None, 0x0112])
def test_an_answer_counts_for_nothing_about_what_was_forwarded_after_the_question(
    archive: Archive, bench: Bench, tmp_path: Path, reason: int | None
) -> None:
    [path] = ct_series(tmp_path / "ct", "one", slices=[0])
    pair = _forwarded(bench, path, sent_at=bench.now)
    sweep(bench)
    bench.now += 10
    with bench.database.write() as connection:
        _send(connection, bench.now)  # again, as after reconciliation
    with receiving(bench) as port:
        assert report(port, archive.requests[0].TransactionUID, {pair: reason}) == 0x0000
        sweep(bench)
        assert _state(bench) == "sent"
        assert len(archive.requests) == 2, "asked about the later copy"
        assert report(port, archive.requests[1].TransactionUID, {(MR, pair[1]): None}) == 0x0000
        sweep(bench)
        assert _state(bench) == "sent", "another class"
        archive.answers(port, number=1)
        sweep(bench)

    assert _state(bench) == "confirmed"


def test_images_without_a_commitment_for_a_day_need_a_person_for_none_of_them_is_deleted(
    archive: Archive, bench: Bench, tmp_path: Path
) -> None:
    _forwarded(bench, ct_series(tmp_path / "ct", "one", slices=[0])[0], sent_at=bench.now)

    def found() -> list[str]:
        with bench.database.read() as connection:
            load = health.load(connection, running=(), has_room=True, now=bench.now, stuck_before=0.0)
        return [one.text for one in load.concerns if one.kind == ConcernKind.NOT_COMMITTED]

    bench.now += 23 * 3600
    assert found() == []
    bench.now += 2 * 3600
    assert found() == [
        "1 instance forwarded, and no commitment to keep them for up to 25 h; until it comes, none is deleted"
    ]


def test_a_late_answer_about_a_forgotten_request_settles_none_of_the_same_number(
    archive: Archive, scanner: Archive, bench: Bench
) -> None:
    with receiving(bench) as port:
        request(port, THEIRS, {ONE: CT})
        sweep(bench)
        bench.now += 2 * 86_400
        sweep(bench)
        with bench.database.write() as connection:
            commitment_requests.forget(connection, bench.now)
        request(port, f"{THEIRS}.2", {ONE: CT})
        archive.answers(port, number=0)
        sweep(bench)

    assert n_kept(scanner) == [(THEIRS, 0, 1)]


def test_a_caller_is_not_told_while_a_copy_newer_than_the_question_is_on_its_way(
    archive: Archive, scanner: Archive, bench: Bench, tmp_path: Path
) -> None:
    [path] = ct_series(tmp_path / "ct", "one", slices=[0])
    kind, uid = _forwarded(bench, path, sent_at=bench.now)
    with bench.database.write() as connection:
        connection.execute(sa.update(forwards_table).values(state=ForwardState.CONFIRMED))
    with receiving(bench) as port:
        request(port, THEIRS, {uid: kind})
        for state in (ForwardState.HELD, ForwardState.WAITING, ForwardState.CONFIRMED):
            sweep(bench)
            bench.now += 10
            with bench.database.write() as connection:
                sent_at = bench.now if state is ForwardState.CONFIRMED else None
                connection.execute(sa.update(forwards_table).values(state=state, done_at=sent_at))
            archive.answers(port)
            sweep(bench)
            assert n_kept(scanner) == [], state
            bench.now += 10
        sweep(bench)
        archive.answers(port)
        sweep(bench)

    assert n_kept(scanner) == [(THEIRS, 1, 0)]


@pytest.mark.parametrize("by_s", [86_400.0, -86_400.0])
def test_what_was_sent_before_the_question_stays_so_when_the_clock_is_set(
    bench: Bench, tmp_path: Path, by_s: float
) -> None:
    [path] = ct_series(tmp_path / "ct", "one", slices=[0])
    kind, uid = _forwarded(bench, path, sent_at=bench.now)
    with bench.database.write() as connection:
        commitments.begin(connection, "1.2.9", "ARCHIVE", {uid: kind}, at=bench.now + 1)
        clock.shift(connection, by_s, now=bench.now + 600 + by_s, window_s=60)
        commitments.take_answer(connection, "1.2.9", ["ARCHIVE"], {(kind, uid): 0}, at=bench.now + by_s)
    sweep(bench)

    assert _state(bench) == "confirmed"
    with bench.database.read() as connection:
        [begun_at] = connection.execute(sa.text("SELECT begun_at FROM commitments")).scalars()
    assert begun_at == bench.now + 1 + by_s
