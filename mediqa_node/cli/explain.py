"""`mediqa-node explain`: reproduce the numbers of a report."""

import sys
from typing import Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node, quiet
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import as_json, table


@app.command()
def explain(
    context: typer.Context,
    uid: Annotated[
        str,
        typer.Argument(metavar="SERIES_OR_REPORT", help="UID of a series or a report, or the last digits of a series."),
    ],
    json: Json = False,
) -> None:
    """Score the images of a report again and compare.

    Uses the kept images and the checkpoint that the report names; for a series, the newest report. The exit status is
    1 if a number differs or something needed is missing.
    """
    from mediqa_node.composition import checkpoints, resources
    from mediqa_node.pipeline.checks.reproduce import explain as reproduce
    from mediqa_node.storage import lookup

    quiet()
    with open_node(context) as (settings, database):
        with database.read() as connection:
            series_uid = lookup.series_uid(connection, uid)
            report_uid = lookup.newest_report(connection, series_uid) if series_uid else uid
        if report_uid is None:
            typer.echo(f"series {series_uid} has no report; `mediqa-node show {uid}` has its state", err=True)
            sys.exit(1)
        node = resources.node_context(settings, database)
        found = reproduce(node, report_uid, lambda name, sha256: checkpoints.open_pinned(settings, name, sha256))
    again = found.reproduced or {}
    written = found.written or {}
    rows = [(*key, written.get(key), again.get(key)) for key in dict.fromkeys([*written, *again])]
    if json:
        names = ("group", "concept", "written", "reproduced")
        as_json(
            {
                "series_instance_uid": found.series_instance_uid,
                "reproduced": found.is_reproduced,
                "missing": list(found.missing),
                "notes": list(found.notes),
                "numbers": [dict(zip(names, row, strict=True)) for row in rows],
            }
        )
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
