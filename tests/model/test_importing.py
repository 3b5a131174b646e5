"""Weights of others: tensors are taken in by name, everything else is refused in one line, and nothing runs."""

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.factories import network_input
from support.sizes import registered

from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.prompt import Prompt, PromptTerm
from mediqa_node.model.card import QualityMap
from mediqa_node.model.checkpoint import load_checkpoint
from mediqa_node.model.importing import Provenance, import_weights
from mediqa_node.model.lock import LOCK_FILE, WEIGHTS_FILE
from mediqa_node.model.network import MedIQA
from mediqa_node.model.parity import released_names
from mediqa_node.model.predict import load_scorer
from mediqa_node.model.sizes import SIZES, Size

TINY = Size(
    name="tiny", embed_dim=24, heads=2, mlp_dim=24, depth=3, taps=(0, 1, 2), tabs=1, swin_layers=1, swin_heads=2
)
SMALL = Provenance(kind="mediqa", size="tiny", prompt_index=5)
DEAD = ("vit.blocks.10.norm1.weight", "vit.blocks.11.attn.qkv.bias", "vit.norm.bias", "vit.head.weight")
REBUILT = ("swintransformer1.layers.0.blocks.1.attn_mask", "tablock1.attn.relative_position_index")


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with registered(TINY):
        yield


def state(*, prompted: bool = True) -> dict[str, torch.Tensor]:
    """A release in small: the live parameters, some dead ones, some buffers."""
    torch.manual_seed(3)
    network = MedIQA(TINY, prompted=prompted)
    live = {name: value for name, value in network.state_dict().items() if not name.startswith("slice_weight")}
    rebuilt = dict.fromkeys(REBUILT, torch.zeros(2, dtype=torch.int64))
    return {**live, **dict.fromkeys(DEAD, torch.zeros(2)), **rebuilt}


def saved(folder: Path, content: object) -> Path:
    torch.save(content, path := folder / "weights.pt")
    return path


