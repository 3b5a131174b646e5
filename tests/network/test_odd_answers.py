"""A PACS that answers oddly, or not at all: it holds nothing up, and what it has stored counts as stored."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pynetdicom import AE, Association
from pynetdicom.dimse import DIMSEServiceProvider
from support.factories import source_header
from support.raw_pacs import (
    ABORT,
    RELEASE_RP,
    RELEASE_RQ,
    Command,
    acceptance,
    accepting,
    elements,
    raw_pacs,
    response,
)
from support.receiving import EXPLICIT, encode, item, p_data
from support.siblings import before_release

from mediqa_node.domain.errors import MediqaError, PeerRefused, PeerUnavailable, QueryUnanswered
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.peer import Peer
from mediqa_node.network import requestor, responses
from mediqa_node.network.contexts import SR_SOP_CLASSES
from mediqa_node.network.peer_link import PeerLink
from mediqa_node.network.sender import connect, report_contexts

SR, STUDY = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.826.0.1.3680043.2.1125.7"
SHORT_S = 0.3
"""The timeout of a test whose peer never answers."""

SOON_S = 10.0
"""Far more than that takes on a busy machine, and far less than for ever."""


def part10(n_more: int = 0) -> bytes:
    report, stream = source_header(sop_class=SR), BytesIO()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = EXPLICIT
    if n_more:
        report.add_new(0x00420011, "OB", bytes(n_more))
    report.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


REPORT = part10()


def store(peer: Peer, *, timeout_s: float = 20.0, content: bytes = REPORT, was_sent: bool = False) -> int:
    with connect(peer, report_contexts(peer), ae_title="MEDIQA", timeout_s=timeout_s) as link:
        return link.store(content, was_sent=was_sent)


def ask(peer: Peer, question: Callable[[PeerLink], Any], *, timeout_s: float = 20.0) -> Any:
    with connect(peer, report_contexts(peer), ae_title="MEDIQA", timeout_s=timeout_s) as link:
        return question(link)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail if a thread is left that would keep the process from ending."""
    before = set(threading.enumerate())
    yield
    assert [thread for thread in threading.enumerate() if thread not in before and not thread.daemon] == []


def test_an_answer_that_comes_early_is_that_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    wait, get_msg = threading.Event.wait, DIMSEServiceProvider.get_msg

    def late(event: threading.Event, timeout: float | None = None) -> bool:
        is_set = wait(event, timeout)
        if isinstance(threading.current_thread(), Association):
            time.sleep(0.05)  # until the next request has begun, and its answer has come
        return is_set

    def later(provider: DIMSEServiceProvider, block: bool = False) -> Any:
        time.sleep(0.15 if block else 0.0)
        return get_msg(provider, block)

    monkeypatch.setattr(threading.Event, "wait", late)
    monkeypatch.setattr(DIMSEServiceProvider, "get_msg", later)

    with raw_pacs() as peer, connect(peer, report_contexts(peer), ae_title="MEDIQA", timeout_s=2.0) as link:
        assert [link.store(REPORT) for _ in range(4)] == [0x0000] * 4


# ── nothing holds a delivery, or the process ─────────────────────────────────


def dripping(data: bytes) -> Callable[[socket.socket], None]:
    """Send bytes one by one, each within the timeout."""

    def send(connection: socket.socket) -> None:
        for value in data:
            connection.sendall(bytes([value]))
            time.sleep(SHORT_S / 8)

    return send


