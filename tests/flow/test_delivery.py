"""Fault F6: everything a destination can do to a report. Delivered once, or held where a person sees it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.bench import Bench
from support.proxy import Proxy
from support.scripted import ABORT, SR_CLASSES, scripted, silent_port
from support.series import ct_series, series_uid
from support.siblings import before_release
from support.waiting import free_port

from mediqa_node.domain.errors import PeerRefused, PeerUnavailable, StorageFailed
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules
from mediqa_node.domain.rules import ReturnRule
from mediqa_node.network.sender import connect, report_contexts
from mediqa_node.pipeline import deliver
from mediqa_node.pipeline.sweeps import enqueue_waiting
from mediqa_node.storage import overview
from mediqa_node.storage.outbox import DeliveryRow

MakeBench = Callable[..., Bench]


@pytest.fixture
def bench_to(tmp_path: Path) -> Iterator[MakeBench]:
    """Make a bench whose one destination is the given port."""
    made: list[Bench] = []

    def make(port: int, *, ae_title: str = "SCRIPTED", sr_sop_class: str = "auto", **policy: object) -> Bench:
        peer = Peer(name="PACS", ae_title=ae_title, host="127.0.0.1", port=port, sr_sop_class=sr_sop_class)
        made.append(Bench(tmp_path / f"bench{len(made)}", peers=[peer], **policy))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def assessed(bench: Bench, folder: Path, name: str = "delivered") -> str:
    """Receive a series, settle it and judge it; its first delivery is tried at once."""
    paths = ct_series(folder / name, name)
    bench.receive_all(paths)
    bench.now += 3
    assert bench.complete_series() == 1
    bench.work()
    return series_uid(paths)


def only_delivery(bench: Bench, series: str) -> DeliveryRow:
    """Return the one delivery of a series."""
    [delivery] = bench.deliveries(series)
    return delivery


# ── what the peer answers ────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [0x0000, 0xB000, *before_release(0xB006, 0xB007)])
def test_a_report_that_was_stored_is_sent_and_the_warning_is_kept(
    bench_to: MakeBench, tmp_path: Path, status: int
) -> None:
    with scripted(statuses=[status]) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, tmp_path)

    delivery = only_delivery(bench, series)
    assert (delivery.state, delivery.status) == ("sent", status)
    assert bench.series(series).state == "DELIVERED"
    assert len(pacs.received) == 1


@pytest.mark.parametrize("status", [*before_release(0xA900), 0xC000, *before_release(0x0122, 0x0124)])
def test_a_report_that_was_refused_is_parked_and_can_be_sent_again(
    bench_to: MakeBench, tmp_path: Path, status: int
) -> None:
    with scripted(statuses=[status]) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, tmp_path)

        parked = only_delivery(bench, series)
        assert (parked.state, parked.status) == ("parked", status)
        assert f"{status:#06x}" in str(parked.message)
        assert bench.series(series).state == "PARKED"
        bench.pass_time(3600, step_s=60)
        assert len(pacs.received) == 1, "parked: nobody sends it but a person"

        with bench.database.write() as connection:
            assert overview.retry(connection, [str(parked.id)], now=bench.now) == (1, 0)
        bench.pass_time(2)

    assert only_delivery(bench, series).state == "sent"
    assert bench.series(series).state == "DELIVERED"
    assert pacs.received[0] == pacs.received[1], "built once, sent again to the bit"


def test_a_report_that_is_there_since_an_attempt_without_answer_is_sent(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(statuses=[ABORT, 0x0111]) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, tmp_path)
        assert only_delivery(bench, series).state == "waiting"

        bench.pass_time(30)

    delivery = only_delivery(bench, series)
    assert (delivery.state, delivery.status, delivery.attempts) == ("sent", 0x0111, 2)
    assert pacs.received[0] == pacs.received[1]


def test_a_uid_that_the_peer_holds_before_the_report_was_sent_parks_it(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(statuses=[0x0111]) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, tmp_path)

    assert (only_delivery(bench, series).state, only_delivery(bench, series).status) == ("parked", 0x0111)


def test_out_of_resources_three_times_is_tried_again_with_longer_pauses(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(statuses=[0xA700, 0xA702, 0xA700]) as pacs:
        bench = bench_to(pacs.port)
        began = bench.now
        series = assessed(bench, tmp_path)
        assert only_delivery(bench, series).state == "waiting"
        assert bench.series(series).state == "ASSESSED"

        bench.pass_time(120, until=lambda: only_delivery(bench, series).state != "waiting")

    delivery = only_delivery(bench, series)
    assert (delivery.state, delivery.attempts) == ("sent", 4)
    assert bench.now - began >= 5 + 10 + 20
    assert len(set(pacs.received)) == 1


def test_after_the_last_attempt_the_report_is_parked_and_not_lost(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(statuses=[0xA700] * 1000) as pacs:
        bench = bench_to(pacs.port, delivery=DeliveryRules(give_up_after_s=600, timeout_s=2))
        series = assessed(bench, tmp_path)

        bench.pass_time(2000, step_s=20)

    delivery = only_delivery(bench, series)
    assert delivery.state == "parked"
    assert "given up after" in str(delivery.message)
    assert bench.series(series).state == "PARKED"


@pytest.mark.parametrize("moment", ["C-FIND", "C-STORE"])
def test_a_peer_that_aborts_midway_is_tried_again(bench_to: MakeBench, tmp_path: Path, moment: str) -> None:
    with scripted(statuses=[ABORT] if moment == "C-STORE" else []) as pacs:
        pacs.aborts_find = moment == "C-FIND"
        bench = bench_to(pacs.port)
        series = assessed(bench, tmp_path)
        assert only_delivery(bench, series).state == "waiting", only_delivery(bench, series).message

        pacs.aborts_find = False
        bench.pass_time(30)

    assert only_delivery(bench, series).state == "sent"


def test_a_search_that_fails_for_want_of_resources_is_no_answer(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted() as pacs:
        pacs.find_status = 0xA700
        bench = bench_to(pacs.port)

        series = assessed(bench, tmp_path)

        assert only_delivery(bench, series).state == "waiting"
        assert pacs.received == [], "never sent before the patient is known"


# ── whether there is a peer at all ───────────────────────────────────────────


def test_a_peer_that_is_down_is_tried_until_it_is_up(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted() as pacs:
        proxy = Proxy(pacs.port)
        proxy.refusing = True
        bench = bench_to(proxy.port)
        series = assessed(bench, tmp_path)
        assert only_delivery(bench, series).state == "waiting"

        proxy.refusing = False
        bench.pass_time(10)
        proxy.stop()

    assert only_delivery(bench, series).state == "sent"
    assert len(pacs.received) == 1


def test_a_port_where_nobody_listens_is_no_reason_to_park(bench_to: MakeBench, tmp_path: Path) -> None:
    bench = bench_to(free_port())

    series = assessed(bench, tmp_path)

    assert only_delivery(bench, series).state == "waiting"


def test_a_peer_that_stays_silent_costs_one_timeout(bench_to: MakeBench, tmp_path: Path) -> None:
    with silent_port() as port:
        bench = bench_to(port, delivery=DeliveryRules(timeout_s=1.0))
        series = assessed(bench, tmp_path)

    delivery = only_delivery(bench, series)
    assert (delivery.state, delivery.reason_code, delivery.attempts) == ("waiting", "no_answer", 1)


def test_a_transient_rejection_is_tried_again(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted() as pacs:
        pacs.entity.maximum_associations = 1
        bench = bench_to(pacs.port)
        peer = Peer(name="X", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
        with connect(peer, report_contexts(peer), ae_title="OTHER", timeout_s=2):  # (2,3,2): local limit exceeded
            series = assessed(bench, tmp_path)
        assert only_delivery(bench, series).state == "waiting", only_delivery(bench, series).message

        bench.pass_time(10)

    assert only_delivery(bench, series).state == "sent"


def test_a_permanent_rejection_is_parked_and_says_why(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(only_called=True) as pacs:
        bench = bench_to(pacs.port, ae_title="SOMEBODY")

        series = assessed(bench, tmp_path)

    delivery = only_delivery(bench, series)
    assert delivery.state == "parked"
    assert "Called AE title not recognised" in str(delivery.message)


# ── what the peer takes ──────────────────────────────────────────────────────


@pytest.mark.parametrize("name", list(SR_CLASSES))
def test_a_peer_that_takes_one_sr_class_gets_that_class(bench_to: MakeBench, tmp_path: Path, name: str) -> None:
    with scripted(classes=[SR_CLASSES[name]]) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, tmp_path)

    assert only_delivery(bench, series).state == "sent"
    assert SR_CLASSES[name].encode() in pacs.received[0]


def test_a_peer_that_speaks_implicit_vr_only_gets_it(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(syntaxes=["1.2.840.10008.1.2"]) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, tmp_path)

    assert only_delivery(bench, series).state == "sent"


@pytest.mark.parametrize("finds", [True, False])
def test_a_peer_that_takes_no_sr_class_parks_the_report_and_loses_nothing(
    bench_to: MakeBench, tmp_path: Path, finds: bool
) -> None:
    with scripted(classes=[], finds=finds) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, tmp_path)

    delivery = only_delivery(bench, series)
    assert delivery.state == "parked"
    assert bench.series(series).state == "PARKED"
    with bench.database.write() as connection:
        assert overview.retry(connection, [], now=bench.now) == (1, 0)


def test_a_peer_that_takes_no_sr_class_is_asked_once_for_all_that_waits(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(classes=[]) as pacs:
        bench = bench_to(pacs.port)
        sent = [ct_series(tmp_path / name, name) for name in ("one", "two", "three")]
        for i, paths in enumerate(sent):  # over two associations each: their reports wait for late slices
            bench.receive_all(paths[:2], association=f"first {i}")
            bench.receive_all(paths[2:], association=f"second {i}")
        bench.pass_time(200)

    found = [only_delivery(bench, series_uid(paths)) for paths in sent]
    assert [delivery.state for delivery in found] == ["parked"] * 3
    assert sorted(delivery.attempts for delivery in found) == [0, 0, 1]
    assert {bench.series(series_uid(paths)).state for paths in sent} == {"PARKED"}


@pytest.mark.parametrize("status", [0xA900, *before_release(0xC001, 0xFE00)])
def test_a_report_never_leaves_unchecked_because_a_search_failed(
    bench_to: MakeBench, tmp_path: Path, status: int
) -> None:
    with scripted() as pacs:
        pacs.holds = [{"PatientID": "SOMEBODY ELSE"}]
        pacs.find_status = status
        bench = bench_to(pacs.port)
        series = assessed(bench, tmp_path)

        assert (only_delivery(bench, series).state, pacs.received) == ("waiting", [])


def test_a_configured_class_is_the_only_one_proposed(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted() as pacs:
        bench = bench_to(pacs.port, sr_sop_class="enhanced")
        assessed(bench, tmp_path)

    assert SR_CLASSES["enhanced"].encode() in pacs.received[0]


# ── our side ─────────────────────────────────────────────────────────────────


def test_a_disk_of_ours_that_fails_does_not_park_the_report(
    bench_to: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageFailed("database refused to write: disk full")

    with scripted() as pacs:
        bench = bench_to(pacs.port)
        monkeypatch.setattr(deliver.outbox, "save_report", full)
        with pytest.raises(StorageFailed):
            assessed(bench, tmp_path)
        monkeypatch.undo()
        with bench.database.read() as connection:
            [delivery] = deliver.outbox.deliveries_in(connection)
        assert delivery.state == "waiting"

        assert deliver.deliver_report(bench.node, delivery.id) == "sent"  # the durable engine tries the job again


def test_an_answer_that_was_lost_after_storing_is_asked_for_again_with_the_same_bytes(
    bench_to: MakeBench, tmp_path: Path
) -> None:
    with scripted() as pacs:
        proxy = Proxy(pacs.port)
        proxy.swallow = 1
        bench = bench_to(proxy.port)
        series = assessed(bench, tmp_path)
        assert only_delivery(bench, series).state == "waiting"

        bench.pass_time(10)
        proxy.stop()

    assert only_delivery(bench, series).state == "sent"
    assert proxy.swallowed == 1
    assert len(pacs.received) == 2
    assert pacs.received[0] == pacs.received[1]


@pytest.mark.parametrize("share", [*before_release(0.02), 0.3, *before_release(0.6), 0.9])
def test_a_connection_cut_anywhere_is_tried_again(bench_to: MakeBench, tmp_path: Path, share: float) -> None:
    with scripted() as pacs:
        proxy = Proxy(pacs.port)
        proxy.cut_after_bytes = int(share * 12_000)
        bench = bench_to(proxy.port)
        series = assessed(bench, tmp_path)
        first = only_delivery(bench, series).state

        proxy.cut_after_bytes = None
        bench.pass_time(10)
        proxy.stop()

    assert first in ("waiting", "sent")
    assert only_delivery(bench, series).state == "sent"


def test_a_late_slice_while_a_report_waits_takes_the_report_back(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(statuses=[0xA700]) as pacs:
        bench = bench_to(pacs.port)
        paths = ct_series(tmp_path / "late", "late while waiting", slices=range(6))
        bench.receive_all(paths[:5])
        bench.now += 3
        bench.complete_series()
        bench.work()
        series = series_uid(paths)
        assert only_delivery(bench, series).state == "waiting"

        bench.receive_all(paths[5:], association="a2")
        bench.now += 6
        enqueue_waiting(bench.node)
        bench.work()
        assert only_delivery(bench, series).state == "superseded"
        assert bench.series(series).state == "RECEIVING", "an old delivery moves nothing"
        bench.pass_time(200)

    old, new = bench.deliveries(series)
    assert (old.state, new.state) == ("superseded", "sent")
    assert bench.series(series).state == "DELIVERED"
    assert len(pacs.received) == 2


def test_a_series_that_is_ready_again_is_not_called_delivered_by_its_old_delivery(
    bench_to: MakeBench, tmp_path: Path
) -> None:
    with scripted(statuses=[0xA700]) as pacs:
        bench = bench_to(pacs.port)
        paths = ct_series(tmp_path / "late", "ready again", slices=range(6))
        bench.receive_all(paths[:5])
        bench.now += 3
        bench.complete_series()
        bench.work()
        bench.receive_all(paths[5:], association="a2")
        bench.now += 15
        assert bench.complete_series() == 1

        [score_job] = bench.jobs.waiting
        held = bench.jobs.waiting.pop(score_job)  # the worker is busy elsewhere
        enqueue_waiting(bench.node)
        bench.work()

        assert bench.series(series_uid(paths)).state == "READY"
        bench.jobs.waiting[score_job] = held
        bench.pass_time(100)
    assert bench.series(series_uid(paths)).state == "DELIVERED"


# ── the sender alone ─────────────────────────────────────────────────────────


def test_an_unknown_host_is_unavailable_not_refused() -> None:
    peer = Peer(name="X", ae_title="X", host="no.such.host.invalid", port=104)
    with pytest.raises(PeerUnavailable), connect(peer, report_contexts(peer), ae_title="MEDIQA", timeout_s=1):
        pass


def test_a_peer_without_any_common_context_is_refused() -> None:
    with scripted(classes=[], finds=False) as pacs:
        peer = Peer(name="X", ae_title="X", host="127.0.0.1", port=pacs.port)
        with pytest.raises(PeerRefused), connect(peer, report_contexts(peer), ae_title="MEDIQA", timeout_s=2):
            pass


# ── which peer is asked ──────────────────────────────────────────────────────


def test_where_reports_go_is_decided_by_the_first_rule_that_matches(tmp_path: Path) -> None:
    with scripted() as one, scripted() as other:
        peers = [
            Peer(name=name, ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
            for name, pacs in (("ONE", one), ("OTHER", other))
        ]
        rules = [
            ReturnRule(sender="CT_QUIET", to=("ONE",), when="never"),
            ReturnRule(sender="CT_FLAG", to=("ONE",), when="flagged"),
            ReturnRule(to=("OTHER",)),
        ]
        bench = Bench(tmp_path / "bench", peers=peers, returns=rules)
        for aet in ("CT_QUIET", "CT_FLAG", "CT_3"):
            bench.receive_all(ct_series(tmp_path / aet, f"rule {aet}"), association=aet, aet=aet)
        bench.pass_time(10)
        bench.close()

    assert (len(one.received), len(other.received)) == (0, 1)
