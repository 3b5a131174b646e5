"""What a destination answers about a study, or fails to answer, before a report leaves."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
import structlog
from support.bench import Bench
from support.scripted import ScriptedPacs, scripted
from support.series import ct_series, series_uid
from support.siblings import before_release

from mediqa_node.domain.errors import QueryUnanswered
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules
from mediqa_node.domain.rules import ReturnRule
from mediqa_node.network.peer_link import PeerLink
from mediqa_node.storage import overview

Make = Callable[..., tuple[Bench, str]]
Queue = Callable[..., tuple[Bench, list[str], list[str]]]
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


@pytest.mark.parametrize("then", ["withhold", *before_release("send")])
def test_an_outage_is_no_time_without_an_answer(waiting: Make, pacs: ScriptedPacs, then: str) -> None:
    bench, series = waiting(then, retry_at_most_s=40)
    pacs.holds, pacs.find_status = OURS, BUSY
    bench.pass_time(6, step_s=6)
    up = bench.node.peers

    bench.node = replace(bench.node, peers=(replace(up[0], port=1),))
    bench.pass_time(200, step_s=50)
    bench.node = replace(bench.node, peers=up)
    bench.pass_time(50, step_s=50)
    [delivery] = bench.deliveries(series)
    assert (delivery.state, delivery.reason_code, pacs.received) == ("waiting", "identity_unanswered", [])

    bench.pass_time(100, step_s=50)
    assert bench.deliveries(series)[0].state == {"withhold": "withheld", "send": "sent"}[then]


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


@pytest.mark.parametrize(
    ("then", "state", "n_sent"), [("send", "sent", 1), *before_release(("withhold", "withheld", 0))]
)
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


N_REPORTS, TIMEOUT_S, WITHIN_S = 5, 100.0, 300.0


@pytest.fixture
def queue(pacs: ScriptedPacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    """Reports that are due at once at a PACS that keeps silent about some studies, each time until the time is over."""
    made: list[Bench] = []

    def make(then: Any, silent: Callable[[int], bool]) -> tuple[Bench, list[str], list[str]]:
        peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
        rules = DeliveryRules(timeout_s=TIMEOUT_S, identity_within_s=WITHIN_S, identity_unanswered=then)
        bench = Bench(tmp_path / "bench", peers=[peer], delivery=rules)
        made.append(bench)
        all_paths = [ct_series(tmp_path / f"s{n}", f"s{n}", slices=range(1)) for n in range(N_REPORTS)]
        studies = [str(pydicom.dcmread(paths[0]).StudyInstanceUID) for paths in all_paths]
        asked: list[str] = []

        def find_study(link: PeerLink, study_instance_uid: str) -> list[Identity]:
            asked.append(study_instance_uid)
            if not silent(studies.index(study_instance_uid)):
                return []
            bench.now += TIMEOUT_S
            raise QueryUnanswered("PACS did not answer C-FIND")

        monkeypatch.setattr(PeerLink, "find_study", find_study)
        for n, paths in enumerate(all_paths):
            bench.receive_all(paths, association=f"a{n}")
        series = [series_uid(paths) for paths in all_paths]
        bench.pass_time(60, step_s=5, until=lambda: all(bench.deliveries(uid) for uid in series))
        bench.now = max(bench.deliveries(uid)[0].not_before for uid in series)
        return bench, series, asked

    yield make
    for bench in made:
        bench.close()


def states(bench: Bench, series: list[str]) -> list[str]:
    return [str(bench.deliveries(uid)[0].state) for uid in series]


def test_one_silence_holds_all_that_are_due_and_no_longer_than_the_site_allows(queue: Queue) -> None:
    bench, series, asked = queue("withhold", lambda n: True)
    begun = bench.now

    bench.pass_time(2000, step_s=5, until=lambda: states(bench, series) == ["withheld"] * N_REPORTS)

    assert bench.now - begun < WITHIN_S + 2 * TIMEOUT_S + 30
    assert len(asked) <= 4
    assert all(bench.series(uid).state == "WITHHELD" for uid in series)

    with bench.database.write() as connection:
        overview.retry(connection, [], now=bench.now)
    bench.pass_time(150, step_s=5)
    assert states(bench, series) == ["waiting"] * N_REPORTS, "a retry waits anew"


@pytest.mark.parametrize("odd", before_release(0, 5))
def test_a_study_that_is_never_answered_holds_no_report_of_another(queue: Queue, odd: int) -> None:
    bench, series, _ = queue("withhold", lambda n: n == odd)
    bench.pass_time(TIMEOUT_S + 20, step_s=5)
    assert states(bench, series) == ["waiting" if n == odd else "sent" for n in range(N_REPORTS)]


def test_the_others_ask_in_turn_and_leave_as_soon_as_they_are_answered(queue: Queue) -> None:
    bench, series, _ = queue("withhold", lambda n: n < 2)
    bench.pass_time(2 * TIMEOUT_S + 30, step_s=5)
    assert states(bench, series) == ["waiting"] * 2 + ["sent"] * (N_REPORTS - 2)


@pytest.mark.acceptance
def test_a_report_that_is_sent_unasked_was_asked_about_in_that_attempt(queue: Queue, pacs: ScriptedPacs) -> None:
    bench, series, asked = queue("send", lambda n: True)
    bench.pass_time(3000, step_s=5, until=lambda: states(bench, series) == ["sent"] * N_REPORTS)
    assert (len(pacs.received), len(set(asked))) == (N_REPORTS, N_REPORTS)
    assert len(asked) <= 2 * N_REPORTS