def flooding(data: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        while True:
            connection.sendall(data)

    return send


ECHO_RQ = p_data(1, elements({0x0100: b"\x30\0", 0x0110: b"\7\0", 0x0800: b"\1\1"}), is_command=True)
ENDLESS: dict[str, Callable[[bytes], object]] = {
    "half of it": lambda pdu: pdu[: len(pdu) // 2],
    "one byte": lambda pdu: pdu[:1],
    "byte by byte": dripping,
    "nothing": lambda _: b"",
    "requests of its own": lambda _: flooding(ECHO_RQ),
    "a PDU of 4 GB": lambda _: struct.pack(">BBI", 4, 0, 0xFFFFFFF0) + bytes(100),
    "a PDU of 4 GB that comes": lambda _: flooding(struct.pack(">BBI", 4, 0, 0xFFFFFFF0) + bytes(100_000)),
    "a PDU of an unknown type": lambda pdu: struct.pack(">BBII", 9, 0, 4, 0) + pdu,
    "a request for an association": lambda _: struct.pack(">BBI", 1, 0, 68) + bytes(68),
    "an acceptance": lambda _: acceptance({1: EXPLICIT}),
    "the end of a release": lambda _: RELEASE_RP,
    "a release": lambda _: RELEASE_RQ,
    "PDUs of nothing": lambda _: flooding(struct.pack(">BBI", 4, 0, 0)),
    "HTTP": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a TLS alert": lambda _: b"\x15\x03\x01\x00\x02\x02\x46",
    "a value that is longer than its PDU": lambda _: struct.pack(">BBI", 4, 0, 6) + b"\xff" * 6,
}


RARE = ("one byte", "requests of its own", "PDUs of nothing", "a PDU of 4 GB that comes", "byte by byte")


@pytest.mark.parametrize("name", [*(name for name in ENDLESS if name not in RARE), *before_release(*RARE)])
def test_what_a_pacs_sends_for_an_answer_is_waited_for_no_longer_than_the_timeout(
    nothing_left: None, name: str
) -> None:
    with raw_pacs(answer=lambda context, command: ENDLESS[name](response(context, command))) as peer:
        began = time.monotonic()
        with pytest.raises(PeerUnavailable, match=r"RAW .*did not answer"):
            store(peer, timeout_s=SHORT_S)
        assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize(
    "name", ["half of it", "a PDU of 4 GB", "HTTP", "a TLS alert", *before_release("byte by byte", "nothing")]
)
def test_what_a_pacs_sends_for_an_acceptance_is_waited_for_no_longer_than_the_timeout(
    nothing_left: None, name: str
) -> None:
    with raw_pacs(accept=lambda request: ENDLESS[name](accepting(request))) as peer:
        began = time.monotonic()
        with pytest.raises(PeerUnavailable, match=r"RAW .*did not answer"):
            store(peer, timeout_s=SHORT_S)
        assert time.monotonic() - began < SOON_S


ODD_RELEASES = [
    "nothing",
    "a PDU of an unknown type",
    "a release",
    "HTTP",
    *before_release("half of it", "byte by byte", "requests of its own", "PDUs of nothing", "an acceptance"),
]


@pytest.mark.parametrize("name", ODD_RELEASES)
def test_no_answer_to_a_release_holds_what_was_stored(
    nothing_left: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(requestor, "RELEASE_WITHIN_S", SHORT_S)
    with raw_pacs(release=ENDLESS[name](RELEASE_RP)) as peer:
        began = time.monotonic()
        assert store(peer, timeout_s=60) == 0x0000
        assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize("ending", [RELEASE_RQ, ABORT, RELEASE_RQ + RELEASE_RP])
def test_an_end_that_comes_with_the_answer_takes_nothing_back(nothing_left: None, ending: bytes) -> None:
    with raw_pacs(answer=lambda context, command: response(context, command) + ending) as peer:
        began = time.monotonic()
        assert store(peer, timeout_s=60) == 0x0000
        assert time.monotonic() - began < SOON_S


def test_a_pacs_that_reads_no_more_is_waited_for_no_longer_than_the_timeout(nothing_left: None) -> None:
    done = threading.Event()

    def deaf(request: bytes) -> Callable[[socket.socket], None]:
        def send(connection: socket.socket) -> None:
            connection.sendall(accepting(request))
            done.wait(timeout=600)

        return send

    with raw_pacs(accept=deaf) as peer:
        began = time.monotonic()
        with pytest.raises(PeerUnavailable, match="did not answer"):
            store(peer, timeout_s=SHORT_S, content=part10(16_000_000))
        assert time.monotonic() - began < SOON_S
        done.set()


# ── how an association begins, or fails to ───────────────────────────────────


def rejection(*reason: int) -> bytes:
    return struct.pack(">BBIB", 3, 0, 4, 0) + bytes(reason)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (rejection(1, 3, 1), PeerUnavailable, "rejected the association: Temporary congestion"),
        (rejection(1, 3, 2), PeerUnavailable, "rejected the association: Local limit exceeded"),
        (rejection(2, 1, 7), PeerUnavailable, "rejected the association: Called AE title not recognised"),
        (rejection(1, 1, 7), PeerRefused, "rejected the association: Called AE title not recognised"),
        (rejection(1, 2, 2), PeerRefused, "rejected the association: Protocol version not supported"),
        (ABORT, PeerUnavailable, "aborted the association"),
    ],
)
def test_a_request_that_fails_says_how(answer: bytes, kind: type[MediqaError], message: str) -> None:
    with raw_pacs(accept=lambda _: answer) as peer, pytest.raises(MediqaError, match=message) as caught:
        store(peer)
    assert type(caught.value) is kind


@pytest.mark.parametrize("ending", [ABORT, RELEASE_RQ, b""])
def test_an_association_that_ends_once_it_is_accepted_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, ending: bytes
) -> None:
    def late(self: AE, *arguments: object, **named: object) -> Association:
        association = associate(self, *arguments, **named)
        association.join(timeout=600)  # the end is read before the caller looks
        return association

    def accept(request: bytes) -> Callable[[socket.socket], None]:
        def send(connection: socket.socket) -> None:
            connection.sendall(accepting(request) + ending)
            if not ending:
                connection.shutdown(socket.SHUT_RDWR)

        return send

    associate = AE.associate
    monkeypatch.setattr(AE, "associate", late)
    with raw_pacs(accept=accept) as peer, pytest.raises(PeerUnavailable, match="ended the association as soon as"):
        store(peer)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.50", "1.2.3.4", "1.2"])
