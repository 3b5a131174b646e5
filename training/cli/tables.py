"""`mediqa-train table1`, `table2` and `controls`: the paper's tables, and what each part of the recipe is worth."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli.present import table
from training.cli.app import app, progress, require

if TYPE_CHECKING:
    from training.experiments.methods import Data

_STORE = typer.Argument(
    help="Store of `simulate`, an export of the node, or a manifest.csv with mean opinion scores (MOS)."
)
_OUT = typer.Option(help="Folder of the runs. An interrupted run is resumed.")
_STEPS = typer.Option(min=1, help="Number of steps of each stage, with batches of 16, for every network.")
_SEED = typer.Option(help="Seed of initial weights, batches, augmentation and dropout.")
_JSON = typer.Option("--json", help="Print JSON instead of text.")
_WHAT_IT_IS_NOT = (
    "Tables of simulated samples are not the paper's figures and show no agreement with experts. Rows of small\n"
    "networks say nothing about the published sizes. Asterisk: best of its column; below a value its 95 % interval.\n"
    "–: undefined, every image has the same prediction."
)
_UPSTREAM = "Upstream labels and their RMSE are logarithms in standard deviations of the training samples."


@app.command()
def table1(
    store: Annotated[Path, _STORE],
    out: Annotated[Path, _OUT],
    steps: Annotated[int, _STEPS] = 300,
    method: Annotated[list[str] | None, typer.Option(help="Train only this method. May be repeated.")] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Train baselines of the published size; this needs a GPU.")
    ] = False,
    seed: Annotated[int, _SEED] = 0,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Train every method on a store and print the paper's Table 1: upstream and downstream tasks."""
    from training.experiments import paper_tables
    from training.experiments.methods import METHODS, Budget

    require("matplotlib", "sklearn")
    data = _data(store)
    budget = Budget(steps=steps, small=not published, seed=seed)
    with progress("training") as advance:
        found = paper_tables.table1(data, budget, out, methods=method or METHODS, advance=advance)
    if as_json:
        typer.echo(json.dumps({stage: paper_tables.plain(each) for stage, each in found.items()}, indent=1))
        return
    for stage, each in found.items():
        typer.echo(f"{stage.capitalize()}\n" + "\n".join(paper_tables.lines(each, "Backbone")) + "\n")
    typer.echo(f"{_UPSTREAM}\n{_WHAT_IT_IS_NOT}")
    typer.echo(f"→ mediqa-train table2 {store} --out {out}")


@app.command()
def table2(
    store: Annotated[Path, _STORE],
    out: Annotated[Path, _OUT],
    steps: Annotated[int, _STEPS] = 300,
    seed: Annotated[int, _SEED] = 0,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Train the model with and without pretraining (PT), prompts (PM) and salient slices (SS): the paper's Table 2."""
    from training.experiments import paper_tables
    from training.experiments.methods import Budget

    require("matplotlib")
    data = _data(store)
    with progress("training") as advance:
        found = paper_tables.table2(data, Budget(steps=steps, seed=seed), out, advance=advance)
    if as_json:
        typer.echo(json.dumps(paper_tables.plain(found), indent=1))
        return
    typer.echo("\n".join(paper_tables.lines(found, "   PT  PM  SS")) + "\n")
    typer.echo(f"/: only volumes have slices to choose.\n{_WHAT_IT_IS_NOT}")


@app.command()
def controls(
    store: Annotated[Path, _STORE],
    out: Annotated[Path, _OUT],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps of each stage. Default: the preset's.")
    ] = None,
    seed: Annotated[int, _SEED] = 0,
) -> None:
    """Train the head without stage 1, without prompts and without MR from CT, and compare slice weights."""
    from training.cli.evaluate import for_comparisons
    from training.cli.stages import prepared_of
    from training.experiments.controls import HEADS, rows
    from training.experiments.controls import controls as found_by
    from training.fit.recipe import STAGE2, read_recipe

    require("matplotlib")
    prepared = for_comparisons(prepared_of(store, read_recipe(STAGE2, "default"), stage=2), store)
    with progress("training") as advance:
        found = list(found_by(prepared, out, seed=seed, steps=steps, advance=advance))
    table(HEADS, list(rows(found)))


def _data(folder: Path) -> "Data":
    from training.cli.evaluate import for_comparisons
    from training.cli.stages import prepared_of
    from training.experiments.methods import divided
    from training.fit.recipe import STAGE2, read_recipe

    return divided(for_comparisons(prepared_of(folder, read_recipe(STAGE2, "default"), stage=2), folder))
