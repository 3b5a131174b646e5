"""Tokens from a pretrained timm network: its intermediate outputs, pooled to one grid.

A convolutional trunk sees an image at several resolutions. What it finds is averaged over every cell of the grid; of
outputs finer than the grid, the texture inside a cell counts as well: the logarithm of their local standard deviation,
which tells noise from blur. A network trained to recognise objects discards the strength of noise, so the image itself
adds its mean, its deviation and its finest detail in every cell. Batch normalisation is folded into the convolutions,
so that a trunk has no running statistics that training could move.
"""

import inspect
import math
from functools import cached_property
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mediqa_node.model.sizes import Trunk

_LEAST_VARIANCE = 1e-3
"""Added to variances before the logarithm: activations are of order one."""
_LEAST_DETAIL = 1e-3
"""The same for the deviation of the image, whose gray values are 0 to 1."""
DETAILS = 4
"""Of the values of a token, how many do not come from the trunk: the last ones, see `_details`."""


class TrunkTokens(nn.Module):
    """Map images to tokens: means of every tap and, of the finer ones, logarithms of local standard deviations.

    Args:
        trunk: the network and its taps.
        image_px, grid: edge of the input in pixels, and of the output in tokens; taps are as fine or finer.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, trunk: Trunk, *, image_px: int, grid: int) -> None:
        super().__init__()
        self._trunk, self._image_px, self.grid = trunk, image_px, grid
        self.model = folded(pruned(create(trunk), trunk))
        self._numbered = _every_block(self.model)
        shape = (1, -1, 1, 1)
        self.register_buffer("mean", torch.tensor(trunk.mean).reshape(shape), persistent=False)
        self.register_buffer("sd", torch.tensor(trunk.sd).reshape(shape), persistent=False)

    @cached_property
    def width(self) -> int:
        """Number of values of a token, T."""
        with torch.no_grad():
            return int(self(torch.zeros(1, 3, self._image_px, self._image_px)).shape[2])

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S), 0..1, to tokens (B, N, T), row by row."""
        taps = self.model.forward_intermediates(  # type: ignore[operator]
            (images - self.mean) / self.sd,
            indices=list(self._trunk.taps),
            stop_early=True,
            intermediates_only=True,
            **self._numbered,
        )
        pooled = [part for tap in taps for part in _pooled(_at_least_float32(tap), self.grid)]
        pooled += _details(images.mean(dim=1, keepdim=True), self.grid)
        return torch.cat(pooled, dim=1).flatten(2).mT


class TokenEmbedding(nn.Module):
    """Project standardised tokens to the features that the network goes on with: (B, N, T) to (B, N, F).

    Attributes:
        shift, scale: mean and standard deviation of every value over the training images; see `standardise`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.fc = nn.Linear(width, features)

    @torch.no_grad()
    def standardise(self, tokens: Tensor) -> None:
        """Set `shift` and `scale` from the tokens of some images, (..., T)."""
        values = tokens.reshape(-1, tokens.shape[-1]).double()
        self.shift.copy_(values.mean(dim=0))
        self.scale.copy_(values.std(dim=0).clamp(min=1e-3))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, T) to features (B, N, F)."""
        result: Tensor = self.fc((tokens - self.shift) / self.scale)
        return result


def create(trunk: Trunk) -> nn.Module:
    """Return the whole timm network with its initial weights; nothing is downloaded.

    Raises:
        ValueError: timm has no network of that name.
    """
    if trunk.network not in timm.list_models():  # names such as hf-hub:... would be looked up on the internet
        raise ValueError(f"trunk {trunk.network!r}: this version of timm has no such network")
    model: nn.Module = timm.create_model(trunk.network, pretrained=False)
    return model.eval()


def pruned(model: nn.Module, trunk: Trunk) -> nn.Module:
    """Remove everything behind the last tap, in place."""
    model.prune_intermediate_layers(  # type: ignore[operator]
        list(trunk.taps), prune_norm=True, prune_head=True, **_every_block(model)
    )
    return model


def folded(model: nn.Module) -> nn.Module:
    """Fold every batch normalisation into the convolution in front of it, in place.

    Both are children of one module, the convolution first, as in timm's convolutional networks. A normalisation without
    such a convolution stays, with its statistics.
    """
    convolution: nn.Conv2d | None = None
    for name, child in list(model.named_children()):
        if isinstance(child, nn.Conv2d):
            convolution = child
        elif isinstance(child, nn.BatchNorm2d):
            if convolution is not None and convolution.out_channels == child.num_features:
                _fold(convolution, child)
                setattr(model, name, getattr(child, "act", nn.Identity()))
            convolution = None
        else:
            folded(child)
            if list(child.parameters()):
                convolution = None
    return model


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = 0.0 if convolution.bias is None else convolution.bias.double()
    shift = norm.bias.double() + (bias - norm.running_mean.double()) * gain
    weight = convolution.weight
    convolution.weight = nn.Parameter((weight.double() * gain.reshape(-1, 1, 1, 1)).to(weight.dtype))
    convolution.bias = nn.Parameter(shift.to(weight.dtype))


def _every_block(model: nn.Module) -> dict[str, Any]:
    """Return the argument with which timm's EfficientNets number every block, not only those that halve the edge."""
    known = inspect.signature(model.forward_intermediates).parameters  # type: ignore[arg-type]
    return {"extra_blocks": True} if "extra_blocks" in known else {}


def _pooled(tap: Tensor, grid: int) -> list[Tensor]:
    """Return (B, C, grid, grid): means, and of a finer tap half the logarithm of the variance in every cell."""
    cell = tap.shape[-1] // grid
    if tap.shape[-2:] != (cell * grid, cell * grid):
        raise ValueError(f"a tap of {math.prod(tap.shape[-2:])} places does not divide into {grid} x {grid} cells")
    if cell == 1:
        return [tap]
    mean = nn.functional.avg_pool2d(tap, cell)
    square = nn.functional.avg_pool2d(tap.square(), cell)
    variance = (square - mean.square()).clamp(min=0)
    return [mean, 0.5 * (variance + _LEAST_VARIANCE).log()]


def _details(gray: Tensor, grid: int) -> list[Tensor]:
    """Return four maps of images (B, 1, S, S), each (B, 1, grid, grid).

    They are the mean, and the logarithms of the standard deviation and of the finest detail at full and half
    resolution: the response to the kernel of Immerkaer (1996, doi 10.1006/cviu.1996.0060), which is that of noise.
    """
    cell = gray.shape[-1] // grid
    mean = nn.functional.avg_pool2d(gray, cell)
    variance = (nn.functional.avg_pool2d(gray.square(), cell) - mean.square()).clamp(min=0)
    found = [mean, 0.5 * (variance + _LEAST_DETAIL**2).log()]
    for reduction in (1, 2):
        small = nn.functional.avg_pool2d(gray, reduction)
        along = small.new_tensor([1.0, -2.0, 1.0]) / 6**0.5
        kernel = (along[:, None] * along[None]).reshape(1, 1, 3, 3)
        detail = nn.functional.conv2d(nn.functional.pad(small, [1] * 4, mode="reflect"), kernel).square()
        found.append(0.5 * (nn.functional.avg_pool2d(detail, cell // reduction) + _LEAST_DETAIL**2).log())
    return found


def _at_least_float32(x: Tensor) -> Tensor:
    """Return values whose variance is not lost: E[x2] - E[x]2 is, in bfloat16."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