def test_a_transfer_syntax_that_was_not_proposed_is_no_acceptance(syntax: str) -> None:
    every = dict.fromkeys(range(1, 256, 2), syntax)
    with raw_pacs(accept=lambda _: acceptance(every)) as peer, pytest.raises(PeerRefused, match="accepts none"):
        store(peer)

    with raw_pacs(accept=lambda _: acceptance(every | {1: EXPLICIT})) as peer:
        assert store(peer) == 0x0000
        assert ask(peer, lambda link: link.find_study(STUDY)) is None, "C-FIND is context 7"


def surplus(request: bytes, more: bytes) -> bytes:
    """Accept a request with more items behind those that are whole."""
    whole = accepting(request)
    return struct.pack(">BBI", 2, 0, len(whole) - 6 + len(more)) + whole[6:] + more


ODD_ITEMS = {
    "a result": b"\x21\0\xff\xff\7\0\0\0",
    "user information": b"\x50\0\0\xff\x51\0\0\4",
    "its sub-item": item(0x50, b"\x55\0\0\x20ACME"),
    "the transfer syntax of another result": item(0x21, b"\x63\0\0\0\x40\0\0\x50" + EXPLICIT.encode()),
    "what is unknown": b"\x60\0\0\xff",
}


@pytest.mark.parametrize("name", ODD_ITEMS)
def test_an_item_that_is_longer_than_what_holds_it_costs_itself(name: str) -> None:
    with raw_pacs(accept=lambda request: surplus(request, ODD_ITEMS[name])) as peer:
        assert store(peer) == 0x0000


def test_a_result_whose_syntax_is_too_long_costs_its_context() -> None:
    def accept(request: bytes) -> bytes:
        return accepting(request).replace(item(0x40, EXPLICIT.encode()), b"\x40\0\0\x50" + EXPLICIT.encode(), 1)

    with raw_pacs(accept=accept) as peer, connect(peer, report_contexts(peer), ae_title="MEDIQA") as link:
        assert [link.accepts(uid) for uid in SR_SOP_CLASSES.values()] == [False, True, True]


