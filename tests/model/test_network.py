"""The shape of the network: sizes, prompts, channel attention, weights of slices, heads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mediqa_node.domain.prompt import DIMENSIONS, MODALITIES, REGIONS, TYPES, Prompt, PromptTerm
from mediqa_node.model.heads import image_score, slice_weights, volume_score
from mediqa_node.model.network import MedIQA
from mediqa_node.model.prompts import FOUR_ONE_HOTS, PROMPT_WIDTH, PromptCode
from mediqa_node.model.sizes import SIZES
from mediqa_node.model.tab import TransposedAttention


def prompt(dimension: str = "3D", modality: str = "CT", region: str = "chest", kind: str = "lung") -> Prompt:
    terms = (PromptTerm(value=word, source="data", confidence=1.0) for word in (dimension, modality, region, kind))
    return Prompt(**dict(zip(("dimension", "modality", "region", "type"), terms, strict=True)))


@pytest.fixture(scope="module")
def small() -> MedIQA:
    torch.manual_seed(0)
    return MedIQA(SIZES["t16"], parameters=("mas", "tesla")).eval()


@pytest.mark.parametrize(("name", "millions"), [("t16", 7.3), ("s16", 27.4), ("b8", 114.2)])
def test_a_size_has_the_live_parameters_of_the_paper_shape(name, millions):
    with torch.device("meta"):
        network = MedIQA(SIZES[name])

    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_windows_divide_the_grid(size):
    assert size.image_px % size.patch_px == 0
    assert size.grid % size.window == 0


def test_each_image_of_a_batch_follows_its_own_prompt(small):
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    codes = torch.from_numpy(
        np.stack([FOUR_ONE_HOTS.encode(prompt()), FOUR_ONE_HOTS.encode(prompt("2D", "OP", "retina", "cfp"))])
    )
    with torch.inference_mode():
        together = small(images, codes).score
        apart = torch.cat([small(images[i : i + 1], codes[i : i + 1]).score for i in range(2)])
        exchanged = small(images, codes.flip(0)).score

    assert torch.allclose(together, apart, atol=1e-5)
    assert not torch.allclose(together, exchanged, atol=1e-5)


def test_prompt_is_added_after_every_layer_of_a_stage(small):
    added = torch.ones(1, 192)
    x = torch.rand(1, 192, 14, 14, generator=torch.Generator().manual_seed(2))
    stage = small.swintransformer1
    with torch.inference_mode():
        by_hand = x
        for layer in stage.layers:
            by_hand = stage.scale * layer(by_hand.permute(0, 2, 3, 1)) + by_hand + 1

        assert torch.equal(stage(x, [added, added]), by_hand)


def test_gradients_reach_every_parameter_and_do_not_change_the_score(small):
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    code = torch.from_numpy(FOUR_ONE_HOTS.encode(prompt()))[None]
    with torch.inference_mode():
        expected = small(images, code)

    found = small(images, code)
    (found.score + found.slice_logit + found.parameters.sum(dim=1)).sum().backward()

    assert torch.allclose(found.score, expected.score, atol=1e-6)
    assert [name for name, p in small.named_parameters() if p.grad is None] == []


def test_a_network_without_a_parameter_head_predicts_none():
    features = torch.zeros(1, 196, 768)

    assert MedIQA(SIZES["t16"]).predict_parameters(features).shape == (1, 0)


def test_new_sizes_may_score_below_zero_and_released_ones_may_not():
    assert isinstance(MedIQA(SIZES["t16"]).fc_score[-1], torch.nn.Identity)
    with torch.device("meta"):
        assert isinstance(MedIQA(SIZES["b8"]).fc_score[-1], torch.nn.ReLU)


def test_released_attention_reads_the_transposed_result_in_memory_order():
    torch.manual_seed(4)
    released = TransposedAttention(6, "released")
    plain = TransposedAttention(6, "transposed")
    plain.load_state_dict(released.state_dict())
    x = torch.rand(2, 4, 6)

    mixed = (plain(x) - x).detach()
    scrambled = (released(x) - x).detach()

    for image in range(2):
        for c in range(4):
            for n in range(6):
                row, column = divmod(n * 4 + c, 6)
                assert scrambled[image, row, column] == pytest.approx(float(mixed[image, c, n]), abs=1e-6)
    with pytest.raises(ValueError, match="TAB form"):
        TransposedAttention(6, "other")


def test_the_weighted_mean_of_patches_is_the_score_of_an_image():
    scores, weights = torch.tensor([[1.0, 3.0], [2.0, 2.0]]), torch.tensor([[1.0, 3.0], [0.5, 0.5]])

    assert image_score(scores, weights).tolist() == [2.5, 2.0]


def test_slices_count_alike_until_training_says_otherwise(small):
    with torch.inference_mode():
        logits = small(torch.rand(3, 3, 224, 224)).slice_logit

    assert slice_weights(logits).tolist() == pytest.approx([1 / 3] * 3)
    assert float(volume_score(torch.tensor([1.0, 2.0, 6.0]), logits)) == pytest.approx(3.0)


def test_four_one_hots_stand_side_by_side_and_the_rest_is_zero():
    code = FOUR_ONE_HOTS.encode(prompt("3D", "MR", "brain", "t2"))

    starts = np.cumsum([0, len(DIMENSIONS), len(MODALITIES), len(REGIONS)])
    places = [DIMENSIONS.index("3D"), MODALITIES.index("MR"), REGIONS.index("brain"), TYPES.index("t2")]
    assert code.shape == (PROMPT_WIDTH,)
    assert np.flatnonzero(code).tolist() == (starts + places).tolist()


def test_a_word_the_weights_never_saw_counts_as_unknown():
    older = replace(FOUR_ONE_HOTS, words={**FOUR_ONE_HOTS.words, "type": ("unknown", "t1")})

    assert np.array_equal(older.encode(prompt(kind="dwi")), older.encode(prompt(kind="unknown")))


def test_released_weights_get_one_fixed_index():
    assert np.flatnonzero(PromptCode(words={}, index=5).encode(prompt())).tolist() == [5]
