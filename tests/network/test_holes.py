"""The holes of the raw library that the node closes, row by row (spec: receiving, section 4)."""

import io
import json
import logging
import resource
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil
import pytest
import sqlalchemy as sa
import structlog
from support import trial
from support.receiving import (
    CT,
    Aborted,
    Listening,
    Rejected,
    Scu,
    associate_rq,
    command,
    ct,
    encode,
    fill,
    p_data,
    store_rq,
)
from support.waiting import PATIENCE_S, until

from mediqa_node import logs
from mediqa_node.domain.policy import AllowRule
from mediqa_node.network.association import Association
from mediqa_node.network.pdu_stream import PduStream
from mediqa_node.storage.tables import associations

Listen = Callable[..., Listening]
UID = str(ct().SOPInstanceUID)


def memory() -> int:
    return int(psutil.Process().memory_info().rss)


def test_half_open_connections_are_closed_in_time_and_hold_nobody_up(listening: Listen) -> None:
    patient = listening(negotiation_deadline_s=10 * PATIENCE_S, pdu_deadline_s=10 * PATIENCE_S)
    strict = listening(negotiation_deadline_s=0.6, pdu_deadline_s=0.6)
    with ExitStack() as held:
        half_open(held, patient.port)
        with Scu(patient.port) as scu:
            assert scu.echo() == 0x0000, "while all of them are still open"
        assert all(scu.closed_within(PATIENCE_S) for scu in half_open(held, strict.port))

    until(lambda: not strict.receiver.n_associations, "all places are free")


def half_open(held: ExitStack, port: int) -> list[Scu]:
    """Open two dozen connections that never finish what they began to say."""
    silent = [held.enter_context(Scu(port, associate=False)) for _ in range(12)]
    fill(silent[:6], associate_rq()[:3])
    fill(silent[6:], associate_rq()[:100])
    halves = [held.enter_context(Scu(port)) for _ in range(12)]
    fill(halves, p_data(1, command(CT, UID), is_command=True)[:40])
    return [*silent, *halves]


def test_one_byte_at_a_time_does_not_stretch_the_deadline_of_a_pdu(listening: Listen) -> None:
    node = listening(negotiation_deadline_s=0.5, pdu_deadline_s=0.5)
    before, within = (Scu(node.port, associate=False), Scu(node.port))
    pdu = p_data(1, command(CT, UID), is_command=True)

    def drip(scu: Scu, data: bytes) -> int:
        """Return how many bytes were sent until the node closed the connection."""
        scu.socket.settimeout(0.05)
        for i in range(len(data)):
            try:
                scu.send(data[i : i + 1])
                scu.socket.recv(100)  # waits 50 ms: this is the pace
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            return i
        return len(data)

    with before, within, ThreadPoolExecutor() as pool:
        sent = list(pool.map(drip, (before, within), (associate_rq(), pdu)))

    assert sent[0] < len(associate_rq())
    assert sent[1] < len(pdu)


def test_an_idle_association_has_a_deadline_of_its_own(listening: Listen) -> None:
    node = listening(pdu_deadline_s=0.2, idle_deadline_s=0.8)

    with Scu(node.port) as scu:
        assert not scu.closed_within(0.5)
        assert scu.closed_within(PATIENCE_S)


@pytest.mark.parametrize("kind", [1, 4])
@pytest.mark.parametrize("length", [0xFFFFFFFF, 300_000_000])
def test_a_pdu_of_absurd_length_is_cut_off_unread(listening: Listen, kind: int, length: int) -> None:
    node = listening()
    before = memory()
    with Scu(node.port, associate=kind == 4) as scu:
        scu.send(struct.pack(">BBI", kind, 0, length))

        def pour() -> None:
            try:
                for _ in range(length >> 20):
                    scu.socket.sendall(bytes(1 << 20))
            except OSError:
                return
            pytest.fail("all of it was taken")

        pour()

    assert memory() - before < 20 * 1024**2


def test_a_declared_length_alone_reserves_no_memory(listening: Listen) -> None:
    node = listening(negotiation_deadline_s=1.0)
    before = memory()
    with ExitStack() as held:
        scus = [held.enter_context(Scu(node.port, associate=False)) for _ in range(100)]
        fill(scus, struct.pack(">BBI", 1, 0, 1024**2) + bytes(5000))
        with Scu(node.port) as scu:
            assert scu.echo() == 0x0000

        assert memory() - before < 20 * 1024**2


