"""The files of TLS that the configuration names: whether they can be used, and for how long.

`config check` and `serve` refuse a file that cannot be used, `status` and `doctor` show it: a running receiver keeps
what it has loaded before.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mediqa_node.config import Settings
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.peer import DicomWeb
from mediqa_node.domain.tls import TlsClient, TlsFile, TlsServer
from mediqa_node.network.tls import client_context, server_context
from mediqa_node.network.web_client import context_of


def check_files(settings: Settings) -> None:
    """Load every file of TLS once.

    Raises:
        ConfigurationError: one of them cannot be used; the message names file, key and reason.
    """
    for section, files in _configured(settings):
        _load(section, files)


def warnings(settings: Settings) -> Iterator[str]:
    """Return what is not good about the files, although they can be used."""
    for section, files in _configured(settings):
        if files.key is not None and files.key.stat().st_mode & 0o077:
            yield f"{section}.key {files.key} can be read by others; `chmod 600 {files.key}`"


def tls_files(settings: Settings) -> list[TlsFile]:
    """Return what expires when, and what cannot be used."""
    found = []
    for section, files in _configured(settings):
        try:
            _load(section, files)
        except ConfigurationError as error:
            found.append(TlsFile(key=section, problem=str(error)))
        for name in ("certificate", "ca", "crl"):
            file = getattr(files, name, None)
            if file is not None and (first := _first_to_expire(file, is_list=name == "crl")) is not None:
                found.append(TlsFile(key=f"{section}.{name}", file=str(file), holds=first[1], expires_at=first[0]))
    return found


def _configured(settings: Settings) -> Iterator[tuple[str, TlsServer | TlsClient | DicomWeb]]:
    """Return every section of TLS with its name."""
    if (server := settings.receiver_tls) is not None:
        yield "receiver.tls", server
    for peer in settings.peers_of_settings():
        if peer.tls is not None:
            yield f"peers.{peer.name}.tls", peer.tls
        if peer.dicomweb is not None:
            yield f"peers.{peer.name}.dicomweb", peer.dicomweb


def _load(section: str, files: TlsServer | TlsClient | DicomWeb) -> None:
    if isinstance(files, DicomWeb):
        context_of(files, section=section)
    elif isinstance(files, TlsServer):
        server_context(files, section=section)
    else:
        client_context(files, section=section)


def _first_to_expire(file: Path, *, is_list: bool) -> tuple[float, str] | None:
    """Return when what expires first in a file does so, and its name; None if that cannot be read."""
    from cryptography import x509  # late: most nodes have no TLS

    found: list[tuple[float, str]] = []
    try:
        content = file.read_bytes()
        if is_list:
            for block in _blocks(content, b"X509 CRL"):
                crl = x509.load_pem_x509_crl(block)
                if crl.next_update_utc is not None:
                    found.append((crl.next_update_utc.timestamp(), _name(crl.issuer)))
        else:
            for certificate in x509.load_pem_x509_certificates(content):
                found.append((certificate.not_valid_after_utc.timestamp(), _name(certificate.subject)))
    except (OSError, ValueError):
        return None  # found by `check_files`
    return min(found, default=None)


def _blocks(content: bytes, kind: bytes) -> Iterator[bytes]:
    end = b"-----END " + kind + b"-----"
    for block in content.split(end)[:-1]:
        yield block[block.rindex(b"-----BEGIN " + kind) :] + end + b"\n"


def _name(name: Any) -> str:
    """Return a distinguished name in one line that cannot be anything else, at most 80 characters."""
    return "".join(c if c.isprintable() else "?" for c in name.rfc4514_string())[:80]
