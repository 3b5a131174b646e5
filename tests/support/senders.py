"""Who sends: DCMTK's storescu with the status of each instance, and an SCU whose association tests hold."""

import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pydicom
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1
from pynetdicom import AE, _config, build_context, evt

from mediqa_node.network.requestor import keep_answers
from support.waiting import PATIENCE_S

_STORESCU = "/usr/bin/storescu"
_SENDING = re.compile(r"Sending file: (.+)$")
_STATUS = re.compile(r"DIMSE Status\s*: 0x([0-9a-f]{4})", re.IGNORECASE)


def storescu(
    port: int, paths: Sequence[Path], *, aet: str = "CT_ROOM_1", called: str = "MEDIQA", options: Sequence[str] = ()
) -> dict[Path, int]:
    """Send files over one association and return the status of each that was answered."""
    return answered(start_storescu(port, paths, aet=aet, called=called, options=options))


def proposal(path: Path) -> list[str]:
    """Return options for a file: storescu makes nothing else of JPEG 2000 and lossless JPEG, it has to propose them."""
    syntax = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    return {JPEG2000Lossless: ["-xv"], JPEGLosslessSV1: ["-xs"]}.get(syntax, [])


def start_storescu(
    port: int, paths: Sequence[Path], *, aet: str = "CT_ROOM_1", called: str = "MEDIQA", options: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Begin to send; `answered` waits for the end."""
    command = [_STORESCU, "-d", "-R", "-nh", *options, "-aet", aet, "-aec", called, "127.0.0.1", str(port)]
    return subprocess.Popen(
        [*command, *map(str, paths)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def answered(sending: subprocess.Popen[bytes], *, within_s: float = PATIENCE_S) -> dict[Path, int]:
    """Wait for a storescu and return the status of each instance for which it saw an answer."""
    output, _ = sending.communicate(timeout=within_s)
    statuses: dict[Path, int] = {}
    current: Path | None = None
    for line in output.decode("latin-1").splitlines():
        if found := _SENDING.search(line):
            current = Path(found[1].strip())
        elif (found := _STATUS.search(line)) and current is not None:
            statuses[current] = int(found[1], 16)
            current = None
    return statuses


def acknowledged(statuses: dict[Path, int]) -> list[Path]:
    """Return the files whose sender saw 0x0000, and may now delete them."""
    return [path for path, status in statuses.items() if status == 0x0000]


class Scu:
    """An association with the node that stays open as long as a test wants, sending files bit by bit."""

    def __init__(self, port: int, paths: Sequence[Path], *, aet: str = "CT_ROOM_1") -> None:
        self.port = port
        wanted: dict[str, set[str]] = {}
        for path in paths:
            meta = pydicom.filereader.read_file_meta_info(path)
            wanted.setdefault(str(meta.MediaStorageSOPClassUID), set()).add(str(meta.TransferSyntaxUID))
        self._contexts = [build_context(uid, sorted(syntaxes)) for uid, syntaxes in wanted.items()]
        self._entity = AE(ae_title=aet)
        self._held = ExitStack()

    def __enter__(self) -> Self:
        # as it lies in the file, bit for bit: also what pynetdicom would not encode again
        _config.STORE_SEND_CHUNKED_DATASET = True
        self._held.callback(setattr, _config, "STORE_SEND_CHUNKED_DATASET", False)
        self.association = self._entity.associate(
            "127.0.0.1",
            self.port,
            self._contexts,
            ae_title="MEDIQA",
            evt_handlers=[(evt.EVT_CONN_OPEN, lambda event: keep_answers(event.assoc))],
        )
        assert self.association.is_established
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.association.is_established:
            self.association.release()
        self._held.close()

    def send(self, path: Path) -> int | None:
        """Send one file and return its status; None if no answer came."""
        answer = self.association.send_c_store(path)
        return int(answer.Status) if "Status" in answer else None
