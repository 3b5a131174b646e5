"""Coverage-guided fuzzing of what reads bytes of strangers: `python -m trials.fuzz TARGET FOLDER SECONDS SEED`.

libFuzzer ends its process, so each target runs in one of its own (`run`). An input that raises anything but the
declared errors is kept in the folder.
"""

import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

TESTS = Path(__file__).parents[1]
TARGETS = ("scan", "association", "proxy", "report")
MAX_BYTES = 8000


def is_there() -> bool:
    """Return whether atheris is installed."""
    return find_spec("atheris") is not None


def run(target: str, folder: Path, *, seconds: int, seed: int) -> str:
    """Fuzz a target; return what it raised, "" for nothing. Inputs that crash it are kept in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "trials.fuzz", target, str(folder), str(seconds), str(seed)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    ended = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=60 * seconds + 600)
    said = (ended.stdout + ended.stderr).decode(errors="replace")
    if ended.returncode == 0 and "Done " in said:
        return ""
    crashes = [f"{path.name}: {path.read_bytes().hex()}"[:2000] for path in sorted(folder.glob("crash-*"))]
    error = [line for line in said.splitlines() if line.strip() and not line.startswith(("#", "INFO", "MS:", "0x"))]
    return f"{target} ended with {ended.returncode}: {' / '.join(error[-8:])}; kept: {crashes}"


def scanned() -> tuple[Callable[[bytes], None], list[bytes]]:
    """Header scan: any bytes in any transfer syntax are described or refused."""
    from support.receiving import BIG, DEFLATED, EXPLICIT, IMPLICIT, ct, encode

    from mediqa_node.dicom.scan import scan
    from mediqa_node.domain.errors import InvalidInstance

    syntaxes = (EXPLICIT, IMPLICIT, BIG, DEFLATED, "1.2.840.10008.1.2.4.50")

    def one(data: bytes) -> None:
        try:
            scan(memoryview(data[1:]), syntaxes[data[0] % len(syntaxes)] if data else EXPLICIT)
        except InvalidInstance as refusal:
            assert str(refusal)

    nested = ct(ReferencedSeriesSequence=[ct(PixelData=None, ReferencedImageSequence=[ct(PixelData=None)])])
    return one, [bytes([i]) + encode(nested, syntax) for i, syntax in enumerate(syntaxes[:3])]


def associated() -> tuple[Callable[[bytes], None], list[bytes]]:
    """Association and data PDUs: a request is answered, a command is read, or ValueError."""
    from support.receiving import CT, EXPLICIT, associate_rq, command, p_data

    from mediqa_node.network import dimse, negotiation

    def one(data: bytes) -> None:
        body = memoryview(data)
        try:
            proposal, head = negotiation.parse_proposal(body), negotiation.parse_head(body)
            negotiation.accept(head, proposal, {CT: [EXPLICIT]}, (CT,))
        except ValueError:
            pass
        try:
            for fragment in dimse.fragments(body):
                dimse.parse_command(bytes(fragment.data))
        except ValueError:
            pass

    return one, [associate_rq()[6:], p_data(1, command(CT, "1.2.3"), is_command=True)[6:]]


def proxied() -> tuple[Callable[[bytes], None], list[bytes]]:
    """PROXY header: the address of a caller, or the peer counts as gone."""
    from mediqa_node.network.pdu_stream import PeerGone
    from mediqa_node.network.proxy_header import read_caller

    def one(data: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            with suppress(PeerGone):
                read_caller(ours, time.monotonic() + 5)

    signature = b"\r\n\r\n\0\r\nQUIT\n"
    return one, [
        signature + b"\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\2\0\1\0\2",
        signature + b"\x21\x21\0\x24" + bytes(36),
        signature + b"\x20\0\0\0",
    ]


def reported() -> tuple[Callable[[bytes], None], list[bytes]]:
    """Report builder: the headers of a series are anything that pydicom can read; a report, or a declared error."""
    from io import BytesIO

    import pydicom
    from support.factories import assessment, prompt, references, report_request, source_header, stack_result
    from support.receiving import encode

    from mediqa_node.dicom.report.build import build_report, report_bytes
    from mediqa_node.domain.errors import MediqaError

    good = source_header(1)
    judgement = assessment(stack_result(references([good]), [0.5], [1.0], prompt=prompt()))

    def one(data: bytes) -> None:
        try:
            header = pydicom.dcmread(BytesIO(data), force=True)
            header.SOPInstanceUID, header.SOPClassUID = good.SOPInstanceUID, good.SOPClassUID
            header.StudyInstanceUID, header.SeriesInstanceUID = good.StudyInstanceUID, good.SeriesInstanceUID
            str(header)
        except Exception:  # what pydicom cannot read never gets here
            return
        with suppress(MediqaError):
            report_bytes(build_report(report_request(judgement, [header])))

    return one, [encode(good)]


def main(target: str, folder: str, seconds: str, seed: str) -> None:
    """Fuzz until time is up; libFuzzer ends the process."""
    import atheris

    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["mediqa_node"]):
        one, samples = dict(zip(TARGETS, (scanned, associated, proxied, reported), strict=True))[target]()
    corpus = Path(folder) / "corpus"
    corpus.mkdir(exist_ok=True)
    for i, sample in enumerate(samples):
        (corpus / f"sample{i}").write_bytes(sample)
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={MAX_BYTES}",
        "-timeout=20",
        "-rss_limit_mb=3000",
    ]
    atheris.Setup(["fuzz", *options, f"-artifact_prefix={folder}/", "-print_final_stats=1", str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
