"""From a run to a checkpoint that a node can load: weights, regressors on statistics, shares, card and lock."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.image.measure.quality_statistics import VERSION
from mediqa_node.image.training_range import TrainingRange
from mediqa_node.model.card import Card, Fusion, PredictedParameter, QualityMap
from mediqa_node.model.card_training_range import read_training_ranges
from mediqa_node.model.checkpoint import amend_card, save_checkpoint
from mediqa_node.model.lock import write_lock
from mediqa_node.model.network import MedIQA
from mediqa_node.model.prompts import FOUR_ONE_HOTS, TERMS, PromptCode
from mediqa_node.model.statistics_regressor import StatisticsRegressor
from training.data.batches import Target
from training.data.views import Prepared
from training.evaluate.by_method import NETWORK, OUTPUTS, QUALITY, predict_by_method
from training.evaluate.claims import claims_of, held_out_rmse
from training.fit.regressors import Fit, added, choose, fit_regressor, fuse, left_out
from training.fit.runs import Run, trained_network

NO_PROMPT = PromptCode(words=dict.fromkeys(TERMS, ()))
"""Zeros for every prompt: the code of a network that was trained without prompts."""
_UNITS = {"mas": "mA.s", "tesla": "T", "blur": "{pixels}"}
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_FEWEST_SOURCES = 3
_SNR_IN_QUALITY = {"MR": ("tesla", 0.05)}
"""What one deviation of the logarithm of the signal-to-noise ratio adds to the quality that statistics predict.

Noise hides ghosts and fills gaps of k-space, so that a regressor fitted on all factors does not follow noise alone.
Nothing is added unless every sample with a quality has a field strength too: expert scores often come without one.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """A network that was trained without some sources in both stages; shares are chosen on these sources.

    Attributes:
        targets: of its parameter head, in its training units.
        unseen: the sources left out.
    """

    network: MedIQA
    targets: tuple[Target, ...]
    unseen: frozenset[str]


def fits(data: Prepared, modality: str, targets: Sequence[Target]) -> dict[str, Fit]:
    """Return statistics and labels of the training samples of a modality, by output; labels in the network's units."""
    mine = data.subset(lambda sample: sample.split == "train" and sample.modality == modality)
    if not len(mine):
        return {}
    found = {}
    for output in OUTPUTS[modality]:
        target = next((one for one in targets if one.label == output), None)
        known = mine.subset(lambda sample, name=output: name in sample.labels)  # type: ignore[misc]
        if not len(known) or (output != QUALITY and target is None):
            continue
        values = np.array([sample.labels[output] for sample in known.samples])
        found[output] = Fit(
            statistics=np.stack([known.statistics(place).mean(axis=0) for place in range(len(known))]),
            label=values if target is None else target.standard(values),
            source=np.array([sample.source for sample in known.samples]),
            group=np.array([sample.base for sample in known.samples]),
            factor=np.array([sample.factor for sample in known.samples]) if output == QUALITY else None,
        )
    return found


def quality_regressors(
    data: Prepared, modalities: Iterable[str], *, folds: int | None = None
) -> dict[str, dict[str, StatisticsRegressor]]:
    """Fit the regressors of quality on statistics of the training samples, for modalities with two sources at least.

    Cost and width are chosen on left-out sources.

    Args:
        folds: number of groups of sources that are left out together; None: each alone.
    """
    found = {}
    for modality in modalities:
        fit = fits(data, modality, ()).get(QUALITY)
        if fit is not None and len(set(fit.source)) > 1:
            cost, width, _ = choose(fit, folds)
            found[modality] = {QUALITY: fit_regressor(fit, cost, width)}
    return found


