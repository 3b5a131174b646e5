"""What a query may cost, and what it must not move: keys with wildcards, patients of other issuers, long patterns."""

import time
from threading import Thread

import pytest
import sqlalchemy as sa
from support.queried import PATIENT_FIND, STUDY_FIND, Asked, identifier, moved, study_of

from mediqa_node.domain.query import KEYS, Level, OwnObject, selected
from mediqa_node.pipeline import query
from mediqa_node.storage.query_tables import moves, own_objects

PATIENT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
STUDY = {"QueryRetrieveLevel": "STUDY", "PatientID": ""}


def change(asked: Asked, study: str, **values: str) -> None:
    """Change what is listed of the objects of a study."""
    asked.services().list_objects()
    with asked.bench.database.write() as connection:
        found = own_objects.c.study_instance_uid == study
        for row in connection.execute(sa.select(own_objects).where(found)).all():
            mine = own_objects.c.sop_instance_uid == row.sop_instance_uid
            connection.execute(sa.update(own_objects).where(mine).values(attributes={**row.attributes, **values}))


def last_move(asked: Asked) -> set[str]:
    """Return the studies of the last C-MOVE."""
    with asked.bench.database.read() as connection:
        last = connection.execute(sa.select(moves.c.sop_instance_uids).order_by(moves.c.id.desc())).scalars().first()
        uids = own_objects.c.sop_instance_uid.in_(last or [])
        return set(connection.execute(sa.select(own_objects.c.study_instance_uid).where(uids)).scalars())


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        (PATIENT_MOVE, {"QueryRetrieveLevel": "PATIENT", "PatientID": "*"}),
        (PATIENT_MOVE, {"QueryRetrieveLevel": "PATIENT", "PatientID": "SYN00?"}),
        (PATIENT_MOVE, {"QueryRetrieveLevel": "PATIENT", "PatientID": "SYN001", "IssuerOfPatientID": "*"}),
        (query.STUDY_ROOT_MOVE, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "*"}),
        (query.STUDY_ROOT_MOVE, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ["1.2", "*"]}),
    ],
)
def test_a_move_names_what_it_wants(asked: Asked, model: str, keys: dict[str, str]) -> None:
    assert moved(asked, model=model, **keys) == [(0xA900, 0, 0)]


def test_a_patient_is_one_of_its_issuer(changing: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "PATIENCE_S", 0.1)
    change(changing, study_of(changing.anna), IssuerOfPatientID="H1")
    change(changing, study_of(changing.bert), IssuerOfPatientID="H2", PatientID="SYN001")

    patients = changing.statuses(PATIENT_FIND, QueryRetrieveLevel="PATIENT", PatientID="SYN001")
    moved(changing, model=PATIENT_MOVE, QueryRetrieveLevel="PATIENT", PatientID="SYN001", IssuerOfPatientID="H2")

    assert patients == [0xFF00, 0xFF00, 0x0000]
    assert last_move(changing) == {study_of(changing.bert)}
    both = [study_of(changing.anna), study_of(changing.bert)]
    moved(changing, QueryRetrieveLevel="STUDY", StudyInstanceUID=both)  # type: ignore[arg-type]
    assert last_move(changing) == set(both)


@pytest.mark.parametrize(
    "keys",
    [
        {"PatientName": "x" * 65},
        {"StudyInstanceUID": ["1." + "2" * 62] * 260},
        {f"OverlayRows{n}": "" for n in range(201)},
    ],
)
def test_more_than_an_honest_question_is_refused(asked: Asked, keys: dict[str, str]) -> None:
    ds = identifier(**STUDY)
    for number, (keyword, value) in enumerate(keys.items()):
        if keyword.startswith("OverlayRows"):
            ds.add_new(0x00091100 + number, "LO", value)
        else:
            setattr(ds, keyword, value)
    association = asked.associated(STUDY_FIND)
    assert [int(status.Status) for status, _ in association.send_c_find(ds, STUDY_FIND)] == [0xC000]
    association.release()


def test_keys_that_cannot_be_answered_are_left_out(asked: Asked) -> None:
    ds = identifier(**STUDY, FailedSOPSequence=[], PatientComments="")  # type: ignore[arg-type]
    ds.add_new(0x00280106, "US", None)  # Smallest Image Pixel Value: US or SS
    ds.add_new(0x60003000, "OW", None)
    ds.add_new(0x00091010, "LO", "private")
    association = asked.associated(STUDY_FIND)
    answers = [answer for _, answer in association.send_c_find(ds, STUDY_FIND) if answer is not None]
    association.release()

    assert len(answers) == 2
    assert {"PatientComments", "FailedSOPSequence", "PatientID"} <= set(answers[0].dir())
    assert not {0x00280106, 0x60003000, 0x00091010} & {int(tag) for tag in answers[0].keys()}  # noqa: SIM118


def test_an_answer_that_cannot_be_encoded_fails_and_the_association_goes_on(changing: Asked) -> None:
    change(changing, study_of(changing.anna), SeriesNumber="no number")
    study = {"QueryRetrieveLevel": "SERIES", "SeriesNumber": ""}
    association = changing.associated(STUDY_FIND)
    found = [
        [int(status.Status) for status, _ in association.send_c_find(identifier(**study, **keys), STUDY_FIND)]
        for keys in ({"StudyInstanceUID": study_of(changing.anna)}, {"StudyInstanceUID": study_of(changing.bert)})
    ]
    association.release()

    assert found[0] == [0xC000]
    assert found[1][-1] == 0x0000


def test_one_query_is_matched_at_a_time_and_a_caller_that_waits_may_cancel(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    association = asked.associated(STUDY_FIND)
    with query._MATCHING:
        answers = association.send_c_find(identifier(**STUDY), STUDY_FIND, msg_id=7)
        context = association.accepted_contexts[0].context_id
        Thread(target=lambda: (time.sleep(0.3), association.send_c_cancel(7, context))).start()
        assert [int(status.Status) for status, _ in answers] == [0xFE00]
        monkeypatch.setattr(query, "_TURN_WITHIN_S", 0.1)
        assert asked.statuses(STUDY_FIND, **STUDY) == [0xA700]
    association.release()
    assert asked.statuses(STUDY_FIND, **STUDY)[-1] == 0x0000


def test_matching_that_takes_long_is_given_up(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "_MATCH_WITHIN_S", -1.0)

    assert asked.statuses(STUDY_FIND, **STUDY) == [0xA700]


def test_the_worst_keys_that_are_taken_cost_little() -> None:
    row = OwnObject(values=dict.fromkeys(KEYS, "a" * 64))
    worst = query._wanted(identifier(**dict.fromkeys(("PatientName", "PatientID", "StudyID"), "*a" * 31 + "*b")))
    began = time.process_time()

    assert list(selected([row] * 200, worst, Level.STUDY)) == []
    assert (time.process_time() - began) / 200 < 0.01
    assert query._wanted(identifier(PatientID="*" * 60 + "1")) == {"PatientID": "*1"}
