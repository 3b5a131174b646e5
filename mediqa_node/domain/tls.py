"""TLS as a site configures it, what a certificate proves about a caller, and the state of the files (PS3.15 B.12)."""

import re
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar, TypeVar

_STRICT: dict[str, str] = {"extra": "forbid"}
_Kind = TypeVar("_Kind", "TlsServer", "TlsClient")
_PATHS = ("certificate", "key", "ca", "crl")

DEFAULT_PORT = 2762
"""The port of TLS that PS3.15 B.12 recommends."""

EXPIRES_SOON_S = 30 * 86_400.0
"""How long before the end of a certificate a person is told."""

Proof = frozenset[str] | None
"""What is known of a caller from its connection: None without TLS, else the names of its verified certificate in the
form of `normal`, none without a certificate."""


def normal(name: str) -> str:
    """Return the name of a certificate in one form: `sha256:` of its DER, or `san:` and an alternative name.

    >>> normal("sha256:" + "AB:" * 31 + "CD") == "sha256:" + "ab" * 31 + "cd"
    True
    >>> normal("san:CT3.example.org"), normal("san:2001:DB8::0:1"), normal("san:urn:Device:7")
    ('san:ct3.example.org', 'san:2001:db8::1', 'san:urn:Device:7')

    Raises:
        ValueError: neither of the two.
    """
    kind, _, value = (part.strip() for part in name.partition(":"))
    if kind == "sha256" and re.fullmatch(r"[0-9a-f]{64}", digest := value.replace(":", "").lower()):
        return f"sha256:{digest}"
    if kind != "san" or not value:
        raise ValueError("must be sha256: and 64 hexadecimal digits, or san: and a DNS name, a URI or an IP address")
    try:
        return f"san:{ip_address(value)}"
    except ValueError:
        return f"san:{value if ':' in value else value.lower()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsServer:
    """The TLS port of the receiver. All files are PEM.

    Attributes:
        certificate: of this node, followed by intermediate ones.
        key: its private key, without a passphrase.
        ca: bundle that client certificates are verified against; None: none is asked for.
        crl: revocation lists, one for each authority on the way from a caller to the root, which has one too; None:
            revocation is not checked.
        host: None: that of the node.
        plain: False closes the port without TLS.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    certificate: Path
    key: Path
    ca: Path | None = None
    crl: Path | None = None
    host: str | None = None
    port: int = DEFAULT_PORT
    plain: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError("port must be 0 to 65535")
        if self.crl is not None and self.ca is None:
            raise ValueError("crl needs ca: without it no client certificate is asked for")

    def below(self, folder: Path) -> "TlsServer":
        """Return the same with paths that start from a folder."""
        return _below(self, folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsClient:
    """TLS to a peer. All files are PEM.

    Attributes:
        ca: bundle that the certificate of the peer is verified against.
        certificate: our own, if the peer asks for one.
        key: its private key, without a passphrase.
        check_hostname: the certificate must name `host` of the peer; not looked at if there is a fingerprint.
        fingerprint: `sha256:` of the only certificate that is accepted, signed by anybody if there is no `ca`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    check_hostname: bool = True
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: set both or neither")
        if self.ca is None and self.fingerprint is None:
            raise ValueError("needs ca or fingerprint: else any peer would be believed")
        if self.fingerprint is not None and not normal(self.fingerprint).startswith("sha256:"):
            raise ValueError("fingerprint must be sha256: and 64 hexadecimal digits")

    def below(self, folder: Path) -> "TlsClient":
        """Return the same with paths that start from a folder."""
        return _below(self, folder)


def _below(files: _Kind, folder: Path) -> _Kind:
    found = {name: folder / path for name in _PATHS if (path := getattr(files, name, None)) is not None}
    return replace(files, **found)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFile:
    """The state of a file that TLS needs.

    Attributes:
        key: its key in the configuration, or the section where a file cannot be used.
        holds: what expires first in it, in words.
        expires_at: when, seconds since 1970; None if that is unknown.
        problem: why it cannot be used; "" if it can.
    """

    key: str
    file: str = ""
    holds: str = ""
    expires_at: float | None = None
    problem: str = ""
