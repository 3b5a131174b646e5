"""Where training starts: weights that let an image's details through from the first step.

The public initialisation leaves the convolutional stem's output at a fortieth of its input, and what tells two
images apart at a four-hundredth, far below what prompts add: nothing is learnt for hundreds of steps. Variance is kept
instead (He et al. 2015, doi 10.1109/ICCV.2015.123).
"""

from typing import Literal

from torch import nn

from mediqa_node.model.network import MedIQA
from mediqa_node.model.stem import ConvStem


def initialise(network: MedIQA, *, score: float = 0.5) -> MedIQA:
    """Set the starting weights of a network in place, from torch's current seed.

    Args:
        score: what an untrained network says: the middle of the labels.
    """
    for module in network.modules():
        if isinstance(module, ConvStem):
            for layer in module.layers:
                _keep_variance(layer, "relu")
    for layer in (network.conv1, network.conv2):
        _keep_variance(layer, "linear")
    for branch in (network.fc_score, network.fc_weight):
        _keep_variance(branch[0], "relu")
    last = network.fc_score[3]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, std=0.02)
    nn.init.constant_(last.bias, score)
    return network


def _keep_variance(layer: nn.Module, before: Literal["relu", "linear"]) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity=before)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
