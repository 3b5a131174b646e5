"""Identity at receipt is the identity of the header that is read later, or the image stays with its sender."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset
from support.receiving import BIG, CT, DEFLATED, EXPLICIT, IMPLICIT, Listening, Scu, ct, encode

from mediqa_node.decode.frame import locate_pixels
from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.part10 import file_head, read_header
from mediqa_node.dicom.scan import scan
from mediqa_node.domain.errors import InvalidInstance

SYNTAXES = pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
JPEG = "1.2.840.10008.1.2.4.50"
STUDY, PATIENT_ID = 0x0020000D, 0x00100020


def element(syntax: str, tag: int, vr: bytes, value: bytes) -> bytes:
    order = ">" if syntax == BIG else "<"
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack("<I", len(value)) + value
    if vr in (b"SQ", b"UN", b"OB", b"OW", b"UT", b"UC"):
        return head + vr + b"\0\0" + struct.pack(order + "I", len(value)) + value
    return head + vr + struct.pack(order + "H", len(value)) + value


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def with_element(syntax: str, tag: int, encoded: bytes, **changes: object) -> bytes:
    """Return a CT image with these bytes at the place of a tag."""
    before, after = Dataset(), Dataset()
    for one in ct(**changes):
        if one.tag != tag:
            (before if one.tag < tag else after).add(one)
    return encode(before, syntax) + encoded + encode(after, syntax)


def refusal(content: bytes, syntax: str = EXPLICIT) -> InvalidInstance:
    with pytest.raises(InvalidInstance) as refused:
        scan(memoryview(content), syntax)
    assert refused.value.status == 0xC000
    return refused.value


def header(content: bytes, syntax: str, folder: Path) -> Dataset:
    """Return the header as every later station reads it."""
    head = file_head(sop_class_uid=CT, sop_instance_uid="1.2", transfer_syntax_uid=syntax, source_ae_title="X")
    path = folder / "stored.dcm"
    path.write_bytes(head + content)
    return read_header(path)


# ── groups that are no dataset's ─────────────────────────────────────────────

FOREIGN_GROUPS = {
    "transfer syntax: JPEG": (0x00020010, b"UI", uid(JPEG)),
    "transfer syntax: implicit": (0x00020010, b"UI", uid(IMPLICIT)),
    "transfer syntax: big endian": (0x00020010, b"UI", uid(BIG)),
    "transfer syntax: deflated": (0x00020010, b"UI", uid(DEFLATED)),
    "transfer syntax: that of the context": (0x00020010, b"UI", uid(EXPLICIT)),
    "group length of file meta": (0x00020000, b"UL", bytes(4)),
    "source AE title": (0x00020016, b"AE", b"X "),
    "a private element of file meta": (0x00020102, b"OB", b"ab"),
    "affected SOP class": (0x00000002, b"UI", uid(CT)),
    "command field": (0x00000100, b"US", b"\1\0"),
    "file-set ID": (0x00041130, b"CS", b"X "),
    "group 0006": (0x00060010, b"LO", b"X "),
}


@SYNTAXES
@pytest.mark.parametrize("name", list(FOREIGN_GROUPS))
def test_an_element_that_belongs_in_no_dataset_is_refused(syntax: str, name: str) -> None:
    tag, vr, value = FOREIGN_GROUPS[name]
    foreign = element(syntax, tag, vr, value)

    for content in (foreign + encode(ct(), syntax), encode(ct(), syntax) + foreign):
        assert refusal(content, syntax).offending == tag


def test_a_whole_file_sent_as_a_dataset_is_refused() -> None:
    head = file_head(sop_class_uid=CT, sop_instance_uid="1.2", transfer_syntax_uid=EXPLICIT, source_ae_title="X")

    refusal(head + encode(ct()))
    refusal(head[132:] + encode(ct()))


def test_such_an_element_inside_an_item_changes_nothing() -> None:
    inner = element(EXPLICIT, 0x00020010, b"UI", uid(JPEG))
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inner)) + inner
    content = with_element(EXPLICIT, 0x00082218, element(EXPLICIT, 0x00082218, b"SQ", item))

    assert scan(memoryview(content), EXPLICIT).has_pixels


# ── behind the pixels ────────────────────────────────────────────────────────

BEHIND = {
    "another Patient ID": (PATIENT_ID, b"LO", b"OTHER "),
    "another name": (0x00100010, b"PN", b"Other^Patient "),
    "another study": (STUDY, b"UI", uid("1.2.3.4.5")),
    "another accession number": (0x00080050, b"SH", b"A2"),
    "another character set": (0x00080005, b"CS", b"ISO_IR 144"),
    "another series": (0x0020000E, b"UI", uid("1.2.3.4.6")),
    "another modality": (0x00080060, b"CS", b"MR"),
}


@SYNTAXES
@pytest.mark.parametrize("name", list(BEHIND))
def test_what_stands_behind_the_pixels_is_not_the_header(syntax: str, name: str, tmp_path: Path) -> None:
    plain = encode(ct(PatientName="M\xfcller"), syntax)
    content = plain + element(syntax, *BEHIND[name])

    found = scan(memoryview(content), syntax)

    assert found == scan(memoryview(plain), syntax)
    assert found.identity == identity_of(header(content, syntax, tmp_path))


@SYNTAXES
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_an_image_identified_only_behind_its_pixels_is_refused(syntax: str, keyword: str) -> None:
    late = Dataset()
    setattr(late, keyword, getattr(ct(), keyword))

    assert "no S" in str(refusal(encode(ct(**{keyword: None}), syntax) + encode(late, syntax), syntax))


def test_a_patient_named_only_behind_the_pixels_is_none(tmp_path: Path) -> None:
    content = encode(ct(PatientID=None)) + element(EXPLICIT, PATIENT_ID, b"LO", b"LATE")

    found = scan(memoryview(content), EXPLICIT).identity

    assert found.patient_id == ""
    assert found == identity_of(header(content, EXPLICIT, tmp_path))


@SYNTAXES
def test_elements_in_descending_order_are_refused(syntax: str) -> None:
    parts = []
    for one in ct():
        single = Dataset()
        single.add(one)
        parts.append(encode(single, syntax))

    refusal(b"".join(reversed(parts)), syntax)


@pytest.mark.parametrize("tag", [0x7FE00008, 0x7FE00009])
def test_float_pixels_end_the_header_too(tag: int, tmp_path: Path) -> None:
    vr = b"OF" if tag == 0x7FE00008 else b"OD"
    floats = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, 2048) + bytes(2048)
    content = encode(ct(PixelData=None)) + floats + element(EXPLICIT, PATIENT_ID, b"LO", b"OTHER ")

    assert scan(memoryview(content), EXPLICIT).identity == identity_of(header(content, EXPLICIT, tmp_path))


@SYNTAXES
def test_the_end_of_an_item_outside_of_any_is_refused_where_it_would_end_the_header(syntax: str) -> None:
    end = struct.pack((">" if syntax == BIG else "<") + "HHI", 0xFFFE, 0xE00D, 0)

    assert refusal(with_element(syntax, 0x00082218, end), syntax).offending == 0xFFFEE00D
    assert scan(memoryview(encode(ct(), syntax) + end), syntax).has_pixels


def test_the_row_names_the_patient_of_the_file(listening: Callable[..., Listening]) -> None:
    node = listening()
    with Scu(node.port) as scu:
        behind = scu.store(str(ct().SOPInstanceUID), encode(ct()) + element(EXPLICIT, PATIENT_ID, b"LO", b"OTHER "))
        meta = element(EXPLICIT, 0x00020010, b"UI", uid(IMPLICIT))
        foreign = scu.store(str(ct(2).SOPInstanceUID), meta + encode(ct(2)))
        scu.release()

    assert (behind.status, foreign.status, foreign.offending) == (0, 0xC000, 0x00020010)
    [row] = node.rows()
    assert row.identity["patient_id"] == read_header(node.spool.path(row.path)).PatientID == "SYN001"


# ── identifying elements as they should not be ───────────────────────────────

ODD_IDENTIFIERS = {
    "US": (b"US", b"\x39\x30"),
    "US, two values": (b"US", b"\1\0\2\0"),
    "SL": (b"SL", b"\xfe\xff\xff\xff"),
    "AT": (b"AT", b"\x10\0\x20\0"),
    "FD": (b"FD", struct.pack("<d", 12345.0)),
    "FL": (b"FL", struct.pack("<f", 0.1)),
    "UN": (b"UN", "Müller".encode("latin-1")),
    "OB": (b"OB", "Müller".encode("latin-1")),
    "DS": (b"DS", b"007 "),
    "IS": (b"IS", b"007 "),
    "UI": (b"UI", b"1.2.3\0"),
    "PN": (b"PN", b"Doe^J "),
    "LT": (b"LT", b"A\\B "),
    "UT": (b"UT", b"A\\B "),
    "unknown": (b"ZZ", b"AB"),
    "one byte of two": (b"US", b"\1"),
    "600 characters": (b"LO", b"x" * 600),
    "600 characters of another VR": (b"UT", b"x" * 600),
    "60,000 characters": (b"UC", b"x" * 60_000),
    "empty": (b"LO", b""),
    "only NUL": (b"LO", b"\0\0"),
    "two values": (b"LO", b"P1\\P2 "),
}


@pytest.mark.parametrize("tag", [PATIENT_ID, 0x00100021, 0x00100030, 0x00080050])
@pytest.mark.parametrize("name", list(ODD_IDENTIFIERS))
def test_an_odd_identifier_is_read_as_the_header_reads_it(name: str, tag: int, tmp_path: Path) -> None:
    content = with_element(
        EXPLICIT, tag, element(EXPLICIT, tag, *ODD_IDENTIFIERS[name]), SpecificCharacterSet="ISO_IR 100"
    )

    assert scan(memoryview(content), EXPLICIT).identity == identity_of(header(content, EXPLICIT, tmp_path))


@pytest.mark.parametrize("tag", [0x00100040, 0x00100030])
@pytest.mark.parametrize("character_set", [None, "ISO_IR 100", "ISO_IR 192", "GB18030", "nonsense"])
def test_what_no_character_set_applies_to_is_read_as_the_header_reads_it(
    character_set: str | None, tag: int, tmp_path: Path
) -> None:
    odd = element(EXPLICIT, tag, b"CS" if tag == 0x00100040 else b"DA", b"7\x92")
    content = with_element(EXPLICIT, tag, odd, SpecificCharacterSet=character_set)

    assert scan(memoryview(content), EXPLICIT).identity == identity_of(header(content, EXPLICIT, tmp_path))


@pytest.mark.parametrize("name", ["UN", "600 characters", "two values", "only NUL"])
@pytest.mark.parametrize("syntax", [IMPLICIT, BIG])
def test_an_odd_identifier_is_read_alike_in_every_syntax(syntax: str, name: str, tmp_path: Path) -> None:
    content = with_element(syntax, PATIENT_ID, element(syntax, PATIENT_ID, *ODD_IDENTIFIERS[name]))

    assert scan(memoryview(content), syntax).identity == identity_of(header(content, syntax, tmp_path))


def test_an_identifier_that_is_given_twice_is_the_last_one(tmp_path: Path) -> None:
    first, last = element(EXPLICIT, PATIENT_ID, b"US", b"\1\0"), element(EXPLICIT, PATIENT_ID, b"LO", b"A1")
    for content in (with_element(EXPLICIT, PATIENT_ID, one) for one in (first + last, last + first)):
        assert scan(memoryview(content), EXPLICIT).identity == identity_of(header(content, EXPLICIT, tmp_path))


@pytest.mark.parametrize("tag", [0x00080016, 0x00080018, STUDY, 0x0020000E])
@pytest.mark.parametrize("vr", [b"US", b"SL", b"AT", b"FD", b"UV"])
def test_a_uid_is_no_number(vr: bytes, tag: int) -> None:
    value = uid(str(ct()[tag].value)).ljust(32, b"\0")
    long = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value
    encoded = long if vr == b"UV" else element(EXPLICIT, tag, vr, value)

    assert refusal(with_element(EXPLICIT, tag, encoded)).offending == tag


@pytest.mark.parametrize("tag", [0x00080018, STUDY, 0x0020000E])
@pytest.mark.parametrize("vr", [b"LO", b"OB", b"UN", b"UT", b"ZZ"])
def test_a_uid_may_be_any_text(vr: bytes, tag: int) -> None:
    encoded = element(EXPLICIT, tag, vr, uid(str(ct()[tag].value)))

    assert scan(memoryview(with_element(EXPLICIT, tag, encoded)), EXPLICIT) == scan(memoryview(encode(ct())), EXPLICIT)


@pytest.mark.parametrize("tag", [PATIENT_ID, 0x00100010, 0x00080005, STUDY])
def test_a_sequence_is_no_identifier(tag: int) -> None:
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    endless = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, 0xFFFFFFFF) + b"\xfe\xff\xdd\xe0\0\0\0\0"

    for encoded in (element(EXPLICIT, tag, b"SQ", item), element(EXPLICIT, tag, b"SQ", b""), endless):
        assert refusal(with_element(EXPLICIT, tag, encoded)).offending == tag


def test_a_text_of_100_000_characters_is_no_identifier() -> None:
    assert refusal(with_element(EXPLICIT, PATIENT_ID, element(EXPLICIT, PATIENT_ID, b"UT", b"x" * 100_000))).offending


def test_an_implicit_identifier_that_begins_like_an_item_is_a_text(tmp_path: Path) -> None:
    value = b"\xfe\xff\x00\xe0\x04\0\0\0abcd"
    content = with_element(IMPLICIT, PATIENT_ID, element(IMPLICIT, PATIENT_ID, b"LO", value))

    found = scan(memoryview(content), IMPLICIT).identity

    assert found.patient_id.endswith("abcd")
    assert found == identity_of(header(content, IMPLICIT, tmp_path))


# ── other encodings than the syntax says ─────────────────────────────────────


@pytest.mark.parametrize(("syntax", "real"), [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT)])
def test_a_dataset_in_the_other_encoding_is_read_as_the_header_is(syntax: str, real: str, tmp_path: Path) -> None:
    pixels = bytes(range(256)) * 2
    content = encode(ct(PixelData=pixels), real)

    found = scan(memoryview(content), syntax)

    assert found == scan(memoryview(content), real)
    assert found.identity == identity_of(header(content, syntax, tmp_path))
    with (tmp_path / "stored.dcm").open("rb") as stream:
        element = locate_pixels(stream)
        stream.seek(element.offset)
        assert stream.read(element.length) == pixels


# ── mutations ────────────────────────────────────────────────────────────────

PIECES = (b"\0", b"\xff\xff\xff\xff", b"SQ", b"UN", b"US", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0")


@SYNTAXES
def test_a_mutated_dataset_is_refused_or_has_the_identity_of_its_header(syntax: str, tmp_path: Path) -> None:
    inner = ct(SOPClassUID=None, PixelData=None)
    original = encode(ct(ReferencedSeriesSequence=[inner, inner], PatientSex="F", AccessionNumber="A1"), syntax)
    chance, n_stored = random.Random(12), 0
    for _ in range(250):
        at = chance.randrange(len(original) - 520)
        piece = chance.choice((*PIECES, chance.randbytes(2)))
        content = original[:at] + piece + original[at + chance.randrange(5) :]
        try:
            found = scan(memoryview(content), syntax)
        except InvalidInstance:
            continue
        n_stored += 1
        assert found.identity == identity_of(header(content, syntax, tmp_path)), content

    assert n_stored > 25