@pytest.mark.parametrize("host", ["a..b", ".", "a" * 64, "no-such-host.invalid"])
def test_a_host_name_that_is_none_is_not_reachable(host: str) -> None:
    with pytest.raises(PeerUnavailable, match="RAW"):
        store(Peer(name="RAW", ae_title="RAW", host=host, port=104))


# ── what it says of an object ────────────────────────────────────────────────


def answering(statuses: list[int]) -> Callable[[int, Command], bytes]:
    left = iter(statuses)
    return lambda context, command: response(context, command, next(left))


def test_an_object_that_was_stored_with_a_warning_is_stored() -> None:
    statuses = [0x0000, 0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007, 0xB00A, 0xBFFF]
    with raw_pacs(answer=answering(statuses)) as peer:
        assert ask(peer, lambda link: [link.store(REPORT) for _ in statuses]) == statuses


def test_any_other_status_is_a_refusal() -> None:
    statuses = [0x0110, 0x0111, 0x0117, 0x0122, 0x0124, 0x0211, 0xA900, 0xC000, 0xCFFF, 0xFE00]

    def refusals(link: PeerLink) -> Iterator[int | None]:
        for status in statuses:
            with pytest.raises(PeerRefused, match=f"{status:#06x}") as caught:
                link.store(REPORT)
            yield caught.value.status

    with raw_pacs(answer=answering(statuses)) as peer:
        assert ask(peer, lambda link: list(refusals(link))) == statuses


def test_a_duplicate_of_what_was_sent_before_is_stored() -> None:
    with raw_pacs(answer=lambda context, command: response(context, command, 0x0111)) as peer:
        assert store(peer, was_sent=True) == 0x0111


WARNING = 0xB007
LONG = b"1." * 40
ODD_RESPONSES: dict[str, Callable[[int, Command], bytes]] = {
    "without Command Data Set Type": lambda i, c: response(i, c, WARNING, without=(0x0800,)),
    "without Message ID": lambda i, c: response(i, c, WARNING, without=(0x0120,)),
    "without SOP class": lambda i, c: response(i, c, WARNING, without=(0x0002,)),
    "a dataset that does not come": lambda i, c: response(i, c, WARNING, e0800=b"\0\0"),
    "a dataset that comes": lambda i, c: response(i, c, WARNING, dataset=b"\x08\0\x05\0\0\0\0\0"),
    "an empty Command Data Set Type": lambda i, c: response(i, c, WARNING, e0800=b""),
    "an instance UID of 80 characters": lambda i, c: response(i, c, WARNING, e1000=LONG),
    "UIDs that are none": lambda i, c: response(i, c, WARNING, e0002=b"ACME ", e1000=b"1..2 x"),
    "a Status of four bytes": lambda i, c: response(i, c, WARNING, e0900=b"\x07\xb0\0\0"),
    "a Message ID of four bytes": lambda i, c: response(i, c, WARNING, e0120=c[0x0110] + bytes(2)),
    "a comment of 200 characters": lambda i, c: response(i, c, WARNING, e0902=b"\xe4" * 200),
    "zeros behind": lambda i, c: response(i, c, WARNING, eFFFF=bytes(2)),
    "a last element that is cut off": lambda i, c: p_data(
        i, elements({0x0100: b"\1\x80", 0x0900: b"\x07\xb0"}) + b"\0\0\2\x09\x40\0\0\0ACME", is_command=True
    ),
    "after a pending one": lambda i, c: response(i, c, 0xFF00) + response(i, c, WARNING),
    "after a request": lambda i, c: ECHO_RQ + response(i, c, WARNING),
    "in another context": lambda i, c: response(99, c, WARNING),
}


