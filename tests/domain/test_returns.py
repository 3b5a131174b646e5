"""What the rules for reports do, and when no report can be sent."""

import pytest

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import AllowRule, ReceiverPolicy
from mediqa_node.domain.returns import obstacle, outcomes
from mediqa_node.domain.rules import ReturnRule

PACS = Peer(name="PACS", ae_title="ARCHIVE", host="h", port=104)


@pytest.mark.parametrize(
    ("rules", "peers", "allowed", "words"),
    [
        ((), (), (AllowRule(),), "add a peer and a rule"),
        ((), (PACS,), (AllowRule(),), "to: [PACS]"),
        ((ReturnRule(to=("PACS",), when="never"),), (PACS,), (AllowRule(),), "ends without a report"),
        ((ReturnRule(when="always"),), (PACS,), (AllowRule(),), "ends without a report"),
        ((ReturnRule(to=("PACS",), when="never"), ReturnRule(to=("PACS",))), (PACS,), (AllowRule(),), "order"),
        ((ReturnRule(to=("sender",)),), (), (AllowRule(),), "no peer is configured"),
        ((ReturnRule(to=("PACS",)),), (PACS,), (AllowRule(store=False),), "no sender store"),
        ((ReturnRule(to=("PACS",)),), (PACS,), (), "no sender store"),
    ],
)
def test_what_keeps_every_report_back_is_named_with_its_key(
    rules: tuple[ReturnRule, ...], peers: tuple[Peer, ...], allowed: tuple[AllowRule, ...], words: str
) -> None:
    found = obstacle(rules, peers, ReceiverPolicy(allowed=allowed))

    assert found is not None
    assert words in found


@pytest.mark.parametrize("to", ["PACS", "sender"])
def test_one_rule_that_sends_is_enough(to: str) -> None:
    rules = (ReturnRule(modality="MR", when="never"), ReturnRule(to=(to,)))

    assert obstacle(rules, (PACS,), ReceiverPolicy()) is None


def test_each_rule_has_its_sentence() -> None:
    rules = [
        ReturnRule(modality="MR", when="never"),
        ReturnRule(sender="CT1", to=("PACS", "sender"), wait_for_study_s=60),
        ReturnRule(sender="CT1", modality="CT", to=("PACS",)),
    ]

    scanner = Peer(name="CT", ae_title="CT1", host="h", port=105)
    assert list(outcomes(rules, [PACS, scanner])) == [
        "MR from any sender: no report",
        "any modality from CT1: to PACS and the sender if it is a configured peer (CT1), up to 60 s later if the "
        "study is not there",
        "CT from CT1: never used, an earlier rule matches the same series",
    ]


@pytest.mark.parametrize("sender", ["SCANNER", "CT3", "*"])
def test_a_sender_that_is_a_peer_by_name_or_title_is_named(sender: str) -> None:
    scanner = Peer(name="SCANNER", ae_title="CT3", host="h", port=104)

    [told] = outcomes([ReturnRule(sender=sender, to=("sender",))], [scanner])

    assert "the sender if it is a configured peer (CT3)" in told


def test_a_sender_that_is_no_peer_is_said_to_be_none() -> None:
    [told] = outcomes([ReturnRule(sender="CT4", to=("sender",))], [PACS])

    assert "(none is)" in told


@pytest.mark.parametrize(("first", "second"), [("SCANNER", "CT3"), ("CT3", "SCANNER")])
def test_a_rule_for_the_same_sender_under_its_other_name_is_never_used(first: str, second: str) -> None:
    scanner = Peer(name="SCANNER", ae_title="CT3", host="h", port=104)

    told = list(outcomes([ReturnRule(sender=name, to=("PACS",)) for name in (first, second)], [PACS, scanner]))

    assert "never used" in told[1]
