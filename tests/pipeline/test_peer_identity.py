"""What a destination answers about a study, or fails to answer, before a report leaves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from support.bench import Bench
from support.scripted import ScriptedPacs, scripted
from support.series import ct_series, series_uid
from support.siblings import before_release

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules, ReturnRule

Make = Callable[..., tuple[Bench, str]]
OURS = [{"PatientID": "SYN001", "AccessionNumber": "A123"}]
ANOTHER = [{"PatientID": "SOMEBODY", "AccessionNumber": "A123"}]
BUSY = 0xA700


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    with scripted() as made:
        yield made


@pytest.fixture
def waiting(pacs: ScriptedPacs, tmp_path: Path) -> Iterator[Make]:
    """A report that has waited for its study at the PACS for longer than the PACS may stay without an answer."""
    made: list[Bench] = []

    def make(then: Any, **rules: Any) -> tuple[Bench, str]:
        peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
        bench = Bench(
            tmp_path / "bench",
            peers=[peer],
            returns=[ReturnRule(to=("PACS",), wait_for_study_s=600)],
            delivery=DeliveryRules(timeout_s=61.0, identity_within_s=60, identity_unanswered=then, **rules),
        )
        made.append(bench)
        bench.receive_all(paths := ct_series(tmp_path / "w", "x", slices=range(3)))
        bench.pass_time(150, step_s=15)
        assert (bench.deliveries(series_uid(paths))[0].state, pacs.received) == ("waiting", [])
        return bench, series_uid(paths)

    yield make
    for bench in made:
        bench.close()


@pytest.mark.parametrize("then", ["send", *before_release("withhold")])
def test_a_report_that_has_waited_long_is_still_held_against_its_study(
    waiting: Make, pacs: ScriptedPacs, then: str
) -> None:
    bench, series = waiting(then)

    pacs.holds = ANOTHER
    bench.pass_time(20, step_s=5)

    [delivery] = bench.deliveries(series)
    assert (delivery.state, delivery.reason_code, pacs.received) == ("withheld", "other_identity", [])


@pytest.mark.parametrize("then", ["send", *before_release("withhold")])
def test_the_time_without_an_answer_counts_from_the_first_that_failed(
    waiting: Make, pacs: ScriptedPacs, then: str
) -> None:
    bench, series = waiting(then)

    pacs.holds, pacs.find_status = OURS, BUSY
    bench.pass_time(20, step_s=5)
    [delivery] = bench.deliveries(series)
    assert (delivery.state, delivery.reason_code, pacs.received) == ("waiting", "identity_unanswered", [])

    pacs.find_status = 0x0000
    bench.pass_time(45, step_s=5)
    [delivery] = bench.deliveries(series)
    assert (delivery.state, delivery.reason_code, len(pacs.received)) == ("sent", None, 1)


def test_waiting_for_a_study_is_logged_once_an_hour(waiting: Make, pacs: ScriptedPacs) -> None:
    bench, _ = waiting("withhold")

    with structlog.testing.capture_logs() as lines:
        bench.pass_time(20, step_s=5)

    waits = [line for line in lines if line["event"] == "delivery"]
    assert len(waits) > 2
    assert all("hourly_for" in line for line in waits)


@pytest.mark.parametrize(("then", "state", "n_sent"), [("send", "sent", 1), ("withhold", "withheld", 0)])
def test_a_peer_is_asked_in_every_attempt(
    waiting: Make, pacs: ScriptedPacs, then: str, state: str, n_sent: int
) -> None:
    bench, series = waiting(then)
    before = pacs.asked

    pacs.find_status = BUSY
    bench.pass_time(150, step_s=15)

    [delivery] = bench.deliveries(series)
    assert (delivery.state, len(pacs.received)) == (state, n_sent)
    assert pacs.asked - before == delivery.attempts - before


def test_answers_that_never_say_whose_the_study_is_are_waited_for_once(waiting: Make, pacs: ScriptedPacs) -> None:
    bench, series = waiting("withhold", retry_at_most_s=15)

    pacs.holds = [{"AccessionNumber": "A123"}]
    bench.pass_time(150, step_s=15)

    [delivery] = bench.deliveries(series)
    assert (delivery.state, delivery.reason_code, pacs.received) == ("withheld", "identity_unanswered", [])
