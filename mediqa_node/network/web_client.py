"""One HTTP request to a configured server, within bounds that the server cannot move.

The standard library's client, because what matters here is what it does not do: it follows no redirect, obeys no proxy
of the environment, decompresses nothing, and is given a connection that was opened to the configured address. A
timer cuts that connection, so that a server which sends a byte a second ends with the rest.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from mediqa_node.domain.errors import ConfigurationError, PeerRefused, PeerUnavailable
from mediqa_node.domain.implementation import IMPLEMENTATION_VERSION_NAME
from mediqa_node.domain.peer import DicomWeb, Peer

MAX_ANSWER_BYTES = 4 * 1024**2
"""Of one answer: a query for one study, or what became of one object."""

_MAX_TOKEN_BYTES = 16_384
_CONNECT_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (names in lower case) and body of an HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class WebClient:
    """Sends requests to the base URL of one peer, each over a connection of its own."""

    def __init__(self, peer: Peer, access: DicomWeb, timeout_s: float) -> None:
        self._peer = peer
        self._access = access
        self._timeout_s = timeout_s
        where = urlsplit(access.url)
        self._is_tls = where.scheme == "https"
        self._host = where.hostname or ""
        self._port = where.port or (443 if self._is_tls else 80)
        self._netloc = where.netloc
        self._base = where.path.rstrip("/")

    def request(
        self, method: str, path: str, *, accept: str, content_type: str | None = None, body: bytes | None = None
    ) -> Answer:
        """Send one request and return the whole answer.

        Args:
            path: below the base URL, with its query, percent-encoded.

        Raises:
            PeerUnavailable: not reachable, no answer in time, or none that is HTTP within the limits.
            PeerRefused: the token or a certificate cannot be read, or the server's certificate is not trusted.
        """
        headers = {"Host": self._netloc, "Accept": accept, "User-Agent": IMPLEMENTATION_VERSION_NAME}
        headers |= {"Connection": "close"} | self._authorization()
        if content_type is not None:
            headers["Content-Type"] = content_type
        try:
            with self._connected() as connection:
                with suppress(BrokenPipeError, ConnectionResetError):  # it may refuse before it has read everything
                    connection.request(method, self._base + path, body=body, headers=headers)
                response = connection.getresponse()
                content = response.read(MAX_ANSWER_BYTES + 1)
                if len(content) <= MAX_ANSWER_BYTES and response.length:  # what is left of Content-Length
                    raise http.client.IncompleteRead(content, response.length)
                found = {name.lower(): response.headers.get_all(name) for name in response.headers}
        except ssl.SSLCertVerificationError as error:
            raise PeerRefused(f"{self._where}: its certificate is not trusted: {error.verify_message}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise PeerUnavailable(f"{self._where} did not answer {method}: {reason}") from error
        if len(content) > MAX_ANSWER_BYTES:
            raise PeerUnavailable(f"{self._where} answered {method} with more than {MAX_ANSWER_BYTES:,} bytes")
        return Answer(response.status, {name: ", ".join(values or ()) for name, values in found.items()}, content)

    @property
    def _where(self) -> str:
        return f"{self._peer.name} ({self._peer.where})"

    def _authorization(self) -> dict[str, str]:
        """Return the header with the token, which appears in no message: http.client quotes a header it cannot send."""
        file = self._access.token_file
        if file is None:
            return {}
        try:
            with file.open("rb") as source:
                token = source.read(_MAX_TOKEN_BYTES + 1).strip()
        except OSError as error:
            raise PeerRefused(f"{self._peer.name}: its token_file {file} cannot be read: {error.strerror}") from error
        if not token or len(token) > _MAX_TOKEN_BYTES or any(not 0x21 <= byte <= 0x7E for byte in token):
            raise PeerRefused(f"{self._peer.name}: its token_file {file} must hold one token and nothing else")
        return {"Authorization": f"Bearer {token.decode('ascii')}"}

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        """Open a connection that is cut when the time of the request is up."""
        context = self._context() if self._is_tls else None
        raw = socket.create_connection((self._host, self._port), timeout=min(self._timeout_s, _CONNECT_WITHIN_S))
        with closing(raw):
            raw.settimeout(self._timeout_s)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = raw
            if context is not None:
                sock = context.wrap_socket(raw, server_hostname=self._host, do_handshake_on_connect=False)
            timer = threading.Timer(self._timeout_s, _cut, [sock])
            timer.daemon = True
            timer.start()
            connection = http.client.HTTPConnection(self._host, self._port)
            try:
                if isinstance(sock, ssl.SSLSocket):
                    sock.do_handshake()
                connection.sock = sock  # it opens none itself
                yield connection
            finally:
                timer.cancel()
                connection.close()
                sock.close()

    def _context(self) -> ssl.SSLContext:
        try:
            return context_of(self._access, section=f"{self._peer.name}.dicomweb")
        except ConfigurationError as error:
            raise PeerRefused(str(error)) from error


def context_of(access: DicomWeb, *, section: str) -> ssl.SSLContext:
    """Return the context of a connection.

    Raises:
        ConfigurationError: a file cannot be used; the message names the section and the reason.
    """
    try:
        context = ssl.create_default_context(cafile=access.ca)
        if access.certificate is not None:
            context.load_cert_chain(access.certificate, access.key, password=_no_password)
    except OSError as error:
        text = f"{section}: its `ca`, `certificate` or `key` cannot be used: {error.strerror or error}"
        raise ConfigurationError(text) from error
    except ValueError as error:
        raise ConfigurationError(f"{section}: its `key` needs a password, which is not supported") from error
    return context


def _cut(sock: socket.socket) -> None:
    """End a connection under a thread that waits for it; a TLS one without the state that its thread is using."""
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _no_password() -> str:
    raise ValueError("encrypted key")  # OpenSSL would ask on the terminal
