"""The losses of the two stages (paper section 2.2)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mediqa_node.model.heads import slice_weights
from mediqa_node.model.network import NetworkOutput
from training.data.batches import Batch

RANKING = 0.5
"""Weight of the pairwise ranking in the loss of stage 2."""
PARAMETERS = 0.5
"""Weight of the parameter head in stage 2: what stage 1 learnt is not to be forgotten."""
_TEMPERATURE = 0.1


def stage1_loss(network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Upstream: min |g(E(x)) - p|^2 over the known parameters of each image."""
    output: NetworkOutput = network(batch.images, batch.prompts, upstream=True)
    return {"parameters": _parameters(output.parameters, batch)}


def stage2_loss(network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Downstream: squared error of Q = sum w q, ranking within the copies of an image, plus the parameter loss."""
    output: NetworkOutput = network(batch.images, batch.prompts)
    quality = of_samples(output.score.float(), output.slice_logit, batch.sample_of, len(batch.quality))
    known = torch.isfinite(batch.quality)
    wanted = torch.where(known, batch.quality, quality.detach())
    squared = (batch.weight * (quality - wanted) ** 2)[known].mean() if known.any() else 0.0 * quality.sum()
    return {
        "squared": 10.0 * squared,
        "ranking": RANKING * _ranking(quality, batch, known),
        "parameters": PARAMETERS * _parameters(output.parameters, batch),
    }


def of_samples(scores: Tensor, logits: Tensor, sample_of: Tensor, count: int) -> Tensor:
    """Return Q of each sample, (b,): slices weighted by the softmax of their logits (`heads.volume_score`)."""
    found = []
    for number in range(count):
        mine = sample_of == number
        found.append((slice_weights(logits[mine]) * scores[mine]).sum())
    return torch.stack(found)


def _parameters(predicted: Tensor, batch: Batch) -> Tensor:
    wanted = batch.parameters[batch.sample_of]
    known = torch.isfinite(wanted)
    if not known.any():
        return 0.0 * predicted.sum()
    return ((predicted - torch.where(known, wanted, 0.0))[known] ** 2).mean()


def _ranking(quality: Tensor, batch: Batch, known: Tensor) -> Tensor:
    """Return the logistic loss over pairs of a group with different labels, in units of a tenth of the scale."""
    apart = batch.quality[:, None] - batch.quality[None, :]
    pairs = (batch.group[:, None] == batch.group[None, :]) & known[:, None] & known[None, :] & (apart > 0.02)
    if not pairs.any():
        return 0.0 * quality.sum()
    return nn.functional.softplus(-(quality[:, None] - quality[None, :])[pairs] / _TEMPERATURE).mean()
