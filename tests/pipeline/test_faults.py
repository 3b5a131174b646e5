"""What nobody foresaw: it is named, stays with its series, and does not fill the log."""

from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs
from support.bench import Bench, StandInScorer
from support.series import ct_series, series_uid
from support.siblings import before_release

from mediqa_node.domain.errors import MediqaError, StorageFailed, UndecodablePixels, UnreadableElement, fault_of
from mediqa_node.pipeline import assess, sweeps
from mediqa_node.pipeline import score as scoring
from mediqa_node.pipeline.durable import DurableJobs


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path / "bench")
    yield made
    made.close()


def assessed(bench: Bench, folder: Path) -> tuple[str, str]:
    paths = ct_series(folder, "one", slices=range(2))
    bench.receive_all(paths)
    bench.pass_time(60, until=lambda: bench.series(series_uid(paths)).state not in ("RECEIVING", "READY"))
    row = bench.series(series_uid(paths))
    return row.state, str(row.reason)


UNKNOWN_VR = NotImplementedError("Unknown Value Representation 'ZZ' in tag (0008,1010) of DOE^JANE")


@pytest.mark.parametrize("step", ["harvest", *before_release("assemble_stacks"), "salient_of"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UNKNOWN_VR, "unreadable: NotImplementedError, element (0008,1010), pipeline/score.py"),
        (KeyError("DOE^JANE"), "unreadable: KeyError, pipeline/score.py"),
        (RecursionError("DOE^JANE"), "unreadable: RecursionError, pipeline/score.py"),
        (UndecodablePixels("no table"), "undecodable: no table"),
        (UnreadableElement("KVP is no number"), "unreadable: KVP is no number"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_broken_data_is_refused_and_named(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception, reason: str
) -> None:
    def raises(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(scoring, step, raises)

    state, found = assessed(bench, tmp_path)

    assert state == "NOT_SCORED", "another attempt would end in the same way"
    assert found.startswith(reason)


def test_broken_data_outside_the_score_is_refused_too(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: object) -> None:
        raise UNKNOWN_VR

    monkeypatch.setattr(assess.policy, "check_age", raises)

    assert assessed(bench, tmp_path)[0] == "NOT_SCORED"


@pytest.mark.parametrize(
    "error", [RuntimeError("out of memory"), MemoryError(), FloatingPointError("NaN"), ValueError("3 views")]
)
def test_a_machine_or_a_network_that_fails_is_no_property_of_the_data(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def raises(*_: object) -> None:
        raise error

    monkeypatch.setattr(StandInScorer, "score", raises)

    with pytest.raises(type(error)):
        assessed(bench, tmp_path)


def test_a_fault_is_named_without_the_message_of_strangers() -> None:
    try:
        ct_series(Path("/dev/null/nowhere"), "x")
    except OSError as error:
        assert fault_of(error) == "NotADirectoryError"
    assert fault_of(ValueError("DOE^JANE")) == "ValueError"
    assert fault_of(ValueError("bad (0010, 0020)")) == "ValueError, element (0010,0020)"
    assert fault_of(MediqaError("our own words")) == "our own words"


def test_a_sweep_that_fails_says_so_once_and_when_it_works_again() -> None:
    failing: list[Exception] = [StorageFailed("locked"), StorageFailed("locked"), KeyError("x")]

    def sweep() -> None:
        if failing:
            raise failing.pop(0)

    run = sweeps._guarded("pace", sweep)
    with capture_logs() as lines:
        for _ in range(5):
            run()

    assert [(line["event"], line["hourly_for"]) for line in lines] == [
        ("sweep postponed", ("pace", StorageFailed)),
        ("sweep postponed", ("pace", StorageFailed)),
        ("sweep failed", ("pace", KeyError)),
        ("sweep works again", "pace"),
    ]


def test_a_job_that_ends_while_its_series_is_looked_after_is_not_asked_for_again(bench: Bench, tmp_path: Path) -> None:
    class Ends:
        def ended(self, names: list[str]) -> dict[str, str | None]:
            bench.work()  # the series is assessed between the reading of its row and the answer
            return dict.fromkeys(names)

    bench.receive_all(paths := ct_series(tmp_path / "one", "x"))
    bench.now += 100
    bench.complete_series()
    sweeps.enqueue_waiting(bench.node)
    assert bench.series(series_uid(paths)).state == "READY"

    sweeps.look_after_jobs(bench.node, cast(DurableJobs, Ends()))

    assert bench.series(series_uid(paths)).state == "ASSESSED"
