"""Describe the return rules in words, and why a configuration may never send a report."""

from collections.abc import Iterator, Sequence

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import ReceiverPolicy, ReturnRule

SENDER = "sender"
"""Destination of a rule: the configured peer with the AE title that sent the series."""


def outcomes(rules: Sequence[ReturnRule], peers: Sequence[Peer]) -> Iterator[str]:
    """Return what each rule does, in order, as one sentence.

    >>> list(outcomes([ReturnRule(modality="CT", to=("PACS",), when="flagged")], []))
    ['CT from any sender: to PACS, if the verdict is borderline or review']
    """
    for i, rule in enumerate(rules):
        modality = "any modality" if rule.modality == "*" else rule.modality
        what = f"{modality} from {'any sender' if rule.sender == '*' else rule.sender}"
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


def _covers(earlier: ReturnRule, rule: ReturnRule, peers: Sequence[Peer]) -> bool:
    """Whether the earlier rule matches every series that the rule matches."""
    named = [(peer.name, peer.ae_title) for peer in peers if peer.ae_title]
    known = [names for names in named if rule.sender in names]
    return earlier.matches((rule.sender, *(name for names in known for name in names)), rule.modality)


def _destination(name: str, rule: ReturnRule, peers: Sequence[Peer]) -> str:
    if name != SENDER:
        return name
    named = [(peer.name, peer.ae_title) for peer in peers if peer.ae_title]
    known = ", ".join(names[1] for names in named if rule.matches(names, rule.modality))
    return f"the sender if it is a configured peer ({known or 'none is'})"
