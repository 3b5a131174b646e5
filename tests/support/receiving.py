"""A receiver in this process, and an SCU made of bytes: it can say what no library lets one say."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pydicom
import sqlalchemy as sa
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes
from mediqa_node.domain.policy import ReceiverPolicy
from mediqa_node.network.contexts import acceptor_contexts
from mediqa_node.network.listeners import Listener, listen
from mediqa_node.network.receiver import Receiver
from mediqa_node.network.services import Services
from mediqa_node.network.tls import ServerTls
from mediqa_node.pipeline.forward.offer import Offer
from mediqa_node.pipeline.forward.plan import ForwardPlan
from mediqa_node.pipeline.intake import SpoolingIntake
from mediqa_node.storage.database import Database
from mediqa_node.storage.spool import Spool
from mediqa_node.storage.tables import instances, metadata
from mediqa_node.storage.writer import IndexWriter

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
CT, MR, VERIFICATION = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.1"
CONTEXTS = {1: (CT, [EXPLICIT]), 3: (MR, [EXPLICIT]), 5: (VERIFICATION, [IMPLICIT])}


class Listening:
    """Receiver, index writer, spool and SQLite of a node, in one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        intake: Any = None,
        has_room: Callable[[], bool] | None = None,
        plan: ForwardPlan | None = None,
        also_called: Sequence[str] = (),
        listener_tls: ServerTls | None = None,
        services: Services | None = None,
        durable: bool = True,
        **policy: Any,
    ) -> None:
        self.database = Database(f"sqlite:///{folder / 'node.db'}", syncs=durable)
        metadata.create_all(self.database.engine)
        self.spool = Spool(folder / "spool", durable=durable)
        self.writer = IndexWriter(self.database, self.spool)
        own = (VERIFICATION, *(syntax for syntax, _ in services or {}))
        contexts = acceptor_contexts(decodable_transfer_syntaxes(), ("1.3.12.2.1107.5.9.1",), own[1:])
        self.listeners = [
            Listener(listen(host, 0)),
            *([Listener(listen(host, 0), listener_tls)] if listener_tls else []),
        ]
        self.receiver = Receiver(
            ae_title="MEDIQA",
            also_called=also_called,
            listeners=self.listeners,
            policy=ReceiverPolicy(**policy),
            contexts=contexts,
            services=services,
            intake=intake or SpoolingIntake(self.spool, self.writer, "MEDIQA", plan),
            has_room=has_room or self.spool.has_room,
            offered=Offer(self.database, plan, contexts, always=own).to if plan else None,
        )
        self.port = self.receiver.port
        self.tls_port = self.listeners[-1].port
        self._serving = threading.Thread(target=self.receiver.serve, daemon=True)
        self._serving.start()

    def rows(self) -> list[Any]:
        """Return all instance rows, in order of arrival."""
        with self.database.read() as connection:
            return list(connection.execute(sa.select(instances).order_by(instances.c.id)).all())

    def files(self) -> list[Path]:
        """Return the spooled files."""
        return [self.spool.path(relative) for relative in self.spool.files()]

    def temporary(self) -> list[Path]:
        """Return what is half received."""
        return list((self.spool.root / "tmp").iterdir())

    def stop(self, within_s: float = 5.0) -> None:
        self.receiver.stop(within_s=within_s)
        self._serving.join(timeout=600)
        self.writer.stop()
        self.database.close()


# ── instances ────────────────────────────────────────────────────────────────


def ct(number: int = 1, *, size_px: int = 16, **changes: Any) -> Dataset:
    """Return a small CT image; `changes` by keyword, None removes."""
    values: dict[str, Any] = {
        "SOPClassUID": CT,
        "SOPInstanceUID": f"1.2.826.0.1.3680043.2.1125.9.{number}",
        "Modality": "CT",
        "PatientName": "Test^Anna",
        "PatientID": "SYN001",
        "StudyInstanceUID": "1.2.826.0.1.3680043.2.1125.7",
        "SeriesInstanceUID": "1.2.826.0.1.3680043.2.1125.8",
        "InstanceNumber": number,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": size_px,
        "Columns": size_px,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": bytes(2 * size_px * size_px),
    } | changes
    ds = Dataset()
    for keyword, value in values.items():
        if value is not None:
            setattr(ds, keyword, value)
    if "PixelData" in ds:
        ds["PixelData"].VR = "OW"
    return ds


def encode(ds: Dataset, syntax: str = EXPLICIT) -> bytes:
    """Return a dataset as it goes over the wire, without file meta."""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = syntax != BIG, syntax == IMPLICIT
    write_dataset(stream, ds)
    return stream.getvalue()


def encoded_dataset(path: Path) -> tuple[bytes, str]:
    """Return the dataset of a Part 10 file bit for bit, and its transfer syntax."""
    content = path.read_bytes()
    meta = pydicom.filereader.read_file_meta_info(path)
    return content[144 + int(meta.FileMetaInformationGroupLength) :], str(meta.TransferSyntaxUID)


# ── the SCU ──────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Answer:
    """What a C-STORE was answered."""

    status: int
    comment: str
    offending: int | None


class Rejected(Exception):
    """The association was rejected: result, source, reason."""


class Aborted(Exception):
    """The peer aborted or closed."""


