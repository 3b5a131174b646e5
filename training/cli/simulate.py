"""`mediqa-train simulate`: degraded images with a known cause, as a store to train on or as DICOM series."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli.present import table
from training.cli.app import CollectionManifest, app, progress, shown
from training.fit.recipe import SIMULATE, STAGE2, read_preset, read_recipe

if TYPE_CHECKING:
    from training.data.store import Store


@app.command()
def simulate(
    collection: Annotated[
        Path, typer.Option(help="Folder with a folder of DICOM series or photographs for each source.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder of the store; an interrupted run is resumed. With --dicom it must be a new folder."),
    ],
    manifest: CollectionManifest = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME_OR_SHARE",
            help="Source to exclude from all training, or the share of each modality's sources to exclude, such as "
            "0.25. A name may be repeated. Replaces the preset's.",
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Section of the configuration: default, sweep, small, or a custom one.")
    ] = "default",
    config: Annotated[Path | None, typer.Option(help="File to use instead of config/simulate.yaml.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Number of worker processes.")] = 2,
    dicom: Annotated[
        bool,
        typer.Option("--dicom", help="Write whole DICOM series at several mAs or tesla instead, to send to a node."),
    ] = False,
    series: Annotated[int, typer.Option(min=1, help="Number of series to write with --dicom.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise and the UIDs that --dicom writes.")] = 1,
) -> None:
    """Simulate lower dose, fewer views, lower field, motion, missing lines, blur and uneven light.

    Labels are measured on the simulated images. They describe how an image was degraded, not how an expert would rate
    it.
    """
    from training.data.collection import read_collection
    from training.data.store import Store
    from training.simulate.build import Plan, build
    from training.simulate.series import LABELS_FILE, levels_of, write_series

    plan = read_preset(Plan, SIMULATE, preset, config)
    if hold_out:
        plan = plan.model_copy(update={"held_out": tuple(hold_out)})
    sets = read_collection(collection, manifest)
    if dicom:
        with progress("simulating series") as advance:
            written = write_series(
                sets, out, series=series, held_out=plan.held_out, seed=seed, processes=processes, advance=advance
            )
        patients = len({one.base.patient for one in written})
        typer.echo(f"{len(written)} simulated series of {patients} patients: {levels_of(written)}")
        typer.echo(f"→ send {out} to the node, then mediqa-node annotations import {out / LABELS_FILE}")
        return
    spec = read_recipe(STAGE2, "default").spec
    store = Store(out)
    with progress("simulating") as advance:
        build(sets, spec, plan, store, processes=processes, advance=advance)
    shown(store, spec, processes)
    _print(store)
    if plan.sweep:
        typer.echo(f"→ mediqa-train evaluate STORE --checkpoint CHECKPOINT --sweep {out}")
    else:
        typer.echo(f"→ mediqa-train pretrain {out} --out RUN")


def _print(store: "Store") -> None:
    """Print the content of the store by modality, and warn where nothing is held out."""
    rows = []
    for modality in ("CT", "MR", "OP"):
        mine = [sample for sample in store.samples if sample.modality == modality]
        held = {sample.source for sample in mine if sample.split == "test"}
        counts = (len(mine), len({one.base for one in mine}), len({one.source for one in mine}), len(held))
        if mine:
            rows.append((modality, *(f"{count:,}" for count in counts)))
    table(("modality", "images", "slices", "sources", "held out"), rows)
    if without := [row[0] for row in rows if row[-1] == "0"]:
        typer.echo(
            f"nothing is held out of {', '.join(without)}: `mediqa-train evaluate` needs a source that no training "
            f"has seen, so two sources at the least"
        )
