"""Predictions of a checkpoint: the network alone, the regressors on statistics alone, and the shipped combination."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.model.card import Card, Fusion
from mediqa_node.model.network import MedIQA
from mediqa_node.model.prompts import FOUR_ONE_HOTS, PromptCode
from mediqa_node.model.statistics_regressor import StatisticsRegressor
from training.data.batches import Target
from training.data.views import Prepared
from training.evaluate.predictions import predict

QUALITY = "quality"
NETWORK, STATISTICS, SHIPPED = "network", "statistics", "shipped"
METHODS = (NETWORK, STATISTICS, SHIPPED)
OUTPUTS = {"CT": (QUALITY, "mas"), "MR": (QUALITY, "tesla"), "OP": (QUALITY, "blur")}
"""What is predicted of an image, by modality."""

Regressors = Mapping[str, Mapping[str, StatisticsRegressor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodPredictions:
    """Predictions for n samples of one modality.

    Attributes:
        data: the samples.
        values: (n,) by output and method; parameters in standard units of the network's targets.
        targets: define these units.
    """

    data: Prepared
    values: Mapping[str, Mapping[str, np.ndarray]]
    targets: Sequence[Target] = ()

    def truth(self, output: str) -> np.ndarray:
        """Return the labels in the units of the predictions, (n,), NaN where a sample has none."""
        values = np.array([sample.labels.get(output, np.nan) for sample in self.data.samples])
        target = next((one for one in self.targets if one.label == output), None)
        return values if target is None else target.standard(values)


def predict_by_method(
    network: MedIQA,
    targets: Sequence[Target],
    regressors: Regressors,
    fusion: Mapping[str, Mapping[str, Fusion]],
    data: Prepared,
    modality: str,
    *,
    code: PromptCode = FOUR_ONE_HOTS,
) -> MethodPredictions:
    """Return the predictions of a network and its regressors for the samples of one modality.

    As in the node, quality is weighted over slices by the network; parameters are plain means.
    """
    mine = data.subset(lambda sample: sample.modality == modality)
    own = predict(network, mine, code)
    measured = [mine.statistics(place) for place in range(len(mine))]
    values: dict[str, dict[str, np.ndarray]] = {}
    for output in OUTPUTS[modality]:
        column = next((k for k, target in enumerate(targets) if target.label == output), None)
        by_network = own.score if output == QUALITY else own.parameters[:, column] if column is not None else None
        if by_network is None:
            continue
        values[output] = {NETWORK: by_network}
        regressor = regressors.get(modality, {}).get(output)
        if regressor is not None:
            values[output][STATISTICS] = np.array(
                [
                    np.average(regressor(one), weights=weights if output == QUALITY else None)
                    for one, weights in zip(measured, own.weights, strict=True)
                ]
            )
        share = fusion.get(modality, {}).get(output)
        by_statistics = values[output].get(STATISTICS, np.zeros(len(mine)))
        values[output][SHIPPED] = (
            by_network
            if share is None
            else share.offset + share.network * by_network + share.statistics * by_statistics
        )
    return MethodPredictions(data=mine, values=values, targets=targets)


def predict_samples(
    network: MedIQA, card: Card, regressors: Regressors, data: Prepared, advance: Callable[[int, int, str], None]
) -> dict[str, MethodPredictions]:
    """Return the predictions of a checkpoint for some samples, by modality."""
    found = {}
    for done, modality in enumerate(OUTPUTS):
        advance(done, len(OUTPUTS), modality)
        if any(sample.modality == modality for sample in data.samples):
            found[modality] = predict_by_method(
                network,
                targets_of_card(card),
                regressors,
                card.fusion,
                data,
                modality,
                code=card.prompt or FOUR_ONE_HOTS,
            )
    return found


def targets_of_card(card: Card) -> tuple[Target, ...]:
    """Return the outputs of a checkpoint's parameter head as training targets."""
    return tuple(
        Target(label=one.name, modality=one.modality, log=one.scale == "log", mean=one.mean, sd=one.sd)
        for one in card.parameters
    )
