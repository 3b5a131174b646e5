"""The methods of a table, trained and tested on the same samples: the model, seven networks, and five without one.

`AsNetworkOutput` wraps a network without prompts and slice weights like the model, so that all share one loop, one
sequence of batches and one loss. Upstream tasks are those of stage 1: the logarithm of mA.s (CT), T (MR) or blur
(fundus) in standard deviations of the training samples; downstream is quality.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.prompt import MODALITIES
from mediqa_node.image.measure.noise import immerkaer
from mediqa_node.model.card import DEFAULT_PREPROCESSING
from mediqa_node.model.network import MedIQA, NetworkOutput
from mediqa_node.model.prompts import FOUR_ONE_HOTS
from mediqa_node.model.sizes import SIZES
from mediqa_node.model.trunk import DETAILS
from training.baselines import NETWORKS, baseline
from training.baselines.noise import score
from training.baselines.statistics_svr import fit_svr
from training.data.batches import Batches, Target, labels_of, targets_of
from training.data.tokens import Tokens, tokens_of
from training.data.views import Prepared
from training.fit.choices import features_of_sample, ridge
from training.fit.loop import train
from training.fit.losses import stage1_loss, stage2_loss
from training.fit.pretrained import load_pretrained, pretrained
from training.fit.recipe import STAGE1, STAGE2, Recipe, read_recipe
from training.fit.runs import WANTED, digest_of, finetune, predictions_of, pretrain

STAGES = ("upstream", "downstream")
OURS = "ours"
WITHOUT_NETWORK = ("noise", "statistics", "details", "random_trunk", "trunk")
METHODS = (*WITHOUT_NETWORK, *NETWORKS, OURS)
"""In the order of the table."""
_TITLES = {
    "noise": "noise estimate", "statistics": "statistics + SVR", "details": "local details + ridge",
    "random_trunk": "random trunk + ridge", "trunk": "pretrained trunk + ridge",
    "vgg": "VGG", "resnet": "ResNet", "swin": "Swin", "vit": "ViT", "deepvit": "DeepViT",
    "cnniqanet": "CNNIQAnet", "wadiqam": "WaDIQaM", OURS: "Ours",
}  # fmt: skip
_TRUNK = "e16"
_DARKEST, _BRIGHTEST = 0.01, 0.99
"""Beyond these a pixel lies at an end of the window: air, padding or bone, where noise is cut off."""

Advance = Callable[[int, int, str], None]
"""Called with the steps done, the number of steps, and the method and stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The training budget of every network.

    Attributes:
        steps: of each stage.
        small: baselines with few channels, for two cores; else the published size.
    """

    steps: int = 300
    small: bool = True
    seed: int = 0

    def recipe(self, stage: str, *, prompts: bool = True) -> Recipe:
        """Return the default preset of a stage without severities: every network learns from the same labels."""
        preset = read_recipe(STAGE1 if stage == "upstream" else STAGE2, "default")
        return preset.model_copy(update={"prompts": prompts, "severities": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The training and test samples of a split.

    Attributes:
        targets: of stage 1, from the training samples.
    """

    train: Prepared
    test: Prepared
    targets: tuple[Target, ...]

    def truth(self, stage: str, side: Prepared) -> np.ndarray:
        """Return the labels of one side, (n,), NaN where unknown."""
        quality, parameters = labels_of(side, self.targets)
        if stage == "downstream":
            return quality.astype(np.float64)
        known = np.isfinite(parameters)
        return np.where(known.any(axis=1), np.where(known, parameters, 0.0).sum(axis=1), np.nan)


def divided(prepared: Prepared) -> Data:
    """Split samples into training and test samples.

    Raises:
        ConfigurationError: one of them is empty, or a patient is on both.
    """
    learnt = prepared.subset(lambda one: one.split == "train")
    tried = prepared.subset(lambda one: one.split == "test")
    if not len(learnt) or not len(tried):
        raise ConfigurationError(f"{len(learnt)} training and {len(tried)} test samples; a table needs both")
    if both := {one.patient for one in learnt.samples} & {one.patient for one in tried.samples}:
        raise ConfigurationError(f"patient {min(both)} is in train and in test: the table would be wrong")
    return Data(train=learnt, test=tried, targets=targets_of(learnt, WANTED))


def title(method: str, budget: Budget) -> str:
    """Return the title of a method in a table, with `(small)` unless the published size is trained."""
    return f"{_TITLES[method]} (small)" if method in NETWORKS and budget.small else _TITLES[method]


