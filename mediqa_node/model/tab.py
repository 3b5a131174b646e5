"""Transposed attention block (TAB): attention between channels instead of between patches (MANIQA, section 3.2)."""

import torch
from torch import Tensor, nn

FORMS = ("transposed", "released")


class TransposedAttention(nn.Module):
    """Attention of every channel to every channel of the same image.

    The attention map is C x C per image; at size b8 that is 3072 x 3072 (38 MB), so images are
    taken one at a time.

    Args:
        tokens: N, patches of one image; queries, keys and values are linear over them.
        form: `transposed` adds `attention @ v` unchanged. `released` reinterprets its transpose (N, C) as (C, N): a
            fixed permutation of channels and positions in the public code, which released weights need.
    """

    def __init__(self, tokens: int, form: str) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"TAB form {form!r}; known: {', '.join(FORMS)}")
        self.c_q = nn.Linear(tokens, tokens)
        self.c_k = nn.Linear(tokens, tokens)
        self.c_v = nn.Linear(tokens, tokens)
        self.scale = tokens**-0.5
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, N) to (B, C, N)."""
        return torch.stack([image + self._attend(image) for image in x])

    def _attend(self, x: Tensor) -> Tensor:
        """Return softmax(q k^T / sqrt(N)) v for one image, (C, N)."""
        logits = self.c_q(x) @ self.c_k(x).mT
        if torch.is_grad_enabled():
            attention = (logits * self.scale).softmax(dim=-1)
        else:
            attention = torch.softmax(logits.mul_(self.scale), dim=-1, out=logits)
        return _placed(attention @ self.c_v(x), self.form)


class FoldedAttention(nn.Module):
    """The same block with two of three projections merged, for inference only.

    q k^T = (x Wq' + bq)(x Wk' + bk)^T; what depends on the query alone cancels in the softmax, so that
    q k^T = (x A' + a) x^T with A = Wk' Wq and a = Wk' bq. Merged in float64; float32 scores move by 5e-7.
    """

    def __init__(self, block: TransposedAttention) -> None:
        super().__init__()
        query, key = block.c_q.weight.double(), block.c_k.weight.double()
        self.c_qk = nn.Linear(query.shape[1], query.shape[1])
        self.c_qk.weight.data = (key.mT @ query).to(block.c_q.weight)
        self.c_qk.bias.data = (key.mT @ block.c_q.bias.double()).to(block.c_q.weight)
        self.c_v = block.c_v
        self.scale = block.scale
        self.form = block.form

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, N) to (B, C, N)."""
        return torch.stack([image + self._attend(image) for image in x])

    def _attend(self, x: Tensor) -> Tensor:
        logits = (self.c_qk(x) @ x.mT).mul_(self.scale)
        return _placed(torch.softmax(logits, dim=-1, out=logits) @ self.c_v(x), self.form)


def _placed(mixed: Tensor, form: str) -> Tensor:
    """Return (C, N) unchanged, or reinterpreted as in the release."""
    return mixed.mT.reshape(mixed.shape) if form == "released" else mixed
