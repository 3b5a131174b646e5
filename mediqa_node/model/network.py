"""MedIQA: ViT features, channel attention, prompted Swin stages, two branches (paper Fig. 1).

Parameter names are those of the public release, so that its weights load. Parts that the
release carries but never reads (ViT blocks behind the last tap, final norm, class head, the
stages' `downsample`) are not built; see `UNUSED`.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mediqa_node.model.heads import ParameterHead, SliceWeight, branch, image_score
from mediqa_node.model.prompts import PROMPT_WIDTH
from mediqa_node.model.sizes import Size
from mediqa_node.model.swin import SwinStage
from mediqa_node.model.tab import TransposedAttention

UNUSED = (
    "vit.blocks.10.", "vit.blocks.11.", "vit.norm.", "vit.head.",
    "swintransformer1.downsample.", "swintransformer2.downsample.",
)  # fmt: skip
"""Prefixes of released parameters that no score depends on."""

REBUILT = ("attn_mask", "relative_position_index")
"""Last part of released buffer names that are computed here."""


class Judgement(NamedTuple):
    """What the network says of a batch of images.

    Attributes:
        score: raw quality, (B,), unbounded.
        slice_logit: how much each image counts within its volume, before softmax, (B,).
        parameters: output of the parameter head, (B, k), or None.
    """

    score: Tensor
    slice_logit: Tensor
    parameters: Tensor | None


class MedIQA(nn.Module):
    """Score 2-D images; slices of a volume are images of a batch, joined by `heads.volume_score`.

    Args:
        size: the row of the table.
        parameters: names that the parameter head predicts, in order; () for no head.
    """

    def __init__(self, size: Size, *, parameters: Sequence[str] = ()) -> None:
        super().__init__()
        width, half = size.embed_dim, size.embed_dim // 2
        self.size = size
        self.vit = VisionTransformer(
            img_size=size.image_px,
            patch_size=size.patch_px,
            embed_dim=width,
            depth=max(size.taps) + 1,
            num_heads=size.heads,
            num_classes=0,
            global_pool="",
            final_norm=False,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.tablock1 = nn.Sequential(*(TransposedAttention(size.tokens, size.tab) for _ in range(2)))
        self.conv1 = nn.Conv2d(width * len(size.taps), width, kernel_size=1)
        self.swintransformer1 = SwinStage(width, size)
        self.tablock2 = nn.Sequential(*(TransposedAttention(size.tokens, size.tab) for _ in range(2)))
        self.conv2 = nn.Conv2d(width, half, kernel_size=1)
        self.swintransformer2 = SwinStage(half, size)
        self.fc_score = branch(half, nn.ReLU() if size.score_activation == "relu" else nn.Identity())
        self.fc_weight = branch(half, nn.Sigmoid())
        self.MLP1 = nn.Linear(PROMPT_WIDTH, width)
        self.MLP2 = nn.Linear(PROMPT_WIDTH, half)
        self.slice_weight = SliceWeight(half)
        self.parameter_head = ParameterHead(width * len(size.taps), width, len(parameters)) if parameters else None

    def encode(self, images: Tensor) -> Tensor:
        """E: return raw outputs of the tapped ViT blocks side by side: (B, 3, S, S) to (B, N, taps * C)."""
        taps: list[Tensor] = self.vit.forward_intermediates(
            images,
            indices=list(self.size.taps),
            norm=False,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )  # type: ignore[assignment]
        return torch.cat(taps, dim=2)

    def refine(self, features: Tensor, prompts: Tensor | None) -> Tensor:
        """Return what both branches read: (B, N, taps * C) and prompts (B, 64) to (B, N, C / 2)."""
        x = self.conv1(self._on_grid(self.tablock1(features.mT)))
        x = self.swintransformer1(x, None if prompts is None else self.MLP1(prompts))
        x = self.conv2(self._on_grid(self.tablock2(x.flatten(2))))
        x = self.swintransformer2(x, None if prompts is None else self.MLP2(prompts))
        return x.flatten(2).mT

    def predict_parameters(self, features: Tensor) -> Tensor | None:
        """g: return physical parameters (B, k) from `encode`'s features, or None without a head."""
        return None if self.parameter_head is None else self.parameter_head(features)

    def forward(self, images: Tensor, prompts: Tensor | None = None) -> Judgement:
        """Judge images (B, 3, S, S), 0..1, each under its own prompt (B, 64).

        Without prompts the network is MANIQA.
        """
        features = self.encode(images)
        refined = self.refine(features, prompts)
        return Judgement(
            score=image_score(self.fc_score(refined)[..., 0], self.fc_weight(refined)[..., 0]),
            slice_logit=self.slice_weight(refined.mean(dim=1))[:, 0],
            parameters=self.predict_parameters(features),
        )

    def _on_grid(self, x: Tensor) -> Tensor:
        """(B, C, N) to (B, C, H, W)."""
        return x.unflatten(2, (self.size.grid, self.size.grid))