def regressors_and_fusion(
    data: Prepared,
    targets: Sequence[Target],
    folds: Sequence[Fold],
    *,
    advance: Callable[[int, int, str], None],
) -> tuple[dict[str, dict[str, StatisticsRegressor]], dict[str, dict[str, Fusion]], list[str]]:
    """Fit the regressors on statistics, and choose the shares of network and statistics.

    Returns:
        regressors and fusion by modality and output, and a line on each choice.

    Raises:
        ConfigurationError: no fold left out the sources of a modality.
    """
    regressors: dict[str, dict[str, StatisticsRegressor]] = {}
    fusion: dict[str, dict[str, Fusion]] = {}
    choices: list[str] = []
    wanted = [(modality, output) for modality in OUTPUTS for output in OUTPUTS[modality]]
    of_modality = {modality: fits(data, modality, targets) for modality in OUTPUTS}
    for done, (modality, output) in enumerate(wanted):
        advance(done, len(wanted), f"{modality} {output}")
        fit = of_modality[modality].get(output)
        if fit is None or len(np.unique(fit.source)) < _FEWEST_SOURCES:
            continue
        cost, share, predicted = choose(fit)
        regressor = fit_regressor(fit, cost, share)
        if output == QUALITY and modality in _SNR_IN_QUALITY:
            label, weight = _SNR_IN_QUALITY[modality]
            snr = of_modality[modality].get(label)
            if snr is not None and np.array_equal(snr.group, fit.group):  # they add up only on the same samples
                predicted = predicted + weight * left_out(snr, cost, share)
                regressor = added(regressor, weight, fit_regressor(snr, cost, share))
        regressors.setdefault(modality, {})[output] = regressor
        by_network = _of_folds(data, targets, folds, modality, output)
        if by_network is None:
            raise ConfigurationError(f"no network was trained without the sources of {modality}: give `--fold` runs")
        seen = np.isfinite(by_network)
        chosen, merits = fuse(by_network[seen], predicted[seen], fit.where(seen), _SHARES)
        fusion.setdefault(modality, {})[output] = chosen
        choices.append(
            f"{modality} {output}: C {cost:g}, gamma {share:g}/k, {len(regressors[modality][output].support)} vectors; "
            f"statistics x {chosen.statistics:.2f} + network x {chosen.network:.2f}; merit by share of statistics "
            + ", ".join(f"{part:.2f}: {merit:.3f}" for part, merit in merits.items())
        )
    advance(len(wanted), len(wanted), "")
    return regressors, fusion, choices


def _of_folds(
    data: Prepared,
    targets: Sequence[Target],
    folds: Sequence[Fold],
    modality: str,
    output: str,
) -> np.ndarray | None:
    """Return network predictions for the sources that each fold left out, NaN elsewhere, in the order of `fits`."""
    mine = data.subset(
        lambda sample: sample.split == "train" and sample.modality == modality and output in sample.labels
    )
    predicted = np.full(len(mine), np.nan)
    for fold in folds:
        places = [place for place, sample in enumerate(mine.samples) if sample.source in fold.unseen]
        if places:
            part = mine.subset(lambda sample, out=fold.unseen: sample.source in out)  # type: ignore[misc]
            found = predict_by_method(fold.network, fold.targets, {}, {}, part, modality).values[output][NETWORK]
            predicted[places] = found if output == QUALITY else _in_units_of(targets, fold.targets, output, found)
    return predicted if np.isfinite(predicted).any() else None


def _in_units_of(targets: Sequence[Target], own: Sequence[Target], output: str, predicted: np.ndarray) -> np.ndarray:
    """Convert predicted parameters from the units of one head to those of another."""
    wanted, given = (next(one for one in each if one.label == output) for each in (targets, own))
    return np.asarray((predicted * given.sd + given.mean - wanted.mean) / wanted.sd)


def make_card(
    run: Run,
    *,
    name: str,
    fusion: Mapping[str, Mapping[str, Fusion]],
    domains: Path | None,
    training_data: str,
    metrics: Mapping[str, Any],
) -> Card:
    """Return the card of a run's checkpoint; its digest is filled in when it is saved."""
    spec = run.recipe.spec
    return Card(
        name=name,
        size=run.recipe.size,
        trained=True,
        weights_sha256="0" * 64,
        preprocess=spec,
        prompt=FOUR_ONE_HOTS if run.recipe.prompts else NO_PROMPT,
        quality=QualityMap(kind="clamp", a=0.0, b=1.0),
        parameters=tuple(
            PredictedParameter(
                name=one.label,
                unit=_UNITS[one.label],
                modality=one.modality,
                scale="log" if one.log else "linear",
                mean=one.mean,
                sd=one.sd,
                lowest=one.lowest,
                highest=one.highest,
            )
            for one in run.targets
            if one.label in _UNITS
        ),
        fusion=fusion,
        statistics_version=VERSION if fusion else None,
        domains=_training_ranges(domains, spec) if domains else {},
        pretrained=run.pretrained,
        training_data=training_data,
        metrics=metrics,
    )


