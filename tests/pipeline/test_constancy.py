"""The score is held against itself: what bites, what withholds, what a person accepts."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
import yaml
from support.bench import DEVICE, Bench, StandInScorer
from support.command import invoke_in
from support.factories import range_position
from support.series import ct_series, series_uid
from support.siblings import before_release

from mediqa_node.composition import checkpoints
from mediqa_node.config import Settings
from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.prompts import PromptRules
from mediqa_node.domain.constancy import Check, Constancy
from mediqa_node.domain.errors import ReferenceDamaged
from mediqa_node.domain.policy import Refuse
from mediqa_node.model.checkpoint import load_checkpoint, save_checkpoint
from mediqa_node.model.network import MedIQA
from mediqa_node.model.predict import NetworkScorer, load_scorer
from mediqa_node.pipeline.checks import constancy
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.score import Assessor, assess, harvest_series, read_headers
from mediqa_node.pipeline.sweeps import CONSTANCY_EVERY_S
from mediqa_node.storage import assessments, constancy_checks, overview

pytestmark = pytest.mark.usefixtures("one_decoder")

DAY_S = 86400.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def default() -> tuple[MedIQA, NetworkScorer]:
    """The default checkpoint, and its network to lay hands on."""
    network, card = load_checkpoint("untrained")
    return network, NetworkScorer(network, card)


@pytest.fixture
def bench(tmp_path: Path, default: tuple[MedIQA, NetworkScorer]) -> Iterator[Bench]:
    """The stations with the real network, which may report although it is untrained."""
    made = Bench(tmp_path / "node", scorer=default[1], allow_untrained=True)
    yield made
    made.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Bench]:
    """The stations with the stand-in, whose card pins nothing."""
    made = Bench(tmp_path / "plain")
    yield made
    made.close()


class moved:  # noqa: N801 (reads as a verb)
    """One weight of a network, moved while the block runs: a bit that fell over."""

    def __init__(self, network: MedIQA, name: str, by: float) -> None:
        self._weight = dict(network.named_parameters())[name].data.view(-1)
        self._by = by

    def __enter__(self) -> None:
        self._weight[0] += self._by

    def __exit__(self, *_: object) -> None:
        self._weight[0] -= self._by


class Drifting(StandInScorer):
    """A stand-in whose scores move by what the test says."""

    def __init__(self, by: float = 0.0, *, only: str = "") -> None:
        super().__init__()
        self.by = by
        self.only = only

    def score(self, inputs, prompt):
        """Return the scores of the stand-in, all moved."""
        found = super().score(inputs, prompt)
        return replace(found, raw=found.raw + self.by * (self.only in ("", prompt.modality.value)))


class Failing(StandInScorer):
    """A stand-in that runs out of memory, the first times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def score(self, inputs, prompt):
        """Fail, or return the scores of the stand-in."""
        self.times -= 1
        if self.times >= 0:
            raise MemoryError
        return super().score(inputs, prompt)


REFUSED = "outside training range: unlike the MR images it was trained on (1.03 x the limit)"


class Choosy(StandInScorer):
    """A stand-in that was not trained on MR."""

    def range_position(self, inputs, modality):
        """Refuse MR."""
        return range_position() if modality == "MR" else None


def upgraded(bench: Bench) -> NodeContext:
    """The node after an upgrade."""
    return replace(bench.node, device=replace(DEVICE, software_version="9.9.9"))


def history(bench: Bench) -> list[Check]:
    """All checks, newest first."""
    with bench.database.read() as connection:
        return constancy_checks.history(connection, at_most=99)


def judged(bench: Bench, folder: Path, name: str) -> str:
    """Send a series, wait for its judgement, and return its UID."""
    paths = ct_series(folder / name.replace(" ", "_"), name)
    bench.receive_all(paths, association=name[:32])
    bench.pass_time(15)
    return series_uid(paths)


