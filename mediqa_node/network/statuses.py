"""What a peer's status for an object means; the same numbers by C-STORE (PS3.4 table B.2-1) and STOW-RS."""

from mediqa_node.domain.errors import OutOfResources, PeerRefused
from mediqa_node.network.dimse import DUPLICATE_INSTANCE

WARNINGS = frozenset({0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000)})
"""Statuses of class Warning (PS3.7 annex C, PS3.4 table B.2-1): the object is in the archive."""

STORED = WARNINGS | {0x0000}


def check_stored(status: int, peer_name: str, *, was_sent: bool) -> int:
    """Return the status if it says that the peer has the object.

    Args:
        was_sent: these bytes were sent before, and no answer came: the peer may call them a duplicate.

    Raises:
        OutOfResources: it has not (0xA7xx), and may take it later.
        PeerRefused: it has not.
    """
    if status in STORED or (status == DUPLICATE_INSTANCE and was_sent):
        return status
    if 0xA700 <= status <= 0xA7FF:
        raise OutOfResources(f"{peer_name} is out of resources (status {status:#06x})")
    raise PeerRefused(f"{peer_name} refused the object (status {status:#06x})", status=status)