@pytest.mark.parametrize("name", ODD_RESPONSES)
def test_an_odd_response_is_an_answer(name: str) -> None:
    with raw_pacs(answer=ODD_RESPONSES[name]) as peer:
        assert ask(peer, lambda link: [link.store(REPORT), link.store(REPORT)]) == [WARNING] * 2


def test_a_status_of_one_byte_is_a_status() -> None:
    with raw_pacs(answer=lambda i, c: response(i, c, e0900=b"\0")) as peer:
        assert store(peer) == 0x0000


@pytest.mark.parametrize("command", [b"", b"\xff" * 20, elements({0x0100: b"\1\x80"}), elements({0x0900: b"\0\0"})])
def test_a_response_that_says_nothing_is_no_answer(nothing_left: None, command: bytes) -> None:
    with raw_pacs(answer=lambda i, _: p_data(i, command, is_command=True)) as peer:
        began = time.monotonic()
        with pytest.raises(PeerUnavailable, match="did not answer C-STORE"):
            store(peer, timeout_s=60)
        assert time.monotonic() - began < SOON_S, "at once"


def test_a_response_that_comes_twice_answers_one_request() -> None:
    statuses = iter([0x0000, 0xC000])

    def twice(context: int, command: Command) -> bytes:
        return response(context, command, status := next(statuses)) + response(context, command, status)

    with raw_pacs(answer=twice) as peer, pytest.raises(PeerRefused, match="0xc000"):
        ask(peer, lambda link: [link.store(REPORT), link.store(REPORT)])


# ── what it finds ────────────────────────────────────────────────────────────


def found(**values: object) -> bytes:
    ds = Dataset()
    for keyword, value in (
        {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY, "PatientID": "P1"} | values
    ).items():
        if value is not None:
            setattr(ds, keyword, value)
    return encode(ds)


def finding(*identifiers: bytes | None) -> Callable[[int, Command], bytes]:
    """Answer C-FIND with identifiers; None: a pending response without any."""
    return lambda i, c: b"".join(response(i, c, 0xFF00, dataset=x) for x in identifiers) + response(i, c)


@pytest.mark.parametrize(
    ("identifiers", "patients"),
    [
        ([found()], ["P1"]),
        ([found(StudyInstanceUID="1.2.3", PatientID="P2")], []),
        ([found(StudyInstanceUID="1.2.3", PatientID="P2"), found(), found(StudyInstanceUID="1.2.4")], ["P1"]),
        ([found(PatientID=None)], [""]),
        ([found(PatientID=["P1", "P2"])], ["P1\\P2"]),
        ([], []),
    ],
)
def test_only_the_study_that_was_asked_for_is_found(identifiers: list[bytes], patients: list[str]) -> None:
    with raw_pacs(answer=finding(*identifiers)) as peer:
        answer = ask(peer, lambda link: link.find_study(STUDY))

    assert answer == [Identity(patient_id=patient, study_instance_uid=STUDY) for patient in patients]


def with_a_sequence() -> bytes:
    start = encode(Dataset())
    return start + found(PatientID=None).replace(
        b"\x20\0\x0d\0UI", b"\x10\0\x20\0SQ\0\0\x08\0\0\0\xfe\xff\0\xe0\0\0\0\0\x20\0\x0d\0UI"
    )


@pytest.mark.parametrize(
    "identifier", [None, b"", b"\xff" * 40, found(StudyInstanceUID=None), found()[:30], with_a_sequence()]
)
def test_an_answer_that_cannot_be_read_is_no_answer(identifier: bytes | None) -> None:
    with raw_pacs(answer=finding(identifier)) as peer, pytest.raises(QueryUnanswered, match="RAW"):
        ask(peer, lambda link: link.find_study(STUDY), timeout_s=2)