def predictions(
    method: str, data: Data, budget: Budget, folder: Path, *, advance: Advance = lambda *_: None
) -> Mapping[str, np.ndarray]:
    """Train one method for both stages and return its predictions for the test samples, by stage, in the label's unit.

    Args:
        folder: for the runs; an interrupted run is resumed.
    """
    if method == OURS:
        return ours(data, budget, folder / OURS, advance=advance)
    found = {}
    for stage in STAGES:
        learnable = np.isfinite(data.truth(stage, data.train)).any()
        if not learnable:
            continue
        if method in WITHOUT_NETWORK:
            found[stage] = _WITHOUT_NETWORK[method](data, stage)
        else:
            found[stage] = _of_baseline(method, data, stage, budget, folder, advance)
    return found


# ── networks ─────────────────────────────────────────────────────────────────


def ours(
    data: Data,
    budget: Budget,
    folder: Path,
    *,
    pretrained: bool = True,
    prompted: bool = True,
    advance: Advance = lambda *_: None,
) -> Mapping[str, np.ndarray]:
    """Train the model, stage 1 then stage 2, and return the predictions of each for the test samples.

    Args:
        pretrained: False: without stage 1 (Table 2 without PT); the trunk is pretrained on other images all the same.
        prompted: False: prompts are zeros (Table 2 without PM).
    """
    found = {}
    begin = None
    if pretrained and data.targets:
        begin = folder / "upstream"
        network = pretrain(
            data.train, budget.recipe("upstream", prompts=prompted), begin, seed=budget.seed, steps=budget.steps,
            advance=lambda step, total, _: advance(step, total, f"{OURS} upstream"),
        )  # fmt: skip
        predicted = predictions_of(begin, network, data.test, prompted=prompted)
        found["upstream"] = _own_parameter(predicted["parameters"], data)
    if np.isfinite(data.truth("downstream", data.train)).any():
        network = finetune(
            data.train, budget.recipe("downstream", prompts=prompted), folder / "downstream", seed=budget.seed,
            begin=begin, steps=budget.steps, advance=lambda step, total, _: advance(step, total, f"{OURS} downstream"),
        )  # fmt: skip
        found["downstream"] = predictions_of(folder / "downstream", network, data.test, prompted=prompted)["score"]
    return found


def _own_parameter(parameters: np.ndarray, data: Data) -> np.ndarray:
    """Return the predicted label of its modality for each test sample, (n,); NaN without one."""
    columns = {target.modality: column for column, target in enumerate(data.targets)}
    return np.array([
        row[columns[sample.modality]] if sample.modality in columns else np.nan
        for sample, row in zip(data.test.samples, parameters, strict=True)
    ])  # fmt: skip


class AsNetworkOutput(nn.Module):
    """Wraps a network with one score per image like the model: prompts are ignored, slices have equal weights.

    Args:
        outputs: number of outputs of the parameter head; each repeats the score.
    """

    def __init__(self, network: nn.Module, outputs: int) -> None:
        super().__init__()
        self.network, self._outputs = network, outputs

    def forward(self, images: Tensor, prompts: Tensor, *, upstream: bool = False) -> NetworkOutput:
        """Map (B, 3, S, S) to the score, repeated for every parameter and as the only patch."""
        found = self.network(images)
        patch = found[:, None]
        return NetworkOutput(
            score=found,
            slice_logit=torch.zeros_like(found),
            patch_score=patch,
            patch_weight=torch.ones_like(patch),
            parameters=patch.expand(-1, self._outputs),
        )


def _of_baseline(name: str, data: Data, stage: str, budget: Budget, folder: Path, advance: Advance) -> np.ndarray:
    targets = data.targets if stage == "upstream" else ()
    recipe = budget.recipe(stage)
    learnt = data.train
    labelled = np.isfinite(data.truth(stage, learnt))
    known = {one.key for one, has in zip(learnt.samples, labelled, strict=True) if has}
    torch.manual_seed(budget.seed)
    network = AsNetworkOutput(baseline(name, recipe.spec.size_px, small=budget.small), len(targets))
    batches = Batches(
        learnt.subset(lambda one: one.key in known), FOUR_ONE_HOTS, targets, batch=recipe.batch, seed=budget.seed,
        slices=recipe.slices_at_once, augment=recipe.augment, modality_share=recipe.share, prompted=False,
    )  # fmt: skip
    train(
        network, lambda step, rank, world: batches.at(step, rank=rank, world=world),
        stage1_loss if stage == "upstream" else stage2_loss,
        recipe.settings(samples=len(known), seed=budget.seed, steps=budget.steps), folder / name / stage,
        made_by={"small": budget.small, "data": digest_of(learnt)}, advance=_named(advance, f"{name} {stage}"),
    )  # fmt: skip
    return predictions_of(folder / name / stage, network, data.test, prompted=False)["score"]


