"""`mediqa-train adapt`: write the manifest of a public data set, or of a folder with a CSV."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mediqa_node.domain.errors import ConfigurationError
from training.cli.app import app, progress


@app.command()
def adapt(
    root: Annotated[Path, typer.Argument(help="Folder of the data set in its original layout.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write manifest.csv to. It is created if missing.")] = None,
    name: Annotated[str | None, typer.Option("--as", help="Name of the data set, if its layout is ambiguous.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and write nothing.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the split by patient, 8:1:1, if the data set has none.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Write the manifest of a local data set: labels from 0 to 1, larger is better, and splits."""
    from training.adapters import recognise
    from training.adapters.contract import report
    from training.data.manifest import MANIFEST_FILE, with_splits, write_manifest

    if out is None and not dry_run:
        raise ConfigurationError("give --out DIR to write a manifest, or --dry-run to only look")
    adapter, match = recognise(root, name)
    with progress(f"reading {adapter.NAME}") as advance:
        found = report(adapter, match, lambda done: advance(done, 0, ""))
    if not found.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in {**found.missing, **found.left}.items())
        raise ConfigurationError(f"{adapter.NAME}: no usable record under {root}: {reasons or 'nothing there'}")
    rows = with_splits(found.rows, seed=seed)
    sides = {split: sum(row.split == split for row in rows) for split in ("train", "val", "test")}
    if out is not None and not dry_run:
        out.mkdir(parents=True, exist_ok=True)
        write_manifest(rows, out / MANIFEST_FILE)
    if as_json:
        content: dict[str, object] = {"adapter": adapter.NAME, "licence": adapter.LICENCE, "polarity": adapter.POLARITY}
        content |= {"rows": len(rows), "patients": found.patients, "splits": sides, "labels": found.labels}
        typer.echo(json.dumps(content | {"missing": found.missing, "left_out": found.left}, indent=2))
        return
    facts = [
        ("rows", f"{len(rows):,} of {found.patients:,} patients or groups"),
        ("splits", ", ".join(f"{split} {n:,}" for split, n in sides.items())),
        ("polarity", adapter.POLARITY),
        *((label, ", ".join(f"{v:g} × {n:,}" for v, n in counts.items())) for label, counts in found.labels.items()),
        *(("missing", f"{count:,} {reason}") for reason, count in found.missing.items()),
        ("licence", adapter.LICENCE),
        *(("left out", f"{count:,} {reason}") for reason, count in found.left.items()),
    ]
    typer.echo(f"{'found':12}{adapter.NAME}: {match.found}")
    for head, text in facts:
        typer.echo(f"{head:12}{text}")
    stage = "finetune" if "mos" in found.labels else "pretrain"
    typer.echo("nothing written" if dry_run else f"→ mediqa-train {stage} {out} --out RUN")
