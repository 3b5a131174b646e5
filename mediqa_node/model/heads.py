"""From features to numbers: scores of patches, weights of slices and acquisition parameters."""

import torch
from torch import Tensor, nn


def branch(dim: int, end: nn.Module) -> nn.Sequential:
    """Return one branch of the dual-branch head: a number per patch from its features, (..., dim) to (..., 1)."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(0.1), nn.Linear(dim, 1), end)


def image_score(scores: Tensor, weights: Tensor) -> Tensor:
    """Return q = sum(w s) / sum(w) over the patches of each image (paper section 2.2): (B, N) to (B,), float64.

    Summed in float64: in float32 the order of 784 additions alone moves a score by three units in the last place.
    """
    s, w = scores.double(), weights.double()
    return (s * w).sum(dim=-1) / w.sum(dim=-1)


def slice_weights(logits: Tensor) -> Tensor:
    """Return the weights of the slices of one volume, positive and summing to 1: (..., slices) to the same.

    The paper specifies only "linear layer"; softmax keeps Q inside the range of its slices, and a
    zero-initialised layer makes it the plain mean of the public code.
    """
    return torch.softmax(logits, dim=-1)


def volume_score(scores: Tensor, logits: Tensor) -> Tensor:
    """Return Q = sum of w_i q_i over the slices (paper section 2.2): (..., slices) to (...)."""
    return (slice_weights(logits) * scores).sum(dim=-1)


class SliceWeight(nn.Linear):
    """Linear on an image's pooled features, zero at the start: every slice counts the same."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class ParameterHead(nn.Module):
    """g of the upstream stage: physical parameters from encoder features, min |g(E(x)) - p|^2 (paper section 2.2).

    Args:
        dim: width of the concatenated ViT taps.
        hidden: width between the two layers.
        outputs: parameters predicted, e.g. mas and tesla.
    """

    def __init__(self, dim: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Map encoder features (B, N, dim) to (B, outputs)."""
        pooled = self.norm(features.mean(dim=1))
        hidden: Tensor = nn.functional.gelu(self.fc1(pooled))
        result: Tensor = self.fc2(hidden)
        return result