def test_the_default_checkpoint_scores_what_its_card_says(default) -> None:
    assessor = Assessor(scorer=default[1], prompts=checkpoints.prompt_rules(Settings()))

    found = constancy.check(assessor, None, software_version="1", at=0.0)

    assert found.passed
    assert found.compared_with == "card"
    assert sorted(found.scores) == ["ct_chest", "mr_breast", "op_fundus"]
    assert found.drift < 1e-6


@pytest.mark.parametrize(
    ("weight", "by"), [("fc_score.3.bias", 5e-4), *before_release(("conv1.weight", 0.1), ("fc_score.0.weight", 0.1))]
)
def test_one_moved_weight_is_noticed(default, weight: str, by: float) -> None:
    assessor = Assessor(scorer=default[1], prompts=checkpoints.prompt_rules(Settings()))

    with moved(default[0], weight, by):
        found = constancy.check(assessor, None, software_version="1", at=0.0)

    assert not found.passed
    assert found.drift > found.bound == 1e-4


def test_a_drift_withholds_results_until_a_person_accepts_it(bench: Bench, default, tmp_path: Path) -> None:
    assert constancy.check_if_due(bench.node).passed
    assert bench.series(judged(bench, tmp_path, "before")).state == "ASSESSED"
    bench.now += DAY_S

    with moved(default[0], "fc_score.3.bias", 5e-4):
        assert not constancy.check_if_due(bench.node).passed
        series = judged(bench, tmp_path, "after")
        row = bench.series(series)
        assert row.state == "WITHHELD"
        assert row.reason.code == "constancy_drift"
        assert "5.0e-04 apart, bound 1.0e-04" in str(row.reason)
        assert "mediqa-node retry" in str(row.reason)

        accepted = constancy.acknowledge(bench.database, "Dr. Curie", at=bench.now)
        with bench.database.write() as connection:
            assert overview.retry(connection, [], now=bench.now) == (0, 1)
        bench.pass_time(5)

        assert bench.series(series).state == "ASSESSED"
        with bench.database.read() as connection:
            kept = constancy_checks.last_check(connection)
        assert (kept.id, kept.acknowledged_by) == (accepted.id, "Dr. Curie")
        assert kept.acknowledged_at > kept.checked_at

        bench.now += DAY_S
        again = constancy.check_if_due(bench.node)
        assert again.passed
        assert again.as_acknowledged
        assert bench.series(judged(bench, tmp_path, "accepted drift")).state == "ASSESSED"


def test_an_accepted_drift_that_grows_or_turns_round_withholds_again(tmp_path: Path) -> None:
    scorer = Drifting()
    bench = Bench(tmp_path / "node", scorer=scorer)
    constancy.check_if_due(bench.node)
    scorer.by = 0.01
    bench.now += DAY_S
    assert constancy.check_if_due(bench.node).withholds
    constancy.acknowledge(bench.database, "Dr. Curie", at=bench.now)

    def withholds_a_day_later(by: float) -> bool:
        scorer.by = by
        bench.now += DAY_S
        return constancy.check_if_due(bench.node).withholds

    assert not withholds_a_day_later(0.01005)
    assert withholds_a_day_later(0.0102)
    assert withholds_a_day_later(-0.01), "as far from the card as was accepted, and on its other side"
    assert not withholds_a_day_later(0.0), "back where it was"
    bench.close()


def test_the_same_identity_is_checked_once_a_day_and_an_upgrade_at_once(plain: Bench) -> None:
    checks = [constancy.check_if_due(plain.node)]
    plain.now += DAY_S - 60
    checks.append(constancy.check_if_due(plain.node))
    checks.append(constancy.check_if_due(upgraded(plain)))
    plain.now += 120
    checks.append(constancy.check_if_due(upgraded(plain)))
    plain.now += DAY_S
    checks.append(constancy.check_if_due(upgraded(plain)))

    assert [found is not None for found in checks] == [True, False, True, False, True]
    with plain.database.read() as connection:
        versions = [found.identity.software_version for found in constancy_checks.history(connection, at_most=9)]
    assert versions == ["9.9.9", "9.9.9", DEVICE.software_version]


