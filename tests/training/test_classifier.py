"""The prompt classifier: what is measured of it, what a node does with it, and what it may never do."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from support.bench import StandInScorer
from typer.testing import CliRunner

from mediqa_node import config
from mediqa_node.composition import checkpoints
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.errors import CheckpointRefused, ConfigurationError, UndecodablePixels
from mediqa_node.domain.prompt import Prompt, PromptTerm
from mediqa_node.domain.prompt_opinion import Opinion, completed
from mediqa_node.model.lock import LOCK_FILE
from mediqa_node.model.prompt_classifier import SHAPES, VOCABULARY, ClassifierNetwork, load_classifier
from mediqa_node.model.sizes import SIZES
from mediqa_node.pipeline.score import Assessor, assess, harvest_series, read_headers
from training.cli import app
from training.data.manifest import Row, write_manifest
from training.data.payload import slices_of
from training.fit.classifier import Example, Recipe, fit_classifier, held_out, is_good_enough, results
from training.fit.pretrained import pretrained

DATA = Path(__file__).parents[1] / "data"
FAST = Recipe(steps=30, batch=8, sure=0.5)


def pictures(n: int, *, bright: bool, seed: int) -> np.ndarray:
    """Noise in a dark or bright square, (n, 3, 128, 128)."""
    noise = np.random.default_rng(seed).normal(size=(n, 1, 128, 128)) * 0.05
    return np.clip(np.repeat((0.75 if bright else 0.25) + noise, 3, axis=1), 0, 1).astype(np.float32)


def example(source: int, *, bright: bool, region: str | None = None) -> Example:
    words = {"modality": "CT", "region": region or ("chest" if bright else "head"), "type": "unknown"}
    images = pictures(2, bright=bright, seed=source)
    return Example(source=f"s{source}", modality="CT", images=images, words=words)


@pytest.fixture(scope="module")
def taught():
    return fit_classifier([example(i, bright=bool(i % 2)) for i in range(6)], FAST)


def test_it_tells_what_it_was_taught_on_pictures_that_it_has_not_seen(taught):
    said = [taught.opinion_of(pictures(3, bright=bright, seed=99)).words["region"][0] for bright in (True, False)]

    assert said == ["chest", "head"]
    assert taught.card.words == {"modality": ("CT",), "region": ("head", "chest"), "type": ()}


def test_a_classifier_on_the_pretrained_trunk_learns_and_leaves_the_trunk_alone():
    examples = [example(i, bright=bool(i % 2)) for i in range(6)]
    large = [replace(one, images=np.kron(one.images, np.ones((2, 2)))[..., :224, :224].astype("f")) for one in examples]

    found = fit_classifier(large, Recipe(shape="trunk", steps=30, batch=4, sure=0.5))

    given, _ = pretrained(SIZES["e16"])
    state = found.network.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in given.items())
    assert [found.opinion_of(large[i].images).words["region"][0] for i in (0, 1)] == ["head", "chest"]


def test_the_same_seed_teaches_the_same_weights():
    examples = [example(i, bright=bool(i % 2)) for i in range(4)]
    short = Recipe(steps=3, batch=4)

    one, two = (fit_classifier(examples, short).network.state_dict() for _ in range(2))

    assert all(bool((one[name] == two[name]).all()) for name in one)


def test_a_source_is_judged_by_a_network_that_has_not_seen_it():
    lone = example(9, bright=True, region="breast")

    judged = held_out([*(example(i, bright=bool(i % 2)) for i in range(4)), lone], Recipe(steps=1, batch=4), folds=5)

    [(_, opinion, known, usual)] = [one for one in judged if one[0].source == "s9"]
    assert "breast" not in known
    assert opinion.words["region"][0] != "breast"
    assert usual["region"] in ("head", "chest")
    assert results(judged)["region"].unseen == 1


def test_accuracy_is_told_beside_that_of_the_usual_word_and_of_what_it_is_sure_of():
    def said(word: str, p: float) -> Opinion:
        return Opinion(words={"modality": ("CT", 1.0), "region": (word, p), "type": ("soft", 0.1)}, sure=0.9)

    usual = {"modality": "CT", "region": "chest", "type": "soft"}
    judged = [
        (
            example(i, bright=True),
            said("chest" if i < 3 else "head", 0.95 if i < 2 else 0.6),
            frozenset({"chest"}),
            usual,
        )
        for i in range(4)
    ]

    region = results(judged)["region"]

    assert (region.n, region.accuracy.value, region.usual, region.sure, region.right.value) == (4, 0.75, 1.0, 2, 1.0)
    assert results(judged)["type"].n == 0
    assert not is_good_enough(results(judged), sure=0.9), "two sources are no evidence"


def test_two_sources_are_too_few():
    with pytest.raises(ConfigurationError, match="2 sources, s0, s1: a classifier needs 3"):
        held_out([example(0, bright=True), example(1, bright=False)], FAST)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_answers_every_term(shape):
    import torch

    with torch.device("meta"):
        network = ClassifierNetwork(shape, VOCABULARY)
        logits = network(torch.empty(2, 3, SHAPES[shape].image_px, SHAPES[shape].image_px))

    assert {term: tuple(found.shape) for term, found in logits.items()} == {
        term: (2, len(words)) for term, words in VOCABULARY.items()
    }
    if shape == "paper":
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(86e6, rel=0.01)


# ── in the node ──────────────────────────────────────────────────────────────


def prompt(region: str, image_type: str) -> Prompt:
    terms = {"dimension": "3D", "modality": "CT", "region": region, "type": image_type}
    return Prompt(**{name: PromptTerm(value=value, source="text", confidence=0.8) for name, value in terms.items()})


def opinion(modality: str = "CT", region: str = "abdomen", image_type: str = "soft", p: float = 0.97) -> Opinion:
    return Opinion(words={"modality": (modality, p), "region": (region, p), "type": (image_type, p)}, sure=0.9)


def test_what_headers_leave_open_is_filled_and_what_they_say_stays():
    done = completed(prompt("unknown", "lung"), opinion())

    assert done.region == PromptTerm(value="abdomen", source="classifier", confidence=0.97)
    assert done.type.value == "lung"
    assert done.conflicts == ("type_unlike_image",)


@pytest.mark.parametrize(
    ("said", "flags"), [(opinion(p=0.85), ()), (opinion(modality="MR"), ("modality_unlike_image",))]
)
def test_one_that_is_not_sure_or_sees_another_modality_fills_nothing(said, flags):
    done = completed(prompt("unknown", "unknown"), said)

    assert (done.region.value, done.type.value, done.conflicts) == ("unknown", "unknown", flags)


class Says:
    """A classifier that always says the same, and counts what it was shown."""

    def __init__(self, said: Opinion) -> None:
        self.said = said
        self.shown = 0

    def opinion(self, images: Sequence[np.ndarray], modality: str) -> Opinion:
        self.shown = len(images)
        return self.said


def assessed(classifier: Says | None) -> Assessment:
    files = read_headers(tuple(sorted((DATA / "ct_body_totalseg_j2k").glob("*.dcm"))))
    rules = checkpoints.prompt_rules(config.load(None, {}))
    assessor = Assessor(scorer=StandInScorer(), prompts=rules, classifier=classifier)
    return assess(files, harvest_series(files), assessor, revision=1, assessed_at=datetime.now(UTC))


def test_the_node_asks_about_the_slices_that_it_scores_and_says_who_told():
    says = Says(opinion())

    without, with_it = (assessed(one).primary.prompt for one in (None, says))

    assert without.region.value == "unknown"
    assert (with_it.region.value, with_it.region.source) == ("abdomen", "classifier")
    assert says.shown == 7


def test_no_classifier_is_configured_unless_a_site_wants_one():
    assert config.load(None, {}).model.classifier is None


# ── command and checkpoint ───────────────────────────────────────────────────


def photographs(folder: Path) -> list[Row]:
    """Four sources, each with a dark picture that is called a head and a bright one that is called a retina."""
    rows = []
    for number in range(8):
        bright = bool(number % 2)
        shown = pictures(1, bright=bright, seed=number)[0, 0]
        Image.fromarray((255 * shown).astype(np.uint8)).save(path := folder / f"{number}.png")
        words = {"modality": "OP", "region": "retina"} if bright else {"modality": "CT", "region": "head"}
        kind = {"key": f"k{number}", "patient": f"k{number}", "source": f"site{number // 2}", "payload_kind": "image"}
        rows.append(Row(dimension="2D", paths=(path,), **kind, **words))
    return rows


def run(*arguments: object) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["classifier", *map(str, arguments)])
    return done.exit_code, done.output, done.exception


def test_the_command_writes_a_checkpoint_that_the_node_loads_and_nothing_else_does(tmp_path):
    write_manifest(photographs(tmp_path), tmp_path / "manifest.csv")

    code, said, _ = run("--rows", tmp_path, "--out", tmp_path / "mine", "--steps", 2)

    assert code == 1, "nobody learns anything in two steps"
    assert "8 series of 4 sources" in said
    assert "leave model.classifier at null" in said
    loaded = load_classifier("mine", tmp_path / "mine" / LOCK_FILE)
    picture = np.zeros((40, 50, 3), dtype=np.float32)
    assert loaded.opinion([picture], "OP").words["region"][0] in ("head", "retina")
    (tmp_path / "mine" / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointRefused, match="the model lock pins"):
        load_classifier("mine", tmp_path / "mine" / LOCK_FILE)


def test_a_card_whose_images_were_prepared_otherwise_is_refused(tmp_path):
    from mediqa_node.model.prompt_classifier import read_classifier_card

    card = {"format": "prompt-classifier-1", "name": "x", "shape": "small", "sure": 0.9, "preprocess": "0" * 16}
    words = {"modality": ["CT"], "region": ["head"], "type": ["soft"]}

    with pytest.raises(CheckpointRefused, match="prepared in another way"):
        read_classifier_card(json.dumps(card | {"words": words}).encode())
    with pytest.raises(CheckpointRefused, match="unknown words of region"):
        read_classifier_card(json.dumps(card | {"words": words | {"region": ["elbow"]}}).encode())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either --rows, or --collection with an optional --manifest"),
        (["--shape", "huge"], "unknown shape 'huge'; known: paper, small, trunk, vgg"),
        (["--beside", "paper"], "images of the same size, in pixels: small 128, paper 224"),
    ],
)
def test_misuse_is_answered_before_anything_is_read(tmp_path, arguments, said):
    _, _, error = run("--out", tmp_path / "mine", *arguments)

    assert isinstance(error, ConfigurationError)
    assert said in str(error)


# ── pixels of a row ──────────────────────────────────────────────────────────


def row(kind: str, *paths: Path, modality: str = "MR", **more: object) -> Row:
    return Row(key="k", patient="p", dimension="3D", modality=modality, payload_kind=kind, paths=paths, **more)


def test_a_dicom_row_shows_what_the_node_scores():
    from training.data.collection import stacks_of

    folder = DATA / "mr_breast_ucsf06"
    spec = StandInScorer().spec

    shown = slices_of(row("dicom", *sorted(folder.iterdir())), spec)

    [stack] = stacks_of(folder, spec)
    assert all(np.array_equal(one, two) for one, two in zip(shown, stack.images, strict=True))


def test_a_nifti_row_shows_axial_slices_with_right_to_the_left_and_anterior_above(tmp_path):
    volume = np.zeros((20, 30, 5), dtype=np.float32)
    volume[2:18, 2:28] = 1.0
    volume[18, 27] = 9.0
    flipped = nibabel.Nifti1Image(volume[::-1], np.diag([-1.0, 1, 1, 1]))
    nibabel.save(flipped, tmp_path / "brain.nii.gz")

    shown = slices_of(row("nifti", tmp_path / "brain.nii.gz"), StandInScorer().spec)

    assert len(shown) == 5
    assert shown[0].shape == (30, 20)
    assert np.unravel_index(shown[0].argmax(), (30, 20)) == (2, 1)


def test_an_npz_row_and_a_windowed_picture_have_their_own_units(tmp_path):
    np.savez(tmp_path / "k.npz", slices=np.full((2, 8, 9), -7, dtype=np.int16))
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(tmp_path / "k.tif")

    npz = slices_of(row("npz", tmp_path / "k.npz"), StandInScorer().spec)
    picture = slices_of(row("image", tmp_path / "k.tif", modality="CT", window=(-135.0, 215.0)), StandInScorer().spec)

    assert [one.shape for one in npz] == [(8, 9)] * 2
    assert npz[0].dtype == np.float32
    assert float(picture[0].mean()) == 40.0


def test_a_row_without_pixels_says_so(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK")

    with pytest.raises(UndecodablePixels, match=r"no pixels \(payload refs\): export them"):
        slices_of(row("refs"), StandInScorer().spec)
    with pytest.raises(UndecodablePixels, match=r"broken\.npz"):
        slices_of(row("npz", tmp_path / "broken.npz"), StandInScorer().spec)
