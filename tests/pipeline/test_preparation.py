"""A series that is prepared while it arrives gets the same assessment, sooner; if that fails, as soon as without."""

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from support.bench import Bench, StandInScorer
from support.series import ct_series, series_uid
from support.waiting import until

from mediqa_node.dicom.report.request import SOP_CLASSES
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.preprocessing import NetworkInput
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.recall import Recall, recalled
from mediqa_node.domain.scoring import ScoredSlices
from mediqa_node.domain.series import ReasonCode
from mediqa_node.model.predict import NetworkScorer, load_scorer
from mediqa_node.pipeline.arrived import expected_stack
from mediqa_node.pipeline.preparation import PAUSED_AFTER_S, Preparation
from mediqa_node.pipeline.report import report_for
from mediqa_node.pipeline.score import read_headers
from mediqa_node.storage import assessments, measures, procedure_steps
from tests.benchmarks import images

SR_CLASS = next(iter(SOP_CLASSES.values()))
SLICES = 16
MakeBench = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def bench(**how: Any) -> Bench:
        made.append(Bench(tmp_path / f"bench{len(made)}", **how))
        return made[-1]

    yield bench
    for one in made:
        one.close()


def preparing(bench: Bench, **how: Any) -> Preparation:
    """Have the assessments of a bench ask a preparation that the test drives."""
    preparation = Preparation(bench.node, **how)
    bench.node = replace(bench.node, preparation=preparation)
    bench.settler.node = bench.node
    return preparation


def arrive(
    bench: Bench,
    paths: Sequence[Path],
    preparation: Preparation | None = None,
    *,
    every: int = 5,
    released: bool = True,
) -> None:
    """Receive a series, and prepare what has arrived after so many instances; what came last is not prepared."""
    for number, path in enumerate(paths, start=1):
        bench.receive(path)
        bench.now += 0.1
        if preparation is not None and number % every == 0 and number < len(paths):
            preparation.round()
    bench.release()


def assessed(bench: Bench, then: Callable[[], object] = lambda: None) -> str:
    """Let a series become complete, assess it, and return the outcome.

    Args:
        then: happens in between.
    """
    bench.now += 2
    assert bench.complete_series() == 1
    then()
    [outcome] = bench.work()
    return outcome


# ── the same results ─────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def network() -> NetworkScorer:
    return load_scorer()


