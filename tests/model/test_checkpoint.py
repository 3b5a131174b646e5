"""Only what the lock pins is loaded, and only if this version can honour its card."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.siblings import one_in

from mediqa_node.domain.constancy import Constancy
from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.model.card import DEFAULT_PREPROCESSING, Card, PredictedParameter, QualityMap, read_card
from mediqa_node.model.checkpoint import load_checkpoint, save_checkpoint
from mediqa_node.model.lock import CARD_FILE, DEFAULT_LOCK, WEIGHTS_FILE, LockEntry, digest, read_lock
from mediqa_node.model.network import MedIQA
from mediqa_node.model.sizes import SIZES

CARD = Card(
    name="chest",
    size="t16",
    trained=True,
    weights_sha256="0" * 64,
    quality=QualityMap(kind="clamp", a=0.0, b=5.0),
    parameters=(PredictedParameter(name="mas", unit="mA.s", modality="CT", scale="log"),),
    constancy=Constancy(raw={"ct_chest": -1.5}, bound=2e-4, bound_bf16=0.01),
    metrics={"srcc": 0.9},
)


@pytest.fixture(scope="module")
def network() -> MedIQA:
    torch.manual_seed(0)
    return MedIQA(SIZES["t16"], parameters=("mas",)).eval()


@pytest.fixture
def saved(tmp_path, network) -> LockEntry:
    return save_checkpoint(tmp_path / "chest", network, CARD)


def repinned(entry: LockEntry) -> LockEntry:
    """The entry after somebody reviewed what now lies in the folder."""
    weights, card = ((entry.directory / name).read_bytes() for name in (WEIGHTS_FILE, CARD_FILE))
    return replace(entry, sha256=digest(weights), card_sha256=digest(card))


def with_card(entry: LockEntry, **changes: object) -> dict[str, LockEntry]:
    path = entry.directory / CARD_FILE
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))
    return {"chest": repinned(entry)}


def test_a_saved_checkpoint_comes_back_as_it_was(saved, network):
    loaded, card = load_checkpoint("chest", {"chest": saved})

    assert not loaded.training
    assert card == replace(CARD, weights_sha256=saved.sha256)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_one_changed_byte_in_weights_or_card_is_refused(saved):
    for name in (WEIGHTS_FILE, CARD_FILE):
        path = saved.directory / name
        original = path.read_bytes()
        path.write_bytes(original[:-2] + bytes([original[-2] ^ 1]) + original[-1:])
        with pytest.raises(CheckpointRefused, match="SHA-256"):
            load_checkpoint("chest", {"chest": saved})
        path.write_bytes(original)


def test_a_name_outside_the_lock_is_refused(saved):
    with pytest.raises(CheckpointRefused, match="it has: chest"):
        load_checkpoint("brain", {"chest": saved})


def test_a_missing_file_is_refused(saved):
    (saved.directory / WEIGHTS_FILE).unlink()

    with pytest.raises(CheckpointRefused, match="cannot be read"):
        load_checkpoint("chest", {"chest": saved})


@pytest.mark.parametrize(
    ("changes", "said"),
    one_in(
        2,
        [
            ({"size": "x32"}, "unknown size 'x32'"),
            ({"format": 9}, "card format 9"),
            ({"trained": "yes"}, "trained"),
            ({"surprise": 1}, "surprise"),
            ({"preprocess": {"size_px": 384, "slices": 7, "intensity": {}}}, "size_px 384"),
            ({"preprocess": {"size_px": 224, "slices": 0, "intensity": {}}}, "slices"),
            ({"preprocess": {"size_px": 224, "slices": 7, "intensity": {}, "clahe": True}}, "clahe"),
            ({"preprocess": {"size_px": 224, "slices": 7, "intensity": {}, "sampled": ["US"]}}, "sampled"),
            (
                {
                    "preprocess": {
                        "size_px": 224,
                        "slices": 7,
                        "intensity": {"CT": {"kind": "minmax", "low": 0, "high": 1}},
                    }
                },
                "unknown intensity rule of CT 'minmax'",
            ),
            ({"quality": {"kind": "spline", "a": 0, "b": 1}}, "unknown quality kind"),
            ({"quality": {"kind": "logistic", "a": 0, "b": -1}}, "does not rise"),
            ({"prompt": {"index": 64, "words": {}}}, "prompt index 64"),
            ({"prompt": {"index": None, "words": {"dimension": ["4D"]}}}, "prompt words"),
            ({"constancy": {"raw": {}}}, "constancy pins no reference series"),
            ({"constancy": {"raw": {"ct_chest": "high"}}}, "constancy of ct_chest: 'high'"),
            ({"constancy": {"raw": {"ct_chest": 1.0}, "bound": 0}}, "constancy bound 0"),
            ({"constancy": {"raw": {"ct_chest": 1.0}, "limit": 1}}, "limit"),
            ({"parameters": [{"name": "kvp", "unit": "kV", "modality": "CT"}]}, "unknown parameter 'kvp'"),
        ],
    ),
)
def test_a_card_this_version_cannot_honour_is_refused(saved, changes, said):
    with pytest.raises(CheckpointRefused, match=said):
        load_checkpoint("chest", with_card(saved, **changes))


def test_a_card_that_is_not_json_is_refused():
    with pytest.raises(CheckpointRefused):
        read_card(b"\x80\x04 not json")
    with pytest.raises(CheckpointRefused, match="lacks 'preprocess'"):
        read_card(b'{"format": 1}')


def test_released_weights_refuse_prompt_words_they_were_never_taught():
    with pytest.raises(CheckpointRefused, match="fixed prompt index"):
        read_card(replace(CARD, size="b8", parameters=()).to_json())


def test_weights_of_another_size_or_with_a_gap_are_refused(saved):
    path = saved.directory / WEIGHTS_FILE
    state = load_file(path)
    for change in (
        lambda s: s.pop("conv1.weight"),
        lambda s: s.update(extra=torch.zeros(1)),
        lambda s: s.update({"conv1.weight": torch.zeros(2, 2)}),
        lambda s: s.update({"conv1.bias": torch.full((192,), float("nan"))}),
    ):
        broken = dict(state)
        change(broken)
        save_file(broken, path)
        entries = with_card(saved, weights_sha256=digest(path.read_bytes()))
        with pytest.raises(CheckpointRefused, match="weights"):
            load_checkpoint("chest", entries)


def test_dead_parameters_of_a_release_are_left_aside_and_slice_weights_may_be_missing(saved):
    path = saved.directory / WEIGHTS_FILE
    state = {name: value for name, value in load_file(path).items() if not name.startswith("slice_weight.")}
    save_file({**state, "vit.blocks.11.norm1.bias": torch.zeros(192), "vit.head.bias": torch.zeros(1000)}, path)

    loaded, _ = load_checkpoint("chest", with_card(saved, weights_sha256=digest(path.read_bytes())))

    assert not loaded.slice_weight.weight.any()


def test_a_pickle_is_never_read(saved):
    path = saved.directory / WEIGHTS_FILE
    path.write_bytes(pickle.dumps({"conv1.weight": 0}))

    with pytest.raises(CheckpointRefused, match="do not fit"):
        load_checkpoint("chest", with_card(saved, weights_sha256=digest(path.read_bytes())))


def test_a_lock_file_names_folders_relative_to_itself(tmp_path, saved):
    lock = tmp_path / "models.lock"
    lock.write_text(f"chest:\n  directory: chest\n  sha256: {saved.sha256}\n  card_sha256: {saved.card_sha256}\n")

    assert load_checkpoint("chest", lock)[1].name == "chest"
    lock.write_text("chest:\n  url: https://example.org/weights\n  sha256: x\n  card_sha256: y\n")
    with pytest.raises(CheckpointRefused, match="url"):
        read_lock(lock)


def test_the_untrained_one_says_so_and_has_the_pinned_bytes():
    _, card = load_checkpoint("untrained")

    assert (card.size, card.trained) == ("t16", False)
    assert card.weights_sha256 == read_lock(DEFAULT_LOCK)["untrained"].sha256
    assert card.preprocess == DEFAULT_PREPROCESSING
    assert card.preprocess.fingerprint() == DEFAULT_PREPROCESSING.fingerprint()


def test_cards_round_trip():
    assert read_card(CARD.to_json()) == CARD


def test_nothing_outside_this_room_needs_torch():
    listed = "import sys, mediqa_node.domain.assessment as _; print('torch' in sys.modules, 'timm' in sys.modules)"

    assert subprocess.check_output([sys.executable, "-c", listed], text=True).split() == ["False", "False"]