class Trap:
    """What a hostile pickle looks like: opening it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.write_text, (self.path, "it ran"))


def prompt() -> Prompt:
    words = {"dimension": "3D", "modality": "CT", "region": "chest", "type": "soft"}
    return Prompt(**{name: PromptTerm(value=word, source="data", confidence=1.0) for name, word in words.items()})


def test_a_state_dict_becomes_a_pinned_checkpoint_with_the_same_tensors(tmp_path):
    content = state()

    card = import_weights(saved(tmp_path, content), tmp_path / "out", "ours", SMALL)

    network, read = load_checkpoint("ours", tmp_path / "out" / LOCK_FILE)
    assert read == card
    assert all(torch.equal(value, content[name]) for name, value in network.state_dict().items() if name in content)
    assert network.slice_weight.weight.abs().sum() == 0, "slices count alike, as in the public code"
    assert (card.prompt.index, card.quality, card.preprocess.slice_rule) == (5, None, "released")
    assert "not published" in card.training_data


def test_without_a_map_there_are_raw_scores_and_no_quality(tmp_path):
    images = np.random.default_rng(0).random((2, 3, 224, 224), dtype=np.float32)
    path = saved(tmp_path, state())
    import_weights(path, tmp_path / "raw", "a", SMALL)
    import_weights(path, tmp_path / "mapped", "a", Provenance(
        kind="mediqa", size="tiny", prompt_index=5, quality=QualityMap(kind="clamp", a=-10, b=10)
    ))  # fmt: skip

    raw, mapped = (
        load_scorer("a", lock=tmp_path / name / LOCK_FILE).score(network_input(images), prompt())
        for name in ("raw", "mapped")
    )

    assert raw.quality is None
    assert raw.raw.tolist() == mapped.raw.tolist()
    assert mapped.quality.tolist() == pytest.approx(((mapped.raw + 10) / 20).tolist())


def test_maniqa_has_no_prompts_and_keeps_its_scale(tmp_path):
    provenance = Provenance(kind="maniqa", size="tiny", scale=0.13)

    card = import_weights(saved(tmp_path, state(prompted=False)), tmp_path / "out", "koniq", provenance)

    network, _ = load_checkpoint("koniq", tmp_path / "out" / LOCK_FILE)
    assert network.MLP1 is None
    assert network.swintransformer1.scale == 0.13
    assert (card.prompt, card.preprocess.output_range) == (None, (-1.0, 1.0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("conv1.weight"), "missing 1: conv1.weight"),
        (lambda s: s.update(surprise=torch.zeros(1)), "unexpected 1: surprise"),
        (lambda s: s.update({"conv2.weight": torch.zeros(1)}), "conv2.weight has shape"),
        (lambda s: s.update({"conv1.bias": torch.full((24,), float("nan"))}), "NaN"),
        (lambda s: s.update({f"module.{k}": s.pop(k) for k in list(s)}), "DistributedDataParallel"),
    ],
    ids=["gap", "renamed", "shape", "NaN", "wrapped"],
)
def test_weights_of_another_network_are_refused(tmp_path, change, said):
    change(content := state())

    with pytest.raises(CheckpointRefused, match=said) as refusal:
        import_weights(saved(tmp_path, content), tmp_path / "out", "x", SMALL)

    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_mediqa_is_not_taken_for_maniqa(tmp_path):
    with pytest.raises(CheckpointRefused, match="may be weights of MedIQA"):
        import_weights(saved(tmp_path, state()), tmp_path / "out", "x", Provenance(kind="maniqa", size="tiny"))


@pytest.mark.parametrize(
    "write",
    [
        lambda path, trap: torch.save({"conv1.weight": trap}, path),
        lambda path, trap: torch.save(trap, path, _use_new_zipfile_serialization=False),
        lambda path, trap: path.write_bytes(pickle.dumps(trap)),
        lambda path, trap: torch.save(MedIQA(SIZES["n16"]), path),
    ],
    ids=["in a state dict", "old format", "bare pickle", "whole model"],
)
def test_a_pickle_is_refused_and_never_run(tmp_path, write):
    write(path := tmp_path / "evil.pt", Trap(tmp_path / "proof"))

    with pytest.raises(CheckpointRefused, match=r"evil\.pt") as refusal:
        import_weights(path, tmp_path / "out", "x", SMALL)

    assert not (tmp_path / "proof").exists()
    assert "state_dict" in str(refusal.value) or "not a PyTorch file" in str(refusal.value)


def test_a_file_cut_short_or_of_another_kind_is_refused(tmp_path):
    whole = saved(tmp_path, state()).read_bytes()
    for name, content in (("cut.pt", whole[: len(whole) // 2]), ("text.pt", b"not weights"), ("none.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointRefused, match="truncated"):
            import_weights(tmp_path / name, tmp_path / "out", "x", SMALL)
    for content in ([torch.zeros(1)], {}, {"epoch": 3}):
        with pytest.raises(CheckpointRefused, match="no state dict"):
            import_weights(saved(tmp_path, content), tmp_path / "out", "x", SMALL)


def test_imported_weights_with_a_changed_byte_are_refused(tmp_path):
    import_weights(saved(tmp_path, state()), tmp_path / "out", "x", SMALL)
    path = tmp_path / "out" / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\1")

    with pytest.raises(CheckpointRefused, match="SHA-256"):
        load_checkpoint("x", tmp_path / "out" / LOCK_FILE)


def test_a_folder_that_holds_a_checkpoint_is_left_alone(tmp_path):
    path = saved(tmp_path, state())
    import_weights(path, tmp_path / "out", "x", SMALL)

    with pytest.raises(CheckpointRefused, match="not an empty folder"):
        import_weights(path, tmp_path / "out", "x", SMALL)


def test_a_folder_that_somebody_pins_by_hand_is_not_overwritten(tmp_path):
    (folder := tmp_path / "chest").mkdir()
    (folder / WEIGHTS_FILE).write_bytes(b"precious")

    with pytest.raises(CheckpointRefused, match="not an empty folder"):
        import_weights(saved(tmp_path, state()), folder, "x", SMALL)

    assert (folder / WEIGHTS_FILE).read_bytes() == b"precious"


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1, dtype=torch.half).expand(10**13),
        torch.zeros(24, device="meta"),
        torch.zeros(24).to_sparse(),
        torch.zeros(24, dtype=torch.complex64),
        torch.zeros(24, dtype=torch.int64),
    ],
    ids=["expanded", "meta", "sparse", "complex", "integer"],
)
def test_tensors_that_are_no_plain_numbers_are_refused_before_they_are_touched(tmp_path, tensor):
    path = saved(tmp_path, state() | {"conv1.bias": tensor})

    with pytest.raises(CheckpointRefused, match=r"plain tensors|not a PyTorch file"):
        import_weights(path, tmp_path / "out", "x", SMALL)


def test_an_archive_that_would_grow_is_refused(tmp_path):
    path = saved(tmp_path, state())
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for record in source.infolist():
            bomb.writestr(record.filename, source.read(record))

    with pytest.raises(CheckpointRefused, match="compressed records"):
        import_weights(tmp_path / "bomb.pt", tmp_path / "out", "x", SMALL)


def test_a_name_that_would_draw_on_the_terminal_is_shown_as_it_is_written(tmp_path):
    content = state() | {"evil\n\x1b[31m": torch.zeros(1)}

    with pytest.raises(CheckpointRefused, match="unexpected") as refusal:
        import_weights(saved(tmp_path, content), tmp_path / "out", "x", SMALL)

    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "provenance",
    [
        Provenance(kind="mediqa", size="tiny", quality=QualityMap(kind="clamp", a=5, b=1)),
        Provenance(kind="mediqa", size="tiny", quality=QualityMap(kind="clamp", a=float("nan"), b=1)),
        Provenance(kind="mediqa", size="tiny", scale=5),
        Provenance(kind="mediqa", size="tiny", scale=float("nan")),
    ],
    ids=["falling", "NaN", "scale", "NaN scale"],
)
def test_what_no_card_can_say_is_refused_before_anything_is_written(tmp_path, provenance):
    with pytest.raises(CheckpointRefused, match="cannot be honoured"):
        import_weights(saved(tmp_path, state()), tmp_path / "out", "x", provenance)

    assert not (tmp_path / "out").exists()


def mediqa_node(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mediqa_node", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["mediqa", "maniqa"])
def test_recipe_weights_score_a_series_as_the_recipe_network_scores_what_was_dumped(tmp_path, kind):
    from mediqa_node.model.parity import Case, recipe_network, recipe_value

    case = Case(group="own", kind=kind, salt=11, image=0, prompt_index=9, scale=0.8, expected={})
    reference = recipe_network(case)
    live = dict(reference.named_parameters())
    places = {name: place for place, name in enumerate(released_names(prompted=kind == "mediqa"))}
    content = {
        name: torch.from_numpy(recipe_value(name, tuple(live[name].shape), place, 11))
        if name in live
        else torch.zeros(1)
        for name, place in places.items()
    }
    flags = ["--prompt-index", 9] if kind == "mediqa" else []
    series = Path(__file__).parents[1] / "data" / "ct_sts003_lowdose"
    if kind == "maniqa":
        series = min(series.glob("*.dcm"))  # four views of each slice: one slice is enough

    made = mediqa_node(
        "model", "import", "--kind", kind, *flags, saved(tmp_path, content), "--out", tmp_path / "out", "--untrained"
    )
    finished = mediqa_node("score", "--json", "--model", tmp_path / "out", "--dump-input", tmp_path / "dump", series)

    assert made.returncode == finished.returncode == 0, made.stderr + finished.stderr
    [result] = json.loads(finished.stdout)
    assert "UNTRAINED" in finished.stderr
    with np.load(result["network_input"]) as dumped, torch.inference_mode():
        code = torch.from_numpy(dumped["prompt"])[None] if kind == "mediqa" else None
        views = [float(reference(torch.from_numpy(image)[None], code).score) for image in dumped["images"]]
        slices = [
            np.mean([v for v, s in zip(views, dumped["slice_of"], strict=True) if s == i])
            for i in set(dumped["slice_of"])
        ]
    assert result["raw_score"] == pytest.approx(np.mean(slices), abs=1e-6)
    assert result["slice_raw_scores"] == pytest.approx(slices, abs=1e-6)
    assert result["quality"] is None
