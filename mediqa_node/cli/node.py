"""Commands that run the node, show its state and retry parked work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import arguments_of, open_node, settings_of, start_logging
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import as_json, count


@app.command()
def serve(context: typer.Context) -> None:
    """Run the node until it is stopped.

    Starts its processes: the receiver, the worker that scores, the courier that delivers reports, the forwarder if
    there are rules for it, and the web process that serves the workbench.
    """
    from mediqa_node import service

    start_logging(context)
    settings = settings_of(context)
    sys.exit(service.serve(settings, arguments_of(context, settings)))


@app.command(hidden=True)
def process(
    context: typer.Context, role: Annotated[str, typer.Argument(help="receiver, worker, courier, forwarder or web.")]
) -> None:
    """Run one of the node's processes; `serve` starts them."""
    from mediqa_node import service

    start_logging(context)
    settings = settings_of(context)
    known = (*service.workers_of(settings), *service.ALL_ROLES)
    if role not in known:
        raise typer.BadParameter(f"must be one of {', '.join(dict.fromkeys(known))}")
    sys.exit(service.run_role(role, settings))


@app.command()
def demo(
    port: Annotated[int, typer.Option(metavar="PORT", help="Port of the node; 0 picks a free one.")] = 0,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the node's data. The default is a new one.")
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="Also send an MR and a photograph, and show the workbench until Ctrl-C.")
    ] = False,
) -> None:
    """Send a real CT series through a node and show its report."""
    from mediqa_node.cli import demo as demonstration

    sys.exit(demonstration.run(port=port, folder=keep, web=web))


@app.command()
def verify(
    context: typer.Context,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Also ask every destination for the reports it received.")
    ] = True,
    json: Json = False,
) -> None:
    """Compare the database with the files and the peers.

    The exit status is 1 on any difference.
    """
    from mediqa_node.cli.progress import progress
    from mediqa_node.composition import resources
    from mediqa_node.pipeline.checks.verify import verify as compare

    with open_node(context) as (settings, database):
        node = resources.node_context(settings, database)
        with progress("checking") as advance:
            found = compare(node, ask_peers=peers, advance=advance)
    if json:
        as_json(found.as_dict())
    else:
        typer.echo(f"{count(found.n_instances, 'instance')}, {count(found.n_reports, 'report')} checked")
        for problem in found.problems:
            typer.echo(f"  {problem}")
        typer.echo("no problem found" if not found.problems else f"{count(len(found.problems), 'problem')} found")
    sys.exit(1 if found.problems else 0)
