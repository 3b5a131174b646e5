"""How a network is run changes nothing of what it says, and one caller's trouble is never another's."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.factories import network_input

from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.execution import Execution
from mediqa_node.domain.preprocessing import NetworkInput, View
from mediqa_node.domain.prompt import Prompt, PromptTerm
from mediqa_node.model.execution import BatchingRunner, PooledRunner, chosen_device, fold, mixed, prepare
from mediqa_node.model.network import MedIQA, NetworkOutput
from mediqa_node.model.predict import NetworkScorer, load_scorer
from mediqa_node.model.prompts import FOUR_ONE_HOTS
from mediqa_node.model.sizes import SIZES
from mediqa_node.model.stem import input_channels

CPU = torch.device("cpu")


def prompt(modality: str = "CT") -> Prompt:
    words = {"dimension": "3D", "modality": modality, "region": "chest", "type": "soft"}
    return Prompt(**{name: PromptTerm(value=word, source="data", confidence=1.0) for name, word in words.items()})


@pytest.fixture(scope="module")
def scorer() -> NetworkScorer:
    return load_scorer("untrained", execution=Execution(threads=2))


@pytest.fixture(scope="module", params=["n16", "e16"])
def network(request) -> MedIQA:
    torch.manual_seed(0)
    return MedIQA(SIZES[request.param]).eval()


@pytest.fixture(scope="module")
def shots() -> list[torch.Tensor]:
    return list(torch.rand(5, 3, 224, 224, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def codes() -> list[torch.Tensor]:
    return [torch.from_numpy(FOUR_ONE_HOTS.encode(prompt(m))) for m in ("CT", "MR", "OP", "MR", "CT")]


def scores(answers: list[NetworkOutput]) -> list[float]:
    return [float(answer.score) for answer in answers]


def random_input(seed: int, slices: int = 3) -> NetworkInput:
    return network_input(np.random.default_rng(seed).random((slices, 3, 224, 224), dtype=np.float32))


def test_a_prompt_for_each_image_of_a_batch_is_the_same_as_separate_runs(network, shots, codes):
    with torch.inference_mode():
        together = network(torch.stack(shots), torch.stack(codes))
        alone = [network(shot[None], code[None]) for shot, code in zip(shots, codes, strict=True)]

    assert together.score.tolist() == pytest.approx(scores(alone), abs=2e-6)
    assert len(set(scores(alone))) == 5
    with torch.inference_mode():
        other = network(shots[0][None], codes[1][None])
    assert abs(float(other.score) - float(together.score[0])) > 1e-4, "the prompt would not matter"


def test_two_threads_agree_with_one_bit_for_bit(scorer):
    one = load_scorer("untrained", execution=Execution(threads=1))
    inputs = [random_input(seed, slices=2) for seed in range(3)]

    with ThreadPoolExecutor(2) as workers:
        together = list(workers.map(lambda one: scorer.score(one, prompt()), inputs))

    for answer, same in zip(together, inputs, strict=True):
        expected = one.score(same, prompt())
        assert answer.raw.tolist() == expected.raw.tolist()
        assert np.array_equal(answer.maps.scores, expected.maps.scores)


def test_an_exception_in_one_series_touches_no_other(scorer):
    good = random_input(7, slices=1)
    expected = scorer.score(good, prompt()).raw.tolist()
    broken = NetworkInput(images=np.full((1, 3, 224, 224), np.nan, dtype=np.float32), views=good.views)

    with ThreadPoolExecutor(2) as workers:
        tries = [workers.submit(scorer.score, one, prompt()) for one in (good, broken, good, broken, good)]

    assert [tries[i].result().raw.tolist() for i in (0, 2, 4)] == [expected] * 3
    assert all("NaN" in str(tries[i].exception()) for i in (1, 3))
    assert scorer.score(good, prompt()).raw.tolist() == expected


def test_views_of_a_slice_are_averaged_before_slices_are_weighted(scorer):
    images = random_input(3, slices=4).images
    views = [View(slice_index=i, top=0, left=0, height=224, width=224) for i in (0, 0, 0, 1)]

    answer = scorer.score(NetworkInput(images=images, views=tuple(views)), prompt())

    single = scorer.score(network_input(images), prompt()).raw
    assert answer.raw.tolist() == pytest.approx([single[:3].mean(), single[3]], abs=1e-12)
    assert answer.weights.tolist() == [0.5, 0.5]
    assert answer.maps.scores.shape == (4, 14, 14)


def test_patch_maps_carry_the_score_of_their_slice(scorer):
    inputs = random_input(5)

    answer = scorer.score(inputs, prompt())

    s, w = answer.maps.scores.astype(float), answer.maps.weights.astype(float)
    assert (s * w).sum(axis=(1, 2)) / w.sum(axis=(1, 2)) == pytest.approx(answer.raw, abs=1e-5)


# ── batches across series, as on a GPU ───────────────────────────────────────


def test_batches_of_one_shape_give_everybody_his_own_answer(network, shots, codes):
    shapes: set[tuple[int, ...]] = set()

    def forward(images: torch.Tensor, prompts: torch.Tensor) -> NetworkOutput:
        shapes.add(tuple(images.shape))
        return network(images, prompts)

    batching = BatchingRunner(forward, device=CPU, batch_images=3)
    expected = scores(PooledRunner(network, threads=1)(shots, codes))

    with ThreadPoolExecutor(3) as callers:
        answers = list(callers.map(lambda i: scores(batching(shots[i:], codes[i:])), range(4)))

    for i, found in enumerate(answers):
        assert found == pytest.approx(expected[i:], abs=2e-6)
    assert shapes == {(3, 3, 224, 224)}, "whoever waits, kernels see one shape"


def test_the_company_of_an_image_does_not_change_its_bits(network, shots, codes):
    batching = BatchingRunner(network, device=CPU, batch_images=4)

    alone = scores(batching(shots[:1], codes[:1]))
    in_company = scores(batching(shots[:4], codes[:4]))[:1]

    assert alone == in_company


@pytest.mark.parametrize("batch_images", [8, 14])
@pytest.mark.parametrize("fits", [0, 1, 2, 3])
def test_when_memory_runs_out_batches_become_smaller_and_nothing_is_lost(codes, batch_images, fits):
    shots = [torch.full((3, 4, 4), float(i)) for i in range(batch_images)]

    def forward(images: torch.Tensor, prompts: torch.Tensor) -> NetworkOutput:
        if len(images) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return NetworkOutput(images[:, 0, 0, 0], *[torch.zeros(len(images))] * 4)

    batching = BatchingRunner(forward, device=CPU, batch_images=batch_images)
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(batching, shots, [codes[0]] * batch_images)

        if fits:
            assert scores(answer.result(timeout=600)) == list(range(batch_images))
        else:
            with pytest.raises(torch.OutOfMemoryError):
                answer.result(timeout=600)
    halved = {0: 1, 1: 1, 2: {8: 2, 14: 1}[batch_images], 3: {8: 2, 14: 3}[batch_images]}
    assert batching.batch_images == halved[fits]


def test_a_failed_batch_holds_no_memory_while_a_smaller_one_is_tried(codes):
    class Held:
        """Stands for what a forward pass has allocated."""

    alive: list[weakref.ref] = []
    seen_alive: list[int] = []

    def forward(images: torch.Tensor, prompts: torch.Tensor) -> NetworkOutput:
        seen_alive.append(sum(ref() is not None for ref in alive))
        held = Held()
        alive.append(weakref.ref(held))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return NetworkOutput(*[torch.zeros(len(images))] * 5)

    BatchingRunner(forward, device=CPU, batch_images=8)([torch.zeros(3, 4, 4)] * 8, [codes[0]] * 8)

    assert set(seen_alive) == {0}


def test_an_image_that_breaks_its_batch_breaks_alone(network, shots, codes):
    def forward(images: torch.Tensor, prompts: torch.Tensor) -> NetworkOutput:
        if (images > 2).any():
            raise RuntimeError("bad image")
        return network(images, prompts)

    batching = BatchingRunner(forward, device=CPU, batch_images=4)
    with ThreadPoolExecutor(2) as callers:
        bad = callers.submit(batching, [shots[0] + 5], codes[:1])
        good = callers.submit(batching, shots[1:4], codes[1:4])

    assert "bad image" in str(bad.exception())
    assert scores(good.result()) == pytest.approx(
        scores(PooledRunner(network, threads=1)(shots[1:4], codes[1:4])), abs=2e-6
    )


# ── what moves a score, by how much ──────────────────────────────────────────


@pytest.mark.parametrize("form", ["transposed", "released"])
def test_folded_projections_move_a_score_by_no_more_than_rounding(form, shots, codes):
    torch.manual_seed(0)
    network = MedIQA(replace(SIZES["n16"], tab=form)).eval()
    with torch.inference_mode():
        before = [float(network(s[None], c[None]).score) for s, c in zip(shots, codes, strict=True)]
        fold(network)
        after = [float(network(s[None], c[None]).score) for s, c in zip(shots, codes, strict=True)]

    assert after == pytest.approx(before, abs=2e-6)
    assert sum(p.numel() for p in network.tablock1.parameters()) < sum(
        p.numel() for p in MedIQA(SIZES["n16"]).tablock1.parameters()
    )


def test_bfloat16_keeps_heads_in_float32_and_stays_near(network, shots, codes):
    forward = mixed(network)
    with torch.inference_mode():
        exact, found = ([run(shots[i][None], codes[i][None]) for i in range(3)] for run in (network, forward))

    assert found[0].patch_score.dtype == found[0].patch_weight.dtype == torch.float32
    spread = np.ptp(scores(exact))
    assert 0 < np.abs(np.subtract(scores(found), scores(exact))).max() < 0.5 * spread


def test_bfloat16_leaves_small_noise_measurable():
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    image = (0.6 + 0.01 * noise).expand(1, 3, 64, 64)
    exact = input_channels(image, ("mscn", "log_sd"))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = input_channels(image, ("mscn", "log_sd"))

    assert torch.equal(found, exact)


def test_what_the_machine_cannot_do_is_refused(network, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with pytest.raises(CheckpointRefused, match="no AMX"):
        prepare(network, Execution(precision="bf16"), CPU)
    with pytest.raises(CheckpointRefused, match="cuda_graph"):
        prepare(network, Execution(cuda_graph=True), CPU)
    for name in ("gpu0", "mps", "meta", "cuda:x", "cuda:-1", ""):
        with pytest.raises(CheckpointRefused, match="must be auto, cpu, cuda or cuda:N"):
            chosen_device(name)
    with pytest.raises(CheckpointRefused, match="no CUDA device"):
        chosen_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.acceptance
def test_a_compiled_network_stays_near(network, shots, codes):
    compiled = prepare(network, Execution(compile=True, threads=1), CPU)

    plain = scores(PooledRunner(network, threads=1)(shots, codes))

    assert scores(compiled(shots, codes)) == pytest.approx(plain, abs=5e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("choice", [{}, {"precision": "bf16"}, {"cuda_graph": True}, {"fold_tab": True}])
def test_every_way_to_run_on_a_gpu_stays_near(scorer, choice):
    inputs = random_input(11, slices=7)
    bound = 0.02 if choice.get("precision") == "bf16" else 1e-4

    on_gpu = load_scorer("untrained", execution=Execution(device="cuda", **choice))

    first, second = (on_gpu.score(inputs, prompt()).raw.tolist() for _ in range(2))
    assert first == second
    assert first == pytest.approx(scorer.score(inputs, prompt()).raw.tolist(), abs=bound)