def test_an_endless_dataset_is_cut_at_the_limit_and_leaves_nothing(listening: Listen) -> None:
    node = listening(max_dataset_bytes=1_000_000)
    with Scu(node.port) as scu:
        scu.send(p_data(1, command(CT, UID), is_command=True))
        piece = p_data(1, encode(ct())[:100] + bytes(60_000), is_command=False, is_last=False)
        with pytest.raises((OSError, Aborted)):
            for _ in range(1000):
                scu.send(piece)
        assert scu.closed_within(5.0)

    until(lambda: not node.temporary(), "the temporary file is gone")
    assert node.files() == []


class SlowIntake:
    """Takes instances one at a time, when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.received = 0

    def begin(self, *_: object) -> "SlowIntake":
        return self

    def write(self, fragment: memoryview) -> None:
        assert self.go.wait(30)
        self.received += len(fragment)

    def finish(self, *_: object) -> None: ...

    def discard(self, *_: object) -> None: ...

    def closed(self, *_: object, **__: object) -> None: ...


def test_a_sender_that_does_not_wait_is_held_back_by_tcp(listening: Listen) -> None:
    intake = SlowIntake()
    node = listening(intake=intake)
    before = memory()
    one = store_rq(UID, bytes(1_000_000), fragment=100_000)
    with Scu(node.port, timeout_s=60) as scu:
        sent = 0

        def pour() -> None:
            nonlocal sent
            for _ in range(60):
                scu.send(one)
                sent += 1

        pouring = threading.Thread(target=pour, daemon=True)
        pouring.start()
        until(lambda: sent == sent and not _still_sending(lambda: sent), "the sender is held back")
        assert sent < 20
        assert memory() - before < 40 * 1024**2
        intake.go.set()
        assert [scu.answer().status for _ in range(60)] == [0x0000] * 60
        pouring.join()

    assert intake.received == 60_000_000
    assert memory() - before < 40 * 1024**2


def _still_sending(look: Callable[[], int]) -> bool:
    seen = look()
    threading.Event().wait(0.3)
    return look() != seen


def test_a_process_with_more_than_1024_descriptors_still_serves(listening: Listen) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("the hard limit of descriptors is below 2,048")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    try:
        with ExitStack() as held:
            for _ in range(1100):
                held.enter_context(open("/dev/null", "rb"))  # noqa: PTH123
            node = listening()
            with Scu(node.port) as scu:
                assert scu.socket.fileno() > 1024
                assert scu.store_dataset(ct()) == 0x0000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_fifty_connections_at_once_are_served_at_once(listening: Listen) -> None:
    node = listening(max_associations=50)

    def call(number: int) -> int:
        with Scu(node.port, calling=f"CT_{number}".encode()) as scu:
            return scu.echo()

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(call, range(50))) == [0x0000] * 50


def test_connections_that_are_reset_inside_a_dataset_leave_nothing(listening: Listen) -> None:
    node, chance = listening(), trial.dice("reset")
    for _ in range(trial.rounds(20, 200)):
        scu, part = Scu(node.port), bytes(chance.randint(0, 20_000))
        scu.send(p_data(1, command(CT, UID), is_command=True) + p_data(1, part, is_command=False, is_last=False))
        scu.reset()

    until(lambda: not node.receiver.n_associations, "all associations have ended")
    assert node.temporary() == []
    assert node.files() == []


def test_callers_that_leave_during_negotiation_do_not_use_up_the_places(
    listening: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = listening(max_associations=2)
    send = PduStream.send
    gone = threading.Barrier(2)

    def send_late(stream: PduStream, data: bytes, **limits: float) -> None:
        if data[0] == 2:
            gone.wait(10)
        send(stream, data, **limits)

    monkeypatch.setattr(PduStream, "send", send_late)
    for _ in range(5):
        scu = Scu(node.port, associate=False)
        scu.send(associate_rq())
        until(lambda: node.receiver.n_associations, "the association was admitted")
        scu.reset()
        gone.wait(10)
        until(lambda: not node.receiver.n_associations, "its place is free again")
    monkeypatch.undo()

    with Scu(node.port) as scu:
        assert scu.echo() == 0x0000


def test_one_address_cannot_use_up_all_places_before_an_association(
    listening: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediqa_node.network.receiver._NEGOTIATING_PER_ADDRESS", 5)
    node = listening(negotiation_deadline_s=20.0)

    with ExitStack() as held:
        scus = [held.enter_context(Scu(node.port, associate=False)) for _ in range(6)]
        assert scus[0].closed_within(5.0)
        assert _echoes(node.port)


def _echoes(port: int) -> bool:
    try:
        with Scu(port) as scu:
            return scu.echo() == 0x0000
    except (Aborted, OSError):
        return False


def test_no_thread_to_be_had_costs_one_connection_not_the_receiver(
    listening: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = listening()

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with Scu(node.port, associate=False) as scu:
            assert scu.closed_within(5.0)

    assert _echoes(node.port)


def test_one_title_holds_no_more_associations_than_its_rule_allows(listening: Listen) -> None:
    node = listening(allowed=(AllowRule(ae_title="CT_ROOM_1", max_associations=1), AllowRule()))

    with Scu(node.port):
        with pytest.raises(Rejected) as caught:
            Scu(node.port)
        with Scu(node.port, calling=b"CT_ROOM_2") as other, Scu(node.port, calling=b"CT_ROOM_2"):
            assert other.echo() == 0x0000

    assert caught.value.args == (2, 3, 2)


def test_one_address_holds_no_more_associations_than_its_rule_allows(listening: Listen) -> None:
    node = listening(allowed=(AllowRule(max_per_address=2),))

    one, two = Scu(node.port, calling=b"CT_ROOM_1"), Scu(node.port, calling=b"CT_ROOM_2")
    with one, two, pytest.raises(Rejected) as caught:
        Scu(node.port, calling=b"CT_ROOM_3")

    assert caught.value.args == (2, 3, 2)


@pytest.mark.parametrize(
    ("name", "pdus"),
    {
        "requests without their datasets": p_data(1, command(CT, UID, field=0x0100), is_command=True) * 100,
        "an endless command": p_data(1, bytes(16_000), is_command=True, is_last=False) * 10,
        "no command": p_data(1, b"\xff" * 100, is_command=True),
        "a command inside a dataset": p_data(1, command(CT, UID), is_command=True) * 2,
        "a dataset without a command": p_data(1, b"1234", is_command=False),
        "a context that was not accepted": p_data(77, command(CT, UID), is_command=True),
        "a second A-ASSOCIATE-RQ": associate_rq(),
        "an unknown PDU": struct.pack(">BBI", 99, 0, 0),
        "a value that exceeds its PDU": struct.pack(">BBIIBB", 4, 0, 6, 999, 1, 3),
        "a release inside a dataset": p_data(1, command(CT, UID), is_command=True) + struct.pack(">BBII", 5, 0, 4, 0),
    }.items(),
)
def test_what_is_no_storage_ends_its_association_and_no_other(listening: Listen, name: str, pdus: bytes) -> None:
    node = listening()
    threads = threading.active_count()

    with Scu(node.port, calling=b"OTHER") as other:
        with Scu(node.port) as scu:
            scu.send(pdus)
            assert scu.closed_within(5.0), name
        until(lambda: node.receiver.n_associations == 1, "only the other is left")
        assert other.store_dataset(ct()) == 0x0000
        assert threading.active_count() <= threads + 1

    assert node.temporary() == []


def test_a_release_inside_a_dataset_does_not_count_as_a_clean_end(listening: Listen) -> None:
    node = listening()
    with Scu(node.port) as scu:
        assert scu.store_dataset(ct()) == 0x0000
        scu.send(p_data(1, command(CT, UID), is_command=True) + struct.pack(">BBII", 5, 0, 4, 0))
        assert scu.closed_within(5.0)
    node.stop()

    with node.database.read() as connection:
        assert connection.execute(sa.select(associations.c.released)).scalar_one() is False


def test_empty_values_are_tolerated(listening: Listen) -> None:
    node = listening()
    data = encode(ct())
    with Scu(node.port) as scu:
        scu.send(p_data(1, command(CT, UID), is_command=True) + p_data(1, b"", is_command=False, is_last=False))
        scu.send(p_data(1, data, is_command=False, is_last=False) + p_data(1, b"", is_command=False))
        assert scu.answer().status == 0x0000


# ── logs ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything that is logged, as the node logs it."""
    stream = io.StringIO()
    root, before = logging.getLogger(), structlog.get_config()
    level, handlers = root.level, root.handlers[:]
    monkeypatch.setattr("sys.stderr", stream)
    for room in ("receiver", "association"):
        monkeypatch.setattr(f"mediqa_node.network.{room}.log", structlog.get_logger("receiver"))
    logs.configure(json_lines=True)
    structlog.configure(**{**structlog.get_config(), "cache_logger_on_first_use": False})
    yield stream
    structlog.configure(**before)
    root.setLevel(level)
    root.handlers[:] = handlers


