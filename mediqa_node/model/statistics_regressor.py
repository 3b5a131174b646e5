"""A regressor on the statistics of a slice (`image.measure.quality_statistics`), fused with the network.

A support vector machine with a Gaussian kernel (Drucker et al. 1996), fitted by `mediqa-train`; it is stored as tensors
in the same safetensors file, under `statistics.<modality>.<output>.`, and the card has its share.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mediqa_node.domain.prompt import MODALITIES
from mediqa_node.image.measure.quality_statistics import names

PREFIX = "statistics."
QUALITY = "quality"
_PARTS = ("mean", "spread", "support", "coefficients", "intercept", "gamma")
_FARTHEST = 4.0
"""Standard deviations beyond which a statistic counts as this: a regressor does not extrapolate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsRegressor:
    """f(x) = sum_i c_i exp(-gamma |z - s_i|^2) + b, z = (x - mean) / spread, clipped at 4 deviations.

    Attributes:
        mean, spread: of each statistic over the training slices, (k,).
        support: (n, k); coefficients: (n,).
    """

    mean: np.ndarray
    spread: np.ndarray
    support: np.ndarray
    coefficients: np.ndarray
    intercept: float
    gamma: float

    def __call__(self, statistics: np.ndarray) -> np.ndarray:
        """Return the predictions for slices, (m, k) to (m,), float64."""
        z = standardised(statistics, self.mean, self.spread)
        squares = (z**2).sum(axis=1)[:, None] + (self.support**2).sum(axis=1)[None] - 2.0 * z @ self.support.T
        return np.asarray(np.exp(-self.gamma * np.maximum(squares, 0.0)) @ self.coefficients + self.intercept)

    def tensors(self, modality: str, output: str) -> dict[str, torch.Tensor]:
        """Return the tensors that are saved with the weights, float32."""
        return {
            f"{PREFIX}{modality}.{output}.{part}": torch.tensor(np.atleast_1d(getattr(self, part)), dtype=torch.float32)
            for part in _PARTS
        }


def standardised(statistics: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return statistics in standard deviations from their mean, clipped at 4, (m, k)."""
    return np.asarray(np.clip((statistics - mean) / spread, -_FARTHEST, _FARTHEST))


def regressors_of(state: Mapping[str, torch.Tensor]) -> dict[str, dict[str, StatisticsRegressor]]:
    """Return the regressors among the tensors of a checkpoint, by modality and output.

    Raises:
        ValueError: parts missing, shapes that do not fit this version's statistics, or values that are not finite.
    """
    parts: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for key, value in state.items():
        if key.startswith(PREFIX):
            modality, _, rest = key.removeprefix(PREFIX).partition(".")
            output, _, part = rest.partition(".")
            parts.setdefault((modality, output), {})[part] = value.double().numpy()
    found: dict[str, dict[str, StatisticsRegressor]] = {}
    for (modality, output), of_one in parts.items():
        where = f"statistics of {modality}, {output}"
        if modality not in MODALITIES or set(of_one) != set(_PARTS):
            raise ValueError(f"{where}: parts {sorted(of_one)}, expected {sorted(_PARTS)} of {', '.join(MODALITIES)}")
        k, n = len(names(modality)), of_one["coefficients"].size
        expected = {"mean": (k,), "spread": (k,), "support": (n, k), "coefficients": (n,), "intercept": (1,)}
        for part, shape in (expected | {"gamma": (1,)}).items():
            if of_one[part].shape != shape or not np.isfinite(of_one[part]).all():
                raise ValueError(f"{where}: {part} of shape {of_one[part].shape}, expected {shape}, finite")
        if not (of_one["spread"] > 0).all():
            raise ValueError(f"{where}: spread must be above 0")
        found.setdefault(modality, {})[output] = StatisticsRegressor(
            mean=of_one["mean"],
            spread=of_one["spread"],
            support=of_one["support"],
            coefficients=of_one["coefficients"],
            intercept=float(of_one["intercept"][0]),
            gamma=float(of_one["gamma"][0]),
        )
    return found
