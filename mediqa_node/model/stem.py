"""From image to tokens, keeping the noise, blur and blocking that a plain patch embedding loses.

Two measures of local contrast are added to the image as channels: mean-subtracted contrast-normalised values (MSCN;
Mittal, Moorthy and Bovik, "No-reference image quality assessment in the spatial domain", 2012) and the
logarithm of the local standard deviation, which shows the noise of an image.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

WINDOW_PX = 7
_SIGMA_PX = 7 / 6
FLOOR = 1 / 255
"""Contrast below one gray value of 255 counts as none."""


def input_channels(images: Tensor, names: Sequence[str]) -> Tensor:
    """Return the input of the stem: images (B, 3, S, S), 0..1, to (B, C, S, S).

    `rgb` is the image, three channels; `mscn` is (I - mu) / (sigma + 1/255) / 3, `log_sd` is log(1 + 255 sigma) / 5:
    of the mean of the channels, over a Gaussian window of 7 pixels, one channel each and of order one.
    """
    if tuple(names) == ("rgb",):
        return images
    with torch.autocast(images.device.type, enabled=False):  # E[x2] - E[x]2 of small noise is lost in bfloat16
        return _measured(images.float() if images.dtype is torch.bfloat16 else images, names)


def _measured(images: Tensor, names: Sequence[str]) -> Tensor:
    gray = images.mean(dim=1, keepdim=True)
    mean = _blurred(gray)
    deviation = (_blurred(gray.square()) - mean.square()).clamp(min=0).sqrt()
    found = {
        "rgb": lambda: images,
        "mscn": lambda: (gray - mean) / (deviation + FLOOR) / 3,
        "log_sd": lambda: torch.log1p(deviation / FLOOR) / 5,
    }
    return torch.cat([found[name]() for name in names], dim=1)


def channel_count(names: Sequence[str]) -> int:
    """Return how many channels `input_channels` makes."""
    return sum(3 if name == "rgb" else 1 for name in names)


def _blurred(gray: Tensor) -> Tensor:
    """Return the Gaussian mean of (B, 1, S, S), with reflected borders."""
    offset = torch.arange(WINDOW_PX, dtype=gray.dtype, device=gray.device) - WINDOW_PX // 2
    kernel = torch.exp(-offset.square() / (2 * _SIGMA_PX**2))
    kernel = kernel / kernel.sum()
    padded = nn.functional.pad(gray, [WINDOW_PX // 2] * 4, mode="reflect")
    rows = nn.functional.conv2d(padded, kernel.reshape(1, 1, -1, 1))
    return nn.functional.conv2d(rows, kernel.reshape(1, 1, 1, -1))


class ConvStem(nn.Module):
    """Halve the edge until each patch is one token: 4 x 4 convolutions of stride 2, GELU between them.

    An even kernel is centred on the pair of pixels that it joins, so that a token is centred on its patch and
    patch maps are aligned; 3 x 3 would shift them by half a patch. There is no normalisation before the first block,
    because the amplitude of details matters for quality. Takes the arguments that timm's ViT passes to its
    `embed_layer`.
    """

    def __init__(self, *, img_size: int, patch_size: int, in_chans: int, embed_dim: int, **_: object) -> None:
        super().__init__()
        steps = int(math.log2(patch_size))
        if 2**steps != patch_size:
            raise ValueError(f"a convolutional stem halves the edge; patch_px {patch_size} is no power of 2")
        self.num_patches = (img_size // patch_size) ** 2
        widths = [in_chans, *(embed_dim // 2 ** (steps - 1 - step) for step in range(steps))]
        layers: list[nn.Module] = []
        for into, out in pairwise(widths):
            layers += [nn.Conv2d(into, out, kernel_size=4, stride=2, padding=1), nn.GELU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, S, S) to tokens (B, N, D), row by row."""
        result: Tensor = self.layers(x).flatten(2).mT
        return result
