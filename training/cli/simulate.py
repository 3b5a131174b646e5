"""`mediqa-train simulate`: worse images with a known cause, as a store to train on or as DICOM series."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from training.cli.app import app, progress, shown
from training.fit.recipe import SIMULATE, STAGE2, read_preset, read_recipe


@app.command()
def simulate(
    collection: Annotated[Path, typer.Option(help="Folder of folders of DICOM series or photographs.")],
    manifest: Annotated[Path, typer.Option(help="JSON: items with id (folder) and split; same_fold.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the store, one that was interrupted is gone on with; of --dicom a new one.")
    ],
    preset: Annotated[str, typer.Option(help="Of the configuration: default, sweep, small, or one of yours.")] = (
        "default"
    ),
    config: Annotated[Path | None, typer.Option(help="Your own simulate.yaml.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Side by side.")] = 2,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Instead: whole series at several mAs or tesla, to be sent to a node.")
    ] = False,
    series: Annotated[int, typer.Option(min=1, help="How many; with --dicom.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Of noise and UIDs; with --dicom.")] = 1,
) -> None:
    """Simulate less dose, fewer views, lower field, motion, missing lines, blur, bad light: labels are measured.

    Nothing is claimed of such images but what was done to them: no expert has seen them.
    """
    from training.data.collection import read_manifest
    from training.data.store import Store
    from training.simulate.build import Plan, build

    if dicom:
        held_out = read_preset(Plan, SIMULATE, preset, config).held_out
        _series(collection, manifest, out, series=series, held_out=held_out, seed=seed, processes=processes)
        return
    plan = read_preset(Plan, SIMULATE, preset, config)
    spec = read_recipe(STAGE2, "default").spec
    sets = read_manifest(collection, manifest)
    store = Store(out)
    with progress("simulating") as advance:
        build(sets, spec, plan, store, processes=processes, advance=advance)
    shown(store, spec, processes)
    for modality in ("CT", "MR", "OP"):
        mine = [sample for sample in store.samples if sample.modality == modality]
        held = {sample.source for sample in mine if sample.split == "test"}
        sources = {sample.source for sample in mine}
        typer.echo(
            f"{modality}  {len(mine):6,} images of {len({one.base for one in mine}):4} slices, "
            f"{len(sources):2} sources, {len(held)} of them held out"
        )
    typer.echo(f"→ mediqa-train pretrain {out} --out RUN")


def _series(
    collection: Path, manifest: Path, out: Path, *, series: int, held_out: Sequence[str], seed: int, processes: int
) -> None:
    from training.data.collection import read_manifest
    from training.simulate.series import LABELS_FILE, levels_of, write_series

    sets = read_manifest(collection, manifest)
    with progress("simulating series") as advance:
        written = write_series(
            sets, out, series=series, held_out=held_out, seed=seed, processes=processes, advance=advance
        )
    patients = len({one.base.patient for one in written})
    typer.echo(f"{len(written)} simulated series of {patients} patients: {levels_of(written)}")
    typer.echo(f"→ send {out} to the node, then mediqa-node annotations import {out / LABELS_FILE}")
