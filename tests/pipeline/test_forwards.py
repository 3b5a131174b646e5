"""What is received reaches other archives: unchanged, in order, once, and never in a loop."""

import copy
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import RLELossless
from support.forwarding import Forwarding
from support.receiving import CT, EXPLICIT, MR, Scu, ct, encode
from support.scripted import ABORT, ScriptedPacs, scripted, silent_port
from support.waiting import until

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.forward import ForwardReason, Reconciled
from mediqa_node.domain.peer import ForwardStyle, Peer
from mediqa_node.domain.policy import DeliveryRules
from mediqa_node.domain.rules import ForwardRule
from mediqa_node.domain.series import InstanceStatus
from mediqa_node.pipeline.forward import probe, reconcile
from mediqa_node.pipeline.forward import send as forward_send
from mediqa_node.pipeline.forward import send as sending
from mediqa_node.pipeline.forward.forwarder import Forwarder
from mediqa_node.storage import copies, retention

Make = Callable[..., Forwarding]
TO_PACS = (ForwardRule(to=("PACS",)),)


def pacs_peer(port: int, **changes: Any) -> Peer:
    return Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=port, **changes)


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    with scripted(classes=(CT,)) as running:
        yield running


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Forwarding] = []

    def build(*arguments: Any, **more: Any) -> Forwarding:
        made.append(Forwarding(tmp_path / f"node{len(made)}", *arguments, **more))
        return made[-1]

    yield build
    for one in made:
        one.close()


def send(node: Forwarding, *datasets: Any, calling: bytes = b"CT_ROOM_1") -> None:
    with Scu(node.node.port, calling=calling) as scu:
        for ds in datasets:
            assert scu.store_dataset(ds) == 0x0000
        scu.release()


def test_instances_arrive_unchanged_and_in_order(make: Make, pacs: ScriptedPacs) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    sent = [ct(number, size_px=200) for number in range(1, 13)]
    node.start()

    send(node, *sent)
    node.all_are("sent")

    assert pacs.received == [encode(ds) for ds in sent]
    assert [row.attempts for row in node.rows()] == [1] * 12


def test_the_forward_is_committed_with_the_instance(make: Make) -> None:
    node = make([pacs_peer(1)], TO_PACS)

    send(node, ct(1))

    assert node.states() == ["waiting"]


def test_nothing_is_forwarded_that_comes_from_a_destination(make: Make, pacs: ScriptedPacs) -> None:
    peers = [pacs_peer(pacs.port), Peer(name="SECOND", ae_title="SECOND", host="127.0.0.1", port=1)]
    node = make(peers, [*TO_PACS, ForwardRule(sender="SCRIPTED", to=("SECOND",))])

    send(node, ct(1), calling=b"SCRIPTED")

    assert len(node.node.rows()) == 1
    assert node.states() == []


def test_a_peer_that_is_down_gets_everything_once_it_is_back(make: Make, tmp_path: Path) -> None:
    with scripted(classes=(CT,)) as pacs:
        port = pacs.port
    node = make([pacs_peer(port)], TO_PACS)
    node.start()
    send(node, *(ct(number) for number in range(1, 6)))
    until(lambda: node.context.pulse.sweeps().get("forward PACS") is not None, "a sender was started")

    back = ScriptedPacs(classes=(CT,))
    node.pause()
    object.__setattr__(node.context, "peers", (pacs_peer(back.port),))
    node.start()
    node.all_are("sent")

    assert len(back.received) == 5
    back.stop()


def test_one_instance_that_is_tried_again_delays_only_its_series(make: Make, pacs: ScriptedPacs) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS, delivery=DeliveryRules(retry_first_s=1.5, timeout_s=5.0))
    pacs.statuses = [0xA700]
    first = [ct(number) for number in (1, 2)]
    other = ct(3, SeriesInstanceUID="1.2.826.0.1.3680043.2.1125.99")
    send(node, *first, other)

    node.start()
    until(lambda: node.states() == ["waiting", "waiting", "sent"], "the other series has left")
    node.all_are("sent")

    assert pacs.received == [encode(ds) for ds in (first[0], other, *first)]
    assert node.rows()[0].attempts == 2


