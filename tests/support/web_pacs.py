"""A DICOMweb server that answers what a test tells it to: statuses, redirects, drips, floods."""

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mediqa_node.domain.peer import DicomWeb, Peer


@dataclass
class Said:
    """One answer. `drips`: a byte of it every tenth of a second, from the status line on."""

    status: int = 200
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drips: bool = False
    raw: bytes | None = None

    def encoded(self) -> bytes:
        """Return what goes over the wire."""
        if self.raw is not None:
            return self.raw
        body = b"" if self.content is None else json.dumps(self.content).encode()
        head = {"Content-Type": "application/dicom+json", "Content-Length": str(len(body)), **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        return f"HTTP/1.1 {self.status} X\r\n{lines}\r\n".encode() + body


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class WebPacs:
    """Answers POST and GET from two lists; when one is empty, with 200 and what it holds.

    Attributes:
        stores: the next answers to STOW-RS.
        queries: the next answers to QIDO-RS.
        holds: what queries find otherwise.
        asked: every request.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.stores: list[Said] = []
        self.queries: list[Said] = []
        self.holds: list[dict[str, Any]] = []
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(), bind_and_activate=True)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.scheme = "http"
        if context is not None:
            self.scheme = "https"
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def peer(self, *, base: str = "/dicom-web", sr_sop_class: str = "auto", **access: Path) -> Peer:
        """Return this server as a configured peer."""
        web = DicomWeb(url=f"{self.scheme}://localhost:{self.port}{base}", **access)
        return Peer(name="WEB", dicomweb=web, sr_sop_class=sr_sop_class)

    @property
    def stored(self) -> list[bytes]:
        """The parts of every POST, as they came."""
        return [_part(one) for one in self.asked if one.method == "POST"]

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        pacs = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pacs._note(self, b"")
                pacs._say(self, pacs.queries.pop(0) if pacs.queries else Said(content=pacs.holds))

            def do_POST(self) -> None:
                pacs._note(self, self.rfile.read(int(self.headers["Content-Length"])))
                pacs._say(self, pacs.stores.pop(0) if pacs.stores else Said(content={}))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def _note(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        self.asked.append(Asked(handler.command, handler.path, dict(handler.headers.items()), body))

    @staticmethod
    def _say(handler: BaseHTTPRequestHandler, said: Said) -> None:
        handler.close_connection = True
        with contextlib.suppress(OSError):
            if not said.drips:
                handler.wfile.write(said.encoded())
                return
            for byte in said.encoded():
                handler.wfile.write(bytes((byte,)))
                time.sleep(0.1)


def _part(asked: Asked) -> bytes:
    """Return the one part of a multipart/related request (RFC 2046 section 5.1.1)."""
    boundary = asked.headers["Content-Type"].rpartition("boundary=")[2].encode()
    before, _, rest = asked.body.partition(b"--" + boundary + b"\r\n")
    head, _, rest = rest.partition(b"\r\n\r\n")
    content, _, after = rest.rpartition(b"\r\n--" + boundary + b"--")
    assert (before, head, after) == (b"", b"Content-Type: application/dicom", b"\r\n")
    return content


def failed(reason: int) -> dict[str, Any]:
    """Return a STOW-RS response (PS3.18 table 10.5.3-1) that says one instance was not stored."""
    return {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}}


def stored(warning: int | None = None) -> dict[str, Any]:
    """Return a STOW-RS response that says one instance was stored."""
    item = {} if warning is None else {"00081196": {"vr": "US", "Value": [warning]}}
    return {"00081199": {"vr": "SQ", "Value": [item | {"00081155": {"vr": "UI", "Value": ["1.2"]}}]}}


def study(uid: str, **values: str) -> dict[str, Any]:
    """Return a match of a query: patient_id, issuer, accession_number."""
    tags = {"patient_id": "00100020", "issuer": "00100021", "accession_number": "00080050"}
    found = {tags[name]: {"vr": "LO", "Value": [value]} for name, value in values.items()}
    return found | {"0020000D": {"vr": "UI", "Value": [uid]}}


@contextlib.contextmanager
def web_pacs(context: ssl.SSLContext | None = None) -> Iterator[WebPacs]:
    """Run one for a test."""
    server = WebPacs(context)
    try:
        yield server
    finally:
        server.close()
