"""A bench with a scanner that may correct its own images, an authority, and a PACS for its reports."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import AllowRule, CompletionRules, ReceiverPolicy
from mediqa_node.domain.rules import ReturnRule
from support.bench import Bench
from support.scripted import ScriptedPacs, scripted

SCANNER = {"aet": "CT_ROOM_1", "address": "10.0.0.5"}
ELSEWHERE = {"aet": "CT_ROOM_1", "address": "10.0.0.9"}
RULES = ReceiverPolicy(
    allowed=(
        AllowRule(ae_title="CT_ROOM_1", address="10.0.0.0/8", source=True),
        AllowRule(address="0.0.0.0/0"),
    )
)
Make = Callable[..., Bench]


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    """A PACS that stores what it gets and knows no study."""
    with scripted(classes=[f"1.2.840.10008.5.1.4.1.1.88.{last}" for last in (22, 33, 34, 59)]) as running:
        yield running


@pytest.fixture
def make(tmp_path: Path, pacs: ScriptedPacs) -> Iterator[Make]:
    """Make a bench whose scanner CT_ROOM_1 is a source, and QC an authority."""
    made: list[Bench] = []

    def bench(**policy: Any) -> Bench:
        peer = {"name": "PACS", "ae_title": "SCRIPTED", "host": "127.0.0.1", "port": pacs.port}
        peers = [
            Peer(**{**peer, **policy.pop("peer", {})}),
            Peer(name="QC", ae_title="QC", host="127.0.0.1", port=1, authority=True),
        ]
        policy.setdefault("receiver", RULES)
        policy.setdefault("completion", CompletionRules(contiguous_after_s=2.0))  # a step later than corrections
        made.append(Bench(tmp_path / "bench", peers=peers, returns=[ReturnRule(to=("PACS",))], **policy))
        return made[-1]

    yield bench
    for one in made:
        one.close()