def test_series_and_instances_of_another_study_are_not_found() -> None:
    other = found(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1", SOPInstanceUID="1.2.3.1.1")
    ours = found(StudyInstanceUID=None, SeriesInstanceUID="1.5", SOPInstanceUID="1.5.1", PatientID=None)
    sibling = found(SeriesInstanceUID="1.5", SOPInstanceUID="1.5.2")
    with raw_pacs(answer=finding(other, ours)) as peer:
        assert ask(peer, lambda link: link.find_series(STUDY, "P1")) == ["1.5"]
        assert ask(peer, lambda link: link.has_instance(STUDY, "1.5", "1.5.1")) is True
    with raw_pacs(answer=finding(other, sibling)) as peer:
        assert ask(peer, lambda link: link.has_instance(STUDY, "1.5", "1.5.1")) is False


def test_a_query_for_series_that_fails_is_unanswered_and_one_that_is_not_served_finds_none() -> None:
    def answer(context: int, command: Command) -> bytes:
        return response(context, command, statuses.pop(0))

    statuses = [0xA700, 0x0122]
    with raw_pacs(answer=answer) as peer:
        with pytest.raises(QueryUnanswered, match="0xa700"):
            ask(peer, lambda link: link.find_series(STUDY, "P1"))
        assert ask(peer, lambda link: link.find_series(STUDY, "P1")) == []


@pytest.mark.parametrize("pause_s", [0.0, SHORT_S / 4])
def test_answers_without_end_are_no_answer(nothing_left: None, monkeypatch: pytest.MonkeyPatch, pause_s: float) -> None:
    sent = count()
    monkeypatch.setattr(responses, "MAX_ANSWERS", 50)

    def answer(context: int, command: Command) -> Callable[[socket.socket], None]:
        def send(connection: socket.socket) -> None:
            while True:
                connection.sendall(response(context, command, 0xFF00, dataset=found()))
                next(sent)
                time.sleep(pause_s)

        return send

    with raw_pacs(answer=answer) as peer:
        began = time.monotonic()
        with pytest.raises(QueryUnanswered, match="did not answer C-FIND"):
            ask(peer, lambda link: link.find_study(STUDY), timeout_s=1 if pause_s else 60)
        assert time.monotonic() - began < SOON_S
    assert pause_s or next(sent) > responses.MAX_ANSWERS


def test_a_series_may_have_more_images_than_a_day_has_studies() -> None:
    def answer(context: int, command: Command) -> bytes:
        one = found(QueryRetrieveLevel="IMAGE", SOPInstanceUID="1.2.3", PatientID=None)
        return response(context, command, 0xFF00, dataset=one) * 2500 + response(context, command, 0x0000)

    with raw_pacs(answer=answer) as peer:
        assert ask(peer, lambda link: link.find_instances(STUDY, "1.2")) == {"1.2.3"}
        with pytest.raises(QueryUnanswered):
            ask(peer, lambda link: link.find_study(STUDY))


def test_an_identifier_without_end_is_no_answer() -> None:
    piece = p_data(7, bytes(16_000), is_command=False, is_last=False)
    with (
        raw_pacs(answer=lambda i, c: response(i, c, 0xFF00, e0800=b"\1\0") + 5 * piece) as peer,
        pytest.raises(QueryUnanswered, match="did not answer C-FIND"),
    ):
        ask(peer, lambda link: link.find_study(STUDY), timeout_s=60)


def test_a_class_that_is_not_served_is_a_query_that_is_not_offered() -> None:
    with raw_pacs(answer=lambda i, c: response(i, c, 0x0122)) as peer:
        assert ask(peer, lambda link: link.find_study(STUDY)) is None
    with raw_pacs(answer=lambda i, c: response(i, c, 0xA700)) as peer, pytest.raises(QueryUnanswered, match="0xa700"):
        ask(peer, lambda link: link.find_study(STUDY))


def test_no_connection_is_left_open() -> None:
    ended = threading.Event()

    def wait(connection: socket.socket) -> None:
        connection.settimeout(600)
        while connection.recv(4096):
            pass
        ended.set()

    with raw_pacs(accept=lambda _: wait) as peer, pytest.raises(PeerUnavailable):
        store(peer, timeout_s=SHORT_S)
    assert ended.wait(timeout=600)
