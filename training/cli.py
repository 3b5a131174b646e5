"""`mediqa-train`: the entry point of training."""

import typer

from mediqa_node import __version__

app = typer.Typer(
    name="mediqa-train",
    help="Trains MedIQA. This release has no training commands yet: the node harvests the labels for them.",
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def _main(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(f"mediqa-train {__version__}: training is not part of this release; see CHANGELOG.md", err=True)
        raise typer.Exit(2)


def main() -> None:
    """Run the command line."""
    app()
