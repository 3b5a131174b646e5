"""`mediqa-node model parity | import | pin`: check, import and prepare checkpoints."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.options import Commands, Json
from mediqa_node.cli.present import as_json, fact, table
from mediqa_node.cli.progress import progress

model_app = typer.Typer(
    cls=Commands, help="List, import, promote and compare checkpoints.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(model_app, name="model")


@model_app.command()
def parity(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON file of cases, such as tests/parity/parity_public.json.")
    ],
    json: Json = False,
) -> None:
    """Compare the network with the public MedIQA and MANIQA code.

    The file holds the scores of that code and how to generate the weights and images of each case. The exit status is
    1 if a score differs by more than 1e-9 in float64 or 5e-6 in float32.
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
    if json:
        as_json(rows)
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
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS", help="State dict written by torch.save.", exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for weights, card and lock.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help="mediqa, or maniqa for a network without prompts.")],
    scale: Annotated[
        float, typer.Option(metavar="NUMBER", help="Scale of the Swin layers. MANIQA trained on PIPAL22 needs 0.13.")
    ] = 0.8,
    prompt_index: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=63, help="Index of the mediqa prompt input that is 1. Meanings are unpublished."
        ),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:A,B",
            help="Map of raw scores to 0..1: clamp:A,B (A becomes 0, B becomes 1) or logistic:A,B (midpoint, "
            "steepness). Without it there are raw scores only, and the node refuses the checkpoint.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the checkpoint. The default is its kind.")
    ] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Mark the weights as never trained.")] = False,
) -> None:
    """Convert third-party weights to a checkpoint.

    Writes safetensors, a card, and a lock file that pins both. Nothing in the input is executed, and a whole pickled
    model is refused.
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
        typer.echo("  no map of raw scores to 0..1: `score` prints raw scores, and the node refuses to start")
    typer.echo(f"→ mediqa-node score --model {out} FOLDER")
    typer.echo(f"  in node.yaml: model: {{lock: {out}/models.lock, checkpoint: {card.name}}}")


@model_app.command()
def pin(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with weights, card and lock.", exists=True, file_okay=False)
    ],
) -> None:
    """Write the reference scores into a checkpoint's card.

    The constancy check compares with these scores. The new digest of the card is written into the lock file.
    """
    from mediqa_node.composition import checkpoints

    for name, raw in checkpoints.pin_reference(folder).items():
        fact(name, f"{raw:.9f}")
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
