"""The scale Swin transformer block with prompts (MANIQA section 3.3; MedIQA section 2.2, Fig. 1.C)."""

from collections.abc import Iterable

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from mediqa_node.model.sizes import Size

BLOCKS_PER_LAYER = 2


class SwinLayer(nn.Module):
    """Two window-attention blocks, the second with shifted windows, then a 3 x 3 convolution and ReLU."""

    def __init__(self, dim: int, size: Size) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(
                dim,
                (size.grid, size.grid),
                num_heads=size.swin_heads,
                window_size=size.window,
                shift_size=0 if index % 2 == 0 else size.window // 2,
                mlp_ratio=size.mlp_dim / dim,
            )
            for index in range(BLOCKS_PER_LAYER)
        )
        self.conv = nn.Conv2d(dim, dim, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, C, H, W)."""
        for block in self.blocks:
            x = block(x)
        return torch.relu(self.conv(x.permute(0, 3, 1, 2)))


class SwinStage(nn.Module):
    """Swin layers, each scaled, added to its input and the projected prompt: y = scale * layer(x) + x + FC(prompt)."""

    def __init__(self, dim: int, size: Size) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SwinLayer(dim, size) for _ in range(size.swin_layers))
        self.scale = size.scale

    def forward(self, x: Tensor, prompts: Iterable[Tensor | None]) -> Tensor:
        """Map (B, C, H, W) to the same shape; `prompts` has (B, C) for each layer, one vector per image, or None."""
        for layer, prompt in zip(self.layers, prompts, strict=False):
            x = self.scale * layer(x.permute(0, 2, 3, 1)) + x
            if prompt is not None:
                x = x + prompt[:, :, None, None]
        return x
