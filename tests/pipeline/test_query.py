"""The node's own reports and companions, found and retrieved by DCMTK; the received images are not."""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from pydicom import Dataset
from pynetdicom import AE, evt
from support.queried import (
    ENVIRONMENT,
    KEY_OBJECT,
    PATIENT_FIND,
    SECONDARY_CAPTURE,
    SR_CLASS,
    STUDY_FIND,
    Asked,
    identifier,
    moved,
    study_of,
)
from support.series import ct_series, series_uid
from support.waiting import until

from mediqa_node.domain.query import Level, MoveState
from mediqa_node.domain.retraction import VoidReason
from mediqa_node.pipeline import query
from mediqa_node.pipeline.move import send_due_moves
from mediqa_node.pipeline.query import QueryServices
from mediqa_node.pipeline.retraction import retract, send_due_retractions
from mediqa_node.storage.own_objects import add_move
from mediqa_node.storage.query_tables import moves, own_objects

# ── C-FIND ───────────────────────────────────────────────────────────────────


def test_studies_series_and_objects_are_found_level_by_level(asked: Asked, dcmtk: Callable[[str], str]) -> None:
    dcmtk("findscu")
    keys = ("PatientID", "StudyInstanceUID", "ModalitiesInStudy", "NumberOfStudyRelatedInstances")

    [study] = asked.find("QueryRetrieveLevel=STUDY", *keys, "PatientName=WASSER*", "StudyDate=20261101-20261120")
    series = asked.find(
        "QueryRetrieveLevel=SERIES", f"StudyInstanceUID={study['StudyInstanceUID']}", "SeriesInstanceUID", "Modality"
    )
    report = next(one for one in series if one["Modality"] == "SR")
    [found] = asked.find(
        "QueryRetrieveLevel=IMAGE",
        f"StudyInstanceUID={study['StudyInstanceUID']}",
        f"SeriesInstanceUID={report['SeriesInstanceUID']}",
        "SOPInstanceUID",
        "SOPClassUID",
        "RetrieveAETitle",
    )

    assert study["StudyInstanceUID"] == study_of(asked.anna)
    assert (study["PatientID"], study["ModalitiesInStudy"]) == ("SYN001", "OT\\SR")
    assert study["NumberOfStudyRelatedInstances"] == "6", "a report and five pictures, no image"
    assert {one["Modality"] for one in series} == {"SR", "OT"}
    assert series_uid(asked.anna) not in {one["SeriesInstanceUID"] for one in series}
    assert (found["SOPClassUID"], found["RetrieveAETitle"]) == ("=Comprehensive3DSRStorage", "MEDIQA")


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ((), {"SYN001", "SYN002"}),
        (("PatientID=SYN00?",), {"SYN001", "SYN002"}),
        (("PatientID=syn001",), set()),
        (("PatientID=*2",), {"SYN002"}),
        (("StudyDate=20261121",), {"SYN002"}),
        (("StudyDate=20261121-",), {"SYN002"}),
        (("StudyDate=-20261120",), {"SYN001"}),
        (("StudyTime=1010-1020",), {"SYN001", "SYN002"}),
        (("StudyTime=1020-",), set()),
        (("ModalitiesInStudy=SR",), {"SYN001", "SYN002"}),
        (("ModalitiesInStudy=CT",), set()),
        (("AccessionNumber=A123", "StudyID=S2"), {"SYN002"}),
    ],
)
def test_keys_match_as_the_standard_has_it(
    asked: Asked, dcmtk: Callable[[str], str], keys: tuple[str, ...], found: set[str]
) -> None:
    dcmtk("findscu")

    answers = asked.find("QueryRetrieveLevel=STUDY", "PatientID", *keys)

    assert {one["PatientID"] for one in answers} == found


def test_uids_may_be_a_list_and_patients_are_a_level_of_their_own(asked: Asked, dcmtk: Callable[[str], str]) -> None:
    dcmtk("findscu")
    both = f"StudyInstanceUID={study_of(asked.anna)}\\{study_of(asked.bert)}\\1.2.3"

    assert len(asked.find("QueryRetrieveLevel=STUDY", both)) == 2
    patients = asked.find("QueryRetrieveLevel=PATIENT", "PatientID", "PatientName=wasser*", model="-P")
    assert [one["PatientID"] for one in patients] == ["SYN001"]
    assert asked.statuses(PATIENT_FIND, QueryRetrieveLevel="STUDY", PatientID="SYN002", StudyDate="") == [0xFF00, 0]


