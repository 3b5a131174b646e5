"""Read frames on demand: native frames here, by byte range; all others in a child process.

One reader serves one series on one thread. Only the frames asked for are read and decoded.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from mediqa_node.decode import wire
from mediqa_node.decode.frame import PixelElement, locate_pixels, read_frame
from mediqa_node.decode.limits import DecodeLimits
from mediqa_node.dicom.part10 import NATIVE, transfer_syntax
from mediqa_node.domain.errors import UndecodablePixels

_CHILD = (sys.executable, "-m", "mediqa_node.decode.child")
_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class FrameReader:
    """Reads raw frames from Part 10 files: `with FrameReader() as reader: reader.raw(path, 3)`.

    The child starts with the first compressed frame, decodes all further ones, and is replaced if it died or was killed
    for missing a deadline. If it dies on a frame after decoding others, a new child retries that frame once, unless the
    processor time ran out.

    Args:
        limits: budgets of each frame.
        command: command line of the child; the limits are appended as JSON.
    """

    def __init__(self, *, limits: DecodeLimits | None = None, command: Sequence[str] = _CHILD) -> None:
        self._limits = limits or DecodeLimits()
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._answered = False
        self._located: tuple[Path, PixelElement] | None = None
        self.of_unconfirmed_colour: set[Path] = set()
        """Files with a frame whose colour model only the label states."""
        self.of_unstored_bits: set[Path] = set()
        """Files with values above Bits Stored, as `image_getter` finds them."""

    def raw(self, path: Path, frame_number: int | None) -> np.ndarray:
        """Return the stored values of one frame.

        Args:
            path: a Part 10 file.
            frame_number: from 1; None for a single-frame object.

        Returns:
            (rows, columns), or (rows, columns, samples) with colour as RGB. Integers as stored, not
            rescaled: see `dicom.pixels.to_image`.

        Raises:
            UndecodablePixels: no such frame, broken, over budget, no decoder, or the child died decoding it.
            OSError: the file cannot be opened.
        """
        if transfer_syntax(path) in NATIVE:
            with path.open("rb") as stream:
                if self._located is None or self._located[0] != path:
                    self._located = path, locate_pixels(stream)
                element, limit = self._located[1], self._limits.frame_bytes
                frame = read_frame(stream, element, frame_number, max_frame_bytes=limit)
            if not frame.colour_confirmed:
                self.of_unconfirmed_colour.add(path)
            return frame.values
        seasoned = self._answered
        try:
            return self._ask(path, frame_number)
        except _ChildFailed as failure:
            killed_by = self.close()
            if failure.died and seasoned and killed_by != -signal.SIGXCPU:
                return self.raw(path, frame_number)  # it may have died for another reason: retry once in a new child
            raise UndecodablePixels(f"frame {frame_number or 1}: {failure}") from failure

    @property
    def child_pid(self) -> int | None:
        """Process id of the running child, or None."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def close(self) -> int | None:
        """End the child and return its exit code, or None without a child; the next frame starts a new one."""
        child, self._child, self._answered = self._child, None, False
        if child is None:
            return None
        child.kill()
        code = child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # an unsent request to a dead child
                    pipe.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, path: Path, frame_number: int | None) -> np.ndarray:
        deadline = time.monotonic() + self._limits.wall_s
        output = self._send(wire.request_line(str(path.absolute()), frame_number))
        (length,) = wire.LENGTH.unpack(_read_exactly(output, wire.LENGTH.size, deadline))
        if not 0 < length <= wire.MAX_HEADER_BYTES:
            raise _ChildFailed("the decoder sent an invalid answer")
        header = bytes(_read_exactly(output, length, deadline))
        self._answered = True
        try:
            if "error" in (fields := wire.parsed(header)):
                raise UndecodablePixels(str(fields["error"]))
            shape, dtype = wire.array_header(header, max_bytes=self._limits.frame_bytes)
            if not fields.get("colour_confirmed", True):
                self.of_unconfirmed_colour.add(path)
        except (ValueError, KeyError, TypeError) as error:
            raise _ChildFailed(f"the decoder sent an invalid answer: {error}") from error
        size = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer(_read_exactly(output, size, deadline), dtype=dtype).reshape(shape)

    def _send(self, line: bytes) -> int:
        """Send a request, starting a new child if there is none; return the file descriptor of the answers."""
        for _ in range(2):
            child = self._running()
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                child.stdin.write(line)
                child.stdin.flush()
            except OSError:  # it died since the last frame
                self.close()
            else:
                return child.stdout.fileno()
        raise _ChildFailed("the decoder does not start")

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = subprocess.Popen(
                [*self._command, json.dumps(asdict(self._limits))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_SINGLE_THREADED},
                start_new_session=True,
            )
        return self._child


class _ChildFailed(Exception):
    """The child died, was late or sent an invalid answer: it has to be replaced."""

    def __init__(self, message: str, *, died: bool = False) -> None:
        super().__init__(message)
        self.died = died


def _read_exactly(descriptor: int, count: int, deadline: float) -> bytearray:
    """Read `count` bytes of an answer before `deadline` (monotonic seconds)."""
    buffer = bytearray(count)
    view = memoryview(buffer)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    filled = 0
    while filled < count:
        left_ms = (deadline - time.monotonic()) * 1000
        if left_ms <= 0 or not poll.poll(left_ms):
            raise _ChildFailed("the decoder took too long")
        read = os.readv(descriptor, [view[filled:]])
        if read == 0:
            raise _ChildFailed("the decoder died", died=True)
        filled += read
    return buffer