@pytest.mark.parametrize(
    ("status", "state", "code"),
    [
        (0x0000, "sent", None),
        (0xB000, "sent", ForwardReason.WITH_WARNING),
        (0xB007, "sent", ForwardReason.WITH_WARNING),
        (0x0111, "sent", ForwardReason.ALREADY_THERE),
        (0xA900, "parked", ForwardReason.REFUSED),
        (0xC000, "parked", ForwardReason.REFUSED),
        (0x0124, "parked", ForwardReason.REFUSED),
        (0x0122, "parked", ForwardReason.CLASS_NOT_ACCEPTED),
    ],
)
def test_what_each_status_leads_to(make: Make, pacs: ScriptedPacs, status: int, state: str, code: str | None) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    pacs.statuses = [status]
    send(node, ct(1), ct(2))

    node.start()
    until(lambda: "waiting" not in node.states(), "both have left or are parked")

    assert node.states() == [state, "sent"], "the next instance of the series is not kept back"
    assert node.rows()[0].reason_code == code
    assert node.rows()[0].status == status


def test_an_association_that_breaks_at_one_instance_is_opened_again_for_the_others(
    make: Make, pacs: ScriptedPacs
) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    pacs.statuses = [ABORT]
    send(node, ct(1), ct(2, SeriesInstanceUID="1.2.826.0.1.3680043.2.1125.99"))

    node.start()
    node.all_are("sent")

    assert len(pacs.received) == 3


def test_a_silent_destination_never_delays_another(make: Make, pacs: ScriptedPacs) -> None:
    with silent_port() as port:
        peers = [pacs_peer(pacs.port), Peer(name="SILENT", ae_title="SILENT", host="127.0.0.1", port=port)]
        node = make(peers, [ForwardRule(to=("SILENT", "PACS"))])
        node.start()

        send(node, *(ct(number) for number in range(1, 4)))
        until(lambda: sorted(node.states()) == ["sent"] * 3 + ["waiting"] * 3, "the PACS has all")

        assert len(pacs.received) == 3


def test_a_copy_with_other_pixels_is_held_and_the_first_is_sent(make: Make, pacs: ScriptedPacs) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    send(node, ct(1), ct(1, PixelData=b"\1\0" * 256))

    node.start()
    until(lambda: node.states() == ["sent", "held"], "the first has left")
    second = node.node.rows()[1]
    with node.node.database.write() as connection:
        copies.set_status(connection, second.id, InstanceStatus.CONFLICT)
    until(lambda: node.rows()[1].reason_code == ForwardReason.OTHER_PIXELS, "it is held as a conflict")

    assert pacs.received == [encode(ct(1))]


def test_what_waits_for_a_destination_is_never_deleted(make: Make) -> None:
    node = make([pacs_peer(1)], TO_PACS)
    send(node, ct(1))
    forever = 4_000_000_000.0

    with node.node.database.write() as connection:
        connection.exec_driver_sql("UPDATE series SET state = 'DELIVERED'")
        assert retention.expired(connection, forever) == []
        connection.exec_driver_sql("UPDATE forwards SET state = 'sent'")
        assert len(retention.expired(connection, forever)) == 1


def test_a_sender_is_offered_what_its_destination_takes(make: Make, pacs: ScriptedPacs) -> None:
    node = make([pacs_peer(pacs.port)], [ForwardRule(sender="CT_ROOM_1", to=("PACS",))])
    both = {1: (CT, [EXPLICIT]), 3: (MR, [EXPLICIT])}
    assert accepted(node, both) == {1, 3}, "while the destination was not asked"

    assert probe.probe(node.context, "PACS")
    node.node.receiver._offered.__self__._read_at = float("-inf")  # type: ignore[union-attr]

    assert accepted(node, both) == {1}
    assert accepted(node, both, calling=b"ELSEWHERE") == {1, 3}


