"""A TCP proxy that does what networks and archives do: delay, stall, cut, lose the answer, refuse."""

import contextlib
import select
import socket
import struct
import threading
import time

_C_STORE_RSP = b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x80"


class Proxy:
    """Forwards one port to another; its attributes may be changed while it runs.

    Attributes:
        delay_s: pause before each chunk in either direction.
        bytes_per_s: pace in either direction; None: as fast as it comes.
        stalled: connections are accepted and nothing moves.
        refusing: connections are closed at once.
        cut_after_bytes: end a connection after so many bytes from the client; None: never.
        swallow: how many C-STORE responses are still to be lost, each with its connection.
        swallowed, connections: what happened so far.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.stalled = self.refusing = False
        self.cut_after_bytes: int | None = None
        self.swallow = self.swallowed = self.connections = 0
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Close the listener and every connection."""
        self._stopping.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self.refusing:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            while self.stalled and not self._stopping.is_set():
                time.sleep(0.02)
            with socket.create_connection(("127.0.0.1", self.target_port), timeout=5) as server:
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._forward(client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        sent, pending = 0, b""
        while not self._stopping.is_set():
            ready, _, _ = select.select([client, server], [], [], 0.05)
            for source in ready:
                chunk = source.recv(65536)
                if not chunk:
                    return
                time.sleep(self.delay_s)
                if source is client:
                    if self.cut_after_bytes is not None and sent + len(chunk) > self.cut_after_bytes:
                        server.sendall(chunk[: self.cut_after_bytes - sent])
                        return
                    sent += len(chunk)
                    self._send(server, chunk)
                    continue
                whole, pending = _whole_pdus(pending + chunk)
                for pdu in whole:
                    if self.swallow > 0 and _C_STORE_RSP in pdu:
                        self.swallow -= 1
                        self.swallowed += 1
                        return
                    self._send(client, pdu)

    def _send(self, end: socket.socket, data: bytes) -> None:
        """Send at the pace of this moment."""
        while data and (pace := self.bytes_per_s) and not self._stopping.is_set():
            end.sendall(data[:1])
            data = data[1:]
            time.sleep(1 / pace)
        end.sendall(data)


def _whole_pdus(data: bytes) -> tuple[list[bytes], bytes]:
    """Split a stream into whole PDUs (PS3.8 9.3.1) and what is left."""
    found = []
    while len(data) >= 6 and len(data) >= (size := 6 + int.from_bytes(data[2:6], "big")):
        found.append(data[:size])
        data = data[size:]
    return found, data