def test_a_library_of_another_version_is_checked_at_once(plain: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    constancy.check_if_due(plain.node)
    monkeypatch.setattr(constancy, "libraries", lambda: "torch 99")

    assert constancy.check_if_due(plain.node).identity.libraries == "torch 99"


def test_only_the_identity_that_failed_is_withheld(tmp_path: Path) -> None:
    scorer = Drifting()
    bench = Bench(tmp_path / "node", scorer=scorer)
    constancy.check_if_due(bench.node)
    scorer.by = 0.5
    constancy.check_if_due(upgraded(bench))

    assert constancy.reason_to_withhold(upgraded(bench)).code == "constancy_drift"
    assert constancy.reason_to_withhold(bench.node) is None
    bench.close()


def hurt_after_a_good_day(tmp_path: Path) -> tuple[Bench, Drifting]:
    """A node whose worker was well yesterday and withholds today, though it is the same worker."""
    scorer = Drifting()
    bench = Bench(tmp_path / "node", scorer=scorer)
    constancy.check_if_due(bench.node)
    scorer.by = 0.5
    bench.now += DAY_S
    assert constancy.check_if_due(bench.node).withholds
    return bench, scorer


def by_command(bench: Bench, *, drift: float = 0.0) -> None:
    """Check as `mediqa-node constancy` does, in a process with weights of its own."""
    assessor = replace(bench.node.assessor, scorer=Drifting(drift))
    constancy.check(assessor, bench.database, software_version=DEVICE.software_version, at=bench.now, made_by="command")


def test_a_good_check_by_command_does_not_speak_for_a_worker_that_drifts(tmp_path: Path) -> None:
    bench, scorer = hurt_after_a_good_day(tmp_path)

    by_command(bench)
    still = constancy.reason_to_withhold(bench.node)
    checks = history(bench)
    scorer.by = 0.0
    by_command(bench)

    assert still.code == "constancy_drift"
    assert [(found.made_by, found.passed) for found in checks[:2]] == [("worker", False), ("command", True)], (
        "the worker proves itself after a command, and cannot"
    )
    assert constancy.reason_to_withhold(bench.node) is None, "and now it can"
    assert (history(bench)[0].made_by, history(bench)[0].passed) == ("worker", True)
    bench.close()


def test_a_bad_check_by_command_withholds_until_the_worker_has_proved_itself(plain: Bench) -> None:
    constancy.check_if_due(plain.node)

    by_command(plain, drift=0.5)
    withheld = constancy.reason_to_withhold(plain.node)

    assert "5.0e-01 apart" in str(withheld)
    assert constancy.check_if_due(plain.node).passed
    assert constancy.reason_to_withhold(plain.node) is None


def test_a_worker_that_withholds_is_checked_at_its_next_start(tmp_path: Path) -> None:
    bench, scorer = hurt_after_a_good_day(tmp_path)
    scorer.by = 0.0

    assert constancy.check_if_due(bench.node) is None
    assert constancy.check_if_due(bench.node, at_start=True).passed
    bench.close()


def test_every_start_is_checked(plain: Bench) -> None:
    assert all(constancy.check_if_due(plain.node, at_start=True).passed for _ in range(3))
    assert len(history(plain)) == 3


def test_two_identities_in_turn_are_checked_once_a_day_each(plain: Bench) -> None:
    for _ in range(5):
        constancy.check_if_due(plain.node)
        constancy.check_if_due(upgraded(plain))
        plain.now += 600

    assert len(history(plain)) == 2


def test_another_graphics_device_is_another_identity(plain: Bench) -> None:
    constancy.check_if_due(plain.node)
    plain.scorer.hardware = "NVIDIA H200"

    assert constancy.check_if_due(plain.node).identity.libraries.endswith(", NVIDIA H200")


def test_a_failed_check_that_a_good_one_has_followed_cannot_be_accepted_any_more(tmp_path: Path) -> None:
    bench, scorer = hurt_after_a_good_day(tmp_path)
    scorer.by = 0.0
    constancy.check_if_due(bench.node, at_start=True)

    assert constancy.acknowledge(bench.database, "Dr. Curie", at=bench.now) is None
    bench.close()


def test_what_failed_before_an_upgrade_was_taken_back_cannot_be_accepted(tmp_path: Path) -> None:
    scorer = Drifting()
    bench = Bench(tmp_path / "node", scorer=scorer)
    constancy.check_if_due(bench.node, at_start=True)
    scorer.by = 0.5
    assert constancy.check_if_due(upgraded(bench), at_start=True).withholds
    scorer.by = 0.0
    assert constancy.check_if_due(bench.node, at_start=True).passed
    bench.now += 30 * DAY_S

    assert constancy.acknowledge(bench.database, "Dr. Curie", at=bench.now) is None

    scorer.by = 0.5
    assert constancy.check_if_due(bench.node).withholds
    bench.close()


def test_each_identity_keeps_what_was_accepted_for_it(tmp_path: Path) -> None:
    scorer = Drifting()
    bench = Bench(tmp_path / "node", scorer=scorer)
    constancy.check_if_due(bench.node)
    scorers = ((bench.node, 0.5), (upgraded(bench), 0.7))
    for node, by in scorers:
        scorer.by = by
        bench.now += DAY_S
        assert constancy.check_if_due(node, at_start=True).withholds
        assert constancy.acknowledge(bench.database, "Dr. Curie", at=bench.now) is not None

    def passes(node: NodeContext, by: float) -> bool:
        scorer.by = by
        return constancy.check_if_due(node, at_start=True).passed

    assert [passes(node, by) for node, by in scorers] == [True, True]
    assert not passes(bench.node, 0.7), "which was accepted for the other"
    bench.close()


def test_a_series_without_a_score_when_a_drift_was_accepted_is_held_against_the_card_again(plain: Bench) -> None:
    plain.scorer.constancy = Constancy(raw=constancy.check_if_due(plain.node).scores)

    def checked(scorer: StandInScorer) -> Check:
        scorer.constancy = plain.scorer.constancy
        assessor = replace(plain.node.assessor, scorer=scorer, refuse=Refuse.FLAG)  # the setting does not matter
        return constancy.check(assessor, plain.database, software_version=DEVICE.software_version, at=plain.now)

    failed = checked(Choosy())
    constancy.acknowledge(plain.database, "Dr. Curie", at=plain.now)

    finding = failed.finding()
    assert finding.startswith(f"mr_breast is not scored ({REFUSED}); the card says")
    assert history(plain)[0].refusals == {"mr_breast": REFUSED}
    assert checked(Choosy()).as_acknowledged
    assert checked(StandInScorer()).passed
    assert checked(Drifting(0.5, only="MR")).withholds


def test_memory_that_was_short_for_a_moment_is_no_finding(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "node", scorer=Failing(1))

    assert constancy.check_if_due(bench.node).passed
    assert len(history(bench)) == 1
    bench.close()


def test_what_waited_for_a_set_that_could_be_scored_goes_on_by_itself(tmp_path: Path) -> None:
    scorer = Failing(2)
    bench = Bench(tmp_path / "node", scorer=scorer)
    assert constancy.check_if_due(bench.node, at_start=True).problem == "MemoryError"
    series = judged(bench, tmp_path, "meanwhile")
    assert bench.series(series).reason.code == "constancy_unknown"
    bench.now += CONSTANCY_EVERY_S

    assert constancy.check_if_due(bench.node).passed, "at the next sweep"
    bench.pass_time(5)

    assert bench.series(series).state == "ASSESSED"
    bench.close()


def test_what_a_drift_withholds_does_not_go_on_by_itself(tmp_path: Path) -> None:
    bench, scorer = hurt_after_a_good_day(tmp_path)
    series = judged(bench, tmp_path, "while it drifts")
    scorer.by = 0.0

    assert constancy.check_if_due(bench.node, at_start=True).passed
    bench.pass_time(5)

    assert bench.series(series).state == "WITHHELD"
    bench.close()


def test_after_a_good_check_by_command_retry_is_enough(tmp_path: Path) -> None:
    bench, scorer = hurt_after_a_good_day(tmp_path)
    series = judged(bench, tmp_path, "while it drifts")
    scorer.by = 0.0
    by_command(bench)

    with bench.database.write() as connection:
        assert overview.retry(connection, [], now=bench.now) == (0, 1)
    bench.pass_time(5)

    assert bench.series(series).state == "ASSESSED"
    bench.close()


def test_a_command_that_could_not_score_the_set_withholds_nothing(plain: Bench) -> None:
    constancy.check_if_due(plain.node)
    assessor = replace(plain.node.assessor, scorer=Failing(9))
    version = DEVICE.software_version
    found = constancy.check(assessor, plain.database, software_version=version, at=plain.now, made_by="command")

    assert found.withholds
    assert constancy.reason_to_withhold(plain.node) is None
    with plain.database.read() as connection:
        assert constancy_checks.standing(connection).passed, "status and doctor go by the worker"


def test_status_goes_by_the_worker_and_by_a_command_only_without_one(plain: Bench) -> None:
    def standing() -> Check:
        with plain.database.read() as connection:
            return constancy_checks.standing(connection)

    newer = replace(plain.node.assessor)
    constancy.check(newer, plain.database, software_version="9.9.9", at=plain.now, made_by="command")
    assert standing().made_by == "command"
    constancy.check_if_due(plain.node)
    constancy.check(newer, plain.database, software_version="9.9.9", at=plain.now, made_by="command")

    assert (standing().made_by, standing().identity.software_version) == ("worker", DEVICE.software_version)


def test_status_tells_of_a_day_of_withheld_series_in_one_line(tmp_path: Path) -> None:
    bench, _ = hurt_after_a_good_day(tmp_path)
    for i in range(3):
        judged(bench, tmp_path, f"series {i}")
    settings = {"node": {"data_dir": "node"}, "database": {"url": bench.database.url}}
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))

    told = invoke_in(tmp_path, "status")

    assert told.returncode == 1
    assert "constancy   failed" in told.stdout
    assert "withheld    3 series, because the score has drifted" in told.stdout
    assert told.stdout.count("→ mediqa-node retry") == 1
    bench.close()