def accepted(node: Forwarding, contexts: dict[int, tuple[str, list[str]]], calling: bytes = b"CT_ROOM_1") -> set[int]:
    with Scu(node.node.port, associate=False) as scu:
        body = scu.associate(contexts=contexts, calling=calling)
    found, position = set(), 68
    while position < len(body):
        kind, length = body[position], int.from_bytes(body[position + 2 : position + 4], "big")
        if kind == 0x21 and body[position + 6] == 0:
            found.add(body[position + 4])
        position += 4 + length
    return found


@pytest.mark.parametrize(("style", "calling"), [("own", "MEDIQA"), ("original", "CT_ROOM_1")])
def test_the_archive_is_called_under_the_title_that_the_site_wants(
    make: Make, pacs: ScriptedPacs, style: Any, calling: str
) -> None:
    pacs.entity.require_calling_aet = [calling]
    node = make([pacs_peer(pacs.port, forward=ForwardStyle(calling_ae=style))], TO_PACS)
    send(node, ct(1))

    node.start()
    node.all_are("sent")


def test_lossless_compression_is_undone_only_where_the_site_says_so(make: Make, pacs: ScriptedPacs) -> None:
    original = ct(1, PixelData=bytes(i % 251 for i in range(512)))
    compressed = copy.deepcopy(original)
    compressed.file_meta = FileMetaDataset()
    compressed.file_meta.TransferSyntaxUID = EXPLICIT
    compressed.compress(RLELossless, generate_instance_uid=False)
    data = encode(compressed)
    for decompress in (False, True):
        node = make([pacs_peer(pacs.port, forward=ForwardStyle(decompress=decompress))], TO_PACS)
        with Scu(node.node.port, contexts={1: (CT, [RLELossless])}) as scu:
            assert scu.store(str(original.SOPInstanceUID), data).status == 0x0000
        node.start()
        node.all_are("sent" if decompress else "parked")

    assert node.rows()[0].reason_code is None
    [arrived] = (pydicom.dcmread(BytesIO(one), force=True) for one in pacs.received)
    assert arrived.PixelData == original.PixelData
    assert arrived.SOPInstanceUID == original.SOPInstanceUID


def settled(node: Forwarding, number: int, status: InstanceStatus) -> None:
    """Let a copy be judged as the courier would."""
    with node.node.database.write() as connection:
        copies.set_status(connection, node.node.rows()[number].id, status)


def test_the_same_image_from_another_sender_reaches_a_destination_of_its_own(make: Make, pacs: ScriptedPacs) -> None:
    rules = [ForwardRule(sender="CT_ROOM_1", to=("ELSEWHERE",)), ForwardRule(sender="CT_ROOM_2", to=("PACS",))]
    peers = [pacs_peer(pacs.port), Peer(name="ELSEWHERE", ae_title="ELSEWHERE", host="127.0.0.1", port=1)]
    node = make(peers, rules)
    send(node, ct(1))
    send(node, ct(1, RequestingService="WARD 3"), calling=b"CT_ROOM_2")
    settled(node, 1, InstanceStatus.SAME)

    node.start()
    until(lambda: node.states() == ["waiting", "sent"], "the second destination has the image")

    assert pacs.received == [encode(ct(1, RequestingService="WARD 3"))]


def test_a_correction_replaces_what_waits_only_where_it_goes_itself(make: Make) -> None:
    rules = [ForwardRule(sender="CT_ROOM_1", to=("PACS", "VNA")), ForwardRule(sender="RIS", to=("PACS",))]
    node = make([pacs_peer(1), Peer(name="VNA", ae_title="VNA", host="127.0.0.1", port=1)], rules)
    send(node, ct(1))
    send(node, ct(1, PatientID="RIGHT"), calling=b"RIS")
    settled(node, 0, InstanceStatus.SUPERSEDED)
    settled(node, 1, InstanceStatus.CURRENT)

    Forwarder(node.context, Event()).settle()

    assert [(row.destination, row.state) for row in node.rows()] == [
        ("PACS", "superseded"),
        ("VNA", "waiting"),
        ("PACS", "waiting"),
    ]