FORGED = '\n{"event": "forged", "level": "info"}\r\n'


def test_nothing_that_a_peer_sends_forges_a_line_of_the_log(listening: Listen, log: io.StringIO) -> None:
    node = listening()

    for request in (
        {"calling": b'A\n{"event":1}'},
        {"called": b'B\n{"event":1}'},
        {"application": FORGED.encode()},
        {"contexts": {1: (f"1.2{FORGED}", ["1.2.840.10008.1.2"])}},
        {"contexts": {1: (CT, [f"1.2{FORGED}"])}},
    ):
        try:
            with Scu(node.port, **request) as scu:
                scu.release()
        except Rejected:
            pass
    with Scu(node.port, calling=b"CT_ROOM_2") as scu:
        scu.store(f"1.2.3{FORGED}", encode(ct()))
        scu.store(UID, encode(ct(PatientID=FORGED)).replace(b"2.1125.7", b"2.11\n5.7"))
        scu.release()
    node.stop()

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert len(lines) >= 6
    assert {line["event"] for line in lines} <= {"association rejected", "association ended", "instance refused"}
    assert not any("SYN001" in str(line) or "Anna" in str(line) for line in lines)


def test_what_a_peer_can_repeat_is_one_line_an_hour(listening: Listen, log: io.StringIO) -> None:
    full, node = listening(has_room=lambda: False), listening()

    for _ in range(5):
        with pytest.raises(Rejected):
            Scu(full.port)
        with pytest.raises(Rejected):
            Scu(node.port, calling=b"A B", called=b"OTHER")
        with Scu(node.port, associate=False) as scu:
            scu.send(struct.pack(">BBI", 7, 0, 4) + bytes(70))
            assert scu.closed_within(5.0)
        with Scu(node.port) as scu:
            scu.send(p_data(77, b"", is_command=True))
            assert scu.closed_within(5.0)
    with Scu(node.port) as scu:
        for _ in range(5):
            assert scu.store(UID, b"nothing").status == 0xC000
        scu.release()
    node.stop()

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert sorted(f"{line['event']}: {line.get('reason') or line.get('ending')}" for line in lines) == [
        "association ended: presentation context 77 was not accepted",
        "association ended: released",
        "association rejected: called AE title not recognized",
        "association rejected: temporary congestion: no spool, or free space is below `retention.low_water_bytes`",
        "connection ended before an association: PDU of type 7 before an association",
        "instance refused: None",
    ]


