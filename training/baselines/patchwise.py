"""Two networks made for image quality, which score patches of 32 x 32 pixels and combine the scores.

An image of 224 pixels is a grid of 49 patches. Both are trained on the combined score of all patches, whereas the
authors drew 32 patches or one at random.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from mediqa_node.model.stem import input_channels

PATCH_PX = 32


def patches(images: Tensor) -> Tensor:
    """Cut (B, C, S, S) into a grid of patches: (B, P, C, 32, 32)."""
    cut = images.unfold(2, PATCH_PX, PATCH_PX).unfold(3, PATCH_PX, PATCH_PX)
    return cut.flatten(2, 3).transpose(1, 2)


class CNNIQANet(nn.Module):
    """CNNIQA: one convolution, largest and smallest response, two hidden layers; the mean over patches.

    Kang et al., "Convolutional Neural Networks for No-Reference Image Quality Assessment", CVPR 2014: 50 kernels of
    7 x 7 on the gray patch after local contrast normalisation, without a nonlinearity, then two layers of 800 units.
    """

    def __init__(self, *, kernels: int = 50, hidden: int = 800) -> None:
        super().__init__()
        self.kernels = nn.Conv2d(1, kernels, kernel_size=7)
        self.head = nn.Sequential(
            nn.Linear(2 * kernels, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) to a score (B,)."""
        cut = patches(input_channels(images, ("mscn",)))
        response = self.kernels(cut.flatten(0, 1)).flatten(2)
        score = self.head(torch.cat([response.amax(dim=2), response.amin(dim=2)], dim=1))
        result: Tensor = score.reshape(len(images), -1).mean(dim=1)
        return result


class WaDIQaM(nn.Module):
    """WaDIQaM-NR: ten convolutions, a score and a weight for every patch; their weighted mean.

    Bosse et al., "Deep Neural Networks for No-Reference and Full-Reference Image Quality Assessment", IEEE TIP 2018
    (doi 10.1109/TIP.2017.2760518): 3 x 3 kernels, a pooling after every two, 32 to 512 channels; weights are
    ReLU(w) + 1e-6.
    """

    def __init__(self, *, narrower: int = 1) -> None:
        super().__init__()
        widths = [3, *(width // narrower for width in (32, 32, 64, 64, 128, 128, 256, 256, 512, 512))]
        layers: list[nn.Module] = []
        for place, (into, out) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(into, out, kernel_size=3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if place % 2 else []
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.score, self.weight = (
            nn.Sequential(nn.Linear(widths[-1], widths[-1]), nn.ReLU(), nn.Dropout(0.5), nn.Linear(widths[-1], 1))
            for _ in range(2)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) to a score (B,)."""
        features = self.features(patches(images).flatten(0, 1))
        score, weight = (branch(features).reshape(len(images), -1) for branch in (self.score, self.weight))
        weight = weight.relu() + 1e-6
        result: Tensor = (score * weight).sum(dim=1) / weight.sum(dim=1)
        return result
