"""What pages need of the node: open resources and plain values from the composition root."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Protocol

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.promotion import Weights
from mediqa_node.domain.tls import TlsFile
from mediqa_node.storage.database import Database
from mediqa_node.web.passwords import Passwords
from mediqa_node.web.throttle import Throttle


class Pictures(Protocol):
    """Renders received images and reports, in a process of its own."""

    def render(self, what: str, arguments: Mapping[str, object]) -> bytes:
        """Return the bytes of a picture or document; NotScorable or LookupError where there is none."""
        ...


class ListedCheckpoint(Protocol):
    """A checkpoint that this node can load, and what it is at present, such as current or shadow."""

    @property
    def weights(self) -> Weights:
        """Name and digests."""
        ...

    @property
    def place(self) -> str:
        """Where it is kept."""
        ...

    @property
    def trained(self) -> bool | None:
        """Whether it was trained; None for what is no checkpoint."""
        ...

    @property
    def roles(self) -> list[str]:
        """What it is at present."""
        ...


class RatingImport(Protocol):
    """Imports a table of ratings, as a whole or not at all."""

    def __call__(self, content: bytes, *, by: str, at: float) -> tuple[int | None, tuple[str, ...]]:
        """Return the number of the import, None if nothing was kept, and the problems with rows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WebContext:
    """Open resources and settings of the web process.

    Attributes:
        title: AE title of the node.
        secure: the cookie is sent over https only.
        idle_s: after so long a person signs in again.
        viewer: address of the site's viewer with {StudyInstanceUID} or {SeriesInstanceUID}; None: no link.
        host_id: of this host; None: the node runs on one.
        running: names of the node's processes that run on this host.
        checkpoints: a sentence about the one that scores, and those that this node can load.
        tls_files: the state of the certificates of the configuration.
        exports: folder of exports.
        low_water_bytes: with less free space nothing is received.
        passwords: hashes and checks them.
        attempts: to sign in or enrol, for each address.
        floods: attempts beyond that limit which are put on record.
        import_ratings: takes the ratings of a reading study for training; None: this process cannot.
    """

    database: Database
    pictures: Pictures
    title: str
    software_version: str
    data_dir: Path
    exports: Path
    peers: tuple[Peer, ...] = ()
    time_zone: tzinfo = UTC
    secure: bool = False
    idle_s: float = 1800.0
    viewer: str | None = None
    host_id: str | None = None
    running: Callable[[], list[str]] = field(default=lambda: [])
    checkpoints: Callable[[], tuple[str, Sequence[ListedCheckpoint]]] = field(default=lambda: ("", ()))
    tls_files: Callable[[], Sequence[TlsFile]] = field(default=lambda: ())
    low_water_bytes: int = 0
    import_ratings: RatingImport | None = None
    clock: Callable[[], float] = time.time
    passwords: Passwords = field(default_factory=Passwords)
    attempts: Throttle = field(default_factory=lambda: Throttle(at_most=10, per_s=60.0))
    floods: Throttle = field(default_factory=lambda: Throttle(at_most=1, per_s=60.0))
