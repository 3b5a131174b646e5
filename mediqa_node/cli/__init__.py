"""The command line: parses arguments, prints results and sets the exit status; no logic.

The answer comes first, numbers are aligned, the next step is last. `--json` is for machines.
Exit status: 0 good, 1 not good, 2 misused. Heavy libraries are imported inside commands, because `--help` and every
process of a node import this package.
"""

import io
import sys
from typing import Annotated

import typer

from mediqa_node import __version__
from mediqa_node.cli.options import Commands, Config, LogLevel
from mediqa_node.domain.errors import AmbiguousKey, CheckpointRefused, ConfigurationError, MediqaError

app = typer.Typer(
    name="mediqa-node",
    cls=Commands,
    help="Receive CT, MR and fundus images by DICOM, score their quality and send the report back. "
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
    config: Config = None,
    log_level: LogLevel = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that may stand before any command."""


def register() -> None:
    """Import the modules that add their commands to the application."""
    from mediqa_node.cli import (  # noqa: F401 (they register their commands)
        annotations,
        backscore,
        baseline,
        calibrations,
        clock,
        constancy,
        doctor,
        explain,
        export,
        forward,
        measures,
        model,
        node,
        promotion,
        pull,
        retry,
        score,
        selfcheck,
        series,
        shadow,
        status,
        tools,
        users,
    )


def main() -> None:
    """Run the command line; print an expected error as one sentence instead of a traceback."""
    register()
    for stream in (sys.stdout, sys.stderr):  # a file name may hold what their encoding cannot
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except MediqaError as error:
        print(f"mediqa-node: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2 if isinstance(error, ConfigurationError | CheckpointRefused | AmbiguousKey) else 1)
