"""`mediqa-node measures`: what is measured and how, and noise, size and dose of CT series for a site's own review."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node
from mediqa_node.cli.dates import day
from mediqa_node.cli.options import Commands, Json
from mediqa_node.cli.present import as_json, count, table

measures_app = typer.Typer(
    cls=Commands, help="List what is measured, and write CT exams as a table.", no_args_is_help=True
)
app.add_typer(measures_app, name="measures")

_DAY_S = 86_400.0


@measures_app.command("list")
def list_(json: Json = False) -> None:
    """List the measured quantities.

    Each has a unit, a definition, and a method with its version and its source. Values of different versions are not
    comparable.
    """
    from mediqa_node.dicom.report.measure_codes import concept
    from mediqa_node.domain.quantities import QUANTITIES, SHOWN_UNITS

    codes = {name: concept(name) for name in QUANTITIES}
    if json:
        as_json([{**asdict(one), "code": codes[name]._asdict()} for name, one in QUANTITIES.items()])
        return
    rows = [
        (
            name,
            f"{codes[name].value}, {codes[name].scheme}",
            SHOWN_UNITS.get(one.unit, one.unit),
            one.definition,
            str(one.method),
        )
        for name, one in QUANTITIES.items()
    ]
    table(("measure", "code in reports", "unit", "definition", "method"), rows)


@measures_app.command()
def exams(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="CSV file to write. Without it: standard output.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Series measured on or after this day.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Series measured on or before this day.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write noise, size and dose of each CT series as CSV.

    The table is for a site's own review and is not the calculation of any quality measure such as CMS1056. It names
    studies and series by their UIDs, and protocols as the scanner does.
    """
    from mediqa_node.exchange.exam_table import exam_csv
    from mediqa_node.storage import measures as stored
    from mediqa_node.system.atomic import write_atomically

    start, end = day(since, "--since") or 0.0, day(until, "--until")
    with open_node(context) as (_, database), database.read() as connection:
        found = stored.newest(
            connection, since=start, until=float("inf") if end is None else end + _DAY_S, modality="CT"
        )
    content = exam_csv(found)
    if out is None:
        sys.stdout.buffer.write(content)
        return
    if out.exists() and not force:
        raise typer.BadParameter(f"{out} exists; --force replaces it", param_hint="FILE")
    write_atomically(out, content)
    typer.echo(f"{count(len(found), 'CT series', 'CT series')} in {out}")
