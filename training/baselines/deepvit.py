"""DeepViT: a ViT whose attention maps are mixed across heads, so that they do not become identical in deep networks.

Zhou et al., "DeepViT: Towards Deeper Vision Transformer", 2021 (arXiv 2103.11886), equation 3:
Re-Attention(Q, K, V) = Norm(Theta^T softmax(Q K^T / sqrt d)) V, Theta learnt over heads, Norm over the batch. The
default is DeepViT-S: 16 blocks of 396 channels, 12 heads, MLP three times as wide.
"""

import torch
from torch import Tensor, nn


class ReAttention(nn.Module):
    """Attention (B, N, C) to (B, N, C) with its maps mixed across heads."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.theta = nn.Conv2d(heads, heads, kernel_size=1)
        self.norm = nn.BatchNorm2d(heads)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """See class."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        maps = (query @ key.mT * query.shape[-1] ** -0.5).softmax(dim=-1)
        result: Tensor = self.out((self.norm(self.theta(maps)) @ value).transpose(1, 2).flatten(2))
        return result


class Block(nn.Module):
    """Re-attention and MLP, each after a norm and with a residual connection."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.attention = nn.Sequential(nn.LayerNorm(dim), ReAttention(dim, heads))
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        x = x + self.attention(x)
        result: Tensor = x + self.mlp(x)
        return result


class DeepViT(nn.Module):
    """Map (B, 3, S, S) to a score (B,): the mean token's."""

    def __init__(
        self, size_px: int, *, patch_px: int = 16, embed_dim: int = 396, depth: int = 16, heads: int = 12
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, embed_dim, kernel_size=patch_px, stride=patch_px)
        self.position = nn.Parameter(0.02 * torch.randn(1, (size_px // patch_px) ** 2, embed_dim))
        self.blocks = nn.Sequential(*(Block(embed_dim, heads, mlp_ratio=3.0) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, 1))

    def forward(self, images: Tensor) -> Tensor:
        """See class."""
        tokens = self.patches(images).flatten(2).mT + self.position
        result: Tensor = self.head(self.blocks(tokens).mean(dim=1))[:, 0]
        return result
