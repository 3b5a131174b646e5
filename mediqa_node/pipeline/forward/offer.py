"""What a sender is offered whose images are forwarded: nothing that the destination would refuse.

A scanner that is refused a class or a syntax by the archive falls back to another one. This node stands in the way, so
it has to refuse the same, or it would hold images that it can never pass on.
"""

import threading
import time
from collections.abc import Mapping, Sequence

import structlog

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.pipeline.forward.decompress import EXPLICIT_LITTLE, LOSSLESS
from mediqa_node.pipeline.forward.plan import ForwardPlan
from mediqa_node.storage import peer_contexts
from mediqa_node.storage.database import Database

log = structlog.get_logger("receiver")

_READ_EVERY_S = 5.0

Contexts = Mapping[str, Sequence[str]]
"""Transfer syntaxes by abstract syntax, the preferred first."""


class Offer:
    """The presentation contexts that a caller is offered.

    Args:
        contexts: what this node supports.
        always: abstract syntaxes that concern this node alone, such as Verification.
    """

    def __init__(self, database: Database, plan: ForwardPlan, contexts: Contexts, always: Sequence[str]) -> None:
        self._database, self._plan = database, plan
        self._contexts, self._always = contexts, frozenset(always)
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._accepted: dict[str, dict[str, list[str]]] = {}
        self._offers: dict[frozenset[str], Contexts] = {}

    def to(self, calling_ae_title: str, called_ae_title: str) -> Contexts:
        """Return what this caller is offered; everything while its destinations were never asked."""
        names = self._plan.may_go_to(calling_ae_title=calling_ae_title, called_ae_title=called_ae_title)
        if not names:
            return self._contexts
        with self._lock:
            self._refresh()
            if names not in self._offers:
                self._offers[names] = self._common(names)
            return self._offers[names]

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._read_at < _READ_EVERY_S:
            return
        self._read_at = now
        try:
            with self._database.read() as connection:
                accepted = peer_contexts.accepted(connection)
        except StorageFailed as error:
            log.warning("accepted contexts not read", reason=str(error), hourly_for="contexts")
            return
        if accepted != self._accepted:
            self._accepted, self._offers = accepted, {}

    def _common(self, names: frozenset[str]) -> Contexts:
        known = [(name, self._accepted[name]) for name in names if name in self._accepted]
        offered: dict[str, Sequence[str]] = {}
        for abstract, ours in self._contexts.items():
            theirs = [_taken(accepted.get(abstract, ()), name in self._plan.decompressing) for name, accepted in known]
            syntaxes = tuple(syntax for syntax in ours if all(syntax in some for some in theirs))
            if abstract in self._always:
                offered[abstract] = ours
            elif syntaxes:
                offered[abstract] = syntaxes
        return offered


def _taken(syntaxes: Sequence[str], decompressed: bool) -> frozenset[str]:
    """Return the syntaxes in which a destination gets images of a class, as they are or uncompressed."""
    more = LOSSLESS if decompressed and EXPLICIT_LITTLE in syntaxes else frozenset[str]()
    return frozenset(syntaxes) | more
