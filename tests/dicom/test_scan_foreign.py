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
