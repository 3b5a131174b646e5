"""Services in addition to C-STORE: dispatch, roles, cancel, refusals; a scripted SCU of pynetdicom and one of bytes."""

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, Association, build_context, build_role, evt
from support.receiving import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Aborted,
    Listening,
    Scu,
    command,
    ct,
    encode,
    item,
    p_data,
)

from mediqa_node.domain.policy import AllowRule
from mediqa_node.network import association as association_module
from mediqa_node.network import dimse, services
from mediqa_node.network.caller import Caller
from mediqa_node.network.contexts import COMMITMENT_INSTANCE, STORAGE_COMMITMENT
from mediqa_node.network.services import Answer, ServiceRefused, ServiceRequest, Services, sub_operations

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
ACTION = (STORAGE_COMMITMENT, dimse.N_ACTION_RQ)
REPORT = (STORAGE_COMMITMENT, dimse.N_EVENT_REPORT_RQ)

SEQUENCE = b"\x08\0\x99\x11SQ\0\0\xff\xff\xff\xff"
"""The head of Referenced SOP Sequence (0008,1199) of undefined length."""

Listen = Callable[..., Listening]


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Listen]:
    started: list[Listening] = []

    def start(services: Services, **policy: Any) -> Listening:
        started.append(Listening(tmp_path / str(len(started)), services=services, **policy))
        return started[-1]

    yield start
    for node in started:
        node.stop()


@contextmanager
def associated(port: int, *classes: str, roles: Any = (), max_pdu: int = 16382) -> Iterator[Association]:
    entity = AE(ae_title="PACS")
    contexts = [build_context(uid, [EXPLICIT, IMPLICIT]) for uid in classes]
    association = entity.associate("127.0.0.1", port, contexts, ae_title="MEDIQA", ext_neg=list(roles), max_pdu=max_pdu)
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def information() -> Dataset:
    ds = Dataset()
    ds.TransactionUID = "1.2.3.4"
    one = Dataset()
    one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = CT, "1.2.3.5"
    ds.ReferencedSOPSequence = [one]
    return ds


def test_a_request_reaches_its_service_with_its_dataset_and_is_answered(listen: Listen) -> None:
    asked: list[tuple[ServiceRequest, Dataset]] = []

    def act(request: ServiceRequest) -> list[Answer]:
        with request.dataset() as ds:
            asked.append((request, ds))
        return [Answer(more={0x1008: dimse.number_value(request.command.number(0x1008))})]

    node = listen({ACTION: act})
    for maximum in (16382, 0):
        with associated(node.port, STORAGE_COMMITMENT, max_pdu=maximum) as association:
            status, reply = association.send_n_action(information(), 1, STORAGE_COMMITMENT, COMMITMENT_INSTANCE)

        assert status.Status == 0x0000
        assert not reply
    request, found = asked[0]
    assert (request.command.sop_instance_uid, request.command.number(0x1008)) == (COMMITMENT_INSTANCE, 1)
    assert request.caller.calling_ae_title == "PACS"
    assert found.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.5"


def test_an_archive_may_be_the_scp_of_storage_commitment_and_nobody_of_another_class(listen: Listen) -> None:
    asked: list[ServiceRequest] = []

    def note(request: ServiceRequest) -> list[Answer]:
        asked.append(request)
        return [Answer()]

    node = listen({REPORT: note, (FIND, dimse.C_FIND_RQ): note})
    roles = [build_role(STORAGE_COMMITMENT, scp_role=True), build_role(FIND, scp_role=True, scu_role=True)]
    with associated(node.port, STORAGE_COMMITMENT, FIND, roles=roles) as association:
        agreed = {
            context.abstract_syntax: (context.as_scu, context.as_scp) for context in association.accepted_contexts
        }
        status, _ = association.send_n_event_report(information(), 1, STORAGE_COMMITMENT, COMMITMENT_INSTANCE)

    assert agreed == {STORAGE_COMMITMENT: (False, True), FIND: (True, False)}
    assert status.Status == 0x0000
    assert len(asked) == 1


@pytest.mark.parametrize("sub_item", [b"", b"\0", struct.pack(">H", 900) + b"1.2", struct.pack(">H", 3) + b"1.2"])
def test_an_odd_role_costs_itself_and_not_the_association(listen: Listen, sub_item: bytes) -> None:
    node = listen({ACTION: lambda request: [Answer()]})

    with Scu(node.port, user=item(0x54, sub_item)) as scu:
        assert scu.echo() == 0x0000


