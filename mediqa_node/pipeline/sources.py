"""Whose corrections and reject notes count: those of the images' own source, or of an authority of the site.

A source is a calling AE title and address under an `allowed` rule with `source: true`. An AE title is only a word that
a caller states: one that was seen from two addresses proves nothing any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from mediqa_node.domain.identity import EXACT, IdentityRules, differences
from mediqa_node.domain.policy import ReceiverPolicy
from mediqa_node.storage import copies, rejections

if TYPE_CHECKING:
    from mediqa_node.pipeline.node import NodeContext
    from mediqa_node.storage.database import Connection
    from mediqa_node.storage.index import InstanceRow
    from mediqa_node.storage.rejections import Rejection

_VISIT = {"accession number"}


def rules_of(node: NodeContext, calling_ae_title: str) -> IdentityRules:
    """Return how identifiers that this caller writes are compared with those of the images."""
    peer = node.peer_of(calling_ae_title)
    return peer.identity if peer is not None else EXACT


class Sources:
    """Judges senders, for one transaction."""

    def __init__(self, node: NodeContext, connection: Connection) -> None:
        self._node = node
        self._connection = connection
        self._kept: dict[str, dict[int, float]] = {}

    def is_authority(self, calling_ae_title: str) -> bool:
        """Whether corrections and reject notes of this caller always count."""
        peer = self._node.peer_of(calling_ae_title)
        return peer is not None and peer.authority

    def is_source(self, calling_ae_title: str, address: str) -> bool:
        """Whether this caller may correct and reject the images that it has sent itself."""
        if not address:
            return False
        return self._node.receiver.is_source(calling_ae_title, address) and calling_ae_title not in self._ambiguous

    def may_change(self, image: InstanceRow, calling_ae_title: str, address: str) -> bool:
        """Whether what this caller says about an image counts."""
        if self.is_authority(calling_ae_title):
            return True
        if not self.is_source(calling_ae_title, address):
            return False
        sender = (calling_ae_title, address)
        if sender == (image.calling_ae_title, image.peer_address):
            return True
        first = copies.first_form(self._connection, image)  # an authority has described it otherwise: its source stays
        return first is not None and sender == (first.calling_ae_title, first.peer_address)

    def counts(self, note: Rejection, image: InstanceRow) -> bool:
        """Whether a reject note counts for an image that it names: of the same patient and study, from who may.

        Not if somebody has decided for this copy since.
        """
        if note.study_instance_uid != image.study_instance_uid:
            return False
        if note.identity and image.identity:
            rules = rules_of(self._node, note.calling_ae_title)
            if set(differences(note.identity, image.identity, rules)) - _VISIT:
                return False
        may = self.may_change(image, note.calling_ae_title, note.peer_address)
        return may and not self._was_overruled(note, image)

    def _was_overruled(self, note: Rejection, image: InstanceRow) -> bool:
        """Whether a person has decided for this copy of an image since its note was sent."""
        uid = image.series_instance_uid
        if uid not in self._kept:
            self._kept[uid] = rejections.kept_by_persons(self._connection, uid)
        decided_at = self._kept[uid].get(image.id)
        return decided_at is not None and decided_at > rejections.sent_at(self._connection, note)

    @cached_property
    def _ambiguous(self) -> Mapping[str, Sequence[str]]:
        return ambiguous(self._node.receiver, self._connection)


def ambiguous(receiver: ReceiverPolicy, connection: Connection) -> Mapping[str, Sequence[str]]:
    """Return the AE titles of sources that were seen from several addresses, and these addresses, sorted.

    Addresses that no rule admits any more do not count: a narrower rule ends the ambiguity.
    """
    titles = {rule.ae_title for rule in receiver.allowed if rule.source}
    seen = copies.addresses_of(connection, titles) if titles else {}
    admitted = {
        title: sorted(address for address in addresses if receiver.rules_of(title, address))
        for title, addresses in seen.items()
    }
    return {title: addresses for title, addresses in sorted(admitted.items()) if len(addresses) > 1}