def test_a_file_that_cannot_be_read_keeps_no_other_back(make: Make, pacs: ScriptedPacs) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    send(node, ct(1), ct(2, SeriesInstanceUID="1.2.826.0.1.3680043.2.1125.99"))
    [first, _] = node.node.files()
    path = node.node.spool.path(node.node.rows()[0].path)
    assert path in (first, _)
    path.unlink()
    path.mkdir()

    node.start()
    until(lambda: node.states() == ["waiting", "sent"], "the other one has left")


def test_a_title_that_the_archive_does_not_know_keeps_no_other_scanner_back(make: Make, pacs: ScriptedPacs) -> None:
    pacs.entity.require_calling_aet = ["CT_ROOM_2"]
    node = make([pacs_peer(pacs.port, forward=ForwardStyle(calling_ae="original"))], TO_PACS)
    send(node, ct(1))
    send(node, ct(2, SeriesInstanceUID="1.2.826.0.1.3680043.2.1125.99"), calling=b"CT_ROOM_2")

    node.start()
    until(lambda: node.states() == ["waiting", "sent"], "the other scanner's image has left")


def test_a_clock_that_is_set_back_holds_nothing_up(make: Make, pacs: ScriptedPacs) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    send(node, ct(1), ct(2))
    yesterday = node.context.clock() - 86_400
    object.__setattr__(node.context, "clock", lambda: yesterday)

    node.start()
    node.all_are("sent")


