"""The networks that this package can build, one row each.

A card names its row, or is refused. Widths, depths and windows are defined nowhere else in the package: a new shape is
a new row.
"""

from dataclasses import dataclass

STEMS = ("patch", "conv")
CHANNELS = ("rgb", "mscn", "log_sd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """A pretrained network that takes the place of the ViT: any of timm with `forward_intermediates`.

    Attributes:
        network: its name in timm.
        taps: its outputs that become tokens, as `forward_intermediates` numbers them (EfficientNets: every block, the
            stem is 0).
        mean, sd: its input is (x - mean) / sd for x in 0..1, by channel.
        tuned: beginnings of the names of parameters that training may change; all others stay as pretrained.
        features: width of the tokens after their projection.
    """

    network: str
    taps: tuple[int, ...]
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]
    tuned: tuple[str, ...] = ()
    features: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One configuration of the network.

    Attributes:
        trunk: a pretrained network in place of the ViT; the fields of the ViT then have no effect.
        channels: input of the stem, from CHANNELS: the image itself, its local contrast (MSCN), the logarithm
            of its local standard deviation; see `stem.input_channels`.
        stem: image to tokens: `patch` (one convolution, ViT) or `conv` (stride-2 convolutions).
        image_px, patch_px: edge of the square input and of the patch that becomes one token.
        embed_dim: width of the ViT and of the first Swin stage; the second has half of it.
        heads, mlp_ratio: attention heads and relative MLP width of the ViT.
        depth: ViT blocks that are built; blocks of a release behind the last tap are not.
        taps: ViT blocks (from 0) whose raw outputs are concatenated.
        tab: `transposed` (channel attention as the MANIQA paper writes it) or `released`
            (the public code's reshape without transposing back, kept so that released weights give the same scores).
        tabs: channel attention blocks before each Swin stage.
        window: edge of a Swin window in tokens; must divide the grid.
        swin_layers: layers of a Swin stage, each of two blocks and a convolution.
        swin_heads, mlp_dim: attention heads and MLP width of both Swin stages.
        scale: factor on a Swin layer's output before the residual is added.
        prompt_fc: the paper's FC_i: one for each `stage`, as in the public code, or one for each `layer`.
        score_activation: end of the score branch: `identity`, or `relu` as released.
    """

    name: str
    trunk: Trunk | None = None
    channels: tuple[str, ...] = ("rgb",)
    stem: str = "patch"
    image_px: int = 224
    patch_px: int = 16
    embed_dim: int
    heads: int = 3
    mlp_ratio: float = 4.0
    depth: int = 10
    taps: tuple[int, ...] = (6, 7, 8, 9)
    tab: str = "transposed"
    tabs: int = 2
    window: int = 7
    swin_layers: int = 2
    swin_heads: int = 4
    mlp_dim: int
    scale: float = 0.8
    prompt_fc: str = "stage"
    score_activation: str = "identity"

    @property
    def grid(self) -> int:
        """Tokens along one edge."""
        return self.image_px // self.patch_px

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.grid**2

    @property
    def features(self) -> int:
        """Width of the features that `MedIQA.encode` returns."""
        return self.embed_dim * len(self.taps) if self.trunk is None else self.trunk.features


SIZES = {
    size.name: size
    for size in (
        Size(
            name="n16", embed_dim=96, heads=3, mlp_dim=96, mlp_ratio=2.0, depth=3, taps=(0, 1, 2),
            stem="conv", channels=CHANNELS, tabs=1, swin_layers=1,
        ),
        Size(
            name="e16", embed_dim=96, mlp_dim=96, tabs=1, swin_layers=1,
            trunk=Trunk(
                network="tf_efficientnet_lite0", taps=(1, 2, 3, 4, 5), features=288,
                tuned=("blocks.2.", "blocks.3.", "blocks.4."),
                mean=(127 / 255,) * 3, sd=(128 / 255,) * 3,
            ),
        ),
        Size(name="t16", embed_dim=192, heads=3, mlp_dim=192),
        Size(name="s16", embed_dim=384, heads=6, mlp_dim=384),
        Size(name="b16", embed_dim=768, heads=12, mlp_dim=768),
        Size(
            name="b8", embed_dim=768, heads=12, mlp_dim=768,
            patch_px=8, window=4, tab="released", score_activation="relu",
        ),
    )
}  # fmt: skip
