"""Whose corrections count: the source of the images, or an authority of the site.

A source is a calling AE title and address under an `allowed` rule with `source: true`. An AE title is only a word that
a caller states: one that was seen from two addresses proves nothing any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mediqa_node.domain.policy import AllowRule, ReceiverPolicy
from mediqa_node.storage import copies

if TYPE_CHECKING:
    from mediqa_node.pipeline.node import NodeContext
    from mediqa_node.storage.database import Connection


def is_authority(node: NodeContext, calling_ae_title: str) -> bool:
    """Whether corrections and reject notes of this caller always count."""
    peer = node.peer_of(calling_ae_title)
    return peer is not None and peer.authority


def is_source(node: NodeContext, connection: Connection, calling_ae_title: str, address: str) -> bool:
    """Whether corrections and reject notes of this caller count for the images that it has sent itself."""
    if not address:
        return False
    rule = node.receiver.rule_for(calling_ae_title, address)
    return rule is not None and rule.source and calling_ae_title not in ambiguous(node.receiver, connection)


def ambiguous(receiver: ReceiverPolicy, connection: Connection) -> Mapping[str, Sequence[str]]:
    """Return the AE titles of sources that were seen from several addresses, and these addresses, sorted.

    Addresses that no rule admits any more do not count: a narrower rule ends the ambiguity.
    """
    titles = {rule.ae_title for rule in receiver.allowed if rule.source}
    seen = copies.addresses_of(connection, titles) if titles else {}
    admitted = {
        title: sorted(address for address in addresses if _admits(receiver.allowed, title, address))
        for title, addresses in seen.items()
    }
    return {title: addresses for title, addresses in sorted(admitted.items()) if len(addresses) > 1}


def _admits(rules: Sequence[AllowRule], title: str, address: str) -> bool:
    return any(rule.matches(title, address) for rule in rules)
