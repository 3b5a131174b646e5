"""TLS at the receiver: who gets in, who does not, and what a slow or broken one costs the others."""

import os
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from support.receiving import Aborted, Listening, Rejected, Scu, associate_rq, ct, encode
from support.tls import Authority, Pair, client, server
from support.waiting import PATIENCE_S, until

from mediqa_node.domain.policy import AllowRule
from mediqa_node.network.pdu_stream import PduStream, PeerGone
from mediqa_node.network.tls import ServerTls, accepted, server_context

Listen = Callable[..., Listening]
UID = str(ct().SOPInstanceUID)
REFUSED = (ssl.SSLError, ConnectionError, Aborted)
"""What a client sees of a handshake that the node ends: in TLS 1.3 its own half succeeds first."""


@pytest.fixture
def node(listening: Listen, authority: Authority, pair: Pair, scanner: Pair) -> Listening:
    """A node with both ports; `CT3` needs its certificate, `MR1` any TLS."""
    allowed = (
        AllowRule(ae_title="CT3", certificate=scanner.fingerprint),
        AllowRule(ae_title="CT4", certificate="san:CT3.example.org"),
        AllowRule(ae_title="CT5", certificate="san:192.0.2.99"),
        AllowRule(ae_title="MR1", tls=True),
        AllowRule(ae_title="ANY"),
    )
    ports = server(pair, authority, crl=authority.revoke(authority.issue("lost")))
    return listening(listener_tls=ServerTls(ports), allowed=allowed, tls=ports)


def echo(port: int, tls: ssl.SSLContext | None, calling: str) -> int:
    with Scu(port, tls=tls, calling=calling.encode()) as scu:
        status = scu.echo()
        scu.release()
        return status


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_instances_come_over_both_ports_at_once(node: Listening, authority: Authority, version: Any) -> None:
    context = client(authority)
    context.minimum_version = context.maximum_version = version

    with Scu(node.tls_port, tls=context, calling=b"MR1") as safe, Scu(node.port, calling=b"ANY") as plain:
        assert isinstance(safe.socket, ssl.SSLSocket)
        assert safe.socket.cipher()[0].startswith(("ECDHE-", "TLS_"))  # type: ignore[index]
        large = ct(1, size_px=512)
        assert [safe.store_dataset(large), plain.store_dataset(ct(2))] == [0, 0]
        safe.release()
        assert safe.socket.recv(1) == b"", "close_notify, not a torn connection"
    assert {row.sop_instance_uid for row in node.rows()} == {str(large.SOPInstanceUID), str(ct(2).SOPInstanceUID)}


def test_a_rule_that_demands_a_certificate_matches_only_who_has_presented_it(
    node: Listening, authority: Authority, scanner: Pair
) -> None:
    with_it, without, other = client(authority, scanner), client(authority), client(authority, authority.issue("other"))

    assert echo(node.tls_port, with_it, "CT3") == echo(node.tls_port, with_it, "CT4") == 0
    assert echo(node.tls_port, without, "MR1") == echo(node.tls_port, other, "MR1") == 0
    for port, tls, calling in (
        (node.tls_port, without, "CT3"),
        (node.tls_port, other, "CT3"),
        (node.tls_port, other, "CT4"),
        (node.tls_port, with_it, "CT5"),
        (node.port, None, "CT3"),
        (node.port, None, "MR1"),
    ):
        with pytest.raises(Rejected) as caught:
            echo(port, tls, calling)
        assert caught.value.args == (1, 1, 3), (calling, tls)


@pytest.mark.parametrize("wrong", ["expired", "of another authority", "revoked"])
def test_a_certificate_that_does_not_hold_fails_the_handshake(
    wrong: str, node: Listening, authority: Authority, tmp_path: Path
) -> None:
    bad = {
        "expired": lambda: authority.issue("expired", days=-1),
        "of another authority": lambda: Authority(tmp_path / "other").issue("foreign"),
        "revoked": lambda: Pair(authority.folder / "lost.pem", authority.folder / "lost.key"),
    }[wrong]()

    with structlog.testing.capture_logs() as logs:
        with pytest.raises(REFUSED):
            echo(node.tls_port, client(authority, bad), "MR1")
        until(lambda: logs, "the node has noticed", within_s=20)
    assert "certificate not accepted" in logs[0]["reason"]
    assert logs[0]["log_level"] == "warning"
    assert echo(node.tls_port, client(authority), "MR1") == 0


