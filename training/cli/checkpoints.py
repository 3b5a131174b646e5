"""`mediqa-train evaluate` and `card`: what a checkpoint is worth, and how a run becomes one."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.domain.errors import ConfigurationError
from training.cli.app import app, progress, shown

if TYPE_CHECKING:
    from mediqa_node.model.card import Fusion
    from mediqa_node.model.statistics_regressor import StatisticsRegressor
    from training.data.store import Store
    from training.evaluate.by_method import MethodPredictions
    from training.fit.runs import Run

    Beside = tuple[Mapping[str, Mapping[str, StatisticsRegressor]], Mapping[str, Mapping[str, Fusion]], list[str]]


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="A store; its samples of split `test` are judged.")],
    checkpoint: Annotated[
        list[Path], typer.Option(help="Folder of a checkpoint, or `default`: the one shipped. Repeat it for each seed.")
    ],
    sweep: Annotated[Path | None, typer.Option(help="A store of `simulate --preset sweep`.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plots and gates.json.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Side by side, to prepare images.")] = 2,
) -> None:
    """Print the gates: every task, network alone, statistics alone and as shipped, on sources that nothing has seen."""
    from mediqa_node.model.checkpoint import load_whole
    from training.evaluate.by_method import predict_test_samples
    from training.evaluate.gates import Result, Swept, results, sweep_table, sweeps, table
    from training.simulate.degraded import FACTORS

    loaded = [load_whole(*_locked(folder)) for folder in checkpoint]
    found: list[Result] = []
    swept: list[Swept] = []
    for seed, (network, card, regressors) in enumerate(loaded):
        prepared = shown(_store(data), card.preprocess, processes)
        with progress(f"judging, {card.weights_sha256[:12]}") as advance:
            judged = predict_test_samples(network, card, regressors, prepared, advance)
        found += results(judged, seed=seed, weights_sha256=card.weights_sha256)
        if sweep is not None:
            of_sweep = shown(_store(sweep), card.preprocess, processes)
            with progress(f"judging the sweep, {card.weights_sha256[:12]}") as advance:
                judged = predict_test_samples(network, card, regressors, of_sweep, advance)
            swept += sweeps(judged, FACTORS, weights_sha256=card.weights_sha256)
            if seed == 0 and out is not None:
                _plots(judged, out)
    for line in table(found):
        typer.echo(line)
    if swept:
        typer.echo("")
        for line in sweep_table(swept):
            typer.echo(line)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        content = {"tasks": [asdict(one) for one in found], "sweeps": [asdict(one) for one in swept]}
        (out / "gates.json").write_text(json.dumps(content, indent=1) + "\n")
        typer.echo(f"\nwrote {out}/gates.json")


def _store(folder: Path) -> "Store":
    from training.data.store import INDEX, Store

    if not (folder / INDEX).exists():
        raise ConfigurationError(f"{folder}: no store ({INDEX}); make one with `mediqa-train simulate`")
    return Store(folder)


def _locked(checkpoint: Path) -> tuple[str, Path]:
    """Return the name and the lock of the checkpoint in a folder, or of one that is shipped: `default`."""
    from mediqa_node.model.lock import DEFAULT_LOCK, LOCK_FILE, only_entry, read_lock

    if not (checkpoint / LOCK_FILE).exists() and str(checkpoint) in read_lock():
        return str(checkpoint), DEFAULT_LOCK
    return only_entry(checkpoint / LOCK_FILE)[0], checkpoint / LOCK_FILE


def _plots(judged: "dict[str, MethodPredictions]", out: Path) -> None:
    from training.evaluate.plots import draw_sweeps

    out.mkdir(parents=True, exist_ok=True)
    for modality, one in judged.items():
        draw_sweeps(one, modality, out / f"sweeps-{modality}.png")


@app.command()
def card(
    run: Annotated[Path, typer.Argument(help="Folder of a run of stage 2.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    data: Annotated[Path | None, typer.Option(help="The store that it was trained on; not with --plain.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="The network speaks alone, no statistics beside it.")] = False,
    fold: Annotated[
        list[Path] | None,
        typer.Option(help="Run of `finetune --leave-out`: on its left-out sources the shares are chosen. Repeatable."),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(help="Instead: a checkpoint of another seed on the same data, to take regressors and shares of."),
    ] = None,
    domains: Annotated[Path | None, typer.Option(help="JSON of `mediqa-train domain`.")] = None,
    name: Annotated[str, typer.Option(help="Of the checkpoint.")] = "default",
    command: Annotated[str, typer.Option(help="How it was made, in words; stands in the card.")] = "",
) -> None:
    """Make a checkpoint of a run: weights, regressors on statistics, how much each counts, card and lock."""
    from training.fit.checkpoint import make_card, provenance, write_checkpoint
    from training.fit.runs import read_run

    trained = read_run(run)
    if domains is not None and not domains.is_file():
        raise ConfigurationError(f"--domains {domains}: no such file; `mediqa-train domain` writes it")
    if beside is not None:
        regressors, fusion, told = _of_another_seed(trained, beside)
    elif plain:
        regressors, fusion, told = {}, {}, []
    elif data is not None:
        regressors, fusion, told = _beside(trained, data, fold or [])
    else:
        raise ConfigurationError("no --data to fit regressors on: name the store, or say --plain for the network alone")
    made = make_card(
        trained,
        name=name,
        fusion=fusion,
        domains=domains,
        training_data=command or "See metrics.",
        metrics={"made_by": provenance(trained), "chosen": told},
    )
    digest = write_checkpoint(out, run, made, regressors)
    for line in told:
        typer.echo(line)
    typer.echo(f"wrote {out}: weights {digest[:16]}")
    typer.echo(
        f"→ mediqa-train evaluate --checkpoint {out} --out GATES, mediqa-train claim {out} --gates GATES/gates.json, "
        f"mediqa-node model pin {out}, then mediqa-node model promote {out} --by NAME"
    )


@app.command()
def claim(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint (with models.lock).")],
    gates: Annotated[Path, typer.Option(help="gates.json of `evaluate`.")],
) -> None:
    """Write what was measured of a checkpoint into its card, and what may be claimed by it: reports say so."""
    from training.fit.checkpoint import claimed

    try:
        content = json.loads(gates.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{gates}: no gates.json of `mediqa-train evaluate`: {error}") from error
    for modality, text in claimed(checkpoint, content).items():
        typer.echo(f"{modality}  {text}")
    typer.echo(f"→ mediqa-node model pin {checkpoint}")


def _of_another_seed(trained: "Run", folder: Path) -> "Beside":
    """Return what speaks beside another network that was taught the same units."""
    from mediqa_node.model.checkpoint import load_whole
    from training.evaluate.by_method import targets_of_card

    name, lock = _locked(folder)
    _, card, regressors = load_whole(name, lock)
    if not set(targets_of_card(card)) <= set(trained.targets):
        raise ConfigurationError(f"--beside {folder}: its regressors were taught other units, on other data")
    return regressors, card.fusion, [f"regressors and shares of {name} {card.weights_sha256[:16]}"]


def _beside(trained: "Run", data: Path, fold: list[Path]) -> "Beside":
    """Return the regressors on statistics, how much each counts beside the network, and a line on each choice."""
    from training.fit.checkpoint import Fold, regressors_and_fusion
    from training.fit.runs import trained_network

    prepared = shown(_store(data), trained.recipe.spec)
    sources = {sample.source for sample in prepared.samples if sample.split == "train"}
    folds = []
    for folder in fold:
        network, of_fold = trained_network(folder)
        unseen = frozenset(sources - of_fold.seen)
        folds.append(Fold(network=network, targets=of_fold.targets, unseen=unseen))
    with progress("regressors on statistics") as advance:
        return regressors_and_fusion(prepared, trained.targets, folds, advance=advance)


@app.command()
def pairs(
    folders: Annotated[list[Path], typer.Argument(help="Two folders for each pair: the same slices, two kernels.")],
    checkpoint: Annotated[Path, typer.Option(help="Folder of a checkpoint, or `default`.")] = Path("default"),
) -> None:
    """Compare two reconstructions of one acquisition slice by slice: score beside noise."""
    from mediqa_node.model.predict import load_scorer
    from training.evaluate.pairs import table

    if len(folders) % 2:
        raise ConfigurationError(f"{len(folders)} folders; two are a pair")
    name, lock = _locked(checkpoint)
    scorer = load_scorer(name, lock=lock)
    for line in table(list(zip(folders[::2], folders[1::2], strict=True)), scorer):
        typer.echo(line)
