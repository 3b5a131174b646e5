"""Commands of the running node."""

import sys
from typing import Annotated

import typer

from mediqa_node import service
from mediqa_node.cli import app
from mediqa_node.cli.common import arguments_of, settings_of, start_logging


@app.command()
def serve(context: typer.Context) -> None:
    """Run the node until it is stopped: receive, judge, deliver."""
    start_logging(context)
    settings = settings_of(context)
    sys.exit(service.serve(settings, arguments_of(context, settings)))


@app.command(hidden=True)
def process(context: typer.Context, role: Annotated[str, typer.Argument(help="receiver, worker or courier")]) -> None:
    """Run one of the node's processes; `serve` starts them."""
    start_logging(context)
    if role not in service.ROLES:
        raise typer.BadParameter(f"must be one of {', '.join(service.ROLES)}")
    sys.exit(service.run_role(role, settings_of(context)))
