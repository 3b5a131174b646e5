"""The DICOM application entities that are configured as peers."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from mediqa_node.domain.identity import EXACT, IdentityRules
from mediqa_node.domain.tls import TlsClient


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A configured DICOM application entity. Nothing is ever sent anywhere else.

    Attributes:
        name: the key in the configuration.
        ae_title: at most 16 characters (PS3.8).
        sr_sop_class: `auto`, `comprehensive3d`, `comprehensive` or `enhanced`.
        authority: a corrected copy from this peer replaces the current one, and its reject notes count.
        retraction: how a report is taken back from it: by a `void` report, or by a `note` that rejects our objects.
        commitment: it is asked to commit to keep each report (PS3.4 annex J); a delivery is confirmed once it has.
        identity: how its identifiers are compared with those of the images.
        forward: how received instances are forwarded to it.
        tls: how it is connected to by TLS; None: without.
    """

    name: str
    ae_title: str
    host: str
    port: int
    sr_sop_class: str = "auto"
    authority: bool = False
    retraction: Literal["void", "note"] = "void"
    commitment: bool = False
    identity: IdentityRules = EXACT
    forward: ForwardStyle = ForwardStyle()
    tls: TlsClient | None = None
