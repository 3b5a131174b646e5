"""Who gets a place when all are taken: those who send, before those who are silent; and always those who verify."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from support.receiving import (
    IMPLICIT,
    VERIFICATION,
    Aborted,
    Listening,
    Rejected,
    Scu,
    associate_rq,
    ct,
    fill,
    item,
    p_data,
)
from support.waiting import until

from mediqa_node.domain.policy import AllowRule
from mediqa_node.network import places

Listen = Callable[..., Listening]
ECHO_ONLY = {5: (VERIFICATION, [IMPLICIT])}


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "GRACE_S", 0.0)


def used(port: int, **request: object) -> Scu:
    """Return an association on which something was sent."""
    scu = Scu(port, **request)
    assert scu.echo() == 0x0000
    return scu


def rejected(port: int, **request: object) -> tuple[int, int, int]:
    with pytest.raises(Rejected) as caught:
        Scu(port, **request)
    return caught.value.args  # type: ignore[return-value]


@pytest.mark.usefixtures("no_grace")
def test_the_association_that_is_silent_the_longest_makes_room_for_one_that_sends(listening: Listen) -> None:
    node = listening(max_associations=3)

    with used(node.port) as sender, Scu(node.port) as longest, Scu(node.port) as shorter, Scu(node.port) as late:
        assert late.store_dataset(ct()) == 0x0000
        with pytest.raises(Aborted, match="A-ABORT"):
            longest.pdu()
        assert shorter.echo() == 0x0000
        assert sender.echo() == 0x0000
        assert node.receiver.n_associations == 3


def test_an_association_has_a_moment_to_begin(listening: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "GRACE_S", 60.0)
    node = listening(max_associations=1, negotiation_deadline_s=0.2)

    with Scu(node.port) as fresh:
        assert rejected(node.port) == (2, 3, 2)
        assert fresh.echo() == 0x0000


def test_a_caller_waits_for_a_place_while_somebody_may_have_to_leave(
    listening: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "GRACE_S", 60.0)
    node = listening(max_associations=1, negotiation_deadline_s=60.0)

    with Scu(node.port) as first, Scu(node.port, associate=False) as second:
        second.send(associate_rq())
        first.release()
        kind, _ = second.pdu()

    assert kind == 2


@pytest.mark.usefixtures("no_grace")
def test_associations_that_have_sent_keep_their_places(listening: Listen) -> None:
    node = listening(max_associations=2)

    with used(node.port) as one, used(node.port) as two:
        assert rejected(node.port) == (2, 3, 2)
        assert one.echo() == two.echo() == 0x0000


@pytest.mark.usefixtures("no_grace")
def test_two_places_beyond_the_limit_are_for_callers_who_only_verify(listening: Listen) -> None:
    node = listening(max_associations=1)

    with used(node.port) as sender:
        assert rejected(node.port) == (2, 3, 2)
        with used(node.port, contexts=ECHO_ONLY), used(node.port, contexts=ECHO_ONLY):
            assert rejected(node.port, contexts=ECHO_ONLY) == (2, 3, 2)
            assert rejected(node.port) == (2, 3, 2)
            assert sender.store_dataset(ct()) == 0x0000
        until(lambda: node.receiver.n_associations == 1, "both have left")
        with Scu(node.port, contexts=ECHO_ONLY) as silent, Scu(node.port, contexts=ECHO_ONLY):
            used(node.port, contexts=ECHO_ONLY).release()
            assert silent.closed_within(5.0), "it never verified"
            assert sender.echo() == 0x0000


@pytest.mark.usefixtures("no_grace")
def test_an_association_whose_first_message_is_arriving_keeps_its_place(listening: Listen) -> None:
    node = listening(max_associations=1)

    with Scu(node.port) as slow:
        slow.send(p_data(5, b"", is_command=True)[:3])
        [association] = node.receiver._places.all()
        until(lambda: association.stream.has_begun, "the first bytes are there")
        assert rejected(node.port) == (2, 3, 2)


def test_a_place_for_verification_is_not_held_in_silence(listening: Listen) -> None:
    node = listening(max_associations=1, pdu_deadline_s=0.2, idle_deadline_s=60.0)

    with used(node.port) as sender, used(node.port, contexts=ECHO_ONLY) as verifying:
        assert verifying.closed_within(5.0)
        assert sender.echo() == 0x0000


def test_a_caller_at_the_cap_of_its_rule_may_still_verify(listening: Listen) -> None:
    node = listening(allowed=(AllowRule(max_associations=1),))

    with Scu(node.port) as first:
        assert rejected(node.port) == (2, 3, 2), "a title does not end its own association"
        with used(node.port, contexts=ECHO_ONLY):
            assert first.store_dataset(ct()) == 0x0000


def test_a_rule_without_a_cap_takes_a_site_behind_one_address(listening: Listen) -> None:
    node = listening(max_associations=40)

    with ExitStack() as held:
        scus = [held.enter_context(Scu(node.port)) for _ in range(40)]
        assert {scu.echo() for scu in scus} == {0x0000}


def test_requests_that_have_not_arrived_hold_no_place_and_little_memory(listening: Listen) -> None:
    node = listening(max_associations=1, negotiation_deadline_s=60.0)
    large = associate_rq(more=item(0x60, bytes(60_000)) * 16)

    with ExitStack() as held:
        waiting = [held.enter_context(Scu(node.port, associate=False)) for _ in range(20)]
        fill(waiting, large[:-1])
        with used(node.port) as sender:
            assert sender.store_dataset(ct()) == 0x0000
            assert node.receiver.n_associations == 1
            sender.release()
        fill(waiting, large[-1:])
        until(lambda: node.receiver.n_associations == 1, "one of them has the place")