def test_only_associations_that_stored_something_have_a_line_each(listening: Listen, log: io.StringIO) -> None:
    node = listening()
    for number in range(5):
        with Scu(node.port) as scu:
            scu.echo()
            scu.release()
        with Scu(node.port) as scu:
            scu.store_dataset(ct(number))
            scu.release()
        with Scu(node.port, calling=b"MONITOR") as scu:
            scu.reset()
    node.stop()

    ended = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["stored"] for line in ended if line["event"] == "association ended"].count(1) == 5
    assert sorted((line["calling_ae"], line["stored"]) for line in ended if not line["stored"]) == [
        ("CT_ROOM_1", 0),
        ("MONITOR", 0),
    ]


def test_the_association_is_on_a_blocking_thread_of_its_own(listening: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: set[int] = set()
    run = Association.run

    def noted(association: Association) -> None:
        ran.add(threading.get_ident())
        run(association)

    monkeypatch.setattr(Association, "run", noted)
    node = listening()
    with ExitStack() as held:
        for i in range(8):
            assert held.enter_context(Scu(node.port, calling=f"CT_{i}".encode())).echo() == 0x0000
        assert len(ran) == 8


def test_a_socket_that_was_reset_before_it_was_accepted_is_no_error(listening: Listen) -> None:
    node = listening()
    for _ in range(20):
        probe = socket.create_connection(("127.0.0.1", node.port))
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        probe.close()

    assert _echoes(node.port)
