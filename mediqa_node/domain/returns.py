"""Describe the return rules in words, and why a configuration may never send a report, or never have it confirmed."""

from collections.abc import Iterator, Sequence

from mediqa_node.domain.match import ANY, names, words
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import ReceiverPolicy
from mediqa_node.domain.rules import ReturnRule

SENDER = "sender"
"""Destination of a rule: the configured peer with the AE title that sent the series."""


def outcomes(rules: Sequence[ReturnRule], peers: Sequence[Peer]) -> Iterator[str]:
    """Return what each rule does, in order, as one sentence.

    >>> list(outcomes([ReturnRule(modality="CT", to=("PACS",), when="flagged")], []))
    ['CT from any sender: to PACS, if the verdict is borderline or review']
    """
    for i, rule in enumerate(rules):
        what = words(rule)
        if any(_covers(earlier, rule, peers) for earlier in rules[:i]):
            yield f"{what}: never used, an earlier rule matches the same series"
        elif rule.when == "never" or not rule.to:
            yield f"{what}: no report"
        else:
            when = "" if rule.when == "always" else ", if the verdict is borderline or review"
            wait = (
                f", up to {rule.wait_for_study_s:g} s later if the study is not there" if rule.wait_for_study_s else ""
            )
            yield f"{what}: to {' and '.join(_destination(name, rule, peers) for name in rule.to)}{when}{wait}"


def obstacle(rules: Sequence[ReturnRule], peers: Sequence[Peer], receiver: ReceiverPolicy) -> str | None:
    """Return why no report can be sent with these rules, and the key to change; None if one can."""
    if not any(rule.store for rule in receiver.allowed):
        return "`receiver.allowed` lets no sender store images: add a rule with `store: true`"
    if not rules:
        hint = f'`returns: [{{from: "*", to: [{peers[0].name}]}}]`' if peers else "a peer and a rule"
        return f"`returns` is empty: add {hint}"
    sending = [
        rule
        for i, rule in enumerate(rules)
        if rule.when != "never" and rule.to and not any(_covers(earlier, rule, peers) for earlier in rules[:i])
    ]
    if not sending:
        return "every rule in `returns` ends without a report: check `when`, `to` and the order of the rules"
    if not peers:
        return "`to: [sender]` needs the sender among `peers`, and no peer is configured: add each scanner or PACS"
    return None


def unheard(peers: Sequence[Peer], receiver: ReceiverPolicy) -> Iterator[str]:
    """Return the archives whose commitment can never arrive: no rule admits their AE title.

    >>> pacs = Peer(name="PACS", ae_title="ARCHIVE", host="192.0.2.10", port=104, commitment=True)
    >>> list(unheard([pacs], ReceiverPolicy(allowed=())))
    ['PACS is asked to commit, and cannot answer: `receiver.allowed` has no rule for ARCHIVE']
    """
    for peer in peers:
        asked = peer.commitment or peer.name == receiver.commit_with
        if asked and not any(rule.ae_title in ("*", peer.ae_title) for rule in receiver.allowed):
            why = f"`receiver.allowed` has no rule for {peer.ae_title}"
            yield f"{peer.name} is asked to commit, and cannot answer: {why}"


def _covers(earlier: ReturnRule, rule: ReturnRule, peers: Sequence[Peer]) -> bool:
    """Whether the earlier rule matches every series that the rule matches, as far as equal conditions show."""
    theirs, ours = earlier.conditions(), rule.conditions()
    return all(_is_within(ours.get(key), value, peers if key == "from" else ()) for key, value in theirs.items())


def _is_within(ours: object, theirs: object, peers: Sequence[Peer]) -> bool:
    """Whether a condition lets through only what another one does; a peer is known by its name and its AE title."""
    if ours == theirs or ours is None:
        return ours == theirs
    if not isinstance(ours, str | tuple) or not isinstance(theirs, str | tuple):
        return False
    both = [{peer.name, peer.ae_title} for peer in peers if peer.ae_title]
    wide = set(names(theirs)).union(*(one for one in both if not one.isdisjoint(names(theirs))))
    return wide.issuperset(names(ours))


def _destination(name: str, rule: ReturnRule, peers: Sequence[Peer]) -> str:
    if name != SENDER:
        return name
    wanted = set(names(rule.sender))
    named = [(peer.name, peer.ae_title) for peer in peers if peer.ae_title]
    known = ", ".join(pair[1] for pair in named if ANY in wanted or not wanted.isdisjoint(pair))
    return f"the sender if it is a configured peer ({known or 'none is'})"
