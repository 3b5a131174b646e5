"""`mediqa-train series`: the score of every series of a collection as it came from the scanner."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from mediqa_node.cli.present import table
from training.cli.app import CollectionManifest, app, progress, require
from training.cli.checkpoints import lock_of

if TYPE_CHECKING:
    from training.evaluate.series import ScoredSeries


@app.command()
def series(
    collection: Annotated[
        Path, typer.Option(help="Folder with a folder of DICOM series or photographs for each source.")
    ],
    manifest: CollectionManifest = None,
    checkpoint: Annotated[Path, typer.Option(help="Folder of a checkpoint, or `default` for the shipped one.")] = Path(
        "default"
    ),
    held_out: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Source that the checkpoint was not trained on. May be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for a contact sheet, in order of score (PNG).")] = None,
) -> None:
    """Compare the score of every series with its own quality: noise, resolution or blur as measured.

    Sets with split `refuse` are listed with the reason why a node does not score them.
    """
    from mediqa_node.model.predict import load_scorer
    from training.data.collection import check_held_out, read_collection
    from training.evaluate.series import scored_series

    if out is not None:
        require("matplotlib")
    sets = read_collection(collection, manifest)
    check_held_out((one.source for one in sets), held_out or ())
    name, lock = lock_of(checkpoint)
    scorer = load_scorer(name, lock=lock)
    found = []
    with progress("scoring") as advance:
        for done, one in enumerate(sets):
            advance(done, len(sets), one.name)
            found += [(one.split, each) for each in scored_series([one], scorer)]
    patients = sorted((each for split, each in found if split == "dev"), key=lambda each: each.score)
    table(_HEADS, [_row(each, held_out or ()) for each in patients])
    typer.echo("")
    table(_REFUSED, [(each.name, *_outcome(each)) for split, each in found if split == "refuse"])
    typer.echo("\n" + "\n".join(_gates(patients, held_out or ())))
    if out is not None:
        from training.evaluate.plots import draw_series

        draw_series(patients, out)
        typer.echo(f"wrote {out}")


_HEADS = ("score", "own quality", "fits", "series", "modality", "region", "type", "held out", "not scored")
_REFUSED = ("must not be scored", "outcome", "why")


def _row(one: "ScoredSeries", held_out: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    fits = "yes" if one.holds else "NO"
    held = "yes" if one.source in held_out else ""
    why = one.refused or one.outside or ""
    return (f"{one.score:.2f}", f"{one.quality:.2f}", fits, one.name, one.modality, one.region, one.type, held, why)


def _outcome(one: "ScoredSeries") -> tuple[str, str]:
    why = one.refused or one.outside
    return ("refused", why) if why else (f"SCORED {one.score:.2f}", "")


def _gates(patients: "list[ScoredSeries]", held_out: list[str] | tuple[str, ...]) -> list[str]:
    """Return the share of series whose score fits, and of patients that are refused."""
    from training.evaluate.gates import verdict
    from training.evaluate.series import CLEAN_GATE

    lines = []
    for name, mine in (
        ("held-out series", [one for one in patients if one.source in held_out]),
        ("series", patients),
    ):
        if mine:
            share = float(np.mean([one.holds for one in mine]))
            gate = f" {verdict(share >= CLEAN_GATE, f'{CLEAN_GATE:.0%}')}" if name != "series" else ""
            lines.append(f"{share:.0%} of {len(mine)} {name} have a score that fits their own quality{gate}")
    outside = sum(one.outside is not None and one.refused is None for one in patients)
    lines.append(f"{outside} of {len(patients)} series of patients are outside of the training range")
    return lines