def test_status_does_not_call_a_set_that_could_not_be_scored_a_drift(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "node", scorer=Failing(2))
    constancy.check_if_due(bench.node)
    judged(bench, tmp_path, "a series")
    settings = {"node": {"data_dir": "node"}, "database": {"url": bench.database.url}}
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))

    told = invoke_in(tmp_path, "status").stdout

    assert "withheld    1 series, because the reference set could not be scored" in told
    assert "drifted" not in told
    bench.close()


def test_a_card_that_pins_nothing_makes_the_first_check_the_baseline(tmp_path: Path) -> None:
    scorer = Drifting()
    bench = Bench(tmp_path / "node", scorer=scorer)

    first = constancy.check_if_due(bench.node)
    bench.now += DAY_S
    second = constancy.check_if_due(bench.node)
    scorer.by = 0.01
    bench.now += DAY_S
    third = constancy.check_if_due(bench.node)

    assert (first.passed, first.compared_with) == (True, "nothing")
    assert "baseline of this site" in first.finding()
    assert (second.passed, second.compared_with, second.drift) == (True, "first", 0.0)
    assert (third.passed, third.drift) == (False, pytest.approx(0.01))
    assert "the first check at this site says" in third.finding()
    bench.close()


def test_a_pinned_series_that_is_not_scored_any_more_fails(plain: Bench) -> None:
    plain.scorer.constancy = Constancy(raw={"ct_chest": 0.0, "mr_knee": 1.0}, bound=1e6)

    found = constancy.check_if_due(plain.node)

    assert (found.passed, found.drift) == (False, None)
    assert "mr_knee is not scored" in found.finding()


