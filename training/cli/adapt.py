"""`mediqa-train adapt`: a public data set, or a CSV beside a folder, as a manifest."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mediqa_node.domain.errors import ConfigurationError
from training.cli.app import app, progress


@app.command()
def adapt(
    root: Annotated[Path, typer.Argument(help="Folder of the data set, as its owner packs it.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write manifest.csv to; made if missing.")] = None,
    name: Annotated[str | None, typer.Option("--as", help="Which data set it is, if that cannot be seen.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be written.")] = False,
    seed: Annotated[int, typer.Option(help="Of the split, 8:1:1 by patient, where the data set has none.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Write the manifest of a data set that you brought: its labels as 0..1, larger being better, its splits."""
    from training.adapters import recognise
    from training.adapters.contract import report
    from training.data.manifest import MANIFEST_FILE, with_splits, write_manifest

    if out is None and not dry_run:
        raise ConfigurationError("say where to write with --out DIR, or only look with --dry-run")
    adapter, match = recognise(root, name)
    with progress(f"reading {adapter.name}") as advance:
        found = report(adapter, match, lambda done: advance(done, 0, ""))
    if not found.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in {**found.missing, **found.left}.items())
        raise ConfigurationError(f"{adapter.name}: no usable record under {root}: {reasons or 'nothing there'}")
    rows = with_splits(found.rows, seed=seed)
    sides = {split: sum(row.split == split for row in rows) for split in ("train", "val", "test")}
    if out is not None and not dry_run:
        out.mkdir(parents=True, exist_ok=True)
        write_manifest(rows, out / MANIFEST_FILE)
    if as_json:
        said = {"adapter": adapter.name, "licence": adapter.licence, "polarity": adapter.polarity, "rows": len(rows)}
        said |= {"patients": found.patients, "splits": sides, "labels": found.labels}
        typer.echo(json.dumps(said | {"missing": found.missing, "left_out": found.left}, indent=2))
        return
    facts = [
        ("rows", f"{len(rows):,} of {found.patients:,} patients or groups"),
        ("splits", ", ".join(f"{split} {n:,}" for split, n in sides.items())),
        ("polarity", adapter.polarity),
        *((label, ", ".join(f"{v:g} × {n:,}" for v, n in counts.items())) for label, counts in found.labels.items()),
        *(("missing", f"{count:,} {reason}") for reason, count in found.missing.items()),
        ("licence", adapter.licence),
        *(("left out", f"{count:,} {reason}") for reason, count in found.left.items()),
    ]
    typer.echo(f"{'found':12}{adapter.name}: {match.found}")
    for head, text in facts:
        typer.echo(f"{head:12}{text}")
    stage = "finetune" if "mos" in found.labels else "pretrain"
    typer.echo("nothing written" if dry_run else f"→ mediqa-train {stage} {out}")
