"""The network as it is usually run, for comparison: nothing saved, nothing fused.

Seven forwards of one image each, through all twelve ViT blocks although only four are read, attention as three
separate products, channel attention of the whole batch at once with every intermediate kept. Written out here from
the paper's equations; weights are those of the network it is compared with.
"""

from functools import partial

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mediqa_node.model.heads import image_score
from mediqa_node.model.network import MedIQA

BLOCKS = 12


class Naive(nn.Module):
    """A released network (b8) without any saving."""

    def __init__(self, network: MedIQA) -> None:
        super().__init__()
        size = network.size
        self.network = network
        self.size = size
        self.vit = VisionTransformer(
            img_size=size.image_px, patch_size=size.patch_px, embed_dim=size.embed_dim, depth=BLOCKS,
            num_heads=size.heads, num_classes=1000, norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )  # fmt: skip
        self.vit.load_state_dict(network.vit.state_dict(), strict=False)
        self.eval()

    def forward(self, images: Tensor, prompts: Tensor) -> Tensor:
        """Score images (B, 3, S, S): (B,)."""
        net, x = self.network, self.vit.patch_embed(images)
        x = self.vit._pos_embed(x)
        taps = []
        for block in self.vit.blocks:
            x = x + self._attention(block.attn, block.norm1(x))
            x = x + block.mlp(block.norm2(x))
            taps.append(x)
        self.vit.head(self.vit.norm(x)[:, 0])  # computed and never read
        x = torch.cat([taps[tap][:, 1:] for tap in self.size.taps], dim=2)
        x = self._grid(net.conv1, self._tabs(net.tablock1, x.mT))
        x = self._stage(net.swintransformer1, x, net.MLP1(prompts))
        x = self._grid(net.conv2, self._tabs(net.tablock2, x.flatten(2)))
        x = self._stage(net.swintransformer2, x, net.MLP2(prompts)).flatten(2).mT
        return image_score(net.fc_score(x)[..., 0], net.fc_weight(x)[..., 0])

    @staticmethod
    def _attention(attn: nn.Module, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = attn.qkv(x).reshape(b, n, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = ((q * attn.scale) @ k.mT).softmax(dim=-1)
        return attn.proj((weights @ v).transpose(1, 2).reshape(b, n, c))

    @staticmethod
    def _tabs(blocks: nn.Sequential, x: Tensor) -> Tensor:
        for block in blocks:
            q, k, v = block.c_q(x), block.c_k(x), block.c_v(x)
            attention = (q @ k.mT * block.scale).softmax(dim=-1)
            mixed = attention @ v
            x = x + mixed.transpose(1, 2).reshape(x.shape)
        return x

    def _grid(self, conv: nn.Module, x: Tensor) -> Tensor:
        return conv(x.unflatten(2, (self.size.grid, self.size.grid)))

    @staticmethod
    def _stage(stage: nn.Module, x: Tensor, prompt: Tensor) -> Tensor:
        for layer in stage.layers:
            for block in layer.blocks:
                block.attn.fused_attn = False
            out = layer(x.permute(0, 2, 3, 1))
            for block in layer.blocks:
                block.attn.fused_attn = True
            x = stage.scale * out + x + prompt[:, :, None, None]
        return x