@pytest.mark.acceptance
def test_a_changed_checkpoint_under_an_old_card_is_noticed(default, tmp_path: Path) -> None:
    network, scorer = default
    with moved(network, "fc_score.3.bias", 0.01):
        entry = save_checkpoint(tmp_path / "changed", network, scorer.card)
    changed = load_scorer("changed", lock={"changed": entry})

    assessor = Assessor(scorer=changed, prompts=checkpoints.prompt_rules(Settings()))
    found = constancy.check(assessor, None, software_version="1", at=0.0)

    assert changed.checkpoint.sha256 != scorer.checkpoint.sha256
    assert found.drift == pytest.approx(0.01, abs=1e-5)
    assert not found.passed


def test_a_first_check_that_is_not_recorded_is_no_baseline(plain: Bench) -> None:
    found = constancy.check(plain.node.assessor, None, software_version="1", at=0.0)

    assert found.finding() == "the card pins no scores: there is nothing to compare with"


def test_what_is_not_scored_and_what_is_harvested_go_on_while_results_are_withheld(tmp_path: Path) -> None:
    scorer = Drifting()
    bench = Bench(tmp_path / "node", scorer=scorer)
    constancy.check_if_due(bench.node)
    scorer.by = 0.5
    bench.now += DAY_S
    constancy.check_if_due(bench.node)
    scout = ct_series(tmp_path / "scout", "scout", SeriesDescription="Scout")
    bench.receive_all(scout, association="scout")
    bench.pass_time(15)

    withheld = judged(bench, tmp_path, "a series")

    assert bench.series(series_uid(scout)).state == "NOT_SCORED"
    assert bench.series(withheld).state == "WITHHELD"
    with bench.database.read() as connection:
        assert assessments.load_technique(connection, withheld).tube_charge_mas is not None
    bench.close()


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """The manifest of a copy of the reference set that a test may spoil."""
    shutil.copytree(ROOT / "mediqa_node" / "reference", tmp_path / "copy" / "reference")
    shutil.copytree(ROOT / "mediqa_node" / "demo_series", tmp_path / "copy" / "demo_series")
    return tmp_path / "copy" / "reference" / "manifest.json"


