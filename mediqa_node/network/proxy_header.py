"""The PROXY protocol, version 2: which caller a balancer speaks for (haproxy.org, proxy-protocol.txt, section 2.2).

A balancer hides the address of a caller. From the configured ones, and from nobody else, each connection begins with a
binary header that names it, before TLS.
"""

import socket
import struct
import time
from ipaddress import ip_address

from mediqa_node.network.pdu_stream import PeerGone

MAX_HEADER_BYTES = 536
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FIRST_BYTE = _SIGNATURE[0]
_FIXED = struct.Struct(">12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_BYTES = {0x11: (4, 12), 0x21: (16, 36)}
"""By family and transport, TCP over IPv4 and over IPv6: length of an address, and of both with their ports."""


class MalformedHeader(PeerGone):
    """A balancer sent something else than a header of version 2."""


def read_caller(connection: socket.socket, deadline: float) -> str | None:
    """Read a header and nothing behind it; return the address of the caller, None for a check of the balancer itself.

    Args:
        deadline: of the whole header, by the monotonic clock.

    Raises:
        MalformedHeader: no such header, too long, or not of a TCP connection.
        PeerGone: the connection ended, or the deadline passed.
    """
    signature, command, family, length = _FIXED.unpack(_exactly(connection, _FIXED.size, deadline))
    if signature != _SIGNATURE or command not in (_LOCAL, _PROXY):
        raise MalformedHeader("no PROXY header of version 2")
    if length > MAX_HEADER_BYTES - _FIXED.size:
        raise MalformedHeader(f"a PROXY header of {_FIXED.size + length} bytes exceeds {MAX_HEADER_BYTES}")
    rest = _exactly(connection, length, deadline)
    if command == _LOCAL:
        return None
    n_address, n_all = _ADDRESS_BYTES.get(family, (0, 0))
    if not n_all or length < n_all:
        raise MalformedHeader("a PROXY header without the address of a TCP connection")
    address = ip_address(rest[:n_address])  # what follows the addresses are TLVs
    return str(getattr(address, "ipv4_mapped", None) or address)


def _exactly(connection: socket.socket, count: int, deadline: float) -> bytes:
    data = b""
    while len(data) < count:
        if (remaining := deadline - time.monotonic()) <= 0:
            raise PeerGone("deadline passed while waiting for the PROXY header")
        connection.settimeout(remaining)
        try:
            piece = connection.recv(count - len(data))
        except TimeoutError:
            raise PeerGone("deadline passed while waiting for the PROXY header") from None
        except OSError as error:
            raise PeerGone(f"connection lost: {error.strerror or error}") from error
        if not piece:
            raise PeerGone("connection closed within the PROXY header")
        data += piece
    return data