@pytest.mark.parametrize("is_revoked", [False, True])
def test_an_authority_may_be_revoked_too(
    is_revoked: bool, listening: Listen, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    root = Authority(tmp_path / "root")
    middle = Authority(tmp_path / "middle", below=root)
    lists = tmp_path / "crl.pem"
    lists.write_bytes(root.revoke(*([middle] if is_revoked else [])).read_bytes() + middle.revoke().read_bytes())
    ports = server(pair, root, crl=lists)
    node = listening(listener_tls=ServerTls(ports), tls=ports)

    if is_revoked:
        with pytest.raises(REFUSED):
            echo(node.tls_port, client(authority, middle.issue("leaf")), "CT3")
    else:
        assert echo(node.tls_port, client(authority, middle.issue("leaf")), "CT3") == 0


def test_a_certificate_that_expires_soon_is_logged_and_accepted(node: Listening, authority: Authority) -> None:
    soon = authority.issue("soon", days=29)

    with structlog.testing.capture_logs() as logs:
        assert echo(node.tls_port, client(authority, soon), "MR1") == 0
    [warning] = [line for line in logs if line["log_level"] == "warning"]
    assert warning["certificate"] == soon.fingerprint


def test_without_an_authority_no_certificate_is_asked_for(listening: Listen, authority: Authority, pair: Pair) -> None:
    node = listening(listener_tls=ServerTls(server(pair)))

    assert echo(node.tls_port, client(authority, Authority(authority.folder / "x").issue("foreign")), "ANY") == 0


def test_a_plain_caller_at_the_tls_port_is_closed(node: Listening) -> None:
    with Scu(node.tls_port, associate=False) as scu:
        scu.send(associate_rq(calling=b"ANY"))
        assert scu.closed_within(PATIENCE_S)


def test_tls_1_1_is_refused_and_1_3_works_with_openssl(node: Listening, authority: Authority) -> None:
    def connect(*options: str) -> str:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{node.tls_port}", "-CAfile", str(authority.file)]
        done = subprocess.run([*command, *options], input=b"", capture_output=True, check=False, timeout=60)
        return done.stdout.decode() + done.stderr.decode()

    assert "Cipher is (NONE)" in connect("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in connect("-tls1_2", "-cipher", "AES256-GCM-SHA384"), "no ephemeral key"
    assert "Cipher is (NONE)" in connect("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"), "no AEAD"
    good = connect("-tls1_3")
    assert "TLSv1.3" in good
    assert "Verify return code: 0" in good


@pytest.mark.peers
def test_storescu_sends_over_tls_with_and_without_a_certificate(
    node: Listening, authority: Authority, scanner: Pair, dcmtk: Callable[[str], str], tmp_path: Path
) -> None:
    file = tmp_path / "7.dcm"
    _write(file)

    def send(calling: str, *options: str) -> int:
        command = [dcmtk("storescu"), "-aet", calling, "-aec", "MEDIQA", "+cf", str(authority.file), *options]
        line = [*command, "127.0.0.1", str(node.tls_port), str(file)]
        return subprocess.run(line, env={**os.environ, "TCP_NODELAY": "1"}, check=False, timeout=60).returncode

    assert send("MR1", "--anonymous-tls") == 0
    assert send("CT3", "--enable-tls", str(scanner.key), str(scanner.certificate)) == 0
    assert send("CT3", "--anonymous-tls") != 0
    assert len(node.rows()) == 1


def _write(path: Path) -> None:
    """Write an instance as a Part 10 file."""
    from pydicom.dataset import FileMetaDataset

    dataset = ct(7)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.save_as(path, enforce_file_format=True)


# ── what others do ───────────────────────────────────────────────────────────


def test_silent_clients_delay_no_handshake(node: Listening, authority: Authority) -> None:
    context = client(authority)
    with ExitStack() as held:
        for sent in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"):
            held.enter_context(Scu(node.tls_port, associate=False)).send(sent)
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: echo(node.tls_port, context, "MR1"), range(50))) == {0}
        assert time.monotonic() - started < node.receiver.policy.negotiation_deadline_s, "no one waited for them"


def test_a_handshake_that_does_not_end_is_cut_at_the_deadline(
    listening: Listen, authority: Authority, pair: Pair
) -> None:
    node = listening(listener_tls=ServerTls(server(pair, authority)), negotiation_deadline_s=0.7)
    with structlog.testing.capture_logs() as logs, ExitStack() as held:
        shaken = held.enter_context(Scu(node.tls_port, associate=False, tls=client(authority)))
        silent = [held.enter_context(Scu(node.tls_port, associate=False)) for _ in range(3)]
        silent[0].send(b"\x16\x03\x01")
        assert all(scu.closed_within(PATIENCE_S) for scu in (*silent, shaken))
        until(lambda: len(logs) == 4, "each is logged", within_s=20)
    assert {line["log_level"] for line in logs} == {"info"}, "nobody has to act"


def test_an_association_that_makes_room_or_is_stopped_is_aborted_within_tls(
    listening: Listen, authority: Authority, pair: Pair
) -> None:
    node = listening(listener_tls=ServerTls(server(pair, authority)))
    with Scu(node.tls_port, tls=client(authority)) as scu:
        assert scu.echo() == 0
        node.receiver.stop(within_s=5)
        with pytest.raises(Aborted, match="A-ABORT"):
            scu.pdu()


