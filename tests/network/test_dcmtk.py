"""DCMTK as the scanner: what it sends is what lies on the disk."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import StoragePresentationContexts
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class
from support.receiving import DEFLATED, EXPLICIT, Listening, encoded_dataset
from support.scripted import scripted

from mediqa_node.domain.peer import Peer
from mediqa_node.network.sender import send_files

pytestmark = pytest.mark.peers

Listen = Callable[..., Listening]
Program = Callable[[str], str]
DATA = Path(__file__).parents[1] / "data"
SERIES = (
    "ct_sts003_lowdose",
    "mr_brain_dti_achieva",
    "mr_brain_epi_ge750",
    "mr_brain_t1_xa30_enhanced",
    "mr_breast_ucsf06",
)


def run(*command: str | Path) -> str:
    """Run a program that has to succeed; return all that it printed."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=quick(), check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def quick() -> dict[str, str]:
    return {**os.environ, "TCP_NODELAY": "1"}  # else Nagle and delayed ACK cost 40 ms an instance


def test_echoscu_is_answered(listening: Listen, dcmtk: Program) -> None:
    node = listening()

    run(dcmtk("echoscu"), "-aec", "MEDIQA", "127.0.0.1", str(node.port))


def test_echoscu_under_another_title_is_rejected(listening: Listen, dcmtk: Program) -> None:
    node = listening()

    command = [dcmtk("echoscu"), "-aec", "OTHER", "127.0.0.1", str(node.port)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode != 0
    assert "Called AE Title Not Recognized" in result.stderr


@pytest.mark.parametrize("series", SERIES)
def test_what_storescu_sends_lies_on_the_disk_bit_for_bit(
    listening: Listen, dcmtk: Program, tmp_path: Path, series: str
) -> None:
    node = listening()
    files = sorted((DATA / series).glob("*.dcm"))
    proposing, written = ("-xi", "+ti") if "sts" in series else ("-xe", "+te")

    said = run(dcmtk("storescu"), "-v", "-R", proposing, "-aec", "MEDIQA", "127.0.0.1", str(node.port), *files)

    assert said.count("Received Store Response (Success)") == len(files)
    kept = [encoded_dataset(node.spool.path(row.path)) for row in node.rows()]
    assert [row.sha256 for row in node.rows()] == [hashlib.sha256(data).hexdigest() for data, _ in kept]
    for path in files:  # DCMTK encodes what it sends anew: the same program tells what it makes of each file
        run(dcmtk("dcmconv"), written, path, tmp_path / path.name)
    assert set(kept) == {encoded_dataset(path) for path in tmp_path.glob("*.dcm")}


COMPRESSIONS = {
    "JPEG lossless": ("dcmcjpeg", ["+e1"], "-xs", "1.2.840.10008.1.2.4.70"),
    "JPEG-LS": ("dcmcjpls", ["+el"], "-xt", "1.2.840.10008.1.2.4.80"),
    "RLE": ("dcmcrle", [], "-xr", "1.2.840.10008.1.2.5"),
    "deflated": ("dcmconv", ["+td"], "-xd", DEFLATED),
    "explicit": ("dcmconv", ["+te"], "-xe", EXPLICIT),
    "big endian": ("dcmconv", ["+tb"], "-xb", "1.2.840.10008.1.2.2"),
}


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_what_is_sent_compressed_is_kept_compressed(
    listening: Listen, dcmtk: Program, tmp_path: Path, kind: str
) -> None:
    program, options, proposing, syntax = COMPRESSIONS[kind]
    packed = tmp_path / "packed.dcm"
    source = DATA / "ct_sts003_lowdose" / "000.dcm"
    run(dcmtk(program), *options, source, packed)
    assert encoded_dataset(packed)[1] == syntax
    node = listening()

    run(dcmtk("storescu"), "-R", proposing, "-aec", "MEDIQA", "127.0.0.1", str(node.port), packed)

    [row], [path] = node.rows(), node.files()
    assert row.transfer_syntax_uid == syntax
    assert (pydicom.dcmread(path).pixel_array == pydicom.dcmread(source).pixel_array).all()


def test_jpeg_2000_is_accepted(listening: Listen, dcmtk: Program, tmp_path: Path) -> None:
    ds = pydicom.dcmread(next(iter((DATA / "ct_body_totalseg_j2k").glob("*.dcm"))))
    ds.SOPClassUID, ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.4"
    packed = tmp_path / "packed.dcm"
    ds.save_as(packed)
    node = listening()

    run(dcmtk("storescu"), "-R", "-xv", "-aec", "MEDIQA", "127.0.0.1", str(node.port), packed)

    assert [row.transfer_syntax_uid for row in node.rows()] == ["1.2.840.10008.1.2.4.90"]


def test_files_of_one_class_in_two_transfer_syntaxes_are_sent_together(
    listening: Listen, dcmtk: Program, tmp_path: Path
) -> None:
    node = listening()
    plain, compressed = sorted((DATA / "ct_sts003_lowdose").glob("*.dcm"))[:2]
    run(dcmtk("dcmcrle"), compressed, tmp_path / "rle.dcm")

    peer = Peer(name="node", ae_title="MEDIQA", host="127.0.0.1", port=node.port)

    sent = [plain, tmp_path / "rle.dcm"]
    assert list(send_files(peer, sent, ae_title="SENDER")) == [(path, "") for path in sent]


@pytest.mark.acceptance
def test_files_of_more_pairs_than_an_association_has_contexts_are_all_sent(tmp_path: Path) -> None:
    source = pydicom.dcmread(min((DATA / "ct_sts003_lowdose").glob("*.dcm")))
    known = [str(context.abstract_syntax) for context in StoragePresentationContexts]
    classes = [uid for uid in known if uid_to_service_class(uid) is StorageServiceClass][:65]
    paths = []
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        source.file_meta.TransferSyntaxUID = syntax
        for sop_class in classes:
            source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = sop_class
            paths.append(tmp_path / f"{len(paths)}.dcm")
            source.save_as(paths[-1], implicit_vr=syntax.is_implicit_VR, little_endian=True)

    with scripted(classes=classes) as pacs:
        peer = Peer(name="pacs", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
        sent = list(send_files(peer, paths, ae_title="SENDER"))

    assert sent == [(path, "") for path in paths]
    assert len(pacs.received) == 130


def test_two_scanners_at_once_are_both_served(listening: Listen, dcmtk: Program) -> None:
    node = listening()
    sending = []
    for i, name in enumerate(("ct_sts003_lowdose", "ct_sts036_lowdose")):
        titles = ["-aet", f"CT_{i}", "-aec", "MEDIQA"]
        command = [dcmtk("storescu"), "-R", "+sd", *titles, "127.0.0.1", str(node.port), str(DATA / name)]
        sending.append(subprocess.Popen(command, env=quick()))

    assert [process.wait(timeout=600) for process in sending] == [0, 0]
    assert {row.calling_ae_title for row in node.rows()} == {"CT_0", "CT_1"}
    assert len(node.rows()) == 14
