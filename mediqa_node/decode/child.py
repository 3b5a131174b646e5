"""The disposable process in which codecs run: `python -m mediqa_node.decode.child <limits as JSON>`.

It reads requests from standard input and answers on standard output (see `wire`) until input ends. Codecs are C code
that may be fed hostile bytes: memory corruption, a hang or exhausted memory is confined to this process.
"""

import json
import logging
import os
import resource
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from mediqa_node.decode import openjpeg_plugin, wire
from mediqa_node.decode.frame import DecodedFrame, PixelElement, locate_pixels, read_frame
from mediqa_node.decode.limits import DecodeLimits
from mediqa_node.dicom.part10 import DEFLATED, inflated_file, transfer_syntax
from mediqa_node.domain.errors import UndecodablePixels


class _Source:
    """The most recently requested file and the place of its pixels; a deflated file is inflated once for all frames."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._path: Path | None = None
        self._found: tuple[BinaryIO, PixelElement] | None = None

    def find(self, path: Path) -> tuple[BinaryIO, PixelElement]:
        """Open a file and return it with its pixel element."""
        if path != self._path or self._found is None:
            if self._found is not None:
                self._found[0].close()
            self._path = self._found = None
            stream = self._open(path)
            self._path, self._found = path, (stream, locate_pixels(stream))
        return self._found

    def _open(self, path: Path) -> BinaryIO:
        limits = self._limits
        if transfer_syntax(path) != DEFLATED:
            _allow(address_bytes=limits.working_bytes, cpu_s=limits.cpu_s)
            return path.open("rb")
        _allow(address_bytes=limits.working_bytes + 4 * limits.inflated_bytes, cpu_s=limits.cpu_s)
        return inflated_file(path, max_bytes=limits.inflated_bytes)


def main() -> None:
    """Answer requests until standard input ends."""
    limits = DecodeLimits(**json.loads(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a codec that prints must not print into the answers
    warnings.simplefilter("ignore")
    logging.disable()
    _forbid_side_effects()
    openjpeg_plugin.register()
    source = _Source(limits)
    for line in sys.stdin.buffer:
        _answer(json.loads(line), source, limits, answers)


def _answer(request: dict[str, Any], source: _Source, limits: DecodeLimits, answers: BinaryIO) -> None:
    try:
        frame = _decode(request, source, limits)
        header, payload = wire.reply(frame.values, colour_confirmed=frame.colour_confirmed)
    except Exception as error:  # a codec may raise anything; the process stays up for the next frame
        kind = "" if isinstance(error, UndecodablePixels) else f"{type(error).__name__}: "
        header, payload = wire.error_reply(f"{kind}{error}"), b""
    answers.write(header)
    answers.write(payload)
    answers.flush()


def _decode(request: dict[str, Any], source: _Source, limits: DecodeLimits) -> DecodedFrame:
    stream, element = source.find(Path(request["path"]))
    claimed = min(element.frame_bytes, limits.frame_bytes)
    _allow(address_bytes=limits.working_bytes + limits.working_factor * claimed, cpu_s=limits.cpu_s)
    return read_frame(stream, element, request["frame"], max_frame_bytes=limits.frame_bytes)


def _forbid_side_effects() -> None:
    """Forbid core dumps, which would hold patient pixels, and writing files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _allow(*, address_bytes: int, cpu_s: float) -> None:
    """Raise the limits of address space and processor time by the budget of the next frame."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    _soften(resource.RLIMIT_AS, pages * resource.getpagesize() + address_bytes)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _soften(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime + cpu_s) + 1)


def _soften(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()
