"""Where training starts: weights that let an image's details through from the first step.

The public initialisation leaves the convolutional stem's output at a fortieth of its input, and what tells two
images apart at a four-hundredth, far below what prompts add: nothing is learnt for hundreds of steps. Variance is kept
instead (He et al. 2015, doi 10.1109/ICCV.2015.123).
"""

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
                if isinstance(layer, nn.Conv2d):
                    _keep_variance(layer)
    for layer in (network.conv1, network.conv2):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        nn.init.zeros_(layer.bias)
    for branch in (network.fc_score, network.fc_weight):
        _keep_variance(branch[0])
    nn.init.normal_(network.fc_score[3].weight, std=0.02)
    nn.init.constant_(network.fc_score[3].bias, score)
    return network


def _keep_variance(layer: nn.Module) -> None:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
