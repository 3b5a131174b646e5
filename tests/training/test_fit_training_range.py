"""Limits fitted from folders: by the node's own code, honest about patients, clear about what is wrong."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.bench import Bench, StandInScorer
from support.factories import range_position
from support.limits import ABDOMEN, DATA, DEMO, PELVIS, THIGH
from support.series import ct_series
from typer.testing import CliRunner

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.preprocessing import NetworkInput
from mediqa_node.domain.range_position import RangePosition
from mediqa_node.image.preprocess import preprocess
from mediqa_node.model.card import DEFAULT_PREPROCESSING as SPEC
from mediqa_node.model.card_training_range import read_training_ranges
from training.cli import app
from training.data.collection import read_collection, stacks_of
from training.fit.degradations import DEGRADATIONS, worse_copies
from training.fit.recipe import STAGE2, read_recipe
from training.fit.training_range import Measured, fit_training_ranges, held_out, measure

SLICES = 2


def collection(folder: Path, items: dict[str, tuple[Path, str]], same_fold: list[list[str]] | None = None) -> Path:
    """A collection with the first slices of real folders, and its manifest."""
    for name, (source, _) in items.items():
        (folder / name).mkdir(parents=True)
        for path in sorted(source.iterdir())[:SLICES]:
            shutil.copy(path, folder / name)
    content = {
        "items": [{"id": name, "split": split, "modality": "CT"} for name, (_, split) in items.items()],
        "same_fold": same_fold or [],
    }
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


PATIENTS = {"thigh": (THIGH, "dev"), "pelvis": (PELVIS, "dev"), "abdomen": (ABDOMEN, "dev"), "chest": (DEMO, "dev")}


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    return collection(tmp_path / "images", PATIENTS)


@pytest.fixture(scope="module")
def with_scout(tmp_path_factory: pytest.TempPathFactory) -> list[Measured]:
    """The patients and a scout view, measured once."""
    items = {**PATIENTS, "scout": (DATA / "refuse" / "mr_survey_scout", "dev")}
    folder = collection(tmp_path_factory.mktemp("measured") / "images", items)
    return measure(read_collection(folder, folder / "manifest.json"), SPEC, advance=lambda *_: None)


def run(*arguments: object) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output, done.exception


def test_the_command_writes_domains_that_a_card_takes_and_says_how_patients_fared(patients, tmp_path):
    ct_series(patients / "water", "water")
    manifest = json.loads((patients / "manifest.json").read_text())
    manifest["items"].append({"id": "water", "split": "refuse"})
    (patients / "manifest.json").write_text(json.dumps(manifest))

    code, said, _ = run(
        "domain", "--collection", patients, "--manifest", patients / "manifest.json", "--out", tmp_path / "out.json"
    )

    assert code == 0, said
    of_new_checkpoints = read_recipe(STAGE2, "default").spec
    domains = read_training_ranges(json.loads((tmp_path / "out.json").read_text()), of_new_checkpoints)
    assert set(domains) == {"CT"}
    assert (domains["CT"].sources, domains["CT"].round_field) == (4, False)
    lines = {line.split()[2]: line for line in said.splitlines() if line.startswith("CT ")}
    assert set(lines) == {"thigh", "pelvis", "abdomen", "chest", "water"}
    assert lines["abdomen"].split()[:5] == ["CT", "patient", "abdomen", "1", "0"]
    assert lines["water"].split()[:2] == ["CT", "foreign"]


class Witness(StandInScorer):
    """A scorer that keeps what the node shows it, prepared as new checkpoints want it."""

    spec = SPEC

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[NetworkInput] = []

    def range_position(self, inputs: NetworkInput, modality: str) -> RangePosition | None:
        self.shown.append(inputs)
        return range_position()


def test_training_measures_what_the_node_shows_its_network(tmp_path):
    witness = Witness()
    bench = Bench(tmp_path / "bench", scorer=witness)
    bench.receive_all(sorted(DEMO.glob("*.dcm")))
    bench.pass_time(600)
    bench.close()

    [stack] = stacks_of(DEMO, SPEC)
    mine = preprocess(stack.images, SPEC, modality=stack.modality, image_type=stack.image_type)

    [of_node] = witness.shown
    assert of_node.views == mine.views
    assert np.array_equal(of_node.images, mine.images)


@pytest.mark.acceptance
def test_sets_of_one_fold_are_one_source_and_are_held_out_together(with_scout, tmp_path):
    folder = collection(tmp_path / "images", PATIENTS, same_fold=[["thigh", "pelvis"]])
    sets = {one.name: one for one in read_collection(folder, folder / "manifest.json")}
    measured = [replace(one, belongs_to=sets[one.belongs_to.name]) for one in with_scout if one.belongs_to.name in sets]

    assert fit_training_ranges(measured, SPEC)["CT"].sources == 3
    assert list(held_out(measured, SPEC)) == [], "with three sources, none can be held out"


def test_what_the_node_would_refuse_by_header_is_not_learnt_from(with_scout):
    [scout] = [one for one in with_scout if one.belongs_to.name == "scout"]
    assert str(scout.refused).startswith("localizer")
    assert scout.worse == ()
    assert set(fit_training_ranges(with_scout, SPEC)) == {"CT"}


def test_two_sources_are_too_few_and_the_message_names_them(tmp_path):
    folder = collection(tmp_path / "images", dict(list(PATIENTS.items())[:2]))

    _, _, error = run(
        "domain", "--collection", folder, "--manifest", folder / "manifest.json", "--out", tmp_path / "out.json"
    )

    assert isinstance(error, ConfigurationError)
    assert "CT has 2 sources, thigh, pelvis; limits need 3 or more" in str(error)
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ('{"items": [{"id": "x"}]}', "items.0.split: Field required"),
        ('{"items": [{"id": "x", "split": "test"}]}', "items.0.split: Input should be 'dev' or 'refuse'"),
        ('{"items": [{"id": "nowhere", "split": "dev"}]}', "no folder for: nowhere"),
        ('{"items": []}', "no patients"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named_with_its_fault(tmp_path, content, said):
    (tmp_path / "manifest.json").write_text(content)

    _, _, error = run(
        "domain", "--collection", tmp_path, "--manifest", tmp_path / "manifest.json", "--out", tmp_path / "out.json"
    )

    assert isinstance(error, ConfigurationError)
    assert said in str(error)


def test_worse_copies_are_as_much_worse_as_they_say_and_the_same_every_time():
    flat = [np.full((256, 256), 40.0, dtype=np.float32)] * 2
    kind = {"modality": "CT", "image_type": "soft"}

    once, again = (list(worse_copies(flat, SPEC, **kind, random=np.random.default_rng(1))) for _ in range(2))

    assert [np.array_equal(a, b) for a, b in zip(once, again, strict=True)] == [True] * len(DEGRADATIONS["CT"])
    for copy, how in zip(once, DEGRADATIONS["CT"], strict=True):
        expected_hu = how.noise * 400 * 256 / 224
        assert float(np.std(copy[0])) == pytest.approx(expected_hu, rel=0.02, abs=1e-3)


def test_a_blurred_copy_keeps_the_mean_and_spreads_an_edge():
    step = [np.where(np.arange(224) < 112, 0.0, 100.0)[None].repeat(224, 0).astype(np.float32)]

    copies = list(worse_copies(step, SPEC, modality="CT", image_type="soft", random=np.random.default_rng(1)))
    [blurred] = [copy[0] for copy, how in zip(copies, DEGRADATIONS["CT"], strict=True) if how.blur_px == 1.5]

    assert float(blurred.mean()) == pytest.approx(50.0, abs=0.1)
    slope = np.diff(blurred[100].astype(float))
    centre = (slope * np.arange(223)).sum() / slope.sum()
    assert np.sqrt((slope * (np.arange(223) - centre) ** 2).sum() / slope.sum()) == pytest.approx(1.5, rel=0.05)
