"""Where a received instance is forwarded to: decided in the receiver, before the instance is committed.

Loops end here. What comes from a destination of any forward rule is forwarded nowhere, because an archive that routes
its copies back may have changed them; nor is what somebody has moved, or what this node has pulled.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo

from mediqa_node.dicom.matching import facts_of_elements, tag_of
from mediqa_node.dicom.scan import ScannedHeader
from mediqa_node.domain.match import RuleList
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.rules import ForwardRule

_EXPLICIT_BIG = "1.2.840.10008.1.2.2"


class ForwardPlan:
    """The forward rules of the site, ready to be asked about each instance.

    Attributes:
        further: tags whose values the rules look at.
        decompressing: peers that are sent uncompressed what they do not accept compressed.
    """

    def __init__(
        self,
        rules: Sequence[ForwardRule],
        peers: Sequence[Peer],
        *,
        time_zone: tzinfo = UTC,
        clock: Callable[[tzinfo], datetime] = datetime.now,
    ) -> None:
        self._rules = RuleList(rules)
        self._peers = {peer.ae_title: peer.name for peer in peers}
        self._time_zone, self._clock = time_zone, clock
        self.decompressing = frozenset(peer.name for peer in peers if peer.forward.decompress)
        self.all_destinations = frozenset(name for rule in rules for name in rule.to)
        self.further = frozenset(tag_of(keyword) for keyword in self._rules.keywords)

    def destinations(
        self, header: ScannedHeader, transfer_syntax_uid: str, *, calling_ae_title: str, called_ae_title: str
    ) -> tuple[str, ...]:
        """Return the names of the peers that an instance is forwarded to, each once."""
        if not self._rules.rules:
            return ()
        peer = self._peers.get(calling_ae_title)
        if peer in self.all_destinations:
            return ()
        facts = facts_of_elements(
            header.elements,
            self._rules.keywords,
            is_little_endian=transfer_syntax_uid != _EXPLICIT_BIG,
            senders=(calling_ae_title, *((peer,) if peer else ())),
            called=called_ae_title,
            today=self._clock(self._time_zone).date(),
        )
        return tuple(dict.fromkeys(name for rule in self._rules.all(facts) for name in rule.to))

    def may_go_to(self, *, calling_ae_title: str, called_ae_title: str) -> frozenset[str]:
        """Return the destinations to which everything goes that this caller sends.

        A rule with a condition on the object is left out: another modality may be meant for another destination.
        """
        peer = self._peers.get(calling_ae_title)
        if peer in self.all_destinations:
            return frozenset()
        senders = (calling_ae_title, *((peer,) if peer else ()))
        return frozenset(
            name
            for rule in self._rules.rules
            if not rule.keywords and rule.is_for(senders=senders, called=called_ae_title)
            for name in rule.to
        )