class Counting:
    """Counts the images that a network runs on."""

    def __init__(self, network: NetworkScorer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = 0
        self._run = network._run
        monkeypatch.setattr(network, "_run", self)

    def __call__(self, images: Any, prompts: Any) -> Any:
        self.images += len(images)
        return self._run(images, prompts)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """One series of CT and one of MR."""
    folder = tmp_path_factory.mktemp("series")
    images.write_ct_series(folder / "CT", SLICES, size=128)
    images.write_mr_series(folder / "MR", SLICES, size=128)
    return {name: sorted((folder / name).glob("*.dcm")) for name in ("CT", "MR")}


def stated(folder: Path, paths: Sequence[Path], count: int) -> list[Path]:
    """Write a series with Images in Acquisition (0020,1002)."""
    folder.mkdir()
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.ImagesInAcquisition = count
        ds.save_as(folder / path.name)
    return sorted(folder.iterdir())


def kept(bench: Bench, uid: str) -> tuple[Assessment, Any, Any, Any, bytes]:
    """Return what is kept of a series: assessment, patch maps, technique, measures, and its report."""
    with bench.database.read() as connection:
        assessment = assessments.load_assessment(connection, uid, 1)
        maps = assessments.load_maps(connection, uid, 1)
        technique = assessments.load_technique(connection, uid)
        measured = measures.load(connection, uid, bench.series(uid).generation)
    assert assessment is not None
    assert maps is not None
    parts = [replace(part, inference_s=0.0) for part in (assessment.primary, *assessment.others)]
    same = replace(assessment, primary=parts[0], others=tuple(parts[1:]))
    return (
        same,
        (maps.scores.tobytes(), maps.weights.tobytes()),
        technique,
        measured,
        report_for(bench.node, uid, 1, SR_CLASS).part10,
    )


@pytest.mark.parametrize(
    ("modality", "count", "order", "at_completion"),
    [
        ("CT", SLICES, "ascending", 1),
        ("CT", SLICES, "descending", 1),
        ("CT", SLICES, "shuffled", 1),
        ("CT", SLICES - 4, "ascending", 7),  # more than were stated: no prediction, and a trial at what was stated
        ("CT", 3 * SLICES, "ascending", 7),
        ("CT", None, "ascending", 7),
        ("MR", SLICES, "ascending", 7),
    ],
)
def test_a_prepared_series_gets_the_same_assessment_and_report(
    make: MakeBench,
    series: dict[str, list[Path]],
    network: NetworkScorer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    modality: str,
    count: int | None,
    order: str,
    at_completion: int,
) -> None:
    paths = series[modality] if count is None else stated(tmp_path / "stated", series[modality], count)
    paths = {"ascending": paths, "descending": paths[::-1], "shuffled": random.Random(1).sample(paths, len(paths))}[
        order
    ]
    uid = series_uid(paths)
    plain, prepared = make(scorer=network), make(scorer=network)
    arrive(plain, paths)
    assert assessed(plain) == "assessed"

    arrive(prepared, paths, preparing(prepared))
    counting = Counting(network, monkeypatch)
    assert assessed(prepared) == "assessed"

    assert kept(prepared, uid) == kept(plain, uid)
    views = 1 + network.spec.native_crops
    assert counting.images <= at_completion * views, "slices were scored again"


def test_a_series_that_has_ended_is_assessed_on_trial_and_nothing_of_its_slices_is_left_to_do(
    make: MakeBench, series: dict[str, list[Path]], network: NetworkScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, paths = make(scorer=network), series["MR"]
    preparation = preparing(bench)
    arrive(bench, paths)

    preparation.round()
    counting = Counting(network, monkeypatch)
    read: list[Path] = []
    monkeypatch.setattr("mediqa_node.pipeline.prepared.dataset_sha256", read.append)
    monkeypatch.setattr("mediqa_node.decode.reader.read_frame", read.append)
    assessed(bench)

    assert (counting.images, read) == (0, [])


def test_the_count_of_a_series_is_learned_from_one_of_the_same_kind(
    make: MakeBench,
    series: dict[str, list[Path]],
    network: NetworkScorer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    bench = make(scorer=network)
    preparation = preparing(bench)
    arrive(bench, series["CT"], preparation)
    assessed(bench)
    images.write_ct_series(tmp_path / "next", SLICES, size=128, seed=1)
    paths = sorted((tmp_path / "next").glob("*.dcm"))

    arrive(bench, paths, preparation)
    counting = Counting(network, monkeypatch)
    assessed(bench)

    assert counting.images <= 1 + network.spec.native_crops


@pytest.mark.parametrize("is_listed", [True, False])
def test_slices_are_scored_as_they_arrive_if_a_procedure_step_lists_them(
    make: MakeBench, tmp_path: Path, is_listed: bool
) -> None:
    bench, paths = make(scorer=Recalling()), ct_series(tmp_path / "ct", "one", slices=range(16))
    preparation = preparing(bench)
    if is_listed:
        listed = {series_uid(paths): [str(number) for number in range(16)]}
        with bench.database.write() as connection:
            procedure_steps.create(
                bench.database, connection, "1.2", calling_ae_title="CT", series=listed, at=bench.now
            )

    arrive(bench, paths[:8], preparation, every=7)

    assert bench.scorer.scored == is_listed


# ── what a file must be ──────────────────────────────────────────────────────


class Recalling(StandInScorer):
    """A stand-in that recalls its scores, and counts those that it had to make."""

    def __init__(self) -> None:
        super().__init__()
        self.recall: Recall | None = None

    def recalling(self, recall: Recall) -> "Recalling":
        other = Recalling()
        other.recall, other.parent = recall, self
        return other

    def score(self, inputs: NetworkInput, prompt: Prompt) -> ScoredSlices:
        def make() -> ScoredSlices:
            self.parent.scored += 1
            return StandInScorer.score(self, inputs, prompt)

        assert self.recall is not None
        return recalled(self.recall, ("score", inputs.images.tobytes(), prompt), make)


def prepared_bench(make: MakeBench, paths: Sequence[Path], **how: Any) -> tuple[Bench, Preparation]:
    """Return a bench that has received and prepared a whole series."""
    bench = make(scorer=Recalling())
    preparation = preparing(bench, **how)
    arrive(bench, paths)
    preparation.round()
    assert bench.scorer.scored == 1
    return bench, preparation


def spooled(bench: Bench) -> list[Path]:
    return sorted(bench.spool.root.rglob("*.dcm"))


def test_what_was_prepared_is_recalled_once(make: MakeBench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "one")
    bench, preparation = prepared_bench(make, paths)

    assert assessed(bench) == "assessed"
    assert bench.scorer.scored == 1

    with preparation.taken(series_uid(paths)) as left:
        assert left.n_bytes == 0


def test_a_file_that_was_touched_since_is_verified_again_and_nothing_is_recalled(
    make: MakeBench, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path / "ct", "one")
    bench, _ = prepared_bench(make, paths)

    os.utime(spooled(bench)[-1], ns=(1, 1))

    assert assessed(bench) == "assessed"
    assert bench.scorer.scored == 2


@pytest.mark.parametrize("keeps_its_times", [False, True])
def test_a_file_that_was_changed_since_is_never_scored(make: MakeBench, tmp_path: Path, keeps_its_times: bool) -> None:
    paths = ct_series(tmp_path / "ct", "one")
    bench, _ = prepared_bench(make, paths)

    path = spooled(bench)[0]
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    if keeps_its_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert assessed(bench) == "parked"
    assert bench.series(series_uid(paths)).reason.code is ReasonCode.FILE_CHANGED


def test_a_file_that_is_gone_is_missed(make: MakeBench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "one")
    bench, _ = prepared_bench(make, paths)

    assert assessed(bench, spooled(bench)[0].unlink) == "parked"
    assert bench.series(series_uid(paths)).reason.code is ReasonCode.FILE_MISSING


def test_a_file_that_cannot_be_read_is_reported_by_the_assessment_alone(
    make: MakeBench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = ct_series(tmp_path / "ct", "one")
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.PixelData = ds.PixelData[:1000]
        ds.save_as(path)
    bench = make()
    preparation = preparing(bench)

    arrive(bench, paths, preparation, every=2)
    preparation.round()

    assert capsys.readouterr().out.count("warning") == 0
    assert assessed(bench) == "not scored"
    assert bench.series(series_uid(paths)).reason.code is ReasonCode.UNDECODABLE


# ── what it gives way to ─────────────────────────────────────────────────────


def test_nothing_is_prepared_while_a_job_runs_or_waits(make: MakeBench, tmp_path: Path) -> None:
    bench = make(scorer=Recalling())
    preparation = preparing(bench)
    arrive(bench, ct_series(tmp_path / "ct", "one"))

    with preparation.taken("1.2.3"):
        preparation.round()
    assert bench.scorer.scored == 0

    bench.receive_all(other := ct_series(tmp_path / "other", "two"), association="a2")
    bench.now += 2
    assert bench.complete_series() == 2
    arrive(bench, ct_series(tmp_path / "third", "three"))
    preparation.round()
    assert bench.scorer.scored == 0

    bench.work()
    assert bench.series(series_uid(other)).state == "ASSESSED"
    preparation.round()
    assert bench.scorer.scored == 3


def test_a_job_interrupts_a_preparation_between_two_slices(make: MakeBench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "one")
    bench = make(scorer=Recalling())
    preparation = preparing(bench)
    arrive(bench, paths)
    began, go_on = threading.Event(), threading.Event()
    add = preparation._series(series_uid(paths)).prepared.add

    def slow(path: Path) -> str:
        began.set()
        go_on.wait(10)
        return add(path)

    preparation._series(series_uid(paths)).prepared.add = slow
    at_work = threading.Thread(target=preparation.round)
    at_work.start()
    assert began.wait(10)

    assert assessed(bench) == "assessed"

    go_on.set()
    at_work.join(10)
    assert not at_work.is_alive()
    assert bench.scorer.scored == 1


def test_a_reconstruction_of_an_acquisition_that_is_scored_is_not(make: MakeBench, tmp_path: Path) -> None:
    first = ct_series(tmp_path / "first", "first", study="s", event="e")
    bench, preparation = prepared_bench(make, first)
    assessed(bench)

    arrive(bench, ct_series(tmp_path / "second", "second", study="s", event="e", kernel="B70f"))
    preparation.round()

    assert bench.scorer.scored == 1


def test_what_an_archive_sends_for_a_baseline_is_not_prepared(make: MakeBench, tmp_path: Path) -> None:
    bench = make(scorer=Recalling())
    preparation = preparing(bench)
    bench.receive_all(ct_series(tmp_path / "ct", "one"), moved_for="MEDIQA")

    preparation.round()

    assert bench.scorer.scored == 0


def test_memory_has_a_limit_and_the_oldest_series_goes_first(make: MakeBench, tmp_path: Path) -> None:
    size = 64 * 64 * 4
    names = ("one", "two", "three")
    paths = {name: ct_series(tmp_path / name, name) for name in names}
    bench = make(scorer=Recalling())
    preparation = preparing(bench, most_bytes=2 * 30 * size)
    for name in names:
        bench.receive_all(paths[name], association=name)
        preparation.round()
    scored = bench.scorer.scored
    for _ in range(5):  # what had to go is not prepared again while nothing of it comes
        preparation.round()
    assert bench.scorer.scored == scored

    found = {}
    for name in names:
        with preparation.taken(series_uid(paths[name])) as left:
            found[name] = left.n_bytes

    assert found["one"] == 0
    assert 0 < found["two"] + found["three"] <= 2 * 30 * size


def test_a_series_too_large_for_memory_is_prepared_no_further_and_assessed(make: MakeBench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "one", slices=range(30))
    bench = make(scorer=Recalling())
    preparation = preparing(bench, most_bytes=100_000)
    arrive(bench, paths, preparation)
    preparation.round()
    assert bench.scorer.scored == 0

    assert assessed(bench) == "assessed"


def test_a_sender_that_pauses_again_and_again_costs_few_trials(make: MakeBench, tmp_path: Path) -> None:
    bench = make(scorer=Recalling())
    preparation = preparing(bench)
    for path in ct_series(tmp_path / "ct", "one", slices=range(40)):
        bench.receive(path)
        bench.now += PAUSED_AFTER_S
        preparation.round()

    assert bench.scorer.scored <= 10  # of 40 pauses; with every half more images


def test_its_thread_sleeps_until_it_is_woken_and_ends_when_told(make: MakeBench, tmp_path: Path) -> None:
    bench = make(scorer=Recalling())
    preparation = preparing(bench)
    at_work = threading.Thread(target=preparation.run)
    at_work.start()
    arrive(bench, ct_series(tmp_path / "ct", "one"))

    preparation.wake()
    until(lambda: bench.scorer.scored == 1, "the series is prepared")

    preparation.stop()
    at_work.join(10)
    assert not at_work.is_alive()


# ── where a slice will be ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("numbers", "count", "expected"),
    [
        ([0, 1, 2], 6, [0, 1, 2, None, None, None]),
        ([5, 4, 3], 6, [None, None, None, 2, 1, 0]),  # in the order of positions
        ([3, 1, 0], 6, [2, 1, None, 0, None, None]),
        ([3, 4, 5], 5, None),  # numbers beyond the count: as they arrive
    ],
)
def test_slices_are_placed_by_instance_number(
    tmp_path: Path, numbers: list[int], count: int, expected: list[int | None] | None
) -> None:
    files = read_headers([ct_series(tmp_path / "ct", "one", slices=[number])[0] for number in numbers])

    stack = expected_stack(files.stacks[0], files.headers, count)

    assert stack is not None
    found = [frame.instance_index if frame.instance_index < len(numbers) else None for frame in stack.frames]
    assert found == (expected or [0, 1, 2, None, None])


def test_no_place_is_predicted_for_more_slices_than_expected(tmp_path: Path) -> None:
    files = read_headers(ct_series(tmp_path / "ct", "one"))

    assert expected_stack(files.stacks[0], files.headers, 4) is None