def test_names_are_matched_and_answered_in_their_character_set(asked: Asked) -> None:
    keys = {"SpecificCharacterSet": "ISO_IR 100", "QueryRetrieveLevel": "STUDY", "PatientName": "öl^*"}
    association = asked.associated(STUDY_FIND)

    answers = [answer for _, answer in association.send_c_find(identifier(**keys), STUDY_FIND) if answer is not None]
    association.release()

    assert [str(answer.PatientName) for answer in answers] == ["Öl^Bert"]
    assert answers[0].StudyInstanceUID == study_of(asked.bert)


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"QueryRetrieveLevel": "PATIENT", "PatientID": ""}, 0xA900),
        ({"QueryRetrieveLevel": "ROOM", "PatientID": ""}, 0xA900),
        ({"PatientID": ""}, 0xA900),
        ({"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": ""}, 0xA900),
        ({"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": ["1.2", "1.3"]}, 0xA900),
        ({"QueryRetrieveLevel": "STUDY", "PatientID": "*" * 5000}, 0xC000),
    ],
)
def test_a_query_that_is_none_is_refused(asked: Asked, keys: dict[str, str], status: int) -> None:
    assert asked.statuses(STUDY_FIND, **keys) == [status]


def test_a_key_that_is_not_kept_is_answered_empty_and_said(asked: Asked) -> None:
    keys = {"QueryRetrieveLevel": "STUDY", "PatientID": "SYN001", "PatientComments": "", "RequestedProcedureID": ""}

    assert asked.statuses(STUDY_FIND, **keys) == [0xFF01, 0x0000]


def test_more_matches_than_the_limit_are_refused_before_the_first(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "MAX_MATCHES", 1)

    assert asked.statuses(STUDY_FIND, QueryRetrieveLevel="STUDY", PatientID="") == [0xA700]


def test_a_caller_may_cancel(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = threading.Event()
    answer = QueryServices._answer
    monkeypatch.setattr(QueryServices, "_answer", lambda *a: (slow.wait(0.3), answer(*a))[1])
    association = asked.associated(STUDY_FIND)
    answers = association.send_c_find(identifier(QueryRetrieveLevel="STUDY", PatientID=""), STUDY_FIND, msg_id=7)
    statuses = [int(next(answers)[0].Status)]
    association.send_c_cancel(7, association.accepted_contexts[0].context_id)

    statuses += [int(status.Status) for status, _ in answers]
    association.release()

    assert statuses == [0xFF00, 0xFE00]


def test_an_object_that_cannot_be_read_keeps_no_other_from_being_found() -> None:
    assert query.describe(b"no DICOM") == {}


def test_what_does_not_stand_is_not_found(changing: Asked, tmp_path: Path) -> None:
    everything = {"QueryRetrieveLevel": "STUDY", "PatientID": ""}
    assert changing.statuses(STUDY_FIND, **everything) == [0xFF00, 0xFF00, 0x0000]
    with changing.bench.database.write() as connection:
        retract(changing.bench.node, connection, series_uid(changing.anna), VoidReason.WRONG_PATIENT)
    late = ct_series(tmp_path / "late", "bert", slices=range(6), patient_id="SYN002")[5]
    changing.bench.receive(late, association="a3")

    found = changing.statuses(STUDY_FIND, **everything | {"NumberOfStudyRelatedInstances": ""})
    assert found == [0x0000], "of Anna not even the pictures, of Bert nothing until he is assessed again"


# ── C-MOVE ───────────────────────────────────────────────────────────────────


@pytest.fixture
def courier(asked: Asked) -> Iterator[None]:
    """A courier that does nothing but send what others have asked for."""
    asked.bench.now = time.time()
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.05):
            send_due_moves(asked.bench.node)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    stop.set()
    thread.join()


