"""What checking a dataset costs: a header of a million real elements is stored, a small bomb is refused soon."""

import random
import struct
import threading
import time
import zlib
from collections.abc import Callable

import pytest
from support.receiving import CT, DEFLATED, EXPLICIT, IMPLICIT, ct, encode
from support.waiting import until

from mediqa_node.dicom import scan_budget, scan_walk
from mediqa_node.dicom.scan import scan
from mediqa_node.domain.errors import InvalidInstance

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
_SEQUENCE, _ITEM = struct.Struct("<HH2sHI").pack, struct.Struct("<HHI").pack


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def sequence(tag: int, *items: bytes) -> bytes:
    content = b"".join(_ITEM(0xFFFE, 0xE000, len(value)) + value for value in items)
    return _SEQUENCE(tag >> 16, tag & 0xFFFF, b"SQ", 0, len(content)) + content


def enhanced(n_frames: int) -> bytes:
    """Return an Enhanced MR image with functional groups of about 60 elements for each frame."""
    frames = []
    for i in range(n_frames):
        number = struct.pack("<I", i)
        frames.append(
            sequence(0x00209111, b"".join(element(0x00209000 + k, b"UL", number) for k in range(12)))
            + sequence(0x00209113, element(0x00200032, b"DS", b"-100.0\\-100.0\\12.50 "))
            + sequence(0x00209116, element(0x00200037, b"DS", b"1\\0\\0\\0\\1\\0"))
            + sequence(0x00289110, element(0x00180050, b"DS", b"3.0 ") + element(0x00280030, b"DS", b"0.5\\0.5 "))
            + sequence(0x00189114, b"".join(element(0x00189000 + k, b"FD", bytes(8)) for k in range(26)))
        )
    header = ct(SOPClassUID=ENHANCED_MR, Modality="MR", NumberOfFrames=n_frames, size_px=8, PixelData=None)
    pixels = _SEQUENCE(0x7FE0, 0x0010, b"OW", 0, 128 * n_frames) + bytes(128 * n_frames)
    return encode(header) + sequence(0x52009230, *frames) + pixels


def deflated(plain: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush()


EMPTY = struct.pack("<HH2sH", 0x7777, 0x1111, b"LO", 0)
BOMBS: dict[str, Callable[[int], bytes]] = {
    "zeros": bytes,
    "empty elements": lambda n: encode(ct(PixelData=None)) + EMPTY * (n // 8),
    "empty items": lambda n: encode(ct(PixelData=None)) + sequence(0x77771111, *[b""] * (n // 8)),
    "zeros behind the last element": lambda n: encode(ct()) + bytes(n),
    "pixels": lambda n: encode(ct(PixelData=None)) + _SEQUENCE(0x7FE0, 0x0010, b"OW", 0, n) + bytes(n),
}


def cpu_s(dataset: bytes, syntax: str) -> float:
    """Return the CPU seconds of one check, whatever comes of it."""
    started = time.thread_time()
    try:
        scan(memoryview(dataset), syntax)
    except InvalidInstance as refusal:
        assert refusal.status == 0xC000
    return time.thread_time() - started


def test_functional_groups_of_many_frames_are_walked() -> None:
    header = scan(memoryview(enhanced(500)), EXPLICIT)

    assert (header.sop_class_uid, header.has_pixels) == (ENHANCED_MR, True)


@pytest.mark.acceptance
def test_an_enhanced_object_of_20_000_frames_is_stored() -> None:
    data = enhanced(20_000)
    assert 20_000 * 60 > 1_000_000

    started = time.thread_time()
    assert scan(memoryview(data), EXPLICIT).sop_class_uid == ENHANCED_MR
    assert time.thread_time() - started < 5.0


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_when_its_time_is_used_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_budget, "_CPU_S", 0.05)

    assert cpu_s(deflated(BOMBS[name](10_000_000)), DEFLATED) < 0.5


@pytest.mark.acceptance
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_of_250_megabytes_costs_two_seconds_at_most(name: str) -> None:
    assert cpu_s(deflated(BOMBS[name](250 * 1024**2)), DEFLATED) <= 2.0


def test_time_grows_with_what_was_received_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(ct(PixelData=None)) + EMPTY * 100_000
    monkeypatch.setattr(scan_budget, "_CPU_S", 0.0)
    monkeypatch.setattr(scan_budget, "_MOST_CPU_S", 0.02)
    with pytest.raises(InvalidInstance, match="CPU time"):
        scan(memoryview(data), EXPLICIT)

    monkeypatch.setattr(scan_budget, "_MOST_CPU_S", 20.0)
    with pytest.raises(InvalidInstance, match="without pixel data"):
        scan(memoryview(data), EXPLICIT)


def test_long_checks_take_turns_and_short_ones_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = encode(ct()), encode(ct(PixelData=None)) + EMPTY * 50_000 + encode(ct())[-524:]
    monkeypatch.setattr(scan_budget, "_LONG_CHECK_S", 0.002)
    done = threading.Event()

    def check() -> None:
        scan(memoryview(long), EXPLICIT)
        done.set()

    thread = threading.Thread(target=check)
    scan_budget._turns.take()
    thread.start()
    assert not done.wait(0.3)
    assert scan(memoryview(short), EXPLICIT).sop_class_uid == CT
    scan_budget._turns.give_back()
    thread.join(timeout=600)

    assert done.is_set()
    assert not scan_budget._turns.is_taken


def test_a_real_header_does_not_wait_for_the_end_of_longer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    real, bomb = enhanced(40), encode(ct(PixelData=None)) + EMPTY * 120_000
    monkeypatch.setattr(scan_budget, "_LONG_CHECK_S", 0.001)
    monkeypatch.setattr(scan_budget, "_TURN_S", 0.002)
    used = [0.0, 0.0]

    def check(number: int) -> None:
        used[number] = cpu_s(bomb, EXPLICIT)

    threads = [threading.Thread(target=check, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: scan_budget._turns.is_taken, "one of them takes long", every_s=0.001)
    assert scan(memoryview(real), EXPLICIT).sop_class_uid == ENHANCED_MR
    assert used == [0.0, 0.0], "the real one was stored before either ended"
    for thread in threads:
        thread.join(timeout=600)

    assert min(used) > 0.05
    assert not scan_budget._turns.is_taken


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_stepping_over_plain_elements_changes_nothing(syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = ct(SOPClassUID=None, PixelData=None, StudyDescription="inner")
    ds = ct(ReferencedSeriesSequence=[inner, ct(PixelData=None, ReferencedImageSequence=[inner])])
    original, chance = encode(ds, syntax), random.Random(12)
    samples = [original]
    for _ in range(600):
        at = chance.randrange(len(original))
        samples.append(original[:at] + chance.randbytes(chance.randrange(4)) + original[at + chance.randrange(4) :])

    fast = [outcome(data, syntax) for data in samples]
    monkeypatch.setattr(scan_walk, "_SHORT_FORM", frozenset())

    assert fast == [outcome(data, syntax) for data in samples]
    assert len({str(found) for found in fast}) > 5


def outcome(data: bytes, syntax: str) -> object:
    try:
        return scan(memoryview(data), syntax)
    except InvalidInstance as refusal:
        return str(refusal), refusal.offending
