"""TLS as PS3.15 B.12 (BCP 195: RFC 8996, RFC 9325) asks for it: contexts, and sockets that can be shut down.

TLS 1.2 with ephemeral keys and authenticated encryption, or TLS 1.3. There are no tickets. Python cannot switch off the
session cache of TLS 1.2: a listener has a new context, and with it an empty cache, every `LOOK_EVERY_S`, so that a
session outlives no change of its files; whether the certificate still holds is looked at again.
"""

import contextlib
import hashlib
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import structlog

from mediqa_node.domain.errors import ConfigurationError, PeerUnavailable
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.tls import EXPIRES_SOON_S, Proof, TlsClient, TlsServer, normal

log = structlog.get_logger("tls")

CIPHER_SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
)  # fmt: skip
"""Of TLS 1.2, in OpenSSL's names: ephemeral keys and authenticated encryption only."""

TLS_1_3_SUITES = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
"""OpenSSL's own choice, which Python cannot change."""

LOOK_EVERY_S = 5.0
"""How often the files of a listener are loaded, at most: before a handshake. It takes 1 ms, with a bundle of all public
authorities 18 ms: too much for each connection."""

_ALTERNATIVE = {"DNS", "URI", "IP Address"}


class TlsSocket(ssl.SSLSocket):
    """A TLS connection that stays one when it is shut down.

    `SSLSocket.shutdown` drops the TLS layer first: a thread that reads would then take records for PDUs, and what it
    still sends would go out in plain text.
    """

    def shutdown(self, how: int) -> None:
        """Shut down the connection below the TLS layer, from any thread."""
        socket.socket.shutdown(self, how)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Write all of the data within the timeout, which `SSLSocket` would allow for each record anew."""
        limit_s = self.gettimeout()
        deadline = time.monotonic() + (math.inf if limit_s is None else limit_s)
        rest = memoryview(data).cast("B")
        try:
            while rest:
                if limit_s is not None:
                    self.settimeout(_positive(deadline - time.monotonic()))
                rest = rest[self.send(rest, flags) :]
        finally:
            self.settimeout(limit_s)

    def announce_end(self) -> None:
        """Send close_notify without waiting for that of the peer; only from the thread that reads and writes."""
        self.settimeout(0.0)
        with contextlib.suppress(OSError, ValueError):
            self.unwrap()

    def recv_below(self, buffer: memoryview) -> int:
        """Take in what arrives without decrypting it."""
        return socket.socket.recv_into(self, buffer)


def _positive(remaining_s: float) -> float:
    if remaining_s <= 0:
        raise TimeoutError("the peer does not take all of it in time")
    return remaining_s


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(CIPHER_SUITES))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF  # the upper layer has lengths and a release of its own
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what is in `ca` is trusted, intermediate ones too
    context.sslsocket_class = TlsSocket


# ── files ────────────────────────────────────────────────────────────────────


def server_context(tls: TlsServer, *, section: str = "receiver.tls") -> ssl.SSLContext:
    """Return the context of a listener.

    Raises:
        ConfigurationError: a file cannot be used; the message names key, file and reason.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    _load_pair(context, tls.certificate, tls.key, section)
    if tls.ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        _load_bundle(context, tls.ca, f"{section}.ca", b"CERTIFICATE")
    if tls.crl is not None:
        _load_bundle(context, tls.crl, f"{section}.crl", b"X509 CRL")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN  # an authority may be revoked as well
    return context


def client_context(tls: TlsClient, *, section: str) -> "ClientContext":
    """Return the context of one connection to a peer.

    Raises:
        ConfigurationError: a file cannot be used; the message names key, file and reason.
    """
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.fingerprint = normal(tls.fingerprint) if tls.fingerprint else ""
    context.check_hostname = tls.check_hostname and not tls.fingerprint
    context.verify_mode = ssl.CERT_REQUIRED if tls.ca else ssl.CERT_NONE
    if tls.ca is not None:
        _load_bundle(context, tls.ca, f"{section}.ca", b"CERTIFICATE")
    if tls.certificate is not None and tls.key is not None:
        _load_pair(context, tls.certificate, tls.key, section)
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path, section: str) -> None:
    _read(certificate, f"{section}.certificate", b"CERTIFICATE")
    if b"ENCRYPTED" in _read(key, f"{section}.key", b"PRIVATE KEY"):
        raise ConfigurationError(f"{section}.key {key}: has a passphrase; `openssl pkey -in OLD -out NEW` removes it")
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(f"{section}.key {key}: does not match {section}.certificate") from None
        raise ConfigurationError(f"{section}.certificate {certificate} with {key}: {words_of(error)}") from None


def _load_bundle(context: ssl.SSLContext, file: Path, name: str, what: bytes) -> None:
    content = _read(file, name, what)
    if what != b"CERTIFICATE" and b"CERTIFICATE-----" in content:  # OpenSSL would trust it
        raise ConfigurationError(f"{name} {file}: has certificates; they belong in `ca`")
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise ConfigurationError(f"{name} {file}: {words_of(error)}") from None


def _read(file: Path, name: str, what: bytes) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name} {file}: cannot be read: {error.strerror}") from None
    if what + b"-----" not in content:
        raise ConfigurationError(f"{name} {file}: has no PEM block {what.decode()}")
    return content


def is_refusal(error: OSError) -> bool:
    """Whether one side does not accept the other, rather than that the connection ended or was silent."""
    return isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def words_of(error: OSError) -> str:
    """Return what went wrong in TLS, without the places in OpenSSL.

    >>> words_of(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"))
    'wrong version number'
    """
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_message:
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "the peer closed the connection"
    if isinstance(error, ssl.SSLError):
        text = str(error.args[-1])
        words = text.partition("] ")[2].rpartition(" (")[0] or text
        return "a PEM block in it is damaged or cut off" if words == "PEM lib" else words
    return error.strerror or str(error)


