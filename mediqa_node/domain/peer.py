"""The systems that are configured as peers: DICOM application entities and DICOMweb servers."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from mediqa_node.domain.identity import EXACT, IdentityRules
from mediqa_node.domain.tls import TlsClient


def is_ae_title(value: str) -> bool:
    """Return whether a title has 1 to 16 printable ASCII characters and no backslash (PS3.5 table 6.2-1)."""
    return 0 < len(value) <= 16 and value.isascii() and value.isprintable() and "\\" not in value


def check_ae_title(value: str) -> str:
    """Return a title of the configuration.

    Raises:
        ValueError: no caller or peer can have it; blanks around a title have no meaning.
    """
    if not is_ae_title(value) or value != value.strip():
        raise ValueError("must be 1 to 16 ASCII characters, no backslash, no blanks around them")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardStyle:
    """How received instances are forwarded to a peer.

    Attributes:
        calling_ae: the AE title that calls: this node's `own`, or the `original` one of the sender, for archives that
            tell their sources by it.
        decompress: where the peer does not accept the transfer syntax of an instance, send it uncompressed under the
            same UID, if its compression is lossless; otherwise it is parked.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    calling_ae: Literal["own", "original"] = "own"
    decompress: bool = False


_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomWeb:
    """Where a peer serves DICOMweb (PS3.18), and how the node and the peer prove who they are.

    Attributes:
        url: the base that the paths of PS3.18 follow, such as https://archive/dicom-web. Nothing else is contacted.
        token_file: holds a bearer token (RFC 6750), read for each request, since tokens are replaced; None: no token.
        certificate: PEM file of this node's certificate, for servers that ask for one.
        key: PEM file of its private key; None: in the certificate's file.
        ca: PEM file of the authorities that the peer's certificate is checked against; None: those of the system.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    url: str
    token_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    def __post_init__(self) -> None:
        where = urlsplit(self.url)
        if where.scheme not in ("https", "http") or not where.hostname or _UNPRINTABLE.search(self.url):
            raise ValueError("url must be an address such as https://archive/dicom-web")
        if where.username is not None or where.query or where.fragment:
            raise ValueError("url must have no user name, query or fragment; put a token into token_file")
        where.port  # noqa: B018 - raises ValueError if it is no port
        if self.token_file is not None and where.scheme == "http" and where.hostname not in _LOOPBACK:
            raise ValueError("url must begin with https:// where token_file is set, or the network reads the token")
        if self.key is not None and self.certificate is None:
            raise ValueError("key needs certificate")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are named."""
        return tuple(file for file in (self.token_file, self.certificate, self.key, self.ca) if file is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A configured peer. Nothing is ever sent anywhere else.

    Attributes:
        name: the key in the configuration.
        ae_title: at most 16 characters (PS3.8); "" for a peer that speaks DICOMweb.
        host: "" for a peer that speaks DICOMweb.
        port: 0 for a peer that speaks DICOMweb.
        dicomweb: how it is reached instead of by associations; None: it is an application entity.
        sr_sop_class: `auto`, `comprehensive3d`, `comprehensive` or `enhanced`.
        authority: a corrected copy from this peer replaces the current one, and its reject notes count.
        retraction: how a report is taken back from it: by a `void` report, or by a `note` that rejects our objects.
        commitment: it is asked to commit to keep each report (PS3.4 annex J); a delivery is confirmed once it has.
        identity: how its identifiers are compared with those of the images.
        forward: how received instances are forwarded to it.
        tls: how it is connected to by TLS; None: without.
    """

    name: str
    ae_title: str = ""
    host: str = ""
    port: int = 0
    dicomweb: DicomWeb | None = None
    sr_sop_class: str = "auto"
    authority: bool = False
    retraction: Literal["void", "note"] = "void"
    commitment: bool = False
    identity: IdentityRules = EXACT
    forward: ForwardStyle = ForwardStyle()
    tls: TlsClient | None = None

    @property
    def where(self) -> str:
        """Its address, for people.

        >>> Peer(name="PACS", ae_title="PEERPACS", host="pacs", port=104).where
        'PEERPACS at pacs:104'
        """
        return self.dicomweb.url if self.dicomweb is not None else f"{self.ae_title} at {self.host}:{self.port}"
