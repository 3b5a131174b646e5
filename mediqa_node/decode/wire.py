"""The messages between reader and child. No pickle: JSON and array bytes, both bounded.

Request: one JSON line. Reply: the length of a JSON header (4 bytes, big-endian), the header, and, unless
it has `error`, the array's bytes.
"""

import json
import struct
from typing import Any

import numpy as np

LENGTH = struct.Struct(">I")
MAX_HEADER_BYTES = 4096
DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<f8")


def request_line(path: str, frame_number: int | None) -> bytes:
    """Return the request for one frame."""
    return json.dumps({"path": path, "frame": frame_number}).encode() + b"\n"


def reply(array: np.ndarray, *, colour_confirmed: bool = True) -> tuple[bytes, bytes]:
    """Return header and payload of a decoded frame."""
    payload = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    header = {"shape": payload.shape, "dtype": payload.dtype.str, "colour_confirmed": colour_confirmed}
    return _framed(header), payload.tobytes()


def error_reply(message: str) -> bytes:
    """Return the header of a failure, with its reason."""
    return _framed({"error": message[:1000]})


def array_header(header: bytes, *, max_bytes: int) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype of the payload that follows.

    Raises:
        ValueError: not a valid header, or the payload would exceed `max_bytes`.
    """
    fields = parsed(header)
    shape, dtype = tuple(fields["shape"]), fields["dtype"]
    if dtype not in DTYPES or not 2 <= len(shape) <= 3 or not all(type(edge) is int and edge > 0 for edge in shape):
        raise ValueError(f"shape {shape}, dtype {dtype}")
    size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if size > max_bytes:
        raise ValueError(f"{size:,} bytes promised, at most {max_bytes:,}")
    return shape, np.dtype(dtype)


def parsed(header: bytes) -> dict[str, Any]:
    """Return the header's fields; ValueError if it is not a JSON object."""
    fields = json.loads(header)
    if not isinstance(fields, dict):
        raise ValueError("the header is no object")
    return fields


def _framed(header: dict[str, Any]) -> bytes:
    encoded = json.dumps(header).encode()
    return LENGTH.pack(len(encoded)) + encoded