def test_what_could_not_be_recorded_is_not_sent_over_and_over(
    make: Make, pacs: ScriptedPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    send(node, *(ct(number) for number in range(1, 5)))
    finish, failing = sending.forwards.finish, time.monotonic() + 1.5

    def fails(*arguments: Any) -> None:
        if time.monotonic() < failing:
            raise StorageFailed("the disk is full")
        finish(*arguments)

    monkeypatch.setattr(sending.forwards, "finish", fails)
    node.start()
    node.all_are("sent")

    assert len(pacs.received) == 4


def test_an_archive_that_cannot_be_asked_is_sent_nothing_again(make: Make, pacs: ScriptedPacs) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    send(node, ct(1))
    node.start()
    node.all_are("sent")
    pacs.find_status = 0xC000

    found = reconcile.reconcile(node.context, "PACS", [str(ct(1).StudyInstanceUID)])

    assert [one.outcome for one in found] == [Reconciled.UNANSWERED]
    assert reconcile.send_again(node.context, found) == 0


def test_a_rule_for_another_kind_of_object_does_not_narrow_what_a_scanner_is_offered(
    make: Make, pacs: ScriptedPacs
) -> None:
    rules = [ForwardRule(sender="CT_ROOM_1", to=("PACS",)), ForwardRule(modality="SR", to=("DOSE",))]
    with scripted(classes=["1.2.840.10008.5.1.4.1.1.88.67"]) as dose:
        peers = [pacs_peer(pacs.port), Peer(name="DOSE", ae_title="SCRIPTED", host="127.0.0.1", port=dose.port)]
        node = make(peers, rules)
        assert probe.probe(node.context, "PACS")
        assert not probe.probe(node.context, "DOSE"), "it accepts none of the two classes asked about"

        assert accepted(node, {1: (CT, [EXPLICIT]), 3: (MR, [EXPLICIT])}) == {1}


def test_rules_look_at_single_instances(make: Make) -> None:
    rules = [
        ForwardRule(image_type="ORIGINAL", to=("PACS",)),
        ForwardRule(attributes={"InstanceNumber": "^2$", "Rows": "^16$"}, to=("PACS",)),
        ForwardRule(study_at_most_days=3, modality="MR", to=("PACS",)),
    ]
    node = make([pacs_peer(1)], rules)

    send(node, ct(1, ImageType=["DERIVED", "PRIMARY"]), ct(2), ct(3, ImageType=["ORIGINAL", "PRIMARY"]))

    assert [row.sop_instance_uid[-1] for row in node.rows()] == ["2", "3"]


def test_what_an_archive_has_lost_is_found_and_sent_again(make: Make, pacs: ScriptedPacs) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    sent = [ct(number) for number in (1, 2)]
    send(node, *sent)
    node.start()
    node.all_are("sent")
    pacs.holds = [held(sent[0])]

    [found] = reconcile.reconcile(node.context, "PACS", [str(sent[0].StudyInstanceUID)])
    n_again = reconcile.send_again(node.context, [found])
    until(lambda: len(pacs.received) == 3, "the missing one is sent again")
    node.all_are("sent")
    pacs.holds = [held(ds) for ds in sent]
    [again] = reconcile.reconcile(node.context, "PACS", [str(sent[0].StudyInstanceUID)])

    assert (found.outcome, found.n_expected, found.n_found) == (Reconciled.MISSING, 2, 1)
    assert found.missing == [str(sent[1].SOPInstanceUID)]
    assert n_again == 1
    assert pacs.received[-1] == encode(sent[1])
    assert again.outcome is Reconciled.COMPLETE


def held(ds: Any) -> dict[str, str]:
    return {"SeriesInstanceUID": str(ds.SeriesInstanceUID), "SOPInstanceUID": str(ds.SOPInstanceUID)}


def test_a_study_is_compared_an_hour_after_the_last_of_it_was_sent(make: Make, pacs: ScriptedPacs) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    send(node, ct(1))
    node.start()
    node.all_are("sent")

    assert reconcile.reconcile_due(node.context) == 0
    assert pacs.asked == 0
    later = node.context.clock() + 3700
    object.__setattr__(node.context, "clock", lambda: later)
    assert reconcile.reconcile_due(node.context) == 1, "the archive holds nothing"
    assert reconcile.reconcile_due(node.context) == 0, "it was told, and is looked at again tomorrow"
    assert pacs.asked == 1


@pytest.mark.parametrize("damage", ["a bit flipped", "cut", "removed", "a link", "empty"])
def test_a_damaged_file_never_reaches_an_archive_and_keeps_no_other_back(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, damage: str
) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    send(node, ct(1), ct(2), ct(3))
    victim = node.node.spool.path(node.node.rows()[1].path)
    content = victim.read_bytes()
    if damage == "a bit flipped":
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage in ("cut", "empty"):
        victim.write_bytes(content[:-10] if damage == "cut" else b"")
    else:
        victim.unlink()
        if damage == "a link":
            (tmp_path / "elsewhere").write_bytes(content)
            victim.symlink_to(tmp_path / "elsewhere")

    node.start()
    until(lambda: "waiting" not in node.states(), "all have left or are parked")

    assert node.states() == ["sent", "parked", "sent"]
    assert node.rows()[1].reason_code == ForwardReason.FILE_MISSING
    assert pacs.received == [encode(ct(1)), encode(ct(3))]


def test_a_file_that_cannot_be_read_for_now_is_tried_again(
    make: Make, pacs: ScriptedPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make([pacs_peer(pacs.port)], TO_PACS)
    send(node, ct(1), ct(2, SeriesInstanceUID="1.2.826.0.1.3680043.2.1125.99"))
    right, failures = forward_send._as_received, [OSError(5, "Input/output error")]

    def fails_once(path: Path, sha256: str) -> Any:
        if failures:
            raise failures.pop()
        return right(path, sha256)

    monkeypatch.setattr(forward_send, "_as_received", fails_once)
    node.start()
    node.all_are("sent")

    assert [row.attempts for row in node.rows()] == [2, 1]
    assert pacs.received == [encode(ct(2, SeriesInstanceUID="1.2.826.0.1.3680043.2.1125.99")), encode(ct(1))]
