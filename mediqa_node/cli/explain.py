"""`mediqa-node explain`: a report's numbers, made again."""

import json
import sys
from typing import Annotated

import typer

from mediqa_node import logs
from mediqa_node.cli import app
from mediqa_node.cli.common import open_node
from mediqa_node.cli.present import table
from mediqa_node.composition import checkpoints, resources


@app.command()
def explain(
    context: typer.Context,
    uid: Annotated[str, typer.Argument(help="SOP Instance UID of a report of this node; `mediqa-node show` has it.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Score the images of a report again and hold its numbers against the outcome.

    Uses the kept instances and the weights that the report names. Exit status 1 if a number differs, or
    if something that is needed is missing.
    """
    from mediqa_node.pipeline.checks.reproduce import explain as judge_again

    logs.configure(level="ERROR")
    with open_node(context) as (settings, database):
        node = resources.node_context(settings, database)
        found = judge_again(node, uid, lambda name, sha256: checkpoints.open_pinned(settings, name, sha256))
    again = found.reproduced or {}
    written = found.written or {}
    rows = [(*key, written.get(key), again.get(key)) for key in dict.fromkeys([*written, *again])]
    if as_json:
        names = ("group", "concept", "written", "reproduced")
        answer = {
            "series_instance_uid": found.series_instance_uid,
            "reproduced": found.is_reproduced,
            "missing": list(found.missing),
            "notes": list(found.notes),
            "numbers": [dict(zip(names, row, strict=True)) for row in rows],
        }
        typer.echo(json.dumps(answer, indent=2))
        sys.exit(not found.is_reproduced)
    if found.series_instance_uid:
        typer.echo(f"report of series {found.series_instance_uid}")
    if rows:
        table(("group", "number", "written", "reproduced"), [_cells(*row) for row in rows])
    for text in (*(f"missing: {sentence}" for sentence in found.missing), *found.notes):
        typer.echo(text)
    if not found.missing:
        same = "every number reproduced" if found.is_reproduced else "NOT REPRODUCED"
        typer.echo(f"{same}, largest difference {found.largest_difference:.1e}")
    if found.assessment is not None and not found.assessment.checkpoint.trained:
        typer.echo("UNTRAINED WEIGHTS: these scores have no meaning.", err=True)
    typer.echo("Research use only – not for diagnosis.", err=True)
    sys.exit(not found.is_reproduced)


def _cells(group: str, concept: str, *values: float | None) -> tuple[str, ...]:
    return group, concept, *("–" if value is None else f"{value:.9g}" for value in values)
