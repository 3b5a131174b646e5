"""MedIQA: ViT features, channel attention, prompted Swin stages, two branches (paper Fig. 1).

Parameter names are those of the public release, so that its weights load. Parts that the release contains but never
uses (ViT blocks behind the last tap, final norm, class head, the stages' `downsample`) are not built; see `UNUSED`.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import NamedTuple

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mediqa_node.model.heads import ParameterHead, SliceWeight, branch, image_score
from mediqa_node.model.prompts import PROMPT_WIDTH
from mediqa_node.model.sizes import Size
from mediqa_node.model.stem import ConvStem, channel_count, input_channels
from mediqa_node.model.swin import SwinStage
from mediqa_node.model.tab import TransposedAttention
from mediqa_node.model.trunk import TokenEmbedding, TrunkTokens

UNUSED = (
    "vit.blocks.10.", "vit.blocks.11.", "vit.norm.", "vit.head.",
    "swintransformer1.downsample.", "swintransformer2.downsample.",
)  # fmt: skip
"""Prefixes of released parameters that no score depends on."""

REBUILT = ("attn_mask", "relative_position_index")
"""Last part of released buffer names that are computed here."""


class NetworkOutput(NamedTuple):
    """Output of the network for a batch of images.

    Attributes:
        score: raw quality, (B,), unbounded.
        slice_logit: how much each image counts within its volume, before softmax, (B,).
        patch_score, patch_weight: s and w of every patch, (B, N); score is sum(s w) / sum(w).
        parameters: output of the parameter head, (B, k); k = 0 without one.
    """

    score: Tensor
    slice_logit: Tensor
    patch_score: Tensor
    patch_weight: Tensor
    parameters: Tensor


class MedIQA(nn.Module):
    """Score 2-D images; slices of a volume are images of a batch, combined by `heads.volume_score`.

    Args:
        size: the row of the table.
        parameters: names that the parameter head predicts, in order; () for no head.
        prompted: False for MANIQA, which is the same network without MLP1 and MLP2.
    """

    def __init__(self, size: Size, *, parameters: Sequence[str] = (), prompted: bool = True) -> None:
        super().__init__()
        width, half = size.embed_dim, size.embed_dim // 2
        self.size = size
        if size.trunk is None:
            self.vit = _vit(size)
        else:
            self.trunk = TrunkTokens(size.trunk, image_px=size.image_px, grid=size.grid)
            self.embedding = TokenEmbedding(self.trunk.width, size.features)
        self.tablock1 = nn.Sequential(*(TransposedAttention(size.tokens, size.tab) for _ in range(size.tabs)))
        self.conv1 = nn.Conv2d(size.features, width, kernel_size=1)
        self.swintransformer1 = SwinStage(width, size)
        self.tablock2 = nn.Sequential(*(TransposedAttention(size.tokens, size.tab) for _ in range(size.tabs)))
        self.conv2 = nn.Conv2d(width, half, kernel_size=1)
        self.swintransformer2 = SwinStage(half, size)
        self.fc_score = branch(half, nn.ReLU() if size.score_activation == "relu" else nn.Identity())
        self.fc_weight = branch(half, nn.Sigmoid())
        self.MLP1 = _prompt_fc(width, size) if prompted else None
        self.MLP2 = _prompt_fc(half, size) if prompted else None
        self.slice_weight = SliceWeight(half)
        self.parameter_head = ParameterHead(size.features, width, len(parameters)) if parameters else None

    def encode(self, images: Tensor) -> Tensor:
        """E: return the features of images, (B, 3, S, S) to (B, N, F).

        Of a ViT: the concatenated raw outputs of the tapped blocks. Of a pretrained trunk: its projected tokens. Tokens
        that the trunk returned earlier, (B, N, T), may be given instead of images.
        """
        if self.size.trunk is not None:
            features: Tensor = self.embedding(self.trunk(images) if images.ndim == 4 else images)
            return features
        taps: list[Tensor] = self.vit.forward_intermediates(
            input_channels(images, self.size.channels),
            indices=list(self.size.taps),
            norm=False,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )  # type: ignore[assignment]
        return torch.cat(taps, dim=2)

    def refine(self, features: Tensor, prompts: Tensor | None) -> Tensor:
        """Return the input of both branches: (B, N, F) and prompts (B, 64) to (B, N, C / 2)."""
        x = self.conv1(self._on_grid(self.tablock1(features.mT)))
        x = self.swintransformer1(x, _prompted(self.MLP1, prompts))
        x = self.conv2(self._on_grid(self.tablock2(x.flatten(2))))
        x = self.swintransformer2(x, _prompted(self.MLP2, prompts))
        result: Tensor = x.flatten(2).mT
        return result

    def predict_parameters(self, features: Tensor) -> Tensor:
        """g: return physical parameters (B, k) from `encode`'s features; k = 0 without a head."""
        return features.new_zeros(len(features), 0) if self.parameter_head is None else self.parameter_head(features)

    def forward(self, images: Tensor, prompts: Tensor | None = None, *, upstream: bool = False) -> NetworkOutput:
        """Score images (B, 3, S, S), 0..1, each with its own prompt (B, 64).

        Without prompts the network is MANIQA. Upstream, only the parameters g(E(x)) are computed; the rest is empty.
        """
        features = self.encode(images)
        if upstream:
            empty = features.new_zeros(0)
            return NetworkOutput(empty, empty, empty, empty, self.predict_parameters(features))
        return self.read(features, self.refine(features, prompts))

    def read(self, features: Tensor, refined: Tensor) -> NetworkOutput:
        """Run both branches and both heads on `encode`'s features (B, N, F) and `refine`'s (B, N, C / 2)."""
        patch_score, patch_weight = self.fc_score(refined)[..., 0], self.fc_weight(refined)[..., 0]
        return NetworkOutput(
            score=image_score(patch_score, patch_weight),
            slice_logit=self.slice_weight(refined.mean(dim=1))[:, 0],
            patch_score=patch_score,
            patch_weight=patch_weight,
            parameters=self.predict_parameters(features),
        )

    def _on_grid(self, x: Tensor) -> Tensor:
        """(B, C, N) to (B, C, H, W)."""
        result: Tensor = x.unflatten(2, (self.size.grid, self.size.grid))
        return result


def _vit(size: Size) -> VisionTransformer:
    return VisionTransformer(
        img_size=size.image_px,
        patch_size=size.patch_px,
        in_chans=channel_count(size.channels),
        embed_layer=ConvStem if size.stem == "conv" else PatchEmbed,
        embed_dim=size.embed_dim,
        depth=size.depth,
        num_heads=size.heads,
        mlp_ratio=size.mlp_ratio,
        num_classes=0,
        global_pool="",
        final_norm=False,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def _prompt_fc(dim: int, size: Size) -> nn.Module:
    """FC_i of a stage (paper section 2.2): one for the stage, or one for each of its layers."""
    if size.prompt_fc == "stage":
        return nn.Linear(PROMPT_WIDTH, dim)
    return nn.ModuleList(nn.Linear(PROMPT_WIDTH, dim) for _ in range(size.swin_layers))


def _prompted(fc: nn.Module | None, prompts: Tensor | None) -> Iterable[Tensor | None]:
    """Return the prompt term of each layer of a stage for prompts (B, 64): (B, C) per layer, or None."""
    if fc is None or prompts is None:
        return repeat(None)
    return [layer(prompts) for layer in fc] if isinstance(fc, nn.ModuleList) else repeat(fc(prompts))