def test_many_answers_have_their_datasets_however_small_the_pdus_of_the_caller_are(listen: Listen) -> None:
    def find(request: ServiceRequest) -> Iterator[Answer]:
        for number in range(3):
            match = Dataset()
            match.StudyInstanceUID = f"1.2.3.{number}"
            match.StudyDescription = "é" * 30
            match.SpecificCharacterSet = "ISO_IR 192"
            match.PatientComments = "x" * 5000
            yield Answer(status=0xFF00, dataset=match)
        yield Answer()

    node = listen({(FIND, dimse.C_FIND_RQ): find})
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    with associated(node.port, FIND, max_pdu=4096) as association:
        longest: list[int] = []
        association.bind(evt.EVT_DATA_RECV, lambda event: longest.append(len(event.data)))
        found = list(association.send_c_find(query, FIND))

    assert [status.Status for status, _ in found] == [0xFF00, 0xFF00, 0xFF00, 0x0000]
    assert [match.StudyInstanceUID for _, match in found[:3] if match] == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    assert max(longest) == 4096 + 6


def test_a_caller_that_cancels_gets_one_last_answer_with_the_numbers_so_far(listen: Listen) -> None:
    began, ended = threading.Event(), threading.Event()

    def move(request: ServiceRequest) -> Iterator[Answer]:
        try:
            for number in range(100_000):
                yield Answer(status=0xFF00, more=sub_operations(remaining=9, completed=number, failed=0, warning=0))
                began.set()
            yield Answer()
        finally:
            ended.set()

    node = listen({(MOVE, dimse.C_MOVE_RQ): move})
    with associated(node.port, MOVE) as association:
        answers = association.send_c_move(information(), "ELSEWHERE", MOVE, msg_id=7)
        first, _ = next(answers)
        assert began.wait(10)
        association.send_c_cancel(7, query_model=MOVE)
        last = [status for status, _ in answers][-1]

    assert first.Status == 0xFF00
    assert last.Status == 0xFE00
    assert last.NumberOfCompletedSuboperations > 0
    assert ended.wait(10), "the service was closed"


def test_a_late_cancel_is_no_fault(listen: Listen) -> None:
    node = listen({})
    with Scu(node.port) as scu:
        scu.send(p_data(5, command(VERIFICATION, "", field=0x0FFF, with_dataset=False), is_command=True))

        assert scu.echo() == 0x0000


@pytest.mark.parametrize("with_dataset", [False, True])
def test_an_unknown_command_is_answered_and_the_association_goes_on(listen: Listen, with_dataset: bool) -> None:
    node = listen({})
    with Scu(node.port) as scu:
        scu.send(p_data(1, command(CT, "1.2", field=0x0150, with_dataset=with_dataset), is_command=True))
        if with_dataset:
            scu.send(p_data(1, encode(information()), is_command=False))

        answer = scu.answer()

        assert (answer.status, answer.comment) == (0x0211, "command 0x0150 is not served")
        assert scu.store_dataset(ct()) == 0x0000


def test_a_response_that_nobody_waits_for_ends_the_association(listen: Listen) -> None:
    node = listen({})
    with Scu(node.port) as scu:
        scu.send(p_data(1, command(CT, "1.2", field=0x8130, with_dataset=False), is_command=True))

        with pytest.raises(Aborted):
            scu.answer()


def test_nothing_is_stored_in_the_presentation_context_of_another_service(listen: Listen) -> None:
    node = listen({ACTION: lambda request: [Answer()]})
    contexts = {1: (STORAGE_COMMITMENT, [EXPLICIT])}
    with Scu(node.port, contexts=contexts) as scu:
        assert scu.store("1.2.3", encode(ct()), sop_class=STORAGE_COMMITMENT).status == 0x0122


@pytest.mark.parametrize(("field", "status"), [(0x0130, 0x0124), (0x0100, 0x0000), (0x0020, 0x0124), (0x0021, 0x0124)])
def test_a_caller_that_may_not_store_may_answer_the_node_and_nothing_else(
    listen: Listen, field: int, status: int
) -> None:
    node = listen({(STORAGE_COMMITMENT, field): lambda request: [Answer()]}, allowed=(AllowRule(store=False),))
    with Scu(node.port, contexts={1: (STORAGE_COMMITMENT, [EXPLICIT])}) as scu:
        scu.send(p_data(1, command(STORAGE_COMMITMENT, "1.2", field=field, with_dataset=False), is_command=True))

        assert scu.answer().status == status


def _refuse(request: ServiceRequest) -> list[Answer]:
    raise ServiceRefused(0x0112, "no such instance", more={0x0903: dimse.number_value(7)})


def _fail(request: ServiceRequest) -> list[Answer]:
    raise ZeroDivisionError


def _read(request: ServiceRequest) -> list[Answer]:
    with request.dataset():
        return [Answer()]


