"""What is answered, row by row (spec: receiving, section 3): and the association goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from support.receiving import CT, EXPLICIT, IMPLICIT, MR, Answer, Listening, Rejected, Scu, ct, encode
from support.waiting import until

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.policy import AllowRule
from mediqa_node.storage import spool as spool_room
from mediqa_node.storage.tables import associations

Listen = Callable[..., Listening]
UID = str(ct().SOPInstanceUID)
AFFECTED = 0x00001000


@pytest.fixture
def node(listening: Listen) -> Listening:
    return listening()


def refused(node: Listening, uid: str, data: bytes, **where: Any) -> Answer:
    """Send a bad instance, then see that nothing of it is left and that a good one is taken after it."""
    with Scu(node.port) as scu:
        answer = scu.store(uid, data, **where)
        assert answer.status != 0x0000
        assert node.rows() == []
        assert node.files() == []
        assert node.temporary() == []
        assert scu.store_dataset(ct(77)) == 0x0000
        scu.release()
    return answer


# ── 0x0000 ───────────────────────────────────────────────────────────────────


def test_a_stored_instance_lies_in_the_spool_bit_for_bit(node: Listening) -> None:
    data = encode(ct())

    with Scu(node.port) as scu:
        assert scu.store(UID, data).status == 0x0000

    [row], [path] = node.rows(), node.files()
    assert path.read_bytes().endswith(data)
    assert (row.sop_instance_uid, row.status, row.size_bytes) == (UID, "current", len(data))
    assert row.path == str(path.relative_to(node.spool.root))


def test_the_same_bytes_again_are_stored_once(node: Listening) -> None:
    with Scu(node.port) as first, Scu(node.port) as second:
        assert [scu.store_dataset(ct()) for scu in (first, second, first)] == [0x0000] * 3

    assert len(node.rows()) == 1
    assert len(node.files()) == 1


def test_the_same_bytes_again_replace_a_file_that_was_lost(node: Listening) -> None:
    with Scu(node.port) as scu:
        scu.store_dataset(ct())
        node.files()[0].unlink()
        assert scu.store_dataset(ct()) == 0x0000

    [row], [path] = node.rows(), node.files()
    assert node.spool.path(row.path) == path


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(ct(PatientID="SYN002", PatientName="Test^Berta"), id="demographic correction"),
        pytest.param(ct(PixelData=b"\1\0" * 256), id="other pixels"),
    ],
)
def test_the_same_uid_with_other_bytes_is_kept_beside_the_first(node: Listening, other: Any) -> None:
    with Scu(node.port) as scu:
        assert scu.store_dataset(ct()) == 0x0000
        assert scu.store_dataset(other) == 0x0000

    assert [row.status for row in node.rows()] == ["current", "candidate"]
    assert sorted(p.read_bytes()[-len(encode(ct())) :] for p in node.files()) == sorted([encode(ct()), encode(other)])


def test_the_same_instance_in_another_transfer_syntax_waits_to_be_compared(node: Listening) -> None:
    with Scu(node.port, contexts={1: (CT, [EXPLICIT]), 3: (CT, [IMPLICIT])}) as scu:
        assert scu.store_dataset(ct()) == 0x0000
        assert scu.store(UID, encode(ct(), IMPLICIT), context=3).status == 0x0000

    assert [row.status for row in node.rows()] == ["current", "candidate"]


@pytest.mark.parametrize("uid", ["1.02.3", "1.2.0000"])
def test_leading_zeros_occur_in_real_uids_and_are_accepted(node: Listening, uid: str) -> None:
    ds = encode(ct(SOPInstanceUID=uid))

    with Scu(node.port) as scu:
        assert scu.store(uid, ds).status == 0x0000


def test_a_private_class_that_the_site_lists_is_stored(node: Listening) -> None:
    private = "1.3.12.2.1107.5.9.1"
    ds = ct(SOPClassUID=private, Rows=None, PixelData=None)

    with Scu(node.port, contexts={1: (private, [EXPLICIT])}) as scu:
        assert scu.store_dataset(ds) == 0x0000


# ── 0xA700 ───────────────────────────────────────────────────────────────────


def test_a_disk_below_the_watermark_answers_out_of_resources(node: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    with Scu(node.port) as scu:
        monkeypatch.setattr(node.spool, "has_room", lambda: False)
        answer = scu.store(UID, encode(ct()))
        monkeypatch.undo()
        assert scu.store_dataset(ct()) == 0x0000

    assert answer.status == 0xA700
    assert "low_water_bytes" in answer.comment


def test_a_write_that_fails_answers_out_of_resources(node: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_incoming: object, _fragment: memoryview) -> None:
        raise StorageFailed("no room to spool an instance: No space left on device")

    with Scu(node.port) as scu:
        monkeypatch.setattr(spool_room.Incoming, "write", full)
        answer = scu.store(UID, encode(ct(size_px=256)))
        monkeypatch.undo()
        assert node.temporary() == []
        assert scu.store_dataset(ct()) == 0x0000

    assert answer.status == 0xA700


def test_a_locked_database_answers_out_of_resources_and_leaves_no_file(node: Listening) -> None:
    node.database.close()
    event.listen(node.database.engine, "connect", lambda raw, _: raw.execute("PRAGMA busy_timeout=50").close())
    with Scu(node.port) as scu:
        with sa.create_engine(node.database.url).connect() as other:
            other.exec_driver_sql("BEGIN EXCLUSIVE")
            answer = scu.store(UID, encode(ct()))
            assert node.files() == []
            other.rollback()
        assert scu.store_dataset(ct()) == 0x0000

    assert answer.status == 0xA700


def test_a_database_that_fails_answers_out_of_resources_and_leaves_no_file(node: Listening) -> None:
    with node.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE instances RENAME TO gone")

    with Scu(node.port) as scu:
        answer = scu.store(UID, encode(ct()))
        assert node.files() == []
        with node.database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO instances")
        assert scu.store_dataset(ct()) == 0x0000

    assert answer.status == 0xA700


@pytest.mark.parametrize("repeated", [False, True])
def test_an_association_that_was_refused_something_for_now_has_not_sent_all_unless_it_repeats_it(
    node: Listening, repeated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Scu(node.port) as scu:
        monkeypatch.setattr(node.spool, "begin", lambda *_: (_ for _ in ()).throw(StorageFailed("full")))
        assert scu.store_dataset(ct(1)) == 0xA700
        monkeypatch.undo()
        assert scu.store_dataset(ct(2)) == 0x0000
        if repeated:
            assert scu.store_dataset(ct(1)) == 0x0000
        scu.release()

    def ended() -> list[bool]:
        with node.database.read() as connection:
            found = connection.execute(sa.select(associations.c.released).where(associations.c.closed_at.is_not(None)))
            return list(found.scalars())

    assert until(ended, "the association has ended") == [repeated]


@pytest.mark.parametrize("step", ["begin", "place"])
def test_anything_unforeseen_leaves_the_copy_with_the_sender(
    node: Listening, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def surprise(*_: object) -> None:
        raise RuntimeError("nobody thought of this")

    with Scu(node.port) as scu:
        monkeypatch.setattr(node.spool, step, surprise)
        answer = scu.store(UID, encode(ct()))
        monkeypatch.undo()
        assert scu.store_dataset(ct()) == 0x0000

    assert (answer.status, answer.comment) == (0xA700, "internal error")


# ── 0xA900 ───────────────────────────────────────────────────────────────────


def test_a_class_that_differs_from_the_presentation_context_is_refused(node: Listening) -> None:
    answer = refused(node, UID, encode(ct()), sop_class=MR, context=1)

    assert (answer.status, answer.offending) == (0xA900, 0x00000002)


def test_a_dataset_of_another_class_than_its_command_is_refused(node: Listening) -> None:
    answer = refused(node, UID, encode(ct(SOPClassUID=MR)))

    assert (answer.status, answer.offending) == (0xA900, 0x00080016)


def test_a_dataset_of_another_instance_than_its_command_is_refused(node: Listening) -> None:
    answer = refused(node, UID + "1", encode(ct()))

    assert (answer.status, answer.offending) == (0xA900, 0x00080018)


# ── 0xC000 ───────────────────────────────────────────────────────────────────


def nested(depth: int) -> bytes:
    """Return a dataset with sequences in sequences, of undefined length."""
    opening = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    whole = encode(ct())
    at = whole.index(b"\x20\x00\x0d\x00")
    return whole[:at] + opening * depth + closing * depth + whole[at:]


BAD = {
    "empty": (b"", 0x00080018),
    "garbage": (b"\xde\xad\xbe\xef" * 500, None),
    "text": (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n" * 20, None),
    "truncated in the header": (encode(ct())[:150], None),
    "truncated before the pixels": (encode(ct())[: -512 - 12], 0x7FE00010),
    "truncated in the pixels": (encode(ct())[:-100], 0x7FE00010),
    "pixels fewer than the header says": (encode(ct(PixelData=bytes(100))), 0x7FE00010),
    "nested 33 deep": (nested(33), None),
    "nested 10,000 deep": (nested(10_000), None),
    "no study": (encode(ct(StudyInstanceUID=None)), 0x0020000D),
    "no series": (encode(ct(SeriesInstanceUID=None)), 0x0020000E),
    "no class": (encode(ct(SOPClassUID=None)), 0x00080016),
    "no instance": (encode(ct(SOPInstanceUID=None)), 0x00080018),
    "study with a slash": (encode(ct()).replace(b"2.1125.7", b"2.11/5.7"), 0x0020000D),
    "series that climbs": (encode(ct()).replace(b"2.1125.8", b"../../.8"), 0x0020000E),
    "series with a newline": (encode(ct()).replace(b"2.1125.8", b"2.11\n5.8"), 0x0020000E),
}


@pytest.mark.parametrize(("data", "offending"), BAD.values(), ids=BAD)
def test_what_is_no_whole_instance_is_refused_with_a_reason(
    node: Listening, data: bytes, offending: int | None
) -> None:
    answer = refused(node, UID, data)

    assert answer.status == 0xC000
    assert answer.comment
    assert offending in (None, answer.offending)


def test_sequences_up_to_the_limit_are_accepted(node: Listening) -> None:
    with Scu(node.port) as scu:
        assert scu.store(UID, nested(32)).status == 0x0000


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3\n", "1.2.3;rm", "1." + "2" * 63, "１.２", "a"])
def test_a_malformed_instance_uid_is_refused(node: Listening, uid: str) -> None:
    raw = uid.encode()
    raw += b"\0" * (len(raw) % 2)
    old = encode(ct())
    at = old.index(b"\x08\x00\x18\x00UI")
    length = int.from_bytes(old[at + 6 : at + 8], "little")
    data = old[: at + 6] + len(raw).to_bytes(2, "little") + raw + old[at + 8 + length :]

    answer = refused(node, raw.decode("latin-1"), data)

    assert answer.status == 0xC000


def test_an_empty_affected_instance_uid_is_answered(node: Listening) -> None:
    answer = refused(node, "", encode(ct()))

    assert (answer.status, answer.offending) == (0xC000, AFFECTED)


def test_a_refused_dataset_leaves_a_bounded_quarantine_copy(node: Listening) -> None:
    node.spool._trim_quarantine(most_files=0)
    with Scu(node.port) as scu:
        for i in range(5):
            scu.store(UID, b"\xff" * (10 + i))

    copies = list((node.spool.root / "quarantine").iterdir())
    assert len(copies) == 5
    node.spool._trim_quarantine(most_files=2)
    assert len(list((node.spool.root / "quarantine").iterdir())) == 2


# ── 0x0122, 0x0124 ───────────────────────────────────────────────────────────


def test_who_may_only_verify_is_not_authorised_to_store(listening: Listen) -> None:
    node = listening(allowed=(AllowRule(ae_title="CT_ROOM_1", store=False), AllowRule()))

    with Scu(node.port) as scu:
        assert scu.store(UID, encode(ct())).status == 0x0124
        assert scu.echo() == 0x0000
    with Scu(node.port, calling=b"CT_ROOM_2") as scu:
        assert scu.store_dataset(ct()) == 0x0000


def test_the_verification_class_stores_nothing(node: Listening) -> None:
    with Scu(node.port) as scu:
        answer = scu.store(UID, encode(ct()), sop_class="1.2.840.10008.1.1", context=5)
        assert scu.store_dataset(ct()) == 0x0000

    assert answer.status == 0x0122


# ── association ──────────────────────────────────────────────────────────────


def rejection(node: Listening, **request: Any) -> tuple[int, int, int]:
    with pytest.raises(Rejected) as caught:
        Scu(node.port, **request)
    return caught.value.args


def test_a_called_title_that_is_not_ours_is_rejected(node: Listening) -> None:
    assert rejection(node, called=b"ANY-SCP") == (1, 1, 7)


def test_a_calling_title_that_is_not_allowed_is_rejected(listening: Listen) -> None:
    node = listening(allowed=(AllowRule(ae_title="CT_ROOM_2"),))

    assert rejection(node) == (1, 1, 3)


def test_an_address_that_is_not_allowed_is_rejected(listening: Listen) -> None:
    node = listening(allowed=(AllowRule(address="10.0.0.0/8"),))

    assert rejection(node) == (1, 1, 3)
    assert rejection(node, called=b"OTHER") == (1, 1, 3), "a stranger learns nothing about titles"


@pytest.mark.parametrize("title", [b"", b"A\nB", b"A\\B", b"\xc4RZTE"])
def test_a_calling_title_that_is_none_is_rejected(node: Listening, title: bytes) -> None:
    assert rejection(node, calling=title) == (1, 1, 3)


def test_more_associations_than_the_cap_are_rejected_for_now(listening: Listen) -> None:
    node = listening(max_associations=2)

    with Scu(node.port) as first, Scu(node.port) as second:
        assert first.echo() == second.echo() == 0x0000, "else they would make room"
        assert rejection(node) == (2, 3, 2)
        first.release()
        first.closed_within(5)
        with Scu(node.port) as third:
            assert third.store_dataset(ct()) == 0x0000


def test_a_full_disk_rejects_associations_for_now(listening: Listen) -> None:
    room = [False]
    node = listening(has_room=lambda: room[0])

    assert rejection(node) == (2, 3, 1)
    room[0] = True
    with Scu(node.port) as scu:
        assert scu.store_dataset(ct()) == 0x0000


def test_another_application_context_is_rejected(node: Listening) -> None:
    assert rejection(node, application=b"1.2.3") == (1, 1, 2)


def test_no_name_that_a_peer_sends_becomes_a_path(node: Listening, tmp_path: Path) -> None:
    hostile = ["../../x", "/etc/cron.d/x", "..", "a/b", "\0", "CON", "~/x", "$(touch x)", "%2e%2e%2f", "1.2.3/../../4"]
    before = {path for path in tmp_path.rglob("*") if "spool" not in path.parts}

    with Scu(node.port) as scu:
        for i in range(200):
            scu.store(hostile[i % len(hostile)] + str(i), encode(ct(PatientID=hostile[i % len(hostile)])))

    assert {path for path in tmp_path.rglob("*") if "spool" not in path.parts} - before == set()
    assert node.files() == []
