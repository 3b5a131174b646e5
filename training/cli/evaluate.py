"""`mediqa-train evaluate`: checkpoints on held-out sources, with all gates."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mediqa_node.cli.present import table
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.prompt import MODALITIES
from training.cli.app import CollectionManifest, app, progress, require, shown
from training.cli.checkpoints import lock_of, store_of

if TYPE_CHECKING:
    from mediqa_node.model.card import Card
    from mediqa_node.model.checkpoint import Regressors
    from mediqa_node.model.network import MedIQA
    from training.data.collection import ImageSet
    from training.data.store import Sample, Store
    from training.data.views import Prepared
    from training.evaluate.by_method import MethodPredictions
    from training.evaluate.results import Result
    from training.evaluate.retention import Retention
    from training.evaluate.scanner_gates import Check
    from training.evaluate.series import ScoredSeries
    from training.evaluate.single_factors import Swept

    Loaded = tuple[MedIQA, Card, Regressors]


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="A store with test samples.")],
    checkpoint: Annotated[
        list[Path],
        typer.Option(help="Folder of a checkpoint, or `default` for the shipped one. Repeat it for each seed."),
    ],
    sweep: Annotated[Path | None, typer.Option(help="A store of `simulate --preset sweep`.")] = None,
    collection: Annotated[
        Path | None,
        typer.Option(help="The collection that the store was made of: score the held-out series themselves, too."),
    ] = None,
    manifest: CollectionManifest = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plots and gates.json.")] = None,
    final: Annotated[
        bool,
        typer.Option(
            "--final",
            help="Also evaluate the sources that the plan of the store keeps for the end. Look at them once, after all "
            "choices.",
        ),
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="Number of worker processes that prepare images.")] = 2,
) -> None:
    """Print how well checkpoints predict each label on held-out sources, and which gates they pass.

    Each task is shown for the network alone, for a regression on statistics alone, and for the shipped combination,
    which may have no share of the latter. Then follow single factors, how much of the order on seen sources is kept on
    unseen ones, and with --collection the held-out series as scanned.
    """
    from mediqa_node.model.checkpoint import load_whole
    from training.data.collection import read_collection
    from training.evaluate.scanner_gates import of_card

    if out is not None:
        require("matplotlib")
    stores = [_tested(one) for one in (data, sweep) if one is not None]
    sets = [held_out_sets(store, final=final) for store in stores]
    patients = [] if collection is None else [of for of in read_collection(collection, manifest) if of.split == "dev"]
    loaded = [load_whole(*lock_of(folder)) for folder in checkpoint]
    for store, of_store in zip(stores, sets, strict=True):
        _check_unseen([card for _, card, _ in loaded], store, of_store[""])
    found = _Found()
    for seed, (network, card, regressors) in enumerate(loaded):
        samples = [shown(store, card.preprocess, processes) for store in stores]
        if seed == 0 or card.preprocess != loaded[0][1].preprocess:
            baselines = _baselines(samples[0], [each for _, _, each in loaded])
        one = (network, card, {name: {**baselines.get(name, {}), **regressors.get(name, {})} for name in MODALITIES})
        predicted = [
            _predicted(one_store.subset(_of_sources(held_out[""])), one)
            for one_store, held_out in zip(samples, sets, strict=True)
        ]
        _judge(found, predicted, sets, seed, card)
        found.checks += _checks_on_series(checkpoint[seed], patients, sets[0])
        if seed == 0:
            found.retention += _retained(samples[0], predicted[0], one)
            if out is not None and sweep is not None:
                _plots(predicted[-1], out)
    alone = _passes_alone(found.tasks)
    found.checks += [check for _, card, _ in loaded for check in of_card(card, alone=alone)]
    if not found.tasks:
        raise ConfigurationError(f"{data}: no test sample has a label that these checkpoints predict")
    _print_gates(found)
    if out is not None:
        _write(out, found)


@dataclass
class _Found:
    """What was found of all checkpoints; the content of gates.json."""

    tasks: "list[Result]" = field(default_factory=list)
    sweeps: "list[Swept]" = field(default_factory=list)
    retention: "list[Retention]" = field(default_factory=list)
    checks: "list[Check]" = field(default_factory=list)


def _judge(
    found: _Found,
    predicted: "Sequence[Mapping[str, MethodPredictions]]",
    sets: "Sequence[Mapping[str, frozenset[str]]]",
    seed: int,
    card: "Card",
) -> None:
    """Add the results of a checkpoint on a store and, if there is one, a sweep; each names its held-out sources."""
    from training.evaluate.gates import results
    from training.evaluate.single_factors import sweeps
    from training.simulate.degraded import FACTORS

    of_card: Mapping[str, Any] = {"weights_sha256": card.weights_sha256}
    for name, sources in sets[0].items():
        found.tasks += results(predicted[0], seed=seed, held_out=name, sources=sources, **of_card)
    for of_sweep, of_store in zip(predicted[1:], sets[1:], strict=True):
        for name, sources in of_store.items():
            found.sweeps += sweeps(of_sweep, FACTORS, held_out=name, sources=sources, **of_card)


def _write(out: Path, found: _Found) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "gates.json").write_text(json.dumps(asdict(found), indent=1, allow_nan=False) + "\n")
    typer.echo(f"\nwrote {out}/gates.json")


def _print_gates(found: _Found) -> None:
    from training.evaluate.gates import GATE_HEADS, gate_rows, undefined_lines
    from training.evaluate.retention import RETENTION_HEADS
    from training.evaluate.scanner_gates import CHECK_HEADS
    from training.evaluate.single_factors import SWEEP_HEADS, sweep_rows

    table(GATE_HEADS, list(gate_rows(found.tasks)))
    for line in undefined_lines(found.tasks):
        typer.echo(line)
    typer.echo(_INTERVALS)
    if found.sweeps:
        typer.echo("")
        table(SWEEP_HEADS, list(sweep_rows(found.sweeps)))
    kept, checks = [one.row() for one in found.retention], [one.row() for one in found.checks]
    for heads, rows in ((RETENTION_HEADS, kept), (CHECK_HEADS, checks)):
        if rows:
            typer.echo("")
            table(heads, rows)


_INTERVALS = (
    "In brackets 95 %, of the first checkpoint: bootstrap over sources, then over their slices. With few sources it is "
    "conditional on these. Retention is of the first checkpoint as well."
)


def _checks_on_series(
    checkpoint: Path, patients: "Sequence[ImageSet]", held_out: Mapping[str, frozenset[str]]
) -> "list[Check]":
    """Return the gates of a checkpoint on series of patients as scanned; none without patients."""
    from mediqa_node.model.predict import load_scorer
    from training.evaluate.scanner_gates import clean_series, cost, repeatability
    from training.evaluate.series import scored_series

    if not patients:
        return []
    name, lock = lock_of(checkpoint)
    scorer = load_scorer(name, lock=lock)
    unseen = [one for one in patients if one.source in held_out[""]]
    series: list[ScoredSeries] = []
    with progress("scoring series") as advance:
        for done, one in enumerate(unseen):
            advance(done, len(unseen), one.name)
            series += scored_series([one], scorer)
        advance(len(unseen), len(unseen), "repeatability and cost")
        of_all = filter(None, (repeatability(unseen, scorer), cost(unseen, scorer)))
    by_set = [
        clean_series([one for one in series if one.source in sources], scorer.card.weights_sha256, held_out=of)
        for of, sources in held_out.items()
    ]
    return [*by_set, *of_all]


def _passes_alone(found: "Sequence[Result]") -> frozenset[str]:
    """Return the modalities of which the networks pass the gate without statistics, by the mean over the seeds."""
    from training.evaluate.by_method import NETWORK, QUALITY
    from training.evaluate.gates import passed
    from training.evaluate.results import select

    of = {modality: select(found, task=(modality, QUALITY)) for modality in MODALITIES}
    return frozenset(modality for modality, each in of.items() if each and passed(each, NETWORK))


def _baselines(samples: "Prepared", loaded: "Sequence[Regressors]") -> "Regressors":
    """Fit what statistics alone make of the quality, for modalities in which a checkpoint has the network alone.

    Cost and width are chosen on left-out sources, a fifth of them at a time: each alone would take minutes.
    """
    from training.evaluate.by_method import QUALITY
    from training.fit.checkpoint import quality_regressors
    from training.fit.choices import FOLDS

    missing = [name for name in MODALITIES if any(QUALITY not in one.get(name, {}) for one in loaded)]
    with progress("statistics alone"):
        return quality_regressors(samples, missing, folds=FOLDS)


def _of_sources(sources: frozenset[str]) -> "Callable[[Sample], bool]":
    return lambda sample: sample.split == "test" and sample.source in sources


def _tested(folder: Path) -> "Store":
    """Open a store and check that it has test samples."""
    store = store_of(folder)
    if not any(sample.split == "test" for sample in store.samples):
        raise ConfigurationError(
            f"{folder} has no test samples, so there is nothing to evaluate on. Simulate again with `--hold-out NAME` "
            f"or `--hold-out 0.25`, or split a manifest by patient with `--resplit SEED`"
        )
    return store


def held_out_sets(store: "Store", *, final: bool) -> dict[str, frozenset[str]]:
    """Return the held-out sources to look at: all of them under "", then the sets `one` and `two` if both are.

    An MR-like source of CT anatomy is none of them: it only trains.
    """
    from training.simulate.build import plan_of_store

    plan = plan_of_store(store.folder)
    if plan is None:
        return {"": frozenset(sample.source for sample in store.samples if sample.split == "test")}
    if not plan.final:
        return {"": plan.unseen}
    if not final:
        return {"": frozenset(plan.held_out)}
    return {"": plan.unseen, "one": frozenset(plan.held_out), "two": frozenset(plan.final)}


def for_comparisons(prepared: "Prepared", folder: Path) -> "Prepared":
    """Return samples without those held-out ones that the plan of their store, if any, keeps for the end."""
    from training.simulate.build import plan_of_store

    plan = plan_of_store(folder)
    if plan is None:
        return prepared
    return prepared.subset(lambda sample: sample.split != "test" or sample.source in plan.held_out)


def _check_unseen(cards: "Sequence[Card]", store: "Store", sources: frozenset[str]) -> None:
    """Refuse a checkpoint that was trained on held-out sources of simulated samples, such as a refit."""
    from training.simulate.build import plan_of_store

    for card in cards if plan_of_store(store.folder) is not None else ():
        trained_on = card.metrics.get("made_by", {}).get("sources", {})
        if seen := sources & {source for each in trained_on.values() for source in each}:
            raise ConfigurationError(
                f"{card.name} was trained on {', '.join(sorted(seen))}: sources that it has seen say nothing about "
                f"others. The card of a refit has the figures of the fit before it"
            )


def _retained(samples: "Prepared", unseen: "Mapping[str, MethodPredictions]", loaded: "Loaded") -> "list[Retention]":
    """Return the retention of every factor; of each source of training a few slices are predicted."""
    from training.evaluate.retention import retention, seen_copies

    keys = seen_copies(samples.samples)
    seen = _predicted(samples.subset(lambda one: one.key in keys), loaded)
    return [
        kept
        for modality in unseen
        if modality in seen
        for kept in retention(seen[modality], unseen[modality], weights_sha256=loaded[1].weights_sha256)
    ]


def _predicted(samples: "Prepared", loaded: "Loaded") -> "dict[str, MethodPredictions]":
    from training.evaluate.by_method import predict_samples

    network, card, regressors = loaded
    with progress(f"predicting, {card.weights_sha256[:12]}") as advance:
        return predict_samples(network, card, regressors, samples, advance)


def _plots(predictions: "dict[str, MethodPredictions]", out: Path) -> None:
    from training.evaluate.plots import draw_sweeps

    out.mkdir(parents=True, exist_ok=True)
    for modality, one in predictions.items():
        draw_sweeps(one, modality, out / f"sweeps-{modality}.png")
