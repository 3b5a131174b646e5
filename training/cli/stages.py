"""`mediqa-train pretrain` and `finetune`: the two stages of the paper, on a store, an export or a manifest."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli.present import table
from mediqa_node.domain.errors import ConfigurationError
from training.cli.app import app, progress, require, shown
from training.fit.recipe import STAGE1, STAGE2, Recipe, read_recipe

if TYPE_CHECKING:
    from training.data.manifest import Row
    from training.data.views import Prepared

Data = Annotated[Path, typer.Argument(help="A store of `simulate`, an export of the node, or a manifest.csv.")]
Out = Annotated[Path, typer.Option(help="Folder of the run. An interrupted run is resumed.")]
Preset = Annotated[str, typer.Option(help="Section of the configuration: default, paper, or a custom one.")]
Config = Annotated[Path | None, typer.Option(help="Configuration file to use instead of config/stage*.yaml.")]
Seed = Annotated[int, typer.Option(help="Seed of initial weights, batches, augmentation and dropout.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Number of steps, instead of the preset's.")]
LeaveOut = Annotated[list[str] | None, typer.Option(help="Source that is not trained on. May be repeated.")]
Trunk = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Pretrained weights of the encoder: safetensors or a plain state dict, by the names of timm. Default: the "
        "package of the preset's trunk, if it has one. Nothing is downloaded.",
    ),
]
Resplit = Annotated[
    int | None,
    typer.Option(
        metavar="SEED",
        help="Split the patients of a manifest again, 8:1:1, when too few of them are in one split. Use the same seed "
        "for both stages, or training patients of one stage become test patients of the other.",
    ),
]


@app.command()
def pretrain(
    data: Data,
    out: Out,
    preset: Preset = "default",
    config: Config = None,
    seed: Seed = 0,
    steps: Steps = None,
    leave_out: LeaveOut = None,
    trunk: Trunk = None,
    resplit: Resplit = None,
) -> None:
    """Stage 1: learn tube charge (mAs) and field strength (T) from images.

    To use several processes: `torchrun --nproc-per-node 2 -m training pretrain …`.
    """
    from training.fit.runs import pretrain as run

    require("matplotlib")
    recipe = read_recipe(STAGE1, preset, config)
    prepared = prepared_of(data, recipe, stage=1, resplit=resplit)
    with progress("stage 1") as advance:
        run(
            prepared,
            recipe,
            out,
            seed=seed,
            steps=steps,
            leave_out=leave_out or (),
            trunk=trunk,
            advance=advance,
        )
    again = "" if resplit is None else f" --resplit {resplit}"
    _print_end(out, f"mediqa-train finetune {data} --begin {out} --out RUN{again}")


@app.command()
def finetune(
    data: Data,
    out: Out,
    begin: Annotated[
        Path | None,
        typer.Option(
            help="Run to start from: of stage 1, or of stage 2 to continue on other ratings. Without it the network "
            "begins from its pretrained features, or from random weights if its row has none."
        ),
    ] = None,
    preset: Preset = "default",
    config: Config = None,
    seed: Seed = 0,
    steps: Steps = None,
    leave_out: LeaveOut = None,
    trunk: Trunk = None,
    resplit: Resplit = None,
) -> None:
    """Stage 2: learn quality from ratings or from simulated labels."""
    from training.fit.runs import finetune as run

    require("matplotlib")
    recipe = read_recipe(STAGE2, preset, config)
    prepared = prepared_of(data, recipe, stage=2, resplit=resplit)
    with progress("stage 2") as advance:
        run(
            prepared,
            recipe,
            out,
            seed=seed,
            begin=begin,
            steps=steps,
            leave_out=leave_out or (),
            trunk=trunk,
            advance=advance,
        )
    store = data if _is_store(data) else _samples_of(data, stage=2, resplit=resplit)
    _print_end(
        out, f"mediqa-train card {out} --data {store} --fold FOLD --out CHECKPOINT (or --plain: the network alone)"
    )


def prepared_of(data: Path, recipe: Recipe, *, stage: int, resplit: int | None = None) -> "Prepared":
    """Return the samples of a store, or of the rows of a manifest that fit a stage, as network input.

    Raises:
        ConfigurationError: neither a store nor a manifest, or no row fits this stage; the message has the reasons.
    """
    from training.data.manifest import MANIFEST_FILE
    from training.data.read import read_rows, with_rows
    from training.data.store import INDEX, Store, alone

    rows: list[Row] = []
    if _is_store(data):
        if resplit is not None:
            raise ConfigurationError(f"--resplit: {data} is a store; its sources were held out when it was made")
        store = Store(data)
    elif data.is_file() or (data / MANIFEST_FILE).exists():
        rows = _rows_of(data, stage, resplit)
        samples = _samples_of(data, stage=stage, resplit=resplit)
        with alone(samples), progress("reading") as advance:
            store = Store(samples)
            for why in read_rows(rows, recipe.spec, store, advance=advance):
                typer.echo(f"left out: {why}", err=True)
    else:
        raise ConfigurationError(f"{data} is neither a store ({INDEX}) nor a manifest ({MANIFEST_FILE})")
    prepared = shown(store, recipe.spec)
    return with_rows(prepared, rows) if rows else prepared


def _is_store(data: Path) -> bool:
    from training.data.store import INDEX

    return (data / INDEX).exists()


def _samples_of(data: Path, *, stage: int, resplit: int | None) -> Path:
    """Return the folder of the samples that a stage reads from a manifest; `card` and `evaluate` take it as a store."""
    folder = (data.parent if data.is_file() else data).resolve()
    split = "" if resplit is None else f"-resplit{resplit}"  # one store for each split: `evaluate` reads it
    return folder.with_name(f"{folder.name}-stage{stage}{split}-samples")


def _rows_of(data: Path, stage: int, resplit: int | None) -> "list[Row]":
    """Return the rows of a manifest that fit a stage; print how patients are split and which rows are left out."""
    from training.data.manifest import SPLITS, for_finetuning, for_pretraining, read_manifest, with_splits

    rows = read_manifest(data)
    if resplit is not None:
        rows = [replace(row, split="") for row in rows]
    chosen = (for_pretraining if stage == 1 else for_finetuning)(with_splits(rows, seed=resplit or 0))
    for why in chosen.left_out:
        typer.echo(f"left out: {why}", err=True)
    if resplit is not None:
        n = {split: len({row.patient for row in chosen.rows if row.split == split}) for split in SPLITS}
        counts = ", ".join(f"{split} {count}" for split, count in n.items())
        typer.echo(f"patients split again with seed {resplit}: {counts}; the splits of the export are not used")
    return list(chosen.rows)


def _print_end(out: Path, then: str) -> None:
    """Print how a run ended and the next command; of several processes only the first prints."""
    from training.fit.loop import read_curve, world
    from training.fit.runs import read_run

    if world()[0]:
        return
    curve, run = read_curve(out), read_run(out)
    last = curve[-50:]
    typer.echo(
        f"{len(curve):,} steps on {run.samples:,} samples of {run.patients} patients, {len(run.seen)} sources; "
        f"loss {sum(row['loss'] for row in last) / len(last):.4f} over the last {len(last)}; "
        f"{run.core_seconds / 60:.0f} core-minutes in all"
    )
    typer.echo(f"→ {then}")


@app.command()
def ablation(
    data: Data,
    out: Out,
    stage1: Annotated[list[Path], typer.Option(help="Run of stage 1. Give one for each seed.")],
    labels: Annotated[
        list[int] | None,
        typer.Option(min=8, help="Number of training labels of each modality. Default: 50, 200 and 1000."),
    ] = None,
    preset: Preset = "default",
    config: Config = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps of every run of stage 2.")] = 300,
) -> None:
    """Show whether stage 1 pays off: stage 2 on few labels, with and without it, at equal steps."""
    from training.cli.evaluate import for_comparisons
    from training.experiments.ablation import HEADS, LABELS, rows, trials

    require("matplotlib")
    recipe = read_recipe(STAGE2, preset, config)
    prepared = for_comparisons(prepared_of(data, recipe, stage=2), data)
    with progress("trials") as advance:
        found = list(trials(prepared, recipe, stage1, out, labels=labels or LABELS, steps=steps, advance=advance))
    table(HEADS, list(rows(found)))