def _training_ranges(file: Path, spec: PreprocessSpec) -> Mapping[str, TrainingRange]:
    """Read the output of `mediqa-train domain`; ConfigurationError if the file is something else."""
    try:
        return read_training_ranges(json.loads(file.read_text(encoding="utf-8")), spec)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"--domains {file}: not what `mediqa-train domain` writes for it: {error}") from error


def write_checkpoint(
    folder: Path, run_folder: Path, card: Card, regressors: Mapping[str, Mapping[str, StatisticsRegressor]]
) -> str:
    """Write weights (float16), card and a lock of one entry; return the SHA-256 of the weights."""
    entry = save_checkpoint(folder, _with_card_parameters(*trained_network(run_folder)), card, regressors, half=True)
    write_lock(folder, card.name, entry)
    return entry.sha256


def _with_card_parameters(network: MedIQA, run: Run) -> MedIQA:
    """Return a network that predicts the card's parameters only; severities only served to train the encoder."""
    kept = [column for column, target in enumerate(run.targets) if target.label in _UNITS]
    other = MedIQA(network.size, parameters=[run.targets[column].label for column in kept])
    state = {name: value for name, value in network.state_dict().items() if kept or "parameter_head" not in name}
    for name in ("parameter_head.fc2.weight", "parameter_head.fc2.bias") if kept else ():
        state[name] = state[name][kept]
    other.load_state_dict(state)
    return other


def claimed(folder: Path, gates: Mapping[str, Any]) -> Mapping[str, str]:
    """Write the gates of a checkpoint and the claims that they allow into its card; return the claims by modality.

    Raises:
        ConfigurationError: the gates belong to other weights or are invalid, or the card has no provenance.
    """
    found: dict[str, str] = {}

    def with_claims(card: Card) -> Card:
        try:
            own = _of_weights(gates, card.weights_sha256)
            if not any(own.values()):
                raise ConfigurationError(
                    f"these gates are of other weights than {card.name} {card.weights_sha256[:12]}"
                )
            found.update(claims_of(own, card.metrics["made_by"]))
            parameters = tuple(replace(one, held_out_rmse=held_out_rmse(own, one)) for one in card.parameters)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"the gates or the card have another shape than `mediqa-train evaluate` and `card` write: "
                f"{type(error).__name__}: {error}"
            ) from error
        return replace(card, claims=found, parameters=parameters, metrics={**card.metrics, "gates": gates})

    amend_card(folder, with_claims)
    return found


def claimed_before(folder: Path, before: Card) -> Mapping[str, str]:
    """Write into the card of a refit the gates and claims of the fit before it, which had sources to be tested on.

    Args:
        before: card of the same seed, with its gates.
    """
    found: dict[str, str] = {}
    own = _of_weights(before.metrics["gates"], before.weights_sha256)
    rmse = {one.name: one.held_out_rmse for one in before.parameters}

    def with_claims(card: Card) -> Card:
        found.update(claims_of(own, card.metrics["made_by"], refit=True))
        return replace(
            card,
            claims=found,
            parameters=tuple(replace(one, held_out_rmse=rmse.get(one.name)) for one in card.parameters),
            metrics={
                **card.metrics,
                "gates": before.metrics["gates"],
                "fit_before": {"weights_sha256": before.weights_sha256, "made_by": before.metrics["made_by"]},
            },
        )

    amend_card(folder, with_claims)
    return found


def _of_weights(gates: Mapping[str, Any], weights_sha256: str) -> dict[str, list[Any]]:
    return {
        part: [one for one in gates.get(part, []) if one["weights_sha256"] == weights_sha256]
        for part in ("tasks", "sweeps")
    }


def provenance(run: Run) -> dict[str, Any]:
    """Return the provenance of a checkpoint, for its card."""
    return {
        "seed": run.seed,
        "recipe": run.recipe.model_dump(),
        "samples": run.samples,
        "simulated": run.simulated,
        "sources": run.sources,
        "began_from": run.began_from,
        "pretrained": None if run.pretrained is None else asdict(run.pretrained),
        "core_minutes": round(run.core_seconds / 60, 1),
        "targets": [asdict(one) for one in run.targets],
    }