# ── the listener ─────────────────────────────────────────────────────────────


class ServerTls:
    """The context of a listener, made anew every few seconds with handshakes; connections keep the one they began with.

    Files that cannot be used leave the last good context in use.
    """

    def __init__(self, tls: TlsServer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tls = tls
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._seen: object = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext | None:
        """Return the context for a handshake that begins now; None if there never was a good one."""
        with self._lock:
            now = self._clock()
            if self._looked_at is None or now - self._looked_at >= LOOK_EVERY_S:
                self._looked_at = now
                self._look()
            return self._context

    def _look(self) -> None:
        found = [_state(file) for file in (self._tls.certificate, self._tls.key, self._tls.ca, self._tls.crl)]
        try:
            self._context = server_context(self._tls)
        except ConfigurationError as error:  # tried again: one file of a pair may follow the other
            log.error("TLS files not loaded", reason=str(error), hourly_for="tls", keeps_old=self._context is not None)
        else:
            if self._seen not in (None, found):
                log.info("TLS files loaded again")
            self._seen = found


def _state(file: Path | None) -> object:
    with contextlib.suppress(OSError):
        if file is not None:
            state = file.stat()
            return state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino
    return None


def accepted(context: ssl.SSLContext, connection: socket.socket) -> ssl.SSLSocket:
    """Return the TLS layer of an accepted connection, before its handshake."""
    return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)


def shake_hands(connection: socket.socket) -> Proof:
    """Shake hands within the timeout of the connection; return what it shows of the caller.

    Raises:
        OSError: no TLS, none of ours, or a certificate that is not accepted.
    """
    if not isinstance(connection, ssl.SSLSocket):
        return None
    connection.do_handshake()
    return _proof_of(connection)


def _proof_of(connection: ssl.SSLSocket) -> Proof:
    """Return the names of the certificate that a caller has presented, which was verified; none without one."""
    der = connection.getpeercert(binary_form=True)
    if der is None:
        return frozenset()
    found = cast(dict[str, Any], connection.getpeercert() or {})
    ends = ssl.cert_time_to_seconds(found["notAfter"])
    if ends < time.time():  # of a session that was resumed, or OpenSSL would not have accepted it
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the certificate has expired since this session began")
    if ends - time.time() < EXPIRES_SOON_S:
        name = fingerprint(der)
        log.warning("certificate of a caller expires soon", certificate=name, on=found["notAfter"], hourly_for=name)
    names = [value for kind, value in found.get("subjectAltName", ()) if kind in _ALTERNATIVE and value.strip()]
    return frozenset({fingerprint(der), *(normal(f"san:{name}") for name in names)})


def fingerprint(der: bytes) -> str:
    """Return the name of a certificate by its DER bytes."""
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


# ── to a peer ────────────────────────────────────────────────────────────────


class ClientContext(ssl.SSLContext):
    """The context of one connection to a peer.

    Attributes:
        fingerprint: of the only certificate that is accepted; "" if the authorities decide.
        failure: what ended the connection, for pynetdicom keeps it to itself.
    """

    fingerprint: str = ""
    failure: OSError | None = None

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """Return the TLS connection; over a connected socket, its handshake is done and the peer is known."""
        wrapped = cast("_PeerSocket", super().wrap_socket(*arguments, **options))
        if wrapped.version() is not None:
            self.check(wrapped)
        return wrapped

    def check(self, connection: ssl.SSLSocket) -> None:
        """Compare the certificate of the peer with the fingerprint.

        Raises:
            OSError: it is another one.
        """
        found = fingerprint(connection.getpeercert(binary_form=True) or b"")
        if self.fingerprint and found != self.fingerprint:
            connection.close()
            raise OSError(f"its certificate is {found}, not that of `fingerprint`")


class _PeerSocket(TlsSocket):
    """A connection that pynetdicom opens: it checks the peer before anything is sent."""

    def connect(self, address: Any) -> None:
        context = cast(ClientContext, self.context)
        try:
            super().connect(address)
            context.check(self)
        except OSError as error:
            context.failure = error
            raise


def context_for(peer: Peer) -> ClientContext | None:
    """Return the context of one connection to a peer; None without TLS.

    Raises:
        PeerUnavailable: a file of ours cannot be used.
    """
    if peer.tls is None:
        return None
    try:
        context = client_context(peer.tls, section=f"peers.{peer.name}.tls")
    except ConfigurationError as error:
        raise PeerUnavailable(f"{peer.name}: no TLS: {error}") from error
    context.sslsocket_class = _PeerSocket
    return context


def open_connection(peer: Peer, timeout_s: float) -> socket.socket:
    """Return a connection to a peer, by TLS where it is configured, after its certificate was accepted.

    Args:
        timeout_s: for each address of the host, and for TLS with the one that answers; then the timeout of the socket.

    Raises:
        PeerUnavailable: no address, no connection, or no TLS with this peer.
    """
    context = context_for(peer)
    where = f"{peer.name} ({peer.host}:{peer.port})"
    try:
        connection = socket.create_connection((peer.host, peer.port), timeout_s)
    except (OSError, UnicodeError) as error:
        raise PeerUnavailable(f"{where}: {getattr(error, 'strerror', None) or error}") from error
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            connection = context.wrap_socket(connection, server_hostname=peer.host)
    except (OSError, ValueError) as error:
        connection.close()
        reason = words_of(error) if isinstance(error, OSError) else str(error)
        raise PeerUnavailable(f"{where}: no TLS: {reason}") from error
    return connection
