"""The seven baseline networks of the paper's Table 1, built by one factory, without pretrained weights.

Each maps images (B, 3, S, S), 0..1, to one raw score (B,). `small` keeps the kind and number of stages but has far
fewer channels, so that a table can be trained on two cores: its rows show how the design performs at that size, not
how the published network performs.
"""

from collections.abc import Callable, Mapping

from timm.models.resnet import Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vgg import VGG
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mediqa_node.domain.errors import ConfigurationError
from training.baselines.deepvit import DeepViT
from training.baselines.patchwise import CNNIQANet, WaDIQaM


class OneScore(nn.Module):
    """A classifier with one class, whose logit is the score."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) to (B,)."""
        result: Tensor = self.network(images)[:, 0]
        return result


def _vgg(size_px: int, small: bool) -> nn.Module:
    """VGG-16 (Simonyan and Zisserman 2015), with batch normalisation: without it sixteen layers do not train."""
    widths = (64, 128, 256, 512, 512)
    scale = 8 if small else 1
    layers: list[int | str] = []
    for width, depth in zip(widths, (2, 2, 3, 3, 3), strict=True):
        layers += [*[width // scale] * depth, "M"]
    return OneScore(VGG(layers, num_classes=1, mlp_ratio=1 / 64 if small else 1.0, norm_layer=nn.BatchNorm2d))


def _resnet(size_px: int, small: bool) -> nn.Module:
    """ResNet-50 (He et al. 2016)."""
    channels = (8, 16, 32, 64) if small else (64, 128, 256, 512)
    layers = (2, 2, 2, 2) if small else (3, 4, 6, 3)
    network = ResNet(Bottleneck, layers, num_classes=1, channels=channels, stem_width=channels[0])  # type: ignore[arg-type]
    return OneScore(network)


def _swin(size_px: int, small: bool) -> nn.Module:
    """Swin-T (Liu et al. 2021), windows of 7 tokens."""
    shape = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)} if small else {}
    return OneScore(SwinTransformer(img_size=size_px, num_classes=1, **shape))  # type: ignore[arg-type]


def _vit(size_px: int, small: bool) -> nn.Module:
    """ViT-B/16 (Dosovitskiy et al. 2021)."""
    shape = {"embed_dim": 96, "depth": 4, "num_heads": 3, "mlp_ratio": 2.0} if small else {}
    return OneScore(VisionTransformer(img_size=size_px, num_classes=1, **shape))  # type: ignore[arg-type]


def _deepvit(size_px: int, small: bool) -> nn.Module:
    shape = {"embed_dim": 96, "depth": 6, "heads": 3} if small else {}
    return DeepViT(size_px, **shape)


def _cnniqa(size_px: int, small: bool) -> nn.Module:
    return CNNIQANet(hidden=100 if small else 800)


def _wadiqam(size_px: int, small: bool) -> nn.Module:
    return WaDIQaM(narrower=4 if small else 1)


NETWORKS: Mapping[str, Callable[[int, bool], nn.Module]] = {
    "vgg": _vgg,
    "resnet": _resnet,
    "swin": _swin,
    "vit": _vit,
    "deepvit": _deepvit,
    "cnniqanet": _cnniqa,
    "wadiqam": _wadiqam,
}
"""In the order of the paper's table."""


def baseline(name: str, size_px: int = 224, *, small: bool = False) -> nn.Module:
    """Return an untrained network that maps images (B, 3, size_px, size_px) to raw scores (B,).

    Raises:
        ConfigurationError: no baseline of that name, or its windows and patches do not divide the edge.
    """
    if name not in NETWORKS:
        raise ConfigurationError(f"no baseline {name!r}; known: {', '.join(NETWORKS)}")
    if size_px % 224:
        raise ConfigurationError(f"baselines read 224 pixels or a multiple: windows of 7 patches; not {size_px}")
    return NETWORKS[name](size_px, small)
