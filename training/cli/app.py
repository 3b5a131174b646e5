"""The application that the modules of this package add their commands to, and what they share."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from mediqa_node import __version__

if TYPE_CHECKING:
    from mediqa_node.domain.preprocessing import PreprocessSpec
    from training.data.store import Store
    from training.data.views import Prepared

app = typer.Typer(
    name="mediqa-train",
    help="Training of MedIQA: from harvested labels and expert scores to a checkpoint, with its limits and its tables.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Advance = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and what is next."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"mediqa-train {__version__}")


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """Show a bar on standard error while the block runs; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name or what)


def shown(store: "Store", spec: "PreprocessSpec", processes: int = 1) -> "Prepared":
    """Return the samples of a store as the network is shown them, and tell how far it is."""
    from training.data.views import prepare

    with progress("as the network is shown it") as advance:
        return prepare(store, spec, processes=processes, advance=lambda done, total: advance(done, total, ""))
