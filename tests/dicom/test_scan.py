"""The scan of a dataset: whole instances are described, anything else is InvalidInstance, and nothing else escapes."""

import resource
import tracemalloc
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_files
from support.receiving import (
    BIG,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    associate_rq,
    command,
    ct,
    encode,
    encoded_dataset,
    p_data,
)
from support.siblings import one_in

from mediqa_node.dicom.scan import ScannedHeader, scan
from mediqa_node.domain.errors import InvalidInstance
from mediqa_node.network import dimse, negotiation
from mediqa_node.network.contexts import acceptor_contexts, storage_classes

DATA = Path(__file__).parents[1] / "data"
REAL = {
    name: DATA / name
    for name in (
        "ct_sts003_lowdose/000.dcm",
        "mr_brain_dti_achieva/000.dcm",
        "mr_brain_epi_ge750/000.dcm",
        "mr_brain_t1_xa30_enhanced/000.dcm",
        "mr_breast_ucsf06/000.dcm",
    )
}
SEVERAL = settings(
    max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def scanned(data: bytes, syntax: str = EXPLICIT) -> ScannedHeader | None:
    """Return the header, or None where the instance was refused."""
    try:
        return scan(memoryview(data), syntax)
    except InvalidInstance as refusal:
        assert refusal.status == 0xC000
        assert str(refusal)
        return None


def deflated(plain: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush()


# ── whole ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", REAL.values(), ids=list(REAL))
def test_a_real_instance_is_described_as_pydicom_describes_it(path: Path) -> None:
    data, syntax = encoded_dataset(path)
    ds = pydicom.dcmread(path, stop_before_pixels=True)

    header = scan(memoryview(data), syntax)

    assert header.sop_class_uid == ds.SOPClassUID
    assert header.sop_instance_uid == ds.SOPInstanceUID
    assert header.study_instance_uid == ds.StudyInstanceUID
    assert header.series_instance_uid == ds.SeriesInstanceUID
    assert header.modality == ds.Modality
    assert header.has_pixels


def test_the_transfer_syntax_changes_nothing_of_the_header() -> None:
    headers = {scan(memoryview(encode(ct(), syntax)), syntax) for syntax in (IMPLICIT, EXPLICIT, BIG)}
    headers.add(scan(memoryview(deflated(encode(ct()))), DEFLATED))
    headers.add(scan(memoryview(deflated(encode(ct())) + b"\0"), DEFLATED))

    assert len(headers) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {
            "PhotometricInterpretation": "YBR_FULL_422",
            "SamplesPerPixel": 3,
            "BitsAllocated": 8,
            "PixelData": bytes(512),
        },
        {
            "PhotometricInterpretation": "YBR_PARTIAL_420",
            "SamplesPerPixel": 3,
            "BitsAllocated": 8,
            "PixelData": bytes(384),
        },
        {"BitsAllocated": 1, "NumberOfFrames": 3, "PixelData": bytes(96)},
        {"NumberOfFrames": "", "PixelData": bytes(512)},
        {"PixelData": None, "PixelDataProviderURL": "https://pacs/jpip"},
    ],
    ids=["chroma halved", "chroma quartered", "bits packed", "frames unsaid", "pixels elsewhere"],
)
def test_pixels_that_rightly_take_less_room_are_whole(changes: dict[str, object]) -> None:
    assert scanned(encode(ct(**changes)))


def test_spectroscopy_has_rows_and_no_pixels() -> None:
    ds = ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.4.2", BitsAllocated=None, PixelData=None, SpectroscopyData=bytes(64))

    assert scanned(encode(ds)) is not None


def test_a_modality_that_is_no_code_string_is_left_out() -> None:
    header = scanned(encode(ct()).replace(b"CS\x02\x00CT", b"CS\x02\x00C\n"))

    assert header is not None
    assert header.modality == ""


def test_the_table_of_classes_is_that_of_pynetdicom_and_what_old_devices_send() -> None:
    from pydicom.uid import UID
    from pynetdicom.presentation import AllStoragePresentationContexts

    known = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}

    assert known <= set(storage_classes())
    assert all(UID(uid).is_retired for uid in set(storage_classes()) - known)


