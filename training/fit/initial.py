"""Initial weights that pass the details of an image from the first step.

With the public initialisation the convolutional stem's output is a fortieth of its input and the difference between two
images a four-hundredth, far below the contribution of prompts: nothing is learnt for hundreds of steps. So every
convolution and the first layer of both branches are scaled until their outputs have mean 0 and deviation 1 over a batch
of real images, channel by channel, front to back (Kraehenbuehl et al. 2016, arXiv 1511.06856).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mediqa_node.model.network import MedIQA
from mediqa_node.model.stem import ConvStem
from training.data.batches import Batch

_LEAST = 1e-3
"""Smallest deviation of a channel that is scaled."""


BATCHES = 8
"""From so many batches the tokens of a pretrained trunk are standardised."""


def initialise(network: MedIQA, batches: Sequence[Batch], *, encoder: bool = True, score: float = 0.5) -> MedIQA:
    """Set the initial weights of a network in place, from torch's current seed and some batches.

    Args:
        batches: layers are scaled on the first; tokens of a pretrained trunk are standardised over all.
        encoder: False leaves the encoder unchanged, for example as trained in stage 1.
        score: output of the untrained network, the middle of the labels.
    """
    network.eval()
    if encoder and network.size.trunk is not None:
        _standardise_tokens(network, batches)
    last = network.fc_score[3]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, std=0.02)
    nn.init.constant_(last.bias, score)
    for layer in (*(_stem(network) if encoder else ()), *_behind(network)):
        _standardise(layer, network, batches[0])
    return network


@torch.no_grad()
def _standardise_tokens(network: MedIQA, batches: Sequence[Batch]) -> None:
    images = (batch.images for batch in batches)
    network.embedding.standardise(torch.cat([one if one.ndim == 3 else network.trunk(one) for one in images]))


def _stem(network: MedIQA) -> Iterator[nn.Conv2d | nn.Linear]:
    if network.size.trunk is not None:
        yield network.embedding.fc
        return
    embedding = network.vit.patch_embed
    if isinstance(embedding, ConvStem):
        yield from (layer for layer in embedding.layers if isinstance(layer, nn.Conv2d))


def _behind(network: MedIQA) -> Iterator[nn.Conv2d | nn.Linear]:
    """Yield the layers behind the encoder, front to back."""
    for conv, stage in ((network.conv1, network.swintransformer1), (network.conv2, network.swintransformer2)):
        yield conv
        yield from (layer.conv for layer in stage.layers)  # type: ignore[misc]
    for branch in (network.fc_score, network.fc_weight):
        yield branch[0]  # type: ignore[misc]


@torch.no_grad()
def _standardise(layer: nn.Conv2d | nn.Linear, network: MedIQA, batch: Batch) -> None:
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    network(batch.images, batch.prompts)
    hook.remove()
    by_channel = seen[0].movedim(1 if isinstance(layer, nn.Conv2d) else -1, 0).flatten(1).float()
    mean, deviation = by_channel.mean(dim=1), by_channel.std(dim=1).clamp(min=_LEAST)
    assert layer.bias is not None
    layer.weight.div_(deviation.reshape(-1, *[1] * (layer.weight.ndim - 1)))
    layer.bias.sub_(mean).div_(deviation)