def movescu(asked: Asked, *keys: str, to: str = "VIEWER") -> subprocess.CompletedProcess[str]:
    command = ["/usr/bin/movescu", "-d", "-S", "-aet", "VIEWER", "-aec", "MEDIQA", "-aem", to]
    for key in keys:
        command += ["-k", key]
    command += ["127.0.0.1", str(asked.receiver.port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)


def test_report_and_pictures_are_sent_as_built_to_a_configured_peer(
    asked: Asked, courier: None, dcmtk: Callable[[str], str], tmp_path: Path
) -> None:
    storescp = [dcmtk("storescp"), "-d", "-aet", "VIEWER", "-od", str(tmp_path), str(asked.viewer_port)]
    dcmtk("movescu")
    with subprocess.Popen(storescp, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT) as viewer:
        until(lambda: is_listening(asked.viewer_port), "the viewer listens")
        moved = movescu(asked, "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study_of(asked.anna)}")
        viewer.terminate()
        said = viewer.communicate(timeout=60)[0].decode()

    assert moved.returncode == 0, moved.stderr
    kept = [pydicom.dcmread(path) for path in tmp_path.iterdir()]
    assert len(kept) == 6
    assert {str(ds.PatientID) for ds in kept} == {"SYN001"}
    assert "Completed Suboperations       : 6" in moved.stderr
    assert re.search(r"Move Originator AE Title +: VIEWER|Originator.*VIEWER", said) is not None


def test_what_was_retrieved_is_taken_back_where_it_went(changing: Asked) -> None:
    node, got = changing.bench.node, list[Dataset]()
    viewer = AE(ae_title="VIEWER")
    for uid in (SR_CLASS, SECONDARY_CAPTURE, KEY_OBJECT):
        viewer.add_supported_context(uid)
    handlers = [(evt.EVT_C_STORE, lambda event: (got.append(event.dataset), 0x0000)[1])]
    server = viewer.start_server(("127.0.0.1", changing.viewer_port), block=False, evt_handlers=handlers)
    found = changing.services()._selected({"StudyInstanceUID": study_of(changing.anna)}, Level.STUDY, iter)
    asked_for = {"sop_instance_uids": [one["SOPInstanceUID"] for one in found], "destination": "VIEWER"}
    try:
        with node.database.write() as connection:
            add_move(connection, calling_ae_title="VIEWER", message_id=1, **asked_for, at=node.clock())
        assert send_due_moves(node) == 1
        assert len(got) == 6
        with node.database.write() as connection:
            series, reason = series_uid(changing.anna), VoidReason.WRONG_PATIENT
            assert retract(node, connection, series, reason, at_destinations=["VIEWER"]) == 1
        for _ in range(2):
            changing.bench.now += 1
            send_due_retractions(node)
    finally:
        server.shutdown()

    assert [ds.SOPClassUID for ds in got[6:]] == [SR_CLASS, KEY_OBJECT], "a void report, and a note on the pictures"


def is_listening(port: int) -> bool:
    entity = AE(ae_title="TRIAL")
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate("127.0.0.1", port, ae_title="VIEWER")
    if association.is_established:
        association.release()
    return bool(association.accepted_contexts)


def test_a_viewer_that_takes_reports_only_or_does_not_answer_gets_what_it_can(asked: Asked, courier: None) -> None:
    keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_of(asked.anna)}
    assert moved(asked, **keys)[-1] == (0xA702, 0, 6), "nobody listens"

    viewer = AE(ae_title="VIEWER")
    viewer.add_supported_context("1.2.840.10008.5.1.4.1.1.88.34")
    server = viewer.start_server(
        ("127.0.0.1", asked.viewer_port), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)]
    )
    try:
        assert moved(asked, **keys)[-1] == (0xB000, 1, 5)
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("to", "keys", "status"),
    [
        ("NOBODY", {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2"}, 0xA801),
        ("VIEWER", {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}, 0xA900),
        ("VIEWER", {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2"}, 0x0000),
        ("VIEWER", {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.2"}, 0xA900),
    ],
)
def test_a_move_to_strangers_or_of_nothing_sends_nothing(
    asked: Asked, to: str, keys: dict[str, str], status: int
) -> None:
    assert moved(asked, to, **keys) == [(status, 0, 0)]


def test_a_move_waits_behind_another_as_long_as_that_takes(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "PATIENCE_S", 1.0)
    asked.bench.now = time.time()
    got, before = list[str](), number_of_moves(asked)

    def take(event: evt.Event) -> int:
        time.sleep(0.4)
        got.append(str(event.dataset.PatientID))
        return 0x0000

    viewer = AE(ae_title="VIEWER")
    for uid in (SR_CLASS, SECONDARY_CAPTURE):
        viewer.add_supported_context(uid)
    server = viewer.start_server(("127.0.0.1", asked.viewer_port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    keys = [{"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_of(one)} for one in (asked.anna, asked.bert)]
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(moved, asked, **keys[0])
            until(lambda: number_of_moves(asked) == before + 1, "the first is asked for")
            second = pool.submit(moved, asked, **keys[1])
            until(lambda: number_of_moves(asked) == before + 2, "and the second")
            send_due_moves(asked.bench.node)
            assert [first.result()[-1], second.result()[-1]] == [(0x0000, 6, 0)] * 2, "it took 2.4 s until its turn"
    finally:
        server.shutdown()
    assert got == ["SYN001"] * 6 + ["SYN002"] * 6


def number_of_moves(asked: Asked) -> int:
    with asked.bench.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(moves)).scalar_one())


def test_without_a_courier_a_move_is_given_up_and_is_not_sent_later(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "PATIENCE_S", 0.4)
    keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_of(asked.bert)}

    answers = moved(asked, **keys)

    assert (answers[0][0], answers[-1][0]) == (0xFF00, 0xA702)
    assert send_due_moves(asked.bench.node) == 0
    with asked.bench.database.read() as connection:
        states = set(connection.execute(sa.select(moves.c.state)).scalars())
        assert connection.execute(sa.select(sa.func.count()).select_from(own_objects)).scalar_one() == 12
    assert states <= {MoveState.DONE, MoveState.CANCELLED}
