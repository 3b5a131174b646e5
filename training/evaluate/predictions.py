"""Predictions of a network for a set of samples."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mediqa_node.model.predict import mean_by_slice
from mediqa_node.model.prompts import PromptCode
from mediqa_node.system.memory import keep_freed_memory
from training.data.views import Prepared

_IMAGES_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Predictions of a network for n samples.

    Attributes:
        score: raw, the mean over views, then weighted over slices, (n,).
        parameters: of the parameter head, in standard units, (n, k).
        weights: of the slices of each sample, summing to 1.
    """

    score: np.ndarray
    parameters: np.ndarray
    weights: tuple[np.ndarray, ...]


@torch.inference_mode()
def predict(network: nn.Module, data: Prepared, code: PromptCode, *, prompted: bool = True) -> Predictions:
    """Score samples as the node does: all views of all slices, averaged, then weighted."""
    keep_freed_memory()
    network.eval()
    device = next(network.parameters()).device
    scores, parameters, weights_of = [], [], []
    for place, sample in enumerate(data.samples):
        images = torch.from_numpy(data.views(place)).to(device)
        vector = code.encode(sample.words)
        prompts = torch.from_numpy(vector if prompted else np.zeros_like(vector)).to(device).expand(len(images), -1)
        parts = [
            network(images[start : start + _IMAGES_AT_ONCE], prompts[start : start + _IMAGES_AT_ONCE])
            for start in range(0, len(images), _IMAGES_AT_ONCE)
        ]
        outputs_of = [torch.cat(part).double().cpu().numpy() for part in zip(*parts, strict=True)]
        raw, logit, outputs = (mean_by_slice(data.slice_of(place), outputs_of[field]) for field in (0, 1, 4))
        weights = np.exp(logit - logit.max())
        weights_of.append(weights / weights.sum())
        scores.append(float((weights * raw).sum() / weights.sum()))
        parameters.append(outputs.mean(axis=0))
    return Predictions(
        score=np.array(scores),
        parameters=np.array(parameters).reshape(len(scores), -1),
        weights=tuple(weights_of),
    )
