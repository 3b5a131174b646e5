"""Every network this package can build, one row each.

A card names its row; a card that names no row is refused. Nothing else in the package
knows a width, a depth or a window.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One configuration of the network.

    Attributes:
        image_px, patch_px: edge of the square input and of one ViT patch.
        embed_dim, heads: width and attention heads of the ViT.
        taps: ViT blocks (from 0) whose raw outputs are concatenated; nothing behind the last one is built.
        window: edge of a Swin window in patches; must divide the grid.
        swin_heads, mlp_dim: attention heads and MLP width of both Swin stages.
        scale: what a Swin layer's output is multiplied by before the residual is added.
        tab: `transposed` (channel attention as the MANIQA paper writes it) or `released`
            (the public code's reshape without transposing back, kept so that released weights score alike).
        score_activation: end of the score branch: `identity`, or `relu` as released.
    """

    name: str
    embed_dim: int
    heads: int
    patch_px: int = 16
    image_px: int = 224
    taps: tuple[int, ...] = (6, 7, 8, 9)
    window: int = 7
    swin_heads: int = 4
    mlp_dim: int
    scale: float = 0.8
    tab: str = "transposed"
    score_activation: str = "identity"

    @property
    def grid(self) -> int:
        """Patches along one edge."""
        return self.image_px // self.patch_px

    @property
    def tokens(self) -> int:
        """Patches of one image."""
        return self.grid**2


SIZES = {
    size.name: size
    for size in (
        Size(name="t16", embed_dim=192, heads=3, mlp_dim=192),
        Size(name="s16", embed_dim=384, heads=6, mlp_dim=384),
        Size(
            name="b8", embed_dim=768, heads=12, mlp_dim=768,
            patch_px=8, window=4, tab="released", score_activation="relu",
        ),
    )
}  # fmt: skip
