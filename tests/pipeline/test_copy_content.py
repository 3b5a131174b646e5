"""Two copies of one instance are told apart by what they show, not by what an archive has done to them."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pipeline.test_corrections import whose
from pipeline.test_identity import RIGHT, WRONG, stored
from pydicom import Dataset
from pydicom.encaps import encapsulate
from support.bench import Bench
from support.corrections import SCANNER, Make
from support.scripted import ScriptedPacs
from support.series import ct_series
from support.siblings import before_release

from mediqa_node.decode.reader import FrameReader
from mediqa_node.domain.health import Heartbeat
from mediqa_node.pipeline import content, copies
from mediqa_node.pipeline.content import content_digest
from mediqa_node.pipeline.copies import Copies
from mediqa_node.pipeline.heartbeat import Pulse

Change = Callable[[Dataset], object]


@pytest.fixture(scope="module")
def reader() -> Iterator[FrameReader]:
    """Read frames; one decoder process serves all tests."""
    with FrameReader() as running:
        yield running


def digest_of(ds: Dataset, path: Path, reader: FrameReader) -> str:
    """Return the content digest of a dataset as a file."""
    ds.save_as(path)
    return content_digest(path, reader)


def slice_of(folder: Path, prepare: Change) -> Dataset:
    ds = pydicom.dcmread(ct_series(folder, "x", slices=[0])[0])
    prepare(ds)
    return ds


def as_it_is(ds: Dataset) -> None:
    """Change nothing."""


def black(ds: Dataset) -> None:
    ds.PixelData = bytes(len(ds.PixelData))


def as_document(ds: Dataset) -> None:
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(ds, keyword)
    ds.ContentSequence = [item := Dataset()]
    item.ValueType, item.TextValue = "TEXT", "Größe"
    item.MeasuredValueSequence = [value := Dataset()]
    value.NumericValue = "1.50"


def of_twelve_bits(unused: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(ds: Dataset) -> None:
        values = np.clip(ds.pixel_array, -1024, 2047).astype("<i2")
        ds.BitsStored, ds.HighBit = 12, 11
        ds.PixelData = unused(values.view("<u2")).astype("<u2").tobytes()

    return change


def junk(pixels: bytes) -> Change:
    def change(ds: Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.5"
        ds.PixelData = encapsulate([pixels * 20])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True

    return change


def put(**elements: object) -> Change:
    def change(ds: Dataset) -> None:
        for keyword, value in elements.items():
            setattr(ds, keyword, value)

    return change


ADDED = [
    put(ContributingEquipmentSequence=[Dataset()], AdmissionID="7", RequestingPhysician="Doe^J"),
    put(InstanceCreationDate="20261120", InstanceCreationTime="101900", RequestedProcedureDescription="CT"),
    put(PatientIdentityRemoved="NO", PerformedProcedureStepDescription="CT", RetrieveAETitle="PACS"),
    put(ContentLabel="", DerivationCodeSequence=[], OperatorsName="Roe^R", SOPInstanceStatus="AO"),
]


@pytest.mark.parametrize(
    ("prepare", "change"),
    [
        *((prepare, change) for prepare in (black, as_document) for change in ADDED),
        (junk(b"junkjunk"), ADDED[0]),
        (as_it_is, put(PixelSpacing=["3.1250", "3.1250"], RescaleSlope="1.0", SliceThickness="5.00")),
        (as_it_is, put(ImagePositionPatient=["-100.0", "-1.0E2", "0.00"])),
        (black, put(KVP="120.00", WindowCenter="40.0", PhotometricInterpretation="MONOCHROME2 ")),
        (as_document, lambda ds: setattr(ds.ContentSequence[0].MeasuredValueSequence[0], "NumericValue", "1.5")),
        (as_document, lambda ds: setattr(ds.ContentSequence[0], "TextValue", "Gro\u0308ße")),
        (of_twelve_bits(lambda a: a), of_twelve_bits(lambda a: a & 0x0FFF)),
        (of_twelve_bits(lambda a: a), of_twelve_bits(lambda a: a & 0x0FFF | 0x8000)),
    ],
)
def test_what_an_archive_does_to_an_instance_does_not_count(
    tmp_path: Path, reader: FrameReader, prepare: Change, change: Change
) -> None:
    def before(ds: Dataset) -> None:
        prepare(ds)
        put(ImagePositionPatient=["-100", "-100", "0"], PixelSpacing=["3.125", "3.125"], RescaleSlope="1")(ds)
        put(SliceThickness="5", KVP="120", WindowCenter="40")(ds)

    one, other = (slice_of(tmp_path, before) for _ in range(2))
    change(other)

    assert digest_of(one, tmp_path / "one.dcm", reader) == digest_of(other, tmp_path / "other.dcm", reader)


@pytest.mark.parametrize(
    ("prepare", "change"),
    [
        (black, put(KVP="121")),
        (black, put(AcquisitionTime="120000")),
        (black, put(BodyPartExamined="HEAD")),
        (as_it_is, put(ImagePositionPatient=["-100", "-100", "5"])),
        (as_it_is, lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2] + b"\x07\0")),
        (as_document, lambda ds: setattr(ds.ContentSequence[0], "TextValue", "Grosse")),
        (as_document, lambda ds: setattr(ds.ContentSequence[0].MeasuredValueSequence[0], "NumericValue", "1.51")),
        (as_document, put(VerificationFlag="VERIFIED")),
        (junk(b"junkjunk"), junk(b"otherone")),
        (of_twelve_bits(lambda a: a), of_twelve_bits(lambda a: a ^ 1)),
    ],
)
def test_what_makes_it_another_instance_counts(
    tmp_path: Path, reader: FrameReader, prepare: Change, change: Change
) -> None:
    one, other = (slice_of(tmp_path, prepare) for _ in range(2))
    change(other)

    assert digest_of(one, tmp_path / "one.dcm", reader) != digest_of(other, tmp_path / "other.dcm", reader)


def test_an_error_that_passes_is_tried_again(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.receive_all(ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **SCANNER)
    read, failures = content.read_header, [errno.EMFILE, errno.ENOMEM, errno.ESTALE]

    def fails_at_first(path: Path) -> Dataset:
        if failures:
            raise OSError(failures.pop(), "not now")
        return read(path)

    monkeypatch.setattr(content, "read_header", fails_at_first)
    bench.pass_time(100)

    assert failures == []
    assert whose(stored(pacs)) == [("RIGHT", False)]


N_FRAMES = 5


def of_many_frames(path: Path, n: int = N_FRAMES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = slice_of(path.parent, as_it_is)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    ds.PixelData = b"".join(bytes([number]) * len(ds.PixelData) for number in range(n))
    ds.NumberOfFrames = n
    ds.save_as(path)
    return path


def again(bench: Bench, path: Path, association: str, **change: str) -> None:
    put(PatientComments="again", **change)(ds := pydicom.dcmread(path))
    ds.save_as(path)
    bench.receive_all([path], association=association, aet="PACS")


@pytest.mark.parametrize("change", [{}, *before_release({"StudyID": "7"}, {"PatientID": "SYN002"})], ids=str)
def test_an_object_of_many_frames_holds_no_copy_of_another_series_up_and_is_decoded_once(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    bench = make()
    big, small = of_many_frames(tmp_path / "big" / "a.dcm"), ct_series(tmp_path / "s", "small", slices=[0])[0]
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in (big, small)]
    for n, path in enumerate((big, small)):
        bench.receive_all([path], association=f"a{n}", **SCANNER)
        again(bench, path, f"b{n}", **change)
    at, reads, when_settled = [0.0], [], {}
    pulse, raw = Pulse(clock=lambda: at[0]), FrameReader.raw

    def read(reader: FrameReader, path: Path, number: int | None) -> np.ndarray:
        at[0] += 300.0  # each frame takes longer than a turn
        sweeps = pulse.sweeps()
        beat = Heartbeat(name="courier", host="", pid=1, started_at=0, at=at[0], sweeps=sweeps)
        assert not list(beat.late(at[0]))
        reads.append((path, number))
        when_settled.update({uid: len(reads) for uid in uids if "candidate" not in bench.copies(uid)} | when_settled)
        return raw(reader, path, number)

    monkeypatch.setattr(FrameReader, "raw", read)
    monkeypatch.setattr(copies, "_TURN_S", -1.0)
    assert pulse.timed("copies", 60.0, Copies(bench.node).compare_waiting)() == 2

    assert when_settled[uids[1]] <= 6
    assert len(reads) == len(set(reads)) == 2 * (N_FRAMES + 1)
    status = "disputed" if "PatientID" in change else "same"
    assert [bench.copies(uid) for uid in uids] == [["current", status]] * 2
