"""The command line: words in, sentences and exit codes out; no logic.

The answer comes first, numbers are aligned, the next step is last. `--json` is for machines.
Exit status: 0 good, 1 not good, 2 misused.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mediqa_node import __version__
from mediqa_node.domain.errors import CheckpointRefused, ConfigurationError, MediqaError

app = typer.Typer(
    name="mediqa-node",
    help="Says how good a CT, MR or fundus image is while the patient is still on the table. "
    "Research use only, not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help and errors: a box would break long paths
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mediqa-node {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Configuration file; else $MEDIQA_CONFIG, else ./config/node.yaml."),
    ] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.obj = {"config": config, "log_level": log_level}


def register() -> None:
    """Import the modules that add their commands to the application."""
    from mediqa_node.cli import (  # noqa: F401 (they register their commands)
        annotations,
        constancy,
        doctor,
        explain,
        export,
        model,
        node,
        promotion,
        score,
        shadow,
        tools,
    )


def main() -> None:
    """Run the command line; an error of ours is one sentence, never a traceback."""
    register()
    try:
        app()
    except MediqaError as error:
        print(f"mediqa-node: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2 if isinstance(error, ConfigurationError | CheckpointRefused) else 1)