def _named(advance: Advance, what: str) -> Callable[[int, int, float], None]:
    """Return a callback for the loop that names the method and stage."""
    return lambda done, total, _: advance(done, total, what)


# ── without a network ────────────────────────────────────────────────────────

Regressor = Callable[[np.ndarray], np.ndarray]
"""Features (m, k) to (m,)."""


def _noise(data: Data, stage: str) -> np.ndarray:
    """Fit a line from the noise of an image to the label, per modality, on the training samples."""
    return _by_modality(data, stage, lambda side, i: np.array([_noise_score(side, i)]), _line)


def _statistics(data: Data, stage: str) -> np.ndarray:
    """Fit an SVR on the mean statistics of the slices, per modality, on the training samples."""
    return _by_modality(data, stage, lambda side, i: side.statistics(i).mean(axis=0), fit_svr)


def _details(data: Data, stage: str) -> np.ndarray:
    """Do the same with the local details alone that every token has besides the features of the trunk."""
    return _of_trunk(data, stage, is_pretrained=False, values=slice(-DETAILS, None))


def _trunk(data: Data, stage: str) -> np.ndarray:
    """Fit a ridge regression on the pooled tokens of the pretrained trunk, per modality, on the training samples."""
    return _of_trunk(data, stage, is_pretrained=True)


def _random_trunk(data: Data, stage: str) -> np.ndarray:
    """Do the same with a trunk of random weights: the control that shape alone does not make."""
    return _of_trunk(data, stage, is_pretrained=False)


def _of_trunk(data: Data, stage: str, *, is_pretrained: bool, values: slice = slice(None)) -> np.ndarray:
    torch.manual_seed(0)
    network = MedIQA(SIZES[_TRUNK]).eval()
    if is_pretrained and (given := pretrained(network.size)) is not None:
        load_pretrained(network, given[0])
    on_tokens = replace(data, train=tokens_of(data.train, network.trunk), test=tokens_of(data.test, network.trunk))

    def features(side: Prepared, place: int) -> np.ndarray:
        assert isinstance(side, Tokens)
        return features_of_sample(side, place).reshape(-1, network.trunk.width)[:, values].ravel()

    return _by_modality(on_tokens, stage, features, ridge)


def _noise_score(side: Prepared, index: int) -> float:
    """Return -log of the noise in the middle view of a sample: in HU for CT, else as a fraction of the window."""
    sample = side.samples[index]
    gray = side.views(index, [len(side.slice_of(index)) // 2])[0].mean(axis=0)
    found = immerkaer(gray, (gray > _DARKEST) & (gray < _BRIGHTEST))
    if sample.modality == "CT":
        rule = DEFAULT_PREPROCESSING.rule_for("CT", sample.image_type)
        found *= rule.high - rule.low
    return score(found)


def _by_modality(
    data: Data,
    stage: str,
    features_of: Callable[[Prepared, int], np.ndarray],
    fit: Callable[[np.ndarray, np.ndarray, Sequence[str]], Regressor],
) -> np.ndarray:
    found = np.full(len(data.test), np.nan)
    learnt, tried = data.truth(stage, data.train), data.truth(stage, data.test)
    for modality in MODALITIES:
        known, asked = _of(data.train, learnt, modality), _of(data.test, tried, modality)
        if known and asked:
            sources = [data.train.samples[i].source for i in known]
            regressor = fit(np.stack([features_of(data.train, i) for i in known]), learnt[known], sources)
            found[asked] = regressor(np.stack([features_of(data.test, i) for i in asked]))
    return found


def _of(side: Prepared, truth: np.ndarray, modality: str) -> list[int]:
    return [i for i, one in enumerate(side.samples) if one.modality == modality and np.isfinite(truth[i])]


def _line(features: np.ndarray, target: np.ndarray, _: Sequence[str]) -> Regressor:
    x = features[:, 0]
    slope, level = np.polyfit(x, target, 1) if np.ptp(x) > 0 else (0.0, float(target.mean()))
    return lambda asked: np.asarray(level + slope * asked[:, 0])


_WITHOUT_NETWORK = {
    "noise": _noise, "statistics": _statistics, "details": _details, "random_trunk": _random_trunk, "trunk": _trunk,
}  # fmt: skip
