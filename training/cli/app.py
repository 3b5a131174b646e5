"""The application to which the modules of this package add their commands, and shared helpers."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node import __version__
from mediqa_node.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from mediqa_node.domain.preprocessing import PreprocessSpec
    from training.data.store import Store
    from training.data.views import Prepared

app = typer.Typer(
    name="mediqa-train",
    help="Train MedIQA on harvested labels and ratings, and make a checkpoint with its training range and gates.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

EXTRA = {"matplotlib": "matplotlib", "nibabel": "nibabel", "sklearn": "scikit-learn", "tifffile": "tifffile"}
"""Modules of the extra `train`, with the packages that provide them."""

CollectionManifest = Annotated[
    Path | None,
    typer.Option(
        help="JSON that describes the collection. Default: its manifest.json; without one every folder is a source."
    ),
]
"""The option `--manifest` of every command that reads a collection."""

Advance = Callable[[int, int, str], None]
"""Called with the amount done, the total, and the name of the next step."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"mediqa-train {__version__}")


def needed(module: str) -> str:
    """Return the message that names a missing package and how to install it."""
    return f'this command needs {EXTRA[module]}, which is not installed: pip install "mediqa-node[train]"'


def require(*modules: str) -> None:
    """Raise ConfigurationError before a run starts if a module of the extra `train` is missing."""
    for module in modules:
        if find_spec(module) is None:
            raise ConfigurationError(needed(module))


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """Show a progress bar on standard error while the block runs, if it is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name or what)


def shown(store: "Store", spec: "PreprocessSpec", processes: int = 1) -> "Prepared":
    """Return the samples of a store as network input, with a progress bar."""
    from training.data.views import prepare

    with progress("preparing images") as advance:
        return prepare(store, spec, processes=processes, advance=lambda done, total: advance(done, total, ""))
