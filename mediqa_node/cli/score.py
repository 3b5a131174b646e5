"""`mediqa-node score`: files in, judgements out, without a node."""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from mediqa_node import logs
from mediqa_node.cli import app
from mediqa_node.cli.common import settings_of
from mediqa_node.cli.present import table
from mediqa_node.cli.progress import progress
from mediqa_node.composition import checkpoints

_PROMPTS = ("dimension", "modality", "region", "type")


@app.command()
def score(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Files or folders: DICOM, JPEG or PNG", exists=True)],
    as_json: Annotated[bool, typer.Option("--json", help="An array with one object for each series.")] = False,
    model: Annotated[
        Path | None, typer.Option(help="Folder of `model import`, instead of the configured checkpoint.", exists=True)
    ] = None,
    dump_input: Annotated[
        Path | None, typer.Option(help="Write what the network is shown, one NPZ for each series, into this folder.")
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(help="Write where each score comes from, pictures and NPZ, into this folder.")
    ] = None,
) -> None:
    """Score files without a node.

    Exit status 1 only if something could not be read.
    """
    from mediqa_node.pipeline.offline import dump_network_input, score_paths
    from mediqa_node.pipeline.score_map_files import write_maps

    logs.configure(level="ERROR")  # to standard error: the answer alone goes to standard output
    settings = settings_of(context)
    judge = cache(lambda: checkpoints.open_folder(settings, model) if model else checkpoints.open_active(settings))
    also = [dump_network_input(dump_input)] if dump_input else []
    also += [write_maps(maps)] if maps else []
    with progress("scoring") as advance:
        results, unreadable = score_paths(paths, judge=judge, advance=advance, also=also)
    if as_json:
        typer.echo(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        _print_scores(results)
    for path, reason in unreadable:
        typer.echo(f"{path}: {reason}", err=True)
    if any(not result["trained"] for result in results if result["raw_score"] is not None):
        typer.echo("UNTRAINED WEIGHTS: these scores have no meaning.", err=True)
    typer.echo("Research use only – not for diagnosis.", err=True)
    sys.exit(1 if unreadable else 0)


def _print_scores(results: list[dict[str, object]]) -> None:
    rows = []
    for result in results:
        prompt = result["prompt"] or {}
        assert isinstance(prompt, dict)
        words = " ".join(str(prompt[key]["value"]) for key in _PROMPTS if key in prompt)
        quality = result["quality"]
        rows.append(
            (
                str(result["series_instance_uid"])[-24:],
                f"{quality:.2f}" if isinstance(quality, float) else _raw(result["raw_score"]),
                str(result["verdict"] or "–"),
                words or str(result["modality"]),
                str(result["not_scored"] or ""),
            )
        )
    table(("series", "score", "verdict", "what", "not scored because"), rows)
    for row, result in zip(rows, results, strict=True):
        if result["predicted"]:
            typer.echo(f"{row[0]}  {_looks_like(result['predicted'])}")


def _raw(score: object) -> str:
    """A raw score, where the checkpoint maps none to 0..1."""
    return f"raw {score:.3f}" if isinstance(score, float) else "–"


def _looks_like(predicted: Any) -> str:
    """What the parameter head says beside what was recorded: `looks like 150 mA.s; 120 recorded, +25 %`."""
    said = f"looks like {predicted['value']:.3g} {predicted['unit']}"
    recorded = predicted["recorded"]
    if not recorded:
        return f"{said}; nothing recorded"
    return f"{said}; {recorded:.3g} recorded, {predicted['deviation'] / recorded:+.0%}"
