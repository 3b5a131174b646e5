"""Datasets as other vendors end them: zeros behind the last element, delimiters where a length says all."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import pydicom
import pytest
from pydicom import Dataset
from support.receiving import CT, DEFLATED, EXPLICIT, IMPLICIT, Listening, Scu, ct, encode

from mediqa_node.dicom.part10 import file_head
from mediqa_node.dicom.scan import scan
from mediqa_node.domain.errors import InvalidInstance

ITEM_END, SEQUENCE_END = b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
SYNTAXES = pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
ZEROS = pytest.mark.parametrize("count", [1, 2, 4, 7, 8, 10, 12, 128, 20_000])


def element(syntax: str, group: int, number: int, vr: bytes, value: bytes) -> bytes:
    if syntax == IMPLICIT:
        return struct.pack("<HHI", group, number, len(value)) + value
    head = struct.pack("<HH", group, number) + vr
    return head + (b"\0\0" + struct.pack("<I", len(value)) if vr == b"SQ" else struct.pack("<H", len(value))) + value


def item(content: bytes, *, length: int | None = None) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content) if length is None else length) + content


def sequence(syntax: str, content: bytes, *, length: int | None = None) -> bytes:
    """Anatomic Region Sequence (0008,2218)."""
    whole = element(syntax, 0x0008, 0x2218, b"SQ", content)
    at = 4 if syntax == IMPLICIT else 8
    return whole if length is None else whole[:at] + struct.pack("<I", length) + whole[at + 4 :]


def around(syntax: str, what: bytes) -> bytes:
    """A CT image with these bytes in its middle."""
    whole = ct()
    before, after = Dataset(), Dataset()
    for one in whole:
        (before if one.tag < 0x00082218 else after).add(one)
    return encode(before, syntax) + what + encode(after, syntax)


def read(content: bytes, syntax: str) -> Dataset:
    """What pydicom makes of it as a file, as every later station does."""
    head = file_head(sop_class_uid=CT, sop_instance_uid="1.2", transfer_syntax_uid=syntax, source_ae_title="X")
    return pydicom.dcmread(BytesIO(head + content))


def delimited(syntax: str) -> dict[str, bytes]:
    code = element(syntax, 0x0008, 0x0100, b"SH", b"T-D1") + element(syntax, 0x0008, 0x0104, b"LO", b"head")
    endless = 0xFFFFFFFF
    return {
        "the end of the sequence inside its length": sequence(syntax, item(code) + SEQUENCE_END),
        "the end of the sequence behind its length": sequence(syntax, item(code)) + SEQUENCE_END,
        "the end of the item inside its length": sequence(syntax, item(code + ITEM_END)),
        "the end of the item behind its length": sequence(syntax, item(code) + ITEM_END),
        "both inside": sequence(syntax, item(code + ITEM_END) + SEQUENCE_END),
        "an item with length and end in an open sequence": sequence(
            syntax, item(code) + ITEM_END + SEQUENCE_END, length=endless
        ),
        "an open item in a sequence with length and end": sequence(
            syntax, item(code + ITEM_END, length=endless) + SEQUENCE_END
        ),
    }


@SYNTAXES
@pytest.mark.parametrize("name", list(delimited(EXPLICIT)))
def test_a_delimiter_that_no_length_needs_is_stepped_over(syntax: str, name: str) -> None:
    content = around(syntax, delimited(syntax)[name])

    scanned, whole = scan(memoryview(content), syntax), read(content, syntax)

    assert scanned.has_pixels
    assert scanned.series_instance_uid == ct().SeriesInstanceUID
    assert whole.AnatomicRegionSequence[0].CodeValue == "T-D1"
    assert whole.PixelData == ct().PixelData


@SYNTAXES
@ZEROS
def test_zeros_behind_the_last_element_are_padding(syntax: str, count: int) -> None:
    content = encode(ct(), syntax) + bytes(count)

    assert scan(memoryview(content), syntax).has_pixels
    assert read(content, syntax).PixelData == ct().PixelData


def test_zeros_behind_the_last_element_of_a_deflated_dataset_are_padding() -> None:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    content = deflater.compress(encode(ct()) + bytes(20_000)) + deflater.flush()

    assert scan(memoryview(content), DEFLATED).has_pixels


@SYNTAXES
def test_zeros_that_something_follows_are_no_padding(syntax: str) -> None:
    with pytest.raises(InvalidInstance):
        scan(memoryview(encode(ct(), syntax) + bytes(30) + b"\1"), syntax)


@SYNTAXES
def test_zeros_in_place_of_pixels_are_a_truncated_image(syntax: str) -> None:
    with pytest.raises(InvalidInstance, match="without pixel data"):
        scan(memoryview(encode(ct(PixelData=None), syntax) + bytes(1000)), syntax)


@SYNTAXES
@pytest.mark.parametrize("content", [bytes(8), bytes(20_000)])
def test_a_dataset_of_zeros_is_refused(syntax: str, content: bytes) -> None:
    with pytest.raises(InvalidInstance, match="no SOP Class UID"):
        scan(memoryview(content), syntax)


@SYNTAXES
def test_a_delimiter_with_a_length_is_refused(syntax: str) -> None:
    with pytest.raises(InvalidInstance, match="delimiter with a length"):
        scan(memoryview(around(syntax, SEQUENCE_END[:4] + b"\2\0\0\0ab")), syntax)


def test_both_are_stored_as_they_came(listening: Callable[..., Listening]) -> None:
    node = listening()
    sent = {
        "1.2.826.0.1.3680043.2.1125.9.1": around(EXPLICIT, sequence(EXPLICIT, item(b"") + SEQUENCE_END)),
        "1.2.826.0.1.3680043.2.1125.9.2": encode(ct(2)) + bytes(128),
    }
    with Scu(node.port) as scu:
        statuses = [scu.store(uid, data).status for uid, data in sent.items()]
        scu.release()

    assert statuses == [0, 0]
    kept = {str(pydicom.dcmread(path).SOPInstanceUID): path.read_bytes() for path in node.files()}
    assert all(kept[uid].endswith(data) for uid, data in sent.items())


# ── encodings that change on the way ─────────────────────────────────────────

ENDLESS = 0xFFFFFFFF
IMPLICIT_CODE = element(IMPLICIT, 0x0008, 0x0100, b"SH", b"T-D1")
EXPLICIT_CODE = element(EXPLICIT, 0x0008, 0x0100, b"SH", b"T-D1")


def unknown(content: bytes) -> bytes:
    """Anatomic Region Sequence as UN of undefined length."""
    return struct.pack("<HH2sHI", 0x0008, 0x2218, b"UN", 0, ENDLESS) + content + SEQUENCE_END


CHANGES = {
    "implicit items in a sequence": sequence(EXPLICIT, item(IMPLICIT_CODE)),
    "implicit items in an open sequence": sequence(EXPLICIT, item(IMPLICIT_CODE) + SEQUENCE_END, length=ENDLESS),
    "open implicit items": sequence(
        EXPLICIT, item(IMPLICIT_CODE + ITEM_END, length=ENDLESS) + SEQUENCE_END, length=ENDLESS
    ),
    "an implicit item, then an explicit one": sequence(EXPLICIT, item(IMPLICIT_CODE) + item(EXPLICIT_CODE)),
    "an empty item, then an implicit one": sequence(EXPLICIT, item(IMPLICIT_CODE) + item(b"")),
    "UN with implicit items": unknown(item(IMPLICIT_CODE)),
    "UN with explicit items": unknown(item(EXPLICIT_CODE)),
    "UN with open explicit items": unknown(item(EXPLICIT_CODE + ITEM_END, length=ENDLESS)),
    "zeros at the end of a sequence": sequence(EXPLICIT, item(EXPLICIT_CODE) + bytes(16)),
    "zeros at the end of an item": sequence(EXPLICIT, item(EXPLICIT_CODE + bytes(16))),
    "zeros at the end of an open sequence": sequence(
        EXPLICIT, item(EXPLICIT_CODE) + bytes(8) + SEQUENCE_END, length=ENDLESS
    ),
    "an end of an item with a length": sequence(
        EXPLICIT, item(EXPLICIT_CODE + ITEM_END[:4] + b"\1\0\0\0", length=ENDLESS) + SEQUENCE_END, length=ENDLESS
    ),
    "an element of an unknown VR": sequence(EXPLICIT, item(EXPLICIT_CODE + b"\x08\0\x04\x01ZZ\2\0ab")),
    "an implicit element among explicit ones": sequence(
        EXPLICIT, item(EXPLICIT_CODE + element(IMPLICIT, 0x0008, 0x0104, b"LO", b"head"))
    ),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_an_image_that_can_be_read_is_stored(name: str) -> None:
    content = around(EXPLICIT, CHANGES[name])

    scanned, whole = scan(memoryview(content), EXPLICIT), read(content, EXPLICIT)

    assert scanned == scan(memoryview(encode(ct())), EXPLICIT)
    assert whole.AnatomicRegionSequence[0].CodeValue == "T-D1"
    assert whole.PixelData == ct().PixelData


UNREADABLE = {
    "three zeros": item(EXPLICIT_CODE) + bytes(3),
    "text": b"not a sequence at all",
    "an item longer than the sequence": item(EXPLICIT_CODE, length=1000),
    "an element longer than its item": item(EXPLICIT_CODE[:-2]),
    "an open item": item(EXPLICIT_CODE, length=ENDLESS),
    "another sequence, broken": item(sequence(EXPLICIT, item(EXPLICIT_CODE, length=1000))),
    "half a delimiter": item(EXPLICIT_CODE) + SEQUENCE_END[:5],
}


@SYNTAXES
@pytest.mark.parametrize("name", list(UNREADABLE))
def test_a_sequence_of_known_length_that_cannot_be_read_costs_itself(syntax: str, name: str) -> None:
    content = around(syntax, sequence(syntax, UNREADABLE[name]))

    assert scan(memoryview(content), syntax) == scan(memoryview(encode(ct(), syntax)), syntax)
    assert read(content, syntax).PixelData == ct().PixelData


@pytest.mark.parametrize("name", ["text", "an item longer than the sequence", "an element longer than its item"])
def test_one_of_unknown_length_is_refused(name: str) -> None:
    with pytest.raises(InvalidInstance):
        scan(memoryview(around(EXPLICIT, sequence(EXPLICIT, UNREADABLE[name], length=ENDLESS))), EXPLICIT)


def test_no_cut_behind_an_unreadable_sequence_is_taken_for_whole() -> None:
    content = around(EXPLICIT, sequence(EXPLICIT, UNREADABLE["text"]))
    for cut in range(len(content)):
        with pytest.raises(InvalidInstance):
            scan(memoryview(content[:cut]), EXPLICIT)


# ── pixels and their transfer syntax ─────────────────────────────────────────

JPEG, JPEG_2000, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"
VIDEO, PRIVATE = "1.2.840.10008.1.2.4.102", "1.2.840.113619.5.9"
COMPRESSED = pytest.mark.parametrize("syntax", [JPEG, JPEG_2000, RLE, VIDEO])
HEADER = encode(ct(PixelData=None))


def pixels(vr: bytes, value: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, len(value) if length is None else length) + value


FRAGMENTS = item(b"") + item(b"\xff\xd8ab")


@COMPRESSED
def test_uncompressed_pixels_in_a_compressed_syntax_are_refused(syntax: str) -> None:
    with pytest.raises(InvalidInstance, match="uncompressed pixel data"):
        scan(memoryview(encode(ct())), syntax)


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED])
def test_encapsulated_pixels_in_an_uncompressed_syntax_are_refused(syntax: str) -> None:
    content = HEADER + pixels(b"OB", FRAGMENTS + SEQUENCE_END, length=ENDLESS)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    sent = content if syntax == EXPLICIT else deflater.compress(content) + deflater.flush()
    with pytest.raises(InvalidInstance, match="encapsulated pixel data"):
        scan(memoryview(sent), syntax)


@COMPRESSED
@pytest.mark.parametrize(
    "element",
    [
        pixels(b"OB", FRAGMENTS + SEQUENCE_END, length=ENDLESS),
        pixels(b"OW", FRAGMENTS + SEQUENCE_END, length=ENDLESS),
        pixels(b"UN", FRAGMENTS + SEQUENCE_END, length=ENDLESS),
        pixels(b"OB", FRAGMENTS + ITEM_END + SEQUENCE_END, length=ENDLESS),
        pixels(b"OB", (FRAGMENTS + SEQUENCE_END).ljust(512, b"\0")),
        pixels(b"OB", b"\xff\xd8\xff\xe0".ljust(512, b"\0")),
    ],
    ids=["OB", "OW", "UN", "the end of an item among the fragments", "a stated length", "a bare codestream"],
)
def test_what_a_reader_may_decode_is_stored(syntax: str, element: bytes) -> None:
    assert scan(memoryview(HEADER + element), syntax).has_pixels


def test_pixels_in_an_unknown_syntax_are_not_judged() -> None:
    for element in (pixels(b"OW", bytes(512)), pixels(b"OB", FRAGMENTS + SEQUENCE_END, length=ENDLESS)):
        assert scan(memoryview(HEADER + element), PRIVATE).has_pixels


@COMPRESSED
def test_no_pixels_and_empty_ones_are_left_to_what_the_class_asks(syntax: str) -> None:
    report = encode(ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Rows=None, Columns=None, PixelData=None))

    assert not scan(memoryview(report), syntax).has_pixels
    assert scan(memoryview(report + pixels(b"OB", b"")), syntax).has_pixels
