"""`mediqa-train recipe`: a checkpoint from nothing, in one command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli.present import table
from training.cli.app import CollectionManifest, app, progress, require
from training.cli.checkpoints import claim
from training.cli.evaluate import evaluate
from training.cli.stages import Trunk
from training.fit.recipe import read_preset

if TYPE_CHECKING:
    from training.data.views import Prepared
    from training.experiments.recipe import Order


@app.command()
def recipe(
    name: Annotated[str, typer.Argument(help="Section of the configuration: default, own, small, or a custom one.")],
    collection: Annotated[
        Path, typer.Option(help="Folder with a folder of DICOM series or photographs for each source.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for everything that is made. An interrupted recipe is resumed.")],
    manifest: CollectionManifest = None,
    config: Annotated[Path | None, typer.Option(help="File to use instead of config/recipe.yaml.")] = None,
    trunk: Trunk = None,
    final: Annotated[
        bool, typer.Option("--final", help="Also look at the held-out sources that are kept for the end.")
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="Number of worker processes, each on one core.")] = 2,
) -> None:
    """Make a checkpoint from nothing: simulate, train every seed in both stages, evaluate, and write cards."""
    from training.experiments.recipe import (
        RECIPE,
        Order,
        Sections,
        choose,
        costs_of,
        fit_range,
        measured,
        simulated,
        train_seeds,
        write_checkpoints,
    )

    require("matplotlib")
    sections = read_preset(Sections, RECIPE, name, config)
    out.mkdir(parents=True, exist_ok=True)
    order = Order(
        recipe=name, collection=collection, manifest=manifest, out=out, sections=sections, processes=processes,
        trunk=trunk,
    )  # fmt: skip
    with progress("simulating") as advance, measured(order, "simulate"):
        data = simulated(order, "store", sections.simulate, advance)
    with progress("simulating a sweep") as advance, measured(order, "sweep"):
        simulated(order, "sweep", sections.sweep, advance)
    with progress("choices") as advance, measured(order, "choices"):
        choose(order, data, advance)
    with progress("training") as advance, measured(order, "train"):
        train_seeds(order, advance)
    with progress("training range") as advance, measured(order, "range"):
        for reason in fit_range(order, advance):
            typer.echo(f"no training range: {reason}")
    command = _command(order, config=config is not None, final=final)
    folders = write_checkpoints(order, data, command=command)
    with measured(order, "evaluate"):
        evaluate(
            out / "store", folders, sweep=out / "sweep", collection=collection, manifest=manifest, out=out / "gates",
            final=final, processes=processes,
        )  # fmt: skip
    for folder in folders:
        claim(folder, out / "gates" / "gates.json")
    if sections.refit:
        folders = _refit(order, data, command)
    table(("step", "wall [min]", "cores [min]"), costs_of(order))
    typer.echo(f"→ mediqa-node model pin {folders[0]}")


def _refit(order: "Order", data: "Prepared", command: str) -> list[Path]:
    """Write the checkpoints of the refit, with the claims of the fit before, and return them."""
    from training.experiments.recipe import claim_before, write_checkpoints

    folders = write_checkpoints(order, data, command=command, refit=True)
    claim_before(order)
    return folders


def _command(order: "Order", *, config: bool, final: bool) -> str:
    given = {"--manifest FILE": order.manifest, "--config FILE": config, "--trunk FILE": order.trunk, "--final": final}
    call = " ".join(
        ("mediqa-train recipe", order.recipe, "--collection DIR", *(word for word, on in given.items() if on))
    )
    return f"{call}; no expert scored any image. See metrics."