@pytest.mark.parametrize("file", ["reference/mr_breast/003.dcm", "demo_series/000.dcm"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_reference_file_that_is_not_as_packed_is_named_and_is_no_drift(
    plain: Bench, reference: Path, file: str, how: str
) -> None:
    path = reference.parents[1] / file
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1])) if how == "changed" else path.unlink()

    found = constancy.check(
        plain.node.assessor, plain.database, software_version=DEVICE.software_version, at=plain.now, manifest=reference
    )

    assert (found.passed, found.drift) == (False, None)
    assert str(path) in found.problem
    assert constancy.reason_to_withhold(plain.node).code == "constancy_unknown"
    with pytest.raises(ReferenceDamaged, match="nothing was measured"):
        constancy.acknowledge(plain.database, "Dr. Curie", at=plain.now)


@pytest.mark.acceptance
@pytest.mark.parametrize("slices", [[3], *before_release(list(range(7)))], ids=["one", "all"])
def test_a_decoder_at_fault_is_a_problem_and_no_drift(
    default, plain: Bench, reference: Path, slices: list[int]
) -> None:
    pinned = json.loads(reference.read_text())
    for number in slices:
        path = reference.parent / "mr_breast" / f"{number:03}.dcm"
        ds = pydicom.dcmread(path)
        ds.PixelData = ds.PixelData[: len(ds.PixelData) // 3]
        ds.save_as(path)
        pinned["mr_breast"]["sha256"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    reference.write_text(json.dumps(pinned))
    assessor = replace(plain.node.assessor, scorer=default[1])

    found = constancy.check(assessor, plain.database, software_version="1", at=plain.now, manifest=reference)

    assert found.problem.startswith("mr_breast: 003.dcm: " if len(slices) == 1 else "mr_breast: undecodable: none of 7")
    assert (found.withholds, found.drift, found.scores) == (True, None, {})


def test_a_header_that_cannot_be_read_is_a_problem_that_names_the_series(plain: Bench, reference: Path) -> None:
    path = reference.parent / "op_fundus" / "000.dcm"
    path.write_bytes(b"nothing that DICOM could be read from")
    pinned = json.loads(reference.read_text())
    pinned["op_fundus"]["sha256"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    reference.write_text(json.dumps(pinned))

    found = constancy.check(plain.node.assessor, None, software_version="1", at=plain.now, manifest=reference)

    assert found.problem.startswith("op_fundus: unreadable: 000.dcm")


def test_a_set_that_could_not_be_scored_is_tried_again_at_the_next_sweep(plain: Bench, reference: Path) -> None:
    (reference.parent / "op_fundus" / "000.dcm").unlink()
    assessor, version = plain.node.assessor, DEVICE.software_version
    constancy.check(assessor, plain.database, software_version=version, at=plain.now, manifest=reference)

    mended = constancy.check_if_due(plain.node)

    assert mended.passed
    assert constancy.reason_to_withhold(plain.node) is None


@pytest.mark.acceptance
def test_rules_of_the_site_for_prompts_are_no_drift(default) -> None:
    prompts, kernels = (
        yaml.safe_load((ROOT / "config" / name).read_text()) for name in ("prompts.yaml", "kernels.yaml")
    )
    taught = prompts | {"site": [{"protocol": ".?", "region": "spine"}]}
    own = Assessor(scorer=default[1], prompts=PromptRules.from_mappings(taught, kernels))
    files = read_headers(constancy.reference_series()["ct_chest"])
    scored = assess(files, harvest_series(files), own, revision=1, assessed_at=datetime.now(UTC))

    scores = constancy.reference_scores(own)

    assert scored.primary.prompt.region.value == "spine"
    assert scores["ct_chest"] != scored.primary.raw_score
    assert scores["ct_chest"] == pytest.approx(default[1].constancy.raw["ct_chest"], abs=1e-6)


def test_the_packed_images_are_those_of_the_collection_and_of_three_kinds_of_storage() -> None:
    series = constancy.reference_series()
    published = sorted((ROOT / "tests" / "data" / "mr_breast_ucsf06").glob("*.dcm"))

    with FrameReader() as reader:
        for packed, source in zip(series["mr_breast"], published, strict=True):
            assert np.array_equal(reader.raw(packed, None), pydicom.dcmread(source).pixel_array)
    syntaxes = {pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID.name for paths in series.values()}
    assert len(syntaxes) == 3
    assert all(harvest_series(read_headers(paths)).refusal is None for paths in series.values())


def test_the_set_is_small_and_packed_with_the_programme() -> None:
    folder = ROOT / "mediqa_node" / "reference"
    pinned = json.loads((folder / "manifest.json").read_text())
    listed = {f"{entry['folder']}/{file}" for entry in pinned.values() for file in entry["sha256"]}
    own = {str(path.relative_to(ROOT / "mediqa_node")) for path in folder.rglob("*.dcm")}

    assert own < listed
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 1_500_000
    assert "reference/*/*" in (ROOT / "setup.cfg").read_text()


def test_a_drift_of_one_host_is_not_hidden_by_a_good_check_of_another(tmp_path: Path) -> None:
    scorer = Drifting()
    bench = Bench(tmp_path / "node", scorer=scorer)
    a, b = (replace(bench.node, host_id=host_id) for host_id in ("a", "b"))
    constancy.check_if_due(a)
    scorer.by = 0.5
    constancy.check_if_due(b)
    scorer.by = 0.0
    constancy.check_if_due(a, at_start=True)

    assert constancy.reason_to_withhold(a) is None
    assert constancy.reason_to_withhold(b).code == "constancy_drift"
    with bench.database.read() as connection:
        assert constancy_checks.standing(connection).identity.host_id == "b"
        assert constancy_checks.failed(connection).withholds
    bench.now += 3 * DAY_S  # b has not run since
    constancy.check_if_due(a)
    with bench.database.read() as connection:
        assert constancy_checks.failed(connection) is None
    bench.close()