def associate_rq(
    *,
    called: bytes = b"MEDIQA",
    calling: bytes = b"CT_ROOM_1",
    contexts: dict[int, tuple[str, list[str]]] | None = None,
    application: bytes = b"1.2.840.10008.3.1.1.1",
    user: bytes = b"",
    more: bytes = b"",
) -> bytes:
    """Return an A-ASSOCIATE-RQ PDU (PS3.8 9.3.2).

    Args:
        user: further sub-items of the user information.
        more: further items.
    """
    items = item(0x10, application)
    for number, (abstract, syntaxes) in (contexts or CONTEXTS).items():
        inner = item(0x30, abstract.encode()) + b"".join(item(0x40, uid.encode()) for uid in syntaxes)
        items += item(0x20, bytes((number, 0, 0, 0)) + inner)
    items += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3") + user) + more
    body = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32) + items
    return struct.pack(">BBI", 1, 0, len(body)) + body


def item(kind: int, value: bytes) -> bytes:
    """Return an item or sub-item of an A-ASSOCIATE PDU."""
    return struct.pack(">BBH", kind, 0, len(value)) + value


def command(
    sop_class: str,
    uid: str,
    *,
    field: int = 1,
    message: int = 1,
    with_dataset: bool = True,
    more: Mapping[int, bytes] | None = None,
) -> bytes:
    """Return a command set (PS3.7 9.3.1.1), with further elements behind it."""
    elements = [
        (0x0002, sop_class.encode("latin-1")),
        (0x0100, struct.pack("<H", field)),
        (0x0110, struct.pack("<H", message)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 1 if with_dataset else 0x0101)),
        (0x1000, uid.encode("latin-1")),
        *(more or {}).items(),
    ]
    body = b"".join(struct.pack("<HHI", 0, e, len(v) + len(v) % 2) + v + b"\0" * (len(v) % 2) for e, v in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def p_data(context: int, data: bytes, *, is_command: bool, is_last: bool = True) -> bytes:
    """Return a P-DATA-TF PDU with one value."""
    control = is_command + 2 * is_last
    return struct.pack(">BBIIBB", 4, 0, len(data) + 6, len(data) + 2, context, control) + data


def store_rq(uid: str, data: bytes, *, sop_class: str = CT, context: int = 1, fragment: int = 16_000) -> bytes:
    """Return the PDUs of a whole C-STORE request."""
    pieces = [data[i : i + fragment] for i in range(0, len(data), fragment)] or [b""]
    pdus = [p_data(context, command(sop_class, uid), is_command=True)]
    pdus += [p_data(context, piece, is_command=False, is_last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    return b"".join(pdus)


class Scu:
    """One connection to the receiver.

    Args:
        first: sent before TLS.
    """

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        associate: bool = True,
        timeout_s: float = 20.0,
        first: bytes = b"",
        tls: ssl.SSLContext | None = None,
        **request: Any,
    ) -> None:
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(first)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        if associate:
            try:
                self.associate(**request)
            except BaseException:
                self.socket.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def associate(self, **request: Any) -> bytes:
        """Return the body of the A-ASSOCIATE-AC."""
        self.send(associate_rq(**request))
        kind, body = self.pdu()
        if kind == 3:
            raise Rejected(body[1], body[2], body[3])
        assert kind == 2, kind
        return body

    def pdu(self) -> tuple[int, bytes]:
        """Return type and body of the next PDU; Aborted when there is none."""
        try:
            kind, length = struct.unpack(">BxI", self._exactly(6))
            body = self._exactly(length)
        except ConnectionError as error:
            raise Aborted(str(error)) from error
        if kind == 7:
            raise Aborted("A-ABORT")
        return kind, body

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if not (piece := self.socket.recv(count - len(data))):
                raise ConnectionResetError("closed")
            data += piece
        return data

    def answer(self) -> Answer:
        """Return the next DIMSE response."""
        kind, body = self.pdu()
        assert kind == 4, kind
        elements, position = {}, 6
        while position < len(body):
            _, element, length = struct.unpack_from("<HHI", body, position)
            elements[element] = body[position + 8 : position + 8 + length]
            position += 8 + length
        assert len(elements.get(0x0902, b"")) <= 64
        offending = elements.get(0x0901)
        tag = None
        if offending:
            group, number = struct.unpack("<HH", offending)
            tag = group << 16 | number
        return Answer(int.from_bytes(elements[0x0900], "little"), elements.get(0x0902, b"").decode().strip(), tag)

    def store(self, uid: str, data: bytes, *, sop_class: str = CT, context: int = 1) -> Answer:
        """Send one instance and return what it was answered."""
        self.send(store_rq(uid, data, sop_class=sop_class, context=context))
        return self.answer()

    def store_dataset(self, ds: Dataset) -> int:
        """Send a dataset under its own class and UID; return the status."""
        return self.store(str(ds.SOPInstanceUID), encode(ds), sop_class=str(ds.SOPClassUID)).status

    def echo(self) -> int:
        """Return the status of a C-ECHO."""
        rq = command(VERIFICATION, "", field=0x30, with_dataset=False)
        self.send(p_data(5, rq, is_command=True))
        return self.answer().status

    def release(self) -> None:
        self.send(struct.pack(">BBII", 5, 0, 4, 0))
        assert self.pdu()[0] == 6

    def reset(self) -> None:
        """Drop the connection with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def closed_within(self, seconds: float) -> bool:
        """Whether the peer ends the connection in time."""
        self.socket.settimeout(seconds)
        with suppress(ConnectionError):
            try:
                while self.socket.recv(65536):
                    pass
            except TimeoutError:
                return False
        return True


def fill(scus: Sequence[Scu], data: bytes) -> None:
    """Send the same bytes on many connections."""
    for scu in scus:
        scu.send(data)
