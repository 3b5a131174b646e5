"""Ask a destination which SOP classes it stores, in which transfer syntaxes.

A peer chooses one syntax of each presentation context, so that each pair takes a context of its own: first every class
in the uncompressed syntaxes, then the accepted ones in all others, at most 128 contexts an association.
"""

from collections.abc import Iterable, Iterator, Sequence

import structlog

from mediqa_node.domain.errors import PeerRefused, PeerUnavailable
from mediqa_node.network.associate_pdu import MAX_CONTEXTS
from mediqa_node.network.store_link import Pair, open_store_link
from mediqa_node.pipeline.forward.context import ForwardContext
from mediqa_node.storage import peer_contexts

log = structlog.get_logger("forwarder")

PROBE_EVERY_S = 6 * 3600.0
AGAIN_AFTER_S = 60.0
"""After a failure, or a refusal of what was accepted before."""
_NATIVE = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


def probe_due(context: ForwardContext, tried: dict[str, float]) -> int:
    """Ask the destinations of the forward rules that were not asked lately; return how many answered.

    Args:
        tried: when each was last asked by this process, whatever it answered; updated.
    """
    now = context.clock()
    with context.database.read() as connection:
        ages = peer_contexts.ages(connection)
    count = 0
    for name in sorted(context.destinations):
        at, stale = ages.get(name, (float("-inf"), True))
        is_fresh = name in tried and not stale and abs(now - at) < PROBE_EVERY_S  # asked at the start, too
        if abs(now - tried.get(name, float("-inf"))) < AGAIN_AFTER_S or is_fresh:
            continue
        tried[name] = now
        count += probe(context, name)
    return count


def probe(context: ForwardContext, name: str) -> bool:
    """Ask one destination and keep its answer; False if it did not answer."""
    peer = context.peer(name)
    if peer is None:
        return False
    try:
        found = list(_accepted(context, name, [(uid, syntax) for uid in context.contexts for syntax in _NATIVE]))
        compressed = [
            (uid, syntax)
            for uid in dict.fromkeys(uid for uid, _ in found)
            for syntax in context.contexts[uid]
            if syntax not in _NATIVE
        ]
        found += _accepted(context, name, compressed)
    except (PeerUnavailable, PeerRefused) as error:
        log.warning("destination not asked for what it accepts", destination=name, reason=str(error), hourly_for=name)
        return False
    if not found:  # an archive that accepts nothing is out of order, and would shut every scanner out
        log.warning("destination accepts no class at all", destination=name, hourly_for=name)
        return False
    by_class: dict[str, list[str]] = {}
    for uid, syntax in found:
        by_class.setdefault(uid, []).append(syntax)
    peer_contexts.keep(context.database, name, by_class, at=context.clock())
    log.info("destination accepts", destination=name, classes=len(by_class), pairs=len(found))
    return True


def _accepted(context: ForwardContext, name: str, pairs: Sequence[Pair]) -> Iterator[Pair]:
    peer = context.peer(name)
    for some in _chunks(pairs, MAX_CONTEXTS):
        if peer is not None:
            with open_store_link(peer, some, ae_title=context.ae_title, timeout_s=context.delivery.timeout_s) as link:
                yield from (pair for pair in some if link.accepts(pair))


def _chunks(pairs: Iterable[Pair], size: int) -> Iterator[list[Pair]]:
    whole = list(pairs)
    yield from (whole[i : i + size] for i in range(0, len(whole), size))