@pytest.mark.parametrize(
    ("service", "dataset", "status"),
    [
        (_refuse, encode(information()), 0x0112),
        (_fail, encode(information()), 0x0110),
        (lambda request: [], encode(information()), 0x0110),
        (_read, b"\x08\0\x05\0UL\xff\xff garbage", 0x0110),
        (
            _read,
            b"\x08\0\x99\x11SQ\0\0\xff\xff\xff\xff"
            + 3000 * b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\0\x99\x11SQ\0\0\xff\xff\xff\xff",
            0x0110,
        ),
        (_read, b"\x08\0\x99\x11SQ\0\0\xff\xff\xff\xff" + 20_001 * b"\xfe\xff\x00\xe0\0\0\0\0", 0x0213),
        (_read, bytes(4 * 1024**2 + 2), 0x0213),
        (_read, encode(information()), 0x0000),
    ],
    ids=["refused", "unforeseen", "no answer", "garbage", "nested too deep", "too many items", "too long", "good"],
)
def test_a_request_that_fails_is_answered_and_the_association_goes_on(
    listen: Listen, service: Any, dataset: bytes, status: int
) -> None:
    node = listen({ACTION: service})
    with Scu(node.port, contexts={1: (STORAGE_COMMITMENT, [EXPLICIT]), 5: (VERIFICATION, [IMPLICIT])}) as scu:
        scu.send(p_data(1, command(STORAGE_COMMITMENT, COMMITMENT_INSTANCE, field=0x0130), is_command=True))
        for i in range(0, len(dataset), 100_000):
            piece = dataset[i : i + 100_000]
            scu.send(p_data(1, piece, is_command=False, is_last=i + 100_000 >= len(dataset)))

        assert scu.answer().status == status
        assert scu.echo() == 0x0000


def _of_kilobytes(size: int) -> bytes:
    ds = information()
    ds.ReferencedSOPSequence = [ds.ReferencedSOPSequence[0]] * (size * 1024 // 60)
    return encode(ds)


def test_a_caller_that_reads_slowly_keeps_no_other_from_being_read(listen: Listen) -> None:
    def find(request: ServiceRequest) -> Iterator[Answer]:
        with request.dataset():
            pass
        for _ in range(1000):
            yield Answer(status=0xFF00)
        yield Answer()

    large = _of_kilobytes(300)
    requests = [
        ServiceRequest(
            caller=Caller(association_id="a", calling_ae_title="PACS", called_ae_title="MEDIQA", address="192.0.2.1"),
            command=dimse.Command(dimse.C_FIND_RQ, 1, 0, FIND, ""),
            abstract_syntax=FIND,
            transfer_syntax=EXPLICIT,
            encoded=large,
        )
        for _ in range(2)
    ]
    half_read = [services.answers(find, request) for request in requests]
    assert [next(answers).status for answers in half_read] == [0xFF00] * 2
    node = listen({ACTION: _read})
    assert _status_of(node, large) == 0x0000


def test_a_large_request_that_does_not_get_its_turn_is_refused(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_TURN_WITHIN_S", 0.1)
    node = listen({ACTION: _read})
    with services._LARGE_AT_ONCE, services._LARGE_AT_ONCE:
        assert _status_of(node, _of_kilobytes(300)) == 0x0213
        assert _status_of(node, encode(information())) == 0x0000


def test_a_dataset_of_very_many_elements_is_not_read(listen: Listen) -> None:
    flat = b"".join(struct.pack("<HH2sH", 0x0009, 0x1000 + number, b"LO", 0) for number in range(2001))

    assert _status_of(listen({ACTION: _read}), flat) == 0x0213


def test_a_caller_that_does_not_read_its_answers_is_left(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association_module, "_ANSWERS_WITHIN_S", 0.5)
    ended = threading.Event()
    match = Dataset()
    match.PatientComments = "x" * 200_000

    def find(request: ServiceRequest) -> Iterator[Answer]:
        try:
            while True:
                yield Answer(status=0xFF00, dataset=match)
        finally:
            ended.set()

    node = listen({(FIND, dimse.C_FIND_RQ): find})
    with Scu(node.port, contexts={1: (FIND, [EXPLICIT])}) as scu:
        scu.send(p_data(1, command(FIND, "", field=dimse.C_FIND_RQ, with_dataset=False), is_command=True))
        assert ended.wait(10)


def _status_of(node: Listening, dataset: bytes) -> int:
    """Return the status of an N-ACTION."""
    with Scu(node.port, contexts={1: (STORAGE_COMMITMENT, [EXPLICIT])}) as scu:
        scu.send(p_data(1, command(STORAGE_COMMITMENT, COMMITMENT_INSTANCE, field=0x0130), is_command=True))
        for i in range(0, len(dataset), 100_000):
            piece = dataset[i : i + 100_000]
            scu.send(p_data(1, piece, is_command=False, is_last=i + 100_000 >= len(dataset)))
        return int(scu.answer().status)
