"""Commands on weights: are they the network of the paper, and whose are they?"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.present import table
from mediqa_node.cli.progress import progress
from mediqa_node.composition import checkpoints

model_app = typer.Typer(
    help="Look at weights, and take in those of others.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(model_app, name="model")


@model_app.command()
def parity(
    file: Annotated[Path, typer.Argument(help="JSON: sets of cases, as in tests/parity/parity_public.json")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Hold the network against scores of the public code of MedIQA and MANIQA.

    Weights and images are made by the recipe of the file. Exit status 1 if a score differs by more than
    1e-9 in float64 or 5e-6 in float32.
    """
    from mediqa_node.model.parity import read_cases, run_cases

    cases, outcomes = read_cases(file), []
    with progress("scoring") as advance:
        for done, outcome in enumerate(run_cases(cases), start=1):
            outcomes.append(outcome)
            advance(done, 2 * len(cases))
    rows = [
        {
            "set": outcome.case.group,
            "network": outcome.case.kind,
            "image": outcome.case.image,
            "prompt": outcome.case.prompt_index,
            "scale": outcome.case.scale,
            "arithmetic": outcome.arithmetic,
            "expected": outcome.expected,
            "got": outcome.got,
            "difference": outcome.difference,
            "passed": outcome.passed,
        }
        for outcome in outcomes
    ]
    failed = sum(not row["passed"] for row in rows)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        table(list(rows[0]), [_cells(row) for row in rows])
        verdict = "all within" if not failed else f"{failed} of {len(rows)} beyond"
        typer.echo(f"{verdict} 1e-9 (float64) and 5e-6 (float32)")
    sys.exit(1 if failed else 0)


def _cells(row: Mapping[str, object]) -> list[str]:
    shown = {
        **row,
        "prompt": "–" if row["prompt"] is None else row["prompt"],
        "expected": f"{row['expected']:.15f}",
        "got": f"{row['got']:.15f}",
        "difference": f"{row['difference']:+.1e}",
        "passed": "yes" if row["passed"] else "NO",
    }
    return [str(value) for value in shown.values()]


@model_app.command("import")
def import_(
    weights: Annotated[Path, typer.Argument(help="State dict written by torch.save", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="New folder for weights, card and lock.")],
    kind: Annotated[str, typer.Option(help="mediqa: scores as the public code does; maniqa: without prompts.")],
    scale: Annotated[float, typer.Option(help="Of Swin layers; 0.13 for MANIQA trained on PIPAL22.")] = 0.8,
    prompt_index: Annotated[
        int | None,
        typer.Option(min=0, max=63, help="mediqa: the prompt input that is 1; its table of meanings is not published."),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:A,B",
            help="Map of raw scores to 0..1: clamp:A,B (A becomes 0, B becomes 1) or logistic:A,B (midpoint, "
            "steepness). Without one only raw scores are given, and no node runs on these weights.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the checkpoint; else its kind.")] = None,
    untrained: Annotated[bool, typer.Option(help="These weights were never trained: say so with every score.")] = False,
) -> None:
    """Convert weights of others to a checkpoint: safetensors, a card, and a lock that pins both.

    Nothing in the file is executed. A whole pickled model is refused.
    """
    if kind not in ("mediqa", "maniqa"):
        raise typer.BadParameter("must be mediqa or maniqa", param_hint="--kind")
    if kind == "maniqa" and prompt_index is not None:
        raise typer.BadParameter("MANIQA has no prompts", param_hint="--prompt-index")
    from mediqa_node.model.card import QualityMap
    from mediqa_node.model.importing import Provenance, import_weights

    mapped = _quality(quality)
    provenance = Provenance(
        kind=kind,
        scale=scale,
        prompt_index=prompt_index,
        quality=QualityMap(kind=mapped[0], a=mapped[1], b=mapped[2]) if mapped else None,
        trained=not untrained,
    )
    card = import_weights(weights, out, name or kind, provenance)
    typer.echo(f"checkpoint {card.name} in {out}: weights SHA-256 {card.weights_sha256[:16]}…")
    for note in card.training_data.split("; "):
        typer.echo(f"  {note}")
    if card.quality is None:
        typer.echo("  no map of raw scores to 0..1: `score` gives raw scores alone, a node refuses to start")
    typer.echo(f"→ mediqa-node score --model {out} FOLDER")
    typer.echo(f"  in node.yaml: model: {{lock: {out}/models.lock, checkpoint: {card.name}}}")


@model_app.command()
def pin(
    folder: Annotated[Path, typer.Argument(help="Checkpoint: weights, card and lock.", exists=True, file_okay=False)],
) -> None:
    """Score the reference set with a checkpoint and write the scores into its card: what constancy is held against.

    For whoever makes a checkpoint. The card's new digest is written into the lock beside it.
    """
    for name, raw in checkpoints.pin_reference(folder).items():
        typer.echo(f"{name:12} {raw:.9f}")
    typer.echo(f"→ mediqa-node model promote {folder} --by NAME")


def _quality(text: str | None) -> tuple[str, float, float] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(clamp|logistic):([^,]+),([^,]+)", text)
    try:
        if found is None:
            raise ValueError
        return found[1], float(found[2]), float(found[3])
    except ValueError:
        raise typer.BadParameter("must be clamp:A,B or logistic:A,B", param_hint="--quality") from None