def test_a_connection_in_its_handshake_leaves_for_the_next(
    listening: Listen, authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediqa_node.network.receiver._NEGOTIATING_PER_ADDRESS", 2)
    node = listening(listener_tls=ServerTls(server(pair, authority)), negotiation_deadline_s=10 * PATIENCE_S)
    with ExitStack() as held:
        first, *_ = [held.enter_context(Scu(node.tls_port, associate=False)) for _ in range(2)]
        first.send(b"\x16\x03\x01")
        shaken = held.enter_context(Scu(node.tls_port, associate=False, tls=client(authority)))
        assert first.closed_within(PATIENCE_S)
        shaken.associate()
        assert shaken.echo() == 0


def test_a_sender_that_breaks_off_within_tls_leaves_nothing(node: Listening, authority: Authority) -> None:
    from support.receiving import CT, command, p_data

    with Scu(node.tls_port, tls=client(authority), calling=b"MR1") as scu:
        data = encode(ct())
        scu.send(p_data(1, command(CT, UID), is_command=True) + p_data(1, data[:100], is_command=False, is_last=False))
        until(node.temporary, "it is on its way")
        socket.socket.setsockopt(scu.socket, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: not node.temporary(), "it is gone")
    assert node.rows() == []


# ── files ────────────────────────────────────────────────────────────────────


def test_a_new_certificate_is_used_while_an_association_stays_open(
    listening: Listen, authority: Authority, tmp_path: Path
) -> None:
    old, now = authority.issue("node", to=tmp_path), [0.0]
    node = listening(listener_tls=ServerTls(server(old, authority), clock=lambda: now[0]))
    with Scu(node.tls_port, tls=client(authority)) as scu:
        first = _presented(scu)
        authority.issue("node", to=tmp_path)
        with Scu(node.tls_port, tls=client(authority)) as soon:
            assert _presented(soon) == first, "not looked at yet"
        now[0] += 5.0
        with Scu(node.tls_port, tls=client(authority)) as later:
            assert _presented(later) != first
        assert scu.store_dataset(ct()) == 0


def test_files_that_do_not_load_leave_the_old_ones_in_use(
    listening: Listen, authority: Authority, tmp_path: Path
) -> None:
    pair, now = authority.issue("node", to=tmp_path), [0.0]
    key = pair.key.read_bytes()
    node = listening(listener_tls=ServerTls(server(pair, authority), clock=lambda: now[0]))
    assert echo(node.tls_port, client(authority), "ANY") == 0
    pair.key.write_bytes(authority.issue("other", to=tmp_path).key.read_bytes())
    now[0] += 5.0

    with structlog.testing.capture_logs() as logs:
        assert echo(node.tls_port, client(authority), "ANY") == 0
    assert "does not match receiver.tls.certificate" in next(
        line["reason"] for line in logs if line["event"] == "TLS files not loaded"
    )
    pair.key.write_bytes(key)
    now[0] += 5.0
    assert echo(node.tls_port, client(authority), "ANY") == 0


def _presented(scu: Scu) -> bytes:
    assert isinstance(scu.socket, ssl.SSLSocket)
    return scu.socket.getpeercert(binary_form=True) or b""


def shaken(authority: Authority, pair: Pair) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Return both ends of a connection after its handshake, ours first."""
    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        shaking = pool.submit(client(authority).wrap_socket, theirs, server_hostname="127.0.0.1")
        secure = accepted(server_context(server(pair)), ours)
        secure.do_handshake()
        return secure, shaking.result(60)


def test_what_tls_has_decrypted_counts_as_arrived(authority: Authority, pair: Pair) -> None:
    ours, sender = shaken(authority, pair)
    with ours, sender:
        stream = PduStream(ours)
        assert not stream.has_data()
        sender.sendall(b"\x04\0\0\0\0\x02ab" + bytes(8000))  # one record, larger than the first buffer
        stream.read(first_byte_within_s=60, deadline_s=60, limit_bytes=100)
        stream._start = stream._end  # all of the buffer is read, and the record is not
        assert ours.pending()
        assert stream.has_data()


def test_a_peer_that_reads_bit_by_bit_holds_nothing_up(authority: Authority, pair: Pair) -> None:
    ours, reader = shaken(authority, pair)

    def read_slowly() -> None:
        with suppress(OSError):
            while reader.recv(16_384):
                time.sleep(0.05)

    with ours, reader, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(read_slowly)
        started = time.monotonic()
        with pytest.raises(PeerGone, match="does not take"):
            PduStream(ours).send(bytes(16 * 1024**2), within_s=0.3)
        took_s = time.monotonic() - started
        ours.shutdown(socket.SHUT_RDWR)
        slow.result(60)
    assert took_s < 10, "and not 0.3 s for each of a thousand records"