# ── truncated ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", one_in(3, REAL.values()), ids=list(REAL))
def test_no_cut_of_a_real_image_is_taken_for_whole(path: Path) -> None:
    data, syntax = encoded_dataset(path)
    header, everywhere = range(0, 12_000, 37), range(0, len(data), len(data) // 100)

    for cut in [*header, *everywhere, *range(len(data) - 20, len(data))]:
        assert scanned(data[:cut], syntax) is None, cut


def test_no_cut_at_the_border_of_an_element_is_taken_for_whole() -> None:
    whole = encode(ct())

    assert [cut for cut in range(len(whole)) if scanned(whole[:cut])] == []


def test_no_cut_of_encapsulated_pixels_is_taken_for_whole() -> None:
    ds = pydicom.dcmread(DATA / "ct_body_totalseg_j2k" / "000.dcm")
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = CT, "1.2.3", "1.2.4", "1.2.5"
    data, syntax = encode(ds), str(ds.file_meta.TransferSyntaxUID)
    assert scanned(data, syntax)

    assert [cut for cut in range(len(data) - 200, len(data)) if scanned(data[:cut], syntax)] == []
    assert [cut for cut in range(0, len(data), 101) if scanned(data[:cut], syntax)] == []


def test_no_cut_of_a_deflated_dataset_is_taken_for_whole() -> None:
    data = deflated(encode(ct(PatientComments="x" * 1000)))

    assert [cut for cut in range(len(data)) if scanned(data[:cut], DEFLATED)] == []


def test_pixel_data_without_a_fragment_is_not_whole() -> None:
    data = encode(ct(PixelData=None)) + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
    table, end = b"\xfe\xff\x00\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"

    assert scanned(data + table + end, "1.2.840.10008.1.2.4.50") is None
    assert scanned(data + table + b"\xfe\xff\x00\xe0\x02\0\0\0ab" + end, "1.2.840.10008.1.2.4.50")


# ── bundled files ────────────────────────────────────────────────────────────


def bundled() -> list[Path]:
    """Return the test files that came with pydicom; no download."""
    return [Path(name) for name in get_testdata_files() if Path(name).is_file() and "cache" not in name]


def test_every_file_of_pydicom_is_described_alike_or_refused() -> None:
    taken = 0
    for path in bundled():
        try:
            data, syntax = encoded_dataset(path)
            ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        except Exception:
            continue
        if (header := scanned(data, syntax)) is not None:
            taken += 1
            assert header.sop_instance_uid == str(ds.SOPInstanceUID).strip(" \0"), path
            assert header.study_instance_uid == str(ds.StudyInstanceUID).strip(" \0"), path
            assert header.series_instance_uid == str(ds.SeriesInstanceUID).strip(" \0"), path

    assert taken >= 40


def test_every_file_of_pydicom_in_a_wrong_syntax_is_described_or_refused() -> None:
    for path in bundled():
        content = path.read_bytes()[:200_000]
        for syntax in (IMPLICIT, EXPLICIT, BIG, DEFLATED):
            scanned(content, syntax)
            scanned(content[132:], syntax)


# ── hostile ──────────────────────────────────────────────────────────────────


def _real_headers() -> list[tuple[bytes, str]]:
    samples = []
    for path in REAL.values():
        data, syntax = encoded_dataset(path)
        samples.append((data[:6000], syntax))
    return [*samples, (encode(ct(), IMPLICIT), IMPLICIT), (encode(ct(), BIG), BIG), (deflated(encode(ct())), DEFLATED)]


HEADERS = _real_headers()
EDITS = st.lists(st.tuples(st.integers(0, 6000), st.binary(min_size=0, max_size=8), st.integers(0, 8)), max_size=6)


def mutated(data: bytes, edits: list[tuple[int, bytes, int]]) -> bytes:
    """Return the bytes with some replaced, inserted or removed."""
    for anywhere, new, removed in edits:
        at = anywhere % (len(data) + 1)
        data = data[:at] + new + data[at + removed :]
    return data


@pytest.mark.parametrize("number", one_in(3, range(len(HEADERS))))
def test_a_mutated_header_is_described_or_refused(number: int) -> None:
    @SEVERAL
    @given(EDITS)
    def check(edits: list[tuple[int, bytes, int]]) -> None:
        data, syntax = HEADERS[number]
        scanned(mutated(data, edits), syntax)

    check()


_ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
_EXPLICIT = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + _ITEM
_IMPLICIT = b"\x08\x00\x40\x11\xff\xff\xff\xff" + _ITEM
_UNKNOWN = b"\x09\x00\x40\x11UN\0\0\xff\xff\xff\xff" + _ITEM
NEST = {
    "explicit": (_EXPLICIT, _EXPLICIT, EXPLICIT),
    "unknown": (_UNKNOWN, _IMPLICIT, EXPLICIT),
    "implicit": (_IMPLICIT, _IMPLICIT, IMPLICIT),
}


@pytest.mark.parametrize("depth", [100, 10_000, 100_000])
@pytest.mark.parametrize("kind", NEST)
def test_deep_nesting_is_refused_by_its_depth(kind: str, depth: int) -> None:
    outside, inside, syntax = NEST[kind]

    with pytest.raises(InvalidInstance, match="nested deeper"):
        scan(memoryview(outside + inside * depth), syntax)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_deep_nesting_of_defined_lengths_is_refused_by_its_depth(syntax: str) -> None:
    data = b""
    for _ in range(100):
        item = b"\xfe\xff\x00\xe0" + len(data).to_bytes(4, "little") + data
        kind = b"SQ\0\0" if syntax == EXPLICIT else b""
        data = b"\x08\x00\x40\x11" + kind + len(item).to_bytes(4, "little") + item

    with pytest.raises(InvalidInstance, match="nested deeper"):
        scan(memoryview(data), syntax)


def test_a_deflated_bomb_is_refused_without_being_held() -> None:
    bomb = deflated(bytes(300 * 1024**2))
    tracemalloc.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInstance, match=r"inflates beyond|CPU time"):
        scan(memoryview(bomb), DEFLATED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(bomb) < 500_000
    assert peak < 2 * 1024**2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


def test_a_large_deflated_image_is_described_without_being_held() -> None:
    data = deflated(encode(ct(size_px=4096)))
    tracemalloc.start()
    assert scanned(data, DEFLATED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2 * 1024**2


def test_a_huge_value_of_a_wanted_element_is_not_copied() -> None:
    data = b"\x08\x00\x18\x00" + (100 * 1024**2).to_bytes(4, "little") + bytes(100 * 1024**2)
    tracemalloc.start()
    assert scanned(data, IMPLICIT) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1024**2


# ── PDUs ─────────────────────────────────────────────────────────────────────

REQUEST = associate_rq()[6:]
SUPPORTED = acceptor_contexts([EXPLICIT, IMPLICIT])
P_DATA = p_data(1, command(CT, "1.2.3"), is_command=True)[6:] + p_data(1, b"12345678", is_command=False)[6:]
MANY = settings(SEVERAL, max_examples=1000)


@MANY
@given(EDITS)
def test_a_mutated_request_is_read_or_a_value_error(edits: list[tuple[int, bytes, int]]) -> None:
    body = memoryview(mutated(REQUEST, edits))
    try:
        answer, accepted = negotiation.accept(negotiation.parse_head(body), negotiation.parse_proposal(body), SUPPORTED)
    except ValueError:
        return
    assert len(answer) == 6 + int.from_bytes(answer[2:6], "big")
    assert all(context.abstract_syntax in SUPPORTED for context in accepted.values())


@MANY
@given(EDITS)
def test_mutated_p_data_is_read_or_a_value_error(edits: list[tuple[int, bytes, int]]) -> None:
    try:
        for fragment in dimse.fragments(memoryview(mutated(P_DATA, edits))):
            if fragment.is_command:
                read = dimse.parse_command(bytes(fragment.data))
                answer = dimse.response(fragment.context_id, read, 0xC000, comment="a\nb" * 40, offending=0x00080018)
                assert len(answer) == 6 + int.from_bytes(answer[2:6], "big")
                assert len(answer) < 400
    except ValueError:
        return


def test_pynetdicom_reads_the_answer_as_it_was_meant() -> None:
    from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ

    body = memoryview(associate_rq(contexts={1: (CT, [EXPLICIT]), 3: ("1.2.3", [IMPLICIT]), 5: (CT, ["1.2"])})[6:])
    answer, accepted = negotiation.accept(negotiation.parse_head(body), negotiation.parse_proposal(body), SUPPORTED)
    read, rejected = A_ASSOCIATE_AC(), A_ASSOCIATE_RJ()
    read.decode(answer)
    rejected.decode(negotiation.reject(negotiation.TEMPORARY_CONGESTION))

    results = read.to_primitive().presentation_context_definition_results_list
    assert [(context.context_id, context.result) for context in results] == [(1, 0), (3, 3), (5, 4)]
    assert results[0].transfer_syntax == [EXPLICIT]
    assert {number: context.transfer_syntax for number, context in accepted.items()} == {1: EXPLICIT}
    assert read.to_primitive().maximum_length_received == 131_072
    assert (rejected.result, rejected.source, rejected.reason_diagnostic) == (2, 3, 1)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("7", 7),
        ("-3", -3),
        ("+12", 12),
        ("2147483647", 2**31 - 1),
        ("2147483648", None),
        ("99999999999", None),
        ("1e3", None),
        ("", None),
    ],
)
def test_a_series_number_is_an_integer_of_32_bits_or_none(value, number):
    ds = ct()
    ds.add_new(0x00200011, "LO", value)  # whatever a sender puts there

    assert scan(memoryview(encode(ds)), EXPLICIT).series_number == number
