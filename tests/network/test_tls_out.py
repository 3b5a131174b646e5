"""TLS to peers: only the right one gets anything, and none holds a delivery up."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.orthanc import Orthanc
from support.receiving import CT, EXPLICIT, Listening, associate_rq, ct, encode
from support.tls import Authority, Pair, server
from support.waiting import free_port, need, stop, until

from mediqa_node.domain.errors import PeerUnavailable
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import AllowRule
from mediqa_node.domain.tls import TlsClient
from mediqa_node.network.sender import connect, verification_contexts
from mediqa_node.network.store_link import StoredFile, open_store_link
from mediqa_node.network.tls import ServerTls, open_connection

Listen = Callable[..., Listening]
OTHER_FINGERPRINT = f"sha256:{'0' * 64}"
SOON_S = 10.0


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("pacs")


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Pair:
    return authority.issue("ours", "mediqa.example.org")


def peer_at(port: int, tls: TlsClient | None, *, host: str = "127.0.0.1") -> Peer:
    return Peer(name="PACS", ae_title="MEDIQA", host=host, port=port, tls=tls)


def echo(peer: Peer, *, timeout_s: float = 20.0) -> None:
    with connect(peer, verification_contexts(), ae_title="SENDER", timeout_s=timeout_s) as link:
        link.verify()


def raw_echo(peer: Peer) -> None:
    """Do the same by a socket of our own, as far as the answer to the request."""
    with closing(open_connection(peer, 20.0)) as connection:
        connection.sendall(associate_rq())
        if connection.recv(1) != b"\2":
            raise PeerUnavailable("no association")


WAYS = pytest.mark.parametrize("way", [echo, raw_echo])


@WAYS
def test_a_peer_that_proves_who_it_is_gets_what_we_send(
    way: Callable[[Peer], None], listening: Listen, authority: Authority, pair: Pair, ours: Pair
) -> None:
    node = listening(listener_tls=ServerTls(server(pair, authority)))

    way(peer_at(node.port, None))
    way(peer_at(node.tls_port, TlsClient(ca=authority.file)))
    way(peer_at(node.tls_port, TlsClient(ca=authority.file, certificate=ours.certificate, key=ours.key)))
    way(peer_at(node.tls_port, TlsClient(fingerprint=pair.fingerprint.upper().replace("SHA256", "sha256"))))
    way(peer_at(node.tls_port, TlsClient(ca=authority.file, fingerprint=pair.fingerprint)))


@WAYS
@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (lambda authority, folder: TlsClient(ca=Authority(folder / "other").file), "certificate not accepted"),
        (lambda authority, folder: TlsClient(fingerprint=OTHER_FINGERPRINT), "not that of `fingerprint`"),
        (lambda authority, folder: TlsClient(ca=authority.file, fingerprint=OTHER_FINGERPRINT), "fingerprint"),
        (lambda authority, folder: TlsClient(ca=folder / "absent.pem"), "peers.PACS.tls.ca"),
    ],
)
def test_another_peer_gets_nothing(
    way: Callable[[Peer], None],
    tls: Callable[[Authority, Path], TlsClient],
    words: str,
    authority: Authority,
    pair: Pair,
    tmp_path: Path,
) -> None:
    with listener(server_of(pair)) as (port, received), pytest.raises(PeerUnavailable, match=words):
        way(peer_at(port, tls(authority, tmp_path)))
    assert received == []


@WAYS
def test_the_certificate_has_to_name_the_host_unless_that_is_not_wanted(
    way: Callable[[Peer], None], listening: Listen, authority: Authority
) -> None:
    node = listening(listener_tls=ServerTls(server(authority.issue("elsewhere", "pacs.example.org"))))

    with pytest.raises(PeerUnavailable, match=r"not valid for '127.0.0.1'|IP address mismatch"):
        way(peer_at(node.tls_port, TlsClient(ca=authority.file)))
    way(peer_at(node.tls_port, TlsClient(ca=authority.file, check_hostname=False)))


@WAYS
def test_no_tls_there_is_named(way: Callable[[Peer], None], listening: Listen, authority: Authority) -> None:
    node = listening()

    with pytest.raises(PeerUnavailable, match="TLS"):
        way(peer_at(node.port, TlsClient(ca=authority.file)))


def test_a_certificate_of_ours_that_is_not_accepted_is_named(
    listening: Listen, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    node = listening(listener_tls=ServerTls(server(pair, authority)))
    foreign = Authority(tmp_path / "other").issue("foreign")
    tls = TlsClient(ca=authority.file, certificate=foreign.certificate, key=foreign.key)

    with pytest.raises(PeerUnavailable, match=r"by TLS: .*(unknown ca|certificate|closed)"):
        echo(peer_at(node.tls_port, tls))


@WAYS
def test_a_silent_peer_holds_nothing_up(way: Callable[[Peer], None], authority: Authority) -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(PeerUnavailable):
        target = peer_at(silent.getsockname()[1], TlsClient(ca=authority.file))
        if way is echo:
            echo(target, timeout_s=0.3)
        else:
            open_connection(target, 0.3)
    assert time.monotonic() - started < SOON_S


def test_a_peer_that_stops_after_its_handshake_holds_nothing_up(authority: Authority, pair: Pair) -> None:
    started = time.monotonic()
    with listener(server_of(pair)) as (port, received), pytest.raises(PeerUnavailable):
        echo(peer_at(port, TlsClient(ca=authority.file)), timeout_s=0.3)
    assert time.monotonic() - started < SOON_S
    assert received, "the request had arrived"


def server_of(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


@contextmanager
def listener(context: ssl.SSLContext) -> Iterator[tuple[int, list[bytes]]]:
    """Shake hands with one caller and keep what it sends, without an answer."""
    received: list[bytes] = []

    def serve() -> None:
        try:
            accepted, _ = listening.accept()
            with context.wrap_socket(accepted, server_side=True) as connection:
                while piece := connection.recv(4096):
                    received.append(piece)
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(SOON_S)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1], received
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(SOON_S)


def test_instances_are_forwarded_over_tls(listening: Listen, authority: Authority, pair: Pair, tmp_path: Path) -> None:
    node = listening(listener_tls=ServerTls(server(pair, authority)))
    data, file = encode(instance := ct(size_px=700)), tmp_path / "dataset"
    file.write_bytes(data)

    with file.open("rb") as opened:
        stored = StoredFile(opened.fileno(), 0, len(data))
        target = peer_at(node.tls_port, TlsClient(ca=authority.file))
        with open_store_link(target, [(CT, EXPLICIT)], ae_title="SENDER") as link:
            status, _ = link.store(stored, (CT, EXPLICIT), str(instance.SOPInstanceUID), within_s=60)

    assert status == 0x0000
    assert len(node.rows()) == 1


# ── peers of other makes ─────────────────────────────────────────────────────


@pytest.mark.peers
def test_storescp_takes_reports_over_tls(
    dcmtk: Callable[[str], str], authority: Authority, pair: Pair, ours: Pair, tmp_path: Path
) -> None:
    port = free_port()
    options = ["--enable-tls", str(pair.key), str(pair.certificate), "--require-peer-cert", "+cf", str(authority.file)]
    scp = subprocess.Popen([dcmtk("storescp"), "-aet", "MEDIQA", *options, "-od", str(tmp_path), str(port)])
    try:
        tls = TlsClient(ca=authority.file, certificate=ours.certificate, key=ours.key)
        until(lambda: _answers(peer_at(port, tls)), "storescp answers over TLS", within_s=30)
        with pytest.raises(PeerUnavailable):
            echo(peer_at(port, TlsClient(ca=authority.file)))
    finally:
        stop(scp)


def _answers(peer: Peer) -> bool:
    try:
        echo(peer)
    except PeerUnavailable:
        return False
    return True


@pytest.mark.peers
def test_orthanc_answers_over_tls_and_calls_over_it(
    listening: Listen,
    authority: Authority,
    pair: Pair,
    ours: Pair,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    need(request.config, "/usr/sbin/Orthanc")
    rule = AllowRule(ae_title="PEERPACS", certificate=pair.fingerprint)
    ports = server(ours, authority)
    node = listening(listener_tls=ServerTls(ports), tls=ports, allowed=(rule,))
    called = {"AET": "MEDIQA", "Host": "127.0.0.1", "Port": node.tls_port, "UseDicomTls": True}
    pacs = Orthanc(tmp_path / "pacs").start(
        DicomTlsEnabled=True,
        DicomTlsCertificate=str(pair.certificate),
        DicomTlsPrivateKey=str(pair.key),
        DicomTlsTrustedCertificates=str(authority.file),
        DicomModalitiesInDatabase=False,
        DicomModalities={"node": called},
    )
    try:
        tls = TlsClient(ca=authority.file, certificate=ours.certificate, key=ours.key)
        echo(peer_at(pacs.dicom_port, tls))
        with pytest.raises(PeerUnavailable):
            echo(peer_at(pacs.dicom_port, None), timeout_s=2)
        pacs.post("/modalities/node/echo", {})
    finally:
        pacs.stop()
