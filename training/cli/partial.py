"""`mediqa-train partial`: does a score say more of a degradation than the measures do?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli.present import count, table
from mediqa_node.domain.errors import ConfigurationError
from training.cli.app import CollectionManifest, app, progress
from training.cli.checkpoints import lock_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.simulate.degraded import BaseImage


@app.command()
def partial(
    collection: Annotated[
        Path, typer.Argument(help="Folder with a folder of DICOM series or photographs for each source.")
    ],
    manifest: CollectionManifest = None,
    checkpoint: Annotated[Path, typer.Option(help="Folder of a checkpoint, or `default` for the shipped one.")] = Path(
        "default"
    ),
    source: Annotated[
        list[str] | None,
        typer.Option(help="Source to use. May be repeated. Default: all that the checkpoint was not trained on."),
    ] = None,
    slices: Annotated[int, typer.Option(min=1, help="Number of slices of each modality at most.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the degradations and of the bootstrap.")] = 5,
) -> None:
    """Print whether the score follows a degradation at fixed noise, sharpness and other measures.

    Copies of slices are degraded, measured and scored. The partial Spearman correlation of score and severity, given
    the measures, is what the score says beyond them; it is 0 for a score that only repeats them.
    """
    from tempfile import TemporaryDirectory

    from mediqa_node.model.checkpoint import load_whole
    from training.data.collection import read_collection
    from training.data.store import Store
    from training.evaluate.fixed_measures import MEASURE_HEADS, SCORE_HEADS, by_factor, measure_rows, score_rows
    from training.evaluate.measured_copies import measured_copies, slices_of, unseen

    sets = read_collection(collection, manifest)
    network, card, regressors = load_whole(*lock_of(checkpoint))
    sources = unseen(sets, card, source or ())
    with TemporaryDirectory(prefix="mediqa-partial-") as folder, progress("reading") as advance:
        bases = slices_of(sources, card.preprocess, slices)
        if not bases:
            raise ConfigurationError(f"no slice of CT, MR or fundus that a node would score in {', '.join(sources)}")
        copies = measured_copies(network, card, regressors, bases, Store(Path(folder)), seed=seed, advance=advance)
    _print_sources(bases, named=bool(source))
    found = [one for each in copies.values() for one in by_factor(each, seed=seed)]
    table(SCORE_HEADS, list(score_rows(found)))
    typer.echo("")
    table(MEASURE_HEADS, list(measure_rows(found)))
    typer.echo(
        "\nSpearman within slices. Scores: 1 if the score always falls as the severity rises. In brackets 95 %, "
        "bootstrap over slices.\nGiven are all measures, and on which copies one is not measurable. * should show the "
        "factor; slices in which it cannot be measured are left out."
    )


def _print_sources(bases: "Sequence[BaseImage]", *, named: bool) -> None:
    which = "named sources" if named else "sources that the checkpoint was not trained on"
    typer.echo(f"{count(len(bases), 'slice')} of {which}:")
    for modality in dict.fromkeys(base.modality for base in bases):
        names = [base.source for base in bases if base.modality == modality]
        typer.echo(f"  {modality}: " + ", ".join(f"{name} ({names.count(name)})" for name in dict.fromkeys(names)))
    typer.echo("")
