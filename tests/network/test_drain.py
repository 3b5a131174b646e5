"""SIGTERM under open associations: instances on their way arrive, the rest ends."""

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from support.receiving import CT, Aborted, Listening, Rejected, Scu, command, ct, encode, p_data
from support.waiting import PATIENCE_S, until

Listen = Callable[..., Listening]
UID = str(ct().SOPInstanceUID)


def half_sent(scu: Scu, uid: str, data: bytes) -> bytes:
    """Send the command and half of the dataset; return the PDU with the rest."""
    half = len(data) // 2
    scu.send(p_data(1, command(CT, uid), is_command=True) + p_data(1, data[:half], is_command=False, is_last=False))
    return p_data(1, data[half:], is_command=False)


def test_an_instance_on_its_way_completes_and_idle_associations_end(listening: Listen) -> None:
    node = listening()
    with ExitStack() as held:
        idle = [held.enter_context(Scu(node.port, calling=f"IDLE_{i}".encode())) for i in range(8)]
        assert all(scu.echo() == 0x0000 for scu in idle)
        busy = [held.enter_context(Scu(node.port, calling=f"BUSY_{i}".encode())) for i in range(2)]
        rests = [half_sent(scu, f"{UID}.{i}", encode(ct(SOPInstanceUID=f"{UID}.{i}"))) for i, scu in enumerate(busy)]
        until(lambda: len(node.temporary()) == 2, "both instances are on their way")

        stopping = threading.Thread(target=node.receiver.stop, kwargs={"within_s": 10 * PATIENCE_S})
        stopping.start()
        assert all(scu.closed_within(PATIENCE_S) for scu in idle)
        for scu, rest in zip(busy, rests, strict=True):
            scu.send(rest)
            assert scu.answer().status == 0x0000
        stopping.join(timeout=PATIENCE_S)

    assert not stopping.is_alive(), "it ends with the last instance, not with its time"
    assert len(node.rows()) == 2


def test_nobody_is_admitted_while_it_stops(listening: Listen) -> None:
    node = listening()
    with Scu(node.port) as busy, Scu(node.port, associate=False) as waiting:
        rest = half_sent(busy, UID, encode(ct()))
        until(node.temporary, "the instance is on its way")
        stopping = threading.Thread(target=node.receiver.stop, kwargs={"within_s": 10 * PATIENCE_S})
        stopping.start()
        until(lambda: _refuses(node.port), "the port is closed")
        with pytest.raises((Aborted, Rejected, OSError)):
            waiting.associate()
        busy.send(rest)
        assert busy.answer().status == 0x0000
        stopping.join(timeout=PATIENCE_S)


def _refuses(port: int) -> bool:
    try:
        with Scu(port, associate=False):
            return False
    except ConnectionError:
        return True


def test_a_sender_that_stalls_is_cut_when_time_is_up_and_leaves_nothing(listening: Listen) -> None:
    node = listening(pdu_deadline_s=10 * PATIENCE_S, idle_deadline_s=10 * PATIENCE_S)
    with Scu(node.port) as scu:
        half_sent(scu, UID, encode(ct()))
        until(node.temporary, "the instance is on its way")

        node.receiver.stop(within_s=0.3)

        assert scu.closed_within(PATIENCE_S), "by the end of its time: no deadline of its own has passed"
    assert node.temporary() == []
    assert node.rows() == []


def test_stopping_without_associations_takes_no_time(listening: Listen) -> None:
    node = listening()
    stopping = threading.Thread(target=node.receiver.stop, kwargs={"within_s": 10 * PATIENCE_S})

    stopping.start()
    stopping.join(timeout=PATIENCE_S)

    assert not stopping.is_alive()
