"""The places for associations: who gets one, and who has to leave for it.

Some scanners open associations and never use them, or crash and leave them open. At the limit, the one that has been
silent the longest and never sent anything is ended, so that a caller who wants to send gets in. Two places beyond the
limit are kept for callers who only verify: C-ECHO is how people look whether the node is alive.
"""

import threading
import time

from mediqa_node.domain.policy import ReceiverPolicy
from mediqa_node.network import negotiation
from mediqa_node.network.association import Association
from mediqa_node.network.negotiation import Refusal

ECHO_PLACES = 2
GRACE_S = 1.0
"""An association may be silent so long before it is ended for another: its sender may just be about to begin."""


class Places:
    """The open associations, never more than the policy and its rules allow."""

    def __init__(self, policy: ReceiverPolicy) -> None:
        self._policy = policy
        self._changed = threading.Condition()
        self._taken: dict[str, Association] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._taken)

    def all(self) -> list[Association]:
        """Return the open associations."""
        with self._changed:
            return list(self._taken.values())

    def close(self) -> None:
        """Give no place from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, association: Association, *, within_s: float) -> Refusal | None:
        """Give an association a place, or return why it gets none.

        Args:
            within_s: how long it may wait until a silent association has used up its grace.
        """
        deadline = time.monotonic() + within_s
        with self._changed:
            while not self._closed and not self._fits(association):
                if not self._wait_or_end_one(association, deadline):
                    return negotiation.LOCAL_LIMIT_EXCEEDED
            if self._closed:
                return negotiation.TEMPORARY_CONGESTION
            association.accepted_at = time.monotonic()
            self._taken[association.caller.association_id] = association
        return None

    def leave(self, association: Association) -> None:
        """Free the place of an association; without one, nothing happens."""
        with self._changed:
            self._taken.pop(association.caller.association_id, None)
            self._changed.notify_all()

    def _fits(self, association: Association) -> bool:
        association.is_beyond_limit = False
        regular = [other for other in self._taken.values() if not other.is_beyond_limit]
        if len(regular) < self._policy.max_associations and not self._at_cap(association):
            return True
        association.is_beyond_limit = association.only_verifies
        return association.only_verifies and len(self._taken) - len(regular) < ECHO_PLACES

    def _at_cap(self, association: Association) -> bool:
        caller, rule = association.caller, association.rule
        callers = [other.caller for other in self._taken.values()]
        titles = sum(other.calling_ae_title == caller.calling_ae_title for other in callers)
        addresses = sum(other.address == caller.address for other in callers)
        return (rule.max_associations is not None and titles >= rule.max_associations) or (
            rule.max_per_address is not None and addresses >= rule.max_per_address
        )

    def _wait_or_end_one(self, newcomer: Association, deadline: float) -> bool:
        """End the longest-silent association that never sent, or wait for its grace; False if there is none to end."""
        silent = [
            other
            for other in self._taken.values()
            if not (other.has_sent or other.stream.has_begun) and other.is_beyond_limit == newcomer.is_beyond_limit
        ]
        if not silent or (not newcomer.is_beyond_limit and self._at_cap(newcomer)):
            return False
        longest = min(silent, key=lambda other: other.accepted_at)
        now = time.monotonic()
        wait_s = longest.accepted_at + GRACE_S - now
        if wait_s <= 0:
            longest.end(f"made room for another caller: {now - longest.accepted_at:.0f} s without a message")
            del self._taken[longest.caller.association_id]
            return True
        return now < deadline and (self._changed.wait(min(wait_s, deadline - now)) or True)
